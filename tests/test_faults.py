"""A few tries of each fault on each stage; ``make faults`` makes many."""

import resource
from functools import partial

import numpy as np
import pytest

from drift.indexes import build_index
from drift.indexes.config import GraphConfig
from tests.faults import (
    FAULTS,
    STAGES,
    Bench,
    count_writes,
    fill_the_disk,
    mounting_allowed,
    writes,
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost(fault, stage, bench):
    if fault is fill_the_disk and not mounting_allowed():
        pytest.skip("no small disk can be mounted here; the limit on file sizes stands for it")
    fault(bench, stage, np.random.default_rng(0))


def test_what_was_decided_is_committed_by_the_next_script(bench):
    _, _, exact, search, *_ = STAGES
    start = bench.base / f"other {exact.name}"
    seen = set()
    for countdown in range(writes(bench, exact, start), 0, -1):
        with bench.copy(start) as folder:
            arguments = (countdown, str(folder), str(folder.parent / "counted"))
            bench.run(exact, folder, prepare=partial(count_writes, *arguments))
            unfinished = folder / ".partial/03_exact"
            if not (unfinished / "manifest.json").exists():
                if seen:
                    break
                continue  # too late, it was in place already
            seen.add(frozenset(path.name for path in unfinished.iterdir()))
            ended = bench.run(search, folder)
            assert ended.status == 0, ended.err
            bench.is_as_undisturbed(search, folder)
    assert len(seen) > 3


@pytest.mark.parametrize("backend", ["faiss", "hnswlib", "usearch"])
def test_index_that_does_not_fit_is_an_error_that_names_its_file(backend, tmp_path):
    x = np.random.default_rng(0).random((300, 16), dtype=np.float32)
    index = build_index(GraphConfig(backend, 8, 40), x)
    path = tmp_path / "index"
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
