"""What is done to neurons: an affine edit of one vector in some layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from langneurons.errors import UserError

Site = Literal["activation", "product"]
SITES: tuple[Site, ...] = ("activation", "product")


@dataclass(frozen=True)
class Intervention:
    """An edit `a -> keep * a + fill` of single neurons.

    `site` says which vector of width d_ffn is `a`: `activation`, the output of the activation function, or `product`,
    the input of the down projection. In plain FFNs they are the same vector.
    """

    table: pd.DataFrame
    """Columns `layer`, `neuron` (int64), `keep`, `fill` (float64); one row per edited neuron."""
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

    def check(self, layers: int, neurons: int) -> None:
        """Raise UserError if a neuron is not part of a model of this size."""
        outside = ~(self.table["layer"].between(0, layers - 1) & self.table["neuron"].between(0, neurons - 1))
        if outside.any():
            layer, neuron = self.table.loc[outside, ["layer", "neuron"]].iloc[0]
            raise UserError(
                f"the intervention edits layer {layer}, neuron {neuron}, but the model has {layers} layers of "
                f"{neurons} neurons"
            )


def deactivate(layers: np.ndarray, neurons: np.ndarray, site: Site = "activation") -> Intervention:
    """Switch neurons off: keep 0, fill 0."""
    table = pd.DataFrame(
        {
            "layer": np.asarray(layers, dtype=np.int64),
            "neuron": np.asarray(neurons, dtype=np.int64),
            "keep": np.zeros(len(layers)),
            "fill": np.zeros(len(layers)),
        }
    )
    return Intervention(table.sort_values(["layer", "neuron"], ignore_index=True), site)
