"""What is recorded beside counts: hidden states after layers, and mean activations of sentences, in every family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.common import HALF, IN_HALF, IN_OTHER_BATCHES, PROBE, engine_of, hooks_of, logits
from engines.families import FAMILIES, LAYERS, WIDTH, Family, neurons_of
from engines.rounding import Computed
from langneurons import artifacts
from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import EngineError
from langneurons.engines.counting import SUM_STEPS
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


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.float32) for name in FAMILIES), *itertools.product(IN_HALF, HALF)]
)
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
        # The batches, of four windows and two, are added in float32, whatever the format of the summands.
        total = Computed.given(by_hand).total(4 * PROBE.shape[1], 1 / SUM_STEPS, 2)
        assert total.holds(counts.hidden_sum[layer])
        # The layers differ, so a sum of another one would be noticed.
        assert by_hand.sum(0).abs().max() > 1
        assert layer == 0 or np.abs(counts.hidden_sum[layer] - counts.hidden_sum[layer - 1]).max() > 1


def test_hidden_sums_are_those_of_transformers_own_hidden_states(name: str) -> None:
    """`hidden_states[i + 1]` is what layer i returned; the last of them may be after the final norm, so it is left to
    the test above. In float64: this is another forward pass, with six windows instead of four and two."""
    # Of its own: transformers leaves its hooks on the model.
    engine = HfEngine(FAMILIES[name].build().double(), None, 4, 4)
    counts = engine.record(PROBE)
    assert counts.hidden_sum is not None
    with torch.inference_mode():
        batch = torch.from_numpy(PROBE.astype(np.int64))
        states = engine.model(input_ids=batch, use_cache=False, output_hidden_states=True).hidden_states
    assert len(states) == LAYERS + 1
    for layer in range(LAYERS - 1):
        by_hand = states[layer + 1].flatten(0, 1).sum(0).numpy()
        assert np.abs(counts.hidden_sum[layer] - by_hand).max() <= IN_OTHER_BATCHES
    # They add up over batches.
    parts = [engine.record(PROBE[:1]), engine.record(PROBE[1:])]
    assert all(part.hidden_sum is not None for part in parts)
    difference = sum(part.hidden_sum for part in parts) - counts.hidden_sum  # type: ignore[misc, operator]
    assert np.abs(difference).max() <= IN_OTHER_BATCHES
    assert sum(part.tokens for part in parts) == counts.tokens == PROBE.size


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


KEPT = 2.0**-11
"""Means are kept in float16: half of its epsilon, and below its normal range half of its smallest step of 2**-24."""


@pytest.mark.parametrize(
    ("name", "batch_size"), [*((name, 4) for name in FAMILIES), *itertools.product(IN_HALF, (1, 100))]
)
def test_means_of_sentences_are_those_of_the_activations_by_hand(
    name: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, engine = FAMILIES[name], engine_of(name)
    before = logits(engine.model)
    monkeypatch.setattr(engine, "batch_size", batch_size)
    with family.captured(engine.model) as (inputs, _):
        found = engine.sentence_means(PROBE, SENTENCES)
    assert found.means.shape == (len(SENTENCES), LAYERS, neurons_of(family))
    assert found.means.dtype == np.float16
    assert found.tokens.tolist() == [24, 6, 5, 1, 5, 7, 14]
    assert found.tokens.dtype == np.int64
    read = [0, 1, 3, 4, 5]  # the windows that have sentences
    for layer in range(LAYERS):
        activation = family.activation(engine.model, layer, inputs[layer])
        for means, sentence in zip(found.means[:, layer], SENTENCES, strict=True):
            start = read.index(sentence.window) * PROBE.shape[1]
            rows = slice(start + sentence.start, start + sentence.stop)
            expected = Computed(activation.exact[rows], activation.error[rows]).mean()
            kept = KEPT * expected.largest + 2.0**-25
            assert Computed(expected.exact, expected.error + kept).holds(means)
            assert expected.exact.abs().max() > 0.5
    # Beside each other, sentences differ by far more than is allowed.
    assert np.abs(found.means[1].astype(np.float64) - found.means[5]).max() > 0.05
    assert torch.equal(logits(engine.model), before)
    assert hooks_of(engine.model) == 0


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("half", IN_HALF)
def test_means_of_sentences_in_half_precision(half: str, dtype: torch.dtype) -> None:
    """Summed in float32: of 24 activations of one format, not of sums rounded to it."""
    family, engine = FAMILIES[half], engine_of(half, dtype)
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
        expected = Computed.given(kept[layer]).mean()
        allowed = expected.error + KEPT * expected.largest + 2.0**-25
        assert Computed(expected.exact, allowed).holds(found.means[0, layer])


def test_a_sentence_is_read_with_what_stands_before_it() -> None:
    engine = engine_of("llama", torch.float64)
    inside = engine.sentence_means(PROBE, [Sentence(0, 10, 20), Sentence(1, 0, 10)]).means
    alone = engine.sentence_means(PROBE[:2, 10:20], [Sentence(0, 0, 10), Sentence(1, 0, 10)]).means
    changed = PROBE[:2].copy()
    changed[:, :5] += 1
    with_other_words = engine.sentence_means(changed, [Sentence(0, 10, 20), Sentence(1, 0, 10)]).means
    # In the first layer attention already sees the window, so all layers differ, by far more than rounding.
    assert (np.abs(inside[0] - alone[0]).max(axis=1) > 0.01).all()
    assert (np.abs(inside[0] - with_other_words[0]).max(axis=1) > 0.01).all()
    # What comes after a sentence does not count: attention looks back only. Computed in float64 and summed in float32,
    # means may be kept as neighbours in float16.
    cut = engine.sentence_means(PROBE[:2, :20], [Sentence(0, 10, 20), Sentence(1, 0, 10)]).means
    one_step = 2 * KEPT * np.abs(inside.astype(np.float64)) + 2.0**-24
    assert (np.abs(inside.astype(np.float64) - cut) <= one_step).all()


def test_only_windows_with_sentences_are_run() -> None:
    engine = engine_of("gpt2")
    rows: list[int] = []
    handle = engine.model.base_model.register_forward_hook(
        lambda module, inputs, options, output: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    engine.sentence_means(PROBE, SENTENCES)
    handle.remove()
    assert rows == [4, 1]  # windows 0, 1, 3, 4, then 5


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
