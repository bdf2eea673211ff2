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
    activation_sum: np.ndarray | None
    """float64 `[layer, neuron]`: sum of the output of the activation function; None in published recordings."""
    product_sum: np.ndarray | None
    """float64 `[layer, neuron]`: sum of the input of the down projection; None in published recordings."""
    tokens: int
    """Number of tokens."""
    half_over_zero: np.ndarray | None = None
    """int64 `[layer, neuron]`: the part of `over_zero` from every other window; None in published recordings."""
    half_tokens: int = 0
    """Tokens of that half."""
    quarter_over_zero: np.ndarray | None = None
    """int64 `[layer, neuron]`: the part of `half_over_zero` from every other of its windows, where that was kept."""
    quarter_tokens: int = 0
    """Tokens of that quarter."""
    hidden_sum: np.ndarray | None = None
    """float64 `[layer, d_model]`: sum of the hidden state after each layer; None in published recordings."""

    def check(self) -> None:
        """Raise UserError if the counts cannot be true."""
        arrays = (
            *(self.over_zero, self.activation_sum, self.product_sum),
            *(self.half_over_zero, self.quarter_over_zero),
        )
        shapes = {array.shape for array in arrays if array is not None}
        if len(shapes) != 1:
            raise UserError(f"the arrays have different shapes: {sorted(shapes)}")
        if self.hidden_sum is not None and self.hidden_sum.shape[:-1] != self.over_zero.shape[:1]:
            raise UserError(
                f"hidden states have the shape {self.hidden_sum.shape}, but activations were counted in "
                f"{len(self.over_zero)} layers"
            )
        if self.tokens < 1:
            raise UserError(f"{self.tokens} tokens were counted, but at least one is needed")
        if self.over_zero.min(initial=0) < 0 or self.over_zero.max(initial=0) > self.tokens:
            raise UserError(
                f"counts reach from {self.over_zero.min()} to {self.over_zero.max()} for {self.tokens} tokens"
            )
        parts = [*(self.halves() or ()), *self.budgets().values()]
        if self.half_over_zero is not None and self.quarter_over_zero is not None:
            rest = self.half_over_zero - self.quarter_over_zero  # the other quarter of that half
            parts.append(ActivationCounts(rest, None, None, self.half_tokens - self.quarter_tokens))
        for part in parts:
            if part.tokens < 1 or part.over_zero.min(initial=0) < 0 or part.over_zero.max(initial=0) > part.tokens:
                raise UserError(f"the counts of a part of the windows are not possible for its {part.tokens} tokens")
        for name in ("activation_sum", "product_sum"):
            values = getattr(self, name)
            broken = np.zeros(0, dtype=bool) if values is None else ~np.isfinite(values)
            if broken.any():
                layer, neuron = np.argwhere(broken)[0]
                raise UserError(
                    f"{int(broken.sum())} activations are NaN or infinite ({name}), first in layer {layer}, "
                    f"neuron {neuron}. "
                    "Record in a wider number format, such as dtype: bfloat16 or float32."
                )
        if self.hidden_sum is not None and not np.isfinite(self.hidden_sum).all():  # after what names a neuron
            raise UserError(
                "hidden states are NaN or infinite. Record in a wider number format, such as dtype: bfloat16 or "
                "float32."
            )

    def halves(self) -> tuple[ActivationCounts, ActivationCounts] | None:
        """The counts of either half of the windows, without sums; None where they were not kept."""
        if self.half_over_zero is None:
            return None
        other = self.over_zero - self.half_over_zero, self.tokens - self.half_tokens
        return ActivationCounts(self.half_over_zero, None, None, self.half_tokens), ActivationCounts(
            other[0], None, None, other[1]
        )

    def budgets(self) -> dict[str, ActivationCounts]:
        """The counts of a quarter and of half of the windows, without sums: what less text would have given."""
        parts = {
            "1/4": (self.quarter_over_zero, self.quarter_tokens),
            "1/2": (self.half_over_zero, self.half_tokens),
        }
        return {
            share: ActivationCounts(over_zero, None, None, tokens)
            for share, (over_zero, tokens) in parts.items()
            if over_zero is not None
        }

    def probability(self) -> np.ndarray:
        """Activation probability, float32 `[layer, neuron]`: the share of tokens with an activation above zero."""
        return (self.over_zero.astype(np.float32) / np.float32(self.tokens)).astype(np.float32)


def join_halves(first: ActivationCounts, second: ActivationCounts) -> ActivationCounts:
    """Add up two recordings of one half of the windows each; the counts of the first are kept beside, and those of its
    own first half as a quarter."""
    return ActivationCounts(
        over_zero=first.over_zero + second.over_zero,
        activation_sum=_added(first.activation_sum, second.activation_sum),
        product_sum=_added(first.product_sum, second.product_sum),
        tokens=first.tokens + second.tokens,
        half_over_zero=first.over_zero,
        half_tokens=first.tokens,
        quarter_over_zero=first.half_over_zero,
        quarter_tokens=first.half_tokens,
        hidden_sum=_added(first.hidden_sum, second.hidden_sum),
    )


def _added(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """The sum of two arrays, where both were recorded."""
    return None if first is None or second is None else first + second
