"""Edits as edits of weights: equal to what hooks do, and undone bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from engines.common import HALF, IN_DOUBLE, IN_HALF, engine_of, hooks_of, logits
from engines.families import FAMILIES
from langneurons.engines.base import EngineError
from langneurons.engines.folding import check_compiled, folds
from langneurons.engines.hf import AffineEdit, HfEngine
from langneurons.interventions import Intervention, activate, affine, deactivate

GATED = [name for name, family in FAMILIES.items() if family.gated]
LAYERS, NEURONS = np.array([0, 0, 1, 2, 2]), np.array([3, 17, 40, 5, 6])


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def raised(site: str) -> Intervention:
    return affine(LAYERS, NEURONS, 0.5, np.linspace(-2, 3, 5), site)  # type: ignore[arg-type]


def state(engine: HfEngine) -> dict[str, Any]:
    return {key: value.clone() for key, value in engine.model.state_dict().items()}


def with_hooks(engine: HfEngine, intervention: Intervention) -> torch.Tensor:
    """Logits where the product is edited by hooks on the down projection, as a check of another kind."""
    handles = []
    for layer, (neurons, keep, fill) in intervention.by_layer().items():
        edit = AffineEdit(neurons, keep, fill, engine.shape[1], engine.model.dtype, engine.model.device)
        down = engine.layers[layer].get_submodule(engine.layout.down)
        handles.append(down.register_forward_pre_hook(lambda module, inputs, edit=edit: (edit(inputs[0]),)))
    found = logits(engine.model)
    for handle in handles:
        handle.remove()
    return found


FORMATS = [*((name, torch.float32) for name in FAMILIES), *itertools.product(IN_HALF, HALF)]


@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_switching_off_is_bit_equal_to_hooks(name: str, dtype: torch.dtype) -> None:
    """A weight of zero and a product of zero add the same zeros."""
    engine = engine_of(name, dtype)
    intervention = deactivate(LAYERS, NEURONS)
    expected = with_hooks(engine, intervention)
    with engine.perturbed(intervention):
        assert hooks_of(engine.model) == 0
        assert torch.equal(logits(engine.model), expected)
    assert not torch.equal(logits(engine.model), expected)


def test_fills_equal_hooks_within_rounding(name: str) -> None:
    """In float64, since sums are rounded in another order."""
    engine = engine_of(name, torch.float64)
    expected = with_hooks(engine, raised("product"))
    with engine.perturbed(raised("product")):
        assert hooks_of(engine.model) == 0
        found = logits(engine.model)
    assert (found - expected).abs().max() < IN_DOUBLE * expected.abs().max()
    assert (found - logits(engine.model)).abs().max() > 1e-2 * expected.abs().max()


@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_weights_come_back_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    """Also after an error, and where blocks are nested; a bias that was made for the edit is gone."""
    engine = engine_of(name, dtype)
    before = state(engine)
    inside: dict[str, Any] = {}
    with pytest.raises(KeyError), engine.perturbed(raised("product")), engine.perturbed(deactivate(LAYERS, NEURONS)):
        raise KeyError(inside.update(state(engine)))
    assert any(not torch.equal(inside[key], before[key]) for key in before)
    after = state(engine)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_which_edits_are_of_weights(name: str) -> None:
    gated = FAMILIES[name].gated
    means = np.ones((3, 80))
    assert folds(deactivate(LAYERS, NEURONS), gated)
    assert folds(raised("product"), gated)
    assert folds(activate(LAYERS, NEURONS, means, 2, "set", "activation"), gated) is not gated
    assert not folds(raised("residual"), gated)


def test_compiled_models_refuse_hooks() -> None:
    check_compiled(raised("activation"), gated=False)
    for intervention, gated in ((raised("activation"), True), (raised("residual"), False)):
        with pytest.raises(EngineError, match=f"site '{intervention.site}'.*needs hooks.*Set the model's key 'eager'"):
            check_compiled(intervention, gated)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_compiled_engine_has_biases_that_edits_reach_in_place(name: str) -> None:
    """Graphs know the address of a bias: it must be there before, and stay the same tensor."""
    engine = HfEngine(FAMILIES[name].build().double(), None, batch_size=4, generation_batch_size=4)
    before = logits(engine.model)
    engine.compile()
    assert engine.description["mode"] == "compiled"
    biases = [engine.layers[layer].get_submodule(engine.layout.down).bias for layer in range(3)]
    assert torch.allclose(logits(engine.model), before, rtol=0, atol=IN_DOUBLE * before.abs().max().item())
    values = [bias.clone() for bias in biases]  # type: ignore[operator]
    with engine.perturbed(raised("product")):
        for layer in range(3):
            bias = engine.layers[layer].get_submodule(engine.layout.down).bias
            assert bias is biases[layer]
            assert not torch.equal(bias, values[layer])  # type: ignore[arg-type]
    assert all(torch.equal(bias, value) for bias, value in zip(biases, values, strict=True))  # type: ignore[arg-type]
    if engine.layout.gated:
        with pytest.raises(EngineError, match="needs hooks"), engine.perturbed(raised("activation")):
            pass
