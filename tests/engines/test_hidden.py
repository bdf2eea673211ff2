"""Shifts of the residual stream: what they do to every family, and that the proof tells right from wrong."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engines.common import HALF, IN_DOUBLE, IN_HALF, PROBE, engine_of, hooks_of, logits
from engines.families import FAMILIES, KINDS, LAYERS, WIDTH, Family
from engines.rounding import EPSILON, UNIT, summed
from langneurons.engines import hf
from langneurons.engines.base import EngineError
from langneurons.engines.counting import SUM_STEPS
from langneurons.engines.hf import HfEngine
from langneurons.engines.hidden import hidden_of, with_hidden
from langneurons.errors import UserError
from langneurons.interventions import Intervention, deactivate, shift

REAL_PERTURBED = HfEngine.perturbed
LAST = LAYERS - 1
VECTORS = {layer: np.random.default_rng(layer).normal(0, 0.5, WIDTH) for layer in range(LAYERS)}
"""A shift of each layer, in float64."""


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    chosen: str = request.param
    return chosen


def shifted(*layers: int, by: float = 1) -> Intervention:
    """A shift after these layers."""
    return shift({layer: by * VECTORS[layer] for layer in layers})


@contextmanager
def added(family: Family, model: Any, layers: tuple[int, ...]) -> Iterator[None]:
    """The same shift by hooks of our own: a vector is added to what a layer returns."""

    def add(layer: int, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        moved = first + torch.from_numpy(VECTORS[layer]).to(first.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handles = [
        model.get_submodule(family.layer.format(layer)).register_forward_hook(
            lambda module, inputs, output, layer=layer: add(layer, output)
        )
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# -- the edit ----------------------------------------------------------------------------------------------------------


FORMATS = [*((name, torch.float32) for name in FAMILIES), *itertools.product(IN_HALF, HALF)]
"""Every family in float32, two in 16 bits."""


@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_a_shift_equals_a_vector_added_to_what_layers_return(name: str, dtype: torch.dtype) -> None:
    family, engine = FAMILIES[name], engine_of(name, dtype)
    baseline = logits(engine.model)
    for layers in [(1,), (0, 1, 2)]:
        with added(family, engine.model, layers):
            expected = logits(engine.model)
        with engine.perturbed(shifted(*layers)):
            found = logits(engine.model)
        assert torch.equal(found, expected)  # a state times 1 is that state, and both add the same vector
        assert (found - baseline).abs().max() > 0.05


BIASED = ["llama-with-biases", "phi", "gpt2", "bloom", "opt-norm-before", "gpt-neox", "falcon-with-alibi"]
"""Families whose down projection has a bias that is added to the residual stream as it is."""


@pytest.mark.parametrize("biased", BIASED)
@pytest.mark.parametrize("layers", [(2,), (0, 1, 2)])
def test_a_shift_equals_a_bias_in_the_weights(biased: str, layers: tuple[int, ...]) -> None:
    """Without any hook: the FFN's last bias goes straight into the residual stream. In float64, since sums are rounded
    in another order."""
    family, engine = FAMILIES[biased], engine_of(biased, torch.float64)
    weights = copy.deepcopy(engine.model)
    with torch.no_grad():
        for layer in layers:
            family.module(weights, layer, family.down).get_parameter("bias").add_(torch.from_numpy(VECTORS[layer]))
    baseline, expected = logits(engine.model), logits(weights)
    with engine.perturbed(shifted(*layers)):
        found = logits(engine.model)
    assert (found - expected).abs().max() < IN_DOUBLE * expected.abs().max()
    assert (found - baseline).abs().max() > 0.05


def test_an_affine_edit_of_single_dimensions() -> None:
    """Not only shifts: entries of the hidden state can be kept in part, and others are left alone."""
    family, engine = FAMILIES["llama"], engine_of("llama")
    table = shifted(1).table.iloc[3:7].assign(keep=[0.0, 0.5, 1.0, -1.0])
    keep, fill = torch.ones(WIDTH), torch.zeros(WIDTH)
    keep[3:7] = torch.tensor([0.0, 0.5, 1.0, -1.0])
    fill[3:7] = torch.from_numpy(VECTORS[1][3:7]).float()
    layer = engine.model.get_submodule(family.layer.format(1))
    handle = layer.register_forward_hook(
        lambda module, inputs, output: with_hidden(output, hidden_of(output) * keep + fill)
    )
    expected = logits(engine.model)
    handle.remove()
    edit = Intervention(table, "residual")
    with engine.perturbed(edit):
        assert torch.equal(logits(engine.model), expected)
    assert engine.verify(edit, PROBE).edited_neurons == 4


def test_the_model_is_restored_bit_for_bit(name: str) -> None:
    engine = engine_of(name)
    baseline = logits(engine.model)
    with engine.perturbed(shifted(0, 2)):
        assert not torch.equal(logits(engine.model), baseline)
        assert hooks_of(engine.model) == 2
    assert torch.equal(logits(engine.model), baseline)
    with pytest.raises(KeyError, match="amid"), engine.perturbed(shifted(0, 2)):
        raise KeyError("amid")
    assert torch.equal(logits(engine.model), baseline)
    assert hooks_of(engine.model) == 0


def test_what_is_recorded_under_a_shift_is_shifted(name: str) -> None:
    """The mean hidden state after the layer moves by the vector; the layers before do not move."""
    engine = engine_of(name)
    before = engine.record(PROBE)
    sizes: list[torch.Tensor] = []
    handle = engine.layers[1].register_forward_hook(
        lambda module, inputs, output: sizes.append(hidden_of(output).double().abs().flatten(0, 1).sum(0))
    )
    with engine.perturbed(shifted(1)):
        after = engine.record(PROBE)
    handle.remove()
    assert before.hidden_sum is not None
    assert after.hidden_sum is not None
    moved = (after.hidden_sum - before.hidden_sum) / before.tokens
    assert (moved[0] == 0).all()
    # Vector and state are rounded once more, then 96 states are added up in float32, with and without the shift.
    size = sum(sizes).numpy() / before.tokens + np.abs(VECTORS[1])  # type: ignore[union-attr]
    allowed = 2 * (summed(4 * PROBE.shape[1]) + 2 * UNIT) * size + 2 / SUM_STEPS / before.tokens
    assert (np.abs(moved[1] - VECTORS[1]) <= allowed).all()
    assert np.abs(moved[2] - VECTORS[1]).max() > 1e-3
    assert np.array_equal(before.over_zero[:2], after.over_zero[:2])


def test_a_shift_outside_the_model_is_refused() -> None:
    engine = engine_of("llama")
    message = f"layer 3, entry 0, but the model has 3 layers of {WIDTH} hidden dimensions"
    with pytest.raises(UserError, match=message), engine.perturbed(shift({3: VECTORS[0]})):
        pass
    with pytest.raises(UserError, match=f"layer 1, entry {WIDTH}, but"):
        engine.verify(shift({1: np.ones(WIDTH + 1)}), PROBE)  # though the FFN has as many neurons
    assert hooks_of(engine.model) == 0


def test_the_state_in_what_a_layer_returns() -> None:
    state, other, cache = torch.zeros(1, 2, 3), torch.ones(1, 2, 3), object()
    assert hidden_of(state) is hidden_of((state, cache)) is state
    assert with_hidden(state, other) is other
    assert with_hidden((state, cache), other) == (other, cache)
    assert with_hidden((state,), other) == (other,)


# -- the proof ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "layers"),
    [(*format, layers) for format in FORMATS for layers in ([(0, 1, 2)] if format[0] not in KINDS else [(1,), (0, 2)])],
)
def test_verify_proves_a_shift(name: str, dtype: torch.dtype, layers: tuple[int, ...]) -> None:
    engine = engine_of(name, dtype)
    baseline = logits(engine.model)
    proof = engine.verify(shifted(*layers), PROBE)
    assert proof.edited_neurons == WIDTH * len(layers)
    assert [row["layer"] for row in proof.layers] == list(layers)
    for row in proof.layers:
        # Four epsilons of the format, relative to the terms of each entry, the largest of which somewhere is the shift.
        assert row["error"] <= row["tolerance"] == 4 * torch.finfo(dtype).eps
        assert row["tolerance"] < 0.04 < 0.3 < row["change"]
    assert proof.unedited_layers_equal
    assert proof.note == ""
    with engine.perturbed(shifted(*layers)):
        change = (logits(engine.model) - baseline).abs().max().item()
    assert proof.logits_change == change > 0.05
    assert torch.equal(logits(engine.model), baseline)
    assert hooks_of(engine.model) == 0


def test_verify_measures_errors_and_changes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the terms of each entry: what is kept, what is added, and their sum, in absolute values."""
    engine = engine_of("llama")
    states: list[torch.Tensor] = []
    handle = engine.layers[1].register_forward_hook(lambda module, inputs, output: states.append(hidden_of(output)))
    logits(engine.model)
    handle.remove()
    before = states[0].double().numpy()
    keep, fill = np.full(WIDTH, 0.5), VECTORS[1]
    kept = keep * before
    expected = (np.abs(kept + fill - before) / (np.abs(kept) + np.abs(fill) + np.abs(kept + fill))).max()
    edit = replace(shifted(1), table=shifted(1).table.assign(keep=keep))
    assert engine.verify(edit, PROBE).layers[0]["change"] == pytest.approx(expected, rel=1e-12)  # float64
    monkeypatch.setattr(hf, "with_hidden", NOT_APPLIED["a copy"])
    with pytest.raises(EngineError, match=rf"by {expected:.3g} \(allowed {4 * EPSILON:.3g}; .* by {expected:.3g}\)"):
        engine.verify(edit, PROBE)


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("kind", IN_HALF)
def test_verify_notes_a_shift_too_small_to_tell(kind: str, layer: int) -> None:
    engine = engine_of(kind)
    proof = engine.verify(shifted(layer, by=1e-13), PROBE)
    assert proof.note == "the shift is too small on the probe to tell it from rounding"
    assert 0 < proof.layers[0]["change"] < proof.layers[0]["tolerance"]
    assert engine.verify(shifted(layer, by=0), PROBE).note == proof.note


def test_verify_needs_one_layer_that_can_be_told() -> None:
    proof = engine_of("llama").verify(shift({0: 1e-13 * VECTORS[0], 1: VECTORS[1]}), PROBE)
    assert proof.note == ""
    assert proof.layers[0]["change"] < proof.layers[0]["tolerance"] < proof.layers[1]["change"]


Perturb = Callable[[HfEngine, Intervention], AbstractContextManager[None]]


@contextmanager
def nothing(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    yield


@contextmanager
def what_goes_into_the_layer(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """The shift is added before the layer instead of after it."""

    def add(vector: np.ndarray, inputs: Any, options: Any) -> Any:
        fill = torch.from_numpy(vector)
        if inputs:
            return (inputs[0] + fill.to(inputs[0].dtype), *inputs[1:]), options
        return inputs, options | {"hidden_states": options["hidden_states"] + fill.to(options["hidden_states"].dtype)}

    handles = [
        engine.layers[layer].register_forward_pre_hook(
            lambda module, inputs, options, fill=fill: add(fill, inputs, options), with_kwargs=True
        )
        for layer, (_, _, fill) in intervention.by_layer().items()
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def only_the_first_position(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """As an edit that is made while the prompt is read, but not later."""

    def change(vector: np.ndarray, output: Any) -> Any:
        hidden = hidden_of(output).clone()
        hidden[:, :1] += torch.from_numpy(vector).to(hidden.dtype)
        return with_hidden(output, hidden)

    handles = [
        engine.layers[layer].register_forward_hook(lambda module, inputs, output, fill=fill: change(fill, output))
        for layer, (_, _, fill) in intervention.by_layer().items()
    ]
    yield
    for handle in handles:
        handle.remove()


def _other(change: Callable[[Intervention], Intervention]) -> Perturb:
    """A `perturbed` that does something else than it is asked."""
    return lambda engine, intervention: REAL_PERTURBED(engine, change(intervention))


def _with(**columns: Callable[[Any], Any]) -> Callable[[Intervention], Intervention]:
    return lambda intervention: replace(intervention, table=intervention.table.assign(**columns))


WRONG: dict[str, Perturb] = {
    "does nothing": nothing,
    "is before the layer": what_goes_into_the_layer,
    "is at one position": only_the_first_position,
    "is in the layer below": _other(_with(layer=lambda table: table["layer"] - 1)),
    "is in other dimensions": _other(_with(neuron=lambda table: (table["neuron"] + 1) % WIDTH)),
    "goes the other way": _other(_with(fill=lambda table: -table["fill"])),
    "is one percent longer": _other(_with(fill=lambda table: 1.01 * table["fill"])),
    "does not keep the state": _other(_with(keep=0.0)),
    "is of the neurons": _other(lambda asked: Intervention(asked.table, "product")),
    "lacks a dimension": _other(lambda asked: replace(asked, table=asked.table.iloc[1:])),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_verify_refuses_a_shift_that(kind: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the last layer, behind which there is no other one."""
    monkeypatch.setattr(HfEngine, "perturbed", WRONG[wrong])
    for layer in (1, LAST):
        with pytest.raises(
            EngineError, match=f"^the intervention did not take effect as asked: in layer {layer} the hidden state"
        ):
            engine_of(kind).verify(shifted(layer), PROBE)


@pytest.mark.parametrize("kind", IN_HALF)
def test_verify_refuses_a_shift_of_an_earlier_layer_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(kind)

    @contextmanager
    def both(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
        with REAL_PERTURBED(engine, intervention), REAL_PERTURBED(engine, shifted(0)):
            yield

    monkeypatch.setattr(HfEngine, "perturbed", both)
    with pytest.raises(EngineError, match=r"changed the hidden state of a layer before the first edited one\.$"):
        engine.verify(shifted(1), PROBE)


Result = Callable[[Any, torch.Tensor], Any]
NOT_APPLIED: dict[str, Result] = {
    "the layer's own": lambda output, hidden: output,
    "a copy": lambda output, hidden: with_hidden(output, hidden_of(output).clone()),
    "nothing, so that the hook changes nothing": lambda output, hidden: None,
}


@pytest.mark.parametrize("result", NOT_APPLIED)
@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_verify_refuses_a_shift_that_goes_elsewhere(
    name: str, dtype: torch.dtype, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shifted state is computed, but the model goes on with what the layer returned. In every family: the state is
    handed on in its own way."""
    engine = engine_of(name, dtype)
    monkeypatch.setattr(hf, "with_hidden", NOT_APPLIED[result])
    for layers in [(LAST,), (0, LAST)] if name in KINDS else [(1,)]:
        with pytest.raises(EngineError, match=f"did not take effect as asked: in layer {layers[0]} the hidden state"):
            engine.verify(shifted(*layers), PROBE)
    assert hooks_of(engine.model) == 0


@pytest.mark.parametrize("kind", IN_HALF)
def test_verify_refuses_when_only_the_last_of_several_shifts_is_missing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one changes the logits, so these say nothing of the last."""
    engine = engine_of(kind)
    first = _other(lambda asked: replace(asked, table=asked.table[asked.table["layer"] == 0]))
    monkeypatch.setattr(HfEngine, "perturbed", first)
    with pytest.raises(EngineError, match=f"did not take effect as asked: in layer {LAST}"):
        engine.verify(shifted(0, LAST), PROBE)


@contextmanager
def without_effect(engine: HfEngine, intervention: Intervention) -> Iterator[None]:
    """GPT-2's shifted state is handed on, but behind the final norm all is as without the shift."""
    stored: list[torch.Tensor] = []
    norm = engine.model.transformer.ln_f
    handle = norm.register_forward_hook(lambda module, inputs, output: stored.append(output))
    logits(engine.model)
    handle.remove()
    with REAL_PERTURBED(engine, intervention):
        handle = norm.register_forward_hook(lambda module, inputs, output: stored[0])
        yield
        handle.remove()


@pytest.mark.parametrize("layer", [1, LAST])
def test_verify_refuses_a_shift_that_never_reaches_the_logits(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("gpt2")
    monkeypatch.setattr(HfEngine, "perturbed", without_effect)
    with pytest.raises(EngineError, match=r"^the intervention changed the hidden state, but not the logits\.$"):
        engine.verify(shifted(layer), PROBE)


def test_a_shift_too_small_for_the_logits_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is proven on small entries of states; beside the largest it is rounding, and so may be all of its effect."""
    engine = engine_of("gpt2")
    monkeypatch.setattr(HfEngine, "perturbed", without_effect)
    proof = engine.verify(shifted(1, by=1e-7), PROBE)
    assert proof.layers[0]["change"] > proof.layers[0]["tolerance"]
    assert (proof.note, proof.logits_change) == ("", 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_verify_is_not_blinded_by_an_outlier(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One dimension whose states are ten thousand times larger at every token, as large models have them, widens only
    what is allowed to itself. Beside it the shift is less than rounding in bfloat16 and float16."""
    model = FAMILIES["gpt2"].build()
    with torch.no_grad():
        model.transformer.wte.weight[:, 4] = 1e4
    engine = HfEngine(model.to(dtype), None, 4, 4)
    shift_by = shifted(1, by=0.1)
    assert engine.verify(shift_by, PROBE).note == ""
    monkeypatch.setattr(hf, "with_hidden", NOT_APPLIED["a copy"])
    with pytest.raises(EngineError, match="did not take effect"):
        engine.verify(shift_by, PROBE)


def test_a_shift_that_the_number_format_cannot_hold_is_refused() -> None:
    """1e5 is infinite in float16."""
    with pytest.raises(EngineError, match="did not take effect"):
        engine_of("gpt2", torch.float16).verify(shift({1: np.full(WIDTH, 1e5)}), PROBE)


def test_an_empty_edit_of_the_residual_stream() -> None:
    empty = np.zeros(0, dtype=np.int64)
    proof = engine_of("gpt2").verify(deactivate(empty, empty, "residual"), PROBE)
    assert (proof.edited_neurons, proof.layers, proof.logits_change) == (0, [], 0.0)
    assert "empty" in proof.note
