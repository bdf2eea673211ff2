"""What is said when a model cannot be used, and that what is loaded is what was saved."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers

from engines.families import FAMILIES, VOCABULARY
from langneurons.engines import load_engine
from langneurons.engines.base import EngineError, Sampling
from langneurons.engines.hf import HfEngine
from langneurons.errors import UserError
from langneurons.models.layouts import LAYOUTS, UnknownArchitectureError, layout_of
from langneurons.models.loading import ModelError, load_model
from langneurons.models.tokenizer import load_tokenizer

WINDOWS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 16)).astype(np.uint32)


def tiny_tokenizer(**special: str) -> Any:
    """A tokenizer of the words t0 to t199."""
    words = {f"t{token}": token for token in range(VOCABULARY)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder of a tiny Llama. Tests that spoil it do so in a copy."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    FAMILIES["llama"].build().save_pretrained(folder)
    tiny_tokenizer(eos_token="t0", pad_token="t0").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the complete folder."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def load(folder: Path | str, dtype: str = "float32", gpus: int = 0) -> Any:
    return load_model(str(folder), None, dtype, gpus)


# -- tokenizers --------------------------------------------------------------------------------------------------------


def test_a_folder_without_the_vocabulary(folder: Path) -> None:
    """transformers makes a tokenizer of tokenizer_config.json alone, which makes nothing of any text."""
    (folder / "tokenizer.json").unlink()
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(ModelError, match=r"(lacks the vocabulary, such as tokenizer\.json|cannot be loaded)"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(("content", "said"), [("[]", "not a JSON object"), ("{", "not JSON")])
def test_settings_of_a_tokenizer_that_cannot_be_read(folder: Path, content: str, said: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelError, match=f"tiny' has a tokenizer_config.json that is {said}"):
        load_tokenizer(str(folder))


def test_a_tokenizer_that_ends_every_text(folder: Path) -> None:
    tokenizer = tiny_tokenizer(eos_token="t9", unk_token="t0")
    ends = tokenizers.processors.TemplateProcessing("$A t9", special_tokens=[("t9", 9)])
    tokenizer.backend_tokenizer.post_processor = ends
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"puts its end token t9 behind every text.*add_eos_token to false"):
        load_tokenizer(str(folder))


# -- what is loaded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_survives_saving_and_loading(name: str, tmp_path: Path) -> None:
    model = FAMILIES[name].build()
    model.save_pretrained(tmp_path)
    tiny_tokenizer(eos_token="t0").save_pretrained(tmp_path)
    engine = load_engine("hf", model=str(tmp_path), threads=1, batch_size=2)
    assert isinstance(engine, HfEngine)
    assert not engine.model.training
    expected = HfEngine(model, None, batch_size=2, generation_batch_size=2)
    assert engine.shape == expected.shape
    np.testing.assert_array_equal(engine.record(WINDOWS).activation_sum, expected.record(WINDOWS).activation_sum)
    np.testing.assert_array_equal(engine.token_nll(WINDOWS).nll_sum, expected.token_nll(WINDOWS).nll_sum)


def test_gemma2_keeps_its_softcapped_attention(tmp_path: Path) -> None:
    """The default of transformers (sdpa) drops the cap; the family's numbers must be those of its definition."""
    family = FAMILIES["gemma2"]
    family.build().save_pretrained(tmp_path)
    tiny_tokenizer(eos_token="t0").save_pretrained(tmp_path)
    loss = HfEngine.load(str(tmp_path)).token_nll(WINDOWS).nll_sum
    capped, uncapped = family.build(), replace(family, attention="sdpa").build()
    np.testing.assert_array_equal(loss, HfEngine(capped, None, 2, 2).token_nll(WINDOWS).nll_sum)
    assert (np.abs(loss - HfEngine(uncapped, None, 2, 2).token_nll(WINDOWS).nll_sum) > 0.1).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_number_format_is_that_of_the_config(saved: Path, dtype: str) -> None:
    engine = HfEngine.load(str(saved), dtype=dtype)
    assert {str(parameter.dtype) for parameter in engine.model.parameters()} == {f"torch.{dtype}"}
    assert engine.description["dtype"] == dtype
    assert engine.description["architecture"] == "LlamaForCausalLM"
    assert engine.description["device"] == "cpu"
    assert engine.description["torch"] == torch.__version__
    assert engine.description["transformers"] == transformers.__version__


def test_the_number_of_threads_is_set(saved: Path) -> None:
    before = torch.get_num_threads()
    try:
        HfEngine.load(str(saved), threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("special", "pad"),
    [({"pad_token": "t3"}, 3), ({"eos_token": "t5"}, 5), ({}, 0)],
    ids=["own", "end of text", "none"],
)
def test_tokenizers_pad_on_the_left_with_some_token(folder: Path, special: dict[str, str], pad: int) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tiny_tokenizer(**special).save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    encoded = tokenizer(["t7", "t8 t9 t1"], padding=True)
    assert encoded["input_ids"] == [[pad, pad, 7], [8, 9, 1]]
    assert encoded["attention_mask"] == [[0, 0, 1], [1, 1, 1]]


def test_padding_with_any_token_changes_no_completion(folder: Path) -> None:
    """Tokenizers such as GPT-2's and Llama's have none; a padding token that also occurs in texts is masked."""
    prompts = ["t7", "t8 t9 t1 t0 t2 t150"]
    completions = []
    for special in ({"pad_token": "t3"}, {"pad_token": "t9"}, {}):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        tiny_tokenizer(**special).save_pretrained(folder)
        engine = HfEngine.load(str(folder))
        completions.append([one.tokens for one in engine.generate(prompts, Sampling(6, repetition_penalty=1.3))])
    assert completions[0] == completions[1] == completions[2]


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such-folder", "no/such/folder"])
@pytest.mark.parametrize("loader", [load, load_tokenizer])
def test_missing_folder(loader: Any, path: str) -> None:
    with pytest.raises(ModelError, match=rf"model folder '{path}' does not exist.*'path'"):
        loader(path)


@pytest.mark.parametrize("loader", [load, load_tokenizer])
def test_folder_without_config(loader: Any, folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"tiny' has no config\.json.*save_pretrained"):
        loader(str(folder))


@pytest.mark.parametrize("loader", [load, load_tokenizer])
def test_folder_without_tokenizer(loader: Any, folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"tiny' has no tokenizer .*tokenizer\.json.*tokenizer\.save_pretrained"):
        loader(str(folder))


def test_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"tiny' cannot be loaded: .*model\.safetensors.* Check the files"):
        load(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"tiny' cannot be loaded: .* Check the files"):
        load(folder)


def test_weights_that_lack_a_matrix(folder: Path) -> None:
    """transformers would fill the gap with random numbers and warn; a wrong model must not run."""
    weights = folder / "model.safetensors"
    state = safetensors.torch.load_file(weights)
    del state["model.layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"tiny' .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load(folder)


def test_weights_of_another_size(folder: Path) -> None:
    _edit_config(folder, intermediate_size=96)
    with pytest.raises(ModelError, match="tiny' cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("content", ['{"version": "1.0", "model": {"type": "Unknown"}}', "{}", "cut o", ""])
def test_broken_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="tiny' cannot be loaded"):
        load_tokenizer(str(folder))


def test_config_that_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("model: llama")
    with pytest.raises(ModelError, match=r"tiny' has a config\.json that is not JSON"):
        load(folder)


# -- architectures ----------------------------------------------------------------------------------------------------


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_layout_of_an_unknown_architecture_names_the_known() -> None:
    with pytest.raises(UnknownArchitectureError) as caught:
        layout_of("MambaForCausalLM")
    message = str(caught.value)
    assert "'MambaForCausalLM' is not supported" in message
    assert "layouts.py" in message
    assert all(name in message for name in LAYOUTS)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (transformers.MambaConfig(), "MambaForCausalLM"),
        (transformers.T5Config(), "T5ForConditionalGeneration"),
        (transformers.LlamaConfig(), "LlamaForSequenceClassification"),
        (transformers.GPT2Config(), "GPT2Model"),
    ],
)
def test_unsupported_architecture(
    folder: Path, config: Any, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before weights are read, which for large models takes minutes."""

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", never)
    config.architectures = [architecture]
    config.save_pretrained(folder)
    with pytest.raises(
        UnknownArchitectureError, match=rf"'{architecture}' is not supported.*LlamaForCausalLM.*layouts\.py"
    ):
        load(folder)


def test_config_without_architecture(folder: Path) -> None:
    _edit_config(folder, architectures=None)
    with pytest.raises(UnknownArchitectureError, match=r"names no architecture.*save_pretrained"):
        load(folder)


def test_model_type_that_transformers_does_not_know(folder: Path) -> None:
    _edit_config(folder, model_type="from-the-future")
    with pytest.raises(UserError, match=r"tiny'.*from-the-future"):
        load(folder)


def test_architecture_that_is_not_that_of_the_model_type(folder: Path) -> None:
    """GPT-2's hooks on a Llama would fail much later."""
    _edit_config(folder, architectures=["GPT2LMHeadModel"])
    with pytest.raises(ModelError, match="loaded as LlamaForCausalLM, but its config says GPT2LMHeadModel"):
        load(folder)


# -- hub, hardware, numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [partial(load_model, dtype="float32", gpus=0), load_tokenizer])
def test_hub_id_that_was_not_downloaded(loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Said without asking the network. See test_hub.py for those that were downloaded."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))  # read once, at the import
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: asked.append(arguments) or [])
    with pytest.raises(ModelError) as caught:
        loader("langneurons-tests/no-such-model", "main")
    assert asked == []
    message = str(caught.value)
    assert message.startswith("revision main of the model 'langneurons-tests/no-such-model' is not in the hub's cache")
    assert "snakemake --force results/<model>/download.json" in message
    assert "source: folder" in message
    assert "\n" not in message
    assert len(message) < 700


def test_gpu_without_cuda(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"asks for 1 GPU\(s\), but PyTorch sees none.*'gpus: 0'"):
        load(saved, gpus=1)


def test_nan_in_the_weights_is_found_while_recording(folder: Path) -> None:
    weights = folder / "model.safetensors"
    state = safetensors.torch.load_file(weights)
    state["model.layers.2.mlp.gate_proj.weight"][11, 3] = float("nan")
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    engine = HfEngine.load(str(folder))
    with pytest.raises(EngineError, match=r"NaN or infinite .*layer 2, neuron 11\b.*float32"):
        engine.record(WINDOWS)
    with pytest.raises(EngineError, match="NaN"):
        engine.token_nll(WINDOWS)


def test_overflow_of_half_precision_is_found_while_recording(folder: Path) -> None:
    """Products of layer 1 overflow, and with them all activations of layer 2."""
    weights = folder / "model.safetensors"
    state = safetensors.torch.load_file(weights)
    for name in ("gate_proj", "up_proj"):
        state[f"model.layers.1.mlp.{name}.weight"] *= 1000
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    assert np.isfinite(HfEngine.load(str(folder)).record(WINDOWS).product_sum).all()
    with pytest.raises(EngineError, match=r"infinite \(activation_sum\), first in layer 2.*bfloat16"):
        HfEngine.load(str(folder), dtype="float16").record(WINDOWS)
