"""The numbers of two runs side by side: which moved, and whether by more than their uncertainty.

Everything here is a function of tables, which `runs` reads. A number has moved if the intervals of the two runs are
disjoint. That is stricter than a test of the difference at 5 %: intervals of equal width that just touch belong to a
difference of 2.8 of its standard errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from langneurons.errors import UserError
from langneurons.metrics.statistics import share_interval
from langneurons.report.runs import ABOUT, ANSWERS, KEYS, LAYOUTS, Run, as_text, keyed, listed, numeric
from langneurons.variants import BASELINE, RANDOM

Json = dict[str, Any]

MOVED, WITHIN, UNCERTAIN = "moved", "within the uncertainty", "no interval"
SAME, MISSING, ONLY_A, ONLY_B = "unchanged", "missing", "only in A", "only in B"
VERDICTS = (MOVED, WITHIN, UNCERTAIN, SAME, MISSING, ONLY_A, ONLY_B)
"""What can be said of a number: the intervals are disjoint, or overlap, or there are none; the values are equal; one of
them is NaN; there is no such row in the other run."""
ROUNDING = 1e-9
"""Numbers that differ by a smaller part are equal: the tables are written with ten digits."""

RATIO, DIFFERENCE = "ratio", "difference"
RATIOS = ("perplexity", "ratio", "perplexity_ratio")
"""Metrics whose change is B / A; that of all others is B - A."""
SHARES = frozenset({"identical_to_baseline", "empty", "prompt_language", "english", "undetermined", "copies", "loops"})
"""Columns of the table of answers that are shares of all answers, beside `share_<language>`: these get an interval."""
COLUMNS = (
    *("table", *KEYS, "kind", "metric", "a", "low_a", "high_a", "b", "low_b", "high_b"),
    *("change", "change_is", "distance", "verdict"),
)


# -- numbers -----------------------------------------------------------------------------------------------------------


def compare(a: Run, b: Run) -> pd.DataFrame:
    """Every number of two runs, side by side.

    Args:
        a: one run.
        b: the other one.

    Returns:
        One row per number, in the order of the tables: `table`, its keys (columns of `KEYS`, text, empty where the
        table has no such key)`, kind` (of the perturbation, empty where the tables do not say)`, metric, a, low_a,
        high_a, b, low_b, high_b` (values and 95 % intervals, NaN where there is none)`, change` (B / A or B - A, as
        `change_is` says)`, distance` (the change, of ratios in logarithms, over the root of the sum of the squared
        half-widths of both intervals)`, verdict` (one of `VERDICTS`). The perplexity ratio has the interval of its
        effect against the baseline.

    Raises:
        UserError: no model in common, a table without its keys, a row that is there twice, or words for a number.
    """
    if not set(a.models) & set(b.models):
        raise UserError(
            f"{a.name} and {b.name} have no model in common ({listed(a.models)}; {listed(b.models)}). Compare runs "
            "of the same models: their names under 'models' in the config must be the same."
        )
    parts = [_align(numbers(a, name), numbers(b, name)) for name in LAYOUTS if name in a.tables or name in b.tables]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def numbers(run: Run, name: str) -> pd.DataFrame:
    """The numbers of a table, one a row: `table`, columns of `KEYS`, `metric, value, low, high`.

    Raises:
        UserError: as for `compare`.
    """
    if name == "audit":
        return _long(run, name, pd.DataFrame(columns=LAYOUTS[name].keys), [])
    table = keyed(run, name)
    if name == "differences":
        return _differences(run, table)
    metrics = [column for column in table if column not in {*LAYOUTS[name].keys, *LAYOUTS[name].texts, *ABOUT}]
    if name == "replication":
        metrics = [column for column in metrics if column != DIFFERENCE]  # it follows from ours
    long = _long(run, name, table, metrics)
    if name == "steering" and {"low", "high"} <= set(table):
        shares = long["metric"] == "share"
        for bound in ("low", "high"):
            long.loc[shares, bound] = numeric(run, name, table[bound]).to_numpy()
    elif name in ("text", "output_languages") and "outputs" in table:
        long = _with_share_intervals(long, name)
    elif name == "perplexity":
        long = _with_ratio_intervals(long, run)
    return long


def _long(run: Run, name: str, table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per row of the table and metric, without intervals, metric by metric."""
    keys = pd.DataFrame({key: table[key] if key in LAYOUTS[name].keys else "" for key in KEYS}, index=table.index)
    keys["kind"] = _kinds(run, table)
    parts = [keys.assign(metric=metric, value=numeric(run, name, table[metric])) for metric in metrics]
    long = pd.concat(parts, ignore_index=True) if parts else keys.iloc[:0].assign(metric="", value=np.nan)
    return long.assign(table=name, low=np.nan, high=np.nan)


def _kinds(run: Run, table: pd.DataFrame) -> pd.Series:
    """The kind of the perturbation of every row, empty where neither the table nor that of variants tells it."""
    if "kind" in table:
        return as_text(table["kind"])
    variants = run.tables.get("variants", pd.DataFrame())
    if "variant" not in table or not {"variant", "kind"} <= set(variants):
        return pd.Series("", table.index)
    return table["variant"].map(dict(zip(variants["variant"], variants["kind"], strict=True))).fillna("")


def _differences(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Effects with their intervals. Those on perplexity are ratios; against the baseline they are in its own table."""
    long = _long(run, "differences", table, [DIFFERENCE] if len(table) else [])
    for bound in ("low", "high") if len(table) else ():
        long[bound] = numeric(run, "differences", table[bound]).to_numpy()
    ratios = long["measure"] == "perplexity"
    long.loc[ratios, ["value", "low", "high"]] = np.exp(long.loc[ratios, ["value", "low", "high"]].astype(float))
    long.loc[ratios, "metric"] = "perplexity_ratio"
    return long


def _with_ratio_intervals(long: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Perplexity ratios with the intervals of the effects against the baseline."""
    if "differences" not in run.tables:
        return long
    effects = _differences(run, keyed(run, "differences"))
    effects = effects[(effects["measure"] == "perplexity") & (effects["against"] == BASELINE)]
    found = long[list(ANSWERS)].merge(effects[[*ANSWERS, "low", "high"]], how="left", on=list(ANSWERS))
    ratios = long["metric"] == "ratio"
    for bound in ("low", "high"):
        long[bound] = found[bound].where(ratios.to_numpy()).to_numpy()
    return long


def _with_share_intervals(long: pd.DataFrame, name: str) -> pd.DataFrame:
    """Shares of answers with Wilson's interval, as the report gives them."""
    outputs = long[long["metric"] == "outputs"].groupby(list(ANSWERS))["value"].sum().rename("trials").reset_index()
    trials = long[list(ANSWERS)].merge(outputs, how="left", on=list(ANSWERS))["trials"].to_numpy(dtype=float)
    metric = long["metric"]
    shares = metric == "share" if name == "output_languages" else metric.isin(SHARES) | metric.str.startswith("share_")
    value = long["value"]
    known = (shares & value.between(0, 1) & (trials >= 1)).to_numpy()
    bounds = [_wilson(share, round(number)) for share, number in zip(value[known], trials[known], strict=True)]
    long.loc[known, ["low", "high"]] = np.array(bounds, dtype=float).reshape(-1, 2)
    return long


@cache
def _wilson(share: float, trials: int) -> tuple[float, float]:
    return share_interval(share * trials, trials)


def _align(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Two tables of numbers side by side, with the verdict on every row."""
    on, values = ["table", *KEYS, "metric"], ["value", "low", "high", "kind"]
    names = {
        side: dict(zip(values, (side, f"low_{side}", f"high_{side}", f"kind_{side}"), strict=True)) for side in "ab"
    }
    rows = a.rename(columns=names["a"]).merge(b.rename(columns=names["b"]), how="outer", on=on, indicator="found")
    order = {key: place for place, key in enumerate(pd.concat([a[on], b[on]]).itertuples(index=False, name=None))}
    rows = rows.iloc[np.argsort([order[key] for key in rows[on].itertuples(index=False, name=None)], kind="stable")]
    # The baseline's effects on perplexity are those of the ratios in the table of perplexity: not twice.
    twice = (rows["metric"] == "perplexity_ratio") & (rows["against"] == BASELINE)
    rows = rows[~twice].reset_index(drop=True)
    rows["kind"] = rows["kind_b"].fillna(rows["kind_a"])
    is_ratio = rows["metric"].isin(RATIOS)
    one, other = (rows[side].to_numpy(dtype=float) for side in "ab")
    with np.errstate(all="ignore"):  # of infinite and missing values
        change = np.where(is_ratio, other / one, other - one)
    rows["change"], rows["change_is"] = change, np.where(is_ratio, RATIO, DIFFERENCE)
    rows["distance"] = _distance(rows, is_ratio.to_numpy())
    rows["verdict"] = _verdict(rows)
    return rows


def _distance(rows: pd.DataFrame, is_ratio: np.ndarray) -> np.ndarray:
    names = ("a", "low_a", "high_a", "b", "low_b", "high_b")
    with np.errstate(all="ignore"):
        table = {name: rows[name].to_numpy(dtype=float) for name in names}
        table = {name: np.where(is_ratio, np.log(values), values) for name, values in table.items()}
        widths = [(table[f"high_{side}"] - table[f"low_{side}"]) / 2 for side in "ab"]
        return np.abs(table["b"] - table["a"]) / np.hypot(*widths)


def _verdict(rows: pd.DataFrame) -> np.ndarray:
    one, other = (rows[side].to_numpy(dtype=float) for side in "ab")
    bounds = rows[["low_a", "high_a", "low_b", "high_b"]].to_numpy(dtype=float)
    low_a, high_a, low_b, high_b = bounds.T
    found = rows["found"].to_numpy()
    return np.select(
        [
            found == "left_only",
            found == "right_only",
            np.isnan(one) | np.isnan(other),
            np.isclose(one, other, rtol=ROUNDING, atol=0),
            np.isnan(bounds).any(axis=1),
            (high_a < low_b) | (high_b < low_a),
        ],
        [ONLY_A, ONLY_B, MISSING, SAME, UNCERTAIN, MOVED],
        WITHIN,
    )


def largest(rows: pd.DataFrame, number: int | None = None) -> pd.DataFrame:
    """The numbers that moved, the largest distance first; at most so many.

    Random controls come last: with another seed they are other neurons, so they move without anything being amiss.
    """
    moved = rows[rows["verdict"] == MOVED]
    moved = moved.assign(control=moved["kind"] == RANDOM).sort_values(
        ["control", "distance"], ascending=[True, False], kind="stable"
    )
    return moved.drop(columns="control").head(len(moved) if number is None else number)


def counts(rows: pd.DataFrame) -> pd.DataFrame:
    """How many numbers have each verdict, `[table, verdict]`, in the order of the tables and of `VERDICTS`."""
    table = pd.crosstab(rows["table"], rows["verdict"])
    return table.reindex(index=list(dict.fromkeys(rows["table"])), columns=list(VERDICTS), fill_value=0)


# -- neurons -----------------------------------------------------------------------------------------------------------


def neuron_sets(a: Run, b: Run) -> pd.DataFrame:
    """How far the runs select the same neurons, for every model, method and language that both have.

    Returns:
        `model, method, language, neurons_a, neurons_b, shared, jaccard` (shared of those in either set; NaN where both
        are empty) and `expected`, the Jaccard index of the mean number that two random sets of these sizes share; NaN
        where the size of the model is not known.
    """
    rows = []
    sizes = _sizes(b)
    for model, method in [name for name in a.neurons if name in b.neurons]:
        one, other = ({key: _members(own) for key, own in _by_language(run, model, method)} for run in (a, b))
        for language in [name for name in one if name in other]:
            number_a, number_b = len(one[language]), len(other[language])
            shared, size = len(one[language] & other[language]), sizes.get((model, method), np.nan)
            by_chance = number_a * number_b / size if size else np.nan
            rows.append(
                {"model": model, "method": method, "language": language, "neurons_a": number_a, "neurons_b": number_b}
                | {"shared": shared, "jaccard": _jaccard(shared, number_a + number_b)}
                | {"expected": _jaccard(by_chance, number_a + number_b)}
            )
    columns = ["model", "method", "language", "neurons_a", "neurons_b", "shared", "jaccard", "expected"]
    return pd.DataFrame(rows, columns=columns)


def _jaccard(shared: float, both: int) -> float:
    return shared / (both - shared) if both else np.nan


def _by_language(run: Run, model: str, method: str) -> list[tuple[str, pd.DataFrame]]:
    """The neurons of every language that the method compared, also of those without any."""
    table = run.neurons[model, method]
    known = keyed(run, "neurons")
    named = known.loc[(known["model"] == model) & (known["method"] == method), "language"]
    return [(str(name), table[table["language"] == name]) for name in dict.fromkeys([*named, *table["language"]])]


def _members(own: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(own["layer"].tolist(), own["neuron"].tolist(), strict=True))


def _sizes(run: Run) -> dict[tuple[str, str], float]:
    """FFN neurons of the model, by model and method."""
    table = keyed(run, "thresholds")
    if not {"layers", "neurons_per_layer"} <= set(table):
        return {}
    size = numeric(run, "thresholds", table["layers"]) * numeric(run, "thresholds", table["neurons_per_layer"])
    return dict(zip(zip(table["model"], table["method"], strict=True), size, strict=True))
