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
    drawn = []
    for layer, own, free in _layers(selected, language, neurons):
        chosen = np.sort(generator.choice(free, size=len(own), replace=False))
        drawn.append(np.stack([np.full(len(own), layer), chosen]))
    return _joined(drawn)


def draw_as_active(
    selected: pd.DataFrame, language: str, draw: int, probability: np.ndarray, nearest: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw for each neuron of a language another one of its layer that is about as often active on the language.

    In a random order, each neuron gets one of the `nearest` neurons of most similar activation probability that are
    outside every language's set and not drawn yet. So a control as active as the language's neurons, in the same
    layers.

    Args:
        selected, language, draw, seed: as for `draw_random`.
        probability: activation probability on the language, `[layer, neuron]`.
        nearest: how many of the most similar neurons a draw chooses from.

    Returns:
        layers and neurons of the draw, int64, sorted.

    Raises:
        UserError: a layer has too few neurons outside all sets.
    """
    generator = np.random.default_rng(_seed(seed, "activity", language, draw))
    drawn = []
    for layer, own, free in _layers(selected, language, probability.shape[1]):
        if nearest > len(free):
            raise UserError(
                f"layer {layer} has {len(free)} neurons outside every language's set, but the activity control of "
                f"language '{language}' is to choose among the {nearest} nearest. Lower 'nearest' of the variant."
            )
        values = probability[layer].astype(np.float64)
        chosen = []
        for neuron in generator.permutation(own):
            ranked = free[np.argsort(np.abs(values[free] - values[neuron]), kind="stable")]
            taken = generator.choice(ranked[:nearest])
            chosen.append(taken)
            free = free[free != taken]
        drawn.append(np.stack([np.full(len(own), layer), np.sort(chosen)]))
    return _joined(drawn)


def draw_direction(vector: np.ndarray, language: str, layer: int, draw: int, seed: int) -> np.ndarray:
    """A random direction of the same length as a vector, float64 `[dimension]`: normal entries, then scaled."""
    direction = np.random.default_rng(_seed(seed, "direction", language, layer, draw)).standard_normal(len(vector))
    return direction * (np.linalg.norm(vector) / np.linalg.norm(direction))


def _layers(selected: pd.DataFrame, language: str, neurons: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """The layers in which a language has neurons, with those, and with the neurons of no language."""
    result = []
    for layer, rows in selected[selected["language"] == language].groupby("layer"):
        taken = selected.loc[selected["layer"] == layer, "neuron"].unique()
        own, free = np.sort(rows["neuron"].to_numpy()), np.setdiff1d(np.arange(neurons), taken)
        if len(free) < len(own):
            raise UserError(
                f"layer {layer} has {len(free)} neurons outside every language's set, but the random control of "
                f"language '{language}' needs {len(own)}. Lower identification.top_rate."
            )
        result.append((int(layer), own, free))
    return result


def _joined(drawn: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    result = np.concatenate(drawn, axis=1) if drawn else np.zeros((2, 0))
    return result[0].astype(np.int64), result[1].astype(np.int64)


def _seed(*parts: object) -> int:
    """A seed that depends on every part and on nothing else, on any machine."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
