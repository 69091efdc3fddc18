"""The page in a real browser, and stage 06 as a whole."""

import csv
import io
import itertools
import json
import re
import shutil
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from drift.indexes.run import Run
from drift.pipeline.manifests import manifest_hash
from drift.report import figures, gallery, page
from drift.report.figures import Plot
from drift.report.gallery import DriftedQuery, Gallery
from tests.conftest import GRID, RUNS, K
from tests.studies import falls, make_run, make_study
from tests.test_figures import CASES, FAISS_K

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium, for instance"
)
LABELS = ("faiss 50", "faiss k,50", "hnswlib 50")
DESKTOP, PHONE = (1400, 900), (390, 844)
A4 = 794 - 106  # width between the margins of the print, in pixels
# Scripts in the page.
UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
SHOW_ALL = (
    "document.head.append(Object.assign(document.createElement('style'), {textContent: "
    "'.choice > section { display: block !important; }'}))"
)
HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => h.tagName)"
# Of each table its name, its cells, those of its file, and whether it is to be seen.
TABLES = """[...document.querySelectorAll('.table')].map(box => {
    const link = box.querySelector('a[download]');
    const text = cell => cell.innerText.replaceAll('\u00a0', ' ').replace(/\\s+/g, ' ').trim();
    return [link.download, [...box.querySelectorAll('tr')].map(row => [...row.cells].map(text)),
            link.href, box.checkVisibility()]; })"""
BOXES = """names => names.map(s => {
    const box = document.querySelector(s).getBoundingClientRect();
    return [box.left, box.right, box.top, box.bottom]; })"""
# Texts whose contrast to what is behind them is below 4.5, as WCAG 2 defines it.
PALE = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = color => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), pale = [];
    let texts = 0;
    while (walker.nextNode()) {
        const one = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !one.checkVisibility()) continue;
        const style = getComputedStyle(one);
        const ink = rgba(one.closest('svg') ? style.fill : style.color);
        let paper = null, opacity = ink[3] / 255;
        for (let e = one; e; e = e.parentElement) {
            opacity *= getComputedStyle(e).opacity;
            const behind = rgba(getComputedStyle(e).backgroundColor);
            if (!paper && behind[3] === 255) paper = behind; }
        const seen = ink.map((c, i) => opacity * c + (1 - opacity) * paper[i]);
        const [low, high] = [light(seen), light(paper)].sort((x, y) => x - y);
        const contrast = (high + 0.05) / (low + 0.05);
        texts += 1;
        if (contrast < 4.5) pale.push([walker.currentNode.data.trim(), contrast]); }
    return [texts, pale]; }"""
BEYOND = """[...document.querySelectorAll('table, img, svg')].filter(
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
    """Open a page offline, and check what holds of every page, folded and unfolded.

    That is no request, no complaint, no link but to what is inside, nothing out of sight, no pale
    text, a text for each figure, and headings in order.
    """
    contexts = []

    def open_page(path, size=DESKTOP, **options):
        viewport = dict(zip(("width", "height"), size, strict=True))
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        context.set_offline(True)
        opened, requests, messages = context.new_page(), [], []
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("console", lambda message: messages.append(message.text))
        opened.on("pageerror", lambda error: messages.append(str(error)))
        opened.goto(path.as_uri())
        links = opened.evaluate("[...document.links].map(a => [a.download, a.href.slice(0, 14)])")
        assert {link for _, link in links} == {"data:text/csv;"}, "others break when handed on"
        assert len({name for name, _ in links}) == len(links)
        assert opened.evaluate("document.scripts.length") == 0
        for script in ("0", UNFOLD, SHOW_ALL):
            opened.evaluate(script)
            room = opened.evaluate(
                "['scrollWidth', 'clientWidth'].map(s => document.documentElement[s])"
            )
            assert room[0] <= room[1], "the page scrolls sideways"
        texts, pale = opened.evaluate(PALE)
        assert texts > 150 and pale == []
        figures = "[...document.querySelectorAll('figure > svg, figure > img, .query img')]"
        shown = "i => [i.alt ?? i.ariaLabel, i.role ?? 'img', i.getBoundingClientRect().width]"
        pictures = opened.evaluate(f"{figures}.map({shown})")
        assert pictures
        assert all(alt and role == "img" and width > 30 for alt, role, width in pictures)
        ranks = [int(name[1]) for name in opened.evaluate(HEADINGS)]
        assert (ranks[0], ranks.count(1)) == (1, 1)
        assert (np.diff(ranks) <= 1).all(), "a heading leaves out a rank"
        opened.reload()
        assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}
        assert messages == []
        return opened

    yield open_page
    for context in contexts:
        context.close()


@needs_browser
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_is_the_finding_by_day_and_by_night(finished, visit, size, scheme):
    path = finished / "06_report.html"
    opened = visit(path, size, color_scheme=scheme)
    red = re.findall(r"\d+", opened.evaluate("getComputedStyle(document.body).backgroundColor"))[0]
    assert (int(red) < 60) == (scheme == "dark")
    assert path.stat().st_size < 1.5e6
    parts = ("h1", ".data", ".numbers", "header figure > svg", ".todo", ".legend")
    title, data, numbers, figure, box, legend = opened.evaluate(BOXES, parts)
    assert title[3] <= data[2] <= data[3] <= numbers[2]
    assert figure[3] < (1 if size == DESKTOP else 2) * size[1]
    if size == DESKTOP:
        assert numbers[1] <= figure[0] and box[1] <= figure[0], "the figure is beside them"
        assert numbers[3] <= box[2] <= box[3] < legend[2]
    else:
        assert numbers[3] <= figure[2] <= figure[3] <= box[2]
    for place in ("0", "document.body.scrollHeight"):
        opened.evaluate(f"scrollTo(0, {place})")
        (legend,) = opened.evaluate(BOXES, [".legend"])
        assert legend[2] >= 0 and legend[3] <= size[1] and legend[3] - legend[2] < 70
    # What is scrolled to within a table goes below the names of the runs, and there is an edge.
    if size == PHONE:
        first, wide = "table th:first-child", "[0, 300].map(x => {box.scrollLeft = x; return "
        wide = f"box => {wide}box.querySelector('th').getBoundingClientRect().left;}})"
        table = opened.locator(".scroll", has=opened.locator(first)).locator("visible=true").first
        assert len({*table.evaluate(wide)}) == 1
        assert "gradient" in table.evaluate("box => getComputedStyle(box).backgroundImage")


@needs_browser
def test_pointing_at_a_run_shows_its_intervals(finished, visit):
    opened = visit(finished / "06_report.html")
    chips = opened.locator(".legend li")
    assert chips.all_inner_texts() == [*LABELS, "exact"]
    shown = "i => getComputedStyle(document.querySelector(`.band.run-${i}`)).visibility"
    before = [opened.evaluate(shown, i) for i in range(3)]
    assert sorted(before) == ["hidden", "hidden", "visible"]
    hidden = before.index("hidden")
    for point in (
        chips.nth(hidden).focus,
        opened.locator("header .run").locator("visible=true").first.hover,
    ):
        point()
        pointed = opened.evaluate("document.querySelector(':is(:focus, .run:hover)').className")
        i = int(re.search(r"run-(\d)", pointed)[1])
        assert opened.evaluate(shown, i) == "visible"
        opened.evaluate("document.activeElement.blur()")
    opened.mouse.move(0, 0)
    assert [opened.evaluate(shown, i) for i in range(3)] == before


@needs_browser
def test_values_in_the_page_are_those_of_the_tables_and_so_are_those_of_its_files(finished, visit):
    opened = visit(finished / "06_report.html")
    opened.evaluate(UNFOLD)
    curves = pd.read_parquet(finished / "05_curves.parquet").set_index(["run", "metric", "k"])
    for k in (K, *GRID[:-1]):
        opened.locator(".choice > label", has_text=re.compile(f"^k = {k}$")).click()
        shown = {name: cells for name, cells, _, is_shown in opened.evaluate(TABLES) if is_shown}
        assert [name for name in shown if name.startswith("k_")] == [f"k_{k}.csv"]
        head, *rows = shown[f"k_{k}.csv"]
        assert head[:3] == ["run", "kept, %", "worst 5 % keep, %"]
        assert [row[0] for row in rows] == list(LABELS)
        kept = [float(row[1]) for row in rows]
        expected = [100 * curves.loc[(run, "overlap", k), "mean"] for run in RUNS]
        assert kept == pytest.approx(expected, abs=0.0501)
    for name, cells, href, _ in opened.evaluate(TABLES):
        lines = [*csv.reader(io.StringIO(unquote(href.split(",", 1)[1])))]
        if not name.startswith("k_"):
            assert (lines[0] == cells[0]) or name == "uses_at_a_glance.csv"
            assert [[*map(flat, line)] for line in lines[1:]] == cells[1:], name
    href = opened.locator("a[download='curves.csv']").get_attribute("href")
    table = pd.read_csv(io.StringIO(unquote(href.split(",", 1)[1]))).set_index(["run", "k"])
    for (run, metric, k), row in curves.iterrows():
        for column in ("mean", "ci_low", "ci_high", "n", "groups_that_differ"):
            name = metric if column == "mean" else f"{metric}_{column}"
            if not np.isnan(row[column]) and row[column] != -1:
                assert table[name][run, k] == pytest.approx(row[column], rel=1e-4)


def flat(text):
    return " ".join(text.split())


@needs_browser
def test_the_page_has_its_parts_in_order_and_tells_what_was_run(finished, visit):
    opened = visit(finished / "06_report.html")
    headings = opened.locator("h2").all_inner_texts()
    assert headings == [
        *("Neighborhood overlap", "What to do", "Why", "The runs", "What that changes, by use"),
        *("One k at a time", "Further figures", "Gallery"),
        *("Figures that show little", "All numbers", "What was run"),
    ]
    folded = "[...document.querySelectorAll('details')].map(d => [d.open, d.offsetHeight])"
    assert all(not is_open and height < 100 for is_open, height in opened.evaluate(folded))
    opened.evaluate(UNFOLD)
    text = flat(opened.inner_text("main"))
    manifest = json.loads((finished / "05_metrics.json").read_text())
    machine = manifest["machine"]
    for words in (
        *("200 embeddings of 1,280 dimensions", "dataset photos", "seed 0", "seconds", *RUNS),
        f"numpy {manifest['versions']['numpy']}",
        f"{machine['processor']}, {machine['threads']} threads",
        *itertools.chain.from_iterable(manifest["metrics"].items()),
    ):
        assert words in text
    descriptions = [
        Run.from_json(run["run"]).description for run in manifest["parameters"]["runs"].values()
    ]
    assert [text.count(one) for one in descriptions] == [1, 1, 1], "in full once"
    alts = opened.evaluate("[...document.querySelectorAll('figure > svg')].map(i => i.ariaLabel)")
    assert f"{LABELS[1]}: " in alts[0] and "at k = 10 to 40" in alts[0]
    captions = opened.locator("figcaption").all_inner_texts()
    assert all(len(caption) > 15 for caption in captions)
    assert any("the fifth with the lowest LID gets" in caption for caption in captions)


@needs_browser
def test_a_page_of_many_runs_has_a_chip_for_each_series_and_a_frontier(tmp_path, visit, draw_only):
    draw_only("overlap", "frontier", "lid")
    study, path = CASES["sweep"], tmp_path / "page.html"
    for manifest in study.manifests.values():
        manifest |= {"seconds": 1.0, "date": "2026", "versions": {}, "machine": {}}
    plots, _ = figures.draw_figures(study, 30, ["png"], lambda name: tmp_path / name)
    path.write_text(page.render(study, plots, None, {}))
    opened = visit(path, PHONE, color_scheme="dark")
    chips = opened.locator(".legend li")
    assert {*chips.all_inner_texts()} == {*study.series, study.labels[FAISS_K], "exact"}
    chips.first.focus()
    shown = "i => getComputedStyle(document.querySelector(`.band.run-${i}`)).visibility"
    indices = [study.styles[run].index for run in next(iter(study.series.values()))]
    assert {opened.evaluate(shown, i) for i in indices} == {"visible"}
    for label in ("LID and cost", "Density and cost", "Overlap and cost"):
        opened.locator(".choice > label", has_text=label).click()
        seen = opened.locator(".choice > section").locator("visible=true").locator("h3")
        assert seen.all_inner_texts() == [label]


@needs_browser
def test_the_page_can_be_printed(finished, visit):
    opened = visit(finished / "06_report.html", color_scheme="dark")
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": A4, "height": 1000})
    assert opened.evaluate(BEYOND) == 0, "paper does not scroll"
    color = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == "rgb(255, 255, 255)"
    assert opened.evaluate(PALE)[1] == []
    assert opened.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@needs_browser
def test_the_gallery_frames_what_was_lost_and_formats_come_beside_the_png(results, stages, visit):
    stages("04 --runs faiss:3 --replace", "05")
    stages("06 --gallery 2 --gallery-k 30 --format svg pdf --dpi 30 --tolerance 0.02 0.125")
    run = "04_hnsw/faiss_M32_efc200_ef3"
    manifest = json.loads((results / "06_figures.json").read_text())
    plots = {name.split(".")[0] for name in manifest["outputs"]} - {"06_report"}
    assert {"06_overlap", "06_images", "06_lid"} < plots
    names = (f"{name}.{suffix}" for name in plots for suffix in ("png", "svg", "pdf"))
    assert set(manifest["outputs"]) == {*names, "06_report.html"}
    measured = {f"05_{name}.parquet" for name in ("curves", "safe_k", "per_query", "by_use")}
    assert measured < set(manifest["inputs"])
    assert {name for name in manifest["inputs"] if not name.startswith("05_")} == {
        *("01_images.npy", "01_images.parquet", "02_rows.parquet"),
        *("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy"),
        *(f"{run}/k0030_indices.npy", f"{run}/k0030_distances.npy"),
    }, "every file that is read is an input"
    stages = ["01_images", "02_embeddings", "03_exact", run, "05_metrics"]
    assert list(manifest["parameters"]["manifests"]) == stages

    exact = np.load(results / "03_exact_indices.npy")[:, :30]
    ann = np.load(results / run / "k0030_indices.npy")
    sources = list(pd.read_parquet(results / "01_images.parquet")["source"])
    visit(results / "06_report.html", PHONE)
    opened = visit(results / "06_report.html")
    said = flat(opened.locator(".uses > p").first.inner_text())
    assert "kept up to 2 %, changed up to 12.5 %, else lost" in said
    shown = opened.evaluate(GALLERY)
    assert len(shown) == 2
    for heading, pictures in shown:
        name, lost = re.match(r"(.+): (\d+) of 30 neighbors lost", heading).groups()
        query = sources.index(name)
        assert int(lost) == np.setdiff1d(exact[query], ann[query]).size
        assert pictures[0][0] == f"the query, {name}"
        for alt, kind, border in pictures[1:]:
            what, rank, source = re.match(r"(.+) number (\d+), ([^,]+), [^,]*as far", alt).groups()
            row = (exact if what == "exact neighbor" else ann)[query, int(rank) - 1]
            assert sources[row] == source
            assert (kind == "lost") == (row not in ann[query]) == alt.endswith(", lost")
            assert (border == "rgba(0, 0, 0, 0)") == (kind != "lost")


@pytest.mark.parametrize(
    ("instead", "labels", "groups", "differs"),
    [
        ([4, 5], [0, 0, 0, 0, 0, 1], [-1] * 6, False),  # half of them
        ([4, 5], [0, 0, 0, 0, 1, 1], [-1] * 6, True),
        ([4, 5], [-1] * 6, [7, 7, 7, 7, 8, 9], True),
        ([4, 5], [0, 0, 0, 0, -1, -1], [7, 7, 7, 7, -1, -1], False),  # nobody knows
        ([4, -1], [0, 0, 0, 0, 1, 0], [-1] * 6, True),
        ([2, 3], [0, 0, 1, 1, 0, 0], [-1] * 6, False),  # those are neighbors
    ],
)
def test_a_query_got_something_else_if_most_has_another_label_or_group(
    instead, labels, groups, differs
):
    known = pd.DataFrame({"label": labels, "group": groups})
    lists = np.array([[1, 2, 3]]), np.array([[1, *instead]])
    assert gallery.got_something_else(np.array([0]), *lists, known) == [differs]


def test_what_another_query_got_is_no_neighbor_of_this_one():
    known = pd.DataFrame({"label": [0, 0, 0, 1, 1, 0], "group": -1})
    lists = np.array([[1, 2], [3, 4]]), np.array([[3, 4], [1, 2]])
    differs = gallery.got_something_else(np.array([0, 5]), *lists, known)
    assert differs.tolist() == [True, False]


def test_distances_are_in_words():
    words = ["as far", "1.3 times as far", "twice as far", "", ""]
    assert [*map(gallery.times_as_far, (1.04, 1.3, 1.96, np.inf, np.nan))] == words
    ids, distances = np.arange(4), np.array([0.0, 1.0, 2.0, 4.0])
    query = gallery.drifted_query(9, ids, distances, np.array([0, 1, 7, 8]), distances * 2)
    assert query.farther == "twice as far" and list(query.exact["far"])[1] == "as far"
    copies = gallery.drifted_query(9, ids, 0 * distances, ids + 1, distances)
    assert set(copies.exact["far"]) == {copies.farther} == {""}, "of nothing there is no multiple"


def test_without_images_the_gallery_is_left_out_and_other_times_are_drawn_anew(results, drive):
    for name in ("01_images.npy", "02_embeddings.json"):
        (results / name).unlink()
    status, out, _ = drive("06_plots.py", "--dpi", 30, results=results)
    assert status == 0
    assert "left out: images and gallery (01_images.npy is missing, or" in out
    html = (results / "06_report.html").read_text().replace("\u00a0", " ")
    assert "Left out: images and gallery, because 01_images.npy is missing, or" in html
    assert '<p class="data">200 queries, 20' in html, "what a stage that is gone had to tell"
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
    assert "12,346" in (results / "06_report.html").read_text()


@pytest.mark.parametrize(
    ("data", "grid", "run"), [("any", (1, 10), "faiss:k"), ("copies", (10, 200), "hnswlib:2")]
)
def test_the_page_is_drawn_without_what_there_is_not(data, grid, run, tmp_path, stages):
    # An LID takes three distances above 0: at k = 1, and among more than k copies, there is none.
    vectors = np.random.default_rng(0).normal(size=(300, 8)) + 1e5
    m = 4 if data == "any" else 32
    np.save(tmp_path / "x.npy", np.repeat(vectors[:5], 60, axis=0) if data == "copies" else vectors)
    search = ["04", "--runs", run, "--ef-construction", 8, "--m", m, "--k", *grid]
    stages(["02", "--from-file", tmp_path / "x.npy"], ["03", "--k-max", grid[-1]], search)
    stages("05", "06 --dpi 30")
    html = (stages.folder / "06_report.html").read_text()
    assert "Neighborhood overlap" in html
    assert not re.search(r"\bnan\b", html.split("</style>")[1].lower())
    assert "the fifth with the lowest LID" not in html
    # What stage 02 warned of is said here too, and to nobody where its maker works.
    assert "rounding to float32 moves" in html and "saved in x.npy" in html
    where = f" --results {tmp_path / 'results'} "
    assert str(tmp_path) not in html.replace(where, ""), "but in what is to be copied"


def test_bad_arguments_are_one_line(finished, drive):
    before = (finished / "06_report.html").read_bytes()
    for words in (
        *("--format gif", "--gallery -1", "--gallery-k 15", "--dpi 5", "--tolerance 0.05 0.01"),
        *("--tolerance 0.1 0.1", "--tolerance 0.5 1", "--tolerance 0 0.5", "--tolerance 0.5"),
    ):
        status, _, err = drive("06_plots.py", *words.split(), results=finished)
        assert (status, err.count("\n")) == (2, 1)
        assert words.split()[0] in err
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
    neighbors = pd.DataFrame({"row": [0], "rank": 1, "far": hostile, "lost": True})
    images = np.zeros((1, 8, 8, 3), np.uint8), pd.DataFrame({"name": [hostile], "label": [3]})
    query = DriftedQuery(0, 1, 0, hostile, neighbors, neighbors)
    plots = [
        Plot("overlap", hostile, hostile, hostile, svg="<svg/>", png=b""),
        Plot("found", hostile, hostile, hostile, svg="<svg/>", png=b"", folded=hostile),
    ]
    html = page.render(study, plots, Gallery([query], hostile, 10, *images), {hostile: hostile})
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert '"">' not in html and "javascript" not in html
