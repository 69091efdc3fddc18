"""What a study found, in sentences and tables, built from the tables of stage 05."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

OVERVIEW_KS = (10, 50, 100, 250)
COMPLETE = "complete lists"
SAME_LID = 1e-6

CURVE_KS = (10, 50, 100, 150, 200, 250)
CURVE_METRICS = (
    "overlap",
    "recall",
    "found",
    "kth_distance_exact",
    "kth_distance_ann",
    "mean_distance_exact",
    "mean_distance_ann",
    "barycenter_shift",
    "barycenter_shift_relative",
    "lid_exact",
    "lid_ann",
    "lid_difference",
    "hubness_exact",
    "hubness_ann",
    "orphans_exact",
    "orphans_ann",
)


def overview(curves: pd.DataFrame, safe_k: pd.DataFrame) -> pd.DataFrame:
    """What a person reads first: a row for each run.

    Parameters
    ----------
    curves, safe_k : DataFrame
        The tables of stage 05.

    Returns
    -------
    DataFrame
        Overlap and LID difference in percent at a few k, the share of neighbors found at the run's
        last k, the safe k by the strictest tolerance of overlap, and the onset with its interval;
        "-" at a k that is not of the run's grid.
    """
    grids = curves.groupby("run")["k"]
    ks = sorted({k for _, grid in grids for k in chosen_ks(grid, OVERVIEW_KS)})
    rows = []
    for run, of_run in curves.groupby("run", sort=False):
        wide = of_run.pivot(index="k", columns="metric", values="mean").reindex(ks)
        percent = 100 * wide["lid_difference"] / wide["lid_exact"]
        row = {"run": run}
        row |= {f"overlap@{k}": _three_decimals(wide["overlap"][k]) for k in ks}
        row |= {f"LID%@{k}": _signed(percent[k]) for k in ks}
        row["found@last"] = _three_decimals(wide["found"].dropna().iloc[-1])
        strictest = _strictest(safe_k, run)
        row[f"safe k ({strictest['tolerance']})"] = strictest["safe_k"]
        row["onset"] = _onset(strictest)
        rows.append(row)
    return pd.DataFrame(rows)


def findings(curves: pd.DataFrame, safe_k: pd.DataFrame, labels: Mapping[str, str]) -> list[str]:
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
        if np.isfinite(strictest["onset"]) and safe < last:
            words.append(f", drifts from about k = {strictest['onset']:.0f} on")
        if wide["found"][last] < 1:
            missing = f"{1 - wide['found'][last]:.2%}"
            missing = "less than 0.01%" if missing == "0.00%" else missing
            words.append(f", leaves {missing} of them missing at {last}")
        difference = (wide["lid_difference"] / wide["lid_exact"]).dropna()
        if len(difference):
            worst = difference.abs().idxmax()
            by = f"{difference[worst]:+.1%} at most (k = {worst})"
            if abs(difference[worst]) < 0.0005:
                by = "less than 0.1%"
            words.append(f", and misstates the LID by {by}")
        sentences.append("".join(words) + ".")
    return sentences


def details(
    curves: pd.DataFrame, labels: Mapping[str, str], speeds: Mapping[str, pd.Series]
) -> list[str]:
    """What `findings` leaves out, a sentence for each run, at the last k of its grid.

    Parameters
    ----------
    curves : DataFrame
        The table of stage 05.
    labels : mapping of str to str
        The runs, as in `findings`.
    speeds : mapping of str to Series
        Queries per second by k, for the runs where they are known.
    """
    sentences = []
    for run in labels:
        of_run = curves[curves["run"] == run]
        last = of_run["k"].max()
        at_last = of_run[of_run["k"] == last].set_index("metric")
        mean = at_last["mean"]
        clauses = [
            f"the worst twentieth of the queries keep at most "
            f"{share(at_last['q05']['overlap'])} of their neighbors"
        ]
        if np.isfinite(mean["barycenter_shift_relative"]):
            moved = mean["barycenter_shift_relative"]
            clauses.append(f"the barycenter moves by {moved:.1%} of the radius")
        if "hubness_ann" in mean:
            hubness, exact = mean["hubness_ann"], mean["hubness_exact"]
            clauses.append(f"the hubness is {hubness:.2f} (exact {exact:.2f})")
        if run in speeds:
            clauses.append(f"{speeds[run][last]:,.0f} queries per second are answered")
        *all_but_last, end = clauses
        said = ", ".join(all_but_last) + ", and " * bool(all_but_last) + end
        sentences.append(f"At k = {last} {said}.")
    return sentences


def comparison(curves: pd.DataFrame, labels: Mapping[str, str]) -> list[str]:
    """One sentence over all runs, which keeps most and which least; no sentence on a single run."""
    overlap = curves[curves["metric"] == "overlap"].pivot(index="k", columns="run", values="mean")
    overlap = overlap.dropna()[list(labels)] if len(labels) > 1 else overlap.iloc[:0]
    if overlap.empty:
        return []
    last, ends = overlap.index[-1], overlap.iloc[-1].map(share)
    most, least = ends[overlap.iloc[-1].idxmax()], ends[overlap.iloc[-1].idxmin()]
    if most == least:
        return [f"At k = {last} all {len(labels)} runs keep the same share, {most}."]
    best, worst = (
        " and ".join(label for run, label in labels.items() if ends[run] == end)
        for end in (most, least)
    )
    return [
        f"Of {len(labels)} runs, most neighbors are kept at k = {last} by {best} ({most}), least "
        f"by {worst} ({least})."
    ]


def chosen_ks(grid: Sequence[int], liked: Sequence[int] = CURVE_KS) -> list[int]:
    """The k of a grid at which a table shows the curves: its ends, and some between them."""
    grid = sorted(set(grid))
    chosen = {grid[0], grid[-1], *set(liked).intersection(grid)}
    if len(chosen) < 4:
        chosen |= set(evenly(grid, 6))
    return sorted(chosen)


def evenly(items: Sequence[int], n: int) -> list[int]:
    """At most `n` of the items, evenly spaced, the first and the last among them."""
    return [items[at] for at in dict.fromkeys(np.linspace(0, len(items) - 1, n).astype(int))]


def curve_table(curves: pd.DataFrame, run: str) -> pd.DataFrame:
    """The means of all metrics of a run at a few k: a row for each metric, a column for each k.

    Below the overlap stand the ends of its interval.
    """
    of_run = curves[curves["run"] == run]
    of_run = of_run[of_run["k"].isin(chosen_ks(of_run["k"]))]
    wide = of_run.pivot(index="metric", columns="k", values="mean")
    # What rounding to float32 leaves of two LIDs that are the same is no difference.
    difference = wide.loc["lid_difference"]
    wide.loc["lid_difference"] = difference.mask(
        difference.abs() < SAME_LID * wide.loc["lid_exact"], 0.0
    )
    ends = of_run[of_run["metric"] == "overlap"].set_index("k")[["ci_low", "ci_high"]].T
    names = [metric for metric in CURVE_METRICS if metric in wide.index]
    table = pd.concat(
        [wide.loc[["overlap"]], ends.add_prefix("overlap ", axis=0), wide.loc[names[1:]]]
    )
    table.columns = [f"k = {k}" for k in table]
    return table.rename_axis("metric").reset_index()


def safe_table(safe_k: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The largest safe k of each run: a row for each criterion and run, a column for a tolerance.

    The criterion ``overlap`` is kept where the overlap is at least the tolerance, ``lid`` where the
    LID is off by no more.
    """
    signs = {"overlap": "overlap at least", "lid": "LID within"}
    named = safe_k[safe_k["run"].isin(labels)].assign(
        kept=[
            f"{signs[criterion]} {tolerance:.0%}"
            for criterion, tolerance in zip(safe_k["criterion"], safe_k["tolerance"], strict=True)
        ]
    )
    wide = named.pivot(index="run", columns="kept", values="safe_k")
    wide = wide[named["kept"].drop_duplicates()].loc[list(labels)]
    return wide.rename(index=labels).rename_axis(columns=None).reset_index()


def onset_table(safe_k: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Where the overlap of each run begins to fall, with its interval."""
    rows = [
        (label, *_strictest(safe_k, run)[["onset", "onset_low", "onset_high"]])
        for run, label in labels.items()
    ]
    return pd.DataFrame(rows, columns=["run", "onset k", "95 % interval from", "to"])


def share(value: float) -> str:
    """A share in words of three decimals, in which only all is 1 and only nothing is 0."""
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return "> 0.999"
    return "< 0.001" if text == "0.000" and value > 0 else text


def beside_published(
    curves: pd.DataFrame, published: pd.DataFrame, labels: Mapping[str, str]
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

    Returns
    -------
    DataFrame
        A row for each k and curve. ``complete lists`` is the share of queries of which the index
        returned k neighbors: `kth_squared_distance_ann` and `lid_notebook_ann` are means over them.
    """
    names = [name for name in published.columns if name not in ("k", "overlap_std")]
    theirs = published.assign(curve="published")
    ours = [
        curves[curves["run"] == run]
        .pivot(index="k", columns="metric", values="mean")
        .assign(curve=label, **{COMPLETE: _complete(curves[curves["run"] == run])})
        .reset_index()
        for run, label in labels.items()
    ]
    table = pd.concat([theirs, *ours])[["k", "curve", *names, COMPLETE]]
    return table[table["k"].isin(OVERVIEW_KS)].sort_values("k", kind="stable")


def _complete(of_run: pd.DataFrame) -> pd.Series:
    """Share of the queries of which the index returned k neighbors, by k."""
    n = of_run.pivot(index="k", columns="metric", values="n")
    return n["kth_squared_distance_ann"] / n["overlap"]


def _three_decimals(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _signed(percent: float) -> str:
    """With its sign and one decimal, never as -0.0; "-" where there is none."""
    return "-" if np.isnan(percent) else f"{round(percent, 1) + 0.0:+.1f}"


def _strictest(safe_k: pd.DataFrame, run: str) -> pd.Series:
    of_run = safe_k[(safe_k["run"] == run) & (safe_k["criterion"] == "overlap")]
    return of_run.loc[of_run["tolerance"].idxmax()]


def _onset(row: pd.Series) -> str:
    if not np.isfinite(row["onset"]):
        return "none"
    return f"{row['onset']:.0f} [{row['onset_low']:.0f}, {row['onset_high']:.0f}]"
