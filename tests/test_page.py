"""The page in a real browser, stage 06 as a whole, and the sentences and tables of the report."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from drift.indexes.run import Run
from drift.pipeline.results import manifest_hash
from drift.published import notebook
from drift.report import page, tables
from drift.report.figures import Plot
from drift.report.gallery import DriftedQuery, Gallery
from drift.report.sentences import drift_by_lid, extent, verdict
from tests.conftest import GRID, ROOT, RUNS, K, N
from tests.studies import falls, make_factory, make_run, make_study

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
                # What is no more than the rounding of the LIDs is shown as no difference.
                rounding = 1e-6 * curves.loc[(run, "lid_exact", k), "mean"]
                least = rounding if metric == "lid_difference" else 1e-9
                assert float(cell) == pytest.approx(expected, rel=6e-4, abs=least), (name, k)
    safe_k = pd.read_parquet(finished / "05_safe_k.parquet")
    _, *rows = shown["Safe k"]
    for (label, criterion, k, crossing), row in zip(rows, safe_k.itertuples(), strict=True):
        assert label == LABELS[RUNS.index(row.run)]
        assert criterion.endswith(f" {100 * row.tolerance:g} %")
        assert (int(k), crossing) == (row.safe_k, tables.format_crossing(row, GRID))
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


@needs_browser
def test_lists_of_another_system_get_a_page(results, tmp_path, drive, visit):
    ids = tmp_path / "ann_ids.npy"
    np.save(ids, np.load(results / "04_hnsw" / RUNS[0] / "k0040_indices.npy"))
    for script, *args in (
        ("04_hnsw_search.py", "--lists", "vespa", ids, "--replace"),
        ("05_metrics.py",),
        ("06_plots.py", "--dpi", 30),
    ):
        status, out, err = drive(script, *args, results=results)
        assert status == 0, err
    assert "left out: speed (these lists came without search times)" in out
    visit(results / "06_report.html", 390)
    html = (results / "06_report.html").read_text()
    assert f": {N} queries among {N} embeddings of 1,280 dimensions (photos, " in html
    assert ">vespa</th>" in html
    assert str(tmp_path) not in html, "the page tells nobody where its maker works"


def test_bad_arguments_are_one_line(finished, drive):
    before = (finished / "06_report.html").read_bytes()
    for flag, value in (("--format", "gif"), ("--gallery", -1), ("--gallery-k", 15), ("--dpi", 5)):
        status, _, err = drive("06_plots.py", flag, value, results=finished)
        assert (status, err.count("\n")) == (2, 1)
        assert flag in err
    assert (finished / "06_report.html").read_bytes() == before


def test_what_writes_sentences_loads_nothing_that_draws():
    code = "import sys; from drift.report import by_use, gallery, sentences, study, tables; "
    code += "print({'matplotlib', 'jinja2', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_order_of_runs_is_that_in_which_they_were_searched():
    runs = [make_run("faiss", ef) for ef in (7, 8, 9)]
    dates = {runs[2].name: {"date": "2026-02"}, runs[0].name: {"date": "2026-03"}}
    study = make_study(falls(runs, [10]), searched=dates)
    assert list(study.owner) == [f"faiss_M32_efc200_ef{ef}" for ef in (8, 9, 7)]


def test_numbers_look_like_what_they_are():
    values = (0.99996, 1.0, 0.9999999, 0.94894, -1e-10, np.nan, 26430.4, np.inf)
    texts = ["0.99996", "1", "0.9999999", "0.9489", "0", "-", "26430", "inf"]
    assert list(map(tables.format_number, values)) == texts
    texts = ["1.000", "> 0.999", "0.500", "< 0.001", "0.000"]
    assert list(map(tables.format_fraction, (1.0, 0.9997, 0.5, 0.0001, 0.0))) == texts
    names = ("crossing_k", "crossing_low", "crossing_high")
    for crossing, text in (
        ((np.nan, np.nan, np.nan), "-"),
        ((np.nan, 220.4, np.nan), "- (from 220 on, perhaps)"),
        ((66.43, 64.0, 68.26), "66.4 (64 to 68.3)"),
        ((240.0, 230.0, np.nan), "240 (230 to more than 250)"),
        ((10.0, 10.0, 10.0), "10 or less"),
    ):
        row = SimpleNamespace(**dict(zip(names, crossing, strict=True)))
        assert tables.format_crossing(row, [10, 100, 250]) == text


def test_tables_show_the_ends_of_the_grid():
    assert tables.evenly(range(10, 251, 10), 6) == [10, 50, 100, 150, 200, 250]
    assert tables.evenly(range(1, 10), 6) == [1, 2, 4, 5, 7, 9]
    assert (tables.evenly([10, 20, 30], 6), tables.evenly([7], 6)) == ([10, 20, 30], [7])


# The verdict, of runs by their overlap at two k.

FALLS, STAYS, GROWS = {10: 0.9995, 250: 0.64}, {10: 0.999, 250: 0.998}, {10: 0.994, 250: 0.998}
FLOOR, LOSES, TIES = {10: 0.9995, 250: 0.998}, {10: 0.999, 250: 0.8}, {10: 0.433, 250: 0.9}
OF_VERDICT = [
    *("overlap", "recall", "found", "distance_ratio", "barycenter_shift_relative"),
    *("lid_exact", "lid_difference"),
]
AS_USUAL = {"half": 0.001, "found": 1.0, "lid_off": 0.0, "n_queries": 10_000, "metrics": OF_VERDICT}
FAISS, FAISS_K = make_run("faiss", 50), make_run("faiss", "k")
FAISS_FLOOR, FAISS_300 = make_run("faiss", "k,50"), make_run("faiss", 300)
HNSWLIB, PGVECTOR = make_run("hnswlib", 50), make_run("pgvector", 50)
THEIRS, MINE = Run("theirs"), Run("mine")


def study_of(*kept, **options):
    return make_study(kept, **AS_USUAL | options)


def check(kept, *words, lacks=(), **options):
    """Whether the verdict on some runs says some words, and lacks others."""
    text = " ".join(verdict(study_of(*kept, **options)).sentences)
    assert all(one in text for one in words), text
    assert not any(one in text for one in lacks), text


def test_the_verdict_gives_result_reason_and_advice():
    runs, options = [(FAISS, FALLS), (FAISS_FLOOR, FLOOR), (HNSWLIB, STAYS)], {"found": 0.856}
    options["lid_off"] = -0.588
    check(
        runs,
        "3 approximate searches beside the exact k nearest neighbors, k = 10 to",
        "FAISS efSearch k, at least 50, and hnswlib efSearch 50 keep at least 99 % of the",
        "FAISS efSearch 50 keeps at least 99 % of the neighbors only up to k = 10, ",
        "keeps 0.640 at k = 250",
        "14.4 % of the places stay empty",
        "an LID 58.8 % too low",
        "The reason is where a search stops: FAISS lists max(efSearch, k) candidates",
        "stops after 50 of 251 (the query itself is one)",
        "hnswlib raises efSearch",
        **options,
    )
    assert verdict(study_of(*runs, **options)).advice == [
        "So with FAISS let efSearch grow with k, but not fall below 50: on the same graph FAISS "
        "efSearch k, at least 50, keeps 0.998 at k = 250 and > 0.999 at k = 10."
    ]


def test_the_advice_is_right_at_small_k_where_that_was_measured():
    both, stop = [(FAISS, FALLS), (FAISS_K, GROWS)], "The reason is where a search stops"
    less = "keeps 0.998 at k = 250, but 0.994 at k = 10, less than FAISS efSearch 50."
    check(both, stop, "let efSearch grow with k, but not fall below 50: on the same graph", less)
    better = [(FAISS, FALLS), (FAISS_K, FLOOR)]
    check(better, stop, "let efSearch grow with k: ", lacks=["fall below"])
    # The run that is worse nowhere is the one to follow.
    best = "on the same graph FAISS efSearch k, at least 50, keeps 0.998 at k = 250 and >"
    check([*both, (FAISS_FLOOR, FLOOR)], best)
    fixed = "let efSearch be no less than the list is long: on the same graph FAISS efSearch 300"
    check([(FAISS, FALLS), (FAISS_300, STAYS)], fixed)


def test_a_factory_string_of_an_hnsw_graph_gets_the_same_reason_and_the_same_advice():
    fixed, grows = (make_factory("HNSW32,Flat", ef_search=ef) for ef in (50, "k"))
    rule = "FAISS lists max(efSearch, k) candidates, but stops once efSearch of them are nearer"
    at_250 = "HNSW32,Flat efSearch 50, at k = 250 stops after 50 of 251"
    advice = "So with FAISS measure a run whose efSearch grows with k (--runs faiss:k,50)."
    check([(fixed, FALLS)], "The reason may be", rule, at_250, advice, lacks=["denser"])
    advice = "let efSearch grow with k: on the same graph HNSW32,Flat efSearch k, keeps"
    check([(fixed, FALLS), (grows, FLOOR)], "The reason is", rule, at_250, advice)


def test_the_verdict_claims_nothing_that_was_not_measured():
    advice = "measure a run whose efSearch grows with k (--runs faiss:k,50)"
    check([(FAISS, FALLS)], "The reason may be where a search stops", advice)
    check([(FAISS, FALLS), (FAISS_K, FALLS)], "The reason may be")
    denser = "search wider, or build a denser index, and measure again"
    check([(FAISS_300, FALLS)], denser, lacks=["stop"])
    check([(THEIRS, FALLS)], denser, lacks=["efSearch", "FAISS"])
    # A difference smaller than its interval is none, and so is an error.
    both = [(FAISS, FALLS), (FAISS_K, GROWS)]
    check(both, "The reason may be", lacks=["fall below"], different=(THEIRS, MINE))
    close = [(MINE, STAYS), (THEIRS, {10: 0.999, 250: 0.9979}), (HNSWLIB, {10: 0.999, 250: 0.9})]
    same = "At k = 250 there is no difference beyond the intervals between mine and theirs."
    check(close, same, different=(MINE, HNSWLIB))
    check(close, lacks=["no difference"])
    check([(THEIRS, LOSES)], "an LID 2.0 % too high", lid_off=0.02)
    check([(THEIRS, LOSES)], lacks=["too high"], lid_off=0.02, half=0.3)


def test_what_holds_for_few_is_said_for_few():
    few = "(of the 1 % of the queries that have one)"
    check([(THEIRS, STAYS)], f"an LID {few} within 0.1 % of", share=0.01)
    check([(THEIRS, LOSES)], f"an LID {few} 20.0 % too high", lid_off=0.2, share=0.01)
    check([(THEIRS, STAYS)], "an LID within 0.1 % of", share=0.995)
    many = "Intervals are of 95 %, over 10,000 queries."
    check([(THEIRS, STAYS)], many, lacks=["too narrow"])
    skewed = "With fewer than 1,000 queries those of skewed metrics"
    alike = "over 15 groups of images that are alike"
    check([(THEIRS, STAYS)], alike, skewed, n_queries=999, groups=15)
    shorter = (THEIRS, {10: 0.999, 100: 0.998})
    check([(MINE, STAYS), shorter], "at every k of its grid, up to 100 at least")
    check([(MINE, STAYS), (THEIRS, STAYS)], "on average at every k,")


def test_the_verdict_is_short_and_careful():
    check([(FAISS_300, STAYS)], "So lists up to k = 250 can be had from FAISS efSearch 300.")
    first = "less than 99 % of the neighbors from the first k on"
    check([(THEIRS, {10: 0.9905, 250: 0.8})], f"theirs may keep {first}")
    check([(THEIRS, {10: 0.9, 250: 0.8})], f"theirs keeps {first}")
    tie = "Rows tie, and ties are no losses: what follows speaks of recall."
    keeps = "mine keeps at least 99 % of the neighbors on average at every k"
    check([(MINE, TIES)], tie, keeps, lacks=["less than 99 %"], recall={"mine": 1.0})
    many = [(Run(f"system {i}"), {10: 0.999, 250: 0.9 - i / 100}) for i in range(9)]
    text = " ".join(verdict(study_of(*many)).result)
    assert "9 searches keep less, these 3 least: system 8 keeps" in text
    assert "system 5" not in text
    assert len(text) < 600


def test_each_library_that_stops_early_gets_its_reason_and_its_advice():
    check(
        [(FAISS, FALLS), (FAISS_FLOOR, FLOOR), (PGVECTOR, {10: 0.999, 250: 0.196})],
        "at k = 250 pgvector efSearch 50 returns 50 of 251",
        "FAISS efSearch 50 at k = 250 stops after 50 of 251",
        "So with pgvector let hnsw.ef_search be more than k",
        "So with FAISS let efSearch grow with k, but not fall below 50",
    )


def test_the_tables_say_where_every_tolerance_is_crossed_and_what_holds_for_few():
    study = study_of((THEIRS, {10: 0.999, 250: 0.93}), share=0.01, lid_off=0.2)
    shown = tables.overview(study).set_index("")["theirs"]
    expected = ["66.4 (61.2 to 72.5)"] * 2 + ["-"]
    assert [shown[f"{lost} % lost at k"] for lost in (1, 5, 10)] == expected
    assert list(tables.safe_table(study).iloc[:3, -1]) == expected
    assert shown["LID off by %, k = 250"] == "+20.0 (of 1 %)"
    assert "recall, k = 10" not in shown
    study = study_of((MINE, TIES), recall={"mine": 1.0})
    shown = tables.overview(study).set_index("")["mine"]
    names = ["recall, k = 10", "overlap, k = 10", "99 % kept up to k"]
    assert list(shown[names]) == ["1.000", "0.433", "250"]


def test_who_drifts_is_said_in_a_sentence():
    queries = pd.DataFrame({"query": range(100), "lid_exact": range(100)})
    queries = queries.assign(run="theirs", k=250, overlap=0.5 + queries["lid_exact"] / 200)
    study = study_of((THEIRS, LOSES))
    study.per_query = queries.assign(distance_ratio=1.0)
    assert drift_by_lid(study) == (
        "At k = 250 theirs returns less than 0.9 of the neighbors to 80.0 % of the queries. Of the "
        "queries, the fifth with the lowest LID gets 0.548 of them on average, the fifth with the "
        "highest 0.948."
    )
    study.per_query.loc[queries["query"] >= 10, "lid_exact"] = np.nan
    assert "Of the 10 % that have an LID, the fifth" in drift_by_lid(study)


def test_what_was_compared_is_named():
    outputs = {"02_embeddings.npy": {"shape": [2000, 2048]}, "02_rows.parquet": {"rows": 2000}}
    stages = {
        "01_images": {"parameters": {"dataset": "photos"}},
        "02_embeddings": {"parameters": {"model": "resnet50"}, "outputs": outputs},
    }
    expected = "10,000 queries among 2,000 embeddings of 2,048 dimensions (photos, resnet50)"
    assert extent(study_of((THEIRS, STAYS), manifests=stages)) == expected


def test_what_is_not_html_is_escaped():
    hostile = '"><script>alert(1)</script>'
    run = Run(hostile)
    parameters = {hostile: hostile, "k_grid": [10], "runs": {hostile: {"run": run.to_json()}}}
    manifest = {"parameters": parameters, "outputs": {}, "seconds": 1.0, "date": hostile}
    manifest |= {name: {hostile: hostile} for name in ("versions", "metrics")} | {"machine": {}}
    manifest["n_queries"] = 40
    manifests = {f"04_hnsw/{hostile}": manifest, hostile: manifest, "05_metrics": manifest}
    study = make_study([(run, STAYS)], manifests=manifests)
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


def test_complete_lists_are_the_share_of_queries_that_got_k_neighbors():
    names = [name for name in notebook.curve().columns if name not in ("k", "overlap_std")]
    study = make_study([(MINE, {100: 1.0})], metrics=names)
    full = study.curves["metric"].isin(["kth_squared_distance_ann", "lid_notebook_ann"])
    study.curves.loc[full, "n"] *= 0.75
    table = tables.published_table(study).set_index(["k", "curve"])
    assert table[tables.COMPLETE][100, "mine"] == 0.75
    assert np.isnan(table[tables.COMPLETE][100, "published"])
