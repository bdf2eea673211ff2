"""Edits of the FFN's vectors as edits of its weights: nothing is computed at run time, and compiled graphs stay valid.

The down projection computes `W a + b`. An edit `a -> keep * a + fill` of its input is the projection with the columns
of W scaled by `keep` and `W fill` added to b. What is scaled or replaced is kept aside and put back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from langneurons.engines.base import EngineError
from langneurons.interventions import Intervention


def folds(intervention: Intervention, gated: bool) -> bool:
    """Whether the edit is one of the down projection's input.

    In gated FFNs an edit of the activation is `(keep * a + fill) * up`: with a fill it depends on `up` and is none.
    """
    if intervention.site == "residual":
        return False
    return intervention.site == "product" or not gated or not intervention.table["fill"].any()


def check_compiled(intervention: Intervention, gated: bool) -> None:
    """Raise EngineError if an edit needs hooks, which compiled models do not call."""
    if not folds(intervention, gated):
        raise EngineError(
            f"an edit at the site '{intervention.site}' that is none of the model's weights needs hooks, which "
            "compiled models do not call. Set the model's key 'eager' to true or null."
        )


@torch.no_grad()
def scale_columns(weight: torch.Tensor, neurons: np.ndarray, keep: np.ndarray) -> None:
    """Scale columns of a weight `[d_model, neuron]` in place."""
    index = torch.from_numpy(neurons).to(weight.device)
    factors = torch.from_numpy(keep).to(weight.device, torch.float64)
    weight[:, index] = (weight[:, index].double() * factors).to(weight.dtype)


@torch.no_grad()
def projected_fill(weight: torch.Tensor, neurons: np.ndarray, fill: np.ndarray) -> torch.Tensor:
    """What a fill adds to the output, float64 `[d_model]`, by the weight `[d_model, neuron]` before the edit."""
    index = torch.from_numpy(neurons).to(weight.device)
    return weight[:, index].double() @ torch.from_numpy(fill).to(weight.device, torch.float64)


@contextmanager
def kept_columns(weight: torch.Tensor, neurons: np.ndarray) -> Iterator[None]:
    """Put columns of a weight `[d_model, neuron]` back when the block ends, bit for bit."""
    index = torch.from_numpy(neurons).to(weight.device)
    with torch.no_grad():
        saved = weight[:, index].clone()
    try:
        yield
    finally:
        with torch.no_grad():
            weight[:, index] = saved


@contextmanager
def folded(
    module: nn.Module, weight: torch.Tensor, neurons: np.ndarray, keep: np.ndarray, fill: np.ndarray
) -> Iterator[None]:
    """Edit the input of a down projection by its weights within the block.

    Args:
        module: the projection; where there is a fill, it is added to its bias, which is made if it has none.
        weight: its weight as `[d_model, neuron]`, a view of what it computes with.
        neurons: int64 `[entry]`.
        keep, fill: float64 `[entry]`.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_columns(weight, neurons))
        if fill.any():
            stack.enter_context(added_to_bias(module, projected_fill(weight, neurons, fill), weight.dtype))
        scale_columns(weight, neurons, keep)
        yield


@contextmanager
def added_to_bias(module: nn.Module, added: torch.Tensor, dtype: torch.dtype) -> Iterator[None]:
    """Add a vector to the bias within the block, in place where there is one: compiled graphs know its address."""
    bias = module.bias
    if bias is None:
        module.bias = nn.Parameter(added.to(dtype), requires_grad=False)
        try:
            yield
        finally:
            module.bias = None
        return
    assert isinstance(bias, torch.Tensor)
    saved = bias.detach().clone()
    with torch.no_grad():
        bias.copy_(bias.double() + added)
    try:
        yield
    finally:
        with torch.no_grad():
            bias.copy_(saved)
