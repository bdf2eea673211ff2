"""Batches that do not fit into memory: halved, begun anew, and nothing counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from engines.common import IN_OTHER_BATCHES
from engines.families import FAMILIES, LAYERS, VOCABULARY
from engines.rounding import UNIT
from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import EngineError, Sampling
from langneurons.engines.batching import in_batches
from langneurons.engines.hf import HfEngine
from langneurons.neurons.counting import ActivationCounts

WINDOWS = np.random.default_rng(3).integers(0, VOCABULARY, (13, 24)).astype(np.uint32)
PROMPTS = [" ".join(f"t{token}" for token in window[:length]) for length, window in enumerate(WINDOWS, 1)]
SENTENCES = [Sentence(window, start, start + 5) for window in (0, 1, 2, 4, 7, 11, 12) for start in (0, 9)]
NEW = 6


# -- the loop ---------------------------------------------------------------------------------------------------------


def refuse(number: int) -> EngineError:
    return EngineError(f"item {number} is too large")


def limited(limit: int, seen: list[list[int]], error: Exception | None = None) -> Callable[[Sequence[int]], list[int]]:
    """Squares of a batch; a larger one runs out of memory."""

    def compute(batch: Sequence[int]) -> list[int]:
        seen.append(list(batch))
        if len(batch) > limit:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [number**2 for number in batch]

    return compute


def test_batches_that_fit() -> None:
    seen: list[list[int]] = []
    results, size = in_batches(range(3, 10), 3, limited(3, seen), refuse, "counting", "window")
    assert seen == [[3, 4, 5], [6, 7, 8], [9]]
    assert results == [[9, 16, 25], [36, 49, 64], [81]]
    assert size == 3


@pytest.mark.parametrize(
    "error",
    [None, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")],
    ids=["GPU", "Python", "CPU"],
)
def test_the_batch_is_halved_until_it_fits(error: Exception | None) -> None:
    seen: list[list[int]] = []
    results, size = in_batches(range(10), 9, limited(2, seen, error), refuse, "counting", "window")
    assert [len(batch) for batch in seen] == [9, 4, 2, 2, 2, 2, 2]
    assert [number for batch in results for number in batch] == [number**2 for number in range(10)]
    assert size == 2


def test_a_size_above_the_number_of_items_is_halved_from_their_number() -> None:
    seen: list[list[int]] = []
    assert in_batches([5, 7, 9], 100, limited(1, seen), refuse, "counting", "window") == ([[25], [49], [81]], 1)
    assert [len(batch) for batch in seen] == [3, 1, 1, 1]


def test_later_items_may_need_more_memory_than_earlier_ones() -> None:
    def compute(batch: Sequence[int]) -> int:
        if sum(batch) > 10:
            raise torch.OutOfMemoryError
        return sum(batch)

    assert in_batches([1, 2, 3, 4, 5, 6, 7], 4, compute, refuse, "counting", "window") == ([10, 5, 6, 7], 1)


def test_a_single_item_that_does_not_fit_is_refused() -> None:
    with pytest.raises(EngineError, match="item 8 is too large"):
        in_batches([8, 9], 2, limited(0, []), refuse, "counting", "window")


def test_other_errors_are_not_about_the_size() -> None:
    seen: list[list[int]] = []
    with pytest.raises(RuntimeError, match="shapes do not match"):
        in_batches(range(8), 4, limited(2, seen, RuntimeError("shapes do not match")), refuse, "counting", "window")
    assert len(seen) == 1


def test_no_items() -> None:
    assert in_batches([], 4, limited(4, []), refuse, "counting", "window") == ([], 4)


def test_what_is_said_meanwhile(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar counts items, so that it ends at their number whatever the batches are."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    in_batches(range(10), 8, limited(4, []), refuse, "counting", "window")
    shown = capsys.readouterr().err
    assert "counting: memory ran out with a batch of 8; going on with 4\n" in shown
    assert "10/10" in shown
    assert "window/s" in shown


# -- the engine -------------------------------------------------------------------------------------------------------


def tokenizer() -> Any:
    """The words t0 to t199."""
    words = {f"t{token}": token for token in range(VOCABULARY)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="t0", pad_token="t0", padding_side="left"
    )


def engine_of(name: str, size: int) -> HfEngine:
    """In float64, where batches of other sizes change no count, no choice of a token, and sums in their last bits."""
    return HfEngine(FAMILIES[name].build().double(), tokenizer(), batch_size=size, generation_batch_size=size)


@contextmanager
def memory_for(engine: HfEngine, limit: int, layer: int = LAYERS - 1, calls: int = 0) -> Iterator[list[int]]:
    """Larger batches run out of memory in this layer, when those before it have been recorded, after so many calls."""
    seen: list[int] = []

    def allocate(module: Any, inputs: Any, options: dict[str, Any]) -> None:
        rows = len(inputs[0] if inputs else options["hidden_states"])
        seen.append(rows)
        if rows > limit and len(seen) > calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = engine.layers[layer].register_forward_pre_hook(allocate, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def assert_same(found: ActivationCounts, expected: ActivationCounts) -> None:
    assert found.tokens == expected.tokens
    for name in ("over_zero", "activation_sum", "product_sum", "hidden_sum"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(("name", "layer"), [("llama", 0), ("gpt2", 1), ("phi3", LAYERS - 1)])
def test_recording_equals_that_with_the_small_batch(name: str, layer: int) -> None:
    """Memory runs out in the first batch: all that follows is as if the size had been small from the start."""
    engine = engine_of(name, 12)
    with memory_for(engine, 3, layer) as rows:
        found = engine.record(WINDOWS)
    assert rows == [12, 6, 3, 3, 3, 3, 1]
    assert found.tokens == WINDOWS.size
    assert_same(found, engine_of(name, 3).record(WINDOWS))
    assert engine.batch_size == 3
    assert engine.generation_batch_size == 12


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_nothing_is_counted_twice_where_memory_runs_out_later(name: str) -> None:
    """Two batches of 4 are recorded, the third fails in its last layer. Counts are exact."""
    engine = engine_of(name, 4)
    with memory_for(engine, 2, calls=2) as rows:
        found = engine.record(WINDOWS)
    assert rows == [4, 4, 4, 2, 2, 1]
    expected = engine_of(name, 2).record(WINDOWS)
    assert found.tokens == WINDOWS.size
    np.testing.assert_array_equal(found.over_zero, expected.over_zero)
    for sums in ("activation_sum", "product_sum", "hidden_sum"):
        np.testing.assert_allclose(getattr(found, sums), getattr(expected, sums), rtol=0, atol=IN_OTHER_BATCHES)


def test_the_size_is_kept_for_the_rest_of_the_job() -> None:
    engine = engine_of("llama", 8)
    with memory_for(engine, 4) as rows:
        engine.record(WINDOWS[:8])
        engine.sentence_means(WINDOWS, SENTENCES)
        engine.token_nll(WINDOWS[:8])
    assert rows == [8, 4, 4, 4, 3, 4, 4]


def test_sentence_means_equal_those_with_the_small_batch() -> None:
    engine = engine_of("llama", 6)
    with memory_for(engine, 2) as rows:
        found = engine.sentence_means(WINDOWS, SENTENCES)
    assert rows == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    expected = engine_of("llama", 1).sentence_means(WINDOWS, SENTENCES)
    np.testing.assert_array_equal(found.means, expected.means)
    np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_nll_equals_that_with_the_small_batch() -> None:
    """To rounding, which depends on the size of the batch: logits become log-likelihoods in float32, where each of 200
    summands and a few times the largest logit, less than 100, are rounded by half an epsilon."""
    engine = engine_of("gpt2", 13)
    with memory_for(engine, 5) as rows:
        found = engine.token_nll(WINDOWS)
    assert rows == [13, 6, 3, 3, 3, 3, 1]
    np.testing.assert_array_equal(found.tokens, [23] * 13)
    np.testing.assert_array_equal(found.nll_sum, engine_of("gpt2", 3).token_nll(WINDOWS).nll_sum)
    whole = engine_of("gpt2", 13).token_nll(WINDOWS).nll_sum
    np.testing.assert_allclose(found.nll_sum, whole, rtol=0, atol=2 * 23 * (VOCABULARY + 400) * UNIT)


@pytest.mark.parametrize("calls", [0, 3], ids=["in the prompt", "after three tokens"])
def test_answers_equal_those_of_any_batch(calls: int) -> None:
    engine = engine_of("llama", 13)
    sampling = Sampling(NEW, repetition_penalty=1.3)
    expected = engine.generate(PROMPTS, sampling)
    with memory_for(engine, 4, calls=calls) as rows:
        assert engine.generate(PROMPTS, sampling) == expected
    assert rows[: calls + 3] == [13] * (calls + 1) + [6, 3]
    assert engine.generation_batch_size == 3
    assert engine.batch_size == 13


def test_sampled_answers_equal_those_with_the_small_batch() -> None:
    sampling = Sampling(NEW, temperature=1.0, seed=5)
    engine = engine_of("gpt2", 13)
    with memory_for(engine, 4):
        found = engine.generate(PROMPTS, sampling)
    assert found == engine_of("gpt2", 3).generate(PROMPTS, sampling)


REMEDIES = r"a narrower number format \('dtype'\), more GPUs \('gpus'\) or a machine with more memory\.$"


@pytest.mark.parametrize("method", ["record", "token_nll", "sentence_means"])
def test_a_single_window_that_does_not_fit(method: str) -> None:
    engine = engine_of("llama", 4)
    arguments = [WINDOWS, SENTENCES] if method == "sentence_means" else [WINDOWS]
    remedies = rf"Use shorter windows \('corpora\.window', or 'window' of the model\), {REMEDIES}"
    with (
        memory_for(engine, 0) as rows,
        pytest.raises(
            EngineError,
            match=rf"^the model 'LlamaForCausalLM' ran out of memory with a single window of 24 tokens\. {remedies}",
        ),
    ):
        getattr(engine, method)(*arguments)
    assert rows == [4, 2, 1]


def test_a_single_prompt_that_does_not_fit() -> None:
    """The longest comes first."""
    engine = engine_of("llama", 2)
    remedies = rf"Use a lower generation\.max_new_tokens, {REMEDIES}"
    with (
        memory_for(engine, 0),
        pytest.raises(
            EngineError, match=rf"ran out of memory with a single prompt of 13 tokens and 6 new ones\. {remedies}"
        ),
    ):
        engine.generate(PROMPTS, Sampling(NEW))
