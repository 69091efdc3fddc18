"""The page to hand on: one HTML file with everything inside, that needs no script and no network.

Its words and their order are in ``page.html.j2``, its look is in ``page.css``.
"""

import base64
import io
import numbers
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
from drift.report.study import Study
from drift.report.verdict import drifters, verdict

THUMBNAIL = 96  # pixels; small pictures stay as they are


def render(
    study: Study, plots: Sequence[Plot], gallery: Gallery | None, left_out: Mapping[str, str]
) -> str:
    """The whole page; `left_out` is what it is without, and why.

    The first of the figures stands beside the table of all runs.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "embed": _embed}
    environment.filters |= {"thumbnail": _thumbnail, "unbroken": _unbroken}
    return environment.get_template("page.html.j2").render(
        tables=tables,
        study=study,
        colors={style.label: style.color for style in study.styles.values()},
        verdict=verdict(study),
        by_use=by_use(study),
        drifters=drifters,
        claims=claims(study) if study.publication else [],
        compared=comparison(study) if study.publication and is_same_data(study) else None,
        plots=plots,
        gallery=gallery,
        left_out=left_out,
    )


def _cell(value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return tables.format_number(value)
    return str(value)


def _embed(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _thumbnail(pixels: np.ndarray) -> str:
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(file, "JPEG", quality=85)
    return _embed(file.getvalue(), "jpeg")


def _unbroken(text: str) -> str:
    """No line ends within ``k = 10`` or before a percent sign."""
    return text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%")
