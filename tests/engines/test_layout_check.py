"""A wrong entry of `models.layouts` is found when a model is loaded, by what its modules compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from engines.common import HALF
from engines.families import FAMILIES
from engines.test_loading import tiny_tokenizer
from langneurons.engines.base import EngineError
from langneurons.engines.hf import HfEngine
from langneurons.models.layouts import LAYOUTS


def engine_of(model: Any) -> HfEngine:
    return HfEngine(model, None, batch_size=4, generation_batch_size=4)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_entries_are_right(name: str, dtype: torch.dtype) -> None:
    engine_of(FAMILIES[name].build().to(dtype)).check_layout()


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("llama", {"up": "mlp.gate_proj"}, "not its activation times its up projection"),
        ("llama", {"activation": "mlp.gate_proj"}, "not its activation times its up projection"),
        ("llama", {"up": None}, "what it projects down is not its activation"),
        ("gpt2", {"activation": "mlp.c_fc"}, "what it projects down is not its activation"),
        ("gpt2", {"activation": "mlp.gelu"}, "it has no module 'mlp.gelu'"),
        ("phi3", {"up_is_second_half": False}, "80 neurons are projected down, but one of its modules has 160"),
    ],
)
def test_wrong_entries(name: str, wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    monkeypatch.setitem(LAYOUTS, family.architecture, replace(LAYOUTS[family.architecture], **wrong))
    with pytest.raises(EngineError, match=said) as caught:
        engine_of(family.build()).check_layout()
    assert "the FFN in layer 0 of the model" in str(caught.value)


def with_a_norm(ffn: Any) -> None:
    """A norm before the down projection, as some models have it."""
    norm = nn.RMSNorm(ffn.down_proj.in_features)
    ffn.forward = lambda hidden: ffn.down_proj(norm(ffn.act_fn(ffn.gate_proj(hidden)) * ffn.up_proj(hidden)))


def by_a_function(ffn: Any) -> None:
    """The activation as a function, its module left unused."""
    ffn.forward = lambda hidden: ffn.down_proj(nn.functional.silu(ffn.gate_proj(hidden)) * ffn.up_proj(hidden))


def scaled(ffn: Any) -> None:
    """A product that is scaled before it is projected down, in one of its neurons."""
    factor = torch.ones(ffn.down_proj.in_features)
    factor[3] = 1.001

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        down: torch.Tensor = ffn.down_proj(ffn.act_fn(ffn.gate_proj(hidden)) * ffn.up_proj(hidden) * factor)
        return down

    ffn.forward = forward


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_a_norm, "not its activation times its up projection"),
        (by_a_function, "one of its modules is never called"),
        (scaled, "not its activation times its up projection"),
    ],
)
def test_a_model_that_computes_something_else(change: Callable[[Any], None], said: str) -> None:
    """In its last layer alone."""
    model = FAMILIES["llama"].build()
    change(model.model.layers[-1].mlp)
    with pytest.raises(EngineError, match=f"in layer {len(model.model.layers) - 1} .*{said}"):
        engine_of(model).check_layout()


def test_a_model_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    """BLOOM can be told to compute in slices, past its own modules."""
    config = FAMILIES["bloom"].config()
    config.slow_but_exact, config.pretraining_tp = True, 2
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer(eos_token="t0", pad_token="t0").save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=r"one of its modules is never called.*slow_but_exact"):
        HfEngine.load(str(tmp_path))
