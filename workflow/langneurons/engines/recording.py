"""What the reference engine records of activations, by hooks that see one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import EngineError
from langneurons.engines.hidden import hidden_of
from langneurons.models.layouts import Layout
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans

EXACT_TOKENS = 2**24
"""Counts of a batch are summed in float32, which holds every integer up to this one."""
BLOCK = 2**18
"""Numbers per thread that stay in a processor's cache while they are counted."""


class Recorder:
    """Counts and sums of all layers: float32 (or the model's format) within a batch, int64 and float64 across
    batches."""

    def __init__(self, modules: list[nn.Module], layout: Layout, shape: tuple[int, int], width: int) -> None:
        self.modules, self.layout = modules, layout
        layers, neurons = shape
        self.over_zero = torch.zeros(layers, neurons, dtype=torch.int64)
        self.activation_sum = torch.zeros(layers, neurons, dtype=torch.float64)
        self.product_sum = torch.zeros(layers, neurons, dtype=torch.float64)
        self.hidden_sum = torch.zeros(layers, width, dtype=torch.float64)
        self.tokens = 0
        self.batch: dict[tuple[str, int], torch.Tensor] = {}
        self.positive = torch.empty(0)
        self.ones = torch.empty(0)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hook every layer's activation, in gated FFNs its product, and the hidden state after it."""
        with ExitStack() as stack:
            for layer, module in enumerate(self.modules):
                stack.callback(module.register_forward_hook(partial(self._hidden, layer)).remove)
                activation = module.get_submodule(self.layout.activation)
                stack.callback(activation.register_forward_hook(partial(self._activation, layer)).remove)
                if self.layout.gated:
                    down = module.get_submodule(self.layout.down)
                    stack.callback(down.register_forward_pre_hook(partial(self._product, layer)).remove)
            yield

    def _activation(self, layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        flat = output.flatten(0, -2)
        if len(self.ones) != len(flat):
            self._allocate(flat)
        over_zero = torch.zeros(flat.shape[1], device=flat.device)
        activation_sum = torch.zeros(flat.shape[1], device=flat.device)
        for block in flat.split(len(self.positive)):
            positive, ones = self.positive[: len(block)], self.ones[: len(block)]
            torch.gt(block, 0, out=positive)
            over_zero.addmv_(positive.T, ones)
            activation_sum.add_(self._sum(block))
        self.batch["over_zero", layer] = over_zero
        self.batch["activation_sum", layer] = activation_sum

    def _allocate(self, flat: torch.Tensor) -> None:
        """Buffers for a batch of this size; on the CPU for a block of it that stays in the cache."""
        tokens, neurons = flat.shape
        if tokens >= EXACT_TOKENS:
            raise EngineError(f"a batch of {tokens} tokens cannot be counted exactly. Lower the model's batch_size.")
        fitting = max(BLOCK * torch.get_num_threads() // neurons, 1)
        rows = min(tokens, fitting) if flat.device.type == "cpu" else tokens
        self.positive = torch.empty(rows, neurons, device=flat.device)
        self.ones = torch.ones(tokens, device=flat.device)

    def _product(self, layer: int, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.batch["product_sum", layer] = self._sum(inputs[0].flatten(0, -2))

    def _hidden(self, layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        self.batch["hidden_sum", layer] = self._sum(hidden_of(output).flatten(0, -2))

    def _sum(self, flat: torch.Tensor) -> torch.Tensor:
        """Sum over tokens in float32."""
        if flat.dtype != torch.float32:
            return flat.sum(0, dtype=torch.float32)
        return self.ones[: len(flat)] @ flat  # a product with ones is faster than a sum

    def collect(self, tokens: int) -> None:
        """Add what the hooks left of one batch; every layer must have left something."""
        layers = range(len(self.modules))
        sums = ["over_zero", "activation_sum", "hidden_sum"] + ["product_sum"] * self.layout.gated
        if len(self.batch) != len(layers) * len(sums):
            raise EngineError("a layer was not recorded: the model did not call the modules that its layout names")
        for name in sums:
            stacked = torch.stack([self.batch[name, layer] for layer in layers])
            total = getattr(self, name)
            total.add_(stacked.cpu().to(total.dtype))
        self.tokens += tokens
        self.batch.clear()

    def counts(self) -> ActivationCounts:
        """The result, checked for impossible values."""
        product = self.product_sum if self.layout.gated else self.activation_sum
        counts = ActivationCounts(
            self.over_zero.numpy(),
            self.activation_sum.numpy(),
            product.numpy(),
            self.tokens,
            hidden_sum=self.hidden_sum.numpy(),
        )
        try:
            counts.check()
        except ValueError as error:
            raise EngineError(str(error)) from None
        return counts


class SentenceRecorder:
    """Mean activation of every neuron over each sentence: float32 within a batch, float16 in memory."""

    def __init__(
        self, modules: list[nn.Module], layout: Layout, shape: tuple[int, int], sentences: Sequence[Sentence]
    ) -> None:
        self.modules, self.layout, self.sentences = modules, layout, sentences
        self.result = np.zeros((len(sentences), *shape), dtype=np.float16)
        self.chosen: list[int] = []

    @contextmanager
    def attached(self, windows: list[int]) -> Iterator[None]:
        """Hook every layer's activation for a batch of these windows."""
        self.chosen = [number for number, sentence in enumerate(self.sentences) if sentence.window in windows]
        with ExitStack() as stack:
            for layer, module in enumerate(self.modules):
                activation = module.get_submodule(self.layout.activation)
                stack.callback(activation.register_forward_hook(partial(self._keep, layer, windows)).remove)
            yield

    def _keep(self, layer: int, windows: list[int], module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        flat = output.flatten(0, -2).float()
        positions = len(flat) // len(windows)
        weights = torch.zeros(len(self.chosen), len(flat))
        for row, number in enumerate(self.chosen):
            sentence = self.sentences[number]
            start = windows.index(sentence.window) * positions
            weights[row, start + sentence.start : start + sentence.stop] = 1 / sentence.tokens
        means = (weights.to(flat.device) @ flat).cpu().numpy()
        with np.errstate(over="ignore"):
            kept = means.astype(np.float16)
        if (np.isfinite(means) & np.isinf(kept)).any():
            raise EngineError(
                f"mean activations of sentences exceed what float16 holds, in which they are kept, in layer {layer}. "
                "Leave out the methods that need them (identification.method, identification.compare): "
                "average-precision, probe."
            )
        self.result[self.chosen, layer] = kept

    def means(self) -> SentenceMeans:
        """The result, checked for values that float16 cannot hold."""
        means = SentenceMeans(self.result, np.array([sentence.tokens for sentence in self.sentences], dtype=np.int64))
        try:
            means.check()
        except ValueError as error:
            raise EngineError(str(error)) from None
        return means
