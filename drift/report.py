"""The page that shows a study's figures: one file, which asks for nothing else."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #767676; --rule: #ddd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --faint: #9a9a9a; --rule: #3a3d44; }
}
body { margin: 0 auto; max-width: 52rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
       background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
figure { margin: 1rem 0; }
img { width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, .faint { color: var(--faint); font-size: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
@media print { h2, figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its heading, how to read it, and its PNG file's bytes."""

    title: str
    reading: str
    png: bytes


def findings(curves: pd.DataFrame, safe_k: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """One sentence for each run, built from its numbers.

    Parameters
    ----------
    curves, safe_k : DataFrame
        The tables of stage 05.
    labels : dict
        What to call each run.
    """
    sentences = []
    for run, label in labels.items():
        of_run = curves[curves["run"] == run].pivot(index="k", columns="metric", values="mean")
        first, last = of_run.index[0], of_run.index[-1]
        strictest = safe_k[(safe_k["run"] == run) & (safe_k["criterion"] == "overlap")].iloc[0]
        tolerance, safe = strictest["tolerance"], int(strictest["safe_k"])
        sentence = (
            f"{label}: overlap {of_run['overlap'][first]:.3f} at k = {first} and "
            f"{of_run['overlap'][last]:.3f} at k = {last}; "
        )
        sentence += (
            f"at least {tolerance} up to k = {safe}" if safe else f"below {tolerance} at once"
        )
        if of_run["found"][last] < 1:
            sentence += f"; {1 - of_run['found'][last]:.1%} of the neighbors are missing at the end"
        difference = of_run["lid_difference"] / of_run["lid_exact"]
        worst = difference.abs().idxmax()
        sentence += f"; its LID is off by {difference[worst]:+.1%} at the most (k = {worst})."
        sentences.append(sentence)
    return sentences


def page(
    title: str,
    facts: pd.DataFrame,
    sentences: Sequence[str],
    tables: Sequence[tuple[str, pd.DataFrame]],
    pictures: Sequence[Picture],
) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
        Its heading.
    facts : DataFrame
        What was run.
    sentences : sequence of str
        The findings.
    tables : sequence of (str, DataFrame)
        Heading and content of each table.
    pictures : sequence of Picture
        The figures, in order.

    Returns
    -------
    str
        HTML with everything inside.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", "<h2>What was found</h2>", "<ul>"]
    parts += [f"<li>{html.escape(sentence)}</li>" for sentence in sentences]
    parts.append("</ul>")
    for picture in pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        reading = html.escape(picture.reading)
        parts.append(
            f"<h2>{html.escape(picture.title)}</h2>\n<figure>"
            f'<img alt="{html.escape(picture.title)} over k. {reading}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{reading}</figcaption></figure>"
        )
    for heading, table in [*tables, ("What was run", facts)]:
        parts.append(f"<h2>{html.escape(heading)}</h2>\n{_table(table)}")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _table(table: pd.DataFrame) -> str:
    markup = table.to_html(
        index=False, border=0, na_rep="-", float_format=lambda number: f"{number:.4g}"
    )
    return f'<div class="scroll">{markup}</div>'
