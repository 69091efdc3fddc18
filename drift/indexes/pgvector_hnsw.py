"""HNSW graphs of pgvector, in a PostgreSQL that runs elsewhere.

A search there stops at efSearch, `hnsw.ef_search`, however long a list is asked for, and returns no
more rows than that; `hnsw.iterative_scan` lets it go on. The levels of the nodes are drawn by the
server, which takes no seed: two graphs of the same rows in the same order are still two draws.
"""

import atexit
import contextlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from drift import InputError, add_filename
from drift.indexes.base import Index, Nearest
from drift.indexes.run import Run, Value

MAX_EF = 1000  # of efSearch and efConstruction
# pgvector's own defaults, since the database or the user may have others.
SEARCH_DEFAULTS = {"iterative_scan": "off", "max_scan_tuples": 20000, "scan_mem_multiplier": 1}
REMARK = "An index of drift for as long as it is searched"
SESSION = {
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",  # planned once, not for each query
    "synchronize_seqscans": "off",  # a build reads the rows from the first on
    "statement_timeout": "0",
    "idle_session_timeout": "0",
}


def column_type(dimensions: int) -> str:
    """The type in which vectors are indexed, of which one must fit into a page of 8 kB."""
    if dimensions > 4000:
        raise InputError(
            f"pgvector indexes up to 4000 dimensions, and the vectors have {dimensions}"
        )
    return "vector" if dimensions <= 2000 else "halfvec"


class PgvectorHnsw(Index):
    """pgvector's ``hnsw`` in a schema of its own. Methods as in `drift.indexes.base.Index`.

    What `build` returns drops the schema when it is closed, or when Python ends; or else the next
    `build` in the same database does.
    """

    packages = ("psycopg", "pgvector.psycopg")
    options: ClassVar = {"iterative_scan": ("off", "relaxed_order", "strict_order")}

    def __init__(self, url: str, schema: str, dimensions: int):
        from pgvector import HalfVector, Vector

        self._url, self._schema, self._type = url, schema, column_type(dimensions)
        self.is_compressed = self._type == "halfvec"
        self.is_direct = not self.is_compressed
        self._vector = HalfVector if self.is_compressed else Vector
        self._table = f"{schema}.vectors"
        self._owner: Any = None
        self._connections: list[Any] = []

    @classmethod
    def check(cls, run: Run, d: int, lengths: Sequence[int]) -> None:
        super().check(run, d, lengths)
        ranges = [("M", run.M, 2, 100)]
        ranges += [("efConstruction", run.ef_construction, 2 * run.M, MAX_EF)]
        ranges += [("efSearch", run.values(n, 1)["ef_search"], 1, MAX_EF) for n in lengths]
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise InputError(f"pgvector takes an {name} from {low} to {high}, not {value}")
        column_type(d)

    @classmethod
    def build(cls, embeddings: np.ndarray, run: Run, url: str) -> Self:
        index = cls(url, f"drift_{secrets.token_hex(8)}", embeddings.shape[1])
        atexit.register(index.close)
        try:
            with _errors_in_one_line(url):
                index._build(embeddings, run)
        except BaseException:
            index.close()
            raise
        return index

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, run: Run) -> Self:
        index = cls(*json.loads(path.read_text()), embeddings.shape[1])
        with _errors_in_one_line(index._url):
            (connection,) = index._sessions(1)
            # After a crash of the server the table is there again, but empty.
            if not connection.execute(f"select exists (select from {index._table})").fetchone()[0]:
                raise InputError(f"{_name(index._url)} has lost the index: build it again")
        return index

    @classmethod
    def stop_rule(cls, run: Run, length: int, ef_search: int) -> dict[str, int]:
        rule = super().stop_rule(run, length, ef_search)
        if run.search.get("iterative_scan", "off") == "off":
            rule["candidates"] = rule["stops_after"] = ef_search
        return rule

    def save(self, path: Path) -> None:
        """Write where it is; searches need the server all the same."""
        with add_filename(path):
            path.unlink(missing_ok=True)
            path.touch(0o600)  # there can be a password in the URL
            path.write_text(json.dumps([self._url, self._schema]))

    def search(self, points: np.ndarray, length: int, settings: Mapping[str, Value]) -> Nearest:
        ids = np.full((len(points), length), -1, np.int64)
        squared = np.full((len(points), length), np.inf, np.float32)
        # FAISS's setting is what --threads sets, so all libraries search with as many.
        threads = min(faiss.omp_get_max_threads(), len(points)) or 1
        stopped = threading.Event()

        def search_block(connection: Any, rows: np.ndarray) -> None:
            cursor = connection.cursor(binary=True)
            for row in rows:
                if stopped.is_set():
                    return
                point = {"point": self._vector(points[row])}
                found = cursor.execute(self._statement(length), point, prepare=True).fetchall()
                neighbors = np.array(found, [("id", np.int64), ("squared", np.float32)])
                # An iterative scan in relaxed order returns them a little out of order.
                neighbors = neighbors[np.argsort(neighbors["squared"], kind="stable")]
                ids[row, : len(neighbors)] = neighbors["id"]
                squared[row, : len(neighbors)] = neighbors["squared"]

        with _errors_in_one_line(self._url), ThreadPoolExecutor(threads) as pool:
            connections = self._sessions(threads)
            settings = {**SEARCH_DEFAULTS, **settings}
            for connection in connections:
                _set(connection, {f"hnsw.{name}": value for name, value in settings.items()})
            try:
                blocks = np.array_split(np.arange(len(points)), threads)
                list(pool.map(search_block, connections, blocks))
            finally:
                stopped.set()  # on Ctrl-C the others end after the query they are at
        return ids, squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return 1, MAX_EF

    def statistics(self) -> dict[str, Any]:
        with _errors_in_one_line(self._url):
            (connection,) = self._sessions(1)
            (size, server, extension) = connection.execute(
                "select pg_relation_size(%s::regclass), current_setting('server_version'),"
                " (select extversion from pg_extension where extname = 'vector')",
                [f"{self._schema}.graph"],
            ).fetchone()
        return {
            "index_bytes": size,
            "server_version": server,
            "pgvector_version": extension,
            "column_type": self._type,
            "compressed": self.is_compressed,
        }

    def close(self) -> None:
        """Drop the schema, if this is what made it, and leave the server."""
        atexit.unregister(self.close)
        owner, self._owner = self._owner, None
        if owner is not None:
            # A server that cannot be reached any more is cleared by the next build.
            with contextlib.suppress(InputError), _errors_in_one_line(self._url):
                if owner.info.transaction_status.name != "IDLE":
                    # An interruption can come between two calls, and leave a statement at work.
                    if not owner.closed:
                        owner.cancel()
                        owner.close()
                    owner = _connect(self._url)
                owner.execute(f"drop schema if exists {self._schema} cascade")
            owner.close()
        while self._connections:
            self._connections.pop().close()

    def _sessions(self, n: int) -> list[Any]:
        while len(self._connections) < n:
            self._connections.append(_connect(self._url))
        return self._connections[:n]

    def _build(self, embeddings: np.ndarray, run: Run) -> None:
        n, d = embeddings.shape
        self._owner = owner = _connect(self._url)
        _drop_leftovers(owner)
        owner.execute("select pg_advisory_lock(%s)", [_lock_number(self._schema)])
        owner.execute(f"create schema {self._schema}")
        owner.execute(f"comment on schema {self._schema} is '{REMARK}'")
        # Unlogged: nothing of it is for backups and replicas. The number of workers is what is
        # asked for, where the server would decide by the size of the table.
        workers = run.build["threads"] - 1
        owner.execute(
            f"create unlogged table {self._table} (id integer, embedding {self._type}({d}))"
            f" with (autovacuum_enabled = off, parallel_workers = {workers})"
        )
        # In the rows, so that distances are not computed from what is read elsewhere.
        owner.execute(f"alter table {self._table} alter column embedding set storage plain")
        with owner.cursor().copy(f"copy {self._table} from stdin with (format binary)") as copy:
            copy.set_types(["int4", self._type])
            for row in run.insertion_order(n):
                copy.write_row((int(row), self._vector(embeddings[row])))
        # What a graph takes while it is built, rather more than less; at most half of the memory.
        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        kilobytes = min((64 << 20) + n * (4 * d + 64 * run.M + 512), half) >> 10
        settings = {"maintenance_work_mem": f"{kilobytes}kB"}
        _set(owner, settings | {"max_parallel_maintenance_workers": workers})
        owner.execute(
            f"create index graph on {self._table} using hnsw (embedding {self._type}_l2_ops)"
            f" with (m = {run.M}, ef_construction = {run.ef_construction})"
        )

    def _statement(self, length: int) -> str:
        # By pgvector's own function for the distance in the graph, of which <-> is the root.
        return (
            f"select id, {self._type}_l2_squared_distance(embedding, %(point)b)::real"
            f" from {self._table} order by embedding <-> %(point)b limit {length}"
        )


def _connect(url: str) -> Any:
    """A session in which pgvector is known and an index is used wherever there is one."""
    import psycopg
    from pgvector.psycopg import register_vector

    options = {"connect_timeout": 10, "application_name": "drift"} | _parts(url)
    connection = psycopg.connect(**options, autocommit=True)
    try:
        extension = connection.execute(
            "select quote_ident(nspname), extversion from pg_extension"
            " join pg_namespace on pg_namespace.oid = extnamespace where extname = 'vector'"
        ).fetchone()
        if extension is None:
            raise InputError(f"{_name(url)} has no pgvector: run create extension vector; there")
        schema, version = extension
        if tuple(int(part) for part in version.split(".")[:2]) < (0, 8):
            raise InputError(f"{_name(url)} has pgvector {version}: 0.8 or later is needed")
        _set(connection, {**SESSION, "search_path": schema})
        connection.execute("select '[0]'::vector")  # loads the library, which knows its settings
        register_vector(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: Any, settings: Mapping[str, int | float | str]) -> None:
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    values = [text for name, value in settings.items() for text in (name, str(value))]
    connection.execute(f"select {calls}", values)


def _drop_leftovers(connection: Any) -> None:
    """Drop schemas of this user whose session is gone, and with it the lock on their number."""
    schemas = connection.execute(
        "select nspname from pg_namespace where nspname ~ %s and nspowner = current_user::regrole"
        " and obj_description(oid, 'pg_namespace') = %s",
        ["^drift_[0-9a-f]{16}$", REMARK],
    ).fetchall()
    for (schema,) in schemas:
        number = [_lock_number(schema)]
        if connection.execute("select pg_try_advisory_lock(%s)", number).fetchone()[0]:
            connection.execute(f"drop schema if exists {schema} cascade")
            connection.execute("select pg_advisory_unlock(%s)", number)


def _lock_number(schema: str) -> int:
    return int(schema.removeprefix("drift_"), 16) - 2**63


@contextlib.contextmanager
def _errors_in_one_line(url: str) -> Iterator[None]:
    """Turn whatever the server or the way to it reports into an `InputError`."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        reason = " ".join((error.diag.message_primary or str(error)).split())
        raise InputError(f"{_name(url)}: {reason}") from error


def _parts(url: str) -> dict[str, Any]:
    import psycopg

    # Of a password with one of @/? in it libpq would take the rest for a host, and name that.
    if re.fullmatch(r"(\w+://([^@/?]*@)?[^@]*|(?!\w+:).*)", url):
        with contextlib.suppress(psycopg.ProgrammingError):
            return psycopg.conninfo.conninfo_to_dict(url)
    # Outside, so that no part of it, a password perhaps, is in the error or behind it.
    raise InputError(
        "the URL of the database is none: write postgresql://USER@HOST:5432/DATABASE, and the "
        "password into PGPASSWORD or ~/.pgpass (in a URL, %40 for @, %2F for /, %3F for ?)"
    )


def _name(url: str) -> str:
    """What a database is called in messages, without user and password."""
    parts = _parts(url)
    host = parts.get("host") or parts.get("hostaddr") or "this machine"
    return f"PostgreSQL at {host}"
