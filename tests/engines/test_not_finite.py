"""Numbers that are not finite end a job, wherever they come from: a weight that is NaN, or one that is too large."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engines.common import PROBE
from engines.families import FAMILIES, LAYERS
from engines.test_loading import tiny_tokenizer
from langneurons.engines.base import EngineError, Sampling
from langneurons.engines.hf import HfEngine
from langneurons.interventions import deactivate

NEURON = 5
SPOILT = {
    "gate": ("mlp.gate_proj", (NEURON, slice(None)), 0, NEURON, "these neurons"),
    "down": ("mlp.down_proj", (0, 0), 1, 0, "from the down projection of layer 0 on"),
}
"""A weight of layer 0 that is spoilt, where that is seen first, and what the message says of the cause."""


def spoilt(name: str, value: float = math.nan, layer: int = 0) -> HfEngine:
    """A tiny Llama with one weight, or row of weights, that is not a number."""
    family = FAMILIES["llama"]
    model = family.build()
    module, where, *_ = SPOILT[name]
    with torch.no_grad():
        family.module(model, layer, module).get_parameter("weight")[where] = value
    return HfEngine(model, tiny_tokenizer(eos_token="t0", pad_token="t0"), batch_size=2, generation_batch_size=2)


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_counts_alone_name_layer_and_neuron(name: str, value: float) -> None:
    """They would be zero: NaN is not above it."""
    _, _, layer, neuron, cause = SPOILT[name]
    if value == math.inf and name == "gate":
        value = -math.inf  # of a large positive one the activation is infinite or NaN, by the sign of the input
    with pytest.raises(EngineError, match=rf"NaN or infinite in layer {layer}, first in neuron {neuron}\..*{cause}"):
        spoilt(name, value).record(PROBE, sums=False)


def test_counts_alone_see_what_only_a_later_batch_has() -> None:
    """A token whose embedding overflows, in the last window alone."""
    engine = spoilt("gate", 0.5)
    windows = np.where(PROBE == 7, 8, PROBE)
    windows[-1, 0] = 7
    with torch.no_grad():
        engine.model.get_input_embeddings().weight[7] = math.inf
    assert len(windows) > engine.batch_size
    engine.record(windows[:-1], sums=False)
    with pytest.raises(EngineError, match="NaN or infinite in layer 0"):
        engine.record(windows, sums=False)


@pytest.mark.parametrize("name", SPOILT)
def test_sums_answers_losses_and_proofs(name: str) -> None:
    engine = spoilt(name)
    with pytest.raises(EngineError, match="NaN or infinite"):
        engine.record(PROBE)
    with pytest.raises(EngineError, match="scores of the next token are NaN or infinite"):
        engine.generate(["t1 t2 t3"], Sampling(4))
    with pytest.raises(EngineError, match="log-likelihoods are NaN or infinite"):
        engine.token_nll(PROBE)


def test_a_proof_needs_logits_that_are_numbers() -> None:
    """The edited layer is sound; what is not comes after it."""
    engine = spoilt("down", layer=LAYERS - 1)
    with pytest.raises(EngineError, match="logits, with or without the intervention, are NaN or infinite"):
        engine.verify(deactivate(np.array([0]), np.array([NEURON])), PROBE)
