"""Weights that would be left out, and files that are not a model's own: refused by name, never in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from engines.families import FAMILIES, LAYERS
from engines.test_loading import tiny_tokenizer
from langneurons.models.folders import check_folder
from langneurons.models.loading import ModelError, check_model, check_weights, load_model

State = dict[str, torch.Tensor]


def saved(folder: Path, name: str, spoil: Callable[[State], Any] = len, **config: Any) -> str:
    """A tiny model in a folder, with its weights and config changed."""
    FAMILIES[name].build().save_pretrained(folder)
    tiny_tokenizer(eos_token="t0").save_pretrained(folder)
    weights, about = folder / "model.safetensors", folder / "config.json"
    state = safetensors.torch.load_file(weights)
    spoil(state)
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    about.write_text(json.dumps(json.loads(about.read_text()) | config))
    return str(folder)


def load(folder: str) -> Any:
    return load_model(folder, None, "float32", 0)


def by_names(folder: str) -> None:
    """As engines check it that load weights themselves."""
    check_weights(folder, None, *check_model(folder, None, "float32", 0))


def scales(state: State) -> None:
    state["model.layers.0.mlp.up_proj.weight_scale_inv"] = torch.ones(1)


@pytest.mark.parametrize(
    ("name", "spoil", "config", "left_out"),
    [
        ("llama-with-biases", len, {"mlp_bias": False}, r"9 weights .*: model\.layers\.0\.mlp\.down_proj\.bias"),
        ("llama", len, {"num_hidden_layers": LAYERS - 1}, rf"model\.layers\.{LAYERS - 1}\.input_layernorm\.weight"),
        ("llama", scales, {}, r"1 weights .*: model\.layers\.0\.mlp\.up_proj\.weight_scale_inv"),
        ("llama", scales, {"quantization_config": {"quant_method": "unheard-of"}}, "weight_scale_inv"),
    ],
    ids=["biases", "a layer", "scales", "scales of an unknown quantization"],
)
def test_weights_without_a_place(
    tmp_path: Path, name: str, spoil: Callable[[State], Any], config: dict[str, Any], left_out: str
) -> None:
    folder = saved(tmp_path, name, spoil, **config)
    loaders = [load] if "quantization_config" in config else [load, by_names]
    for loader in loaders:
        with pytest.raises(ModelError, match=left_out) as caught:
            loader(folder)
        assert "its config.json has no place for" in str(caught.value)
        assert "Correct config.json" in str(caught.value)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama", lambda state: state.pop("model.layers.1.mlp.down_proj.weight"))
    for loader in (load, by_names):
        with pytest.raises(ModelError, match=r"lacks 1 of its weights: model\.layers\.1\.mlp\.down_proj\.weight"):
            loader(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_models_by_their_names(tmp_path: Path, name: str) -> None:
    by_names(saved(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        (
            "gpt2",
            {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.0.attn.masked_bias": torch.ones(1)},
        ),
        ("gpt-neox", {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4)}),
    ],
)
def test_buffers_of_old_versions_are_not_missed(tmp_path: Path, name: str, added: State) -> None:
    load(saved(tmp_path, name, lambda state: state.update(added)))


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_refused(tmp_path: Path, alone: bool) -> None:
    if not alone:
        saved(tmp_path, "llama")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    for check in (check_folder, load):
        with pytest.raises(ModelError, match=r"holds an adapter \(adapter_config\.json\).*merge_and_unload"):
            check(str(tmp_path))


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "torchao", "compressed-tensors", "fp8"])
def test_a_quantization_that_cannot_be_loaded_here(tmp_path: Path, method: str) -> None:
    """Whatever transformers raises for a package that is missing or a machine that lacks it is one message."""
    config = {"quant_method": method, "load_in_4bit": True, "bits": 4, "group_size": 16}
    with pytest.raises(ModelError, match="cannot be loaded: "):
        load(saved(tmp_path, "llama", quantization_config=config))


def test_damaged_pickled_weights(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path, "llama"))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    with pytest.raises(ModelError, match="cannot be loaded: "):
        load(str(folder))


def test_an_architecture_outside_of_a_list(tmp_path: Path) -> None:
    assert isinstance(load(saved(tmp_path, "llama", architectures="LlamaForCausalLM")), transformers.LlamaForCausalLM)
