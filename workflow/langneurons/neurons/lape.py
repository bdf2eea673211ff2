"""Language activation probability entropy (Tang et al. 2024, arXiv 2402.16438, section 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import entr

from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts


@dataclass(frozen=True)
class Selection:
    """The neurons that LAPE or another method selects. What has no meaning for a method is None."""

    table: pd.DataFrame
    """One row per (language, layer, neuron): `language, layer, neuron, entropy, probability`, and `score` unless by
    LAPE."""
    activation_bar: float | None
    """The activation probability that a language must exceed to own a neuron."""
    percentile_by_language: dict[str, float]
    """The same percentile within one language alone; not used for selecting."""
    candidates: int | None
    """Neurons that exceed the bar in some language."""
    selected: int
    """Distinct neurons selected."""
    requested: int | None
    """Neurons asked for: `round(top_rate * layers * neurons)`. More than `candidates` cannot be selected."""
    accuracy_by_layer: list[float] | None = None
    """How often a probe of each layer tells the language of a sentence that it has not seen."""

    def summary(self) -> dict[str, object]:
        """Thresholds and counts, as written to `<method>.json`; `accuracy_by_layer` only where it was measured."""
        entropies = self.table["entropy"].dropna()
        counts = self.table["language"].value_counts()
        measured = {} if self.accuracy_by_layer is None else {"accuracy_by_layer": self.accuracy_by_layer}
        return measured | {
            "activation_bar": self.activation_bar,
            "percentile_by_language": self.percentile_by_language,
            "candidates": self.candidates,
            "requested": self.requested,
            "selected": self.selected,
            "count_by_language": {name: int(counts.get(name, 0)) for name in self.percentile_by_language},
            "entropy_min": float(entropies.min()) if len(entropies) else None,
            "entropy_max": float(entropies.max()) if len(entropies) else None,
        }


def activation_entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of the activation probabilities across languages, in nats.

    Args:
        probability: `[language, layer, neuron]`.

    Returns:
        float64 `[layer, neuron]`: `H = -sum_k q_k ln q_k` with `q = p / sum_k p` and `0 ln 0 = 0` (the paper's
        equations 3 and 4). A neuron that is never active anywhere gets 0; the filter of `select` drops it.
    """
    probability = np.sort(probability.astype(np.float64), axis=0)  # sums do not depend on the order of languages
    total = probability.sum(axis=0)
    share = np.divide(probability, total, out=np.zeros_like(probability), where=total > 0)
    return entr(share).sum(axis=0)


def rank_value(values: np.ndarray, rate: float) -> float:
    """The value of rank `round(rate * size)`, 1-based and ascending, as torch's `kthvalue` gives it."""
    rank = min(max(round(rate * values.size), 1), values.size)
    return float(np.partition(values.reshape(-1), rank - 1)[rank - 1])


def entropy_with_bonus(probability: np.ndarray, bonus: float) -> np.ndarray:
    """Entropy of the activation probabilities less a bonus for strong activation, in nats.

    The bonus is the largest probability over `H_K / K`, with the harmonic number `H_K = 1 + 1/2 + ... + 1/K`: the mean
    length of the longest of K pieces of a stick that is broken at random, so that K hardly matters. A variant of the
    paper's equation 4 in use in the field.

    Args:
        probability: `[language, layer, neuron]`, of K languages.
        bonus: weight of the bonus; 0 gives exactly the entropy.

    Returns:
        float64 `[layer, neuron]`: `ln K` times the score `H / ln K - bonus * max_k p_k / (H_K / K)`. The factor keeps
        the order; a division by `ln K` could make two entropies a tie.
    """
    number = len(probability)
    expected = float((1 / np.arange(1, number + 1)).sum()) / number
    strongest = probability.max(axis=0).astype(np.float64)
    return activation_entropy(probability) - bonus * math.log(number) * strongest / expected


def stack_probabilities(counts: dict[str, ActivationCounts]) -> np.ndarray:
    """Activation probabilities of all languages, float32 `[language, layer, neuron]`.

    Raises:
        UserError: fewer than two languages, or recordings of different shapes.
    """
    languages = list(counts)
    if len(languages) < 2:
        raise UserError(
            f"LAPE compares languages, but was given {len(languages)} ({', '.join(languages) or 'none'}). With "
            f"one language "
            "every entropy is 0 and the selection would be decided by ties. Record at least two."
        )
    shapes = {language: counts[language].over_zero.shape for language in languages}
    if len(set(shapes.values())) > 1:
        raise UserError(f"the recordings do not belong to one model; their shapes [layer, neuron] are {shapes}")
    return np.stack([counts[language].probability() for language in languages])


def make_table(languages: list[str], owned: np.ndarray, probability: np.ndarray, entropy: np.ndarray) -> pd.DataFrame:
    """The table of a selection, by language, then layer, then neuron.

    Args:
        languages: in the order of the other arrays.
        owned: bool `[language, layer, neuron]`: which neurons are selected for which language.
        probability: `[language, layer, neuron]`.
        entropy: `[layer, neuron]`; not a number in the table for a neuron that is never active.

    Returns:
        `language, layer, neuron, entropy, probability`.
    """
    owner, layer, neuron = np.nonzero(owned)
    active = probability[:, layer, neuron].any(axis=0)
    return pd.DataFrame(
        {
            "language": pd.Series([languages[index] for index in owner], dtype="str"),
            "layer": layer,
            "neuron": neuron,
            "entropy": np.where(active, entropy[layer, neuron], np.nan),
            "probability": probability[owner, layer, neuron],
        }
    )


def select(
    counts: dict[str, ActivationCounts], top_rate: float, activation_percentile: float, bonus: float | None = None
) -> Selection:
    """Select the language-specific neurons of a model.

    A neuron is a candidate when its activation probability exceeds the bar in some language; the bar is one
    percentile of
    all probabilities of all neurons and languages. Of the candidates, the `round(top_rate * layers * neurons)` of
    lowest
    entropy are selected, ties by (layer, neuron). A selected neuron belongs to every language in which it exceeds
    the bar.

    Args:
        counts: by language; at least two languages, all of one model.
        top_rate: share of all neurons to select.
        activation_percentile: rank of the bar, as a share.
        bonus: weight of a bonus for strong activation (`entropy_with_bonus`), which then orders the candidates in place
            of the entropy, and is the table's `score`; None: LAPE as published.

    Raises:
        UserError: fewer than two languages, or recordings of different shapes.
    """
    languages = list(counts)
    probability = stack_probabilities(counts)
    bar = np.float32(rank_value(probability, activation_percentile))
    owned = probability > bar
    candidate = owned.any(axis=0)
    entropy = activation_entropy(probability)
    lowest = entropy if bonus is None else entropy_with_bonus(probability, bonus)
    requested = round(top_rate * entropy.size)
    ranked = np.argsort(np.where(candidate, lowest, np.inf).reshape(-1), kind="stable")
    chosen = np.zeros(entropy.size, dtype=bool)
    chosen[ranked[: min(requested, int(candidate.sum()))]] = True
    table = make_table(languages, owned & chosen.reshape(entropy.shape), probability, entropy)
    if bonus is not None:
        table["score"] = lowest[table["layer"], table["neuron"]] / math.log(len(languages))
    return Selection(
        table=table,
        activation_bar=float(bar),
        percentile_by_language={
            language: rank_value(probability[index], activation_percentile) for index, language in enumerate(languages)
        },
        candidates=int(candidate.sum()),
        selected=int(chosen.sum()),
        requested=requested,
    )
