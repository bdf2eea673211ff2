"""Whether methods find the same neurons, beside what chance would give."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from langneurons.errors import UserError


def convergence(
    selections: dict[str, pd.DataFrame], languages: list[str], layers: int, neurons_per_layer: int
) -> pd.DataFrame:
    """Compare the neurons that methods select for the same language, pair by pair.

    Chance is the hypergeometric distribution: how many neurons of one set are in another of the other's size that is
    drawn at random from all neurons of the layer. Over all layers it is drawn from the whole model, so two methods that
    prefer the same layers share more than by chance for that alone; the rows of single layers tell more.

    Args:
        selections: by method, tables with the columns `language, layer, neuron`, each row once.
        languages: to compare.
        layers, neurons_per_layer: size of the model.

    Returns:
        One row per pair of methods, language and layer, then one for all layers, whose `layer` (Int64) is missing:
        `method, other_method, language, layer, neurons, other_neurons, shared, jaccard` (shared of those in either set,
        NaN where both are empty), `expected` (mean number shared by chance) and `p_value` (of sharing at least as many
        by chance).

    Raises:
        UserError: a selection has neurons outside the model.
    """
    shape = (layers, neurons_per_layer)
    found = {
        (method, language): _membership(method, table[table["language"] == language], shape)
        for method, table in selections.items()
        for language in languages
    }
    parts = [
        _compare(found[method, language], found[other, language]).assign(
            method=method, other_method=other, language=language
        )
        for method, other in combinations(selections, 2)
        for language in languages
    ]
    columns = ["method", "other_method", "language", "layer", "neurons", "other_neurons", "shared", "jaccard"]
    if not parts:
        return pd.DataFrame(columns=[*columns, "expected", "p_value"])
    table = pd.concat(parts, ignore_index=True)
    one, other = table["neurons"].to_numpy(), table["other_neurons"].to_numpy()
    population = np.where(table["layer"].isna(), layers * neurons_per_layer, neurons_per_layer)
    table["expected"] = one * other / population
    table["p_value"] = hypergeom.sf(table["shared"].to_numpy() - 1, population, one, other)
    return table[[*columns, "expected", "p_value"]]


def _membership(method: str, table: pd.DataFrame, shape: tuple[int, int]) -> np.ndarray:
    """Which neurons are in a set, bool `[layer, neuron]`."""
    inside = table["layer"].between(0, shape[0] - 1) & table["neuron"].between(0, shape[1] - 1)
    if not inside.all():
        layer, neuron = table.loc[~inside, ["layer", "neuron"]].iloc[0]
        raise UserError(
            f"the neurons of {method} do not belong to this model: it has {shape[0]} layers of {shape[1]} neurons, but "
            f"layer {layer}, neuron {neuron} is among them. Compare selections of one model."
        )
    member = np.zeros(shape, dtype=bool)
    member[table["layer"], table["neuron"]] = True
    return member


def _compare(one: np.ndarray, other: np.ndarray) -> pd.DataFrame:
    """`layer, neurons, other_neurons, shared, jaccard` per layer, then of all."""
    sizes = [np.append(member.sum(axis=1), member.sum()) for member in (one, other, one & other)]
    either = sizes[0] + sizes[1] - sizes[2]
    return pd.DataFrame(
        {
            "layer": pd.array([*range(len(one)), pd.NA], dtype="Int64"),
            "neurons": sizes[0],
            "other_neurons": sizes[1],
            "shared": sizes[2],
            "jaccard": np.divide(sizes[2], either, out=np.full(len(either), np.nan), where=either > 0),
        }
    )
