"""Average precision against its definition and hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from langneurons.neurons import precision
from langneurons.neurons.precision import average_precision
from langneurons.neurons.sentences import SentenceMeans


def sentences_of(means: list[list[float]] | np.ndarray, dtype: type = np.float32) -> SentenceMeans:
    """Means `[sentence, neuron]` of a model of one layer."""
    array = np.asarray(means, dtype=dtype)
    array = array[:, None] if array.ndim == 2 else array
    return SentenceMeans(array, np.full(len(array), 9, dtype=np.int64))


def by_definition(sentences: dict[str, SentenceMeans], language: str) -> np.ndarray:
    """One neuron at a time, a sentence weighing 1 / sentences of its language."""
    means = np.concatenate([one.means for one in sentences.values()]).astype(np.float64)
    owner = np.repeat(list(sentences), [len(one.means) for one in sentences.values()])
    weight = np.concatenate([np.full(len(one.means), 1 / len(one.means)) for one in sentences.values()])
    result = np.empty(means.shape[1:])
    for place in np.ndindex(*result.shape):
        scores = means[(slice(None), *place)]
        result[place] = weighted_average_precision(owner == language, scores, weight)
    return result


def weighted_average_precision(positive: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> float:
    """The sum over thresholds, from above, of the precision there times the recall gained."""
    total, recall = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        chosen = scores >= threshold
        found = weight[chosen & positive].sum()
        total += found / weight[chosen].sum() * (found / weight[positive].sum() - recall)
        recall = found / weight[positive].sum()
    return total


def test_by_hand() -> None:
    # Neuron 0: x .9, y .8, x .7, y .1. At the thresholds of x's sentences the precision is 1 and 2/3, so AP = 5/6; of
    # y's 1/2 and 1/2. Neuron 1: x and y tie at .5, x and y at 0: all thresholds have precision 1/2.
    sentences = {"x": sentences_of([[0.9, 0.5], [0.7, 0]]), "y": sentences_of([[0.8, 0.5], [0.1, 0]])}
    found = average_precision(sentences)
    assert found["x"].ravel() == pytest.approx([5 / 6, 1 / 2], abs=1e-15)
    assert found["y"].ravel() == pytest.approx([1 / 2, 1 / 2], abs=1e-15)


def test_perfect_silent_and_constant_neurons_have_exact_values() -> None:
    # Neuron 0 is active on x alone, 1 on all but x, 2 is always the same. Exact, so that neurons tie by position only.
    # Neuron 1, x: all 7 of the others come first, then 3 at one threshold: precision 1/3 there.
    active, silent = [[1.5, 0, 0.3]] * 3, [[0, 2.5, 0.3]] * 7
    found = average_precision({"x": sentences_of(active), "y": sentences_of(silent), "z": sentences_of(silent)})
    assert found["x"].ravel().tolist() == [1, 1 / 3, 1 / 3]
    assert found["y"].ravel().tolist() == [1 / 3, 1 / 2, 1 / 3]


def test_the_order_of_distinct_sentences_counts_even_when_all_are_below_zero() -> None:
    # x behind all of y: precision 1/3 and 2/4 at its thresholds, with equally many sentences.
    found = average_precision({"x": sentences_of([[-4], [-3]]), "y": sentences_of([[-2], [-1]])})
    assert found["x"].item() == pytest.approx((1 / 3 + 1 / 2) / 2, abs=1e-15)
    assert found["y"].item() == 1


def test_a_language_with_more_sentences_has_no_more_weight() -> None:
    x, y = [[0.9], [0.4], [0.2]], [[0.8], [0.3]]
    once = average_precision({"x": sentences_of(x), "y": sentences_of(y)})
    # The same sentences of y ten times over are the same evidence.
    often = average_precision({"x": sentences_of(x), "y": sentences_of(y * 10)})
    for language in ("x", "y"):
        assert often[language].item() == pytest.approx(once[language].item(), abs=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("numbers", [(8, 8), (5, 5, 5, 5), (4, 9, 2)])
@pytest.mark.parametrize("kind", ["relu", "continuous", "few values"])
def test_is_the_definition(kind: str, numbers: tuple[int, ...], dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "BLOCK", 7 * sum(numbers))  # 33 neurons in blocks of 7, the last one smaller
    generator = np.random.default_rng(len(numbers))
    sentences = {}
    for index, number in enumerate(numbers):
        means = generator.normal(0.3 * index, 1, (number, 3, 11))
        means = {"relu": np.maximum(means, 0), "continuous": means, "few values": np.round(means)}[kind]
        sentences[f"language {index}"] = sentences_of(means, dtype)
    found = average_precision(sentences)
    for language in sentences:
        assert found[language].dtype == np.float64
        # A few roundings of float64 at values up to 1.
        np.testing.assert_allclose(found[language], by_definition(sentences, language), rtol=0, atol=1e-14)


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    sentences = {name: sentences_of(np.round(generator.normal(size=(6, 2, 9)), 1)) for name in ("x", "y", "z")}
    whole = average_precision(sentences)
    monkeypatch.setattr(precision, "BLOCK", 1)  # fewer than there are sentences: one neuron at a time
    single = average_precision(sentences)
    assert all((whole[name] == single[name]).all() for name in sentences)
