"""The linear probe against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from langneurons.neurons.probe import PENALTY, fit_probes
from langneurons.neurons.sentences import SentenceMeans


def sentences_of(means: np.ndarray) -> SentenceMeans:
    return SentenceMeans(means.astype(np.float32), np.full(len(means), 9, dtype=np.int64))


def random_sentences(numbers: list[int], layers: int, neurons: int, seed: int = 0) -> dict[str, SentenceMeans]:
    generator = np.random.default_rng(seed)
    return {
        f"language {index}": sentences_of(generator.normal(index * 0.2, 1 + index, (number, layers, neurons)))
        for index, number in enumerate(numbers)
    }


def by_formula(sentences: dict[str, SentenceMeans], layer: int) -> np.ndarray:
    """The minimum over w and b of `sum_s c_s (w x_s + b - y_s)^2 + PENALTY |w|^2`, `[language, neuron]`.

    The weights c of a language's sentences add up to 1 / languages, also in the mean and deviation of x.
    """
    means = np.concatenate([one.means[:, layer] for one in sentences.values()]).astype(np.float64)
    numbers = [len(one.means) for one in sentences.values()]
    weight = np.repeat([1 / len(numbers) / number for number in numbers], numbers)
    centred = means - weight @ means
    x = centred / np.sqrt(weight @ centred**2)
    owner = np.repeat(np.arange(len(numbers)), numbers)
    targets = np.where(owner[:, None] == np.arange(len(numbers)), 1.0, -1.0)
    targets -= weight @ targets
    gram = x.T @ (weight[:, None] * x) + PENALTY * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ (weight[:, None] * targets)).T


@pytest.mark.parametrize("numbers", [[12, 12], [9, 9, 9], [6, 15, 11]])
@pytest.mark.parametrize("neurons", [7, 60])  # fewer than sentences, and more: the dual form
def test_weights_are_those_of_the_formula(numbers: list[int], neurons: int) -> None:
    sentences = random_sentences(numbers, 2, neurons)
    found = fit_probes(sentences).weights
    for layer in (0, 1):
        expected = by_formula(sentences, layer)
        for index, language in enumerate(sentences):
            assert found[language].shape == (2, neurons)
            # Solving in another form loses a few digits of float64.
            np.testing.assert_allclose(found[language][layer], expected[index], rtol=0, atol=1e-11)


def test_one_neuron_by_hand() -> None:
    # x: 1 and 3 with y = 1, -1 and -3 with y = -1. Standardised by sqrt(5): the mean of x y is 2 / sqrt(5), and of x^2
    # 1, so w = (2 / sqrt(5)) / (1 + PENALTY).
    sentences = {"x": sentences_of(np.array([[[1]], [[3]]])), "y": sentences_of(np.array([[[-1]], [[-3]]]))}
    probes = fit_probes(sentences)
    expected = 2 / np.sqrt(5) / (1 + PENALTY)
    assert probes.weights["x"].item() == pytest.approx(expected, abs=1e-12)
    assert probes.weights["y"].item() == pytest.approx(-expected, abs=1e-12)
    assert probes.accuracy_by_layer == [1.0]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_a_constant_neuron_has_no_weight_and_changes_nothing(value: float) -> None:
    sentences = random_sentences([8, 6, 7], 1, 5)
    with_constant = {
        name: sentences_of(np.concatenate([one.means, np.full((len(one.means), 1, 1), value)], axis=2))
        for name, one in sentences.items()
    }
    one, other = fit_probes(sentences), fit_probes(with_constant)
    for name in sentences:
        np.testing.assert_allclose(other.weights[name][:, :5], one.weights[name], rtol=0, atol=1e-12)
        assert abs(other.weights[name][0, 5]) < 1e-9  # what rounding leaves of the standardised constant
    assert other.accuracy_by_layer == one.accuracy_by_layer


def test_a_layer_of_constant_neurons_tells_nothing() -> None:
    same = sentences_of(np.ones((4, 1, 3)))
    probes = fit_probes({"x": same, "y": same})
    assert np.abs(probes.weights["x"]).max() < 1e-9
    assert probes.accuracy_by_layer == [0.5]


def test_accuracy_is_of_held_out_sentences() -> None:
    # Far more neurons than sentences: every labelling can be learned by heart, but layer 0 is noise. In layer 1 ten
    # neurons tell x, in layer 2 ten each tell all of them.
    generator = np.random.default_rng(0)
    sentences = {}
    for index, name in enumerate("xyz"):
        means = generator.normal(size=(40, 3, 300))
        means[:, 1, :10] += 10 * (index == 0)
        means[:, 2, 10 * index : 10 * index + 10] += 10
        sentences[name] = sentences_of(means)
    noise, one, all_of_them = fit_probes(sentences).accuracy_by_layer
    assert 0.2 < noise < 0.5  # chance is 1/3, with a standard error of 0.04
    assert noise < one < 0.95
    assert all_of_them == 1


def test_accuracy_weighs_languages_equally() -> None:
    # The neuron is 1 on half of the sentences of x, 0 on all others. Told: half of x, all of y, whatever the numbers.
    for number in (20, 60):
        x = np.tile([1.0, 0.0], number // 2)[:, None, None]
        accuracy = fit_probes({"x": sentences_of(x), "y": sentences_of(np.zeros((20, 1, 1)))}).accuracy_by_layer
        assert accuracy == [0.75]


def test_two_sentences_per_language_are_enough() -> None:
    probes = fit_probes(random_sentences([2, 30], 1, 4))
    assert np.isfinite(probes.weights["language 0"]).all()
    assert 0 <= probes.accuracy_by_layer[0] <= 1


def test_same_sentences_same_weights() -> None:
    sentences = random_sentences([9, 9, 9], 2, 60)
    one, other = fit_probes(sentences), fit_probes(sentences)
    assert all((one.weights[name] == other.weights[name]).all() for name in sentences)
