"""Small models of every family that vLLM has, in folders: two of them trained, so that their text is no noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from langneurons.demo.training import DemoModel, train

WIDTH, NEURONS, LAYERS, HEADS, CONTEXT, WINDOW = 64, 96, 3, 2, 160, 64
STEPS, BATCH = 100, 16
TRAINED = ("llama", "gpt2")

_SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 1, "head_dim": WIDTH // HEADS}
_GEMMA = {**_GROUPED, "query_pre_attn_scalar": WIDTH // HEADS, "sliding_window": 32}
_FFN = {key: value for key, value in _SIZES.items() if key != "intermediate_size"}
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}

CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **ids: transformers.LlamaConfig(**_SIZES, **ids),
    "llama-with-biases": lambda **ids: transformers.LlamaConfig(**_GROUPED, **ids, mlp_bias=True),
    "mistral": lambda **ids: transformers.MistralConfig(**_GROUPED, **ids, sliding_window=32),
    "qwen2": lambda **ids: transformers.Qwen2Config(**_SIZES, num_key_value_heads=1, **ids),
    "qwen3": lambda **ids: transformers.Qwen3Config(**_GROUPED, **ids),
    "gemma2": lambda **ids: transformers.Gemma2Config(**_GEMMA, **ids),
    "gemma3": lambda **ids: transformers.Gemma3TextConfig(**_GEMMA, **ids),
    "phi3": lambda **ids: transformers.Phi3Config(**_SIZES, num_key_value_heads=1, **ids),
    "phi": lambda **ids: transformers.PhiConfig(**_SIZES, **ids),
    "gpt2": lambda **ids: transformers.GPT2Config(
        n_embd=WIDTH, n_inner=NEURONS, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT, **_NO_DROPOUT, **ids
    ),
    "bloom": lambda **ids: transformers.BloomConfig(hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, **ids),
    "opt": lambda **ids: transformers.OPTConfig(**_FFN, ffn_dim=NEURONS, word_embed_proj_dim=WIDTH, dropout=0.0, **ids),
    "opt-norm-after": lambda **ids: transformers.OPTConfig(
        **_FFN, ffn_dim=NEURONS, word_embed_proj_dim=WIDTH, do_layer_norm_before=False, **ids
    ),
    "gpt-neox": lambda **ids: transformers.GPTNeoXConfig(**_SIZES, **ids),
    "falcon": lambda **ids: transformers.FalconConfig(**_FFN, **ids),
    "falcon-new-decoder": lambda **ids: transformers.FalconConfig(
        **_FFN, new_decoder_architecture=True, num_kv_heads=1, **ids
    ),
}


def save(name: str, folder: Path, tokenizer: Any, windows: dict[str, np.ndarray]) -> None:
    """Build, train if it is one of these, and save a model with its tokenizer."""
    end = tokenizer.eos_token_id
    ids = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](**ids)).float()
        if name in TRAINED:
            demo = DemoModel(
                name, len(tokenizer), LAYERS, WIDTH, HEADS, NEURONS, CONTEXT, STEPS * BATCH * WINDOW, BATCH
            )
            train(model, windows, demo, seed=0)
        else:  # weights so large that activations have both signs and matter
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim >= 2:
                        parameter.normal_(0, 1 / WIDTH**0.5)
                    else:  # biases, and the weights of norms around their 0 or 1
                        parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
