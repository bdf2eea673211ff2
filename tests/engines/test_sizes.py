"""The sizes that costs are worked out from, beside the models themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.families import FAMILIES
from langneurons.models.layouts import layout_of
from langneurons.sizes import read_size


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_the_blocks(name: str, tmp_path: Path) -> None:
    """Every matrix of the layers is counted, with fewer heads for keys and values, and heads of another width, too."""
    model = FAMILIES[name].build()
    architecture = type(model).__name__
    model.config.architectures = [architecture]
    model.config.save_pretrained(tmp_path)
    size = read_size(tmp_path / "config.json")
    layers = model.get_submodule(layout_of(architecture).layers)
    assert size.block_weights() == sum(weight.numel() for weight in layers.parameters() if weight.dim() == 2)
    assert size.layers == len(list(layers))
    assert size.gated == layout_of(architecture).gated
