"""The hidden states between layers, and the proof that a shift of them took effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from langneurons.engines.base import EffectProof
from langneurons.engines.proof import ROUNDING, judge
from langneurons.interventions import Intervention

EXACT = 4.0
"""Allowed error of an entry of a hidden state, in epsilons of the number format and relative to its own terms: `keep`,
`keep * h`, `fill` and the sum are rounded once each, by half an epsilon, and nothing else is computed."""


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden state that a layer returned, `[row, position, d_model]`; some families return it first in a tuple."""
    hidden: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def with_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """What a layer returned, with another hidden state."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@dataclass
class HiddenStates:
    """Hidden states of one forward pass by layer, `[…, d_model]`."""

    returned: dict[int, torch.Tensor]
    """As each layer returned them, before any edit."""
    received: dict[int, torch.Tensor]
    """As the next layer received them. What follows the last layer differs by family: there, as it returned them after
    all edits."""


class HiddenCapture(HiddenStates):
    """Hidden states that hooks keep."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__({}, {})
        self.layers = layers

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hook all layers. What a layer returns is seen before the hooks that edit it."""
        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                stack.callback(
                    layer.register_forward_hook(self._keep_output(number, self.returned), prepend=True).remove
                )
                if number:
                    hook = self._keep_input(number - 1)
                    stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            last = len(self.layers) - 1
            stack.callback(self.layers[last].register_forward_hook(self._keep_output(last, self.received)).remove)
            yield

    def _keep_output(self, layer: int, store: dict[int, torch.Tensor]) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            store[layer] = hidden_of(output).detach().clone()

        return hook

    def _keep_input(self, layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], options: dict[str, Any]) -> None:
            self.received[layer] = (inputs[0] if inputs else options["hidden_states"]).detach().clone()

        return hook


def compare_hidden(
    intervention: Intervention, baseline: HiddenStates, edited: HiddenStates, logits_change: float
) -> EffectProof:
    """Compare the hidden states that layers received with what the intervention says.

    The layer after an edited one must receive `keep * h + fill` of what the edited layer returned; errors and changes
    of an entry are relative to its own terms, so that no outlier among the dimensions or tokens, as large models have
    them, hides a missing shift. That the model uses what its last layer returned, only the logits can tell, which must
    change where a shift is more than rounding to the largest entry of a position.

    Raises:
        EngineError: naming the layer and the difference.
    """
    edits = intervention.by_layer()
    rows, felt = [], False
    for layer, (dimensions, keep, fill) in edits.items():
        before, form = edited.returned[layer].double().cpu(), torch.finfo(edited.returned[layer].dtype)
        kept, added = before.clone(), torch.zeros(before.shape[-1], dtype=torch.float64)
        kept[..., dimensions] *= torch.from_numpy(keep)
        added[dimensions] = torch.from_numpy(fill)
        expected = kept + added
        scale = (kept.abs() + added.abs() + expected.abs()).clamp_min(form.tiny)
        change = (expected - before).abs()
        felt |= bool((change.amax(dim=-1) > ROUNDING * form.eps * scale.amax(dim=-1)).any())
        error = (edited.received[layer].double().cpu() - expected).abs() / scale
        rows.append(
            {
                "layer": layer,
                "error": error.max().item(),
                "change": (change / scale).max().item(),
                "tolerance": EXACT * form.eps,
            }
        )
    first = min(edits)
    equal = all(torch.equal(baseline.returned[layer], edited.returned[layer]) for layer in range(first + 1))
    visible = any(row["change"] > row["tolerance"] for row in rows)
    note = "" if visible else "the shift is too small on the probe to tell it from rounding"
    proof = EffectProof(len(intervention), rows, equal, logits_change, note)
    judge(proof, "hidden state", felt)
    return proof
