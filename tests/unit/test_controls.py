"""Random control neurons and directions: matched, disjoint, reproducible, uniform."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from langneurons.errors import UserError
from langneurons.neurons.controls import draw_as_active, draw_direction, draw_random

LAYERS, NEURONS = 4, 40


def neurons_of(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["language", "layer", "neuron"]).astype({"layer": np.int64, "neuron": np.int64})


# en: 3 neurons in layer 0, 1 in layer 2; de: 2 in layer 0 (one shared with en), 4 in layer 3; nothing in layer 1.
SELECTED = neurons_of(
    [("en", layer, neuron) for layer, neuron in ((0, 1), (0, 5), (0, 9), (2, 0))]
    + [("de", layer, neuron) for layer, neuron in ((0, 5), (0, 7), (3, 10), (3, 11), (3, 12), (3, 39))]
)


def drawn(language: str = "en", draw: int = 1, seed: int = 0) -> list[tuple[int, int]]:
    layers, neurons = draw_random(SELECTED, language, draw, LAYERS, NEURONS, seed)
    return list(zip(layers.tolist(), neurons.tolist(), strict=True))


@pytest.mark.parametrize(("language", "expected"), [("en", [3, 0, 1, 0]), ("de", [2, 0, 0, 4])])
def test_as_many_per_layer_as_the_language_has(language: str, expected: list[int]) -> None:
    layers, neurons = draw_random(SELECTED, language, 1, LAYERS, NEURONS, seed=0)
    assert np.bincount(layers, minlength=LAYERS).tolist() == expected
    assert layers.dtype == neurons.dtype == np.int64


def test_draws_are_sorted_within_the_model_and_without_repetition() -> None:
    for draw in range(1, 51):
        one = drawn("de", draw)
        assert one == sorted(set(one))
        assert all(0 <= layer < LAYERS and 0 <= neuron < NEURONS for layer, neuron in one)


def test_outside_every_languages_set() -> None:
    taken = set(SELECTED[["layer", "neuron"]].itertuples(index=False, name=None))
    for draw in range(1, 51):
        assert not taken & set(drawn("en", draw))


def test_reproducible_and_different_by_draw_seed_and_language() -> None:
    assert drawn("de", 1, 0) == drawn("de", 1, 0)
    assert drawn("de", 1, 0) != drawn("de", 2, 0)
    assert drawn("de", 1, 0) != drawn("de", 1, 1)
    same = pd.concat([SELECTED, SELECTED.loc[SELECTED["language"] == "de"].assign(language="tr")])
    german, turkish = (draw_random(same, language, 1, LAYERS, NEURONS, 0) for language in ("de", "tr"))
    assert german[0].tolist() == turkish[0].tolist()
    assert german[1].tolist() != turkish[1].tolist()


def test_the_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    shuffled = SELECTED.sample(frac=1, random_state=1)
    layers, neurons = draw_random(shuffled, "de", 1, LAYERS, NEURONS, 0)
    assert list(zip(layers.tolist(), neurons.tolist(), strict=True)) == drawn("de")


def test_uniform_over_the_free_neurons() -> None:
    # 16 neurons, 4 taken: 3 of 12 free ones are drawn, 800 times, so each is expected 200 times.
    selected = neurons_of([("en", 0, 0), ("en", 0, 6), ("en", 0, 15), ("de", 0, 3)])
    counts = np.zeros(16)
    for draw in range(1, 801):
        counts[draw_random(selected, "en", draw, 1, 16, seed=0)[1]] += 1
    assert counts[[0, 3, 6, 15]].tolist() == [0, 0, 0, 0]
    free = np.delete(counts, [0, 3, 6, 15])
    # Without replacement a count has the variance 800 * 1/4 * 3/4 and two have the correlation -1/11, so this sum
    # follows chi-square with 11 degrees of freedom. The draws are seeded: the limit, exceeded once in 10,000 seeds,
    # either always holds or never does. A neuron drawn twice as often as others would give more than 200; the limit
    # is 37.
    statistic = ((free - 200) ** 2).sum() / (800 * 0.25 * 0.75 * 12 / 11)
    assert statistic < stats.chi2.ppf(1 - 1e-4, df=11)
    assert statistic > stats.chi2.ppf(1e-4, df=11)  # as even as that is no chance either


def test_too_few_free_neurons() -> None:
    # Layer 1 has 5 neurons, 3 of them taken: 2 are free, and English needs 3.
    selected = neurons_of([("en", 1, 0), ("en", 1, 1), ("en", 1, 2), ("de", 1, 2)])
    with pytest.raises(UserError, match=r"layer 1 has 2 neurons outside .* language 'en' needs 3.*top_rate"):
        draw_random(selected, "en", 1, 2, 5, seed=0)
    assert draw_random(selected, "de", 1, 2, 5, seed=0)[1].size == 1


def test_all_free_neurons_can_be_needed() -> None:
    selected = neurons_of([("en", 0, 1), ("en", 0, 3)])
    assert draw_random(selected, "en", 1, 1, 4, seed=0)[1].tolist() == [0, 2]


@pytest.mark.parametrize("selected", [SELECTED, SELECTED.iloc[:0]])
def test_a_language_without_neurons_has_an_empty_control(selected: pd.DataFrame) -> None:
    layers, neurons = draw_random(selected, "tr", 1, LAYERS, NEURONS, seed=0)
    assert layers.tolist() == neurons.tolist() == []
    assert layers.dtype == neurons.dtype == np.int64


@given(
    rows=st.sets(
        st.tuples(st.sampled_from(["en", "de"]), st.integers(0, 2), st.integers(0, 19)), min_size=1, max_size=12
    ),
    draw=st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_matched_and_disjoint_for_any_selection(rows: set[tuple[str, int, int]], draw: int, seed: int) -> None:
    selected = neurons_of(sorted(rows))
    own = [layer for language, layer, _ in rows if language == "en"]
    taken = {(layer, neuron) for _, layer, neuron in rows}
    wanted = np.bincount(own, minlength=3)
    free = 20 - np.bincount([layer for layer, _ in taken], minlength=3)
    if (wanted > free).any():
        with pytest.raises(UserError, match="neurons outside every language's set"):
            draw_random(selected, "en", draw, 3, 20, seed)
        return
    layers, neurons = draw_random(selected, "en", draw, 3, 20, seed)
    assert np.bincount(layers, minlength=3).tolist() == wanted.tolist()
    assert not taken & set(zip(layers.tolist(), neurons.tolist(), strict=True))


# -- as often active ---------------------------------------------------------------------------------------------------

PROBABILITY = np.random.default_rng(5).permuted(np.tile(np.linspace(0, 1, NEURONS), (LAYERS, 1)), axis=1)
"""Every layer has the same probabilities, each once, at other neurons."""


def drawn_as_active(
    language: str = "en", draw: int = 1, nearest: int = 3, seed: int = 0, selected: pd.DataFrame = SELECTED
) -> list[tuple[int, int]]:
    layers, neurons = draw_as_active(selected, language, draw, PROBABILITY, nearest, seed)
    assert layers.dtype == neurons.dtype == np.int64
    return list(zip(layers.tolist(), neurons.tolist(), strict=True))


@pytest.mark.parametrize(("language", "expected"), [("en", [3, 0, 1, 0]), ("de", [2, 0, 0, 4]), ("tr", [0, 0, 0, 0])])
@pytest.mark.parametrize("nearest", [1, 5, 35])
def test_as_active_as_many_per_layer_as_the_language_has(language: str, expected: list[int], nearest: int) -> None:
    layers = [layer for layer, _ in drawn_as_active(language, nearest=nearest)]
    assert np.bincount(np.array(layers, dtype=np.int64), minlength=LAYERS).tolist() == expected


@pytest.mark.parametrize("nearest", [1, 2, 8])
def test_as_active_outside_all_sets_sorted_and_no_neuron_twice(nearest: int) -> None:
    taken = set(SELECTED[["layer", "neuron"]].itertuples(index=False, name=None))
    for draw in range(1, 51):
        one = drawn_as_active("de", draw, nearest)
        assert one == sorted(set(one))
        assert len(one) == 6
        assert not taken & set(one)
        assert all(0 <= layer < LAYERS and 0 <= neuron < NEURONS for layer, neuron in one)


def test_the_nearest_free_neuron_by_hand() -> None:
    """Neuron 2 is at 0.5; nearest are 4 (English, too), 0 (German), then 3, at 0.44, and 5, at 0.57."""
    probability = np.array([[0.52, 0.9, 0.5, 0.44, 0.49, 0.57, 0.1, 0.3]])
    selected = neurons_of([("en", 0, 2), ("de", 0, 0)])
    for draw in range(1, 20):
        assert draw_as_active(selected, "en", draw, probability, 1, seed=0)[1].tolist() == [4]
    both = neurons_of([("en", 0, 2), ("en", 0, 4), ("de", 0, 0)])
    for draw in range(1, 20):  # whichever is first, 0.5 and 0.49 both have 3 nearest; the other gets what is left
        found = draw_as_active(both, "en", draw, probability, 1, seed=0)[1].tolist()
        assert found == [3, 5]


def test_one_of_several_nearest_equally_often() -> None:
    # 0.5 has the neighbours 1 (0.45), 2 (0.6) and 3 (0.35); of 900 draws each is expected 300 times.
    probability = np.array([[0.5, 0.45, 0.6, 0.35, 0.8, 0.0]])
    selected = neurons_of([("en", 0, 0)])
    found = [int(draw_as_active(selected, "en", draw, probability, 3, seed=0)[1][0]) for draw in range(1, 901)]
    counts = np.bincount(found, minlength=6)
    assert counts[[0, 4, 5]].tolist() == [0, 0, 0]
    # Two degrees of freedom; exceeded once in 10,000 seeds, and the draws are seeded.
    assert stats.chisquare(counts[1:4]).pvalue > 1e-4


def test_ties_are_drawn_from_in_the_order_of_neurons() -> None:
    """Most neurons of a real layer may have one probability, such as 0."""
    probability = np.zeros((1, 10))
    selected = neurons_of([("en", 0, 0), ("en", 0, 5)])
    found = {
        int(neuron)
        for draw in range(1, 60)
        for neuron in draw_as_active(selected, "en", draw, probability, 2, seed=0)[1]
    }
    assert found == {1, 2, 3}  # the first neuron draws from 1 and 2, the second from those left of 1, 2 and 3


def test_much_closer_in_probability_than_a_draw_by_layer() -> None:
    """Selected neurons are active rarely on average, or, as here, often; a draw by layer is not."""
    generator = np.random.default_rng(1)
    layers, neurons = 6, 400
    probability = generator.beta(0.5, 3, (layers, neurons))  # mean 1 / 7
    often = np.argsort(-probability, axis=1)
    # For either language 15 of the 80 most active neurons of each layer: 65 as active ones are free.
    selected = neurons_of(
        [
            (language, layer, int(neuron))
            for layer in range(layers)
            for language in ("en", "de")
            for neuron in generator.choice(often[layer, :80], 15, replace=False)
        ]
    )
    own = selected[selected["language"] == "en"]
    target = probability[own["layer"], own["neuron"]]
    gaps: dict[str, list[float]] = {"activity": [], "layer": []}
    for draw in range(1, 21):
        as_active = draw_as_active(selected, "en", draw, probability, 5, seed=0)
        by_layer = draw_random(selected, "en", draw, layers, neurons, seed=0)
        gaps["activity"].append(probability[as_active].mean() - target.mean())
        gaps["layer"].append(probability[by_layer].mean() - target.mean())
    # A draw by layer has about the mean of all, 1 / 7, instead of about 0.4. Of the free neurons about one in six is
    # among the most active, so the nearest five span about 0.03 of probability.
    assert target.mean() > 0.35
    assert max(gaps["layer"]) < -0.2
    assert np.abs(gaps["activity"]).max() < 0.03


def test_a_larger_number_of_nearest_is_less_close() -> None:
    distances = []
    for nearest in (1, 5, 30):
        gaps = []
        for draw in range(1, 41):
            for layer in (0, 2):
                own = SELECTED.loc[(SELECTED["language"] == "en") & (SELECTED["layer"] == layer), "neuron"]
                chosen = [neuron for place, neuron in drawn_as_active("en", draw, nearest) if place == layer]
                # Sorted, both sides are paired in the best way.
                gaps.append(np.abs(np.sort(PROBABILITY[layer, own]) - np.sort(PROBABILITY[layer, chosen])).mean())
        distances.append(np.mean(gaps))
    # Free neighbours are 1/39 or 2/39 away; five span about 0.1, and of 30 free neurons most are far away.
    assert distances[0] < 0.05 < distances[1] < 0.1 < distances[2]


def test_as_active_reproducible_and_different_by_draw_seed_and_language() -> None:
    first = drawn_as_active("de", 1, 10, 0)
    assert first == drawn_as_active("de", 1, 10, 0)
    assert first == drawn_as_active("de", 1, 10, 0, SELECTED.sample(frac=1, random_state=1))
    assert first != drawn_as_active("de", 2, 10, 0)
    assert first != drawn_as_active("de", 1, 10, 1)
    same = pd.concat([SELECTED, SELECTED.loc[SELECTED["language"] == "de"].assign(language="tr")])
    assert drawn_as_active("de", 1, 10, 0, same) != drawn_as_active("tr", 1, 10, 0, same)


def test_more_nearest_than_a_layer_has_free() -> None:
    # Layer 0 has 40 neurons; 1, 5, 7 and 9 are taken: 36 are free.
    assert len(drawn_as_active("en", nearest=36)) == 4
    with pytest.raises(UserError) as caught:
        drawn_as_active("en", nearest=37)
    assert str(caught.value) == (
        "layer 0 has 36 neurons outside every language's set, but the activity control of language 'en' is to choose "
        "among the 37 nearest. Lower 'nearest' of the variant."
    )
    # German has neurons in layers 0 and 3, both with 36 free ones; Turkish has none, so nothing is asked for.
    assert drawn_as_active("tr", nearest=99) == []


def test_the_last_neurons_are_drawn_from_fewer_than_the_nearest() -> None:
    selected = neurons_of([("en", 0, 1), ("en", 0, 3)])
    for draw in range(1, 9):
        assert draw_as_active(selected, "en", draw, np.zeros((1, 4)), 2, seed=0)[1].tolist() == [0, 2]


def test_too_few_free_neurons_as_active() -> None:
    selected = neurons_of([("en", 1, 0), ("en", 1, 1), ("en", 1, 2), ("de", 1, 2)])
    with pytest.raises(UserError, match=r"layer 1 has 2 neurons outside .* language 'en' needs 3.*top_rate"):
        draw_as_active(selected, "en", 1, np.zeros((2, 5)), 1, seed=0)


# -- directions --------------------------------------------------------------------------------------------------------


def test_a_direction_is_as_long_and_reproducible() -> None:
    vector = np.array([3.0, 0, 0, -4])
    found = draw_direction(vector, "en", 1, 1, seed=0)
    assert found.shape == (4,)
    assert found.dtype == np.float64
    assert np.linalg.norm(found) == pytest.approx(5, rel=1e-14)  # float64: some roundings of a sum of squares
    assert found.tolist() == draw_direction(vector, "en", 1, 1, seed=0).tolist()
    # Twice as long a vector, in any direction, gives the same direction, twice as long.
    assert draw_direction(np.array([0, 10.0, 0, 0]), "en", 1, 1, 0) == pytest.approx(2 * found, rel=1e-14)
    others = [("de", 1, 1, 0), ("en", 2, 1, 0), ("en", 1, 2, 0), ("en", 1, 1, 1)]
    for language, layer, draw, seed in others:
        assert not np.allclose(found, draw_direction(vector, language, layer, draw, seed), atol=0.1)


def test_directions_are_uniform() -> None:
    """Over 2,000 draws in 3 dimensions the mean direction is 0 and every square is 1/3."""
    found = np.array([draw_direction(np.array([0, 0, 1.0]), "en", 0, draw, 0) for draw in range(1, 2001)])
    # Standard errors: sqrt(1/3 / 2000) = 0.013, and sqrt(4/45 / 2000) = 0.0067; seeded, so five of them hold for good.
    assert np.abs(found.mean(axis=0)).max() < 0.065
    assert np.abs((found**2).mean(axis=0) - 1 / 3).max() < 0.034


def test_no_shift_has_no_direction() -> None:
    assert draw_direction(np.zeros(3), "en", 0, 1, 0).tolist() == [0, 0, 0]
