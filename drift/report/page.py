"""The page to hand on: one HTML file with everything inside, that needs no script and no network.

Its words and their order are in ``page.html.j2``, its look is in ``page.css``.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from drift.report import tables
from drift.report.by_use import by_use
from drift.report.claims import claims
from drift.report.experiments import comparison, is_same_data
from drift.report.figures import Plot
from drift.report.gallery import Gallery
from drift.report.sentences import verdict
from drift.report.study import Study

THUMBNAIL = 96  # pixels; small pictures stay as they are


def render(
    study: Study, plots: Sequence[Plot], gallery: Gallery | None, left_out: Mapping[str, str]
) -> str:
    """The page; its first figure is beside the table of all runs. `left_out`: why, by what."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"cell": _cell, "embed": _embed, "thumbnail": _thumbnail, "unbroken": _unbroken}
    environment.filters.update(filters)
    return environment.get_template("page.html.j2").render(
        tables=tables,
        study=study,
        colors={style.label: style.color for style in study.styles.values()},
        verdict=verdict(study),
        by_use=by_use(study),
        claims=claims(study),
        compared=comparison(study) if is_same_data(study) else None,
        plots=plots,
        gallery=gallery,
        left_out=left_out,
    )


def _cell(value: Any) -> str:
    return tables.format_number(value) if isinstance(value, float) else str(value)


def _embed(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _thumbnail(pixels: np.ndarray) -> str:
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(file, "JPEG", quality=85)
    return _embed(file.getvalue(), "jpeg")


def _unbroken(text: str) -> str:
    """No line ends within ``k = 10`` or before a percent sign."""
    text = text.replace("\n", " ")
    return text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%")
