"""HNSW graphs of pgvector, in a PostgreSQL that runs elsewhere.

A search there stops at efSearch, `hnsw.ef_search`, however long a list is asked for, and returns no
more rows than that; `hnsw.iterative_scan` lets it go on. The levels of the nodes are drawn by the
server, which takes no seed: two graphs of the same rows in the same order are still two draws.
"""

import atexit
import contextlib
import json
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import faiss
import numpy as np

from drift import InputError, add_filename
from drift.indexes.base import Index
from drift.indexes.config import GraphConfig, SearchConfig
from drift.indexes.policies import Value

if TYPE_CHECKING:
    from psycopg import Connection

MAX_EF_SEARCH = MAX_EF_CONSTRUCTION = 1000
MIN_M, MAX_M = 2, 100
# An index entry must fit into a page of 8 kB.
MAX_DIMENSIONS = {"vector": 2000, "halfvec": 4000}
# pgvector's own defaults, since the database or the user may have others.
SEARCH_DEFAULTS = {
    "ef_search": 40,
    "iterative_scan": "off",
    "max_scan_tuples": 20000,
    "scan_mem_multiplier": 1,
}
SCHEMAS = "drift_[0-9a-f]{16}"
REMARK = "An index of drift for as long as it is searched"
SESSION = {
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",  # planned once, not for each query
    "synchronize_seqscans": "off",  # a build reads the rows from the first on
    "statement_timeout": "0",
    "idle_session_timeout": "0",
}


def check_limits(M: int, ef_construction: int, ef_searches: Iterable[int]) -> None:
    """Raise an `InputError` for settings that pgvector refuses."""
    if not MIN_M <= M <= MAX_M:
        raise InputError(f"pgvector takes an M from {MIN_M} to {MAX_M}, not {M}")
    least = max(4, 2 * M)
    if not least <= ef_construction <= MAX_EF_CONSTRUCTION:
        raise InputError(
            f"pgvector with M = {M} takes an efConstruction from {least}, twice M, to "
            f"{MAX_EF_CONSTRUCTION}, not {ef_construction}"
        )
    for ef_search in ef_searches:
        if not 1 <= ef_search <= MAX_EF_SEARCH:
            raise InputError(
                f"pgvector takes an efSearch from 1 to {MAX_EF_SEARCH}, not {ef_search}: "
                "iterative_scan=strict_order goes on from there"
            )


def column_type(dimensions: int) -> str:
    """The type in which vectors are indexed: ``vector``, or ``halfvec`` where that is too large."""
    for name, most in MAX_DIMENSIONS.items():
        if dimensions <= most:
            return name
    most = MAX_DIMENSIONS["halfvec"]
    raise InputError(f"pgvector indexes up to {most} dimensions, and the vectors have {dimensions}")


class PgvectorHnsw(Index):
    """pgvector's ``hnsw`` in a schema of its own. Methods as in `drift.indexes.base.Index`.

    The one that `build` returns drops the schema when it is closed, or when Python ends. Where that
    was impossible, the next `build` in the same database does so.
    """

    def __init__(self, url: str, schema: str, type_: str):
        self.is_compressed = type_ == "halfvec"
        self.is_direct = not self.is_compressed
        self._url, self._schema, self._type = url, schema, type_
        self._table = f"{schema}.vectors"
        self._owner: Connection | None = None
        self._connections: list[Connection] = []

    @classmethod
    def check(cls, config: SearchConfig, d: int, lengths: Iterable[int]) -> None:
        ef = config.policies["ef_search"]
        efs = [] if ef.target else [ef.value(length) for length in lengths]
        check_limits(config.index.M, config.index.ef_construction, efs)
        column_type(d)

    @classmethod
    def build(cls, embeddings: np.ndarray, config: GraphConfig, url: str) -> Self:
        check_limits(config.M, config.ef_construction, ())
        index = cls(url, f"drift_{secrets.token_hex(8)}", column_type(embeddings.shape[1]))
        atexit.register(index.close)
        try:
            with _errors_in_one_line(url):
                index._build(embeddings, config)
        except BaseException:
            index.close()
            raise
        return index

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: GraphConfig) -> Self:
        place = json.loads(path.read_text())
        index = cls(place["url"], place["schema"], place["type"])
        with _errors_in_one_line(index._url):
            connection = _connect(index._url)
            index._connections.append(connection)
            # After a crash of the server the table is there again, but empty.
            if not connection.execute(f"select exists (select from {index._table})").fetchone()[0]:
                raise InputError(f"{_name(index._url)} has lost the index: build it again")
        return index

    def save(self, path: Path) -> None:
        """Write where it is; searches need the server all the same."""
        place = {"url": self._url, "schema": self._schema, "type": self._type}
        with add_filename(path):
            path.unlink(missing_ok=True)
            path.touch(0o600)  # there can be a password in the URL
            path.write_text(json.dumps(place))

    def search(
        self, points: np.ndarray, length: int, settings: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        ids = np.full((len(points), length), -1, np.int64)
        squared = np.full((len(points), length), np.inf, np.float32)
        # FAISS's setting is what --threads sets, so all libraries search with as many.
        blocks = np.array_split(np.arange(len(points)), faiss.omp_get_max_threads())
        blocks = [rows for rows in blocks if len(rows)]
        stopped = threading.Event()

        def search_block(connection: "Connection", rows: np.ndarray) -> None:
            for row in rows:
                if stopped.is_set():
                    return
                found = self._query(connection, points[row], length)
                ids[row, : len(found)], squared[row, : len(found)] = found["id"], found["squared"]

        with _errors_in_one_line(self._url), ThreadPoolExecutor(len(blocks) or 1) as pool:
            while len(self._connections) < len(blocks):
                self._connections.append(_connect(self._url))
            hnsw = {
                f"hnsw.{name}": value for name, value in {**SEARCH_DEFAULTS, **settings}.items()
            }
            for connection in self._connections:
                _set(connection, hnsw)
            try:
                list(pool.map(search_block, self._connections, blocks))
            finally:
                stopped.set()  # on Ctrl-C the others end after the query they are at
        return ids, squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return 1, MAX_EF_SEARCH

    def statistics(self) -> dict[str, Any]:
        with _errors_in_one_line(self._url):
            if not self._connections:
                self._connections.append(_connect(self._url))
            (size, server, extension) = (
                self._connections[0]
                .execute(
                    "select pg_relation_size(%s::regclass), current_setting('server_version'),"
                    " (select extversion from pg_extension where extname = 'vector')",
                    [f"{self._schema}.graph"],
                )
                .fetchone()
            )
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
                owner = _connect(self._url) if owner.closed else owner
                owner.execute(f"drop schema if exists {self._schema} cascade")
            owner.close()
        while self._connections:
            self._connections.pop().close()

    def _build(self, embeddings: np.ndarray, config: GraphConfig) -> None:
        from pgvector import HalfVector, Vector

        n, d = embeddings.shape
        self._owner = owner = _connect(self._url)
        _drop_leftovers(owner)
        owner.execute("select pg_advisory_lock(%s)", [_lock_number(self._schema)])
        owner.execute(f"create schema {self._schema}")
        owner.execute(f"comment on schema {self._schema} is '{REMARK}'")
        # Unlogged: nothing of it is for backups and replicas. The number of workers is what is
        # asked for, where the server would decide by the size of the table.
        owner.execute(
            f"create unlogged table {self._table} (id integer, embedding {self._type}({d}))"
            f" with (autovacuum_enabled = off, parallel_workers = {config.build_threads - 1})"
        )
        # In the rows, so that the distances of those found are not read from elsewhere.
        owner.execute(f"alter table {self._table} alter column embedding set storage plain")
        order = config.insertion_order(n)
        vector = HalfVector if self.is_compressed else Vector
        with owner.cursor().copy(f"copy {self._table} from stdin with (format binary)") as copy:
            copy.set_types(["int4", self._type])
            for row in range(n) if order is None else order:
                copy.write_row((int(row), vector(embeddings[row])))
        memory = min(_graph_bytes(n, d, config.M), _half_of_the_memory())
        _set(
            owner,
            {
                "maintenance_work_mem": f"{memory >> 10}kB",
                "max_parallel_maintenance_workers": config.build_threads - 1,
            },
        )
        owner.execute(
            f"create index graph on {self._table} using hnsw (embedding {self._type}_l2_ops)"
            f" with (m = {config.M}, ef_construction = {config.ef_construction})"
        )

    def _statement(self, length: int) -> str:
        # By pgvector's own function for the distance in the graph, of which <-> is the root.
        return (
            f"select id, {self._type}_l2_squared_distance(embedding, %(point)b)::real"
            f" from {self._table} order by embedding <-> %(point)b limit {length}"
        )

    def _query(self, connection: "Connection", point: np.ndarray, length: int) -> np.ndarray:
        """The rows found, nearest first, with fields ``id`` and ``squared``."""
        from pgvector import HalfVector, Vector

        vector = (HalfVector if self.is_compressed else Vector)(point)
        cursor = connection.cursor(binary=True)
        cursor.execute(self._statement(length), {"point": vector}, prepare=True)
        found = np.array(cursor.fetchall(), [("id", np.int64), ("squared", np.float32)])
        # An iterative scan in relaxed order returns them a little out of order.
        return found[np.argsort(found["squared"], kind="stable")]


def _connect(url: str) -> "Connection":
    """A session in which pgvector is known and an index is used wherever there is one."""
    import psycopg
    from pgvector.psycopg import register_vector

    options = {"connect_timeout": 10, "application_name": "drift"} | _parts(url)
    connection = psycopg.connect(**options, autocommit=True)
    try:
        found = connection.execute(
            "select quote_ident(nspname), extversion from pg_extension"
            " join pg_namespace on pg_namespace.oid = extnamespace where extname = 'vector'"
        ).fetchone()
        if found is None:
            raise InputError(f"{_name(url)} has no pgvector: run create extension vector; there")
        schema, version = found
        if tuple(int(part) for part in version.split(".")[:2]) < (0, 8):
            raise InputError(f"{_name(url)} has pgvector {version}: 0.8 or later is needed")
        _set(connection, {**SESSION, "search_path": schema})
        connection.execute("select '[0]'::vector")  # loads the library, which knows its settings
        register_vector(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: "Connection", settings: Mapping[str, int | float | str]) -> None:
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    values = [text for name, value in settings.items() for text in (name, str(value))]
    connection.execute(f"select {calls}", values)


def _drop_leftovers(connection: "Connection") -> None:
    """Drop schemas of this user whose session is gone, and with it the lock on their number."""
    schemas = connection.execute(
        "select nspname from pg_namespace where nspname ~ %s and nspowner = current_user::regrole"
        " and obj_description(oid, 'pg_namespace') = %s",
        [f"^{SCHEMAS}$", REMARK],
    ).fetchall()
    for (schema,) in schemas:
        number = [_lock_number(schema)]
        if connection.execute("select pg_try_advisory_lock(%s)", number).fetchone()[0]:
            connection.execute(f"drop schema if exists {schema} cascade")
            connection.execute("select pg_advisory_unlock(%s)", number)


def _lock_number(schema: str) -> int:
    return int(schema.removeprefix("drift_"), 16) - 2**63


def _graph_bytes(n: int, d: int, M: int) -> int:
    """About what a graph takes while it is built, a little more rather than less."""
    return (64 << 20) + n * (4 * d + 64 * M + 512)


def _half_of_the_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@contextlib.contextmanager
def _errors_in_one_line(url: str) -> Iterator[None]:
    """Turn whatever the server or the way to it reports into an `InputError`."""
    try:
        import pgvector.psycopg  # noqa: F401
        import psycopg
    except ImportError as error:
        needed = "pip install -r requirements-backends.txt"
        raise InputError(f"searching in pgvector needs {needed} ({error})") from error
    try:
        yield
    except psycopg.Error as error:
        reason = " ".join((error.diag.message_primary or str(error)).split())
        raise InputError(f"{_name(url)}: {reason}") from error


def _parts(url: str) -> dict[str, Any]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return conninfo_to_dict(url)
    except ProgrammingError:
        pass
    # Outside, so that no part of it, a password perhaps, is in the error or behind it.
    raise InputError("the URL of the database is none: write postgresql://USER@HOST:5432/DATABASE")


def _name(url: str) -> str:
    """What a database is called in messages, without user and password."""
    parts = _parts(url)
    host = parts.get("host") or parts.get("hostaddr") or "this machine"
    return f"PostgreSQL at {host}"
