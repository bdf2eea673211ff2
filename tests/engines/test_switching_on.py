"""Neurons that are switched on: set to a multiple of their mean on some text, or raised by it, in every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from engines.common import EPSILON, HALF, PROBE, engine_of, logits
from engines.families import FAMILIES, Family, neurons_of
from langneurons.engines.base import EngineError
from langneurons.engines.hf import HfEngine
from langneurons.interventions import Intervention, Site, activate, deactivate, join

REAL_PERTURBED = HfEngine.perturbed
SITES: tuple[Site, ...] = ("activation", "product")


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    chosen: str = request.param
    return chosen


@cache
def means_of(name: str, site: Site) -> np.ndarray:
    """Mean at the site on the probe, [layer, neuron]."""
    counts = engine_of(name).record(PROBE)
    total = counts.activation_sum if site == "activation" else counts.product_sum
    assert total is not None
    return total / counts.tokens


def steering(name: str, site: Site, edit: str, scale: float, layers: tuple[int, ...] = (0, 2)) -> Intervention:
    """Nine neurons of each layer, the last among them; each has its own mean."""
    width = neurons_of(FAMILIES[name])
    chosen = [
        np.append(np.random.default_rng(layer).choice(width - 1, 8, replace=False), width - 1) for layer in layers
    ]
    means = means_of(name, site)
    return activate(np.repeat(layers, 9), np.concatenate(chosen), means, scale, edit, site)


def site_by_hand(family: Family, engine: HfEngine, site: Site, ffn_input: torch.Tensor) -> torch.Tensor:
    """The vector at a site of the first layer, float64 [token, neuron]."""
    activation = family.activation(engine.model, 0, ffn_input)
    return activation if site == "activation" else activation * family.factor(engine.model, 0, ffn_input)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("edit", "scale"), [("set", 2), ("add", 2), ("set", -1), ("add", -1)])
def test_switching_on_equals_the_ffn_by_hand(name: str, site: Site, edit: str, scale: float) -> None:
    """In the first layer, whose input is that of the unedited model."""
    family, engine = FAMILIES[name], engine_of(name)
    intervention = steering(name, site, edit, scale)
    neurons, _, fill = intervention.by_layer()[0]
    with torch.inference_mode(), family.captured(engine.model) as (inputs, unedited):
        logits(engine.model)
    with engine.perturbed(intervention), torch.inference_mode(), family.captured(engine.model) as (_, outputs):
        logits(engine.model)
    vector = site_by_hand(family, engine, site, inputs[0])
    means = vector.mean(dim=0)[neurons]
    # float32 sums against float64, as in the tests of recording: 16 epsilons of the mean absolute value.
    allowed = 16 * EPSILON * abs(scale) * vector[:, neurons].abs().mean(dim=0)
    assert ((torch.from_numpy(fill) - scale * means).abs() <= allowed).all()
    vector[:, neurons] = scale * means if edit == "set" else vector[:, neurons] + scale * means
    product = vector * family.factor(engine.model, 0, inputs[0]) if site == "activation" else vector
    expected = family.output(engine.model, 0, product)
    # float32 against float64: some roundings of sums of 80 to 128 terms.
    assert (outputs[0] - expected).abs().max() <= 64 * EPSILON * expected.abs().max()
    assert (outputs[0] - unedited[0]).abs().max() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("edit", "scale"), [("set", 2), ("add", 2), ("set", -1), ("add", 6)])
def test_verify_proves_that_neurons_are_on(name: str, site: Site, edit: str, scale: float, dtype: torch.dtype) -> None:
    engine = engine_of(name, dtype)
    baseline = logits(engine.model)
    intervention = steering(name, site, edit, scale)
    assert (intervention.table["fill"] != 0).all()
    proof = engine.verify(intervention, PROBE)
    assert proof.edited_neurons == 18
    assert [row["layer"] for row in proof.layers] == [0, 2]
    for row in proof.layers:
        # Eight epsilons of the format and 64 of float32, relative to the size of the terms of an output.
        assert row["error"] <= row["tolerance"] == 8 * torch.finfo(dtype).eps + 64 * EPSILON
        assert row["change"] > 2 * row["tolerance"]
    assert proof.unedited_layers_equal
    assert proof.note == ""
    with engine.perturbed(intervention):
        change = (logits(engine.model) - baseline).abs().max().item()
    assert proof.logits_change == change > 0.01
    assert torch.equal(logits(engine.model), baseline)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("site", SITES)
def test_verify_proves_neurons_on_and_others_off(name: str, site: Site, dtype: torch.dtype) -> None:
    width = neurons_of(FAMILIES[name])
    layers, neurons = np.repeat([0, 1], 5), np.tile(np.arange(width - 5, width), 2)
    intervention = join(deactivate(layers, neurons, site), steering(name, site, "set", 2))
    assert len(intervention) == 18 + 10 - len(set(neurons) & set(steering(name, site, "set", 2).by_layer()[0][0]))
    proof = engine_of(name, dtype).verify(intervention, PROBE)
    assert [row["layer"] for row in proof.layers] == [0, 1, 2]
    assert proof.edited_neurons == len(intervention)
    assert proof.note == ""


@contextmanager
def without_fill(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """The neurons are switched off, or left alone, instead of on."""
    with REAL_PERTURBED(engine, replace(intervention, table=intervention.table.assign(fill=0.0))):
        yield


@contextmanager
def with_shuffled_fill(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """Each neuron gets the mean of another one of its layer."""
    fill = intervention.table.groupby("layer")["fill"].transform(lambda column: np.roll(column, 1))
    with REAL_PERTURBED(engine, replace(intervention, table=intervention.table.assign(fill=fill))):
        yield


@contextmanager
def with_the_other_edit(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """Added instead of set, or set instead of added."""
    with REAL_PERTURBED(
        engine, replace(intervention, table=intervention.table.assign(keep=1 - intervention.table["keep"]))
    ):
        yield


@contextmanager
def twice(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    with REAL_PERTURBED(engine, intervention), REAL_PERTURBED(engine, intervention):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        ("set", without_fill),
        ("add", without_fill),
        ("set", with_shuffled_fill),
        ("add", with_shuffled_fill),
        ("set", with_the_other_edit),
        ("add", with_the_other_edit),
        ("add", twice),  # to set twice is to set once
    ],
)
def test_verify_refuses_neurons_that_are_on_otherwise(
    name: str, site: Site, edit: str, wrong: object, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(name, dtype)
    intervention = steering(name, site, edit, 3, layers=(1,))
    monkeypatch.setattr(HfEngine, "perturbed", wrong)
    with pytest.raises(EngineError, match="did not take effect as asked: in layer 1 the FFN output"):
        engine.verify(intervention, PROBE)


def test_means_recorded_while_neurons_are_set_are_what_they_are_set_to(name: str) -> None:
    """Where a hook edits, the recorder's hook comes after it and sees what the model goes on with; where weights are
    edited, activations are as the model computes them, and what it goes on with is in the projection's output."""
    engine = engine_of(name)
    intervention = steering(name, "activation", "set", 2, layers=(0,))
    without = engine.record(PROBE)
    with engine.perturbed(intervention):
        counts = engine.record(PROBE)
    assert counts.activation_sum is not None
    if not FAMILIES[name].gated:
        assert np.array_equal(counts.over_zero[0], without.over_zero[0])
        assert not np.array_equal(counts.over_zero[1], without.over_zero[1])
        return
    for layer, (neurons, _, fill) in intervention.by_layer().items():
        found = counts.activation_sum[layer, neurons] / counts.tokens
        assert found == pytest.approx(fill, rel=1e-5)  # float32: 144 equal numbers added up
        assert np.array_equal(counts.over_zero[layer, neurons], np.where(fill > 0, counts.tokens, 0))
