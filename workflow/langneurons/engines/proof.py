"""The proof that an intervention took effect, on a probe batch.

The FFN output of every edited layer, as the running engine computes it, must equal an independent
`W (keep * a + fill) + b` (times `up` in gated FFNs) from the activations before the edit. An edit that went to a
copy, to the wrong layer or to the wrong vector fails here, before any output is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from langneurons.engines.base import NOT_FINITE, EffectProof, EngineError
from langneurons.interventions import Intervention
from langneurons.models.layouts import Layout

ROUNDING, SUMMATION = 8.0, 64.0
"""Allowed error of an FFN output, relative to its scale: so many epsilons of the number format, for rounding the FFN's
vectors and its output, and so many of float32, in which products of length d_ffn are summed in an order of their own.
The scale is that of the single output, so that neither outlier tokens nor outlier dimensions hide a missing edit."""

PROBE_POSITIONS = 64
LAYOUT_POSITIONS = 8
"""Tokens on which an entry of `models.layouts` is checked."""
LAYOUT_FLOOR = 64 * torch.finfo(torch.float32).eps
"""Error of an activation that may always be: a fused kernel computes the function again in float32, and where it is
nearly zero, as GELU is at -5, subtracts numbers of size 1 and multiplies by that of the gate."""
NOT_DESCRIBED = (
    "the FFN in layer {} of the model '{}' is not as workflow/langneurons/models/layouts.py describes it: {}. Its "
    "numbers would be wrong. Correct the entry of its family, or the model's config.json if that asks for another "
    "computation (such as slow_but_exact of BLOOM)."
)
"""What is said of a wrong entry: the layer, the model, and what is wrong."""


def probe_windows(languages: list[np.ndarray]) -> np.ndarray:
    """A small probe batch: the beginning of the first window of each language, `[language, position]`."""
    return np.stack([windows[0, :PROBE_POSITIONS] for windows in languages])


def layout_probe(vocabulary: int) -> np.ndarray:
    """A few tokens on which an entry of `models.layouts` is checked, uint32 `[1, position]`."""
    return np.arange(LAYOUT_POSITIONS, dtype=np.uint32)[None] % vocabulary


def check_layout(
    model: str,
    layer: int,
    product: torch.Tensor | None,
    activation: torch.Tensor | None,
    up: torch.Tensor | None,
    gated: bool,
) -> None:
    """Check that an FFN is what its entry in `models.layouts` says: its down projection is given the activation, in a
    gated FFN times the up projection. Everything that is recorded and edited rests on that.

    Args:
        model: for messages.
        layer: likewise.
        product, activation, up: `[token, neuron]` as seen at the modules of the entry; None where one was never called,
            and `up` in plain FFNs.
        gated: whether there is an up projection.

    Raises:
        EngineError: it is something else.
    """
    problem = ""
    if product is None or activation is None or (gated and up is None):
        problem = "one of its modules is never called"
    else:
        factors = [part.double().cpu() for part in ((activation, up) if up is not None else (activation,))]
        found = product.double().cpu()
        if sizes := {part.shape[-1] for part in factors} - {found.shape[-1]}:
            problem = f"{found.shape[-1]} neurons are projected down, but one of its modules has {max(sizes)}"
        else:
            expected = math.prod(factors[1:], start=factors[0])
            form = torch.finfo(product.dtype)
            allowed = form.eps * (ROUNDING * expected.abs() + form.smallest_normal)  # rounded once or twice
            allowed += LAYOUT_FLOOR * math.prod((part.abs() for part in factors[1:]), start=torch.ones(()))
            wrong = ((found - expected).abs() > allowed) & expected.isfinite() & found.isfinite()
            if wrong.any():
                what = "its activation times its up projection" if gated else "its activation"
                problem = f"what it projects down is not {what}"
    if problem:
        raise EngineError(NOT_DESCRIBED.format(layer, model, problem))


@dataclass(frozen=True)
class FeedForward:
    """The FFN of one layer on the probe, as the engine computed it under the edit, with the weights before it."""

    product: torch.Tensor | None
    """`[token, neuron]`: the input of the down projection before the edit; None where only activation and up are
    known."""
    activation: torch.Tensor | None
    """`[token, neuron]`: the output of the activation function before the edit; None in plain FFNs."""
    up: torch.Tensor | None
    """`[token, neuron]`: what the activation is multiplied with; None in plain FFNs."""
    output: torch.Tensor
    """`[token, d_model]`: the FFN's output after the edit, in the model's number format."""
    weight: torch.Tensor
    """`[d_model, neuron]` of the down projection, without the edit."""
    bias: torch.Tensor | None
    """`[d_model]`, without the edit."""

    def before_and_after(self, intervention: Intervention, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The product without and with the edit, float64 `[token, neuron]`, from its definition."""
        neurons, keep, fill = intervention.by_layer()[layer]
        product = None if self.product is None else self.product.double().cpu()
        if intervention.site == "activation" and self.activation is not None and self.up is not None:
            activation, up = self.activation.double().cpu(), self.up.double().cpu()
            product = activation * up if product is None else product
            edited = (activation[:, neurons] * torch.from_numpy(keep) + torch.from_numpy(fill)) * up[:, neurons]
        else:
            assert product is not None
            edited = product[:, neurons] * torch.from_numpy(keep) + torch.from_numpy(fill)
        changed = product.clone()
        changed[:, neurons] = edited
        return product, changed


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

    def feed_forward(self, layer: int, edits_activation: bool) -> FeedForward:
        """One layer, with the weights as they are now. Where a hook edits the activation, the product is after it."""
        down: Any = self.layers[layer].get_submodule(self.layout.down)
        return FeedForward(
            product=None if edits_activation else self.product[layer],
            activation=self.activation[layer],
            up=self.up.get(layer),
            output=self.output[layer],
            weight=down.weight.T if isinstance(down, Conv1D) else down.weight,
            bias=down.bias,
        )


def compare_with_expectation(
    intervention: Intervention,
    feed_forward: Callable[[int], FeedForward],
    unedited_layers_equal: bool,
    logits_change: float,
) -> EffectProof:
    """Compare what the engine computed with what the intervention says.

    Args:
        intervention: what was asked for.
        feed_forward: the FFN of a layer under the edit, one at a time.
        unedited_layers_equal: whether the FFN outputs before the first edited layer are the baseline's.
        logits_change: largest absolute difference of the logits.

    Raises:
        EngineError: naming the layer and the difference.
    """
    rows = []
    for layer in intervention.by_layer():
        ffn = feed_forward(layer)
        weight = ffn.weight.detach().double().cpu()
        bias = torch.zeros(len(weight), dtype=torch.float64) if ffn.bias is None else ffn.bias.detach().double().cpu()
        before, after = ffn.before_and_after(intervention, layer)
        expected, without = after @ weight.T + bias, before @ weight.T + bias
        scale = _scale(weight, before, after) + expected.abs()
        rows.append(
            {
                "layer": layer,
                "error": ((ffn.output.double().cpu() - expected).abs() / scale).max().item(),
                "change": ((expected - without).abs() / scale).max().item(),
                "tolerance": ROUNDING * torch.finfo(ffn.output.dtype).eps + SUMMATION * torch.finfo(torch.float32).eps,
            }
        )
    visible = any(row["change"] > row["tolerance"] for row in rows)
    note = "" if visible else "no edited neuron was active enough on the probe to tell the edit from rounding"
    proof = EffectProof(len(intervention), rows, unedited_layers_equal, logits_change, note)
    judge(proof, "FFN output", visible)
    return proof


def _scale(weight: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Size of the terms that each FFN output sums: the root of their summed squares, without and with the edit."""
    squares = (before.square() + after.square()) @ weight.square().T
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
    if not math.isfinite(proof.logits_change):
        raise EngineError(NOT_FINITE.format("logits, with or without the intervention,"))
    if proof.logits_change == 0 and felt:
        raise EngineError(f"the intervention changed the {what}, but not the logits.")
