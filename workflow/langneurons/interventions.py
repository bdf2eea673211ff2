"""What is done to neurons, or to the residual stream: an affine edit of one vector in some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from langneurons.errors import UserError

Site = Literal["activation", "product", "residual"]
SITES: tuple[Site, ...] = ("activation", "product", "residual")


@dataclass(frozen=True)
class Intervention:
    """An edit `a -> keep * a + fill` of single entries of a vector.

    `site` says which vector is `a`: `activation`, the output of the activation function (width d_ffn), `product`, the
    input of the down projection (in plain FFNs the same vector), or `residual`, the hidden state after a layer (width
    d_model).
    """

    table: pd.DataFrame
    """Columns `layer`, `neuron` (int64; for `residual` the dimension), `keep`, `fill` (float64); one row per entry."""
    site: Site = "activation"

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise UserError(f"an intervention's site is {self.site!r}; known sites: {', '.join(SITES)}")
        if self.table.duplicated(["layer", "neuron"]).any():
            raise UserError("an intervention edits the same neuron twice")

    def __len__(self) -> int:
        return len(self.table)

    def by_layer(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Edited layers in order, each with its neurons (int64), keep and fill (float64)."""
        return {
            int(layer): (
                rows["neuron"].to_numpy(copy=True),
                rows["keep"].to_numpy(copy=True),
                rows["fill"].to_numpy(copy=True),
            )
            for layer, rows in self.table.sort_values(["layer", "neuron"]).groupby("layer")
        }

    def check(self, layers: int, neurons: int, width: int) -> None:
        """Raise UserError if an entry is not part of a model of so many layers, FFN neurons and hidden dimensions."""
        entries, names = (width, "hidden dimensions") if self.site == "residual" else (neurons, "neurons")
        outside = ~(self.table["layer"].between(0, layers - 1) & self.table["neuron"].between(0, entries - 1))
        if outside.any():
            layer, neuron = self.table.loc[outside, ["layer", "neuron"]].iloc[0]
            raise UserError(
                f"the intervention edits layer {layer}, entry {neuron}, but the model has {layers} layers of "
                f"{entries} {names}"
            )


def affine(layers: np.ndarray, neurons: np.ndarray, keep: float, fill: np.ndarray, site: Site) -> Intervention:
    """The same `keep` for entries with a `fill` of their own."""
    table = pd.DataFrame(
        {
            "layer": np.asarray(layers, dtype=np.int64),
            "neuron": np.asarray(neurons, dtype=np.int64),
            "keep": np.full(len(layers), keep, dtype=np.float64),
            "fill": np.asarray(fill, dtype=np.float64),
        }
    )
    return Intervention(table.sort_values(["layer", "neuron"], ignore_index=True), site)


def deactivate(layers: np.ndarray, neurons: np.ndarray, site: Site = "activation") -> Intervention:
    """Switch neurons off: keep 0, fill 0."""
    return affine(layers, neurons, 0.0, np.zeros(len(layers)), site)


def activate(
    layers: np.ndarray, neurons: np.ndarray, means: np.ndarray, scale: float, edit: str, site: Site
) -> Intervention:
    """Switch neurons on: replace (`set`) their value by a multiple of a mean, or add it (`add`).

    Args:
        layers, neurons: int `[entry]`.
        means: `[layer, neuron]`, mean value at the site on the target language.
        scale: the multiple.
        edit: `set` or `add`.
        site: where.
    """
    return affine(layers, neurons, 0.0 if edit == "set" else 1.0, scale * means[layers, neurons], site)


def shift(directions: Mapping[int, np.ndarray]) -> Intervention:
    """Add a vector, float64 `[dimension]`, to the hidden state after each of these layers."""
    layers = np.concatenate([np.full(len(vector), layer) for layer, vector in directions.items()])
    dimensions = np.concatenate([np.arange(len(vector)) for vector in directions.values()])
    return affine(layers, dimensions, 1.0, np.concatenate(list(directions.values())), "residual")


def join(first: Intervention, second: Intervention) -> Intervention:
    """Both edits at one site. Where both edit a neuron, the second does.

    Raises:
        UserError: they are at two sites.
    """
    if first.site != second.site:
        raise UserError(f"edits are joined at one site, but these are at {first.site} and {second.site}")
    table = pd.concat([first.table, second.table], ignore_index=True).drop_duplicates(["layer", "neuron"], keep="last")
    return Intervention(table.sort_values(["layer", "neuron"], ignore_index=True), second.site)
