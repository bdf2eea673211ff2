"""What is recorded of FFN neurons on one language's text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langneurons.errors import UserError


@dataclass(frozen=True)
class ActivationCounts:
    """Counts and sums over all real tokens of one language, `[layer, neuron]`."""

    over_zero: np.ndarray
    """int64 `[layer, neuron]`: tokens on which the output of the activation function is above zero."""
    activation_sum: np.ndarray
    """float64 `[layer, neuron]`: sum of the output of the activation function."""
    product_sum: np.ndarray
    """float64 `[layer, neuron]`: sum of the input of the down projection."""
    tokens: int
    """Number of tokens."""

    def check(self) -> None:
        """Raise UserError if the counts cannot be true."""
        shapes = {self.over_zero.shape, self.activation_sum.shape, self.product_sum.shape}
        if len(shapes) != 1:
            raise UserError(f"the arrays have different shapes: {sorted(shapes)}")
        if self.tokens < 1:
            raise UserError(f"{self.tokens} tokens were counted, but at least one is needed")
        if self.over_zero.min(initial=0) < 0 or self.over_zero.max(initial=0) > self.tokens:
            raise UserError(
                f"counts reach from {self.over_zero.min()} to {self.over_zero.max()} for {self.tokens} tokens"
            )
        for name in ("activation_sum", "product_sum"):
            broken = ~np.isfinite(getattr(self, name))
            if broken.any():
                layer, neuron = np.argwhere(broken)[0]
                raise UserError(
                    f"{int(broken.sum())} activations are NaN or infinite ({name}), first in layer {layer}, "
                    f"neuron {neuron}. "
                    "Record in a wider number format, such as dtype: bfloat16 or float32."
                )

    def probability(self) -> np.ndarray:
        """Activation probability, float32 `[layer, neuron]`: the share of tokens with an activation above zero."""
        return (self.over_zero.astype(np.float32) / np.float32(self.tokens)).astype(np.float32)
