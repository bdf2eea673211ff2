"""Shared neurons of methods, and what chance gives."""

from __future__ import annotations

from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from langneurons.errors import UserError
from langneurons.neurons.convergence import convergence

LAYERS, NEURONS = 3, 10


def neurons_of(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["language", "layer", "neuron"]).astype({"layer": np.int64, "neuron": np.int64})


# en: in layer 0 lape has 0-3, probe 2-5 (shared 2, 3); in layer 1 lape has 7, probe none; nothing in layer 2.
LAPE = neurons_of([("en", 0, neuron) for neuron in range(4)] + [("en", 1, 7), ("de", 2, 0)])
PROBE = neurons_of([("en", 0, neuron) for neuron in (5, 4, 3, 2)] + [("de", 2, 0), ("fr", 0, 0)])
TABLE = convergence({"lape": LAPE, "probe": PROBE}, ["en", "de", "fr"], LAYERS, NEURONS)


def row(language: str, layer: int | None) -> pd.Series:
    own = TABLE[TABLE["language"] == language]
    return own[own["layer"].isna() if layer is None else own["layer"] == layer].iloc[0]


def test_columns_and_rows() -> None:
    keys = ["method", "other_method", "language", "layer"]
    measures = ["neurons", "other_neurons", "shared", "jaccard", "expected", "p_value"]
    assert TABLE.columns.tolist() == keys + measures
    assert TABLE["language"].tolist() == ["en"] * 4 + ["de"] * 4 + ["fr"] * 4
    assert TABLE["layer"].tolist() == [0, 1, 2, pd.NA] * 3
    assert str(TABLE["layer"].dtype) == "Int64"
    assert set(zip(TABLE["method"], TABLE["other_method"], strict=True)) == {("lape", "probe")}


def test_a_layer_by_hand() -> None:
    found = row("en", 0)
    assert (found["neurons"], found["other_neurons"], found["shared"]) == (4, 4, 2)
    assert found["jaccard"] == 2 / 6
    assert found["expected"] == 4 * 4 / 10
    # Of the 210 ways to draw 4 of 10, those with 2, 3 or 4 of the other 4.
    ways = sum(comb(4, shared) * comb(6, 4 - shared) for shared in (2, 3, 4))
    assert found["p_value"] == pytest.approx(ways / comb(10, 4), rel=1e-12)


def test_all_layers_are_drawn_over_the_whole_model() -> None:
    found = row("en", None)
    assert (found["neurons"], found["other_neurons"], found["shared"]) == (5, 4, 2)
    assert found["jaccard"] == 2 / 7
    assert found["expected"] == 5 * 4 / 30
    ways = sum(comb(5, shared) * comb(25, 4 - shared) for shared in (2, 3, 4))
    assert found["p_value"] == pytest.approx(ways / comb(30, 4), rel=1e-12)


def test_sets_of_one_neuron_and_empty_sets() -> None:
    # One of 10 hits a given one of 10 with probability 1/10; over all layers 1/30.
    assert row("de", 2)["p_value"] == pytest.approx(1 / 10, rel=1e-12)
    assert row("de", None)["p_value"] == pytest.approx(1 / 30, rel=1e-12)
    for language, layer in (("en", 1), ("fr", 0), ("fr", None)):  # one of both is empty: sharing none is certain
        found = row(language, layer)
        assert (found["shared"], found["jaccard"], found["expected"], found["p_value"]) == (0, 0, 0, 1)
    both_empty = row("en", 2)
    assert np.isnan(both_empty["jaccard"])
    assert (both_empty["expected"], both_empty["p_value"]) == (0, 1)


def test_is_scipys_hypergeometric_at_the_size_of_a_model() -> None:
    generator = np.random.default_rng(0)
    shape = (4, 11008)

    def draw() -> pd.DataFrame:
        layer, neuron = np.unravel_index(generator.choice(4 * 11008, 900, replace=False), shape)
        return pd.DataFrame({"language": "en", "layer": layer, "neuron": neuron})

    table = convergence({"one": draw(), "other": draw()}, ["en"], *shape)
    population = np.where(table["layer"].isna(), 4 * 11008, 11008)
    chance = hypergeom(population, table["neurons"], table["other_neurons"])
    np.testing.assert_allclose(table["p_value"], chance.sf(table["shared"] - 1), rtol=1e-12)
    np.testing.assert_allclose(table["expected"], chance.mean(), rtol=1e-12)
    assert table["shared"].iloc[-1] == table["shared"].iloc[:-1].sum()
    assert (table["p_value"] > 0.001).all()  # drawn at random


def test_every_pair_of_methods() -> None:
    table = convergence({"a": LAPE, "b": PROBE, "c": LAPE}, ["en"], LAYERS, NEURONS)
    pairs = table[["method", "other_method"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    same = table[(table["method"] == "a") & (table["other_method"] == "c") & table["layer"].isna()].iloc[0]
    assert same["jaccard"] == 1
    assert same["p_value"] == pytest.approx(1 / comb(30, 5), rel=1e-9)


@pytest.mark.parametrize("selections", [{}, {"lape": LAPE}])
def test_fewer_than_two_methods_give_an_empty_table(selections: dict[str, pd.DataFrame]) -> None:
    table = convergence(selections, ["en"], LAYERS, NEURONS)
    assert table.empty
    assert table.columns.tolist() == TABLE.columns.tolist()


@pytest.mark.parametrize(("layer", "neuron"), [(3, 0), (0, 10)])
def test_a_neuron_outside_the_model_is_named(layer: int, neuron: int) -> None:
    with pytest.raises(
        UserError, match=f"neurons of probe .* 3 layers of 10 neurons, but layer {layer}, neuron {neuron}"
    ):
        convergence({"lape": LAPE, "probe": neurons_of([("en", layer, neuron)])}, ["en"], LAYERS, NEURONS)
