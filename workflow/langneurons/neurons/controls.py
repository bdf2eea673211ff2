"""Random neurons to compare with: is it these neurons, or any as many?"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from langneurons.errors import UserError


def draw_random(
    selected: pd.DataFrame, language: str, draw: int, layers: int, neurons: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many random neurons per layer as a language has, from outside every language's set.

    Args:
        selected: columns `language, layer, neuron`: the neurons of all languages.
        language: whose number per layer is matched.
        draw: number of the draw, from 1; each is independent.
        layers, neurons: size of the model.
        seed: the experiment's seed.

    Returns:
        layers and neurons of the draw, int64, sorted.

    Raises:
        UserError: a layer has too few neurons outside all sets.
    """
    generator = np.random.default_rng(_seed(seed, language, draw))
    wanted = selected.loc[selected["language"] == language, "layer"].value_counts().sort_index()
    drawn = []
    for layer, number in wanted.items():
        taken = selected.loc[selected["layer"] == layer, "neuron"].unique()
        free = np.setdiff1d(np.arange(neurons), taken)
        if len(free) < number:
            raise UserError(
                f"layer {layer} has {len(free)} neurons outside every language's set, but the random control of "
                f"language "
                f"'{language}' needs {number}. Lower identification.top_rate."
            )
        chosen = np.sort(generator.choice(free, size=number, replace=False))
        drawn.append(np.stack([np.full(number, layer), chosen]))
    result = np.concatenate(drawn, axis=1) if drawn else np.zeros((2, 0))
    return result[0].astype(np.int64), result[1].astype(np.int64)


def _seed(*parts: object) -> int:
    """A seed that depends on every part and on nothing else, on any machine."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
