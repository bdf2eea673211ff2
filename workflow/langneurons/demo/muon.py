"""The Muon optimizer in float32.

PyTorch's own computes in bfloat16, which processors without AVX-512 do fifty times as slowly as float32. With the same
defaults the updates are the same but for rounding; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"."""
ITERATIONS = 5


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with the same singular vectors and all singular values near 1, by Newton-Schulz iterations.

    Args:
        matrix: float32 `[row, column]`.

    Returns:
        float32 `[row, column]`.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)  # singular values of at most 1
    linear, cubic, quintic = COEFFICIENTS
    # Every iteration multiplies by a polynomial of the small matrix `gram`: all of them do so before the wide one.
    gram = wide @ wide.T
    identity = torch.eye(len(gram))
    whole = None
    for iteration in range(ITERATIONS):
        factor = linear * identity + cubic * gram + quintic * gram @ gram
        whole = factor if whole is None else factor @ whole
        if iteration < ITERATIONS - 1:  # after the last one nothing needs it
            gram = factor @ gram @ factor
    assert whole is not None
    wide = whole @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum, for matrices."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step with the gradients that are there, or that `closure` makes."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                average = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalised(parameter.grad.lerp(average, group["momentum"]))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(update, alpha=group["lr"] * max(1, rows / columns) ** 0.5)
        return loss
