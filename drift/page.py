"""The page to hand on: one HTML file with everything inside, that needs no script and no network.

Each function gives a piece of HTML, with what is not HTML already escaped; `page` sets the sections
together.
"""

import base64
import html
import io
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from drift.gallery import DriftedQuery, Neighbor

THUMBNAIL = 96  # pixels; small pictures stay as they are
ROUNDING = 1e-9
LONG, LONG_HEAD = 30, 20  # letters of a cell and of a row's head above which lines are broken
_WORDS = ' class="words"'

_STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --paper: #fff; --faint: #5f5f5f; --rule: #d4d4d4;
        --card: #f6f6f6; --link: #0b57a4; --lost: #c2410c; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e6e6e6; --paper: #16181c; --faint: #a8a8a8; --rule: #3a3d44;
          --card: #1f2227; --link: #7db8f5; --lost: #ff8a4c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
       background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin: 3rem 0 1rem; padding-top: 0.5rem; border-top: 2px solid var(--rule); }
h3 { margin: 1.75rem 0 0.5rem; font-size: 1.1rem; }
p, ul, dl { max-width: 46rem; }
li { margin-bottom: 0.4rem; }
a { color: var(--link); }
nav ul { padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
        gap: 0 2.5rem; }
.grid > section { min-width: 0; }
figure { margin: 0; }
.plot img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, .faint { color: var(--faint); font-size: 0.9rem; }
.plot figcaption { margin-top: 0.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; line-height: 1.35;
        font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: right; vertical-align: top;
         border-bottom: 1px solid var(--rule); }
th { font-weight: 600; vertical-align: bottom; }
tbody th { vertical-align: top; }
td { white-space: nowrap; }
th:first-child, .words { text-align: left; }
.long { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.2rem 1.25rem;
     font-size: 0.9rem; line-height: 1.4; max-width: 52rem; }
dt { font-weight: 600; overflow-wrap: anywhere; } dd { margin: 0; }
@media screen and (max-width: 40rem) { dl { display: block; } dd { margin-bottom: 0.5rem; } }
.strip { display: flex; flex-wrap: wrap; gap: 0.5rem; padding: 0; margin: 0.25rem 0 0.75rem;
         list-style: none; max-width: none; }
.strip li { width: 4.5rem; margin: 0; font-size: 0.75rem; line-height: 1.3; text-align: center; }
.strip img { display: block; width: 100%; height: auto; border: 4px solid transparent; }
.strip .lost img { border: 4px solid var(--lost); }
.strip .lost { color: var(--lost); font-weight: 600; }
.query { background: var(--card); padding: 0.1rem 1rem 0.4rem; border-radius: 6px;
         margin: 0 0 1rem; break-inside: avoid; }
.query p { margin: 0.4rem 0 0; max-width: none; }
@page { margin: 14mm; }
@media print {
  body { font-size: 9.5pt; padding: 0; max-width: none; }
  nav { display: none; }
  .grid { grid-template-columns: 1fr 1fr; gap: 0 1.5rem; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding-right: 0.5rem; }
  td { white-space: normal; } .long { min-width: 0; }
  .strip li { width: 14mm; font-size: 7pt; }
  h2, h3 { break-after: avoid; }
  .plot, table, tr { break-inside: avoid; }
}
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: its heading, and pieces of HTML."""

    heading: str
    pieces: Sequence[str]

    @property
    def anchor(self) -> str:
        """Where links to it point."""
        return self.heading.lower().replace(" ", "-")


def page(title: str, lede: str, sections: Sequence[Section]) -> str:
    """The whole page, with links to its sections at the top."""
    links = "".join(
        f'<li><a href="#{html.escape(section.anchor)}">{html.escape(section.heading)}</a></li>'
        for section in sections
    )
    parts = [f"<h1>{html.escape(title)}</h1>", paragraph(lede)]
    parts.append(f'<nav aria-label="Sections"><ul>{links}</ul></nav>')
    for section in sections:
        parts.append(f'<h2 id="{html.escape(section.anchor)}">{html.escape(section.heading)}</h2>')
        parts += section.pieces
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without an icon of its own a browser asks the server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def bullets(sentences: Iterable[str]) -> str:
    """A list of plain sentences."""
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in sentences) + "</ul>"


def links(files: Mapping[str, str]) -> str:
    """A list of files beside the page, each with what it holds."""
    items = "".join(
        f'<li><a href="{html.escape(name)}">{html.escape(name)}</a>: {html.escape(text)}</li>'
        for name, text in files.items()
    )
    return f"<ul>{items}</ul>"


def headed(heading: str, *pieces: str) -> str:
    """Pieces below a heading of the third rank."""
    return "<section>" + "\n".join([f"<h3>{html.escape(heading)}</h3>", *pieces]) + "</section>"


def grid(pieces: Iterable[str]) -> str:
    """Pieces beside each other where there is room."""
    return '<div class="grid">' + "\n".join(pieces) + "</div>"


def plot(title: str, told: str, reading: str, png: bytes) -> str:
    """A figure: heading, picture with alternative text, and how to read it."""
    picture = (
        f'<figure class="plot"><img alt="{html.escape(told)}" src="{_data("image/png", png)}">'
        f"<figcaption>{html.escape(reading)}</figcaption></figure>"
    )
    return headed(title, picture)


def terms(descriptions: Mapping[str, str]) -> str:
    """A list of names, each with what it means."""
    items = "".join(
        f"<dt>{_breakable(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in descriptions.items()
    )
    return f"<dl>{items}</dl>"


def table(frame: pd.DataFrame) -> str:
    """A table, whose first column heads the rows; it scrolls where the page is narrower."""
    of_words = [column for column in frame.columns[1:] if frame[column].map(type).eq(str).all()]
    head = "".join(
        f'<th scope="col"{_WORDS if column in of_words else ""}>{_breakable(str(column))}</th>'
        for column in frame
    )
    rows = []
    for first, *cells in frame.itertuples(index=False, name=None):
        row = f'<th scope="row">{_row_head(_cell(first))}</th>'
        rows.append(f"<tr>{row}{''.join(map(_td, cells))}</tr>")
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
    )


def number(value: float) -> str:
    """Four digits, or more where a value that is not 1 would look like it; "-" for none.

    What is less than rounding leaves of values like these is 0.
    """
    if np.isnan(value):
        return "-"
    if abs(value) < ROUNDING:
        return "0"
    if abs(value) >= 1e4:
        return f"{value:.0f}"
    digits = 4
    while value != 1 and float(f"{value:.{digits}g}") == 1:
        digits += 1
    return f"{value:.{digits}g}"


def drifted(query: DriftedQuery, pictures: np.ndarray) -> str:
    """A row of the gallery: the query, its exact neighbors, and what was returned instead.

    Parameters
    ----------
    query : DriftedQuery
        Which neighbors.
    pictures : ndarray of uint8, shape (N, S, S, 3)
        The image of every row.
    """
    said = f"{query.lost} of {query.k} neighbors lost"
    if query.missing:
        said += f", {query.missing} places left empty"
    itself = _thumbnail(pictures[query.row], f"the query, row {query.row}", "query")
    exact = [_neighbor(at, pictures, "exact neighbor") for at in query.exact]
    instead = [_neighbor(at, pictures, "returned instead") for at in query.instead]
    parts = [
        f"<h3>Row {query.row}: {html.escape(said)}</h3>",
        "<p>The query, and exact neighbors: the nearest lost, framed, and the nearest kept</p>",
        f'<ul class="strip">{itself}{"".join(exact)}</ul>',
        "<p>What was returned instead</p>" if instead else "<p>Nothing was returned instead.</p>",
        f'<ul class="strip">{"".join(instead)}</ul>' if instead else "",
    ]
    return f'<section class="query">{"".join(parts)}</section>'


def _neighbor(neighbor: Neighbor, pictures: np.ndarray, what: str) -> str:
    distance = f"{neighbor.distance:.4g}"
    fate = ", lost" if neighbor.lost else ""
    alt = f"{what} number {neighbor.rank}, row {neighbor.row}, distance {distance}{fate}"
    caption = f"#{neighbor.rank}{fate}<br>{distance}"
    return _thumbnail(pictures[neighbor.row], alt, caption, "lost" if neighbor.lost else "")


def _thumbnail(pixels: np.ndarray, alt: str, caption: str, kind: str = "") -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    source = _data("image/jpeg", file.getvalue())
    return f'<li class="{kind}"><img alt="{html.escape(alt)}" src="{source}">{caption}</li>'


def _data(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def _cell(value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return number(value)
    return str(value)


def _row_head(text: str) -> str:
    return _breakable(text) if len(text) > LONG_HEAD else html.escape(text)


def _td(value: Any) -> str:
    if not isinstance(value, str):
        return f"<td>{html.escape(_cell(value))}</td>"
    if len(value) > LONG:
        return f'<td class="words long">{_breakable(value)}</td>'
    return f"<td{_WORDS}>{html.escape(value)}</td>"


def _breakable(text: str) -> str:
    """Escaped, and with a place to break the line after each underscore."""
    return html.escape(text).replace("_", "_<wbr>")
