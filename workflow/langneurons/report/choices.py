"""Which of many perturbation variants the page shows in full; the others are in its long tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from langneurons.metrics.steering import ALL
from langneurons.variants import BASELINE, DEACTIVATE, RANDOM, RESIDUAL, STEER

Default = tuple[str, float]
"""The method and the share of neurons that a run uses unless a variant has its own."""

MOST_STEERING = 3
"""So many steering variants are shown one by one; of more, the most successful ones."""


def default_of(thresholds: pd.DataFrame) -> Default | None:
    """The default method and rate: those of the first selection; None where nothing was selected here."""
    if "top_rate" not in thresholds:
        return None
    rated = thresholds[thresholds["top_rate"].notna()]
    return (str(rated["method"].iloc[0]), float(rated["top_rate"].iloc[0])) if len(rated) else None


def at_rate(table: pd.DataFrame, rate: float) -> pd.DataFrame:
    """The rows whose `top_rate` is this one, but for the digits that a CSV file drops."""
    return table[np.isclose(table["top_rate"].to_numpy(dtype=float, na_value=np.nan), rate, rtol=1e-6, atol=0)]


def deactivating(variants: pd.DataFrame, default: Default | None) -> list[str]:
    """The variants that switch off the neurons of the default method at the default rate.

    Where none does, those of the method and rate of the first variant that switches off.

    Args:
        variants: the settings of every variant.
        default: method and rate.
    """
    off = _of_kind(variants, DEACTIVATE)
    if off.empty:
        return []
    first = (str(off["method"].iloc[0]), float(off["top_rate"].iloc[0]))
    for method, rate in [first] if default is None else [default, first]:
        found = at_rate(off[off["method"] == method], rate)
        if len(found):
            return list(found["variant"])
    return list(off["variant"])


def controls(variants: pd.DataFrame, controlled: Sequence[str], control: str | None = None) -> list[str]:
    """The random variants that are controls of these, of all kinds or of one (`layer`, `activity`)."""
    random = _of_kind(variants, RANDOM)
    return [
        str(row.variant)
        for row in random.itertuples()
        if set(_listed(row.of)) & set(controlled) and control in (None, row.control)
    ]


def steering(variants: pd.DataFrame, success: pd.DataFrame, most: int = MOST_STEERING) -> list[str]:
    """The steering variants, in the order of the run; of more than `most`, those whose answers succeed most often.

    The best of neurons comes first, then the best shift of the residual stream, then all others.

    Args:
        variants: the settings of every variant.
        success: of one model, the table of steering.
        most: how many are shown.
    """
    steer = _of_kind(variants, STEER)
    names = list(steer["variant"]) if len(steer) else []
    if len(names) <= most:
        return names
    shares = shares_of_all(success)
    ranked = sorted(names, key=lambda name: -shares.get(name, -1.0))
    residual = set(steer.loc[steer["site"] == RESIDUAL, "variant"])
    first = [
        name
        for shift in (False, True)
        for name in [name for name in ranked if (name in residual) == shift and (name in shares or not shares)][:1]
    ]
    chosen = list(dict.fromkeys(first + ranked))[:most]
    return [name for name in names if name in chosen]


def shares_of_all(success: pd.DataFrame) -> dict[str, float]:
    """Share of answers in the target language over all directions, by variant."""
    if "target" not in success:
        return {}
    rows = success[(success["target"] == ALL) & success["share"].notna()]
    return dict(zip(rows["variant"].astype(str), rows["share"].astype(float), strict=True))


def read(table: pd.DataFrame, variants: pd.DataFrame, default: Default | None) -> pd.DataFrame:
    """The rows of a table of perplexity that are shown in full: the baseline, the default variants, their controls.

    All rows where the settings of the variants are not known, or where none of these was measured.
    """
    return _kept(table, [*(off := deactivating(variants, default)), *controls(variants, off, "layer")])


def answered(
    table: pd.DataFrame, variants: pd.DataFrame, default: Default | None, success: pd.DataFrame, most: int
) -> pd.DataFrame:
    """The rows of a table of answers that are shown in full: as of `read`, with steering and its controls.

    Where a variant switches the prompts' language off as well, only the rows of that language are kept.
    """
    off, on = deactivating(variants, default), steering(variants, success, most)
    kept = _kept(table, [*off, *controls(variants, off, "layer"), *on, *controls(variants, on)])
    if "source_language" in kept:
        kept = kept[kept["source_language"].isna() | (kept["source_language"] == kept["language"])]
    return kept


def _kept(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The baseline and these variants, in this order; all rows where none of them is there."""
    if "variant" not in table or not table["variant"].isin(names).any():
        return table
    order = {name: place for place, name in enumerate([BASELINE, *names])}
    return table[table["variant"].isin(order)].sort_values(
        "variant", key=lambda column: column.map(order), kind="stable"
    )


def _of_kind(variants: pd.DataFrame, kind: str) -> pd.DataFrame:
    return variants[variants["kind"] == kind] if "kind" in variants else variants.iloc[:0]


def _listed(names: object) -> list[str]:
    return names.split(", ") if isinstance(names, str) else []
