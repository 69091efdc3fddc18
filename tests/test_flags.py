"""Random combinations of flags through stages 03 to 06: each ends well, or in one line."""

import numpy as np
import pytest

from tests.conftest import ROOT

N, D = 200, 4
# What a command ended in a traceback with, once.
KNOWN = [
    # At the few k that are drawn of both, nothing is known of costs.
    ["03 --k-max 60", "04 --runs hnswlib:50", "04 --runs faiss:50 --k 50", "05", "06 --dpi 30"],
]
CHOICES = {
    "03": [
        ("--k-max 60", "--k-max 60", "--k-max 12"),
        ("", "", "--protocol notebook", "--protocol paper", "--queries 30", "--queries q.npy"),
    ],
    "04": [
        (
            *("", "--runs faiss:1", "--runs faiss:k hnswlib:2k", "--runs faiss:0.25k usearch:20"),
            *("--runs faiss:2..99", "--runs IVF8,Flat:nprobe=1..8", "--lists other:ef=9 ids.npy"),
            *("--runs faiss:overlap=0.9 faiss:50", "--runs faiss:lid=0.1", "--runs PQ2x4fs Flat"),
            *("--runs IVF8,Flat:nprobe=overlap=0.8", "--runs HNSW8,Flat HNSW8_SQ8:efSearch=9"),
            *("--runs IVF4,PQ2x4,RFlat:nprobe=2,k_factor=3", "--lists other ids.npy"),
            "--runs faiss:3 --lists other ids.npy distances.npy --seconds 1",
        ),
        ("", "", "--k 10", "--k 1 2 10", "--k-step 7", "--k-min 2 --k-max 10", "--k 60"),
        ("", "", "--m 4 --ef-construction 8", "--m 2", "--seeds 0 1", "--seed 5"),
        ("", "--save-index", "--replace", "--force --threads 1"),
    ],
    "05": [("", "", "--k-of-interest 10", "--k-of-interest 3"), ("", "--seed 1")],
    "06": [("--dpi 30",), ("", "--gallery 0", "--gallery-k 10", "--gallery-run Flat")],
}


def combination(seed):
    rng = np.random.default_rng(seed)
    return [
        " ".join([stage, *(str(rng.choice(flags)) for flags in CHOICES[stage])])
        for stage in ("03", "04", "04", "05", "06")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The vectors, and files that flags name."""
    folder, rng = tmp_path_factory.mktemp("flags"), np.random.default_rng(0)
    x = rng.normal(size=(N, D)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "q.npy", x[:20] + 0.1)
    distances = np.linalg.norm(x[:, None] - x, axis=2)
    ids = np.argsort(distances, axis=1)[:, 1:41]
    np.save(folder / "ids.npy", ids)
    np.save(folder / "distances.npy", np.take_along_axis(distances, ids, axis=1))
    return folder


@pytest.mark.parametrize(
    "commands", [*KNOWN, *map(combination, range(12))], ids=lambda commands: " | ".join(commands)
)
def test_every_combination_of_flags_ends_well_or_in_one_line(
    commands, folder, tmp_path, drive, draw_only, monkeypatch
):
    if commands not in KNOWN:
        draw_only("overlap", "images", "frontier")
    scripts = {path.name[:2]: path.name for path in ROOT.glob("0*.py")}
    monkeypatch.chdir(folder)
    for command in ["02 --from-file x.npy", *commands]:
        stage, *flags = command.split()
        status, out, err = drive(scripts[stage], *flags, results=tmp_path)
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert (status, len(lines)) in ((0, 0), (2, 1)), f"{command}: {err}"
        assert "nan" not in out.lower().split(), out
