"""The page in a real browser, and stage 06 as a whole."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from drift import figures, page, provenance, report
from drift.artifacts import manifest_hash
from tests.conftest import GRID, RUNS, K, N, shell
from tests.test_pipeline import lists_of_another_system

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium, for instance"
)
PLOTS = [
    *("overlap", "distribution", "found", "distances", "barycenter_shift"),
    *("lid", "hubness", "speed", "images"),
]
WIDTHS = (390, 1400)
A4 = 794 - 106  # width between the margins of the print, in pixels


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox of its own.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open a page offline, and return it with what it asked for and what it complained about."""
    contexts = []

    def open_page(path, width=1400, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.set_offline(True)
        opened, asked, said = context.new_page(), [], []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(path.as_uri())
        return opened, [url for url in asked if not url.startswith("data:")], said

    yield open_page
    for context in contexts:
        context.close()


def check_opened(path, opened, asked, said):
    """What holds of every page: no request, no complaint, nothing out of sight."""
    assert asked == [path.as_uri()]
    assert said == []
    width, room = opened.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= room, "the page scrolls sideways"
    pictures = opened.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt, i.width])")
    assert pictures
    for natural_width, alt, drawn_width in pictures:
        assert natural_width > 0
        assert drawn_width > 30
        assert alt
    ranks = [int(name[1]) for name in opened.evaluate(HEADINGS)]
    assert ranks[0] == 1
    assert ranks.count(1) == 1
    assert (np.diff(ranks) <= 1).all(), "a heading leaves out a rank"


HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => h.tagName)"
TABLES = """Object.fromEntries([...document.querySelectorAll('table')].map(table => [
    table.closest('section').querySelector('h3').textContent,
    [...table.rows].map(row => [...row.cells].map(cell => cell.textContent))]))"""


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_offline_on_a_phone_and_on_a_wide_screen(finished, visit, width, scheme):
    path = finished / "06_report.html"
    opened, asked, said = visit(path, width, color_scheme=scheme)
    check_opened(path, opened, asked, said)
    assert opened.evaluate("document.images.length") >= len(PLOTS)
    red = re.findall(r"\d+", opened.evaluate("getComputedStyle(document.body).backgroundColor"))[0]
    assert (int(red) < 60) == (scheme == "dark")
    assert opened.evaluate("document.scripts.length") == 0


@needs_browser
def test_values_in_the_page_are_those_of_the_curves(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    tables = opened.evaluate(TABLES)
    curves = pd.read_parquet(finished / "05_curves.parquet").set_index(["run", "metric", "k"])
    labels = dict(
        zip(
            RUNS, ("FAISS, efSearch 50", "FAISS, efSearch = k", "hnswlib, efSearch 50"), strict=True
        )
    )
    for run, label in labels.items():
        head, *rows = tables[f"Curves: {label}"]
        assert head == ["metric", *(f"k = {k}" for k in GRID)]
        shown = {name: cells for name, *cells in rows}
        assert {"overlap", "found", "lid_ann", "orphans_ann", "overlap ci_low"} <= set(shown)
        for name, cells in shown.items():
            metric, _, column = name.partition(" ")
            for k, cell in zip(GRID, cells, strict=True):
                expected = curves.loc[(run, metric, k), column or "mean"]
                # What is no more than the rounding of the LIDs is shown as no difference.
                rounding = 1e-6 * curves.loc[(run, "lid_exact", k), "mean"]
                least = rounding if metric == "lid_difference" else 1e-9
                assert float(cell) == pytest.approx(expected, rel=6e-4, abs=least), (name, k)
    safe_k = pd.read_parquet(finished / "05_safe_k.parquet")
    head, *rows = tables["Safe k"]
    assert len(head) == 7
    assert [row[0] for row in rows] == list(labels.values())
    for run, (_, *cells) in zip(labels, rows, strict=True):
        assert list(map(int, cells)) == list(safe_k[safe_k["run"] == run]["safe_k"])


@needs_browser
def test_the_page_tells_the_study_in_order(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    sections = opened.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert sections == [
        *("What was run", "What was found", "Tables", "Figures", "Gallery", "Files"),
    ]
    text = opened.inner_text("main")
    versions = json.loads((finished / "05_metrics.json").read_text())["versions"]
    assert f"numpy {versions['numpy']}" in text
    for said in ("300 embeddings of 1,280 dimensions", "dataset photos", "seed 0", "seconds"):
        assert said in text
    for run in RUNS:
        assert run in text
    links = opened.evaluate("[...document.links].map(link => link.getAttribute('href'))")
    files = [link for link in links if not link.startswith("#")]
    assert len(files) == 3
    assert all((finished / name).exists() for name in files)
    anchors = [link[1:] for link in links if link.startswith("#")]
    assert anchors == opened.evaluate("[...document.querySelectorAll('h2')].map(h => h.id)")
    alts = opened.evaluate("[...document.querySelectorAll('.plot img')].map(i => i.alt)")
    assert "FAISS, efSearch = k: " in alts[0]
    assert "at k = 40" in alts[0]
    captions = opened.evaluate("[...document.querySelectorAll('.plot')].map(p => p.innerText)")
    assert len(captions) == len(PLOTS)
    assert all(len(caption) > 20 for caption in captions)


@needs_browser
def test_a_table_is_copied_as_a_table(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    opened.evaluate(
        """getSelection().selectAllChildren([...document.querySelectorAll('h3')]
           .find(h => h.textContent == 'Safe k').parentNode.querySelector('table'))"""
    )
    copied = [line for line in opened.evaluate("getSelection().toString()").split("\n") if line]
    assert len(copied) == 1 + len(RUNS)
    assert {line.count("\t") for line in copied} == {6}


@needs_browser
def test_the_page_can_be_printed(finished, visit):
    opened, _, _ = visit(finished / "06_report.html", color_scheme="dark")
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": A4, "height": 1000})
    beyond = """[...document.querySelectorAll('table, img')].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1).length"""
    assert opened.evaluate(beyond) == 0, "paper does not scroll"
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert opened.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@pytest.fixture(scope="module")
def drifting(finished, tmp_path_factory):
    """Results of a run that loses neighbors, and of nothing else."""
    results = Path(shutil.copytree(finished, tmp_path_factory.mktemp("drifting") / "results"))
    for script, *args in (
        ("04_hnsw_search.py", "--runs", "faiss:3", "--replace"),
        ("05_metrics.py",),
        ("06_plots.py", "--gallery", "2", "--gallery-k", "30", "--format", "svg", "pdf"),
    ):
        done = shell(script, *args, results=results)
        assert done.returncode == 0, done.stderr
    return results


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_gallery_frames_what_was_lost(drifting, visit, width):
    path = drifting / "06_report.html"
    opened, asked, said = visit(path, width)
    check_opened(path, opened, asked, said)
    rows = opened.evaluate(
        """[...document.querySelectorAll('.query')].map(row => [row.querySelector('h3').textContent,
           [...row.querySelectorAll('img')].map(i => [i.alt, i.parentNode.className,
            getComputedStyle(i).borderTopColor])])"""
    )
    per_query = pd.read_parquet(drifting / "05_per_query.parquet").query("k == 30")
    worst = sorted(per_query["overlap"])[:2]
    exact = np.load(drifting / "03_exact_indices.npy")[:, :30]
    distances = np.load(drifting / "03_exact_distances.npy")
    ann = np.load(drifting / "04_hnsw/faiss_M32_efc200_ef3/k0030_indices.npy")
    assert len(rows) == 2
    for (heading, pictures), overlap in zip(rows, worst, strict=True):
        query, lost = map(int, re.match(r"Row (\d+): (\d+) of 30 neighbors lost", heading).groups())
        assert lost == round(30 * (1 - overlap))
        assert lost == np.setdiff1d(exact[query], ann[query]).size
        assert pictures[0][0] == f"the query, row {query}"
        for alt, kind, border in pictures[1:]:
            what, rank, row, distance = re.match(
                r"(exact neighbor|returned instead) number (\d+), row (\d+), distance ([\d.]+)", alt
            ).groups()
            is_lost = int(row) not in ann[query]
            assert (kind == "lost") == is_lost == alt.endswith(", lost")
            assert (border == "rgba(0, 0, 0, 0)") != is_lost
            if what == "exact neighbor":
                assert exact[query, int(rank) - 1] == int(row)
                assert float(distance) == pytest.approx(distances[query, int(rank) - 1], rel=6e-4)
            else:
                assert int(row) not in exact[query]
                assert ann[query, int(rank) - 1] == int(row)


def test_formats_come_beside_the_png(finished, drifting):
    for name in PLOTS:
        assert (finished / f"06_{name}.png").exists()
        assert not (finished / f"06_{name}.svg").exists()
        assert {path.suffix for path in drifting.glob(f"06_{name}.*")} == {".png", ".svg", ".pdf"}
    outputs = json.loads((drifting / "06_figures.json").read_text())["outputs"]
    assert len(outputs) == 3 * len(PLOTS) + 1


def test_every_file_that_is_read_is_an_input(drifting):
    manifest = json.loads((drifting / "06_figures.json").read_text())
    run = "04_hnsw/faiss_M32_efc200_ef3"
    assert set(manifest["inputs"]) == {
        *("05_curves.parquet", "05_safe_k.parquet", "05_per_query.parquet", "01_images.npy"),
        *("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy"),
        *(f"{run}/k0030_indices.npy", f"{run}/k0030_distances.npy"),
    }
    stages = ["01_images", "02_embeddings", "03_exact", run, "05_metrics"]
    assert list(manifest["parameters"]["manifests"]) == stages


def test_without_images_the_gallery_is_left_out_and_other_times_are_drawn_anew(results, drive):
    (results / "01_images.npy").unlink()
    status, out, _ = drive("06_plots.py", results=results)
    assert status == 0
    assert "left out: Images and gallery (01_images.npy is no longer there)" in out
    html = (results / "06_report.html").read_text()
    assert "Left out: Images and gallery, because 01_images.npy is no longer there." in html
    assert 'class="query"' not in html
    assert not (results / "06_images.png").exists()
    assert "up to date" in drive("06_plots.py", results=results)[1]

    manifest = results / "04_hnsw" / RUNS[0] / "run.json"
    content = json.loads(manifest.read_text())
    content["queries_per_second"]["40"] = 12345.678
    content["sha256"] = manifest_hash(content)
    manifest.write_text(json.dumps(content))
    status, out, _ = drive("06_plots.py", "--gallery", "0", results=results)
    assert (status, "up to date" in out) == (0, False)
    assert "12346" in (results / "06_report.html").read_text()


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("02_embeddings.json", "<p>300 queries, 3 runs; "),
        ("03_exact.json", "<p>300 embeddings of 1,280 dimensions, 3 runs; "),
    ],
)
def test_what_a_stage_that_is_gone_had_to_tell_is_left_out(gone, said, results, drive):
    (results / gone).unlink()
    (results / "01_images.npy").unlink()  # with them there is a gallery, which needs the lists
    status, _, err = drive("06_plots.py", results=results)
    assert status == 0, err
    assert said in (results / "06_report.html").read_text()


def test_runs_that_are_not_those_measured_are_not_drawn(results, drive):
    shutil.rmtree(results / "04_hnsw" / RUNS[0])
    status, _, err = drive("06_plots.py", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "no longer those that were measured: run 05_metrics.py again" in err


@needs_browser
def test_lists_of_another_system_get_a_page(finished, tmp_path, drive, visit):
    _, flags = lists_of_another_system(finished, tmp_path)
    results = tmp_path / "results"
    for script, *args in (("05_metrics.py", *flags), ("06_plots.py",)):
        status, out, err = drive(script, *args, results=results)
        assert status == 0, err
    assert "left out: Overlap and speed (lists of another system" in out
    assert "left out: Images and gallery (lists of another system" in out
    path = results / "06_report.html"
    check_opened(path, *visit(path, 390))
    html = path.read_text()
    assert f"{N} embeddings of 1,280 dimensions, {N} queries, 1 run;" in html
    assert f'>ann_ids.npy</th><td class="words">{N} x {K}</td>' in html
    assert str(tmp_path) not in html, "the page tells nobody where its maker works"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--format", "gif"], "gif"),
        (["--gallery", "-1"], "--gallery"),
        (["--gallery-run", "annoy"], "--gallery-run annoy was not measured, but faiss"),
        (["--gallery-k", "15"], "--gallery-k 15 was not measured for faiss"),
        (["--dpi", "5"], "--dpi"),
    ],
)
def test_bad_arguments_are_one_line(args, said, finished, drive):
    before = (finished / "06_report.html").read_bytes()
    status, _, err = drive("06_plots.py", *args, results=finished)
    assert (status, err.count("\n")) == (2, 1)
    assert said in err
    assert (finished / "06_report.html").read_bytes() == before


def test_the_order_of_runs_is_that_in_which_they_were_searched(results, drive):
    assert drive("04_hnsw_search.py", "--runs", "faiss:7", results=results)[0] == 0
    assert drive("05_metrics.py", results=results)[0] == 0
    assert drive("06_plots.py", results=results)[0] == 0
    runs = json.loads((results / "06_figures.json").read_text())["parameters"]["runs"]
    assert runs == [*RUNS, "faiss_M32_efc200_ef7"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99996, "0.99996"),
        (1.0, "1"),
        (0.9999999, "0.9999999"),
        (0.94894, "0.9489"),
        (-1e-10, "0"),
        (float("nan"), "-"),
        (26430.4, "26430"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_look_like_what_they_are(value, text):
    assert page.number(value) == text


def test_shares_are_all_or_nothing_only_when_they_are():
    assert [report.share(value) for value in (1.0, 0.9997, 0.5, 0.0001, 0.0)] == [
        *("1.000", "> 0.999", "0.500", "< 0.001", "0.000"),
    ]


def test_what_is_not_html_is_escaped():
    frame = pd.DataFrame({"run": ["<script>"], "a & b": ["x < y"]})
    for piece in (
        page.table(frame),
        page.page("<script>", "<script>", [page.Section("<script>", [])]),
        page.plot("<script>", '"><script>', "<script>", b""),
        page.bullets(["<script>"]) + page.terms({"<script>": "<script>"}),
    ):
        assert "<script>" not in piece


@pytest.mark.parametrize(
    ("grid", "chosen"),
    [
        (range(10, 251, 10), [10, 50, 100, 150, 200, 250]),
        ([10, 20, 30], [10, 20, 30]),
        ([7], [7]),
        (range(1, 10), [1, 2, 4, 5, 7, 9]),
        (range(20, 301, 20), [20, 100, 200, 300]),
    ],
)
def test_tables_show_the_ends_of_the_grid(grid, chosen):
    assert report.chosen_ks(grid) == chosen


def test_complete_lists_are_the_share_of_queries_that_got_k_neighbors():
    published = figures.published_curve()
    metrics = [name for name in published.columns if name not in ("k", "overlap_std")]
    full = {"kth_squared_distance_ann": 30, "lid_notebook_ann": 30}
    rows = [("ours", 100, name, 1.0, full.get(name, 40)) for name in metrics]
    curves = pd.DataFrame(rows, columns=["run", "k", "metric", "mean", "n"])
    table = report.beside_published(curves, published, {"ours": "Ours"}).set_index(["k", "curve"])
    assert table[report.COMPLETE][100, "Ours"] == 0.75
    assert np.isnan(table[report.COMPLETE][100, "published"])


def test_speeds_of_runs_on_other_grids_stand_in_ascending_columns():
    def manifest(*ks):
        return {
            "build_seconds": 1.0,
            "queries_per_second": {str(k): 1000.4 + k for k in ks},
            "peak_memory_bytes": 1e6,
        }

    table = provenance.searches(
        {"a": manifest(10, 40), "b": manifest(15, 35)}, {"a": "A", "b": "B"}
    )
    speeds = table.filter(like="queries/s")
    assert [column.rsplit(" ")[-1] for column in speeds] == ["10", "15", "35", "40"]
    np.testing.assert_array_equal(
        speeds, [[1010, np.nan, np.nan, 1040], [np.nan, 1015, 1035, np.nan]]
    )
