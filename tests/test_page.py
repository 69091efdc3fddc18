"""The page in a real browser, and stage 06 as a whole."""

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from drift.pipeline.results import manifest_hash
from drift.published import notebook
from drift.report import page, tables
from drift.report.figures import Plot
from drift.report.gallery import DriftedQuery, Gallery
from drift.report.run_styles import run_styles
from drift.report.study import Study
from drift.report.verdict import drifters, extent, verdict
from tests.conftest import GRID, RUNS, K, N, shell

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
LABELS = dict(
    zip(
        RUNS,
        ("FAISS efSearch 50", "FAISS efSearch k, at least 50", "hnswlib efSearch 50"),
        strict=True,
    )
)
WIDTHS = (390, 1280)
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

    def open_page(path, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.set_offline(True)
        opened, requests, messages = context.new_page(), [], []
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("console", lambda message: messages.append(message.text))
        opened.on("pageerror", lambda error: messages.append(str(error)))
        opened.goto(path.as_uri())
        return opened, [url for url in requests if not url.startswith("data:")], messages

    yield open_page
    for context in contexts:
        context.close()


def check_opened(path, opened, requests, messages):
    """What holds of every page: no request, no complaint, no link, nothing out of sight."""
    assert requests == [path.as_uri()]
    assert messages == []
    assert opened.evaluate("document.links.length") == 0, "a page that is handed on breaks links"
    for _ in range(2):  # folded, and unfolded
        width, room = opened.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert width <= room, "the page scrolls sideways"
        opened.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
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
    [...table.rows].map(row => [...row.cells].map(
        cell => cell.textContent.replaceAll('\u00a0', ' ')))]))"""


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_offline_on_a_phone_and_on_a_wide_screen(finished, visit, width, scheme):
    path = finished / "06_report.html"
    opened, requests, messages = visit(path, width, color_scheme=scheme)
    check_opened(path, opened, requests, messages)
    assert opened.evaluate("document.images.length") >= len(PLOTS)
    red = re.findall(r"\d+", opened.evaluate("getComputedStyle(document.body).backgroundColor"))[0]
    assert (int(red) < 60) == (scheme == "dark")
    assert opened.evaluate("document.scripts.length") == 0


@needs_browser
def test_values_in_the_page_are_those_of_the_curves(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    shown_tables = opened.evaluate(TABLES)
    curves = pd.read_parquet(finished / "05_curves.parquet").set_index(["run", "metric", "k"])
    for run, label in LABELS.items():
        head, *rows = shown_tables[f"Curves: {label}"]
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
    head, *rows = shown_tables["Safe k"]
    assert head == ["run", "criterion", "safe k", "crossing (95 % interval)"]
    assert len(rows) == len(safe_k)
    for (label, criterion, k, crossing), row in zip(rows, safe_k.itertuples(), strict=True):
        assert label == LABELS[row.run]
        assert criterion.endswith(f" {100 * row.tolerance:g} %")
        assert int(k) == row.safe_k
        assert crossing == tables.format_crossing(row, GRID)
    head, *rows = shown_tables["All runs side by side"]
    assert head == ["", *LABELS.values()]
    shown = {name: cells for name, *cells in rows}
    for i, run in enumerate(LABELS):
        for k in (GRID[0], GRID[-1]):
            overlap = curves.loc[(run, "overlap", k), "mean"]
            assert shown[f"overlap, k = {k}"][i] == tables.format_fraction(overlap)
        worst = curves.loc[(run, "overlap", K), "q05"]
        assert shown[f"worst 5 % keep, k = {K}"][i] == tables.format_fraction(worst)
        ratio = curves.loc[(run, "distance_ratio", K), "mean"]
        assert shown[f"distance ratio, k = {K}"][i] == tables.format_fraction(ratio)
        manifest = json.loads((finished / "04_hnsw" / run / "run.json").read_text())
        computed = manifest.get("distance_computations_per_query", {str(K): None})[str(K)]
        expected = "-" if computed is None else f"{computed:,.0f}"
        assert shown[f"distances computed, k = {K}"][i] == expected


@needs_browser
def test_the_page_has_its_parts_in_order(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    headings = opened.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert headings == [
        *("What that changes, by use", "How many neighbors are kept", "Further figures"),
        *("Gallery", "Full tables", "What was run"),
    ]
    assert opened.evaluate("document.querySelector('h1').nextElementSibling.className") == "verdict"
    assert opened.evaluate("document.querySelectorAll('.verdict').length") == 1
    figure, table = opened.evaluate(
        """['.beside .plot', '.beside table'].map(s => {
            const box = document.querySelector(s).getBoundingClientRect();
            return [box.left, box.right, box.top, box.bottom]; })"""
    )
    assert figure[1] <= table[0], "the table is beside the figure"
    assert figure[2] <= table[2] < figure[3]
    folded = "[...document.querySelectorAll('details')].map(d => [d.open, d.offsetHeight])"
    assert all(not is_open and height < 100 for is_open, height in opened.evaluate(folded))
    assert not opened.get_by_text("numpy").first.is_visible()
    bottom = "document.querySelector('.verdict').getBoundingClientRect().bottom"
    assert opened.evaluate(bottom) < 800, "the first screen says what to do"
    opened.set_viewport_size({"width": 390, "height": 900})
    assert opened.evaluate(
        """document.querySelector('.beside .plot').getBoundingClientRect().bottom
           <= document.querySelector('.beside table').getBoundingClientRect().top"""
    ), "on a phone the table is below"
    assert opened.evaluate(bottom) < 844, "that of a phone too"


@needs_browser
def test_the_page_tells_what_was_run(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    opened.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    text = opened.inner_text("main").replace("\u00a0", " ")
    manifest = json.loads((finished / "05_metrics.json").read_text())
    assert f"numpy {manifest['versions']['numpy']}" in text
    machine = manifest["machine"]
    assert f"{machine['processor']}, {machine['threads']} threads" in text
    for words in ("300 embeddings of 1,280 dimensions", "dataset photos", "seed 0", "seconds"):
        assert words in text
    for run in RUNS:
        assert run in text
    for name, description in manifest["metrics"].items():
        assert name in text
        assert description in text


@needs_browser
def test_every_figure_has_one_title_an_alternative_text_and_a_caption(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    alts = opened.evaluate("[...document.querySelectorAll('.plot img')].map(i => i.alt)")
    assert f"{LABELS[RUNS[1]]}: " in alts[0]
    assert "at k = 40" in alts[0]
    texts = opened.evaluate(
        """[...document.querySelectorAll('.plot')].map(
            p => [p.querySelectorAll('h3').length, p.querySelector('figcaption').textContent])"""
    )
    assert len(texts) == len(PLOTS)
    assert all(titles == 1 and len(caption) > 15 for titles, caption in texts)
    captions = dict(zip(PLOTS, texts, strict=True))
    assert "the fifth with the lowest LID gets" in captions["who_drifts"][1]


@needs_browser
def test_a_table_is_copied_as_a_table(finished, visit):
    opened, _, _ = visit(finished / "06_report.html")
    opened.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened.evaluate(
        """getSelection().selectAllChildren([...document.querySelectorAll('h3')]
           .find(h => h.textContent == 'Safe k').parentNode.querySelector('table'))"""
    )
    copied = [line for line in opened.evaluate("getSelection().toString()").split("\n") if line]
    assert len(copied) == 1 + len(pd.read_parquet(finished / "05_safe_k.parquet"))
    assert {line.count("\t") for line in copied} == {3}


@needs_browser
def test_the_page_can_be_printed(finished, visit):
    opened, _, _ = visit(finished / "06_report.html", color_scheme="dark")
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": A4, "height": 1000})
    beyond = """[...document.querySelectorAll('table, img')].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1).length"""
    assert opened.evaluate(beyond) == 0, "paper does not scroll"
    opened.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
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
    opened, requests, messages = visit(path, width)
    check_opened(path, opened, requests, messages)
    rows = opened.evaluate(
        """[...document.querySelectorAll('.query')].map(row => [row.querySelector('h3').textContent,
           [...row.querySelectorAll('img')].map(i => [i.alt, i.parentNode.className,
            getComputedStyle(i).borderTopColor])])"""
    )
    per_query = pd.read_parquet(drifting / "05_per_query.parquet").query("k == 30")
    overlaps = per_query.set_index("query")["overlap"]
    sources = pd.read_parquet(drifting / "01_images.parquet")["source"]
    exact = np.load(drifting / "03_exact_indices.npy")[:, :30]
    distances = np.load(drifting / "03_exact_distances.npy")
    ann = np.load(drifting / "04_hnsw/faiss_M32_efc200_ef3/k0030_indices.npy")
    assert len(rows) == 2
    queries = []
    for heading, pictures in rows:
        query, lost = map(int, re.match(r"Row (\d+): (\d+) of 30 neighbors lost", heading).groups())
        assert lost == round(30 * (1 - overlaps[query]))
        assert lost == np.setdiff1d(exact[query], ann[query]).size
        assert pictures[0][0] == f"the query, row {query}, {sources[query]}"
        assert sources[query] in opened.inner_text(f".query:nth-of-type({len(queries) + 1})")
        queries.append(query)
        for alt, kind, border in pictures[1:]:
            what, rank, row, source, distance = re.match(
                r"(exact neighbor|returned instead) number (\d+), row (\d+), (.+), "
                r"distance ([\d.]+)",
                alt,
            ).groups()
            assert source == sources[int(row)]
            is_lost = int(row) not in ann[query]
            assert (kind == "lost") == is_lost == alt.endswith(", lost")
            assert (border == "rgba(0, 0, 0, 0)") != is_lost
            if what == "exact neighbor":
                assert exact[query, int(rank) - 1] == int(row)
                assert float(distance) == pytest.approx(distances[query, int(rank) - 1], rel=6e-4)
            else:
                assert int(row) not in exact[query]
                assert ann[query, int(rank) - 1] == int(row)
    first, second = queries
    assert overlaps[first] == overlaps.min()
    assert first not in exact[second], "the queries differ"
    assert second not in exact[first]
    is_like = np.isin(exact, first).any(axis=1) | np.isin(np.arange(N), exact[first])
    is_like[first] = True
    assert overlaps[second] == overlaps[~is_like].min()


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
        *("05_curves.parquet", "05_safe_k.parquet", "05_per_query.parquet"),
        *("01_images.npy", "01_images.parquet"),
        *("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy"),
        *(f"{run}/k0030_indices.npy", f"{run}/k0030_distances.npy"),
    }
    stages = ["01_images", "02_embeddings", "03_exact", run, "05_metrics"]
    assert list(manifest["parameters"]["manifests"]) == stages


def test_without_images_the_gallery_is_left_out_and_other_times_are_drawn_anew(results, drive):
    (results / "01_images.npy").unlink()
    status, out, _ = drive("06_plots.py", results=results)
    assert status == 0
    assert "left out: images and gallery (01_images.npy is missing, or" in out
    html = (results / "06_report.html").read_text()
    assert "Left out: images and gallery, because 01_images.npy is missing, or" in html
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
    ("gone", "data"),
    [
        ("02_embeddings.json", ": 300 queries."),
        ("03_exact.json", ": 300 queries among 300 embeddings of 1,280 dimensions (photos"),
    ],
)
def test_what_a_stage_that_is_gone_had_to_tell_is_left_out(gone, data, results, drive):
    (results / gone).unlink()
    (results / "01_images.npy").unlink()  # with them there is a gallery, which needs the lists
    status, _, err = drive("06_plots.py", results=results)
    assert status == 0, err
    assert data in (results / "06_report.html").read_text().replace("\u00a0", " ")


def test_runs_that_are_not_those_measured_are_not_drawn(results, drive):
    shutil.rmtree(results / "04_hnsw" / RUNS[0])
    status, _, err = drive("06_plots.py", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "no longer those that were measured: run 05_metrics.py again" in err


@needs_browser
def test_lists_of_another_system_get_a_page(results, tmp_path, drive, visit):
    ids = tmp_path / "ann_ids.npy"
    np.save(ids, np.load(results / "04_hnsw" / RUNS[0] / "k0040_indices.npy"))
    for script, *args in (
        ("04_hnsw_search.py", "--lists", "vespa", ids, "--replace"),
        ("05_metrics.py",),
        ("06_plots.py",),
    ):
        status, out, err = drive(script, *args, results=results)
        assert status == 0, err
    assert "left out: speed (these lists came without search times)" in out
    path = results / "06_report.html"
    check_opened(path, *visit(path, 390))
    html = path.read_text()
    assert f": {N} queries among {N} embeddings of 1,280 dimensions (photos, " in html
    assert ">vespa</th>" in html
    assert str(tmp_path) not in html, "the page tells nobody where its maker works"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "gif"], "gif"),
        (["--gallery", "-1"], "--gallery"),
        (["--gallery-run", "annoy"], "--gallery-run annoy was not measured, but faiss"),
        (["--gallery-k", "15"], "--gallery-k 15 was not measured for faiss"),
        (["--dpi", "5"], "--dpi"),
    ],
)
def test_bad_arguments_are_one_line(args, message, finished, drive):
    before = (finished / "06_report.html").read_bytes()
    status, _, err = drive("06_plots.py", *args, results=finished)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
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
    assert tables.format_number(value) == text


def test_shares_are_all_or_nothing_only_when_they_are():
    assert [tables.format_fraction(value) for value in (1.0, 0.9997, 0.5, 0.0001, 0.0)] == [
        *("1.000", "> 0.999", "0.500", "< 0.001", "0.000"),
    ]


def make_study(overlaps, efs=None, different=None, **options):
    """A study by hand, from the overlap of each run by k, and what follows from it.

    Without `different`, a pair of runs, all runs differ wherever their overlaps do.
    """
    made = {"half": 0.001, "found": 1.0, "lid_off": 0.0, "share": 1.0, "recall": {}, "groups": None}
    made |= {"n_queries": 10_000} | options
    rows, safe, differences, half = [], [], [], made["half"]
    for run, kept in overlaps.items():
        for k, overlap in kept.items():
            few = overlap < 0.99
            means = {
                "overlap": overlap,
                "recall": made["recall"].get(run, overlap),
                "found": made["found"] if few else 1.0,
                "distance_ratio": overlap,
                "barycenter_shift_relative": 1 - overlap,
                "lid_exact": 10.0,
                "lid_difference": 10 * made["lid_off"] if few else 0.0,
            }
            for metric, mean in means.items():
                ends = {"ci_low": mean - half, "ci_high": mean + half, "q05": mean - 0.1}
                n = made["n_queries"] * (made["share"] if metric.startswith("lid") else 1)
                rows.append({"run": run, "k": k, "metric": metric, "mean": mean, "n": n} | ends)
        criteria = {"overlap": kept}
        if run in made["recall"]:
            criteria["recall"] = dict.fromkeys(kept, made["recall"][run])
        for criterion, values in criteria.items():
            for tolerance in (0.99, 0.95, 0.90):
                good = [k for k, value in values.items() if value - half >= tolerance]
                row = {"run": run, "criterion": criterion, "tolerance": tolerance}
                row |= {"crossing_k": np.nan, "crossing_low": np.nan, "crossing_high": np.nan}
                if len(good) < len(values):
                    row |= {"crossing_k": 66.4, "crossing_low": 61.2, "crossing_high": 72.5}
                safe.append(row | {"safe_k": max(good, default=0)})
    for first, second in itertools.combinations(overlaps, 2):
        for metric, k in itertools.product(("overlap", "recall"), overlaps[first]):
            more = overlaps[first][k] - overlaps[second].get(k, np.nan)
            is_different = abs(more) > 0 and different in (None, (first, second))
            row = {"first": first, "second": second, "metric": metric, "k": k, "difference": more}
            differences.append(row | {"different": is_different})
    searched = make_searched(**efs or {})
    runs = {run: {"backend": run, "ef_search": None} for run in overlaps}
    runs |= {run: manifest["parameters"] for run, manifest in searched.items()}
    facts = {"parameters": {"runs": {run: runs[run] for run in overlaps}}, "inputs": {}}
    facts |= {"differences": differences, "n_queries": made["n_queries"], "groups": made["groups"]}
    facts |= {"versions": {}, "machine": {}}
    return Study.from_tables(pd.DataFrame(rows), pd.DataFrame(safe), None, facts, searched)


def make_searched(**efs):
    """Manifests of runs of stage 04, at k = 10 and 250."""
    searched = {}
    for run, ef in efs.items():
        backend = run.partition("_")[0]
        settings = {"backend": backend, "M": 32, "ef_construction": 200, "seed": 0, "ef_search": ef}
        effective = {}
        for length in (11, 251):
            least = int(str(ef).partition(",")[2] or 0)
            number = max(length, least) if str(ef).startswith("k") else ef
            stop = number if backend in ("faiss", "pgvector") else max(number, length)
            effective[str(length - 1)] = {
                "list_length": length,
                "ef_search": number,
                "candidates": max(number, length),
                "stops_after": stop,
            }
        searched[run] = {"parameters": settings, "effective_ef": effective}
    return searched


def make_verdict(overlaps, efs, **options):
    return " ".join(verdict(make_study(overlaps, efs, **options)).sentences)


FALLS, STAYS, GROWS = {10: 0.9995, 250: 0.64}, {10: 0.999, 250: 0.998}, {10: 0.994, 250: 0.998}
FLOOR = {10: 0.9995, 250: 0.998}


def test_the_verdict_gives_result_reason_and_advice():
    study = make_study(
        {"faiss_50": FALLS, "faiss_kmin50": FLOOR, "hnswlib_50": STAYS},
        {"faiss_50": 50, "faiss_kmin50": "k,50", "hnswlib_50": 50},
        found=0.856,
        lid_off=-0.588,
    )
    said = verdict(study)
    text = " ".join(said.found)
    assert text.startswith("3 approximate searches beside the exact k nearest neighbors, k = 10 to")
    assert (
        "FAISS efSearch k, at least 50, and hnswlib efSearch 50 keep at least 99 % of the" in text
    )
    assert "FAISS efSearch 50 keeps at least 99 % of the neighbors only up to k = 10, " in text
    assert "keeps 0.640 at k = 250" in text
    assert "14.4 % of the places stay empty" in text
    assert "an LID 58.8 % too low" in text
    text = " ".join(said.reason)
    assert "The reason is where a search stops: FAISS lists max(efSearch, k) candidates" in text
    assert "stops after 50 of 251 (the query itself is one)" in text
    assert "hnswlib raises efSearch" in text
    assert said.advice == [
        "So with FAISS let efSearch grow with k, but not fall below 50: on the same graph FAISS "
        "efSearch k, at least 50, keeps 0.998 at k = 250 and > 0.999 at k = 10."
    ]
    assert "misstates" not in " ".join(said.sentences)


def test_the_tables_say_where_every_tolerance_is_crossed():
    study = make_study({"theirs": {10: 0.999, 250: 0.93}})
    shown = tables.overview(study).set_index("")["theirs"]
    expected = ["66.4 (61.2 to 72.5)"] * 2 + ["-"]
    assert [shown[f"{lost} % lost at k"] for lost in (1, 5, 10)] == expected
    assert list(tables.safe_table(study).iloc[:, -1]) == expected


@pytest.mark.parametrize(
    ("crossing", "text"),
    [
        ((np.nan, np.nan, np.nan), "-"),
        ((np.nan, 220.4, np.nan), "- (from 220 on, perhaps)"),
        ((66.43, 64.0, 68.26), "66.4 (64 to 68.3)"),
        ((240.0, 230.0, np.nan), "240 (230 to more than 250)"),
        ((10.0, 10.0, 10.0), "10 or less"),
    ],
)
def test_a_crossing_stands_with_its_interval(crossing, text):
    names = ("crossing_k", "crossing_low", "crossing_high")
    row = SimpleNamespace(**dict(zip(names, crossing, strict=True)))
    assert tables.format_crossing(row, [10, 100, 250]) == text


def test_the_advice_is_right_at_small_k_where_that_was_measured():
    runs = {"faiss_50": 50, "faiss_k": "k"}
    text = make_verdict({"faiss_50": FALLS, "faiss_k": GROWS}, runs)
    assert (
        "let efSearch grow with k, but not fall below 50: on the same graph FAISS efSearch k"
        in text
    )
    assert "keeps 0.998 at k = 250, but 0.994 at k = 10, less than FAISS efSearch 50." in text
    text = make_verdict({"faiss_50": FALLS, "faiss_k": FLOOR}, runs)
    assert "let efSearch grow with k: " in text
    assert "fall below" not in text
    # The run that is worse nowhere is the one to follow.
    runs |= {"faiss_kmin50": "k,50"}
    text = make_verdict({"faiss_50": FALLS, "faiss_k": GROWS, "faiss_kmin50": FLOOR}, runs)
    assert "on the same graph FAISS efSearch k, at least 50, keeps 0.998 at k = 250 and >" in text
    text = make_verdict({"faiss_50": FALLS, "faiss_300": STAYS}, {"faiss_50": 50, "faiss_300": 300})
    assert (
        "let efSearch be no less than the list is long: on the same graph FAISS efSearch 300"
        in text
    )


def test_only_what_differs_beyond_its_interval_is_called_different():
    runs = {"faiss_50": FALLS, "faiss_k": STAYS}
    efs = {"faiss_50": 50, "faiss_k": "k"}
    assert "The reason is" in make_verdict(runs, efs)
    assert "The reason may be" in make_verdict(runs, efs, different=("other", "pair"))
    close = {"a": STAYS, "b": {10: 0.999, 250: 0.9979}, "c": {10: 0.999, 250: 0.9}}
    text = make_verdict(close, {}, different=("a", "c"))
    assert "At k = 250 there is no difference beyond the intervals between a and b." in text
    assert "no difference" not in make_verdict(close, {})
    grown = {"faiss_50": FALLS, "faiss_k": GROWS}
    text = make_verdict(grown, efs, different=("other", "pair"))
    assert "fall below" not in text, "a difference smaller than its interval is none"


def test_an_error_of_the_lid_within_its_interval_is_none():
    runs = {"theirs": {10: 0.999, 250: 0.8}}
    assert "an LID 2.0 % too high" in make_verdict(runs, {}, lid_off=0.02)
    assert "too high" not in make_verdict(runs, {}, lid_off=0.02, half=0.3)


def test_ties_are_no_losses():
    text = make_verdict({"copies": {10: 0.433, 250: 0.9}}, {}, recall={"copies": 1.0})
    assert "Rows tie, and ties are no losses: what follows speaks of recall." in text
    assert "copies keeps at least 99 % of the neighbors on average at every k" in text
    assert "less than 99 %" not in text
    study = make_study({"copies": {10: 0.433, 250: 0.9}}, recall={"copies": 1.0})
    shown = tables.overview(study).set_index("")["copies"]
    assert shown["recall, k = 10"] == "1.000"
    assert shown["overlap, k = 10"] == "0.433"
    assert shown["99 % kept up to k"] == "250"
    assert "recall, k = 10" not in tables.overview(make_study({"theirs": STAYS})).to_string()


def test_what_holds_for_few_is_said_for_few():
    few = "(of the 1 % of the queries that have one)"
    assert f"an LID {few} within 0.1 % of" in make_verdict({"theirs": STAYS}, {}, share=0.01)
    text = make_verdict({"theirs": {10: 0.999, 250: 0.8}}, {}, share=0.01, lid_off=0.2)
    assert f"an LID {few} 20.0 % too high" in text
    assert few not in make_verdict({"theirs": STAYS}, {}, share=0.995)
    study = make_study({"theirs": {10: 0.999, 250: 0.8}}, share=0.01, lid_off=0.2)
    shown = tables.overview(study).set_index("")["theirs"]
    assert shown["LID off by %, k = 250"] == "+20.0 (of 1 %)"


def test_the_verdict_says_what_its_intervals_are_of():
    text = make_verdict({"theirs": STAYS}, {})
    assert "Intervals are of 95 %, over 10,000 queries." in text
    assert "too narrow" not in text
    text = make_verdict({"theirs": STAYS}, {}, n_queries=999, groups=15)
    assert "over 15 groups of images that are alike" in text
    assert "With fewer than 1,000 queries those of skewed metrics" in text


def test_who_drifts_is_said_in_a_sentence():
    queries = pd.DataFrame({"query": range(100), "lid_exact": range(100)})
    queries = queries.assign(run="theirs", k=250, overlap=0.5 + queries["lid_exact"] / 200)
    queries = queries.assign(distance_ratio=1.0)
    study = make_study({"theirs": {10: 0.999, 250: 0.8}})
    study = dataclasses.replace(study, per_query=queries)
    assert drifters(study) == (
        "At k = 250 theirs returns less than 0.9 of the neighbors to 80.0 % of the queries. Of the "
        "queries, the fifth with the lowest LID gets 0.548 of them on average, the fifth with the "
        "highest 0.948."
    )
    queries.loc[queries["query"] >= 10, "lid_exact"] = np.nan
    assert "Of the 10 % that have an LID, the fifth" in drifters(study)


def test_the_verdict_claims_no_reason_that_was_not_measured():
    text = make_verdict({"faiss_50": FALLS}, {"faiss_50": 50})
    assert "The reason may be where a search stops" in text
    assert "measure a run whose efSearch grows with k (--runs faiss:k,50)" in text
    text = make_verdict({"faiss_50": FALLS, "faiss_k": FALLS}, {"faiss_50": 50, "faiss_k": "k"})
    assert "The reason may be" in text
    text = make_verdict({"faiss_300": FALLS}, {"faiss_300": 300})
    assert "stop" not in text
    assert "search wider, or build a denser index, and measure again" in text
    text = make_verdict({"theirs": FALLS}, {})
    assert "efSearch" not in text
    assert "FAISS" not in text


def test_each_library_that_stops_early_gets_its_reason_and_its_advice():
    study = make_study(
        {"faiss_50": FALLS, "faiss_kmin50": FLOOR, "pgvector_50": {10: 0.999, 250: 0.196}},
        {"faiss_50": 50, "faiss_kmin50": "k,50", "pgvector_50": 50},
    )
    said = verdict(study)
    (reason,) = said.reason
    assert "at k = 250 pgvector efSearch 50 returns 50 of 251" in reason
    assert "FAISS efSearch 50 at k = 250 stops after 50 of 251" in reason
    of_pgvector, of_faiss = said.advice
    assert of_pgvector.startswith("So with pgvector let hnsw.ef_search be more than k")
    assert of_faiss.startswith("So with FAISS let efSearch grow with k, but not fall below 50")


def test_a_run_on_a_shorter_grid_is_not_called_safe_beyond_it():
    text = make_verdict({"ours": STAYS, "short": {10: 0.999, 100: 0.998}}, {})
    assert "on average at every k of its grid, up to 100 at least" in text
    assert "on average at every k," in make_verdict({"ours": STAYS, "others": STAYS}, {})


def test_the_verdict_is_short_and_careful():
    text = make_verdict({"faiss_300": STAYS}, {"faiss_300": 300})
    assert "So lists up to k = 250 can be had from FAISS efSearch 300." in text
    assert "within 0.1 %" in text
    text = make_verdict({"theirs": {10: 0.9905, 250: 0.8}}, {})
    assert "theirs may keep less than 99 % of the neighbors from the first k on" in text
    text = make_verdict({"theirs": {10: 0.9, 250: 0.8}}, {})
    assert "theirs keeps less than 99 % of the neighbors from the first k on" in text
    many = {f"system {i}": {10: 0.999, 250: 0.9 - i / 100} for i in range(9)}
    text = " ".join(verdict(make_study(many)).found)
    assert "9 searches keep less, these 3 least: system 8 keeps" in text
    assert "system 8" in text
    assert "system 5" not in text
    assert len(text) < 600


def test_what_was_compared_is_named():
    study = make_study({"theirs": STAYS})
    stages = {
        "01_images": {"parameters": {"dataset": "photos"}},
        "02_embeddings": {
            "parameters": {"model": "resnet50"},
            "outputs": {"02_embeddings.npy": {"shape": [2000, 2048]}},
        },
    }
    study = dataclasses.replace(study, manifests=stages)
    expected = "10,000 queries among 2,000 embeddings of 2,048 dimensions (photos, resnet50)"
    assert extent(study) == expected


HOSTILE = '"><script>alert(1)</script>'


def test_what_is_not_html_is_escaped():
    made = make_study({"run": STAYS})
    curves = made.curves
    curves = pd.concat([curves, curves[curves["metric"] == "overlap"].assign(metric=HOSTILE)])
    manifest = {"parameters": {HOSTILE: HOSTILE}, "inputs": {}, "outputs": {}, "seconds": 1.0}
    manifest |= {"date": HOSTILE, "versions": {HOSTILE: HOSTILE}, "metrics": {HOSTILE: HOSTILE}}
    study = dataclasses.replace(
        made,
        curves=curves,
        styles=run_styles({"run": {"backend": HOSTILE, "ef_search": 5}}),
        facts=made.facts | manifest | {"parameters": made.facts["parameters"]},
        manifests={HOSTILE: manifest, "05_metrics": manifest},
    )
    neighbors = pd.DataFrame({"row": [0], "rank": 1, "distance": 0.5, "lost": True})
    images = np.zeros((1, 8, 8, 3), np.uint8), pd.DataFrame({"source": [HOSTILE], "label": [3]})
    query = DriftedQuery(0, 1, 0, neighbors, neighbors)
    html = page.render(
        study,
        [Plot("overlap", HOSTILE, b""), Plot("found", HOSTILE, b"")],
        Gallery([query], HOSTILE, 10, *images),
        {HOSTILE: HOSTILE},
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert '"">' not in html


def test_images_have_the_names_of_their_files_and_their_labels():
    table = pd.DataFrame({"source": ["photos/a/1", "/home/me/cats/tom.png"], "label": [-1, 3]})
    gallery = Gallery([], "run", 10, np.zeros((2, 8, 8, 3), np.uint8), table)
    assert [gallery.name(row) for row in (0, 1)] == ["photos/a/1", "tom.png, label 3"]


@pytest.mark.parametrize(
    ("grid", "chosen"),
    [
        (range(10, 251, 10), [10, 50, 100, 150, 200, 250]),
        ([10, 20, 30], [10, 20, 30]),
        ([7], [7]),
        (range(1, 10), [1, 2, 4, 5, 7, 9]),
    ],
)
def test_tables_show_the_ends_of_the_grid(grid, chosen):
    assert tables.evenly(grid, 6) == chosen


def test_complete_lists_are_the_share_of_queries_that_got_k_neighbors():
    published = notebook.curve()
    metrics = [name for name in published.columns if name not in ("k", "overlap_std")]
    full = {"kth_squared_distance_ann": 30, "lid_notebook_ann": 30}
    rows = [("ours", 100, name, 1.0, full.get(name, 40)) for name in metrics]
    curves = pd.DataFrame(rows, columns=["run", "k", "metric", "mean", "n"])
    styles = run_styles({"ours": {"backend": "Ours", "ef_search": None}})
    study = Study(curves, None, styles, {"ours": ["ours"]}, {}, published=published)
    table = tables.published_table(study).set_index(["k", "curve"])
    assert table[tables.COMPLETE][100, "Ours"] == 0.75
    assert np.isnan(table[tables.COMPLETE][100, "published"])
