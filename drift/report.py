"""What a study found, in words and tables, and the page that shows it: one file, by itself."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

OVERVIEW_KS = (10, 50, 100, 250)

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


def overview(curves: pd.DataFrame, safe_k: pd.DataFrame) -> pd.DataFrame:
    """What a person reads first: a row for each run.

    Parameters
    ----------
    curves, safe_k : DataFrame
        The tables of stage 05.

    Returns
    -------
    DataFrame
        Overlap and LID difference in percent at a few k, the share of neighbors found at the last
        of them, the safe k by the strictest tolerance of overlap, and the onset with its interval.
    """
    rows = []
    for run, of_run in curves.groupby("run", sort=False):
        wide = of_run.pivot(index="k", columns="metric", values="mean")
        ks = [k for k in OVERVIEW_KS if k in wide.index] or [wide.index[-1]]
        percent = 100 * wide["lid_difference"] / wide["lid_exact"]
        row = {"run": run}
        row |= {f"overlap@{k}": f"{wide['overlap'][k]:.3f}" for k in ks}
        row |= {f"LID%@{k}": f"{percent[k]:+.1f}".replace("+nan", "-") for k in ks}
        row[f"found@{ks[-1]}"] = f"{wide['found'][ks[-1]]:.3f}"
        strictest = _strictest(safe_k, run)
        row[f"safe k ({strictest['tolerance']})"] = strictest["safe_k"]
        row["onset"] = _onset(strictest)
        rows.append(row)
    return pd.DataFrame(rows)


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
        wide = curves[curves["run"] == run].pivot(index="k", columns="metric", values="mean")
        overlap, first, last = wide["overlap"], wide.index[0], wide.index[-1]
        strictest = _strictest(safe_k, run)
        tolerance, safe = strictest["tolerance"], int(strictest["safe_k"])
        kept = f"keeps at least {tolerance:.0%} of the neighbors up to k = {safe}"
        if safe == last:
            kept = f"keeps at least {tolerance:.0%} of the neighbors at every k up to {last}"
        if safe == 0:
            kept = f"keeps less than {tolerance:.0%} of the neighbors already at k = {first}"
        ends = [f"{overlap[k]:.3f} at {k}" for k in dict.fromkeys((first, last))]
        words = [f"{label} {kept} (overlap {', '.join(ends)})"]
        if np.isfinite(strictest["onset"]):
            words.append(f", drifts from about k = {strictest['onset']:.0f} on")
        if wide["found"][last] < 1:
            words.append(f", leaves {1 - wide['found'][last]:.2%} of them missing at {last}")
        difference = (wide["lid_difference"] / wide["lid_exact"]).dropna()
        if len(difference):
            worst = difference.abs().idxmax()
            by = f"{difference[worst]:+.1%} at most (k = {worst})"
            if abs(difference[worst]) < 0.0005:
                by = "less than 0.1%"
            words.append(f", and misstates the LID by {by}")
        sentences.append("".join(words) + ".")
    return sentences


def beside_published(
    curves: pd.DataFrame, published: pd.DataFrame, labels: dict[str, str]
) -> pd.DataFrame:
    """The notebook's quantities at a few k, as published and of each run.

    Parameters
    ----------
    curves : DataFrame
        The table of stage 05, measured by the notebook's protocol.
    published : DataFrame
        The published curve, a column for each metric.
    labels : dict
        What to call each run.
    """
    names = [name for name in published.columns if name not in ("k", "overlap_std")]
    theirs = published.assign(curve="published")
    ours = [
        curves[curves["run"] == run]
        .pivot(index="k", columns="metric", values="mean")
        .reset_index()
        .assign(curve=label)
        for run, label in labels.items()
    ]
    table = pd.concat([theirs, *ours])[["k", "curve", *names]]
    return table[table["k"].isin(OVERVIEW_KS)].sort_values("k", kind="stable")


def _strictest(safe_k: pd.DataFrame, run: str) -> pd.Series:
    of_run = safe_k[(safe_k["run"] == run) & (safe_k["criterion"] == "overlap")]
    return of_run.loc[of_run["tolerance"].idxmax()]


def _onset(row: pd.Series) -> str:
    if not np.isfinite(row["onset"]):
        return "none"
    return f"{row['onset']:.0f} [{row['onset_low']:.0f}, {row['onset_high']:.0f}]"


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
