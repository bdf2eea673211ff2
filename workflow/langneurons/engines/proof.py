"""The proof that an intervention took effect, on a probe batch.

The FFN output of every edited layer, as the running engine computes it, must equal an independent
`W (keep * a + fill) + b` (times `up` in gated FFNs) from the activations before the edit. An edit that went to a
copy, to the wrong layer or to the wrong vector fails here, before any output is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from langneurons.engines.base import EffectProof, EngineError
from langneurons.interventions import Intervention
from langneurons.models.layouts import Layout

ROUNDING, SUMMATION = 8.0, 64.0
"""Allowed error of an FFN output, relative to its scale: so many epsilons of the number format, for rounding the FFN's
vectors and its output, and so many of float32, in which products of length d_ffn are summed in an order of their own.
The scale is that of the single output, so that neither outlier tokens nor outlier dimensions hide a missing edit."""

PROBE_POSITIONS = 64


def probe_windows(languages: list[np.ndarray]) -> np.ndarray:
    """A small probe batch: the beginning of the first window of each language, `[language, position]`."""
    return np.stack([windows[0, :PROBE_POSITIONS] for windows in languages])


class Capture:
    """FFN vectors of some layers during one forward pass: before any edit, and the FFN's output after it."""

    def __init__(self, layers: list[nn.Module], layout: Layout) -> None:
        self.layers, self.layout = layers, layout
        self.activation: dict[int, torch.Tensor] = {}
        self.up: dict[int, torch.Tensor] = {}
        self.product: dict[int, torch.Tensor] = {}
        self.output: dict[int, torch.Tensor] = {}

    @contextmanager
    def attached(self, layers: Iterable[int]) -> Iterator[None]:
        """Hook these layers. Hooks before an edit are put in front of those that edit."""
        with ExitStack() as stack:
            for layer in layers:
                activation = self.layers[layer].get_submodule(self.layout.activation)
                down = self.layers[layer].get_submodule(self.layout.down)
                hooks = [
                    activation.register_forward_hook(self._keep(self.activation, layer), prepend=True),
                    down.register_forward_pre_hook(self._keep_input(layer), prepend=True),
                    down.register_forward_hook(self._keep(self.output, layer)),
                ]
                if self.layout.up is not None:
                    up = self.layers[layer].get_submodule(self.layout.up)
                    hooks.append(up.register_forward_hook(self._keep(self.up, layer)))
                for hook in hooks:
                    stack.callback(hook.remove)
            yield

    def _keep(self, store: dict[int, torch.Tensor], layer: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            value = output.flatten(0, -2).detach().clone()
            halves = self.layout.up_is_second_half and store is self.up
            store[layer] = value.chunk(2, dim=-1)[1] if halves else value

        return hook

    def _keep_input(self, layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self.product[layer] = inputs[0].flatten(0, -2).detach().clone()

        return hook


def compare_with_expectation(
    intervention: Intervention, baseline: Capture, edited: Capture, logits_change: float
) -> EffectProof:
    """Compare what the engine computed with what the intervention says.

    Args:
        intervention: what was asked for.
        baseline: captured without the edit, in the layers before the first edited one.
        edited: captured with the edit, in all layers up to the last edited one.
        logits_change: largest absolute difference of the logits.

    Raises:
        EngineError: naming the layer and the difference.
    """
    rows = []
    for layer, (neurons, keep, fill) in intervention.by_layer().items():
        down = edited.layers[layer].get_submodule(edited.layout.down)
        unedited = edited.activation[layer] if intervention.site == "activation" else edited.product[layer]
        vector = unedited.double().cpu()
        changed = vector.clone()
        changed[:, neurons] = vector[:, neurons] * torch.from_numpy(keep) + torch.from_numpy(fill)
        if intervention.site == "activation" and edited.layout.gated:
            up = edited.up[layer].double().cpu()
            vector, changed = vector * up, changed * up
        expected, without = _project(down, changed), _project(down, vector)
        output = edited.output[layer]
        scale = _scale(down, vector, changed) + expected.abs()
        rows.append(
            {
                "layer": layer,
                "error": ((output.double().cpu() - expected).abs() / scale).max().item(),
                "change": ((expected - without).abs() / scale).max().item(),
                "tolerance": ROUNDING * torch.finfo(output.dtype).eps + SUMMATION * torch.finfo(torch.float32).eps,
            }
        )
    equal = all(torch.equal(baseline.output[layer], edited.output[layer]) for layer in baseline.output)
    visible = any(row["change"] > row["tolerance"] for row in rows)
    note = "" if visible else "no edited neuron was active enough on the probe to tell the edit from rounding"
    proof = EffectProof(len(intervention), rows, equal, logits_change, note)
    judge(proof, "FFN output", visible)
    return proof


def _project(down: Any, product: torch.Tensor) -> torch.Tensor:
    """The down projection in float64, apart from the engine's own code."""
    bias = down.bias.double().cpu() if getattr(down, "bias", None) is not None else 0.0
    return product @ _by_input(down) + bias


def _by_input(down: Any) -> torch.Tensor:
    """The weight of the down projection in float64, `[neuron, d_model]`."""
    weight: torch.Tensor = down.weight.double().cpu()
    return weight if isinstance(down, Conv1D) else weight.T


def _scale(down: Any, vector: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Size of the terms that each FFN output sums: the root of their summed squares, before and after the edit."""
    squares = (vector.square() + changed.square()) @ _by_input(down).square()
    return squares.sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def judge(proof: EffectProof, what: str, felt: bool) -> None:
    """Raise unless the proof holds; `what` is the vector that was compared, `felt` whether the logits must change."""
    for row in proof.layers:
        if not row["error"] <= row["tolerance"]:
            raise EngineError(
                f"the intervention did not take effect as asked: in layer {row['layer']} the {what} differs "
                f"from the expected one by {row['error']:.3g} (allowed {row['tolerance']:.3g}; the edit changes it by "
                f"{row['change']:.3g})."
            )
    if not proof.unedited_layers_equal:
        raise EngineError(f"the intervention changed the {what} of a layer before the first edited one.")
    if proof.logits_change == 0 and felt:
        raise EngineError(f"the intervention changed the {what}, but not the logits.")
