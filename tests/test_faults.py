"""A few tries of each fault on each stage; ``make faults`` makes many."""

import numpy as np
import pytest

from tests.faults import FAULTS, STAGES, Bench, fill_the_disk, mounting_allowed


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost(fault, stage, bench):
    if fault is fill_the_disk and not mounting_allowed():
        pytest.skip("no small disk can be mounted here; the limit on file sizes stands for it")
    fault(bench, stage, np.random.default_rng(0))
