"""Reading and writing text, on two small trained models: Llama style (rotary positions), GPT-2 style (learned ones).

Models are in float64, so texts of two computations that differ in rounding (with padding and cache, without) are
compared exactly: they only part where two tokens tie to the last bit or two of the float32 in which they are chosen.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from engines.common import IN_OTHER_BATCHES
from engines.families import FAMILIES, VOCABULARY
from langneurons.engines.base import Completion, EngineError, Sampling
from langneurons.engines.hf import HfEngine, RepetitionPenalty, Sampler, StopStrings
from langneurons.interventions import deactivate, shift

PROMPTS = [
    "The",
    "Q: What is the best way to learn a language?\nA:",
    "Der alte Mann ging in",
    "Once upon a time there was a small village near the sea, and the people who lived there were " * 2,
    "\n",
    "Wie spät ist es? Ich weiß es nicht genau, aber",
    "It was a dark night",
    "Die Katze",
    "Most people know that bread is made of flour, water, salt and",
]
LONG = 30


def greedy_by_hand(engine: HfEngine, prompt: str, new_tokens: int, penalty: float = 1.0) -> list[int]:
    """Token after token from the whole unpadded text, without cache; the end-of-text token ends it."""
    ids: list[int] = engine.tokenizer(prompt)["input_ids"]
    new: list[int] = []
    while len(new) < new_tokens and engine.tokenizer.eos_token_id not in new:
        with torch.inference_mode():
            scores = engine.model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1].double().tolist()
        for token in set(ids + new):
            scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
        new.append(int(np.argmax(scores)))
    return new


def text_of(engine: HfEngine, ids: list[int]) -> str:
    """Generated text before any cut."""
    text: str = engine.tokenizer.decode(ids, skip_special_tokens=True)
    return text


def completion_by_hand(engine: HfEngine, prompt: str, new_tokens: int, penalty: float) -> Completion:
    """The completion without stop strings."""
    ids = greedy_by_hand(engine, prompt, new_tokens, penalty)
    reason = "stop" if ids[-1] == engine.tokenizer.eos_token_id else "length"
    return Completion(text_of(engine, ids).strip(), len(ids), reason)


@contextmanager
def batches_of(engine: HfEngine, size: int) -> Iterator[None]:
    """Other batch sizes for a while."""
    before = engine.batch_size, engine.generation_batch_size
    engine.batch_size = engine.generation_batch_size = size
    yield
    engine.batch_size, engine.generation_batch_size = before


def with_defaults(engine: HfEngine, own: transformers.GenerationConfig, monkeypatch: pytest.MonkeyPatch) -> HfEngine:
    """An engine of the same model, as if it had been loaded with this generation_config.json."""
    monkeypatch.setattr(engine.model, "generation_config", own)
    return HfEngine(engine.model, engine.tokenizer, engine.batch_size, engine.generation_batch_size)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_batches_equal_greedy_decoding_by_hand(trained: HfEngine, penalty: float) -> None:
    """Batches of 8 and 1, padded on the left, against one prompt at a time without padding, cache or library."""
    completions = trained.generate(PROMPTS, Sampling(LONG, repetition_penalty=penalty))
    assert completions == [completion_by_hand(trained, prompt, LONG, penalty) for prompt in PROMPTS]
    assert len({completion.text for completion in completions}) > 1


def test_the_batch_size_changes_no_completion(trained: HfEngine) -> None:
    lengths = [len(trained.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    assert min(lengths) == 1
    assert max(lengths) > 80
    whole = trained.generate(PROMPTS, Sampling(LONG, repetition_penalty=1.3))
    longest = max(range(len(whole)), key=lambda index: len(whole[index].text))
    text = whole[longest].text
    stop = text[len(text) // 2 :][:8]  # of one answer; where another has it, that ends as well
    sampling = Sampling(LONG, repetition_penalty=1.3, stop=(stop,))
    expected = trained.generate(PROMPTS, sampling)
    assert expected[longest].finish_reason == "stop"
    assert expected[longest].text == text[: text.index(stop)].strip()
    for size in (1, 2, 5):
        with batches_of(trained, size):
            assert trained.generate(PROMPTS, sampling) == expected


def test_the_order_of_prompts_is_kept(trained: HfEngine) -> None:
    sampling = Sampling(8, repetition_penalty=1.3)
    forward = trained.generate(PROMPTS, sampling)
    with batches_of(trained, 2):
        assert trained.generate(PROMPTS[::-1], sampling) == forward[::-1]


def test_no_prompts_no_completions(trained: HfEngine) -> None:
    assert trained.generate([], Sampling(5)) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_changes_no_completion_of_any_family(name: str) -> None:
    """Rotary, learned and linear (alibi) positions alike; the vocabulary of these random models is 't0' to 't199'."""
    words = {f"t{token}": token for token in range(VOCABULARY)}
    tokenizer = _word_tokenizer(words)
    model = FAMILIES[name].build()
    if model.config._attn_implementation == "sdpa":  # others compute attention in float32, where padding is NaN then
        model = model.double()
    engine = HfEngine(model, tokenizer, batch_size=4, generation_batch_size=4)
    prompts = ["t5", "t17 t4 t9", "t3 " * 20 + "t8", "t150 t2 t2 t77 t31 t6 t199"]
    sampling = Sampling(8, repetition_penalty=1.3)
    together = engine.generate(prompts, sampling)
    assert together == [completion_by_hand(engine, prompt, 8, 1.3) for prompt in prompts]
    assert len({completion.text for completion in together}) > 1


def _word_tokenizer(words: dict[str, int]) -> Any:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="t0", pad_token="t0", padding_side="left"
    )


def test_generation_under_an_edit_is_that_of_the_edited_model(trained: HfEngine) -> None:
    layers, neurons = np.repeat([0, 1], 60), np.tile(np.arange(60), 2)
    sampling = Sampling(10, repetition_penalty=1.3)
    baseline = trained.generate(PROMPTS, sampling)
    with trained.perturbed(deactivate(layers, neurons)):
        edited = trained.generate(PROMPTS, sampling)
        assert edited == [completion_by_hand(trained, prompt, 10, 1.3) for prompt in PROMPTS]
    assert edited != baseline
    assert trained.generate(PROMPTS, sampling) == baseline


def test_generation_under_a_shift_is_that_of_the_shifted_model(trained: HfEngine) -> None:
    """The shift of the hidden states is at every position once, of the prompt and of what is written."""
    vector = 3 * np.random.default_rng(0).normal(size=trained.width)
    sampling = Sampling(10, repetition_penalty=1.3)
    baseline = trained.generate(PROMPTS, sampling)
    with trained.perturbed(shift({0: vector})):
        edited = trained.generate(PROMPTS, sampling)
        assert edited == [completion_by_hand(trained, prompt, 10, 1.3) for prompt in PROMPTS]
    assert edited != baseline
    assert trained.generate(PROMPTS, sampling) == baseline


# -- the repetition penalty -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3, 5.0])
def test_penalty_equals_that_of_transformers_without_padding(penalty: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (4, 12), generator=generator)
    scores = torch.randn(4, 50, generator=generator) * 5
    before = scores.clone()
    found = RepetitionPenalty(penalty, torch.ones(4, 9, dtype=torch.int64))(ids, scores)
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())
    assert torch.equal(found, expected)
    assert torch.equal(scores, before)
    assert torch.equal(found, scores) == (penalty == 1.0)


def test_penalty_ignores_padding_but_not_the_same_token_in_the_text() -> None:
    """Token 0 pads. In the first row it is only padding, in the second also prompt, in the third generated."""
    ids = torch.tensor([[0, 0, 7, 8, 9], [0, 0, 0, 8, 9], [0, 0, 7, 8, 0]])
    prompt_mask = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]])  # the fifth column is generated
    scores = torch.tensor([[2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, -4.0, 6.0, 8.0]]).repeat(3, 1)
    found = RepetitionPenalty(2.0, prompt_mask)(ids, scores)
    same = [3.0] * 6
    assert found.tolist() == [
        [2.0, *same, -8.0, 3.0, 4.0],
        [1.0, *same, -4.0, 3.0, 4.0],
        [1.0, *same, -8.0, 3.0, 8.0],
    ]
    # transformers' own processor does penalise the padding: this is why ours exists.
    assert transformers.RepetitionPenaltyLogitsProcessor(2.0)(ids, scores.clone())[0, 0] == 1.0


def test_penalty_changes_text(trained: HfEngine) -> None:
    plain = trained.generate(PROMPTS, Sampling(LONG))
    penalized = trained.generate(PROMPTS, Sampling(LONG, repetition_penalty=1.3))
    assert plain != penalized


def test_a_models_own_generation_defaults_are_not_mixed_in(trained: HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hub models bring a generation_config.json; what the workflow's config says is all that counts."""
    sampling = Sampling(LONG, repetition_penalty=1.3)
    expected = trained.generate(PROMPTS, sampling)
    warm = Sampling(LONG, temperature=1.5)
    expected_warm = trained.generate(PROMPTS, warm)
    own = transformers.GenerationConfig(
        eos_token_id=trained.tokenizer.eos_token_id,
        do_sample=True,
        temperature=0.2,
        top_k=3,
        top_p=0.5,
        min_p=0.3,
        typical_p=0.5,
        repetition_penalty=1.8,
        no_repeat_ngram_size=1,
        bad_words_ids=[[5]],
        suppress_tokens=[10, 11, 12],
        begin_suppress_tokens=list(range(20, 400)),
        forced_bos_token_id=30,
        forced_eos_token_id=3,
        min_new_tokens=LONG,
        max_length=20,
        num_beams=3,
        num_return_sequences=2,
        length_penalty=2.0,
        stop_strings=["e"],
        max_time=0.001,
    )
    engine = with_defaults(trained, own, monkeypatch)
    assert engine.generate(PROMPTS, sampling) == expected
    assert engine.generate(PROMPTS, warm) == expected_warm


# -- ends -------------------------------------------------------------------------------------------------------------

PLAIN = "It was a dark night"
SENTENCE = "People who learn German, English and Turkish at once mix up their words; nobody minds."


@contextmanager
def forced(engine: HfEngine, tokens: list[int]) -> Iterator[None]:
    """The model writes these tokens after any prompt."""
    generate, remaining = engine.model.generate, iter(tokens)

    def from_the_start(*args: Any, **options: Any) -> Any:
        nonlocal remaining
        remaining = iter(tokens)
        return generate(*args, **options)

    def force(module: Any, inputs: Any, output: Any) -> Any:
        output.logits[:, -1] = -1.0
        output.logits[:, -1, next(remaining)] = 1.0
        return output

    handle = engine.model.register_forward_hook(force)
    engine.model.generate = from_the_start
    try:
        yield
    finally:
        handle.remove()
        del engine.model.generate


@contextmanager
def writing(engine: HfEngine) -> Iterator[tuple[list[int], list[str], str]]:
    """The model writes the sentence's first 30 tokens: the tokens, each one's text, the text."""
    ids = engine.tokenizer(SENTENCE)["input_ids"][:LONG]
    pieces = [text_of(engine, [token]) for token in ids]
    text = "".join(pieces)
    assert len(ids) == LONG
    assert SENTENCE.startswith(text)
    with forced(engine, ids):
        yield ids, pieces, text


def cut(stop: str, pieces: list[str]) -> Completion:
    """The completion that ends before the first occurrence of the stop string."""
    text = "".join(pieces)
    start = text.index(stop)
    lengths = np.cumsum([len(piece) for piece in pieces])
    return Completion(text[:start].strip(), int(np.argmax(lengths >= start + len(stop))) + 1, "stop")


@pytest.mark.parametrize("number", [1, 2, 7, LONG])
def test_max_new_tokens_is_honoured(trained: HfEngine, number: int) -> None:
    with writing(trained) as (_, pieces, _):
        completion = trained.generate([PLAIN], Sampling(number))[0]
    assert completion == Completion("".join(pieces[:number]).strip(), number, "length")


def test_text_ends_before_a_stop_string(trained: HfEngine) -> None:
    """Each token in turn is the stop string: its first occurrence is cut off, but its tokens are counted."""
    with writing(trained) as (_, pieces, _):
        for stop in set(pieces):
            assert trained.generate([PLAIN], Sampling(LONG, stop=(stop,)))[0] == cut(stop, pieces)


def test_a_stop_string_may_end_inside_a_token(trained: HfEngine) -> None:
    """The end of one token and the beginning of the next, whose rest is dropped; and the inside of a token."""
    with writing(trained) as (_, pieces, _):
        across = [one[-1] + other[0] for one, other in itertools.pairwise(pieces) if len(other) > 1]
        inside = [piece[1:-1] for piece in pieces if len(piece) > 2]
        assert len(across) > 5
        assert len(inside) > 2
        for stop in across + inside:
            assert trained.generate([PLAIN], Sampling(LONG, stop=(stop,)))[0] == cut(stop, pieces)


def test_the_earliest_of_several_stop_strings_counts(trained: HfEngine) -> None:
    with writing(trained) as (_, pieces, _):
        for stop in (("Turkish", "absent", "German"), ("German", "Turkish")):
            assert trained.generate([PLAIN], Sampling(LONG, stop=stop))[0] == cut("German", pieces)
        # Of two that one token completes, the text ends before the first.
        assert trained.generate([PLAIN], Sampling(LONG, stop=("h at", "ish at")))[0] == cut("ish at", pieces)


def test_a_stop_string_in_the_prompt_does_not_stop(trained: HfEngine) -> None:
    with writing(trained) as (_, pieces, text):
        expected = Completion(text.strip(), LONG, "length")
        # The last begins in the prompt and ends in the answer: it is not in the text either.
        for stop in ("dark", "night", PLAIN, "t" + pieces[0]):
            assert stop in PLAIN + text
            assert stop not in text
            assert trained.generate([PLAIN], Sampling(LONG, stop=(stop,)))[0] == expected
            assert trained.generate([PROMPTS[3], PLAIN], Sampling(LONG, stop=(stop,)))[1] == expected


def test_stop_strings_of_several_bytes(trained: HfEngine) -> None:
    """A letter such as 'ü' may be two byte-level tokens, '–' three."""
    words = "für – größer"
    target = trained.tokenizer(words)["input_ids"]
    number = 2 * len(target)
    with forced(trained, [*target, *target]):
        assert trained.generate([PLAIN], Sampling(number))[0] == Completion(words + words, number, "length")
        for stop in ("ü", "–", "öß", " – ", "ßer"):
            found = trained.generate([PLAIN], Sampling(number, stop=(stop,)))[0]
            tokens = next(n for n in range(number) if stop in text_of(trained, target[:n]))
            assert found == Completion(words[: words.index(stop)].strip(), tokens, "stop")


def test_generation_ends_when_all_rows_have_stopped(trained: HfEngine) -> None:
    """A stop string is noticed while writing, not only cut off afterwards: at the next step that looks for it."""
    ids = trained.tokenizer(SENTENCE)["input_ids"]
    calls: list[int] = []
    handle = trained.model.register_forward_hook(lambda *_: calls.append(1))
    with forced(trained, ids):
        completion = trained.generate([PLAIN, "The"], Sampling(LONG, stop=("who",)))[0]
    handle.remove()
    assert completion.tokens < 10
    assert len(calls) == -(-completion.tokens // StopStrings.STEPS) * StopStrings.STEPS < LONG


def test_text_ends_at_the_models_end_tokens(trained: HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One or several, of the model's own generation_config.json; the end token is counted, as it was generated."""
    ids = trained.tokenizer(SENTENCE)["input_ids"][:LONG]
    where = 11
    assert ids[where] not in ids[:where]
    for end in ([ids[where], trained.tokenizer.eos_token_id], ids[where]):
        engine = with_defaults(trained, transformers.GenerationConfig(eos_token_id=end), monkeypatch)
        with writing(engine) as (_, pieces, _):
            expected = Completion("".join(pieces[:where]).strip(), where + 1, "stop")
            for prompts in ([PLAIN], [PROMPTS[3], PLAIN]):
                assert engine.generate(prompts, Sampling(LONG))[-1] == expected
                assert engine.generate(prompts, Sampling(LONG, stop=("minds",)))[-1] == expected
            assert engine.generate([PLAIN], Sampling(LONG, stop=("who",)))[0] == cut("who", pieces)


def test_without_end_token_text_ends_by_length(trained: HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = copy.deepcopy(trained.tokenizer)
    tokenizer.eos_token = None
    monkeypatch.setattr(trained.model, "generation_config", transformers.GenerationConfig())
    engine = HfEngine(trained.model, tokenizer, 4, 4)
    assert engine.end_tokens == []
    with forced(engine, [trained.tokenizer.eos_token_id, *trained.tokenizer(SENTENCE)["input_ids"]]):
        assert engine.generate([PLAIN], Sampling(5))[0].finish_reason == "length"


def test_text_is_stripped_of_white_space(trained: HfEngine) -> None:
    target = trained.tokenizer("\n one  two \n")["input_ids"]
    with forced(trained, target):
        assert trained.generate([PLAIN], Sampling(len(target)))[0] == Completion("one  two", len(target), "length")


# -- sampling ---------------------------------------------------------------------------------------------------------


def test_sampling_depends_on_the_seed_only(trained: HfEngine) -> None:
    def sample(seed: int) -> list[Completion]:
        return trained.generate(PROMPTS, Sampling(15, temperature=1.0, seed=seed))

    first = sample(1)
    torch.manual_seed(99)
    torch.rand(3)
    assert sample(1) == first
    assert sample(2) != first
    greedy = trained.generate(PROMPTS, Sampling(15, seed=1))
    assert greedy != first
    assert trained.generate(PROMPTS, Sampling(15, seed=2)) == greedy


def test_sampled_answers_do_not_depend_on_what_is_answered_beside_them(trained: HfEngine) -> None:
    """Neither on the batch nor the order nor other prompts; a prompt that comes twice has two answers."""
    warm = Sampling(15, temperature=1.0, seed=1)
    expected = trained.generate(PROMPTS, warm)
    assert len({answer.text for answer in expected}) == len(PROMPTS)
    for size in (1, 3, 6):
        with batches_of(trained, size):
            assert trained.generate(PROMPTS, warm) == expected
    assert trained.generate(PROMPTS[::-1], warm) == expected[::-1]
    assert trained.generate(PROMPTS[4:6], warm) == expected[4:6]
    twice = trained.generate([PLAIN, PLAIN], warm)
    assert twice[0] != twice[1]
    assert twice[0] == trained.generate([PLAIN], warm)[0]


def test_every_prompt_has_numbers_of_its_own(trained: HfEngine) -> None:
    """At a temperature at which all tokens are as good, the numbers alone choose: no two prompts are given the same."""
    hot = Sampling(4, temperature=1e9)
    assert len({answer.text for answer in trained.generate(PROMPTS, hot)}) == len(PROMPTS)


def test_tokens_are_chosen_as_often_as_they_are_probable() -> None:
    """Of evenly spread numbers each token gets its share, to within one; a token that cannot be never comes."""
    scores = torch.tensor([1.0, -torch.inf, 0.3, 2.0, -3.0])
    number, temperature = 10_000, 0.7
    sampler = Sampler(Sampling(1, temperature=temperature), [0], prompt_length=2)
    sampler.numbers = (torch.arange(number, dtype=torch.float64)[:, None] + 0.5) / number
    chosen = sampler(torch.zeros(number, 2, dtype=torch.long), scores.expand(number, -1)).argmax(-1)
    expected = torch.softmax(scores.double() / temperature, -1) * number
    assert (chosen.bincount(minlength=5) - expected).abs().max() <= 1
    assert chosen.bincount(minlength=5)[1] == 0


def test_a_low_temperature_is_nearly_greedy(trained: HfEngine) -> None:
    """At temperature 1e-6 a lead of 2e-5 in the logits is worth a factor of e^20, and hardly any lead is smaller."""
    assert trained.generate(PROMPTS, Sampling(10, temperature=1e-6)) == trained.generate(PROMPTS, Sampling(10))


def test_sampling_follows_the_models_distribution(trained: HfEngine) -> None:
    """First tokens of 400 samples: no cut by top-k, and the model's share within five standard errors."""
    with torch.inference_mode():
        ids = torch.tensor([trained.tokenizer(PLAIN)["input_ids"]])
        expected = torch.softmax(trained.model(input_ids=ids).logits[0, -1].double() / 2.0, -1).numpy()
    number = 400
    with batches_of(trained, number):
        texts = [c.text for c in trained.generate([PLAIN] * number, Sampling(1, temperature=2.0))]
    best = int(expected.argmax())
    share = texts.count(text_of(trained, [best]).strip()) / number
    same = [
        token for token in range(len(expected)) if text_of(trained, [token]).strip() == text_of(trained, [best]).strip()
    ]
    wanted = expected[same].sum()
    assert abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / number)
    assert len(set(texts)) > 60  # top-k of transformers' default would leave 50


# -- context ----------------------------------------------------------------------------------------------------------


def test_too_long_for_the_context(trained: HfEngine) -> None:
    prompt = PROMPTS[3]
    length = len(trained.tokenizer(prompt)["input_ids"])
    fits = 160 - length
    assert trained.generate([prompt], Sampling(fits))[0].tokens <= fits
    with pytest.raises(
        EngineError, match=rf"generation\.max_new_tokens = {fits + 1} .*context of 160.* to {fits} or less"
    ):
        trained.generate(["The", prompt], Sampling(fits + 1))


# -- reading ----------------------------------------------------------------------------------------------------------

LOGSUMEXP = 2.0**-24
"""Half an epsilon of float32, in which logits become log-likelihoods: so often as there are summands, in any order, and
a few times the largest logit."""


def test_token_nll_by_hand(trained: HfEngine, windows: np.ndarray) -> None:
    loss = trained.token_nll(windows)
    assert loss.nll_sum.shape == loss.tokens.shape == (7,)
    assert loss.nll_sum.dtype == np.float64
    assert loss.tokens.tolist() == [47] * 7  # the first of 48 has no context
    for window, found in zip(windows.astype(int).tolist(), loss.nll_sum, strict=True):
        with torch.inference_mode():
            scores = trained.model(input_ids=torch.tensor([window]), use_cache=False).logits[0].double().numpy()
        by_hand = 0.0
        for position in range(1, 48):
            before = scores[position - 1]
            by_hand -= before[window[position]] - (before.max() + np.log(np.exp(before - before.max()).sum()))
        assert abs(found - by_hand) <= 47 * LOGSUMEXP * (600 + 4 * np.abs(scores).max())
        assert 47 < by_hand < np.log(600) * 47  # better than chance, but not perfect


def test_the_batch_size_changes_no_number(trained: HfEngine, windows: np.ndarray) -> None:
    loss, counts = trained.token_nll(windows), trained.record(windows)
    assert counts.tokens == 7 * 48
    for size in (1, 3, 100):
        with batches_of(trained, size):
            other_loss, other = trained.token_nll(windows), trained.record(windows)
        # Two computations as above; no logit of a trained model of this size is near 100.
        np.testing.assert_allclose(other_loss.nll_sum, loss.nll_sum, rtol=0, atol=2 * 47 * LOGSUMEXP * (600 + 400))
        np.testing.assert_array_equal(other_loss.tokens, loss.tokens)
        # In float64 no activation is so near to zero that other batches change its side.
        np.testing.assert_array_equal(other.over_zero, counts.over_zero)
        for name in ("activation_sum", "product_sum", "hidden_sum"):
            np.testing.assert_allclose(getattr(other, name), getattr(counts, name), rtol=0, atol=IN_OTHER_BATCHES)
        assert other.tokens == counts.tokens


def test_counts_add_up(trained: HfEngine, windows: np.ndarray) -> None:
    whole = trained.record(windows)
    with batches_of(trained, 1):
        parts = [trained.record(windows[index : index + 1]) for index in range(7)]
        again = trained.record(windows)
    np.testing.assert_array_equal(sum(part.over_zero for part in parts), again.over_zero)
    assert sum(part.tokens for part in parts) == whole.tokens
    np.testing.assert_array_equal(sum(part.activation_sum for part in parts), again.activation_sum)


def test_nan_likelihoods_are_refused(trained: HfEngine, windows: np.ndarray) -> None:
    weight = trained.model.get_output_embeddings().weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[3, 0] = float("nan")
        with pytest.raises(EngineError, match="NaN"):
            trained.token_nll(windows)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert np.isfinite(trained.token_nll(windows).nll_sum).all()


def test_no_windows_are_no_recording(trained: HfEngine) -> None:
    empty = np.zeros((0, 48), dtype=np.uint32)
    assert trained.token_nll(empty).nll_sum.shape == (0,)
    with pytest.raises(EngineError, match="0 tokens"):
        trained.record(empty)
