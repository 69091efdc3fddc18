"""The page in a real browser, and stage 06 as a whole."""

import itertools
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from drift.indexes.run import Run
from drift.pipeline.manifests import manifest_hash
from drift.report import page, tables
from drift.report.figures import Plot
from drift.report.gallery import DriftedQuery, Gallery
from tests.conftest import GRID, RUNS, K
from tests.studies import falls, make_run, make_study

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium, for instance"
)
PLOTS = [
    *("overlap", "images", "distribution", "who_drifts", "found", "distances"),
    *("barycenter_shift", "lid", "hubness", "speed"),
]
LABELS = ("FAISS efSearch 50", "FAISS efSearch k, at least 50", "hnswlib efSearch 50")
WIDTHS = (390, 1280)
A4 = 794 - 106  # width between the margins of the print, in pixels
# Scripts in the page.
UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => h.tagName)"
TABLES = """Object.fromEntries([...document.querySelectorAll('table')].map(table => [
    table.closest('section').querySelector('h3').textContent,
    [...table.rows].map(row => [...row.cells].map(
        cell => cell.textContent.replaceAll('\u00a0', ' ')))]))"""
BOTTOM = "document.querySelector('.verdict').getBoundingClientRect().bottom"
BESIDE = """['.beside .plot', '.beside table'].map(s => {
    const box = document.querySelector(s).getBoundingClientRect();
    return [box.left, box.right, box.top, box.bottom]; })"""
BEYOND = """[...document.querySelectorAll('table, img')].filter(
    e => e.getBoundingClientRect().right > innerWidth + 1).length"""
GALLERY = """[...document.querySelectorAll('.query')].map(row => [
    row.querySelector('h3').textContent, [...row.querySelectorAll('img')].map(
        i => [i.alt, i.parentNode.className, getComputedStyle(i).borderTopColor])])"""


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox of its own.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open a page offline, and check what holds of every page.

    That is no request, no complaint, no link, nothing out of sight, and headings in order.
    """
    contexts = []

    def open_page(path, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.set_offline(True)
        opened, requests, messages = context.new_page(), [], []
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("console", lambda message: messages.append(message.text))
        opened.on("pageerror", lambda error: messages.append(str(error)))
        opened.goto(path.as_uri())
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
        assert messages == []
        counts = opened.evaluate("[document.links.length, document.scripts.length]")
        assert counts == [0, 0], "a page that is handed on breaks links"
        for script in ("0", UNFOLD):
            opened.evaluate(script)
            room = opened.evaluate(
                "['scrollWidth', 'clientWidth'].map(s => document.documentElement[s])"
            )
            assert room[0] <= room[1], "the page scrolls sideways"
        pictures = opened.evaluate(
            "[...document.images].map(i => [i.naturalWidth, i.alt, i.width])"
        )
        assert pictures
        assert all(natural > 0 and alt and drawn > 30 for natural, alt, drawn in pictures)
        ranks = [int(name[1]) for name in opened.evaluate(HEADINGS)]
        assert (ranks[0], ranks.count(1)) == (1, 1)
        assert (np.diff(ranks) <= 1).all(), "a heading leaves out a rank"
        return opened

    yield open_page
    for context in contexts:
        context.close()


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [*itertools.product(WIDTHS, ("light", "dark"))])
def test_the_page_opens_offline_on_a_phone_and_on_a_wide_screen(finished, visit, width, scheme):
    opened = visit(finished / "06_report.html", width, color_scheme=scheme)
    red = re.findall(r"\d+", opened.evaluate("getComputedStyle(document.body).backgroundColor"))[0]
    assert (int(red) < 60) == (scheme == "dark")


@needs_browser
def test_values_in_the_page_are_those_of_the_tables(finished, visit):
    opened = visit(finished / "06_report.html")
    shown = opened.evaluate(TABLES)
    curves = pd.read_parquet(finished / "05_curves.parquet").set_index(["run", "metric", "k"])
    for run, label in zip(RUNS, LABELS, strict=True):
        head, *rows = shown[f"Curves: {label}"]
        assert head == ["metric", *(f"k = {k}" for k in GRID)]
        assert {name for name, *_ in rows} >= set(curves.loc[run].index.unique("metric"))
        for name, *cells in rows:
            metric, _, column = name.partition(" ")
            for k, cell in zip(GRID, cells, strict=True):
                expected = curves.loc[(run, metric, k), column or "mean"]
                # What is no more than rounding is shown as no error.
                scale = curves.loc[(run, "lid_exact", k), "mean"]
                least = 1e-6 * scale if metric.endswith(("_error", "_difference")) else 1e-9
                assert float(cell) == pytest.approx(expected, rel=6e-4, abs=least), (name, k)
    head, *rows = shown["All runs side by side"]
    assert head == ["", *LABELS]
    cells = {name: values for name, *values in rows}
    for i, run in enumerate(RUNS):
        for name, metric, column in (
            *((f"overlap, k = {k}", ("overlap", k), "mean") for k in (GRID[0], K)),
            (f"worst 5 % keep, k = {K}", ("overlap", K), "q05"),
            (f"distance ratio, k = {K}", ("distance_ratio", K), "mean"),
        ):
            assert cells[name][i] == tables.format_fraction(curves.loc[(run, *metric), column])
        manifest = json.loads((finished / "04_hnsw" / run / "run.json").read_text())
        count = manifest.get("distance_computations_per_query", {}).get(str(K))
        expected = "-" if count is None else f"{count:,.0f}"
        assert cells[f"distances computed, k = {K}"][i] == expected


@needs_browser
def test_the_page_has_its_parts_in_order_and_tells_what_was_run(finished, visit):
    opened = visit(finished / "06_report.html")
    headings = opened.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert headings == [
        *("What that changes, by use", "How many neighbors are kept", "Further figures"),
        *("Gallery", "Full tables", "What was run"),
    ]
    text = opened.inner_text("main").replace("\u00a0", " ")
    manifest = json.loads((finished / "05_metrics.json").read_text())
    machine = manifest["machine"]
    for words in (
        *("300 embeddings of 1,280 dimensions", "dataset photos", "seed 0", "seconds", *RUNS),
        f"numpy {manifest['versions']['numpy']}",
        f"{machine['processor']}, {machine['threads']} threads",
        *itertools.chain.from_iterable(manifest["metrics"].items()),
    ):
        assert words in text
    alts = opened.evaluate("[...document.querySelectorAll('.plot img')].map(i => i.alt)")
    assert f"{LABELS[1]}: " in alts[0]
    assert "at k = 40" in alts[0]
    captions = opened.evaluate(
        "[...document.querySelectorAll('.plot figcaption')].map(c => c.textContent)"
    )
    assert all(len(caption) > 15 for caption in captions)
    captions = dict(zip(PLOTS, captions, strict=True))
    assert "the fifth with the lowest LID gets" in captions["who_drifts"]

    opened.reload()
    assert opened.evaluate("document.querySelector('h1').nextElementSibling.className") == "verdict"
    figure, table = opened.evaluate(BESIDE)
    assert figure[1] <= table[0], "the table is beside the figure"
    assert figure[2] <= table[2] < figure[3]
    folded = "[...document.querySelectorAll('details')].map(d => [d.open, d.offsetHeight])"
    assert all(not is_open and height < 100 for is_open, height in opened.evaluate(folded))
    assert opened.evaluate(BOTTOM) < 800, "the first screen says what to do"
    opened.set_viewport_size({"width": 390, "height": 900})
    figure, table = opened.evaluate(BESIDE)
    assert figure[3] <= table[2], "on a phone the table is below"
    assert opened.evaluate(BOTTOM) < 844, "that of a phone too"


@needs_browser
def test_the_page_can_be_printed(finished, visit):
    opened = visit(finished / "06_report.html", color_scheme="dark")
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": A4, "height": 1000})
    assert opened.evaluate(BEYOND) == 0, "paper does not scroll"
    color = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == "rgb(255, 255, 255)"
    assert opened.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@needs_browser
def test_the_gallery_frames_what_was_lost_and_formats_come_beside_the_png(results, drive, visit):
    for script, *args in (
        ("04_hnsw_search.py", "--runs", "faiss:3", "--replace"),
        ("05_metrics.py",),
        ("06_plots.py", "--gallery", 2, "--gallery-k", 30, "--format", "svg", "pdf", "--dpi", 30),
    ):
        status, _, err = drive(script, *args, results=results)
        assert status == 0, err
    run = "04_hnsw/faiss_M32_efc200_ef3"
    manifest = json.loads((results / "06_figures.json").read_text())
    names = (f"06_{name}.{suffix}" for name in PLOTS for suffix in ("png", "svg", "pdf"))
    assert set(manifest["outputs"]) == {*names, "06_report.html"}
    measured = {f"05_{name}.parquet" for name in ("curves", "safe_k", "per_query", "by_use")}
    assert measured < set(manifest["inputs"])
    assert {name for name in manifest["inputs"] if not name.startswith("05_")} == {
        *("01_images.npy", "01_images.parquet"),
        *("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy"),
        *(f"{run}/k0030_indices.npy", f"{run}/k0030_distances.npy"),
    }, "every file that is read is an input"
    stages = ["01_images", "02_embeddings", "03_exact", run, "05_metrics"]
    assert list(manifest["parameters"]["manifests"]) == stages

    per_query = pd.read_parquet(results / "05_per_query.parquet").query("k == 30")
    overlaps = per_query.set_index("query")["overlap"]
    sources = pd.read_parquet(results / "01_images.parquet")["source"]
    exact = np.load(results / "03_exact_indices.npy")[:, :30]
    distances = np.load(results / "03_exact_distances.npy")
    ann = np.load(results / run / "k0030_indices.npy")
    visit(results / "06_report.html", WIDTHS[0])
    opened = visit(results / "06_report.html", WIDTHS[1])
    queries = []
    for heading, pictures in opened.evaluate(GALLERY):
        query, lost = map(int, re.match(r"Row (\d+): (\d+) of 30 neighbors lost", heading).groups())
        assert (
            lost == round(30 * (1 - overlaps[query])) == np.setdiff1d(exact[query], ann[query]).size
        )
        assert pictures[0][0] == f"the query, row {query}, {sources[query]}"
        queries.append(query)
        for alt, kind, border in pictures[1:]:
            what, rank, row, source, distance = re.match(
                r"(exact neighbor|returned instead) number (\d+), row (\d+), (.+), "
                r"distance ([\d.]+)",
                alt,
            ).groups()
            place = int(rank) - 1
            assert source == sources[int(row)]
            is_lost = int(row) not in ann[query]
            assert (kind == "lost") == is_lost == alt.endswith(", lost")
            assert (border == "rgba(0, 0, 0, 0)") != is_lost
            if what == "exact neighbor":
                assert exact[query, place] == int(row)
                assert float(distance) == pytest.approx(distances[query, place], rel=6e-4)
            else:
                assert int(row) not in exact[query]
                assert ann[query, place] == int(row)
    assert len(queries) == 2
    assert overlaps[queries[0]] == overlaps.min()


def test_without_images_the_gallery_is_left_out_and_other_times_are_drawn_anew(results, drive):
    for name in ("01_images.npy", "02_embeddings.json"):
        (results / name).unlink()
    status, out, _ = drive("06_plots.py", "--dpi", 30, results=results)
    assert status == 0
    assert "left out: images and gallery (01_images.npy is missing, or" in out
    html = (results / "06_report.html").read_text().replace("\u00a0", " ")
    assert "Left out: images and gallery, because 01_images.npy is missing, or" in html
    assert ": 300 queries." in html, "what a stage that is gone had to tell is left out"
    assert 'class="query"' not in html
    assert not (results / "06_images.png").exists()
    assert "up to date" in drive("06_plots.py", "--dpi", 30, results=results)[1]

    manifest = results / "04_hnsw" / RUNS[0] / "run.json"
    content = json.loads(manifest.read_text())
    content["queries_per_second"]["40"] = 12345.678
    content["sha256"] = manifest_hash(content)
    manifest.write_text(json.dumps(content))
    status, out, _ = drive("06_plots.py", "--dpi", 30, "--gallery", 0, results=results)
    assert (status, "up to date" in out) == (0, False)
    assert "12346" in (results / "06_report.html").read_text()


@pytest.mark.parametrize(
    ("data", "grid", "run"), [("any", (1, 10), "faiss:k"), ("copies", (10, 200), "hnswlib:2")]
)
def test_the_page_is_drawn_without_what_there_is_not(data, grid, run, tmp_path, drive):
    # An LID takes three distances above 0: at k = 1, and among more than k copies, there is none.
    vectors = np.random.default_rng(0).normal(size=(300, 8)) + 1e5
    m = 4 if data == "any" else 32
    np.save(tmp_path / "x.npy", np.repeat(vectors[:5], 60, axis=0) if data == "copies" else vectors)
    for script, *args in (
        ("02_embed_resnet50.py", "--from-file", tmp_path / "x.npy"),
        ("03_exact_knn.py", "--k-max", grid[-1]),
        ("04_hnsw_search.py", "--runs", run, "--ef-construction", 8, "--m", m, "--k", *grid),
        ("05_metrics.py",),
        ("06_plots.py", "--dpi", 30),
    ):
        status, _, err = drive(script, *args, results=tmp_path / "results")
        assert status == 0, err
    html = (tmp_path / "results" / "06_report.html").read_text()
    assert "Overlap of single queries" in html and "nan" not in html.lower().split("base64")[0]
    assert "the fifth with the lowest LID" not in html
    # What stage 02 warned of is said here too, and to nobody where its maker works.
    assert "rounding to float32 moves" in html and "saved in x.npy" in html
    assert str(tmp_path) not in html


def test_bad_arguments_are_one_line(finished, drive):
    before = (finished / "06_report.html").read_bytes()
    for flag, value in (("--format", "gif"), ("--gallery", -1), ("--gallery-k", 15), ("--dpi", 5)):
        status, _, err = drive("06_plots.py", flag, value, results=finished)
        assert (status, err.count("\n")) == (2, 1)
        assert flag in err
    assert (finished / "06_report.html").read_bytes() == before


def test_the_order_of_runs_is_that_in_which_they_were_searched():
    runs = [make_run("faiss", ef) for ef in (7, 8, 9)]
    dates = {runs[2].name: {"date": "2026-02"}, runs[0].name: {"date": "2026-03"}}
    study = make_study(falls(runs, [10]), searched=dates)
    assert list(study.owner) == [f"faiss_M32_efc200_ef{ef}" for ef in (8, 9, 7)]


def test_what_is_not_html_is_escaped():
    hostile = '"><script>alert(1)</script>'
    run = Run(hostile)
    parameters = {hostile: hostile, "k_grid": [10], "runs": {hostile: {"run": run.to_json()}}}
    manifest = {"parameters": parameters, "outputs": {}, "seconds": 1.0, "date": hostile}
    manifest |= {name: {hostile: hostile} for name in ("versions", "metrics")} | {"machine": {}}
    manifest["n_queries"] = 40
    manifests = {f"04_hnsw/{hostile}": manifest, hostile: manifest, "05_metrics": manifest}
    study = make_study([(run, {10: 0.999, 250: 0.998})], manifests=manifests)
    curves = study.curves[study.curves["metric"] == "overlap"]
    study.curves = pd.concat([study.curves, curves.assign(metric=hostile)])
    neighbors = pd.DataFrame({"row": [0], "rank": 1, "distance": 0.5, "lost": True})
    images = np.zeros((1, 8, 8, 3), np.uint8), pd.DataFrame({"source": [hostile], "label": [3]})
    query = DriftedQuery(0, 1, 0, neighbors, neighbors)
    html = page.render(
        study,
        [Plot("overlap", hostile, b"", hostile, hostile), Plot("found", hostile, b"")],
        Gallery([query], hostile, 10, *images),
        {hostile: hostile},
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert '"">' not in html
