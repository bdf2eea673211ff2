"""The same counting by other ways, in the same process: by hooks as it was published, TransformerLens and nnsight.

The last two are each measured twice: as their documentation shows, the language-model head included, and as fast as
their users can make them, without it. Before anything is timed, all of them must have counted what we count.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shapes import Shape, Works
from langneurons.engines.hf import HfEngine
from langneurons.neurons.counting import ActivationCounts

sys.path.append(str(Path(__file__).parents[2] / ".venv-bench"))  # last: the environment's own packages come first

Count = Callable[[torch.Tensor], torch.Tensor]
"""Counts of a batch of token ids, int64 `[layer, neuron]`."""


def peers(engine: HfEngine) -> dict[str, Count]:
    """The ways that are installed, by name, on the engine's model or a copy of it."""
    found: dict[str, Count] = {"hooks as published": as_published(engine)}
    for name, load in {"TransformerLens": transformer_lens, "nnsight": nnsight}.items():
        try:
            found |= load(engine)
        except ImportError as error:
            print(f"{name} is left out: {error} (make setup-bench)", flush=True)
    return found


def check(works: Works, shape: Shape) -> None:
    """Exit unless all works that count have the counts of the first, activations aside that are rounded to another
    sign."""
    allowed = 1e-5 if shape.dtype == "float32" else 5e-3  # of tokens x neurons
    expected = None
    for name, work in works.items():
        found = work()
        if found is None:  # a forward pass
            continue
        expected = expected or found
        differences = np.abs(found.over_zero - expected.over_zero).sum()
        share = differences / (expected.tokens * expected.over_zero.size)
        if found.tokens != expected.tokens or share > allowed:
            raise SystemExit(f"{name} counts otherwise than we do, on {share:.1e} of tokens x neurons")


def recorded(count: Count, engine: HfEngine, windows: np.ndarray) -> ActivationCounts:
    """Counts on windows in batches."""
    total = torch.zeros(engine.shape, dtype=torch.int64, device=engine.device)
    for start in range(0, len(windows), engine.batch_size):
        total += count(engine._ids(windows[start : start + engine.batch_size]))
    return ActivationCounts(total.cpu().numpy(), None, None, windows.size)


def as_published(engine: HfEngine) -> Count:
    """Hooks on the activation functions of the whole model, and a copy of what they see in float32."""

    def hook(layer: int, counts: torch.Tensor, module: Any, inputs: Any, output: torch.Tensor) -> None:
        counts[layer] += (output.float() > 0).sum(dim=(0, 1))

    @torch.inference_mode()
    def count(batch: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros(engine.shape, dtype=torch.int64, device=batch.device)
        with ExitStack() as stack:
            for layer, module in enumerate(engine.layers):
                activation = module.get_submodule(engine.layout.activation)
                stack.callback(activation.register_forward_hook(partial(hook, layer, counts)).remove)
            engine.model(input_ids=batch, use_cache=False)
        return counts

    return count


def transformer_lens(engine: HfEngine) -> dict[str, Count]:
    """By `hook_pre`, which is above zero where the activation is: stopping at a layer would leave out its FFN, so the
    faster way asks for the logits of one position."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        engine.name,
        hf_model=copy.deepcopy(engine.model),
        tokenizer=copy.deepcopy(engine.tokenizer),
        device=str(engine.device),
        dtype=engine.model.dtype,
    )

    def hook(layer: int, counts: torch.Tensor, values: torch.Tensor, hook: Any) -> None:
        counts[layer] += (values > 0).sum(dim=(0, 1))

    @torch.inference_mode()
    def count(batch: torch.Tensor, **options: Any) -> torch.Tensor:
        counts = torch.zeros(engine.shape, dtype=torch.int64, device=batch.device)
        hooks = [(f"blocks.{layer}.mlp.hook_pre", partial(hook, layer, counts)) for layer in range(engine.shape[0])]
        bridge.run_with_hooks(batch, fwd_hooks=hooks, return_type=None, **options)
        return counts

    return {"TransformerLens": count, "TransformerLens, one logit": partial(count, logits_to_keep=1)}


def nnsight(engine: HfEngine) -> dict[str, Count]:
    """By the outputs of the activation functions in a trace; the faster way traces the base model alone."""
    from nnsight import NNsight, save

    def counting(traced: Any, layers: str) -> Count:
        activations = [attrgetter(engine.layout.activation)(layer) for layer in attrgetter(layers)(traced)]

        @torch.inference_mode()
        def count(batch: torch.Tensor) -> torch.Tensor:
            with traced.trace(input_ids=batch, use_cache=False):
                counts = save([(activation.output > 0).sum(dim=(0, 1)) for activation in activations])
            return torch.stack(counts)

        return count

    layers = engine.layout.layers
    return {
        "nnsight": counting(NNsight(copy.deepcopy(engine.model)), layers),
        "nnsight, base model": counting(
            NNsight(copy.deepcopy(engine.model.base_model)), layers.removeprefix(f"{engine.model.base_model_prefix}.")
        ),
    }
