"""What is recorded beside counts: hidden states after layers, and mean activations of sentences, in every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.common import EPSILON, HALF, PROBE, engine_of, hooks_of, logits
from engines.families import FAMILIES, LAYERS, WIDTH, Family, neurons_of
from langneurons import artifacts
from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import EngineError
from langneurons.engines.hf import HfEngine
from langneurons.engines.recording import Recorder
from langneurons.errors import UserError


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    chosen: str = request.param
    return chosen


@contextmanager
def layer_outputs(family: Family, model: Any) -> Iterator[dict[int, torch.Tensor]]:
    """What each layer returns while the block runs, [token, width], in the model's number format."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        flat = hidden.detach().flatten(0, -2).clone()
        found[layer] = torch.cat([found[layer], flat]) if layer in found else flat

    handles = [
        model.get_submodule(family.layer.format(layer)).register_forward_hook(
            lambda module, inputs, output, layer=layer: keep(layer, output)
        )
        for layer in range(LAYERS)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


# -- hidden states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_hidden_sums_are_those_of_the_layers_outputs(name: str, dtype: torch.dtype) -> None:
    """Of the same forward passes, by a hook of our own, summed in float64."""
    family, engine = FAMILIES[name], engine_of(name, dtype)
    with layer_outputs(family, engine.model) as outputs:
        counts = engine.record(PROBE)
    assert counts.hidden_sum is not None
    assert counts.hidden_sum.dtype == np.float64
    assert counts.hidden_sum.shape == (LAYERS, WIDTH)
    for layer in range(LAYERS):
        assert outputs[layer].shape == (PROBE.size, WIDTH)
        by_hand = outputs[layer].double()
        # Up to 96 summands of a batch are added in float32, whatever their own format: at most as many roundings of
        # half an epsilon of the absolute sum, in practice a few.
        allowed = 16 * EPSILON * by_hand.abs().sum(0).numpy()
        assert (np.abs(counts.hidden_sum[layer] - by_hand.sum(0).numpy()) <= allowed).all()
        # The layers differ, so a sum of another one would be noticed.
        assert by_hand.sum(0).abs().max() > 1
        assert layer == 0 or np.abs(counts.hidden_sum[layer] - counts.hidden_sum[layer - 1]).max() > 1


def test_hidden_sums_are_those_of_transformers_own_hidden_states(name: str) -> None:
    """`hidden_states[i + 1]` is what layer i returned; the last of them may be after the final norm, so it is left to
    the test above."""
    engine = HfEngine(FAMILIES[name].build(), None, 4, 4)  # of its own: transformers leaves its hooks on the model
    counts = engine.record(PROBE)
    assert counts.hidden_sum is not None
    with torch.inference_mode():
        batch = torch.from_numpy(PROBE.astype(np.int64))
        states = engine.model(input_ids=batch, use_cache=False, output_hidden_states=True).hidden_states
    assert len(states) == LAYERS + 1
    for layer in range(LAYERS - 1):
        by_hand = states[layer + 1].double().flatten(0, 1)
        # Another forward pass, with six windows instead of four and two: single states differ by some roundings of
        # the vectors of length 32 to 128 that they are made of.
        allowed = 256 * EPSILON * by_hand.abs().sum(0).numpy()
        assert (np.abs(counts.hidden_sum[layer] - by_hand.sum(0).numpy()) <= allowed).all()


def test_hidden_sums_add_up_over_batches(name: str) -> None:
    engine = engine_of(name)
    whole = engine.record(PROBE)
    parts = [engine.record(PROBE[:1]), engine.record(PROBE[1:])]
    assert whole.hidden_sum is not None
    assert all(part.hidden_sum is not None for part in parts)
    scale = np.abs(whole.hidden_sum).max(axis=1, keepdims=True)
    difference = np.abs(sum(part.hidden_sum for part in parts) - whole.hidden_sum)  # type: ignore[misc, operator]
    assert (difference <= 1e-5 * scale).all()  # float32 in other batches
    assert sum(part.tokens for part in parts) == whole.tokens == PROBE.size


def test_hidden_states_that_are_not_finite_are_refused(name: str) -> None:
    """Behind the last activation nothing else would tell."""
    family = FAMILIES[name]
    model = family.build()
    with torch.no_grad():
        raw = family.module(model, LAYERS - 1, family.down).get_parameter("weight")
        raw[0, 0] = float("nan")
    with pytest.raises(EngineError, match=r"^hidden states are NaN or infinite\. .*float32\.$"):
        HfEngine(model, None, 4, 4).record(PROBE)


@pytest.mark.parametrize("lost", ["activation", "product", "hidden"])
def test_a_layer_that_was_not_seen_is_refused(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("llama")
    recorder = Recorder(engine.layers, engine.layout, engine.shape, engine.width)
    hook = getattr(recorder, f"_{lost}")
    monkeypatch.setattr(
        recorder, f"_{lost}", lambda layer, module, *values: hook(layer, module, *values) if layer != 1 else None
    )
    with recorder.attached(), torch.inference_mode():
        engine.model(input_ids=torch.from_numpy(PROBE.astype(np.int64)))
    with pytest.raises(EngineError, match="layer 1 was not recorded"):
        recorder.collect(PROBE.size)


def test_counts_without_sums(name: str) -> None:
    engine = engine_of(name)
    whole, counts = engine.record(PROBE), engine.record(PROBE, sums=False)
    np.testing.assert_array_equal(counts.over_zero, whole.over_zero)
    assert counts.tokens == whole.tokens
    assert counts.activation_sum is counts.product_sum is counts.hidden_sum is None
    assert hooks_of(engine.model) == 0


def test_counts_alone_end_a_forward_pass_at_the_last_activation(name: str) -> None:
    """What follows it is not computed, nothing stays hooked, and the next pass of the model is whole."""
    engine = engine_of(name)
    before, called = logits(engine.model), []
    layout = engine.layout
    handles = [
        layer.get_submodule(layout.down).register_forward_hook(lambda *_, number=number: called.append(number))
        for number, layer in enumerate(engine.layers)
    ]
    try:
        engine.record(PROBE[:1], sums=False)
        assert called == list(range(LAYERS - 1))
        engine.record(PROBE[:1])
        assert called == [*range(LAYERS - 1), *range(LAYERS)]
    finally:
        for handle in handles:
            handle.remove()
    assert torch.equal(logits(engine.model), before)


def test_counts_without_sums_are_kept_as_they_are(tmp_path: Path) -> None:
    counts = engine_of("llama").record(PROBE, sums=False)
    artifacts.write_activations(tmp_path / "counts.safetensors", counts, {})
    found, _ = artifacts.read_activations(tmp_path / "counts.safetensors")
    np.testing.assert_array_equal(found.over_zero, counts.over_zero)
    assert found.tokens == PROBE.size
    assert found.activation_sum is found.product_sum is found.hidden_sum is None


# -- sentences ---------------------------------------------------------------------------------------------------------

SENTENCES = [
    Sentence(4, 0, 24),  # a whole window
    Sentence(0, 3, 9),
    Sentence(0, 15, 20),
    Sentence(5, 23, 24),  # one token, the last
    Sentence(1, 0, 5),
    Sentence(0, 5, 12),  # overlaps
    Sentence(3, 10, 24),
]
"""In no order; none of window 2."""


def activations(family: Family, engine: HfEngine) -> torch.Tensor:
    """Activations worked out by hand from the FFN inputs of a forward pass, float64 [layer, window, position,
    neuron]."""
    with torch.inference_mode(), family.captured(engine.model) as (inputs, _):
        logits(engine.model)
    by_layer = [family.activation(engine.model, layer, inputs[layer]) for layer in range(LAYERS)]
    return torch.stack(by_layer).unflatten(1, PROBE.shape)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_means_of_sentences_are_those_of_the_activations_by_hand(
    name: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, engine = FAMILIES[name], engine_of(name)
    monkeypatch.setattr(engine, "batch_size", batch_size)
    found = engine.sentence_means(PROBE, SENTENCES)
    by_hand = activations(family, engine)
    assert found.means.shape == (len(SENTENCES), LAYERS, neurons_of(family))
    assert found.means.dtype == np.float16
    assert found.tokens.tolist() == [24, 6, 5, 1, 5, 7, 14]
    assert found.tokens.dtype == np.int64
    for means, sentence in zip(found.means, SENTENCES, strict=True):
        expected = by_hand[:, sentence.window, sentence.start : sentence.stop].mean(dim=1).numpy()
        # Kept in float16: half of its epsilon of 2**-10, and below its normal range half of its smallest step of
        # 2**-24. Computed in float32: 1e-5.
        allowed = 2.0**-11 * np.abs(expected) + 2.0**-25 + 1e-5
        assert (np.abs(means - expected) <= allowed).all()
        assert np.abs(expected).max() > 0.5
    # Beside each other, sentences differ by far more than is allowed.
    assert np.abs(found.means[1].astype(np.float64) - found.means[5]).max() > 0.05


@pytest.mark.parametrize("dtype", HALF)
def test_means_of_sentences_in_half_precision(name: str, dtype: torch.dtype) -> None:
    """Summed in float32: of 24 activations of one format, not of sums rounded to it."""
    family, engine = FAMILIES[name], engine_of(name, dtype)
    kept: dict[int, torch.Tensor] = {}
    handles = [
        engine._module(layer, engine.layout.activation).register_forward_hook(
            lambda module, inputs, output, layer=layer: kept.update({layer: output.detach().double().flatten(0, -2)})
        )
        for layer in range(LAYERS)
    ]
    found = engine.sentence_means(PROBE, [Sentence(4, 0, 24), Sentence(4, 0, 1)])  # the only window that is run
    for handle in handles:
        handle.remove()
    for layer in range(LAYERS):
        assert kept[layer].shape == (24, neurons_of(family))
        expected = kept[layer].mean(dim=0).numpy()
        # As above, and a few roundings of float32 relative to the largest terms.
        allowed = 2.0**-11 * np.abs(expected) + 2.0**-25 + 8 * EPSILON * kept[layer].abs().mean(dim=0).numpy()
        assert (np.abs(found.means[0, layer] - expected) <= allowed).all()


def test_a_sentence_is_read_with_what_stands_before_it() -> None:
    engine = engine_of("llama")
    inside = engine.sentence_means(PROBE, [Sentence(0, 10, 20), Sentence(1, 0, 10)]).means
    alone = engine.sentence_means(PROBE[:2, 10:20], [Sentence(0, 0, 10), Sentence(1, 0, 10)]).means
    changed = PROBE[:2].copy()
    changed[:, :5] += 1
    with_other_words = engine.sentence_means(changed, [Sentence(0, 10, 20), Sentence(1, 0, 10)]).means
    # In the first layer attention already sees the window, so all layers differ, by far more than rounding.
    assert (np.abs(inside[0] - alone[0]).max(axis=1) > 0.01).all()
    assert (np.abs(inside[0] - with_other_words[0]).max(axis=1) > 0.01).all()
    # What comes after a sentence does not count: attention looks back only.
    cut = engine.sentence_means(PROBE[:2, :20], [Sentence(0, 10, 20), Sentence(1, 0, 10)]).means
    assert np.abs(inside - cut).max() < 2e-3


def test_only_windows_with_sentences_are_run() -> None:
    engine = engine_of("gpt2")
    rows: list[int] = []
    handle = engine.model.base_model.register_forward_hook(
        lambda module, inputs, options, output: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    engine.sentence_means(PROBE, SENTENCES)
    handle.remove()
    assert rows == [4, 1]  # windows 0, 1, 3, 4, then 5


def test_recording_sentences_leaves_no_hook(name: str) -> None:
    engine = engine_of(name)
    before = logits(engine.model)
    engine.sentence_means(PROBE, SENTENCES)
    assert torch.equal(logits(engine.model), before)
    assert hooks_of(engine.model) == 0


def broken(value: float) -> HfEngine:
    """A model in which one neuron's activation has this value everywhere."""
    family = FAMILIES["opt-norm-before"]
    model = family.build()
    with torch.no_grad():
        family.module(model, 1, "fc1").get_parameter("weight")[5] = 0
        family.module(model, 1, "fc1").get_parameter("bias")[5] = value
    return HfEngine(model, None, 4, 4)


def test_means_that_float16_cannot_hold() -> None:
    """Not infinite: a wider number format of the model would not help."""
    with pytest.raises(UserError) as caught:
        broken(7e4).sentence_means(PROBE, SENTENCES)
    assert str(caught.value) == (
        "mean activations of sentences exceed what float16 holds, in which they are kept, in layer 1. Leave out the "
        "methods that need them (identification.method, identification.compare): average-precision, probe."
    )
    largest = broken(65504).sentence_means(PROBE, SENTENCES).means
    assert (largest[:, 1, 5] == 65504).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_means_that_are_not_finite(value: float) -> None:
    with pytest.raises(EngineError, match=r"NaN or infinite, first in sentence 0, layer 1, neuron 5\b.*float32\.$"):
        broken(value).sentence_means(PROBE, SENTENCES)


def test_one_sentence_is_too_few_for_a_comparison() -> None:
    """But not for the recorder, whose caller asks for at least ten."""
    engine = engine_of("gpt2")
    with pytest.raises(UserError, match="at least two are needed"):
        engine.sentence_means(PROBE, SENTENCES[:1])
