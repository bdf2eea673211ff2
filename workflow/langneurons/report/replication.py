"""Our numbers beside those that others published, row by row."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from langneurons.report.references import PublishedNumber, numbers_of

Tables = dict[str, pd.DataFrame]


class Place(NamedTuple):
    """Where our tables have the counterpart of a published quantity."""

    table: str
    column: str
    method: str | None = None
    """Of selecting neurons, for tables with a row per method."""


PLACES = {
    ("replication", "mean_characters"): Place("text", "mean_characters"),
    ("replication", "stop_word_ratio"): Place("text", "stop_word_ratio"),
    ("replication", "percentile"): Place("neurons", "percentile", "lape"),
    ("replication", "selected"): Place("thresholds", "selected", "lape"),
    ("joint", "activation_bar"): Place("thresholds", "activation_bar", "lape"),
    ("joint", "neurons"): Place("neurons", "neurons", "lape"),
    ("joint", "entropy_min"): Place("thresholds", "entropy_min", "lape"),
    ("joint", "entropy_max"): Place("thresholds", "entropy_max", "lape"),
    ("masks", "neurons"): Place("neurons", "neurons", "published"),
    ("masks", "distinct"): Place("thresholds", "selected", "published"),
    ("masks", "layers"): Place("thresholds", "layers", "published"),
}
"""By source and quantity."""


def compare(reference: str, tables: Tables, model: str) -> pd.DataFrame:
    """Put the numbers of one of our models beside the published numbers of a reference.

    The rows of the source `joint` are compared only if LAPE compared exactly its languages: the bar, the entropies and
    the neurons depend on all of them together.

    Args:
        reference: one of `references()`.
        tables: our `text`, `thresholds` and `neurons`, each with a column `model`; what is missing is not compared.
        model: one of our models.

    Returns:
        One row per published number: `source, quantity, perturbation, language, theirs, ours` (NaN where this run has
        no such number), `difference` (ours − theirs), `decimals` (as printed) and `agrees` (missing where `ours` is).

    Raises:
        UserError: no such reference.
    """
    numbers = numbers_of(reference)
    own = {place.table: _rows_of(tables, place.table, model) for place in PLACES.values()}
    joint = {number.language for number in numbers if number.source == "joint" and number.language}
    same_languages = _languages_of_lape(own["neurons"]) == joint
    rows = []
    for number in numbers:
        comparable = number.source != "joint" or same_languages
        ours = _counterpart(number, own) if comparable else math.nan
        theirs = float(number.value)
        rows.append(
            {
                "source": number.source,
                "quantity": number.quantity,
                "perturbation": number.perturbation,
                "language": number.language,
                "theirs": theirs,
                "ours": ours,
                "difference": ours - theirs,
                "decimals": number.decimals,
                "agrees": None if math.isnan(ours) else agrees(ours, theirs, number.decimals),
            }
        )
    return pd.DataFrame(rows).astype({"agrees": "boolean"})


def agrees(ours: float, theirs: float, decimals: int) -> bool:
    """Whether ours, rounded to the printed decimals, is theirs.

    A value half-way between two printable numbers agrees with both: whether the others rounded it up or to the even
    digit is not known. The rounding errors of both floats (a few units in the last place, far below the half unit of a
    printed digit) do not count.
    """
    return abs(ours - theirs) <= 0.5 * 10**-decimals + 4 * math.ulp(theirs)


def _rows_of(tables: Tables, name: str, model: str) -> pd.DataFrame:
    table = tables.get(name, pd.DataFrame())
    return table[table["model"] == model] if "model" in table else pd.DataFrame()


def _languages_of_lape(neurons: pd.DataFrame) -> set[str]:
    """Languages that LAPE compared; none if unknown."""
    if not {"method", "language"} <= set(neurons):
        return set()
    return set(neurons[neurons["method"] == "lape"]["language"])


def _counterpart(number: PublishedNumber, tables: Tables) -> float:
    """Our number for a published one; NaN if there is none."""
    place = PLACES[number.source, number.quantity]
    keys = {"method": place.method, "perturbation": number.perturbation, "language": number.language}
    keys = {column: value for column, value in keys.items() if value}
    table = tables[place.table]
    if not {place.column, *keys} <= set(table):
        return math.nan
    for column, value in keys.items():
        table = table[table[column] == value]
    found = pd.to_numeric(table[place.column], errors="coerce").to_numpy(dtype=float, na_value=math.nan)
    return float(found[0]) if len(found) else math.nan
