"""Ways to find language-specific neurons, behind one interface.

To add a method: a module with a function from recordings to a score of every neuron and language, and an entry in
`METHODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from langneurons.errors import UserError
from langneurons.neurons import lape
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.difference import mean_difference
from langneurons.neurons.lape import Selection
from langneurons.neurons.precision import average_precision
from langneurons.neurons.probe import fit_probes
from langneurons.neurons.sentences import SentenceMeans

Counts = dict[str, ActivationCounts]
"""By language."""
Sentences = dict[str, SentenceMeans]
"""By language."""


@dataclass(frozen=True)
class Scores:
    """How specific neurons are to languages."""

    by_language: dict[str, np.ndarray]
    """float64 `[layer, neuron]`: the larger, the more active a neuron is on the language."""
    accuracy_by_layer: list[float] | None = None
    """Where it was measured, how well each layer tells languages apart."""


def largest(scores: np.ndarray, number: int) -> np.ndarray:
    """Indices of the largest scores, int64 `[number]`, ties by position."""
    return np.argsort(-scores, kind="stable")[:number]


def largest_and_smallest(scores: np.ndarray, number: int) -> np.ndarray:
    """Indices of the largest and of the smallest scores, one more of the former if the number is odd; ties by position.

    Half of the neurons of Kojima et al. (2024) are active on the language, half on all others.
    """
    most = largest(scores, number - number // 2)
    others = scores.copy()
    others[most] = np.inf
    return np.concatenate([most, largest(-others, number // 2)])


@dataclass(frozen=True)
class Method:
    """A way to find language-specific neurons."""

    name: str
    title: str
    source: str
    needs: Literal["counts", "sums", "sentences"]
    """What it reads: counts of activations above zero, sums of activations, or means of sentences."""
    settings: tuple[str, ...] = ()
    """Of `select`, beside those of LAPE, which size all selections: what it depends on."""
    score: Callable[[Counts, Sentences], Scores] | None = None
    """None: it selects by the entropy of activation probabilities."""
    pick: Callable[[np.ndarray, int], np.ndarray] = largest
    """Which neurons of a language, from all scores `[neuron]` and a number."""


def _mean_difference(counts: Counts, sentences: Sentences) -> Scores:
    return Scores(mean_difference(counts))


def _average_precision(counts: Counts, sentences: Sentences) -> Scores:
    return Scores(average_precision(sentences))


def _probe(counts: Counts, sentences: Sentences) -> Scores:
    probes = fit_probes(sentences)
    return Scores(probes.weights, probes.accuracy_by_layer)


METHODS = {
    method.name: method
    for method in (
        Method(
            name="lape",
            title="language activation probability entropy",
            source="Tang et al. 2024, arXiv 2402.16438",
            needs="counts",
        ),
        Method(
            name="lape-bonus",
            title="language activation probability entropy with a bonus for strong activation",
            source="variant of Tang et al. 2024, arXiv 2402.16438",
            needs="counts",
            settings=("bonus",),
        ),
        Method(
            name="mean-difference",
            title="difference of mean activations",
            source="Marks & Tegmark 2023, arXiv 2310.06824",
            needs="sums",
            settings=("neurons_per_language",),
            score=_mean_difference,
        ),
        Method(
            name="average-precision",
            title="average precision",
            source="Kojima et al. 2024, arXiv 2404.02431",
            needs="sentences",
            settings=("neurons_per_language",),
            score=_average_precision,
            pick=largest_and_smallest,
        ),
        Method(
            name="probe",
            title="linear probe",
            source="after Dalvi et al. 2019, arXiv 1812.09355",
            needs="sentences",
            settings=("neurons_per_language",),
            score=_probe,
        ),
    )
}
"""By name."""


def select(
    method: str,
    counts: Counts,
    sentences: Sentences | None,
    top_rate: float,
    activation_percentile: float,
    bonus: float = 0.2,
    neurons_per_language: int | None = None,
) -> Selection:
    """Select the language-specific neurons of a model by one of `METHODS`.

    Methods with a score select as many neurons per language as LAPE gives the language, so that sets of equal size are
    compared; ties by (layer, neuron).

    Args:
        method: its name.
        counts: by language; at least two languages, all of one model.
        sentences: by language, for methods that need them; others ignore them.
        top_rate, activation_percentile: of LAPE, which sizes the selection of every method.
        bonus: weight of the bonus of `lape-bonus`; other methods ignore it.
        neurons_per_language: the number in place of LAPE's; the methods by entropy ignore it.

    Returns:
        The selection. Methods with a score have no bar, candidates or number requested over all languages.

    Raises:
        UserError: no such method, fewer than two languages, recordings of different models or without what the method
            needs, a negative bonus, or more neurons per language than there are.
    """
    if method not in METHODS:
        raise UserError(f"identification.method is '{method}', but the methods are {', '.join(METHODS)}. Choose one.")
    if not 0 <= bonus < math.inf:
        raise UserError(f"identification.bonus is {bonus}, but must be a number from 0 up. Correct it.")
    chosen = METHODS[method]
    reference = lape.select(counts, top_rate, activation_percentile, bonus if "bonus" in chosen.settings else None)
    if chosen.score is None:
        return reference
    shape = counts[next(iter(counts))].over_zero.shape
    numbers = _numbers(reference, shape, neurons_per_language)
    # In an order of its own, so that the order of languages in the config changes no rounding error.
    ordered = sorted(counts)
    given = _check_inputs(chosen, counts, sentences or {}, shape)
    scores = chosen.score({name: counts[name] for name in ordered}, {name: given[name] for name in ordered if given})
    return _with_scores(reference, counts, scores, numbers, chosen.pick)


def _numbers(reference: Selection, shape: tuple[int, ...], neurons_per_language: int | None) -> dict[str, int]:
    """Neurons to select by language."""
    if neurons_per_language is None:
        counts = reference.table["language"].value_counts()
        return {language: int(counts.get(language, 0)) for language in reference.percentile_by_language}
    layers, neurons = shape
    if not 1 <= neurons_per_language <= layers * neurons:
        raise UserError(
            f"identification.neurons_per_language is {neurons_per_language}, but the model has {layers * neurons} "
            f"neurons ({layers} layers of {neurons}). Choose a number from 1 to {layers * neurons}."
        )
    return dict.fromkeys(reference.percentile_by_language, neurons_per_language)


def _check_inputs(method: Method, counts: Counts, sentences: Sentences, shape: tuple[int, ...]) -> Sentences:
    """The sentences that the method reads, none if it reads none; what it needs must be there."""
    simple = ", ".join(name for name, other in METHODS.items() if other.needs == "counts")
    if method.needs == "sums":
        without = [language for language, one in counts.items() if one.activation_sum is None]
        if without:
            raise UserError(
                f"the method '{method.name}' needs sums of activations, but the recordings of {', '.join(without)} "
                f"have none; published ones never do. Choose another identification.method ({simple}), or record the "
                "model here."
            )
        return {}
    missing = [language for language in counts if language not in sentences]
    if missing:
        raise UserError(
            f"the method '{method.name}' needs mean activations of sentences, but there are none of "
            f"{', '.join(missing)}. Choose another identification.method ({simple}), or record sentences of each."
        )
    shapes = {language: sentences[language].means.shape[1:] for language in counts}
    if set(shapes.values()) != {shape}:
        raise UserError(
            f"the sentences do not belong to the model of the counts, whose shape [layer, neuron] is {shape}; theirs "
            f"are {shapes}. Record both with one model."
        )
    return sentences


def _with_scores(
    reference: Selection,
    counts: Counts,
    scores: Scores,
    numbers: dict[str, int],
    pick: Callable[[np.ndarray, int], np.ndarray],
) -> Selection:
    """The selection of the neurons that `pick` takes by their scores."""
    languages, probability = list(counts), lape.stack_probabilities(counts)
    owned = np.zeros(probability.shape, dtype=bool)
    for index, language in enumerate(languages):
        owned[index].reshape(-1)[pick(scores.by_language[language].reshape(-1), numbers[language])] = True
    table = lape.make_table(languages, owned, probability, lape.activation_entropy(probability))
    table["score"] = np.concatenate(
        [scores.by_language[language][owned[index]] for index, language in enumerate(languages)]
    )
    return replace(
        reference,
        table=table,
        activation_bar=None,
        candidates=None,
        selected=int(owned.any(axis=0).sum()),
        requested=None,
        accuracy_by_layer=scores.accuracy_by_layer,
    )
