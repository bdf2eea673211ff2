"""Every entry of the layout table, on tiny random models, against the FFN worked out by hand in `families`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engines.common import HALF, IN_HALF, PROBE, engine_of, hooks_of, logits
from engines.families import FAMILIES, KINDS, LAYERS, WIDTH, Family, neurons_of
from langneurons.engines.base import EngineError
from langneurons.engines.counting import SUM_STEPS
from langneurons.engines.hf import HfEngine
from langneurons.errors import UserError
from langneurons.interventions import SITES, Intervention, Site, deactivate
from langneurons.models.layouts import LAYOUTS

REAL_PERTURBED = HfEngine.perturbed

FFN_SITES: tuple[Site, ...] = ("activation", "product")
"""The residual stream has tests of its own, in `test_hidden`."""
GATED = [name for name, family in FAMILIES.items() if family.gated]


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    chosen: str = request.param
    return chosen


def some_neurons(family: Family, layers: tuple[int, ...] = (0, 2), number: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Layers and neurons, both int64; the same number in each layer, the last neuron among them."""
    generator = np.random.default_rng(3)
    width = neurons_of(family)
    chosen = [np.append(generator.choice(width - 1, number - 1, replace=False), width - 1) for _ in layers]
    return np.repeat(np.array(layers), number), np.concatenate(chosen)


def affine(family: Family, site: Site, keep: float, fill: float, layers: tuple[int, ...] = (0, 2)) -> Intervention:
    """The same edit of some neurons."""
    intervention = deactivate(*some_neurons(family, layers), site)
    return replace(intervention, table=intervention.table.assign(keep=keep, fill=fill))


def test_every_site_is_tested() -> None:
    assert {*FFN_SITES, "residual"} == set(SITES)


def test_every_layout_is_tested() -> None:
    assert {family.architecture for family in FAMILIES.values()} == set(LAYOUTS)


def test_shape_and_layout(name: str) -> None:
    family, engine = FAMILIES[name], engine_of(name)
    assert LAYOUTS[family.architecture].gated == family.gated
    assert engine.shape == (LAYERS, neurons_of(family))
    assert engine.width == WIDTH == engine.model.config.hidden_size


# -- recording --------------------------------------------------------------------------------------------------------


def test_record_equals_the_ffn_by_hand(name: str) -> None:
    family, engine = FAMILIES[name], engine_of(name)
    before = logits(engine.model)
    with family.captured(engine.model) as (inputs, outputs):
        counts = engine.record(PROBE)
    assert counts.tokens == PROBE.size
    assert counts.over_zero.dtype == np.int64
    assert counts.activation_sum.dtype == counts.product_sum.dtype == np.float64
    for layer in range(LAYERS):
        z = family.before_activation(engine.model, layer, inputs[layer])
        activation = family.activation(engine.model, layer, inputs[layer])
        product = family.times_up(engine.model, layer, inputs[layer], activation)
        assert len(z.exact) == PROBE.size
        # The activation is above zero where its argument is. Only an argument within rounding of zero may fall on
        # either side; few neurons have one.
        certain = (z.exact.abs() > z.error).all(dim=0).numpy()
        assert certain.mean() > 0.9
        np.testing.assert_array_equal(counts.over_zero[layer][certain], (z.exact > 0).sum(0).numpy()[certain])
        # The batches are four windows and two.
        for found, by_hand in ((counts.activation_sum, activation), (counts.product_sum, product)):
            assert by_hand.total(4 * PROBE.shape[1], 1 / SUM_STEPS, 2).holds(found[layer])
        # The same FFN by hand yields the model's FFN output, so the hand computation is that of this model.
        assert family.output(engine.model, layer, product).holds(outputs[layer])
        # The probe tells signs apart, and activation from product.
        share = counts.over_zero[layer] / counts.tokens
        assert 0.25 < share.mean() < 0.75
        assert share.std() > 0.02
        assert activation.exact.std() > 0.3
        assert np.array_equal(counts.activation_sum[layer], counts.product_sum[layer]) == (not family.gated)
    assert torch.equal(logits(engine.model), before)
    assert hooks_of(engine.model) == 0


# -- editing ----------------------------------------------------------------------------------------------------------


def test_deactivation_equals_removal_from_the_weights(name: str) -> None:
    family, engine = FAMILIES[name], engine_of(name)
    layers, neurons = some_neurons(family)
    removed = copy.deepcopy(engine.model)
    family.without_neurons(removed, layers, neurons)
    baseline, without, loss = logits(engine.model), logits(removed), engine.token_nll(PROBE)
    for site in FFN_SITES:
        with engine.perturbed(deactivate(layers, neurons, site)):
            edited, edited_loss = logits(engine.model), engine.token_nll(PROBE)
        # Bit-equal: the same products with the same weights, of which those of the neurons are zero.
        assert torch.equal(edited, without)
        assert (np.abs(edited_loss.nll_sum - loss.nll_sum) > 1e-3).all()
    assert (without - baseline).abs().max() > 0.1


def test_an_affine_edit_equals_the_ffn_by_hand_and_is_undone(name: str) -> None:
    """`keep * a + fill` where the site says; in the first layer, whose input is that of the unedited model."""
    family, engine = FAMILIES[name], engine_of(name)
    with torch.inference_mode(), family.captured(engine.model) as (inputs, unedited):
        baseline = logits(engine.model)
    edited = {}
    for site in FFN_SITES:
        intervention = affine(family, site, keep=0.5, fill=0.3)
        with engine.perturbed(intervention), torch.inference_mode(), family.captured(engine.model) as (_, outputs):
            edited[site] = logits(engine.model)
        neurons = intervention.by_layer()[0][0]
        activation = family.activation(engine.model, 0, inputs[0])
        if site == "activation":
            product = family.times_up(engine.model, 0, inputs[0], activation.edited(neurons, 0.5, 0.3))
        else:
            product = family.times_up(engine.model, 0, inputs[0], activation).edited(neurons, 0.5, 0.3)
        assert family.output(engine.model, 0, product).holds(outputs[0])
        assert (outputs[0] - unedited[0]).abs().max() > 0.1
        assert torch.equal(logits(engine.model), baseline)
        with pytest.raises(KeyError, match="amid"), engine.perturbed(intervention):
            raise KeyError("amid")
        assert torch.equal(logits(engine.model), baseline)
    # The sites differ in gated families only.
    assert torch.equal(edited["activation"], edited["product"]) != family.gated


# -- the proof --------------------------------------------------------------------------------------------------------


def assert_proved(engine: HfEngine, intervention: Intervention) -> None:
    """The proof says what the edit does, and the model is as before it."""
    baseline = logits(engine.model)
    proof = engine.verify(intervention, PROBE)
    assert proof.edited_neurons == 18
    assert [row["layer"] for row in proof.layers] == [0, 2]
    for row in proof.layers:
        assert 0 < row["error"] <= row["tolerance"] < 1e-5  # of the scale of the single output, in float32
        assert row["change"] > 0.05
    assert proof.unedited_layers_equal
    assert proof.note == ""
    with engine.perturbed(intervention):
        change = (logits(engine.model) - baseline).abs().max().item()
    assert proof.logits_change == change > 0.1
    assert torch.equal(logits(engine.model), baseline)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", FFN_SITES)
def test_verify_proves_an_edit(kind: str, site: Site) -> None:
    for keep, fill in [(0.0, 0.0), (1.0, 0.3), (0.0, 20.0)]:
        assert_proved(engine_of(kind), affine(FAMILIES[kind], site, keep, fill))


def test_verify_tells_right_from_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every family, one edit that is right and the published mistake."""
    engine = engine_of(name)
    for site in FFN_SITES:
        assert_proved(engine, affine(FAMILIES[name], site, keep=0.5, fill=0.3))
    monkeypatch.setattr(HfEngine, "perturbed", edit_of_a_copy)
    for site in FFN_SITES:
        with pytest.raises(EngineError, match="did not take effect as asked: in layer 0"):
            engine.verify(affine(FAMILIES[name], site, keep=0.5, fill=0.3), PROBE)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("half", IN_HALF)
def test_verify_in_half_precision(half: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right edits, and the published mistake in the number format in which it was made, also for a single neuron."""
    engine, family = engine_of(half, dtype), FAMILIES[half]
    for site in FFN_SITES:
        for row in engine.verify(affine(family, site, keep=0.5, fill=0.3), PROBE).layers:
            assert row["error"] <= row["tolerance"] < 0.07
            assert row["change"] > 2 * row["tolerance"]
    off = [deactivate(*some_neurons(family, number=number)) for number in (1, 9)]
    assert [engine.verify(intervention, PROBE).note for intervention in off] == ["", ""]
    monkeypatch.setattr(HfEngine, "perturbed", edit_of_a_copy)
    for intervention in off:
        with pytest.raises(EngineError, match="did not take effect"):
            engine.verify(intervention, PROBE)


def test_verify_accepts_and_notes_an_empty_set() -> None:
    nothing = deactivate(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    engine = engine_of("llama")
    proof = engine.verify(nothing, PROBE)
    assert (proof.edited_neurons, proof.layers, proof.logits_change) == (0, [], 0.0)
    assert "empty" in proof.note
    baseline = logits(engine.model)
    with engine.perturbed(nothing):
        assert torch.equal(logits(engine.model), baseline)


def test_verify_notes_that_inactive_neurons_prove_nothing() -> None:
    """A ReLU neuron that is never above zero on the probe changes nothing when it is switched off."""
    family, model = FAMILIES["opt-norm-before"], FAMILIES["opt-norm-before"].build()
    with torch.no_grad():
        family.module(model, 1, "fc1").get_parameter("bias")[5] = -1e3
    engine = HfEngine(model, None, 4, 4)
    proof = engine.verify(deactivate(np.array([1]), np.array([5])), PROBE)
    assert proof.layers[0]["change"] == 0.0 == proof.logits_change
    assert "rounding" in proof.note


Perturb = Callable[[HfEngine, Intervention], AbstractContextManager[None]]


@contextmanager
def no_edit(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """Nothing happens."""
    yield


@contextmanager
def edit_of_a_copy(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """The published mistake: the activation is edited in a `.float()` copy (`clone` makes it one in float32 too)."""

    def hook(module: Any, inputs: Any, output: torch.Tensor, neurons: np.ndarray) -> None:
        output.float().clone()[..., neurons] = 0

    handles = [
        engine._module(layer, engine.layout.activation).register_forward_hook(
            lambda module, inputs, output, neurons=neurons: hook(module, inputs, output, neurons)
        )
        for layer, (neurons, _, _) in intervention.by_layer().items()
    ]
    yield
    for handle in handles:
        handle.remove()


def _other(change: Callable[[HfEngine, Intervention], Intervention]) -> Perturb:
    """A `perturbed` that does something else than it is asked."""
    return lambda engine, intervention: REAL_PERTURBED(engine, change(engine, intervention))


def _with(**columns: Callable[[Any], Any]) -> Callable[[HfEngine, Intervention], Intervention]:
    return lambda engine, intervention: replace(intervention, table=intervention.table.assign(**columns))


def _more(layer: int) -> Callable[[HfEngine, Intervention], Intervention]:
    """The edit, and one more neuron."""

    def change(engine: HfEngine, intervention: Intervention) -> Intervention:
        table = intervention.table.copy()
        free = sorted(set(range(engine.shape[1])) - set(table.loc[table["layer"] == layer, "neuron"]))[0]
        table.loc[len(table)] = [layer, free, 0.0, 0.0]
        return replace(intervention, table=table.astype({"layer": np.int64, "neuron": np.int64}))

    return change


WRONG: dict[str, tuple[Perturb, str]] = {
    "nothing": (no_edit, "did not take effect"),
    "a copy": (edit_of_a_copy, "did not take effect"),
    "the layer below": (_other(_with(layer=lambda table: table["layer"] - 1)), "did not take effect"),
    "the layer above": (_other(_with(layer=lambda table: table["layer"] + 1)), "did not take effect"),
    "the neurons beside": (_other(_with(neuron=lambda table: table["neuron"] ^ 1)), "did not take effect"),
    "another fill": (_other(_with(fill=lambda table: table["fill"] + 0.1)), "did not take effect"),
    "another keep": (_other(_with(keep=lambda table: table["keep"] + 0.1)), "did not take effect"),
    "one neuron more": (_other(_more(1)), "did not take effect"),
    "a neuron of an earlier layer, too": (_other(_more(0)), "FFN output of a layer before the first edited one"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_verify_refuses_an_edit_that(kind: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    perturbed, message = WRONG[wrong]
    monkeypatch.setattr(HfEngine, "perturbed", perturbed)
    for site in FFN_SITES:
        with pytest.raises(EngineError, match=message):
            engine_of(kind).verify(affine(FAMILIES[kind], site, keep=0.5, fill=0.3, layers=(1,)), PROBE)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_verify_is_not_blinded_by_an_outlier(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One FFN output a thousand times larger than the rest, as large models have, does not widen what is allowed."""
    family = FAMILIES["llama"]
    model = family.build()
    with torch.no_grad():
        family.module(model, 1, "mlp.down_proj").get_parameter("weight")[4] *= 1000
    engine = HfEngine(model.to(dtype), None, 4, 4)
    edited = deactivate(*some_neurons(family, layers=(1,), number=1))
    with torch.no_grad():  # the edited neuron writes anywhere but into the outlier
        family.module(model, 1, "mlp.down_proj").get_parameter("weight")[4, edited.table["neuron"]] = 0
    assert engine.verify(edited, PROBE).note == ""
    monkeypatch.setattr(HfEngine, "perturbed", no_edit)
    with pytest.raises(EngineError, match="did not take effect"):
        engine.verify(edited, PROBE)


@pytest.mark.parametrize("gated", GATED)
@pytest.mark.parametrize("site", FFN_SITES)
def test_verify_refuses_the_wrong_site(gated: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    other: Site = "product" if site == "activation" else "activation"
    wrong = _other(lambda engine, intervention: replace(intervention, site=other))
    intervention = affine(FAMILIES[gated], site, keep=0.5, fill=0.3)
    engine = engine_of(gated)
    engine.verify(intervention, PROBE)
    monkeypatch.setattr(HfEngine, "perturbed", wrong)
    with pytest.raises(EngineError, match="did not take effect"):
        engine.verify(intervention, PROBE)


def test_verify_refuses_an_edit_that_never_reaches_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFN outputs change but the logits do not, as when a later step drops the edit."""
    engine = engine_of("gpt2")

    @contextmanager
    def drop(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
        kept: list[torch.Tensor] = []
        mlp = engine.model.transformer.h[2].mlp
        with REAL_PERTURBED(engine, intervention):
            handle = mlp.register_forward_hook(lambda module, inputs, output: kept[0])
            kept.append(baseline_output)
            yield
            handle.remove()

    stored: list[torch.Tensor] = []
    handle = engine.model.transformer.h[2].mlp.register_forward_hook(
        lambda module, inputs, output: stored.append(output)
    )
    logits(engine.model)
    handle.remove()
    baseline_output = stored[0]
    monkeypatch.setattr(HfEngine, "perturbed", drop)
    with pytest.raises(EngineError, match="but not the logits"):
        engine.verify(affine(FAMILIES["gpt2"], "product", 0.5, 0.3, layers=(2,)), PROBE)


def test_an_edit_outside_the_model_is_refused() -> None:
    engine = engine_of("llama")
    message = "layer 3, entry 0, but the model has 3 layers of 80 neurons"
    with pytest.raises(UserError, match=message), engine.perturbed(deactivate(np.array([3]), np.array([0]))):
        pass
    with pytest.raises(UserError, match="layer 1, entry 80"):
        engine.verify(deactivate(np.array([1]), np.array([80])), PROBE)


# -- failures of recording --------------------------------------------------------------------------------------------


def test_nan_activations_are_refused(name: str) -> None:
    family = FAMILIES[name]
    model = family.build()
    with torch.no_grad():
        raw = family.module(model, 1, family.into).get_parameter("weight")
        (raw[:, 7] if family.input_by_output else raw[7])[0] = float("nan")
    with pytest.raises(EngineError, match=r"NaN.*layer 1, neuron 7\b"):
        HfEngine(model, None, 4, 4).record(PROBE)


def test_a_layer_that_is_not_called_is_refused() -> None:
    """A layout may name modules that the model holds but does not call: that is an error, not a count of 0."""
    engine = HfEngine(FAMILIES["llama"].build(), None, 4, 4)
    layer = engine.layers[1]
    layer.mlp.forward = torch.nn.Identity().forward  # type: ignore[union-attr, assignment]
    with pytest.raises(EngineError, match="not recorded"):
        engine.record(PROBE)
