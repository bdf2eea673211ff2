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
from langneurons.engines.counting import Accumulator, AllRecorded
from langneurons.engines.hidden import hidden_of
from langneurons.models.layouts import Layout
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans, as_float16


class Recorder:
    """Counts and sums of all layers, by hooks on the modules that the layout names.

    For counts alone a forward pass ends with `AllRecorded` at the last activation: what follows it is not needed.
    """

    def __init__(
        self, modules: list[nn.Module], layout: Layout, shape: tuple[int, int], width: int, sums: bool = True
    ) -> None:
        self.modules, self.layout, self.sums = modules, layout, sums
        self.accumulator = Accumulator(shape, width, gated=layout.gated, sums=sums)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hook every layer's activation, and for sums the product in gated FFNs and the hidden state after it."""
        with ExitStack() as stack:
            for layer, module in enumerate(self.modules):
                activation = module.get_submodule(self.layout.activation)
                stack.callback(activation.register_forward_hook(partial(self._activation, layer)).remove)
                if self.sums and self.layout.gated:
                    down = module.get_submodule(self.layout.down)
                    stack.callback(down.register_forward_pre_hook(partial(self._product, layer)).remove)
                if self.sums:
                    stack.callback(module.register_forward_hook(partial(self._hidden, layer)).remove)
            yield

    def _activation(self, layer: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.accumulator.add_activation(layer, output.flatten(0, -2))
        if not self.sums and layer == len(self.modules) - 1:
            raise AllRecorded

    def _product(self, layer: int, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.accumulator.add_product(layer, inputs[0].flatten(0, -2))

    def _hidden(self, layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        self.accumulator.add_hidden(layer, hidden_of(output).flatten(0, -2))

    def collect(self, tokens: int) -> None:
        """End a batch; every layer must have left something of each token."""
        self.accumulator.end_batch(tokens)

    def counts(self) -> ActivationCounts:
        """The result, checked for impossible values."""
        arrays = self.accumulator.arrays()
        counts = ActivationCounts(
            arrays["over_zero"],
            arrays.get("activation_sum"),
            arrays.get("product_sum"),
            self.accumulator.tokens,
            hidden_sum=arrays.get("hidden_sum"),
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
        self.result[self.chosen, layer] = as_float16(means[:, None], layer)[:, 0]

    def means(self) -> SentenceMeans:
        """The result, checked for values that float16 cannot hold."""
        means = SentenceMeans(self.result, np.array([sentence.tokens for sentence in self.sentences], dtype=np.int64))
        try:
            means.check()
        except ValueError as error:
            raise EngineError(str(error)) from None
        return means
