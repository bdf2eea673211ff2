"""The affine edit of neurons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from langneurons.errors import UserError
from langneurons.interventions import SITES, Intervention, deactivate


def table_of(rows: list[tuple[int, int, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["layer", "neuron", "keep", "fill"])
    return table.astype({"layer": np.int64, "neuron": np.int64, "keep": np.float64, "fill": np.float64})


def test_deactivation_keeps_and_fills_nothing_in_order() -> None:
    edit = deactivate(np.array([2, 0, 0]), np.array([5, 7, 3]), "product")
    assert edit.site == "product"
    assert len(edit) == 3
    expected = table_of([(0, 3, 0, 0), (0, 7, 0, 0), (2, 5, 0, 0)])
    pd.testing.assert_frame_equal(edit.table, expected, check_exact=True)


def test_the_site_is_the_activation_by_default() -> None:
    assert deactivate(np.array([0]), np.array([0])).site == "activation"


def test_deactivating_nothing() -> None:
    edit = deactivate(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    assert len(edit) == 0
    assert edit.by_layer() == {}
    assert edit.table.dtypes.map(str).to_dict() == {
        "layer": "int64",
        "neuron": "int64",
        "keep": "float64",
        "fill": "float64",
    }
    edit.check(layers=1, neurons=1)


def test_deactivate_takes_any_integers() -> None:
    edit = deactivate(np.array([1, 0], dtype=np.int32), np.array([4, 2], dtype=np.uint8))
    assert edit.table["layer"].dtype == edit.table["neuron"].dtype == np.int64
    assert edit.table[["layer", "neuron"]].to_numpy().tolist() == [[0, 2], [1, 4]]


def test_by_layer_sorts_layers_and_neurons_with_their_values() -> None:
    edit = Intervention(table_of([(3, 1, 1, 0.5), (0, 9, 0, 2), (3, 0, 0.25, -1)]))
    layers = edit.by_layer()
    assert list(layers) == [0, 3]
    neurons, keep, fill = layers[3]
    assert (neurons.tolist(), keep.tolist(), fill.tolist()) == ([0, 1], [0.25, 1], [-1, 0.5])
    assert (neurons.dtype, keep.dtype, fill.dtype) == (np.int64, np.float64, np.float64)
    assert [part.tolist() for part in layers[0]] == [[9], [0], [2]]


def test_known_sites() -> None:
    assert {"activation", "product"} <= set(SITES)
    for site in SITES:
        assert Intervention(table_of([]), site).site == site


def test_an_unknown_site_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'gate'; known sites: activation, product"):
        Intervention(table_of([(0, 0, 0, 0)]), "gate")  # type: ignore[arg-type]


def test_the_same_neuron_twice_is_refused() -> None:
    with pytest.raises(UserError, match="the same neuron twice"):
        Intervention(table_of([(0, 1, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0)]))


@pytest.mark.parametrize(("layer", "neuron"), [(2, 0), (-1, 0), (0, 8), (0, -1)])
def test_a_neuron_outside_the_model_is_refused(layer: int, neuron: int) -> None:
    edit = Intervention(table_of([(1, 7, 0, 0), (layer, neuron, 0, 0)]))
    with pytest.raises(UserError, match=rf"layer {layer}, neuron {neuron}, but the model has 2 layers of 8 neurons"):
        edit.check(layers=2, neurons=8)


def test_the_corners_of_the_model_are_inside() -> None:
    Intervention(table_of([(0, 0, 0, 0), (1, 7, 0, 0)])).check(layers=2, neurons=8)
    with pytest.raises(UserError):
        Intervention(table_of([(0, 0, 0, 0), (1, 7, 0, 0)])).check(layers=1, neurons=8)
