"""LAPE against hand-computed cases, a slow copy of the published algorithm and the published recordings."""

from __future__ import annotations

import math
import os
from pathlib import Path

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.lape import Selection, activation_entropy, entropy_with_bonus, rank_value, select

Row = tuple[str, int, int]

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", ROOT.parent / "shared" / "reference"))


def counts_of(over_zero: np.ndarray | list[list[int]], tokens: int) -> ActivationCounts:
    over_zero = np.asarray(over_zero, dtype=np.int64)
    return ActivationCounts(over_zero, np.zeros(over_zero.shape), np.zeros(over_zero.shape), tokens)


def rows_of(selection: Selection) -> list[Row]:
    return list(selection.table[["language", "layer", "neuron"]].itertuples(index=False, name=None))


# -- the rank --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 10, 99, 100, 1001])
def test_rank_value_is_torchs_kthvalue(size: int) -> None:
    values = np.random.default_rng(size).random(size, dtype=np.float32)
    expected = torch.tensor(values).kthvalue(round(0.95 * size)).values.item()
    assert rank_value(values, 0.95) == expected


def test_rank_value_with_ties_and_two_axes() -> None:
    # Ascending: 1 1 1 2 3 3. Rank round(0.5 * 6) = 3 is the last 1, rank round(0.7 * 6) = 4 is the 2.
    values = np.array([[3, 1, 1], [2, 3, 1]], dtype=np.float32)
    assert rank_value(values, 0.5) == 1
    assert rank_value(values, 0.7) == 2


def test_rank_is_at_least_the_first() -> None:
    # round(0.01 * 3) = 0 is no rank; torch would refuse it.
    assert rank_value(np.array([5.0, 4.0, 6.0], dtype=np.float32), 0.01) == 4


# -- entropy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("languages", [2, 3, 7])
def test_entropy_of_equal_probabilities_is_the_logarithm_of_their_number(languages: int) -> None:
    entropy = activation_entropy(np.full((languages, 1, 1), 0.25, dtype=np.float32))
    # 1e-15: a few roundings of float64, whose steps near 1 are 2e-16.
    assert entropy[0, 0] == pytest.approx(math.log(languages), abs=1e-15)


def test_entropy_of_one_active_language_is_zero() -> None:
    assert activation_entropy(np.array([0.0, 0.7, 0.0], dtype=np.float32).reshape(3, 1, 1))[0, 0] == 0


def test_entropy_of_a_neuron_that_is_never_active_is_zero_and_no_nan() -> None:
    assert activation_entropy(np.zeros((3, 2, 2), dtype=np.float32)).tolist() == [[0, 0], [0, 0]]


def test_entropy_by_hand() -> None:
    # p = 1/2, 1/4, 1/4 (all exact): H = 1/2 ln 2 + 2 * 1/4 ln 4 = 3/2 ln 2.
    probability = np.array([0.5, 0.25, 0.25], dtype=np.float32).reshape(3, 1, 1)
    assert activation_entropy(probability)[0, 0] == pytest.approx(1.5 * math.log(2), abs=1e-15)
    # Only the ratios of the probabilities count.
    assert activation_entropy(probability / 8)[0, 0] == activation_entropy(probability)[0, 0]


# -- selection by hand -----------------------------------------------------------------------------------------------

# One layer of five neurons, 100 tokens per language:
#     neuron      0    1    2    3    4
#     p of en    .9   .5   .1    0   .3
#     p of de    .1   .5   .8    0   .2
# All ten, ascending: 0 0 .1 .1 .2 .3 .5 .5 .8 .9.
FIVE = {"en": counts_of([[90, 50, 10, 0, 30]], 100), "de": counts_of([[10, 50, 80, 0, 20]], 100)}
# Entropies of neurons 0, 2, 4 and 1, ascending.
H0 = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)  # 0.325
H2 = -1 / 9 * math.log(1 / 9) - 8 / 9 * math.log(8 / 9)  # 0.349
H4 = -0.6 * math.log(0.6) - 0.4 * math.log(0.4)  # 0.673
H1 = math.log(2)  # 0.693


def test_bar_candidates_and_lowest_entropy_by_hand() -> None:
    # The bar is the value of rank round(0.7 * 10) = 7: .5. Above it are en's neuron 0 and de's neuron 2, not neuron 1,
    # whose .5 only equals it. round(0.2 * 5) = 1 neuron is wanted: 0, of the lower entropy.
    selection = select(FIVE, top_rate=0.2, activation_percentile=0.7)
    assert selection.activation_bar == 0.5
    assert selection.candidates == 2
    assert selection.requested == selection.selected == 1
    assert rows_of(selection) == [("en", 0, 0)]
    row = selection.table.iloc[0]
    # p is a float32 (steps of 6e-8 near 0.9), so H is as exact as that.
    assert row["entropy"] == pytest.approx(H0, abs=1e-7)
    assert row["probability"] == np.float32(90) / np.float32(100)
    # Per language, rank round(0.7 * 5) = 4 (3.5 is rounded to the even number): 0 .1 .3 [.5] .9 and 0 .1 .2 [.5] .8.
    assert selection.percentile_by_language == {"en": 0.5, "de": 0.5}


def test_a_neuron_of_several_languages_has_several_rows() -> None:
    # The bar is the value of rank round(0.5 * 10) = 5: .2. Above it: en's 0, 1, 4 and de's 1, 2. All four are wanted.
    selection = select(FIVE, top_rate=0.8, activation_percentile=0.5)
    assert selection.activation_bar == np.float32(0.2)
    assert (selection.candidates, selection.selected) == (4, 4)
    assert rows_of(selection) == [("en", 0, 0), ("en", 0, 1), ("en", 0, 4), ("de", 0, 1), ("de", 0, 2)]
    assert selection.table["entropy"].to_numpy() == pytest.approx([H0, H1, H4, H1, H2], abs=1e-7)
    assert selection.table["probability"].tolist() == np.float32([0.9, 0.5, 0.3, 0.5, 0.8]).tolist()


def test_the_highest_entropy_is_left_out_first() -> None:
    # As above, but round(0.6 * 5) = 3: neuron 1, of entropy ln 2, is out, in both languages.
    assert rows_of(select(FIVE, 0.6, 0.5)) == [("en", 0, 0), ("en", 0, 4), ("de", 0, 2)]


def test_a_neuron_that_is_never_active_is_dropped_in_spite_of_its_zero_entropy() -> None:
    selection = select(FIVE, top_rate=0.99, activation_percentile=0.01)
    assert selection.activation_bar == 0
    assert selection.candidates == 4
    assert 3 not in selection.table["neuron"].tolist()


def test_more_requested_than_candidates() -> None:
    selection = select(FIVE, top_rate=0.99, activation_percentile=0.7)
    assert (selection.requested, selection.candidates, selection.selected) == (5, 2, 2)
    assert rows_of(selection) == [("en", 0, 0), ("de", 0, 2)]


def test_nothing_requested() -> None:
    selection = select(FIVE, top_rate=0.01, activation_percentile=0.7)  # round(0.05) = 0
    assert rows_of(selection) == []
    assert selection.summary()["count_by_language"] == {"en": 0, "de": 0}
    assert selection.summary()["entropy_min"] is None
    assert str(selection.table["language"].dtype) == "str"


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.25, [(0, 0)]), (0.5, [(0, 0), (0, 1)]), (0.75, [(0, 0), (0, 1), (1, 0)])]
)
def test_ties_are_resolved_by_layer_then_neuron(rate: float, expected: list[tuple[int, int]]) -> None:
    # Four neurons of equal entropy, the languages swapped in half of them: all exceed the bar .1 (rank 4 of 8).
    counts = {"en": counts_of([[9, 1], [1, 9]], 10), "de": counts_of([[1, 9], [9, 1]], 10)}
    for _ in range(3):
        table = select(counts, rate, 0.5).table
        assert sorted(table[["layer", "neuron"]].itertuples(index=False, name=None)) == expected


def test_summary_by_hand() -> None:
    summary = select(FIVE, top_rate=0.6, activation_percentile=0.5).summary()
    # Per language, rank round(0.5 * 5) = 2 (2.5 is rounded to the even number): 0 [.1] .3 .5 .9 and 0 [.1] .2 .5 .8.
    tenth = float(np.float32(0.1))
    assert summary["percentile_by_language"] == {"en": tenth, "de": tenth}
    assert summary["count_by_language"] == {"en": 2, "de": 1}
    assert summary["activation_bar"] == float(np.float32(0.2))
    assert (summary["candidates"], summary["requested"], summary["selected"]) == (4, 3, 3)
    assert (summary["entropy_min"], summary["entropy_max"]) == (
        pytest.approx(H0, abs=1e-7),
        pytest.approx(H4, abs=1e-7),
    )


def test_languages_may_have_different_numbers_of_tokens() -> None:
    # The same probabilities as FIVE, from ten times the German tokens.
    more = {"en": FIVE["en"], "de": counts_of([[100, 500, 800, 0, 200]], 1000)}
    pd.testing.assert_frame_equal(select(more, 0.6, 0.5).table, select(FIVE, 0.6, 0.5).table)


@pytest.mark.parametrize("languages", [[], ["en"]])
def test_one_language_is_refused_because_its_entropy_is_zero(languages: list[str]) -> None:
    with pytest.raises(UserError, match="entropy") as caught:
        select({language: FIVE[language] for language in languages}, 0.2, 0.7)
    assert f"was given {len(languages)}" in str(caught.value)
    assert "at least two" in str(caught.value)


def test_recordings_of_two_models_are_refused() -> None:
    counts = {"en": counts_of([[1, 2]], 10), "de": counts_of([[1], [2]], 10)}
    with pytest.raises(UserError, match=r"do not belong to one model.*'en': \(1, 2\), 'de': \(2, 1\)"):
        select(counts, 0.2, 0.7)


# -- against a slow copy of the published algorithm ------------------------------------------------------------------


def published(
    over_zero: dict[str, list[list[int]]], tokens: dict[str, int], top_rate: float, bar_rate: float
) -> list[Row]:
    """The published algorithm (RUCAIBox/Language-Specific-Neurons, identify.py), one neuron at a time."""
    languages = list(over_zero)
    shape = (len(over_zero[languages[0]]), len(over_zero[languages[0]][0]))
    positions = [(layer, neuron) for layer in range(shape[0]) for neuron in range(shape[1])]
    probability = {
        (layer, neuron): [
            (torch.tensor(over_zero[language][layer][neuron], dtype=torch.int32) / tokens[language]).item()
            for language in languages
        ]
        for layer, neuron in positions
    }
    flat = torch.tensor([value for position in positions for value in probability[position]], dtype=torch.float32)
    bar = flat.kthvalue(round(len(flat) * bar_rate)).values.item()
    entropies = {}
    for position in positions:
        total = sum(probability[position])
        shares = [value / total if total > 0 else 0 for value in probability[position]]
        entropies[position] = -sum(share * math.log(share) for share in shares if share > 0)
        if not any(value > bar for value in probability[position]):
            entropies[position] = math.inf
    lowest = sorted(positions, key=lambda position: (entropies[position], position))[: round(len(positions) * top_rate)]
    return [
        (language, layer, neuron)
        for index, language in enumerate(languages)
        for layer, neuron in sorted(lowest)
        if probability[layer, neuron][index] > bar
    ]


@pytest.mark.parametrize("case", range(12))
def test_equals_the_published_algorithm_on_random_data(case: int) -> None:
    generator = np.random.default_rng(case)
    languages = ["en", "de", "tr", "fr"][: 2 + case % 3]
    shape = tuple(generator.integers(5, 30, size=2))
    # Of about 100,000 tokens, skewed towards rare activation as in real models, some neurons never active. Two neurons
    # of equal entropy are then unlikely, and these seeds have none, so the order of summation decides nothing.
    tokens = {language: int(generator.integers(90_000, 110_000)) for language in languages}
    over_zero = {
        language: (generator.beta(0.5, 2, size=shape) * tokens[language] * (generator.random(shape) > 0.1)).astype(int)
        for language in languages
    }
    counts = {language: counts_of(over_zero[language], tokens[language]) for language in languages}
    top_rate, bar_rate = float(generator.uniform(0.01, 0.2)), float(generator.uniform(0.6, 0.97))
    expected = published({name: value.tolist() for name, value in over_zero.items()}, tokens, top_rate, bar_rate)
    assert expected
    assert rows_of(select(counts, top_rate, bar_rate)) == expected


# -- properties ------------------------------------------------------------------------------------------------------

TOKENS = 12  # few, so that equal probabilities and equal entropies are common


@st.composite
def recordings(draw: st.DrawFn) -> dict[str, ActivationCounts]:
    shape = (draw(st.integers(2, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 8)))
    over_zero = draw(arrays_of.arrays(np.int64, shape, elements=st.integers(0, TOKENS)))
    return {name: counts_of(array, TOKENS) for name, array in zip(("en", "de", "tr", "fr"), over_zero, strict=False)}


RATES = st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.75, 0.95])


@given(counts=recordings(), top_rate=RATES, percentile=RATES, data=st.data())
def test_the_order_of_languages_only_orders_the_rows(
    counts: dict[str, ActivationCounts], top_rate: float, percentile: float, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(list(counts)))
    one = select(counts, top_rate, percentile)
    other = select({language: counts[language] for language in order}, top_rate, percentile)
    keys = ["language", "layer", "neuron"]
    pd.testing.assert_frame_equal(
        one.table.sort_values(keys, ignore_index=True),
        other.table.sort_values(keys, ignore_index=True),
        check_exact=True,
    )
    assert (one.activation_bar, one.candidates, one.selected) == (
        other.activation_bar,
        other.candidates,
        other.selected,
    )


@given(counts=recordings(), top_rate=RATES, percentile=RATES, data=st.data())
def test_permuting_the_neurons_of_a_layer_permutes_the_selection(
    counts: dict[str, ActivationCounts], top_rate: float, percentile: float, data: st.DataObject
) -> None:
    first = next(iter(counts.values()))
    layers, neurons = first.over_zero.shape
    entropies = activation_entropy(np.stack([one.probability() for one in counts.values()]))
    assume(len(np.unique(entropies)) == entropies.size)  # ties are resolved by position, which moves
    order = np.array([data.draw(st.permutations(range(neurons))) for _ in range(layers)])  # new position -> old one
    permuted = {
        language: counts_of(np.take_along_axis(one.over_zero, order, axis=1), TOKENS)
        for language, one in counts.items()
    }
    back = [
        (language, layer, int(order[layer, neuron]))
        for language, layer, neuron in rows_of(select(permuted, top_rate, percentile))
    ]
    assert sorted(back) == sorted(rows_of(select(counts, top_rate, percentile)))


@given(counts=recordings(), top_rate=RATES, percentile=RATES)
def test_what_is_selected(counts: dict[str, ActivationCounts], top_rate: float, percentile: float) -> None:
    selection = select(counts, top_rate, percentile)
    probability = np.stack([one.probability() for one in counts.values()])
    entropies = activation_entropy(probability)
    candidate = probability.max(axis=0) > np.float32(selection.activation_bar)
    chosen = np.zeros(candidate.shape, dtype=bool)
    chosen[selection.table["layer"], selection.table["neuron"]] = True

    assert (selection.table["probability"] > selection.activation_bar).all()
    assert not (chosen & ~candidate).any()
    assert selection.candidates == candidate.sum()
    assert selection.requested == round(top_rate * candidate.size)
    assert selection.selected == chosen.sum() == min(selection.requested, selection.candidates)
    if chosen.any() and (candidate & ~chosen).any():
        assert entropies[chosen].max() <= entropies[candidate & ~chosen].min()
    # Every language above the bar owns the neuron, and no other does.
    owners = probability > np.float32(selection.activation_bar)
    assert len(selection.table) == (owners & chosen).sum()
    assert not selection.table.duplicated(["language", "layer", "neuron"]).any()


# -- a bonus for strong activation -----------------------------------------------------------------------------------


def test_bonus_by_hand() -> None:
    # p = 1/2, 1/4, 1/4: H = 3/2 ln 2, and H_3 / 3 = (1 + 1/2 + 1/3) / 3 = 11/18. With bonus 1/2:
    # H / ln 3 - 1/2 * 1/2 * 18/11 = 0.5373.
    probability = np.array([0.5, 0.25, 0.25], dtype=np.float32).reshape(3, 1, 1)
    score = entropy_with_bonus(probability, 0.5)[0, 0] / math.log(3)
    assert score == pytest.approx(1.5 * math.log(2) / math.log(3) - 0.25 * 18 / 11, abs=1e-15)
    assert score == pytest.approx(0.5373, abs=5e-5)
    # Unlike the entropy, it falls with the strength of the activation: a quarter of it gives a quarter of the bonus.
    weak = entropy_with_bonus(probability / 4, 0.5)[0, 0] / math.log(3)
    assert weak == pytest.approx(1.5 * math.log(2) / math.log(3) - 0.25 / 4 * 18 / 11, abs=1e-15)


def test_the_bonus_reorders_candidates() -> None:
    # Of FIVE above the bar .2: neurons 0, 1, 2, 4 with the largest p .9, .5, .8, .3, so H / ln 2 - p / (3/4) is lowest
    # in 0 (-.73), then 2 (-.56), then 1 (1 - .67 = .33), then 4 (.97 - .4 = .57); without a bonus 4 is before 1.
    selection = select(FIVE, top_rate=0.6, activation_percentile=0.5, bonus=1.0)
    assert rows_of(selection) == [("en", 0, 0), ("en", 0, 1), ("de", 0, 1), ("de", 0, 2)]
    scores = [H0 / math.log(2) - 0.9 * 4 / 3, 1 - 0.5 * 4 / 3, 1 - 0.5 * 4 / 3, H2 / math.log(2) - 0.8 * 4 / 3]
    # p is a float32, as above.
    assert selection.table["score"].to_numpy() == pytest.approx(scores, abs=1e-6)
    assert (selection.candidates, selection.requested, selection.selected) == (4, 3, 3)


@given(counts=recordings(), top_rate=RATES, percentile=RATES)
def test_no_bonus_is_lape(counts: dict[str, ActivationCounts], top_rate: float, percentile: float) -> None:
    with_none, plain = select(counts, top_rate, percentile, bonus=0.0), select(counts, top_rate, percentile)
    assert "score" not in plain.table
    pd.testing.assert_frame_equal(with_none.table.drop(columns="score"), plain.table, check_exact=True)
    assert with_none.summary() == plain.summary()
    scores = plain.table["entropy"].to_numpy() / math.log(len(counts))
    assert with_none.table["score"].tolist() == scores.tolist()


@given(counts=recordings(), top_rate=RATES, percentile=RATES, bonus=st.sampled_from([0.1, 0.5, 2.0]))
def test_the_bonus_keeps_candidates_number_and_owners(
    counts: dict[str, ActivationCounts], top_rate: float, percentile: float, bonus: float
) -> None:
    one, plain = select(counts, top_rate, percentile, bonus), select(counts, top_rate, percentile)
    assert (one.activation_bar, one.candidates, one.requested, one.selected) == (
        plain.activation_bar,
        plain.candidates,
        plain.requested,
        plain.selected,
    )
    assert (one.table["probability"] > one.activation_bar).all()
    reverse = select(dict(reversed(counts.items())), top_rate, percentile, bonus)
    assert sorted(rows_of(reverse)) == sorted(rows_of(one))


# -- the published recordings ----------------------------------------------------------------------------------------


def test_published_recordings(llama: dict[str, ActivationCounts]) -> None:
    assert {one.over_zero.shape for one in llama.values()} == {(32, 11008)}
    selection = select(llama, top_rate=0.01, activation_percentile=0.95)
    summary = selection.summary()
    # Half a unit of the last published digit, or better.
    assert summary["activation_bar"] == pytest.approx(0.6512024, abs=1e-7)
    assert summary["count_by_language"] == {"en": 80, "de": 1186, "tr": 2387}
    assert summary["selected"] == summary["requested"] == 3523
    assert summary["entropy_min"] == pytest.approx(0.0416363, abs=1e-7)
    assert summary["entropy_max"] == pytest.approx(0.9579644, abs=1e-7)
    expected = {"en": 0.5280590057, "de": 0.6435436010, "tr": 0.7302824855}
    assert summary["percentile_by_language"] == pytest.approx(expected, abs=1e-9)


def test_published_recordings_give_the_same_neurons_in_float32(llama: dict[str, ActivationCounts]) -> None:
    """The published code computes the entropy in float32; the selected neurons are the same."""
    probability = torch.tensor(np.stack([one.probability() for one in llama.values()], axis=-1))
    share = probability / probability.sum(dim=-1, keepdim=True)
    share[share.isnan()] = 0
    entropy = -(share * torch.where(share > 0, share.log(), 0)).sum(dim=-1)
    flat = probability.flatten()
    bar = flat.kthvalue(round(len(flat) * 0.95)).values.item()
    entropy[(probability > bar).sum(dim=-1) == 0] = torch.inf
    index = entropy.flatten().topk(round(entropy.numel() * 0.01), largest=False).indices.numpy()
    table = select(llama, 0.01, 0.95).table
    assert set(table["layer"] * 11008 + table["neuron"]) == set(index)


def test_published_recordings_without_a_bonus(llama: dict[str, ActivationCounts]) -> None:
    with_none, plain = select(llama, 0.01, 0.95, bonus=0.0), select(llama, 0.01, 0.95)
    pd.testing.assert_frame_equal(with_none.table.drop(columns="score"), plain.table, check_exact=True)
