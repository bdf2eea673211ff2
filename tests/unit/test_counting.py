"""Recorded counts: what cannot be true is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts


def counts_with(**changes: Any) -> ActivationCounts:
    values: dict[str, Any] = {
        "over_zero": np.array([[0, 3], [10, 7]], dtype=np.int64),
        "activation_sum": np.array([[-1.5, 0.25], [3, 2]]),
        "product_sum": np.array([[0.5, -2], [1, 0]]),
        "tokens": 10,
    }
    return ActivationCounts(**{**values, **changes})


def changed(value: float, layer: int = 1, neuron: int = 0) -> np.ndarray:
    array = np.zeros((2, 2))
    array[layer, neuron] = value
    return array


def test_possible_counts_pass() -> None:
    counts_with().check()  # none and all of the tokens are possible
    counts_with(over_zero=np.full((2, 2), 10)).check()


def test_more_counts_than_tokens() -> None:
    with pytest.raises(UserError, match="counts reach from 0 to 10 for 9 tokens"):
        counts_with(tokens=9).check()


def test_negative_counts() -> None:
    with pytest.raises(UserError, match="counts reach from -1 to 0 for 10 tokens"):
        counts_with(over_zero=changed(-1).astype(np.int64)).check()


@pytest.mark.parametrize("tokens", [0, -3])
def test_no_tokens(tokens: int) -> None:
    with pytest.raises(UserError, match=f"{tokens} tokens were counted"):
        counts_with(over_zero=np.zeros((2, 2), dtype=np.int64), tokens=tokens).check()


@pytest.mark.parametrize("name", ["activation_sum", "product_sum"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_sums_that_are_not_finite(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"1 activations are NaN or infinite \({name}\), first in layer 1, neuron 0"):
        counts_with(**{name: changed(value)}).check()


def test_the_number_of_broken_sums_and_the_remedy() -> None:
    with pytest.raises(UserError, match=r"4 activations .* layer 0, neuron 0\. .*dtype: bfloat16 or float32"):
        counts_with(product_sum=np.full((2, 2), np.nan)).check()


@pytest.mark.parametrize("name", ["over_zero", "activation_sum", "product_sum"])
def test_different_shapes(name: str) -> None:
    with pytest.raises(UserError, match=r"different shapes: \[\(2, 2\), \(2, 3\)\]"):
        counts_with(**{name: np.zeros((2, 3), dtype=np.int64 if name == "over_zero" else np.float64)}).check()


def test_probability_by_hand() -> None:
    probability = counts_with().probability()
    assert probability.dtype == np.float32
    assert probability.tolist() == [[0, float(np.float32(0.3))], [1, float(np.float32(0.7))]]


def test_probability_is_the_published_float32_quotient() -> None:
    # `over_zero / n` of an int32 tensor, as in the published code, bit for bit. No float32 is equal to this n.
    over_zero = np.random.default_rng(0).integers(0, 100_000_001, size=(10, 1000))
    expected = torch.tensor(over_zero, dtype=torch.int32) / 100_000_001
    ours = ActivationCounts(over_zero, np.zeros((10, 1000)), np.zeros((10, 1000)), 100_000_001).probability()
    assert np.array_equal(ours, expected.numpy())
