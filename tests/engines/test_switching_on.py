"""Neurons that are switched on: set to a multiple of their mean on some text, or raised by it, in every family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from engines.common import HALF, IN_HALF, PROBE, engine_of, logits
from engines.families import FAMILIES, KINDS, neurons_of
from engines.rounding import EPSILON, summed
from langneurons.engines.base import EngineError
from langneurons.engines.counting import SUM_STEPS
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
def means_of(name: str) -> tuple[dict[Site, np.ndarray], torch.Tensor]:
    """Means at both sites on the probe, [layer, neuron], and what the first FFN read meanwhile."""
    engine = engine_of(name)
    with FAMILIES[name].captured(engine.model) as (inputs, _):
        counts = engine.record(PROBE)
    assert counts.activation_sum is not None
    assert counts.product_sum is not None
    means: dict[Site, np.ndarray] = {
        "activation": counts.activation_sum / counts.tokens,
        "product": counts.product_sum / counts.tokens,
    }
    return means, inputs[0]


def steering(name: str, site: Site, edit: str, scale: float, layers: tuple[int, ...] = (0, 2)) -> Intervention:
    """Nine neurons of each layer, the last among them; each has its own mean."""
    width = neurons_of(FAMILIES[name])
    chosen = [
        np.append(np.random.default_rng(layer).choice(width - 1, 8, replace=False), width - 1) for layer in layers
    ]
    means = means_of(name)[0][site]
    return activate(np.repeat(layers, 9), np.concatenate(chosen), means, scale, edit, site)


def test_switching_on_equals_the_ffn_by_hand(name: str) -> None:
    """In the first layer, whose input is that of the unedited model."""
    family, engine = FAMILIES[name], engine_of(name)
    with torch.inference_mode(), family.captured(engine.model) as (inputs, unedited):
        logits(engine.model)
    activation = family.activation(engine.model, 0, inputs[0])
    for site, edit, scale in itertools.product(SITES, ("set", "add"), (2.0, -1.0)):
        intervention = steering(name, site, edit, scale)
        neurons, _, fill = intervention.by_layer()[0]
        recorded = family.activation(engine.model, 0, means_of(name)[1])
        if site == "product":
            recorded = family.times_up(engine.model, 0, means_of(name)[1], recorded)
        total = recorded.total(4 * PROBE.shape[1], 1 / SUM_STEPS, 2).part(neurons)
        assert total.holds(fill / scale * PROBE.size)
        with engine.perturbed(intervention), torch.inference_mode(), family.captured(engine.model) as (_, outputs):
            logits(engine.model)
        keep = 0.0 if edit == "set" else 1.0
        if site == "activation":
            product = family.times_up(engine.model, 0, inputs[0], activation.edited(neurons, keep, fill))
        else:
            product = family.times_up(engine.model, 0, inputs[0], activation).edited(neurons, keep, fill)
        assert family.output(engine.model, 0, product).holds(outputs[0])
        assert (outputs[0] - unedited[0]).abs().max() > 0.05


# Edits are proved in float32 in each kind of FFN, in 16 bits in two families.
FORMATS = [(kind, torch.float32) for kind in KINDS] + list(itertools.product(IN_HALF, HALF))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("kind", "dtype"), FORMATS)
def test_verify_proves_that_neurons_are_on(kind: str, dtype: torch.dtype, site: Site) -> None:
    engine = engine_of(kind, dtype)
    baseline = logits(engine.model)
    for edit, scale in [("set", 2), ("add", 2), ("set", -1), ("add", 6)]:
        intervention = steering(kind, site, edit, scale)
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


@pytest.mark.parametrize(("kind", "dtype"), FORMATS)
def test_verify_proves_neurons_on_and_others_off(kind: str, dtype: torch.dtype) -> None:
    width = neurons_of(FAMILIES[kind])
    layers, neurons = np.repeat([0, 1], 5), np.tile(np.arange(width - 5, width), 2)
    for site in SITES:
        on = steering(kind, site, "set", 2)
        intervention = join(deactivate(layers, neurons, site), on)
        assert len(intervention) == 18 + 10 - len(set(neurons) & set(on.by_layer()[0][0]))
        proof = engine_of(kind, dtype).verify(intervention, PROBE)
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


WRONG = [
    ("set", without_fill),
    ("add", without_fill),
    ("set", with_shuffled_fill),
    ("add", with_shuffled_fill),
    ("set", with_the_other_edit),
    ("add", with_the_other_edit),
    ("add", twice),  # to set twice is to set once
]


@pytest.mark.parametrize(("edit", "wrong"), WRONG)
@pytest.mark.parametrize(("kind", "dtype"), FORMATS)
def test_verify_refuses_neurons_that_are_on_otherwise(
    kind: str, dtype: torch.dtype, edit: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered = {site: steering(kind, site, edit, 3, layers=(1,)) for site in SITES}
    monkeypatch.setattr(HfEngine, "perturbed", wrong)
    for site in SITES:
        with pytest.raises(EngineError, match="did not take effect as asked: in layer 1 the FFN output"):
            engine_of(kind, dtype).verify(steered[site], PROBE)


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
        # One number, rounded to float32 and added up 96 times in a batch and 48 times in the next.
        assert found == pytest.approx(fill, rel=summed(98), abs=1 / SUM_STEPS / counts.tokens)
        assert np.array_equal(counts.over_zero[layer, neurons], np.where(fill > 0, counts.tokens, 0))
