"""Effects of perturbations: paired differences from the baseline and from random controls, with intervals and tests.

To add a measure: one line in `MEASURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from langneurons.errors import UserError
from langneurons.metrics import statistics
from langneurons.metrics.language import knows

Json = dict[str, Any]
Columns = dict[str, np.ndarray]
Values = Callable[[Columns, str, str | None], np.ndarray | None]

BASELINE, RANDOM, ENGLISH = "none", "random", "en"
COLUMNS = [
    *("perturbation", "language", "measure", "unit", "against", "draws", "samples", "reference", "value"),
    *("difference", "low", "high", "p_value", "q_value", "note"),
]
ANSWER = ["perturbation", "language", "id"]
"""What identifies an answer."""
LANGUAGES = ("output_language", "identifier")
"""The language of an answer and what identified it; the only columns of words."""


# -- measures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number of every window or answer."""

    name: str
    unit: str
    """`windows` or `prompts`."""
    columns: tuple[str, ...]
    """What it is made of; a table without these columns does not have the measure."""
    values: Values
    """From the columns `[unit, perturbation]`, the prompts' language and the edited one: the numbers, NaN where there
    is none, or None where the measure has no meaning."""


def _ratio(numerator: str, denominator: str) -> Values:
    def values(columns: Columns, prompt: str, edited: str | None) -> np.ndarray:
        whole = columns[denominator]
        return np.divide(columns[numerator], whole, out=np.full(whole.shape, np.nan), where=whole > 0)

    return values


def _column(name: str) -> Values:
    return lambda columns, prompt, edited: columns[name]


@cache
def _knows(language: str, identifier: str) -> bool:
    return knows(language, identifier)


def _in_language(choose: Callable[[str, str | None], str | None]) -> Values:
    """Whether an answer is in the language that `choose` names from the prompts' and the edited language."""

    def values(columns: Columns, prompt: str, edited: str | None) -> np.ndarray | None:
        language, found = choose(prompt, edited), columns["output_language"]
        identified = ~pd.isna(found)
        identifiers = set(columns["identifier"][identified])
        if language is None or not all(_knows(language, identifier) for identifier in identifiers):
            return None
        return np.where(identified, found == language, np.nan)

    return values


MEASURES = (
    Measure("perplexity", "windows", ("nll_sum", "tokens"), _ratio("nll_sum", "tokens")),
    Measure("prompt_language", "prompts", LANGUAGES, _in_language(lambda prompt, edited: prompt)),
    Measure(
        *("target_language", "prompts", LANGUAGES),
        _in_language(lambda prompt, edited: None if edited == prompt else edited),
    ),
    Measure(
        *("english", "prompts", LANGUAGES),
        _in_language(lambda prompt, edited: None if ENGLISH in (prompt, edited) else ENGLISH),
    ),
    Measure("stop_words", "prompts", ("stop_words", "words"), _ratio("stop_words", "words")),
    *(
        Measure(name, "prompts", (name,), _column(name))
        for name in ("characters", "copies", "loops", "repeated_ngrams", "distinct_2", "compression_ratio", "relevance")
    ),
)
"""Every measure. Perplexity is the mean negative log-likelihood of a window's tokens in nats, so that its difference is
the logarithm of the ratio of perplexities where all windows have equally many tokens."""


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    """The windows or answers of one language, the perturbations side by side."""

    language: str
    positions: dict[str, int]
    """Column of every perturbation that was measured."""
    present: np.ndarray
    """Whether there is such a window or answer, bool `[unit, perturbation]`."""
    columns: Columns
    """`[unit, perturbation]`, the units sorted; NaN or None where there is none."""


@dataclass(frozen=True)
class _Cell:
    """One row of the table, without its statistics."""

    row: Json
    variant: str
    members: np.ndarray
    """The values of the perturbation and of all it is compared with, `[pair, member]`; NaN where a draw has none."""
    differences: np.ndarray
    """Value minus mean of the others, `[pair]`."""


def effects_of(
    perplexity: pd.DataFrame | None, text: pd.DataFrame | None, perturbations: list[Json], seed: int
) -> pd.DataFrame:
    """Compare every perturbation with the baseline, and with the random controls of its variant.

    The same prompts (or windows) are compared on both sides. The reference of a control is, prompt by prompt, the mean
    over those of its draws of the same languages that have a value. Intervals and p-values are over prompts: they say
    what other prompts would give with the same sets of neurons, not how much other random sets would differ.

    Args:
        perplexity: one row per window: `perturbation, language, window, nll_sum, tokens`.
        text: one row per answer: `perturbation, language` (of the prompt)`, id` and columns of `MEASURES`.
        perturbations: `id, variant, kind, language` (whose neurons), `source` (whose neurons are off as well), `draw`
            and `of` (the variants that a random one controls) of every perturbation; the kind `none` is the baseline.
        seed: of the resamples.

    Returns:
        One row per perturbation, language, measure and reference that were measured: `perturbation, language, measure,
        unit, against` (`none` or the variant of the control)`, draws` (of the control; 0 for the baseline)`, samples`
        (pairs)`, reference, value` (means over the pairs; perplexity in nats per token)`, difference, low, high` (95 %
        interval, missing below `statistics.MINIMUM_SAMPLES` pairs)`, p_value` (sign-flip test, with several draws
        exchange test)`, q_value` (Benjamini and Hochberg over all rows of a variant, measure and reference)`, note`.

    Raises:
        UserError: missing columns, a window or answer that is there twice, or an unknown perturbation.
    """
    panels = {
        "windows": _panels(perplexity, ["perturbation", "language", "window"], perturbations),
        "prompts": _panels(text, ANSWER, perturbations),
    }
    cells: list[_Cell] = []
    for perturbation in perturbations:
        if perturbation["kind"] != BASELINE:
            references = _references(perturbation, perturbations)
            for measure in MEASURES:
                for panel in panels[measure.unit]:
                    cells += _cells(perturbation, references, measure, panel)
    table = pd.DataFrame([cell.row for cell in cells], columns=COLUMNS)
    table["low"], table["high"], table["p_value"] = _statistics(cells, seed)
    table["q_value"] = np.nan
    families = [pd.Series([cell.variant for cell in cells], dtype=object), table["measure"], table["against"]]
    for rows in table.groupby(families).indices.values():
        table.loc[rows, "q_value"] = statistics.adjust(table.loc[rows, "p_value"].to_numpy())
    return table


def with_relevance(text: pd.DataFrame, relevance: pd.DataFrame) -> pd.DataFrame:
    """Answers with their relevance beside, missing where it was not measured.

    Args:
        text: one row per answer: `perturbation, language, id` and others.
        relevance: `perturbation, language, id, relevance`.

    Raises:
        UserError: an answer has two relevances.
    """
    if relevance.duplicated(ANSWER).any():
        raise UserError("the relevance of an answer is there twice; give one row per perturbation, language and id.")
    return text.merge(relevance[[*ANSWER, "relevance"]], how="left", on=ANSWER)


def _panels(table: pd.DataFrame | None, keys: list[str], perturbations: list[Json]) -> list[_Panel]:
    """One panel per language; `keys` name the columns of the perturbation, the language and the unit."""
    if table is None:
        return []
    missing = [key for key in keys if key not in table.columns]
    if missing:
        raise UserError(f"the table of {keys[-1]}s has no column {' or '.join(missing)}; it needs {', '.join(keys)}.")
    unknown = sorted(set(table["perturbation"]) - {row["id"] for row in perturbations})
    if unknown:
        raise UserError(f"perturbation '{unknown[0]}' was measured, but it is not among those described; add it.")
    if table.duplicated(keys).any():
        twice = table.loc[table.duplicated(keys), keys].iloc[0]
        raise UserError(
            f"{keys[-1]} {twice[keys[-1]]} of language '{twice['language']}' is there twice for perturbation "
            f"'{twice['perturbation']}'; give one row per {keys[-1]}."
        )
    return [_panel(str(language), rows, keys[-1]) for language, rows in table.groupby("language", sort=False)]


def _panel(language: str, rows: pd.DataFrame, unit: str) -> _Panel:
    # Sorted, so that neither the order of rows nor other perturbations change which sample is drawn where.
    units, unit_names = pd.factorize(rows[unit], sort=True)
    members, names = pd.factorize(rows["perturbation"])
    shape = (len(unit_names), len(names))
    present = np.zeros(shape, dtype=bool)
    present[units, members] = True
    columns = {}
    for name in {column for measure in MEASURES for column in measure.columns} & set(rows.columns):
        words = name in LANGUAGES
        columns[name] = np.full(shape, None if words else np.nan, dtype=object if words else np.float64)
        columns[name][units, members] = rows[name] if words else rows[name].astype(float)
    return _Panel(language, {str(name): position for position, name in enumerate(names)}, present, columns)


def _references(perturbation: Json, perturbations: list[Json]) -> dict[str, list[str]]:
    """What a perturbation is compared with: the ids of the baseline, and of the draws of each control."""
    result = {BASELINE: [row["id"] for row in perturbations if row["kind"] == BASELINE]}
    for row in perturbations:
        same = all(row.get(key) == perturbation.get(key) for key in ("language", "source"))
        controls = row["kind"] == RANDOM and perturbation["variant"] in (row.get("of") or [])
        if perturbation["kind"] != RANDOM and controls and same:
            result.setdefault(row["variant"], []).append(row["id"])
    return result


def _cells(perturbation: Json, references: dict[str, list[str]], measure: Measure, panel: _Panel) -> Iterator[_Cell]:
    """The rows of a perturbation, measure and language; none of what was not measured or has no meaning."""
    position = panel.positions.get(perturbation["id"])
    if position is None or not set(measure.columns) <= set(panel.columns):
        return
    for against, members in references.items():
        others = [panel.positions[member] for member in members if member in panel.positions]
        chosen = {name: panel.columns[name][:, [position, *others]] for name in measure.columns}
        numbers = measure.values(chosen, panel.language, perturbation["language"]) if others else None
        if numbers is None:
            continue
        differences = _row_means(numbers[:, :1] - numbers[:, 1:])  # of equal numbers exactly 0, unlike means of draws
        paired = ~np.isnan(differences)
        numbers, differences = numbers[paired], differences[paired]
        samples, units = len(numbers), int(panel.present[:, [position, *others]].any(axis=1).sum())
        row = {
            "perturbation": perturbation["id"],
            "language": panel.language,
            "measure": measure.name,
            "unit": measure.unit,
            "against": against,
            "draws": 0 if against == BASELINE else len(others),
            "samples": samples,
            "reference": _row_means(numbers[:, 1:]).mean() if samples else np.nan,
            "value": numbers[:, 0].mean() if samples else np.nan,
            "difference": differences.mean() if samples else np.nan,
            "note": _note(samples, units, measure.unit),
        }
        yield _Cell(row, perturbation["variant"], numbers, differences)


def _row_means(values: np.ndarray) -> np.ndarray:
    """Mean of each row over the draws that have a value; NaN where none has."""
    known = (~np.isnan(values)).sum(axis=1)
    return np.divide(np.nansum(values, axis=1), known, out=np.full(len(values), np.nan), where=known > 0)


def _note(samples: int, units: int, unit: str) -> str:
    notes = []
    if samples < units:
        notes.append(f"{units - samples} of {units} {unit} dropped: no pair of values")
    if samples < statistics.MINIMUM_SAMPLES:
        notes.append(f"fewer than {statistics.MINIMUM_SAMPLES} {unit}: no interval")
    return "; ".join(notes)


def _statistics(cells: list[_Cell], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower bound, upper bound and p-value of every cell, NaN where refused; cells of one shape are taken together."""
    low, high, p_values = np.full((3, len(cells)), np.nan)
    for (samples, members), where in _grouped([cell.members.shape for cell in cells]).items():
        chosen = [cells[index] for index in where]
        if members == 2 and samples:
            p_values[where] = statistics.sign_flip_test(np.stack([cell.differences for cell in chosen]), seed)
        elif samples:
            p_values[where] = statistics.exchange_test(np.stack([cell.members for cell in chosen]), seed)
    for (samples,), where in _grouped([cell.differences.shape for cell in cells]).items():
        if samples >= statistics.MINIMUM_SAMPLES:
            differences = np.stack([cells[index].differences for index in where])
            low[where], high[where] = statistics.mean_interval(differences, seed)
    return low, high, p_values


def _grouped(shapes: list[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Indices by shape."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(index)
    return groups
