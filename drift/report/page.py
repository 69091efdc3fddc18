"""The page to hand on: one HTML file with everything inside, that needs no script and no network.

Its words and their order are in ``page.html.j2``, its look is in ``page.css``.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from PIL import Image

from drift.report import tables
from drift.report.by_use import TOLERANCES, by_use
from drift.report.claims import claims
from drift.report.experiments import comparison, is_same_data
from drift.report.figures import Plot
from drift.report.gallery import Gallery
from drift.report.panels import EXACT
from drift.report.sentences import findings
from drift.report.study import ENDS, Study
from drift.report.styles import COLORS, COLORS_BY_NIGHT
from drift.report.svg import mark

THUMBNAIL, PICTURE = 96, 700  # pixels; smaller pictures stay as they are


def render(
    study: Study,
    plots: Sequence[Plot],
    gallery: Gallery | None,
    left_out: Mapping[str, str],
    tolerances: Sequence[float] = TOLERANCES,
) -> str:
    """The page; its first figure is on the first screen. `left_out`: why, by what."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    run_name = Markup('<code class="run run-{}">{}{}</code>')
    styles = {label: study.styles[runs[-1]] for label, runs in study.voices.items()}
    styles |= {style.label: style for style in study.styles.values()}
    named = {
        label: run_name.format(style.index, Markup(mark(style)), label)
        for label, style in styles.items()
    }

    def words(text: str) -> Markup:
        return _words(text, named)

    filters = {"cell": _cell, "thumbnail": _thumbnail, "unbroken": _unbroken}
    environment.filters.update(filters, words=words, inline=Markup, picture=_picture)
    return environment.get_template("page.html.j2").render(
        tables=tables,
        study=study,
        said=findings(study),
        named=named,
        exact=EXACT,
        mark=mark,
        colors=list(zip(COLORS, COLORS_BY_NIGHT, strict=True)),
        use=by_use(study, tolerances),
        tolerances=tolerances,
        csv=csv_link,
        curves=curves_by_k(study),
        safe_k=study.safe_k.assign(run=study.safe_k["run"].map(study.labels)).round(2),
        by_use=study.by_use.assign(run=study.by_use["run"].map(study.label_of)),
        claims=claims(study),
        compared=comparison(study) if is_same_data(study) else None,
        plots=plots,
        gallery=gallery,
        left_out=left_out,
    )


def curves_by_k(study: Study) -> pd.DataFrame:
    """Every mean, its interval and of how many it is, in a row for each run and k."""
    numbers = [*ENDS, "n", "groups_that_differ"]
    curves = study.curves.replace({"groups_that_differ": {-1: np.nan}})
    table = curves.pivot(index=["run", "k"], columns="metric", values=numbers)
    table.columns = [f"{metric}_{name}".removesuffix("_mean") for name, metric in table.columns]
    table = table.dropna(axis=1, how="all").sort_index(axis=1).reset_index()
    for name in table.columns.difference(["run", "k"]):
        form = "{:.0f}" if name.endswith(("_n", "_groups_that_differ")) else "{:.5g}"
        table[name] = ["" if np.isnan(value) else form.format(value) for value in table[name]]
    return table


def csv_link(name: str, table: pd.DataFrame) -> Markup:
    """A table as a file to save, which is inside the page."""
    text = table.apply(lambda column: column.map(_cell)).to_csv(index=False)  # pandas 2.0
    data = f"data:text/csv;charset=utf-8,{quote(text, safe=',:;()+/*~')}"
    return Markup('<a class="csv" download="{0}.csv" href="{1}">{0}.csv</a>').format(name, data)


def _words(text: str, named: Mapping[str, str]) -> Markup:
    """What stands between backquotes is code, and a run has its mark."""
    parts = _unbroken(text).split("`")
    code = (named.get(part) or Markup("<code>{}</code>").format(part) for part in parts[1::2])
    parts[1::2] = code
    return Markup("").join(map(escape, parts))


def _cell(value: Any) -> str:
    return tables.format_number(value) if isinstance(value, float) else str(value)


def _picture(png: bytes) -> str:
    return _embed(Image.open(io.BytesIO(png)), PICTURE)


def _thumbnail(pixels: np.ndarray) -> str:
    return _embed(Image.fromarray(pixels), THUMBNAIL)


def _embed(image: Image.Image, size: int) -> str:
    image, file = image.convert("RGB"), io.BytesIO()
    image.thumbnail((size, size))
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _unbroken(text: str) -> str:
    """No line ends within ``k = 10`` or before a percent sign."""
    text = text.replace("\n", " ")
    return text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%")
