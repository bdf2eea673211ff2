"""How far a computation may be from the same in float64: bounds that hold on every processor.

They count every rounding at its worst: sums in any order, with or without fused multiplication and addition, functions
from any vector library. So they are some ten times wider than what is seen, and still a thousandth of what a wrong
formula or a wrong weight changes. Nothing here uses `langneurons`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

EPSILON = torch.finfo(torch.float32).eps
UNIT = EPSILON / 2
"""A rounding to float32, relative to the number."""
SLOPE = 1.13
"""No activation function is steeper: silu 1.0999, both forms of gelu 1.1290, relu 1."""
FUNCTION = 4 * EPSILON
"""Error of an activation, relative to its argument. Both forms of gelu are half the argument times 1 + t. In t, whose
size is at most 1, are the rounding of its argument (at most 2.5 units), the error of the library's erf or tanh (at most
3 units: the formula of Abramowitz and Stegun has 1.5e-7), and that of 1 + t (2 units); half of that, and two units for
the products, are less than 6. silu and relu have fewer."""


def silu(z: torch.Tensor) -> torch.Tensor:
    """z times the logistic function of z."""
    return z / (1 + torch.exp(-z))


def gelu_tanh(z: torch.Tensor) -> torch.Tensor:
    """The approximation of Hendrycks and Gimpel 2016 (gelu_new, gelu_pytorch_tanh, Bloom's own)."""
    return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def gelu_exact(z: torch.Tensor) -> torch.Tensor:
    """z times the normal distribution function of z."""
    return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))


def relu(z: torch.Tensor) -> torch.Tensor:
    """The positive part of z."""
    return torch.where(z > 0, z, torch.zeros_like(z))


FORMULAS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda values: values,
    "silu": silu,
    "gelu": gelu_exact,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
}
"""By the names that counting knows them by."""


def summed(terms: int) -> float:
    """Error of a sum of so many terms or products in float32, relative to the sum of their absolute values."""
    return terms * UNIT


@dataclass(frozen=True)
class Computed:
    """A number that a model computes in float32."""

    exact: torch.Tensor
    """In float64, from the same inputs."""
    error: torch.Tensor
    """What float32 may differ from it, at most."""

    @classmethod
    def given(cls, values: torch.Tensor) -> Computed:
        """Values that are known to the bit."""
        return cls(values.double(), torch.zeros_like(values, dtype=torch.float64))

    @property
    def largest(self) -> torch.Tensor:
        """The largest absolute value that it may have."""
        return self.exact.abs() + self.error

    def projected(self, weight: torch.Tensor, bias: torch.Tensor | float) -> Computed:
        """Multiplied by a matrix `[output, input]`, and a bias added; both in float64."""
        size = weight.abs().T
        terms = self.largest @ size + (bias if isinstance(bias, float) else bias.abs())
        return Computed(self.exact @ weight.T + bias, self.error @ size + summed(weight.shape[1] + 2) * terms)

    def through(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Computed:
        """An activation function of it."""
        return Computed(function(self.exact), SLOPE * self.error + FUNCTION * self.largest)

    def times(self, other: Computed) -> Computed:
        """The product with another."""
        error = self.largest * other.error + other.largest * self.error + UNIT * self.largest * other.largest
        return Computed(self.exact * other.exact, error)

    def edited(self, neurons: np.ndarray, keep: float, fill: np.ndarray | float) -> Computed:
        """`keep * a + fill` of some columns. Where that is done by weights, each of the two is a sum of its own in the
        output, so what they cancel of each other does not make the roundings smaller."""
        exact, error = self.exact.clone(), self.error.clone()
        added = torch.as_tensor(fill, dtype=torch.float64)
        kept = keep * exact[:, neurons]
        exact[:, neurons] = kept + added
        parts = kept.abs() + abs(keep) * error[:, neurons] + added.abs()
        error[:, neurons] = abs(keep) * error[:, neurons] + summed(exact.shape[1] + 6) * parts
        return Computed(exact, error)

    def part(self, columns: slice | np.ndarray) -> Computed:
        """Some of the last axis."""
        return Computed(self.exact[..., columns], self.error[..., columns])

    def total(self, rows: int, step: float = 0.0, batches: int = 0) -> Computed:
        """Summed over rows in batches of at most so many, whose sums are rounded to multiples of a step."""
        return Computed(
            self.exact.sum(0), self.error.sum(0) + summed(rows) * self.largest.sum(0) + 0.5 * step * batches
        )

    def mean(self) -> Computed:
        """The mean over rows; each weight of the mean is rounded, too."""
        return Computed(self.exact.mean(0), self.error.mean(0) + summed(len(self.exact) + 2) * self.largest.mean(0))

    def holds(self, found: torch.Tensor | np.ndarray) -> bool:
        """Whether what was found is within the bound everywhere."""
        return bool(((torch.as_tensor(found).double() - self.exact).abs() <= self.error).all())


def rounded(
    function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest that an activation may be in the format of its argument, in float64.

    It is computed in float32 (float64 for that) and then rounded to the format: near the middle between two neighbours
    libraries may differ. For most numbers both are the same.
    """
    exact = values.double()
    unit = torch.finfo(torch.promote_types(values.dtype, torch.float32)).eps
    activation, error = function(exact), FUNCTION / EPSILON * unit * exact.abs()
    return (activation - error).to(values.dtype).double(), (activation + error).to(values.dtype).double()
