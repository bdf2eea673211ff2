"""A model whose layers lie on several GPUs, as far as that can be seen without one; `pretended` says how."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engines.families import FAMILIES
from langneurons.models import loading
from langneurons.models.folders import ModelError
from langneurons.models.loading import load_model

# One of each way of computing attention, positions and the FFN.
SPREAD = ["llama", "gemma2", "phi3", "gpt2", "bloom", "opt-norm-after", "gpt-neox", "falcon-with-alibi"]
GIB = 2**30
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("families", [SPREAD[:1], pytest.param(SPREAD[1:], marks=pytest.mark.full)], ids=["one", "all"])
def test_two_devices_compute_what_one_does(families: list[str]) -> None:
    """Counts, sums, sentences, perplexity, answers, and all kinds of edits with their proofs, bit for bit."""
    command = [sys.executable, "-m", "engines.pretended", *families]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT / "workflow", ROOT / "tests"]))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == families
    places = r"\['pretended:0', 'pretended:[01]', 'pretended:1'\]"
    assert all(re.search(rf": 22 results are equal on {places}$", line) for line in lines)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    FAMILIES["llama"].build().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    return str(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of transformers on a machine with three GPUs; the model comes onto the CPU."""
    found: list[dict[str, Any]] = []
    load = transformers.AutoModelForCausalLM.from_pretrained

    def onto_cpu(*arguments: Any, device_map: Any = None, max_memory: Any = None, **options: Any) -> Any:
        found.append({"device_map": device_map, "max_memory": max_memory, **options})
        return load(*arguments, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", onto_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: ([21 * GIB, 42 * GIB, 63 * GIB][gpu], 80 * GIB))
    return found


@pytest.mark.parametrize(
    ("gpus", "device_map", "max_memory"),
    [
        (0, None, None),
        (1, {"": 0}, None),
        (2, "auto", {0: 20 * GIB, 1: 40 * GIB}),  # what is free, less the margin; no CPU and no third GPU
        (3, "auto", {0: 20 * GIB, 1: 40 * GIB, 2: 60 * GIB}),
    ],
)
def test_weights_go_straight_onto_as_many_gpus_as_asked_for(
    folder: str, asked: list[dict[str, Any]], gpus: int, device_map: Any, max_memory: Any
) -> None:
    load_model(folder, None, "bfloat16", gpus)
    assert asked[0]["device_map"] == device_map
    assert asked[0]["max_memory"] == max_memory


def test_layers_that_do_not_fit_are_not_read_from_the_disk() -> None:
    """Together the GPUs have room, but no layer is cut in two."""
    loaded = FAMILIES["llama"].build()
    loaded.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 1, "model.layers.1": "disk", "lm_head": "disk"}
    with pytest.raises(ModelError) as caught:
        loading._check_placement("mine", loaded, 2)
    assert str(caught.value) == (
        "the model 'mine' cannot be spread over 2 GPU(s): there is no room for 2 of its 4 parts, such as "
        "model.layers.1. Use more GPUs ('gpus') or a narrower number format ('dtype')."
    )
    del loaded.hf_device_map["model.layers.1"], loaded.hf_device_map["lm_head"]
    loading._check_placement("mine", loaded, 2)


def test_running_out_of_memory_while_loading(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(ModelError, match=r"ran out of memory while it was loaded\. Use a narrower number format"):
        load_model(folder, None, "float32", 0)


def test_a_model_that_cannot_fit_is_refused_before_its_weights_are_read(
    folder: str, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights need 45,280 times two bytes, and a twentieth more."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (95_000, 80 * GIB))
    with pytest.raises(ModelError, match=r"needs 0\.0 GiB of memory \(45,280 parameters in bfloat16, and 5% more\)"):
        load_model(folder, None, "bfloat16", 1)
    assert asked == []
    load_model(folder, None, "bfloat16", 2)
    assert len(asked) == 1


# -- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attention", "used"), [(None, "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")])
def test_the_attention_of_the_config_is_used(folder: str, attention: str | None, used: str) -> None:
    loaded = load_model(folder, None, "float32", 0, attention)
    assert loaded.config._attn_implementation == used


def test_a_family_with_an_attention_of_its_own_refuses_another(tmp_path: Path) -> None:
    FAMILIES["gemma2"].build().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert load_model(str(tmp_path), None, "float32", 0, "eager").config._attn_implementation == "eager"
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path), None, "float32", 0, "sdpa")
    assert str(caught.value) == (
        f"the model '{tmp_path}' cannot run with 'attention: sdpa': its family is computed as it was trained with "
        "eager only. Leave the key 'attention' out, or choose another."
    )


@pytest.mark.parametrize(("gpus", "dtype"), [(0, "bfloat16"), (1, "float32")])
def test_flash_attention_needs_gpus_and_two_bytes(
    folder: str, asked: list[dict[str, Any]], gpus: int, dtype: str
) -> None:
    with pytest.raises(
        ModelError, match=r"'attention: flash_attention_2': that runs on GPUs in bfloat16 or float16 only"
    ):
        load_model(folder, None, dtype, gpus, "flash_attention_2")
    assert asked == []


def test_flash_attention_without_its_package(folder: str, asked: list[dict[str, Any]]) -> None:
    with pytest.raises(
        ModelError, match=r"'attention: flash_attention_2': .*FlashAttention2.*Leave the key 'attention'"
    ):
        load_model(folder, None, "bfloat16", 1, "flash_attention_2")
    assert asked == []


def test_an_attention_that_a_family_lacks(tmp_path: Path) -> None:
    FAMILIES["bloom"].build().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"'attention: sdpa': BloomForCausalLM does not support .*Leave the key"):
        load_model(str(tmp_path), None, "float32", 0, "sdpa")
