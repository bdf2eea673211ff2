"""Difference of mean activations: a language against the others (Marks & Tegmark 2023, arXiv 2310.06824)."""

from __future__ import annotations

import numpy as np

from langneurons.neurons.counting import ActivationCounts


def mean_difference(counts: dict[str, ActivationCounts]) -> dict[str, np.ndarray]:
    """Mean activation on each language less the mean of the means on the other languages.

    The paper's direction of the difference in means, read neuron by neuron. Every other language has the same weight,
    however many tokens it has.

    The difference is not standardised. Only sums are recorded, no squares, so how much an activation varies within a
    language is not known. The spread of a neuron's few means does not replace it: it is smallest, and the ratio
    largest, where a neuron is hardly active at all. So neurons and layers of large activations come first.

    Args:
        counts: by language, at least two, with `activation_sum`.

    Returns:
        By language, float64 `[layer, neuron]`, in units of the activation.
    """
    means = {language: _mean(one) for language, one in counts.items()}
    return {
        language: mean - np.mean([other for name, other in means.items() if name != language], axis=0)
        for language, mean in means.items()
    }


def _mean(counts: ActivationCounts) -> np.ndarray:
    assert counts.activation_sum is not None
    return counts.activation_sum / counts.tokens
