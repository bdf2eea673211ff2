"""Train a tiny causal language model and its tokenizer from scratch.

A recipe for small corpora on a CPU: the Muon optimizer on the weight matrices of the blocks and AdamW on the rest,
warm-up and cosine decay, all in float32: many processors have no fast bfloat16. The same seed on the same machine gives
bit-identical weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from torch import nn

from langneurons.demo.muon import Muon
from langneurons.progress import progress

END_OF_TEXT = "<|endoftext|>"
MUON_RATE, ADAM_RATE = 0.01, 0.008
WEIGHT_DECAY = 0.1
WARM_UP, FINAL_RATE = 0.05, 0.05
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class DemoModel:
    """Size and training of a demo model; the keys of the config."""

    architecture: str
    vocabulary: int
    layers: int
    width: int
    heads: int
    neurons: int
    context: int
    training_tokens: int
    training_batch: int


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with one special token, end of text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, padding_side="left"
    )


def build_model(demo: DemoModel, tokenizer: Any) -> Any:
    """A randomly initialised model of the demo's size; seed torch before."""
    end = tokenizer.eos_token_id
    common = {"vocab_size": len(tokenizer), "tie_word_embeddings": True, "bos_token_id": end, "eos_token_id": end}
    configs: dict[str, Any] = {
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=demo.width,
            num_hidden_layers=demo.layers,
            num_attention_heads=demo.heads,
            intermediate_size=demo.neurons,
            max_position_embeddings=demo.context,
            **common,
        ),
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=demo.width,
            n_layer=demo.layers,
            n_head=demo.heads,
            n_inner=demo.neurons,
            n_positions=demo.context,
            activation_function="gelu_pytorch_tanh",  # GPT-2's function, in one step instead of six
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        ),
    }
    return transformers.AutoModelForCausalLM.from_config(configs[demo.architecture](), attn_implementation="eager")


def train(model: Any, windows: dict[str, np.ndarray], demo: DemoModel, seed: int) -> float:
    """Train on windows of each language in equal shares, reshuffled each epoch.

    Args:
        model: trained in place.
        windows: by language, uint32 `[window, position]`.
        demo: tokens and batch size.
        seed: fixes the order.

    Returns:
        The mean loss of the last tenth of the steps, nats per token.
    """
    position = next(iter(windows.values())).shape[1]
    steps = max(demo.training_tokens // (demo.training_batch * position), 1)
    optimizers = _optimizers(model)
    schedule = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: _rate(step, steps)) for one in optimizers]
    losses = []
    model.train()
    for batch in progress(_batches(windows, demo.training_batch, steps, seed), "training", steps, "step"):
        ids = torch.from_numpy(batch.astype(np.int64))
        logits = model(input_ids=ids, use_cache=False).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        for optimizer, rates in zip(optimizers, schedule, strict=True):
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return float(np.mean(losses[-max(steps // 10, 1) :]))


def _optimizers(model: Any) -> list[torch.optim.Optimizer]:
    layers = {id(p) for module in model.modules() if isinstance(module, nn.ModuleList) for p in module.parameters()}
    matrices = [p for p in model.parameters() if id(p) in layers and p.ndim == 2]
    rest = [p for p in model.parameters() if id(p) not in layers or p.ndim != 2]
    return [
        Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY),
    ]


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to the final share."""
    warm = max(round(WARM_UP * steps), 1)
    if step < warm:
        return (step + 1) / warm
    done = min((step - warm) / max(steps - warm, 1), 1.0)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def _batches(windows: dict[str, np.ndarray], size: int, steps: int, seed: int) -> Any:
    """Batches of windows; an epoch takes as many windows of each language as the smallest language has."""
    generator = np.random.default_rng(seed)
    smallest = min(len(rows) for rows in windows.values())
    queue: list[np.ndarray] = []
    for _ in range(steps):
        while len(queue) < size:
            epoch = np.concatenate([generator.permutation(rows)[:smallest] for rows in windows.values()])
            queue += list(generator.permutation(epoch))
        yield np.stack(queue[:size])
        del queue[:size]
