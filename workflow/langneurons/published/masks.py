"""Published neurons: `torch.save` of a list over languages of a list over layers of int64 neuron indices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons.published.files import PublishedError, integer_array, kind, load, names, save

Json = dict[str, Any]

FORM = "torch.save(list over languages of lists over layers of integer tensors of neuron indices, path)"


@dataclass(frozen=True)
class Masks:
    """Language-specific neurons as they are published."""

    table: pd.DataFrame
    """Columns `language` (str), `layer`, `neuron` (int64): by language, then layer, then in the order of the file."""
    languages: list[str]
    """In the order of the file, which does not name them; also those without neurons."""
    layers: int
    """Number of layers of the model, also of those without neurons."""

    def count_by_language(self) -> dict[str, int]:
        """Number of neurons of every language."""
        counts = self.table["language"].value_counts()
        return {language: int(counts.get(language, 0)) for language in self.languages}

    def distinct(self) -> int:
        """Number of neurons, those of several languages counted once."""
        return len(self.table[["layer", "neuron"]].drop_duplicates())


def read_masks(path: str | Path, languages: list[str], layers: int | None = None, neurons: int | None = None) -> Masks:
    """Read published neurons.

    Args:
        path: the file.
        languages: of the file, in its order, which it does not name itself.
        layers: number of layers of the model, if known.
        neurons: number of neurons per layer, if known.

    Raises:
        PublishedError: no such file, another format, or neurons, layers or languages that cannot be.
    """
    content = load(path, FORM)
    depth = _check_outline(path, content, languages, layers)
    cells = [
        (language, layer, _neuron_indices(path, language, layer, value, neurons))
        for language, per_layer in zip(languages, content, strict=True)
        for layer, value in enumerate(per_layer)
    ]
    sizes = [len(indices) for _, _, indices in cells]
    table = pd.DataFrame(
        {
            "language": pd.Series(np.repeat([language for language, _, _ in cells], sizes), dtype="str"),
            "layer": np.repeat(np.array([layer for _, layer, _ in cells], dtype=np.int64), sizes),
            "neuron": np.concatenate([indices for _, _, indices in cells]),
        }
    )
    return Masks(table, list(languages), depth)


def write_masks(path: str | Path, masks: Masks) -> None:
    """Write neurons as they are published: every language and layer has its tensor, if empty.

    Raises:
        PublishedError: a neuron of a language or layer that the file has no place for.
    """
    import torch

    table = masks.table
    stray = ~table["language"].isin(masks.languages) | ~table["layer"].between(0, masks.layers - 1)
    stray |= table["neuron"] < 0
    if stray.any():
        language, layer, neuron = table.loc[stray, ["language", "layer", "neuron"]].iloc[0]
        raise PublishedError(
            f"{path}: no place for language '{language}', layer {layer}, neuron {neuron} in a mask of the languages "
            f"{', '.join(masks.languages)} and {masks.layers} layers."
        )
    cells = {
        (str(language), int(layer)): rows.to_numpy(dtype=np.int64)
        for (language, layer), rows in table.groupby(["language", "layer"], sort=False)["neuron"]
    }
    nothing = np.zeros(0, dtype=np.int64)
    save(
        path,
        [
            [torch.tensor(cells.get((language, layer), nothing)) for layer in range(masks.layers)]
            for language in masks.languages
        ],
    )


def order_languages(path: str | Path, table: pd.DataFrame, summary: Json, requested: list[str] | None) -> list[str]:
    """The languages of a selection in the order of a mask file.

    Args:
        path: of the selection, for messages.
        table: with the column `language`.
        summary: `count_by_language` also names languages without neurons; its own order is not kept in files.
        requested: the order; by default that of first appearance in the table, then languages without neurons.

    Raises:
        PublishedError: `requested` are not the languages of the selection.
    """
    present = list(dict.fromkeys([*table["language"].astype(str), *summary.get("count_by_language", {})]))
    if requested is None:
        return present
    if sorted(requested) != sorted(present):
        raise PublishedError(
            f"{path}: its languages are {', '.join(present)}, but the order requested is {', '.join(requested)}. "
            "Name each of them once."
        )
    return requested


def _check_outline(path: str | Path, content: Any, languages: list[str], layers: int | None) -> int:
    """Check the nesting of a mask; returns its number of layers."""
    twice = [language for language, number in Counter(languages).items() if number > 1]
    if twice:
        raise PublishedError(f"{path}: 'masks.languages' names {', '.join(twice)} more than once. Name each once.")
    if not isinstance(content, list | tuple):
        raise PublishedError(f"{path}: holds {kind(content)}, but a mask is a list. Expected is {FORM}.")
    if len(content) != len(languages) or not languages:
        raise PublishedError(
            f"{path}: has neurons of {len(content)} languages, but 'masks.languages' names {len(languages)} "
            f"({', '.join(languages) or 'none'}). Correct 'masks.languages': the languages of the file, in its order."
        )
    for language, per_layer in zip(languages, content, strict=True):
        if not isinstance(per_layer, list | tuple):
            raise PublishedError(
                f"{path}: language '{language}' is {kind(per_layer)}, but must be a list over layers. "
                f"Expected is {FORM}."
            )
    depths = {language: len(per_layer) for language, per_layer in zip(languages, content, strict=True)}
    depth = depths[languages[0]]
    if len(set(depths.values())) > 1 or not depth:
        found = ", ".join(f"{language} {number}" for language, number in depths.items())
        raise PublishedError(
            f"{path}: the numbers of layers are {found}, but every language needs the same number, at least 1. "
            "The file is damaged, or mixes models."
        )
    if layers is not None and depth != layers:
        raise PublishedError(
            f"{path}: has {depth} layers, but {layers} are expected. Name the file of this model, or correct the "
            "number of layers."
        )
    return depth


def _neuron_indices(path: str | Path, language: str, layer: int, value: Any, neurons: int | None) -> np.ndarray:
    """One tensor of a mask, int64 `[index]` in the order of the file."""
    import torch

    place = f"language '{language}', layer {layer}"
    if isinstance(value, torch.Tensor) and value.ndim != 1:
        raise PublishedError(
            f"{path}: {place}: the tensor has the shape {list(value.shape)}, but neuron indices are 1-dimensional."
        )
    if isinstance(value, torch.Tensor) and value.numel() == 0:
        return np.zeros(0, dtype=np.int64)  # of any type: torch.tensor([]) is float
    indices = integer_array(path, place, value)
    limit = np.iinfo(np.int64).max if neurons is None else neurons - 1
    outside = indices[(indices < 0) | (indices > limit)]
    if outside.size:
        allowed = "from 0" if neurons is None else f"0 to {limit}"
        raise PublishedError(
            f"{path}: {place}: the index {outside[0]} is outside the allowed range ({allowed}). Name the file of this "
            "model, or correct the number of neurons."
        )
    values, numbers = np.unique(indices, return_counts=True)
    if (numbers > 1).any():
        raise PublishedError(
            f"{path}: {place}: neurons listed more than once: {names(values[numbers > 1].tolist())}. Remove the "
            "repetitions, or name a file without them."
        )
    return indices.astype(np.int64)
