"""Average precision of single neurons (Kojima et al. 2024, arXiv 2404.02431)."""

from __future__ import annotations

import numpy as np

from langneurons.neurons.sentences import SentenceMeans

BLOCK = 1 << 18
"""Values that are ranked at a time: few enough for the cache of a core, many enough for NumPy to be fast."""


def average_precision(sentences: dict[str, SentenceMeans]) -> dict[str, np.ndarray]:
    """How well the mean activation of a neuron on a sentence tells one language from all others.

    Every neuron is a detector whose score of a sentence is its mean activation; the average precision is
    `AP = sum_n (R_n - R_(n-1)) P_n` over the thresholds n, with recall R and precision P, as scikit-learn's
    `average_precision_score` defines it: sentences of equal score pass a threshold together. A neuron that tells
    nothing has about 1 / languages, one that is silent on the language and active on the others has less.

    Every language has the same weight: a sentence counts as 1 / sentences of its language, so the result is that of
    `average_precision_score` with these as `sample_weight`. With equally many sentences that changes nothing.

    Args:
        sentences: by language, at least two, all of one model.

    Returns:
        By language, float64 `[layer, neuron]`, from 0 to 1. Needs about 100 bytes per value of `BLOCK` beside it.
    """
    shape = next(iter(sentences.values())).means.shape[1:]
    neurons = [one.means.reshape(len(one.means), -1) for one in sentences.values()]
    numbers = np.array([len(one.means) for one in sentences.values()])
    owners = np.repeat(np.arange(len(numbers), dtype=np.int16), numbers)
    size, width = neurons[0].shape[1], max(1, BLOCK // len(owners))
    result = np.empty((len(numbers), size))
    for start in range(0, size, width):
        block = np.concatenate([means[:, start : start + width] for means in neurons])
        values = np.ascontiguousarray(block.T, dtype=np.float32)
        result[:, start : start + width] = _average_precisions(values, owners, numbers)
    return {language: result[index].reshape(shape) for index, language in enumerate(sentences)}


def _average_precisions(values: np.ndarray, owners: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Average precision of a block, float64 `[language, neuron]`.

    Args:
        values: float32 `[neuron, sentence]`.
        owners: int16 `[sentence]`, index of its language.
        numbers: int64 `[language]`, sentences of each.
    """
    order = np.argsort(-values, axis=1)
    ranked, owner = np.take_along_axis(values, order, axis=1), owners[order]
    threshold = _last_of_equal(ranked)
    # Whole numbers until the division: a perfect neuron has exactly 1, so that ties of neurons remain ties.
    recalls = [np.cumsum(numbers[owner] == number, axis=1) / number for number in np.unique(numbers)]
    weight = np.sum(recalls, axis=0)  # of all sentences so far, by equally large languages
    result = np.empty((len(numbers), len(values)))
    for language, number in enumerate(numbers):
        # Recall rises by 1 / number at each sentence of the language, so AP is the mean precision at their thresholds.
        passed = np.take(threshold, np.flatnonzero(owner == language)).reshape(len(values), number)
        recall = (_last_of_equal(passed) + 1) / number
        result[language] = (recall / np.take_along_axis(weight, passed, axis=1)).mean(axis=1)
    return result


def _last_of_equal(ranked: np.ndarray) -> np.ndarray:
    """Where in its row the last value is that equals a value, int64 of the same shape; rows are in order."""
    places = np.broadcast_to(np.arange(ranked.shape[1]), ranked.shape).copy()
    places[:, :-1][ranked[:, 1:] == ranked[:, :-1]] = ranked.shape[1]
    return np.ascontiguousarray(np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1])
