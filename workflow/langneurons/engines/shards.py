"""Which neurons of a layer one of several workers has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """An equal, consecutive slice of the neurons of every layer: those of worker `number`, counted from 0."""

    number: int
    of: int
    size: int
    """Neurons per layer of one worker."""

    def split(self, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of these neurons are here, bool `[entry]`, and their numbers here, int64."""
        start = self.number * self.size
        mine = (neurons >= start) & (neurons < start + self.size)
        return mine, neurons[mine] - start


def gather(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join what workers have of the neurons, the last axis, in the order of the workers."""
    return np.concatenate(list(parts), axis=-1)
