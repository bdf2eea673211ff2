"""What is recorded of FFN neurons sentence by sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langneurons.errors import UserError


def as_float16(means: np.ndarray, first_layer: int = 0) -> np.ndarray:
    """Means in the format in which they are kept: float32 to float16 `[sentence, layer, neuron]`. NaN stays NaN.

    Args:
        means: of all layers, or of some in a row.
        first_layer: the number of the first of them.

    Raises:
        UserError: a finite mean is larger than float16 holds.
    """
    with np.errstate(over="ignore"):
        kept = means.astype(np.float16)
    lost = np.isfinite(means) & np.isinf(kept)
    if lost.any():
        raise UserError(
            "mean activations of sentences exceed what float16 holds, in which they are kept, in layer "
            f"{first_layer + np.argwhere(lost)[0][1]}. Leave out the methods that need them (identification.method, "
            "identification.compare): average-precision, probe."
        )
    return kept


@dataclass(frozen=True)
class SentenceMeans:
    """Mean activations of the sentences of one language."""

    means: np.ndarray
    """float16 or float32 `[sentence, layer, neuron]`: mean output of the activation function over the tokens of a
    sentence."""
    tokens: np.ndarray
    """int64 `[sentence]`: number of tokens of every sentence."""

    def check(self) -> None:
        """Raise UserError if the means cannot be true or cannot be used."""
        if self.means.ndim != 3 or self.means.dtype not in (np.float16, np.float32):
            raise UserError(
                f"sentence means are float16 or float32 [sentence, layer, neuron], but these are {self.means.dtype} "
                f"with the shape {self.means.shape}. Record them again."
            )
        number = len(self.means)
        if self.tokens.shape != (number,):
            raise UserError(
                f"there are means of {number} sentences, but numbers of tokens with the shape {self.tokens.shape}. "
                "Record them again."
            )
        if number < 2:
            raise UserError(
                f"there are means of {number} sentences, but at least two are needed. Record more sentences."
            )
        if self.tokens.min() < 1:
            raise UserError("a sentence has no token, so it has no mean. Leave empty sentences out.")
        for index, sentence in enumerate(self.means):  # one by one: all at once would need half the memory again
            if not np.isfinite(sentence).all():
                layer, neuron = np.argwhere(~np.isfinite(sentence))[0]
                raise UserError(
                    f"mean activations are NaN or infinite, first in sentence {index}, layer {layer}, neuron {neuron}. "
                    "Record in a wider number format, such as float32."
                )
