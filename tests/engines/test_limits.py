"""What a model cannot read is refused before it reads, with the numbers and the key to change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers

from engines.common import PROBE, engine_of
from engines.families import CONTEXT, FAMILIES, VOCABULARY
from engines.test_loading import tiny_tokenizer
from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import EngineError, Sampling
from langneurons.engines.hf import HfEngine
from langneurons.engines.limits import Limits
from langneurons.interventions import deactivate

LEARNED = ("gpt2", "opt-norm-before")
"""Families with learned positions, of which there are no more; Llama's go on in silence."""
READ: dict[str, Any] = {
    "record": lambda engine, windows: engine.record(windows),
    "counts": lambda engine, windows: engine.record(windows, sums=False),
    "sentences": lambda engine, windows: engine.sentence_means(windows, [Sentence(0, 0, 4), Sentence(0, 4, 8)]),
    "perplexity": lambda engine, windows: engine.token_nll(windows),
    "proof": lambda engine, windows: engine.verify(deactivate(np.array([0]), np.array([1])), windows),
}


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("name", ["llama", *LEARNED])
def test_windows_beyond_the_model(name: str, read: str) -> None:
    engine = engine_of(name)
    beyond = PROBE.copy()
    beyond[-1, -1] = VOCABULARY
    with pytest.raises(EngineError, match=rf"windows have the token {VOCABULARY}, .* only those below {VOCABULARY}"):
        READ[read](engine, beyond)
    longer = np.zeros((1, CONTEXT + 1), dtype=np.uint32)
    with pytest.raises(
        EngineError, match=rf"windows have {CONTEXT + 1} tokens, .* is {CONTEXT}\. Lower 'corpora.window'"
    ):
        READ[read](engine, longer)
    READ[read](engine, longer[:, :CONTEXT])


def test_the_prompt_that_is_too_long_is_named() -> None:
    limits = Limits("tiny", 200, 10)
    limits.check_prompts([[1] * 4, [1] * 6], 4)
    for names, which in ((["en-001", "de-007"], ", de-007,"), ((), "")):
        with pytest.raises(EngineError) as caught:
            limits.check_prompts([[1] * 4, [1] * 7], 4, names)
        assert str(caught.value) == (
            f"the longest prompt{which} has 7 tokens; with generation.max_new_tokens = 4 it exceeds the context of 10 "
            "of the model 'tiny'. Lower generation.max_new_tokens to 3 or less."
        )
    with pytest.raises(EngineError, match=r"Shorten that question, or 'generation\.template'"):
        limits.check_prompts([[1] * 12], 4)
    limits.check_prompts([], 4)


def engine_with(tokenizer: Any) -> HfEngine:
    return HfEngine(FAMILIES["llama"].build(), tokenizer, batch_size=2, generation_batch_size=2)


def test_an_ordinary_token_that_ends_answers_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = FAMILIES["llama"].build()
    tokenizer = tiny_tokenizer(eos_token="t0", pad_token="t0")
    for end, said in ((0, False), (5, True), ([0, 5], True)):
        model.generation_config = transformers.GenerationConfig(eos_token_id=end)
        HfEngine(model, tokenizer, batch_size=2, generation_batch_size=2)
        assert ("ends its answers at the token 5" in capsys.readouterr().err) == said


def test_a_larger_tokenizer_is_said_and_its_surplus_refused(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tiny_tokenizer(eos_token="t0", pad_token="t0")
    tokenizer.add_tokens([f"more{number}" for number in range(5)])
    engine = engine_with(tokenizer)
    assert f"has {VOCABULARY + 5} entries, but the model only {VOCABULARY}" in capsys.readouterr().err
    engine.generate(["t1 t2"], Sampling(2))
    with pytest.raises(
        EngineError, match=rf"prompts have the token {VOCABULARY + 4}, .* only those below {VOCABULARY}"
    ):
        engine.generate(["t1", "t2 more4"], Sampling(2))


def test_an_end_token_beyond_the_model_is_refused() -> None:
    model = FAMILIES["llama"].build()
    model.generation_config.eos_token_id = [1, VOCABULARY]
    with pytest.raises(EngineError, match=rf"end an answer .* have the token {VOCABULARY}"):
        HfEngine(model, None, 2, 2)


def test_prompts_and_answers_beyond_the_context() -> None:
    engine = engine_with(tiny_tokenizer(eos_token="t0", pad_token="t0"))
    long = " ".join(["t1"] * (CONTEXT - 3))
    engine.generate([long], Sampling(3))
    with pytest.raises(EngineError, match=r"Lower generation\.max_new_tokens to 3 or less"):
        engine.generate(["t1", long], Sampling(4))
    with pytest.raises(EngineError, match=r"Shorten that question, or 'generation\.template'"):
        engine.generate([long + " t1 t1 t1"], Sampling(1))


def test_without_a_limit_in_the_config_windows_may_be_long() -> None:
    """BLOOM's positions have none."""
    engine_of("bloom").record(np.zeros((1, 2 * CONTEXT), dtype=np.uint32))
