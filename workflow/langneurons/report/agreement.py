"""How far our numbers agree with those that others published, in sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from langneurons.report.formats import FEW, join, printed

Json = dict[str, Any]

FAMILIES = {
    "text": "length and stop-word ratio",
    "percentiles": "the percentiles of the activation probability",
    "size": "the number of selected neurons",
    "selection": "the selection of neurons",
}
"""Groups of quantities, in words."""
FAMILY_OF = {"mean_characters": "text", "stop_word_ratio": "text", "percentile": "percentiles", "selected": "size"}
"""Every other quantity is of the selection."""


def summarise(comparison: pd.DataFrame) -> list[Json]:
    """Per source and family of quantities: `source, family, rows, compared, agreeing` and a `sentence`.

    Args:
        comparison: from `compare`, for one model, or the same from a CSV file.
    """
    if comparison.empty:
        return []
    agrees = comparison["agrees"].astype("boolean")
    table = comparison.assign(
        family=comparison["quantity"].map(FAMILY_OF).fillna("selection"),
        agrees=agrees.fillna(False).astype(bool),
        differs=~agrees.fillna(True).astype(bool),
    )
    result = []
    for (source, family), group in table.groupby(["source", "family"], sort=False):
        compared = group[group["ours"].notna()]
        counts = {"rows": len(group), "compared": len(compared), "agreeing": int(compared["agrees"].sum())}
        sentence = _sentence(FAMILIES[family], **counts, exceptions=compared[compared["differs"]])
        result.append({"source": source, "family": family, **counts, "sentence": sentence})
    return result


def _sentence(what: str, rows: int, compared: int, agreeing: int, exceptions: pd.DataFrame) -> str:
    if not compared:
        return f"0 of {rows} {_plural(rows)} of {what} can be compared: this run has no such number."
    verb = "agrees" if agreeing == 1 else "agree"
    parts = [f"{agreeing} of {compared} {_plural(compared)} of {what} {verb} to the printed digits"]
    if 0 < len(exceptions) <= FEW:
        parts.append(f"not {join([_exception(row) for row in exceptions.itertuples()])}")
    if compared < rows:
        parts.append(f"{rows - compared} more cannot be compared, as this run has no such number")
    return f"{'; '.join(parts)}."


def _plural(rows: int) -> str:
    return "row" if rows == 1 else "rows"


def _exception(row: Any) -> str:
    """A row that does not agree, with both numbers to the printed digits."""
    name = " ".join(str(part) for part in (row.quantity, row.perturbation, row.language) if part and not pd.isna(part))
    ours, theirs = (printed(value, row.decimals).replace(",", "") for value in (row.ours, row.theirs))
    return f"{name} (ours {ours}, theirs {theirs})"
