"""From neurons and recordings to interventions: what each perturbation of a variant edits, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from langneurons.errors import UserError
from langneurons.interventions import Intervention, activate, deactivate, join, shift
from langneurons.neurons.controls import draw_as_active, draw_direction, draw_random
from langneurons.neurons.counting import ActivationCounts
from langneurons.variants import DEACTIVATE, RESIDUAL

Json = dict[str, Any]
Neurons = tuple[np.ndarray, np.ndarray]
"""Layers and neurons, int64."""


def plan(
    member: Json,
    selections: dict[str, tuple[pd.DataFrame, Json]],
    recordings: dict[str, ActivationCounts],
    seed: int,
) -> Intervention:
    """The intervention of one perturbation.

    Args:
        member: from `variants.plans`: `id, language, source, draw, base, site, selection`, and for steering `edit,
            scale, layers`, for random draws `control, nearest`.
        selections: selected neurons, and thresholds and counts, by name.
        recordings: by language; empty if the variant needs none.
        seed: of random draws.

    Raises:
        UserError: recordings are missing, or hold no sums of the site.
    """
    if member["site"] == RESIDUAL:
        return _residual(member, recordings, seed)
    selected, summary = selections[member["selection"]]
    size = summary["layers"], summary["neurons_per_layer"]
    layers, neurons = _neurons(member, member["language"], selected, size, recordings, seed)
    if member["base"] == DEACTIVATE:
        return deactivate(layers, neurons, member["site"])
    means = target_mean(member, recordings)
    on = activate(layers, neurons, means, member["scale"], member["edit"], member["site"])
    if member["source"] is None:
        return on
    off = _neurons(member, member["source"], selected, size, recordings, seed)
    return join(deactivate(*off, member["site"]), on)


def _neurons(
    member: Json,
    language: str,
    selected: pd.DataFrame,
    size: tuple[int, int],
    recordings: dict[str, ActivationCounts],
    seed: int,
) -> Neurons:
    """The neurons of a language, or as many random ones."""
    if member["draw"] is None:
        own = selected[selected["language"] == language]
        return own["layer"].to_numpy(), own["neuron"].to_numpy()
    if member["control"] == "activity":
        probability = _recording(member, language, recordings).probability()
        return draw_as_active(selected, language, member["draw"], probability, member["nearest"], seed)
    return draw_random(selected, language, member["draw"], *size, seed)


def target_mean(member: Json, recordings: dict[str, ActivationCounts]) -> np.ndarray:
    """Mean at the site on the target language, float64 `[layer, neuron]`."""
    counts = _recording(member, member["language"], recordings)
    total = counts.product_sum if member["site"] == "product" else counts.activation_sum
    if total is None:
        raise UserError(
            f"the perturbation '{member['id']}' sets neurons to their mean {member['site']} on '{member['language']}', "
            "but the recording holds no such sums: it was published by others, and only counts how often neurons are "
            "active. Record the model here to steer it."
        )
    return total / counts.tokens


def mean_difference(language: str, recordings: dict[str, ActivationCounts], name: str) -> np.ndarray:
    """DiffMean: the mean hidden state of a language minus the mean over the other languages', `[layer, d_model]`."""
    means = {}
    for key, counts in recordings.items():
        if counts.hidden_sum is None:
            raise UserError(
                f"the perturbation '{name}' shifts the residual stream, but the recording of '{key}' holds no hidden "
                "states: it was published by others. Record the model here to steer it."
            )
        means[key] = counts.hidden_sum / counts.tokens
    others = [mean for key, mean in means.items() if key != language]
    if language not in means or not others:
        raise UserError(
            f"the perturbation '{name}' needs recordings of '{language}' and of at least one other language."
        )
    difference: np.ndarray = means[language] - np.mean(others, axis=0)
    return difference


def _residual(member: Json, recordings: dict[str, ActivationCounts], seed: int) -> Intervention:
    difference = mean_difference(member["language"], recordings, member["id"])
    layers = member["layers"] if member["layers"] is not None else [(len(difference) - 1) // 2]
    if max(layers) >= len(difference):
        raise UserError(
            f"the perturbation '{member['id']}' shifts the residual stream after layer {max(layers)}, but the model "
            f"has {len(difference)} layers, the last of them {len(difference) - 1}. Correct 'layers' of its variant."
        )
    directions = {layer: member["scale"] * difference[layer] for layer in sorted(layers)}
    if member["draw"] is not None:
        directions = {
            layer: draw_direction(vector, member["language"], layer, member["draw"], seed)
            for layer, vector in directions.items()
        }
    return shift(directions)


def _recording(member: Json, language: str, recordings: dict[str, ActivationCounts]) -> ActivationCounts:
    if language not in recordings:
        raise UserError(
            f"the perturbation '{member['id']}' needs the recorded activations of '{language}', and there are none. "
            "Add the language to 'run.languages'."
        )
    return recordings[language]
