"""Colours of languages: told apart by any vision, and seen on any paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from langneurons.report import looks, render

BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""How linear RGB is seen: Machado, Oliveira and Fernandes 2009, severity 1."""
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
"""Of linear sRGB, white point D65."""


def linear(colours: Sequence[str]) -> np.ndarray:
    values = np.array([to_rgb(colour) for colour in colours])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def distances(colours: Sequence[str], blindness: str) -> np.ndarray:
    """Between all pairs of colours: Euclid's in CIE L*a*b*, of which 2 is hardly seen side by side."""
    seen = np.clip(linear(colours) @ np.array(BLINDNESS[blindness]).T, 0, 1)
    scaled = seen @ np.array(TO_XYZ).T / [0.95047, 1, 1.08883]
    roots = np.where(scaled > 216 / 24389, np.cbrt(scaled), (24389 / 27 * scaled + 16) / 116)
    x, y, z = roots.T
    place = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    found = np.linalg.norm(place[:, None] - place, axis=-1)
    return found[np.triu_indices(len(colours), 1)]


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_twelve_languages_differ_in_colour_for_any_vision(blindness: str) -> None:
    """16 is the distance of Okabe and Ito's green and blue for tritanopia, the closest pair of theirs."""
    assert len(set(looks.PALETTE)) == 12
    assert distances(looks.PALETTE, blindness).min() > 16
    assert distances(looks.PALETTE[:6], "tritanopia").min() == pytest.approx(16.1, abs=0.05)


def test_colours_are_seen_on_light_and_on_dark_paper() -> None:
    brightness = linear([*looks.PALETTE, looks.PAPER, render.DARK[looks.PAPER]]) @ TO_XYZ[1] + 0.05
    *colours, light, dark = brightness
    assert min(light / colour for colour in colours) > 1.45
    assert min(colour / dark for colour in colours) > 2
