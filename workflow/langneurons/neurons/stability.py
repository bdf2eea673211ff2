"""How firm a selection of neurons is: whether other text, or less of it, gives the same."""

from __future__ import annotations

import pandas as pd

from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.lape import select

Neurons = dict[str, set[tuple[int, int]]]
HALVES, FULL = "halves", "full"


def stability(counts: dict[str, ActivationCounts], top_rate: float, activation_percentile: float) -> pd.DataFrame:
    """Neurons that LAPE selects from parts of the text.

    Args:
        counts: by language, with the counts of parts.
        top_rate, activation_percentile: as for `lape.select`.

    Returns:
        One row per language and comparison: `comparison` (`halves`, either half of the windows against the other; `1/4`
        and `1/2`, so much of the text against all), `language, tokens` (of the smaller side), `neurons, other_neurons,
        shared, jaccard` (shared of those in either set), `expected` (shared by two random sets of these sizes). Empty
        where a recording lacks its parts.
    """

    def neurons(parts: dict[str, ActivationCounts]) -> Neurons:
        table = select(parts, top_rate, activation_percentile).table
        return {
            language: set(zip(own["layer"], own["neuron"], strict=True))
            for language in parts
            for own in [table[table["language"] == language]]
        }

    size = next(iter(counts.values())).over_zero.size
    rows = []
    halves = {language: recorded.halves() for language, recorded in counts.items()}
    sides = [{language: half[side] for language, half in halves.items() if half} for side in (0, 1)]
    if len(sides[0]) == len(counts):
        rows += _compare(HALVES, neurons(sides[0]), neurons(sides[1]), _tokens(sides[1]), size)
    full = neurons(counts)
    for share in ("1/4", "1/2"):
        parts = {
            language: recorded.budgets()[share] for language, recorded in counts.items() if share in recorded.budgets()
        }
        if len(parts) == len(counts):
            rows += _compare(share, neurons(parts), full, _tokens(parts), size)
    columns = ["comparison", "language", "tokens", "neurons", "other_neurons", "shared", "jaccard", "expected"]
    return pd.DataFrame(rows, columns=columns)


def _tokens(parts: dict[str, ActivationCounts]) -> dict[str, int]:
    return {language: part.tokens for language, part in parts.items()}


def _compare(
    comparison: str, first: Neurons, second: Neurons, tokens: dict[str, int], size: int
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for language, one in first.items():
        other = second[language]
        either = len(one | other)
        rows.append(
            {
                "comparison": comparison,
                "language": language,
                "tokens": tokens[language],
                "neurons": len(one),
                "other_neurons": len(other),
                "shared": len(one & other),
                "jaccard": len(one & other) / either if either else float("nan"),
                "expected": len(one) * len(other) / size,
            }
        )
    return rows
