"""Recorded counts: what cannot be true is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts, join_halves


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


@pytest.mark.parametrize("name", ["over_zero", "activation_sum", "product_sum", "half_over_zero"])
def test_different_shapes(name: str) -> None:
    with pytest.raises(UserError, match=r"different shapes: \[\(2, 2\), \(2, 3\)\]"):
        counts_with(**{name: np.zeros((2, 3), dtype=np.int64 if name.endswith("over_zero") else np.float64)}).check()


def with_half(counts: list[list[int]], tokens: int) -> ActivationCounts:
    """Of the counts [[0, 3], [10, 7]] on 10 tokens, those of half of the windows."""
    return counts_with(half_over_zero=np.array(counts, dtype=np.int64), half_tokens=tokens)


@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        ([[0, 1], [6, 3]], 6),
        ([[0, 3], [6, 3]], 6),  # all three in one half, and none of them in the other
        ([[0, 0], [6, 3]], 6),
        ([[0, 3], [6, 6]], 6),  # at most 6 of 7 can be in this half
        ([[0, 0], [4, 4]], 4),
    ],
)
def test_possible_counts_of_a_half(counts: list[list[int]], tokens: int) -> None:
    with_half(counts, tokens).check()


@pytest.mark.parametrize(
    ("counts", "tokens", "reason"),
    [
        ([[0, 1], [7, 3]], 6, 6),  # more than the half has tokens
        ([[0, -1], [6, 3]], 6, 6),
        ([[0, 1], [5, 3]], 6, 4),  # the other half of 4 tokens would have 5 of the 10
        ([[1, 1], [6, 3]], 6, 4),  # and here less than none
        ([[0, 1], [6, 2]], 6, 4),  # 5 of the 7
        ([[0, 3], [10, 7]], 11, -1),  # a half of more tokens than there are
        ([[0, 3], [10, 7]], 0, 0),
        ([[0, 0], [0, 0]], -1, -1),
    ],
)
def test_impossible_counts_of_a_half(counts: list[list[int]], tokens: int, reason: int) -> None:
    """Whichever half is at fault, its number of tokens is named."""
    with pytest.raises(
        UserError, match=f"^the counts of a part of the windows are not possible for its {reason} tokens"
    ):
        with_half(counts, tokens).check()


def test_counts_are_checked_as_a_whole_first() -> None:
    counts = counts_with(tokens=9, half_over_zero=np.full((2, 2), 99), half_tokens=5)
    with pytest.raises(UserError, match="counts reach from 0 to 10 for 9 tokens"):
        counts.check()


def test_halves_by_hand() -> None:
    halves = with_half([[0, 1], [6, 3]], 6).halves()
    assert halves is not None
    assert [half.over_zero.tolist() for half in halves] == [[[0, 1], [6, 3]], [[0, 2], [4, 4]]]
    assert [half.tokens for half in halves] == [6, 4]
    for half in halves:
        half.check()
        assert half.over_zero.dtype == np.int64
        assert (half.activation_sum, half.product_sum, half.halves()) == (None, None, None)
    assert halves[0].probability().tolist() == np.array([[0, 1 / 6], [1, 0.5]], dtype=np.float32).tolist()


def test_halves_that_were_not_kept() -> None:
    assert counts_with().halves() is None
    assert counts_with(half_tokens=5).halves() is None
    counts_with(half_tokens=5).check()


def test_halves_of_large_counts() -> None:
    """Beyond int32 and the integers of float32."""
    large = 2**40 + 1
    counts = ActivationCounts(np.array([[2 * large]]), None, None, 2 * large, np.array([[large]]), large)
    counts.check()
    assert [half.over_zero.tolist() for half in counts.halves() or ()] == [[[large]], [[large]]]


def test_halves_joined_by_hand() -> None:
    first = counts_with()
    second = counts_with(
        over_zero=np.array([[4, 0], [1, 2]], dtype=np.int64),
        activation_sum=np.array([[1, 1], [0.5, -2]]),
        product_sum=np.array([[0, 0.25], [-1, 3]]),
        tokens=6,
    )
    joined = join_halves(first, second)
    joined.check()
    assert joined.over_zero.tolist() == [[4, 3], [11, 9]]
    assert joined.over_zero.dtype == np.int64
    assert joined.activation_sum is not None
    assert joined.activation_sum.tolist() == [[-0.5, 1.25], [3.5, 0]]
    assert joined.product_sum is not None
    assert joined.product_sum.tolist() == [[0.5, -1.75], [0, 3]]
    assert joined.tokens == 16
    halves = joined.halves()
    assert halves is not None
    for half, original in zip(halves, (first, second), strict=True):
        assert half.over_zero.tolist() == original.over_zero.tolist()
        assert half.tokens == original.tokens
    # Nothing was added up in place.
    assert first.over_zero.tolist() == counts_with().over_zero.tolist()
    assert first.activation_sum is not None
    assert first.activation_sum.tolist() == [[-1.5, 0.25], [3, 2]]


@pytest.mark.parametrize("name", ["activation_sum", "product_sum"])
@pytest.mark.parametrize("position", [0, 1])
def test_what_one_half_lacks_the_whole_lacks(name: str, position: int) -> None:
    halves = [counts_with(), counts_with()]
    halves[position] = counts_with(**{name: None})
    whole = join_halves(*halves)
    assert getattr(whole, name) is None
    other = {"activation_sum": "product_sum", "product_sum": "activation_sum"}[name]
    assert getattr(whole, other).tolist() == (2 * getattr(counts_with(), other)).tolist()
    assert whole.over_zero.tolist() == (2 * counts_with().over_zero).tolist()


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


# -- quarters ----------------------------------------------------------------------------------------------------------


def with_quarter(counts: list[list[int]], tokens: int) -> ActivationCounts:
    """Of the half [[0, 1], [6, 3]] on 6 tokens of the counts [[0, 3], [10, 7]] on 10, those of a quarter."""
    return counts_with(
        half_over_zero=np.array([[0, 1], [6, 3]], dtype=np.int64),
        half_tokens=6,
        quarter_over_zero=np.array(counts, dtype=np.int64),
        quarter_tokens=tokens,
    )


@pytest.mark.parametrize(
    ("counts", "tokens"), [([[0, 0], [3, 2]], 3), ([[0, 1], [3, 3]], 3), ([[0, 1], [5, 2]], 5), ([[0, 0], [1, 0]], 1)]
)
def test_possible_counts_of_a_quarter(counts: list[list[int]], tokens: int) -> None:
    with_quarter(counts, tokens).check()


@pytest.mark.parametrize(
    ("counts", "tokens", "reason"),
    [
        ([[0, 0], [4, 2]], 3, 3),  # more than the quarter has tokens
        ([[0, -1], [3, 2]], 3, 3),
        ([[0, 0], [2, 2]], 3, 3),  # the other quarter of 3 tokens would have 4 of the 6
        ([[1, 0], [3, 2]], 3, 3),  # and here less than none
        ([[0, 1], [6, 3]], 6, 0),  # all of the half
        ([[0, 1], [6, 3]], 7, -1),
        ([[0, 0], [0, 0]], 0, 0),
    ],
)
def test_impossible_counts_of_a_quarter(counts: list[list[int]], tokens: int, reason: int) -> None:
    with pytest.raises(
        UserError, match=f"^the counts of a part of the windows are not possible for its {reason} tokens"
    ):
        with_quarter(counts, tokens).check()


def test_the_shape_of_a_quarter() -> None:
    with pytest.raises(UserError, match=r"different shapes: \[\(2, 2\), \(2, 3\)\]"):
        counts_with(quarter_over_zero=np.zeros((2, 3), dtype=np.int64), quarter_tokens=3).check()


def test_budgets_by_hand() -> None:
    """What a quarter and half of the text would have given, the smaller first."""
    budgets = with_quarter([[0, 0], [3, 2]], 3).budgets()
    assert list(budgets) == ["1/4", "1/2"]
    assert {share: (part.over_zero.tolist(), part.tokens) for share, part in budgets.items()} == {
        "1/4": ([[0, 0], [3, 2]], 3),
        "1/2": ([[0, 1], [6, 3]], 6),
    }
    for part in budgets.values():
        part.check()
        assert (part.activation_sum, part.product_sum, part.hidden_sum) == (None, None, None)
        assert (part.halves(), part.budgets()) == (None, {})


def test_budgets_that_were_not_kept() -> None:
    assert counts_with().budgets() == {}
    assert list(with_half([[0, 1], [6, 3]], 6).budgets()) == ["1/2"]


def test_quarters_joined_by_hand() -> None:
    """As the script does: two quarters are a half; with the other half they are all."""
    parts = [
        counts_with(over_zero=np.array([[number, 0], [1, 2]], dtype=np.int64), tokens=4 + number) for number in range(3)
    ]
    half = join_halves(parts[0], parts[1])
    assert half.quarter_over_zero is None
    joined = join_halves(half, parts[2])
    joined.check()
    assert joined.over_zero.tolist() == [[3, 0], [3, 6]]
    assert joined.tokens == 4 + 5 + 6
    budgets = joined.budgets()
    assert (budgets["1/4"].over_zero.tolist(), budgets["1/4"].tokens) == ([[0, 0], [1, 2]], 4)
    assert (budgets["1/2"].over_zero.tolist(), budgets["1/2"].tokens) == ([[1, 0], [2, 4]], 9)
    halves = joined.halves()
    assert halves is not None
    assert (halves[1].over_zero.tolist(), halves[1].tokens) == ([[2, 0], [1, 2]], 6)
    # The parts of the second are of no half of the whole.
    turned = join_halves(parts[2], half)
    assert turned.quarter_over_zero is None
    assert list(turned.budgets()) == ["1/2"]


# -- hidden states -----------------------------------------------------------------------------------------------------


def test_hidden_states_of_another_width_than_the_neurons() -> None:
    counts_with(hidden_sum=np.array([[1.0, -2, 3], [0, 0, 1e300]])).check()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_hidden_states_that_are_not_finite(value: float) -> None:
    with pytest.raises(UserError, match=r"^hidden states are NaN or infinite\. .*dtype: bfloat16 or float32\.$"):
        counts_with(hidden_sum=np.array([[1, value, 0], [0, 0, 0]])).check()


def test_a_broken_neuron_is_named_before_the_hidden_states_that_it_breaks() -> None:
    with pytest.raises(UserError, match=r"NaN or infinite \(activation_sum\), first in layer 1, neuron 0"):
        counts_with(activation_sum=changed(np.nan), hidden_sum=np.full((2, 3), np.nan)).check()


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (2,), (2, 4, 1)])
def test_hidden_states_of_another_number_of_layers(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"hidden states have the shape .* but activations were counted in 2 layers"):
        counts_with(hidden_sum=np.zeros(shape)).check()


def test_hidden_states_joined_by_hand() -> None:
    first, second = (counts_with(hidden_sum=np.array([[1.0, 2, value], [0, 0, -value]])) for value in (3, 0.5))
    joined = join_halves(first, second)
    assert joined.hidden_sum is not None
    assert joined.hidden_sum.tolist() == [[2, 4, 3.5], [0, 0, -3.5]]
    assert first.hidden_sum is not None
    assert first.hidden_sum.tolist() == [[1, 2, 3], [0, 0, -3]]  # not in place
    for one, other in ((first, counts_with()), (counts_with(), first)):
        assert join_halves(one, other).hidden_sum is None  # a half of them would be no sum
