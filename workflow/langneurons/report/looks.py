"""How figures look: one style, and one look per language in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from langneurons.metrics.language import UNDETERMINED
from langneurons.report.shares import OTHER

INK, MUTED, GRID, PAPER = "#1d2227", "#5a636d", "#dde1e6", "#fffffe"
"""Text, secondary text, grid and background. The page exchanges exactly these four in the dark."""

PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"),
    *("#694b1e", "#a5e187", "#870f78", "#a569ff", "#0000ff", "#691eb4"),
)
"""Six by Okabe and Ito, and six that are as far from these and from each other as any, for normal vision and for each
kind of colour blindness, and seen on light and on dark paper. A test measures it."""
HATCHES = ("", "////", "....", "xxxx")
MARKERS = ("o", "s", "^", "D")
WITHOUT_PATTERN = 6
"""Every so many languages hatch and marker change too, which printing in grey leaves."""
GREYS = {OTHER: "#8a929b", UNDETERMINED: "#c3c9cf"}
VARIANTS = ("#aa3377", "#228833", "#4477aa", "#ccbb44")
"""Of Tol's bright colours, for steering variants: no language looks like these."""

NOTHING_EDITED = "No neurons were edited in this run."
NOTHING_READ = "No perplexity was measured."

STYLE: dict[str, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "langneurons",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "hatch.linewidth": 0.9,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "grid.linewidth": 0.8,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER),
    "grid.color": GRID,
}


@dataclass(frozen=True)
class Look:
    """How a language is drawn."""

    colour: str
    hatch: str
    marker: str


def look(language: str, languages: Sequence[str]) -> Look:
    """The look of a language of the run, or of `other` and `undetermined`."""
    if language not in languages:
        return Look(GREYS[language], "", "o")
    index = list(languages).index(language)
    cycle = index // WITHOUT_PATTERN
    return Look(PALETTE[index % len(PALETTE)], HATCHES[cycle % len(HATCHES)], MARKERS[cycle % len(MARKERS)])


def number(value: float) -> str:
    """A ratio in three significant digits or so, short enough for a cell."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞"
    return (
        f"{value:.2f}"
        if value < 10
        else f"{value:.1f}"
        if value < 100
        else f"{value:.0f}"
        if value < 10000
        else f"{value:.0e}"
    )


def ticks(low: float, high: float) -> list[float]:
    """Round values between two limits: evenly spaced, or 1-2-5 over more than a factor of five; always with 1."""
    if high / low < 5:
        values = list(MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high))
    else:
        exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        digits = (1, 2, 5) if high / low < 1000 else (1,)
        values = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    return sorted({float(f"{value:.12g}") for value in [*values, 1.0] if low * 0.9999 <= value <= high * 1.0001})


def ratio_axis(axis: Axis, low: float, high: float) -> None:
    """A logarithmic axis of ratios, a little wider than its values, with round numbers."""
    axes = axis.axes
    horizontal = axis is axes.xaxis
    (axes.set_xscale if horizontal else axes.set_yscale)("log")
    margin = (high / low) ** 0.04
    (axes.set_xlim if horizontal else axes.set_ylim)(low / margin, high * margin)
    round_ratios(axis, low, high)


def round_ratios(axis: Axis, low: float, high: float) -> None:
    """Round numbers on an axis of ratios."""
    axis.set_major_locator(FixedLocator(ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def dot(style: Look, label: str, filled: bool) -> Line2D:
    """A legend's dot."""
    face = style.colour if filled else PAPER
    return Line2D(
        [], [], linestyle="", marker=style.marker, markerfacecolor=face, markeredgecolor=style.colour, label=label
    )


def legend_columns(number: int, most: int) -> int:
    """Columns of a legend: as few rows of at most so many, evenly filled."""
    return -(-number // -(-number // most)) if number else 1


def frame_grid(axes: Axes, names: Sequence[str]) -> None:
    """Label the square cells of a heat map, names from the top left, without frame and ticks."""
    axes.set_xticks(np.arange(len(names)) + 0.5, list(names))
    axes.set_yticks(np.arange(len(names)) + 0.5, list(names))
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)


def readable_on(colour: Sequence[float]) -> str:
    """Black or white, whichever contrasts more (relative luminance of WCAG)."""
    channels = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    luminance = 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
    return "#111111" if luminance > 0.18 else "#ffffff"


def notice(text: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = Figure(figsize=(7.6, 1.1))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, fontsize=10)
    return figure


def hide_unused(grid: np.ndarray, used: int, columns: int) -> None:
    """Hide the panels after the last used one; those above them get the tick labels."""
    for place, axes in enumerate(grid):
        axes.set_visible(place < used)
        axes.tick_params(labelbottom=place + columns >= used)


def colour_bar(figure: Figure, mesh: QuadMesh, grid: np.ndarray, label: str) -> Colorbar:
    """The colours of a heat map, below its panels."""
    bar = figure.colorbar(mesh, ax=grid, location="bottom", aspect=45, shrink=0.75, pad=0.03)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")  # outlines, not a picture within the picture
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label(label)
    return bar
