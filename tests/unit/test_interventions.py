"""The affine edit of neurons, or of the residual stream."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from langneurons.errors import UserError
from langneurons.interventions import SITES, Intervention, Site, activate, affine, deactivate, join, shift


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
    edit.check(layers=1, neurons=1, width=1)


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
    assert SITES == ("activation", "product", "residual")
    for site in SITES:
        assert Intervention(table_of([]), site).site == site


def test_an_unknown_site_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'gate'; known sites: activation, product, residual$"):
        Intervention(table_of([(0, 0, 0, 0)]), "gate")  # type: ignore[arg-type]


def test_the_same_neuron_twice_is_refused() -> None:
    with pytest.raises(UserError, match="the same neuron twice"):
        Intervention(table_of([(0, 1, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0)]))


@pytest.mark.parametrize(("layer", "neuron"), [(2, 0), (-1, 0), (0, 8), (0, -1)])
@pytest.mark.parametrize("site", ["activation", "product"])
def test_a_neuron_outside_the_model_is_refused(layer: int, neuron: int, site: Site) -> None:
    edit = Intervention(table_of([(1, 7, 0, 0), (layer, neuron, 0, 0)]), site)
    message = rf"^the intervention edits layer {layer}, entry {neuron}, but the model has 2 layers of 8 neurons$"
    with pytest.raises(UserError, match=message):
        edit.check(layers=2, neurons=8, width=100)


@pytest.mark.parametrize(("layer", "dimension"), [(2, 0), (-1, 0), (0, 4), (0, -1)])
def test_a_dimension_outside_the_model_is_refused(layer: int, dimension: int) -> None:
    """The residual stream has as many entries as the model is wide, whatever the width of its FFN."""
    edit = Intervention(table_of([(1, 3, 1, 0), (layer, dimension, 1, 0)]), "residual")
    message = rf"layer {layer}, entry {dimension}, but the model has 2 layers of 4 hidden dimensions$"
    with pytest.raises(UserError, match=message):
        edit.check(layers=2, neurons=8, width=4)


def test_the_corners_of_the_model_are_inside() -> None:
    neurons = Intervention(table_of([(0, 0, 0, 0), (1, 7, 0, 0)]))
    neurons.check(layers=2, neurons=8, width=1)
    with pytest.raises(UserError):
        neurons.check(layers=1, neurons=8, width=8)
    dimensions = Intervention(table_of([(0, 0, 1, 0), (1, 7, 1, 0)]), "residual")
    dimensions.check(layers=2, neurons=1, width=8)
    with pytest.raises(UserError):
        dimensions.check(layers=2, neurons=8, width=7)


# -- other edits -------------------------------------------------------------------------------------------------------

MEANS = np.array([[0.5, -1, 2], [4, 0, 8]])


@pytest.mark.parametrize(("edit", "keep"), [("set", 0.0), ("add", 1.0)])
@pytest.mark.parametrize("site", ["activation", "product"])
def test_activation_by_hand(edit: str, keep: float, site: Site) -> None:
    """Each neuron has its own mean, whatever the order in which they come."""
    found = activate(np.array([1, 0, 0]), np.array([2, 1, 0]), MEANS, -2, edit, site)
    assert found.site == site
    expected = table_of([(0, 0, keep, -1), (0, 1, keep, 2), (1, 2, keep, -16)])
    pd.testing.assert_frame_equal(found.table, expected, check_exact=True)


def test_activating_nothing() -> None:
    nothing = np.array([], dtype=np.int64)
    found = activate(nothing, nothing, MEANS, 1, "set", "product")
    assert len(found) == 0
    assert found.table.dtypes.map(str).tolist() == ["int64", "int64", "float64", "float64"]


def test_an_affine_edit_keeps_layers_neurons_and_fills_together() -> None:
    found = affine(np.array([2, 1, 2]), np.array([0, 5, 3]), 0.5, np.array([1, 2, 3]), "product")
    expected = table_of([(1, 5, 0.5, 2), (2, 0, 0.5, 1), (2, 3, 0.5, 3)])
    pd.testing.assert_frame_equal(found.table, expected, check_exact=True)


def test_a_shift_adds_every_entry_of_its_vectors() -> None:
    found = shift({2: np.array([0.5, 0, -1]), 0: np.array([1, 2, 3])})
    assert found.site == "residual"
    expected = table_of([(0, 0, 1, 1), (0, 1, 1, 2), (0, 2, 1, 3), (2, 0, 1, 0.5), (2, 1, 1, 0), (2, 2, 1, -1)])
    pd.testing.assert_frame_equal(found.table, expected, check_exact=True)


def test_the_second_of_two_edits_wins_where_both_edit() -> None:
    off = deactivate(np.array([0, 1, 1]), np.array([1, 0, 5]), "product")
    on = activate(np.array([1, 0]), np.array([0, 2]), MEANS, 1, "add", "product")
    found = join(off, on)
    assert found.site == "product"
    expected = table_of([(0, 1, 0, 0), (0, 2, 1, 2), (1, 0, 1, 4), (1, 5, 0, 0)])
    pd.testing.assert_frame_equal(found.table, expected, check_exact=True)
    other = join(on, off)
    assert other.table.set_index(["layer", "neuron"]).loc[(1, 0)].tolist() == [0, 0]
    assert (len(off), len(on)) == (3, 2)  # unchanged


def test_joining_with_nothing() -> None:
    off = deactivate(np.array([1, 0]), np.array([1, 0]), "product")
    nothing = deactivate(np.array([], dtype=np.int64), np.array([], dtype=np.int64), "product")
    for found in (join(off, nothing), join(nothing, off)):
        pd.testing.assert_frame_equal(found.table, off.table, check_exact=True)
    assert len(join(nothing, nothing)) == 0


@pytest.mark.parametrize("sites", [("activation", "product"), ("product", "activation")])
def test_edits_at_two_sites_are_not_joined(sites: tuple[Site, Site]) -> None:
    """One of them would move to the other site."""
    first, second = (deactivate(np.array([0]), np.array([number]), site) for number, site in enumerate(sites))
    with pytest.raises(UserError, match="one site"):
        join(first, second)
