"""A few tries of each fault; ``make faults`` makes many, of each on every stage."""

import resource

import numpy as np
import pytest

from drift import InputError
from drift.indexes.base import save_whole
from drift.indexes.registry import index_class, parse_run
from tests.faults import (
    FAULTS,
    STAGES,
    Bench,
    fill_the_disk,
    kill_before_a_write,
    mounting_allowed,
)

# Each kind of fault on one stage, a kill before a write on all.
TRIES = [
    (fault, stage)
    for i, fault in enumerate(FAULTS, start=1)
    for stage in (STAGES if fault is kill_before_a_write else [STAGES[i % len(STAGES)]])
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    ("fault", "stage"), TRIES, ids=[f"{fault.__name__}-{stage.name}" for fault, stage in TRIES]
)
def test_nothing_is_lost(fault, stage, bench):
    if fault is fill_the_disk and not mounting_allowed():
        pytest.skip("no small disk can be mounted here; the limit on file sizes stands for it")
    fault(bench, stage, np.random.default_rng(0))


@pytest.mark.parametrize("library", ["faiss", "hnswlib", "usearch"])
def test_index_that_does_not_fit_is_an_error_that_names_its_file(library, tmp_path):
    x = np.random.default_rng(0).random((300, 16), dtype=np.float32)
    run = parse_run(f"{library}:50", M=8, ef_construction=40)
    index, path = index_class(run).build(x, run), tmp_path / "index"
    index.save(path)
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            index.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    index.save(path)
    assert path.read_bytes() == whole
    # What a library cannot read, as when it comes from elsewhere.
    for content in (b"", whole[: len(whole) // 2], b"x" * 1000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{path} cannot be read .*: remove it, then"):
            index_class(run).load(path, x, run)


def test_index_of_which_a_library_never_writes_all_is_an_error(tmp_path):
    path = tmp_path / "index"
    with pytest.raises(OSError, match="not all of it") as caught:
        save_whole(path, lambda name: path.write_bytes(b"x"), 2)
    assert caught.value.filename == str(path)
