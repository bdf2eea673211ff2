"""The figure of steering: how many answers are in the target language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from langneurons.metrics.steering import ALL
from langneurons.report import choices
from langneurons.report.looks import (
    GREYS,
    GRID,
    INK,
    MUTED,
    PAPER,
    VARIANTS,
    Look,
    colour_bar,
    dot,
    frame_grid,
    legend_columns,
    notice,
    readable_on,
)
from langneurons.report.shares import OTHER
from langneurons.variants import BASELINE, RESIDUAL, STEER

NOTHING_STEERED = "No answers were steered to another language in this run."
NOTHING_KNOWN = "How many answers are in the language that they were steered to is not known."
MAX_BARS = 56
"""More bars than these become bars of all directions together, and a heat map of the best variant."""
MAX_ROWS = 60
"""Of more variants than this, the best are drawn."""


@dataclass(frozen=True)
class _Bar:
    """How a variant is drawn."""

    variant: str
    label: str
    colour: str
    of: str | None = None
    """The variant that it is a control of."""
    residual: bool = False
    """Whether the residual stream is shifted."""


def steering_success(success: pd.DataFrame, variants: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Share of answers in the target language: unperturbed, and by every steering variant beside its random control.

    Args:
        success: share with its interval, by variant, language of the prompts and target.
        variants: settings of every variant.
        languages: of the run.
    """
    measured = list(dict.fromkeys(success["variant"])) if "variant" in success else []
    steered = variants[variants["kind"] == STEER]["variant"] if "kind" in variants else []
    names = [name for name in steered if name in measured]
    if not names:
        return notice(NOTHING_STEERED)
    if success.loc[success["variant"].isin(names), "share"].isna().all():
        return notice(NOTHING_KNOWN)
    bars = _bars(names, measured, variants)
    directions = _directions(success[success["variant"].isin(names)], languages)
    if bars[0].variant == BASELINE and directions != _directions(success, languages):
        bars[0] = replace(bars[0], label="not perturbed (of all directions)")
    table = success[success["variant"].isin([bar.variant for bar in bars])]
    cells = table.set_index(["variant", "language", "target"])[["share", "low", "high"]].astype(float)
    if len(bars) * (len(directions) + 1) <= MAX_BARS:
        return _every_direction(cells, bars, directions)
    return _together(cells, bars, names, languages)


def _directions(success: pd.DataFrame, languages: Sequence[str]) -> list[tuple[str, str]]:
    """The directions that were measured, in the order of the languages."""
    there = set(zip(success["language"], success["target"], strict=True))
    return [pair for pair in product(languages, repeat=2) if pair in there]


def _bars(names: Sequence[str], measured: Sequence[str], variants: pd.DataFrame) -> list[_Bar]:
    """The baseline, then every steering variant and its controls."""
    bars = [_Bar(BASELINE, "not perturbed", GREYS[OTHER])] if BASELINE in measured else []
    shifts = set(variants.loc[variants["site"] == RESIDUAL, "variant"])
    for place, name in enumerate(names):
        colour = VARIANTS[place % len(VARIANTS)]
        bars.append(_Bar(name, name, colour, residual=name in shifts))
        bars += [
            _Bar(control, control, colour, of=name)
            for control in choices.controls(variants, [name])
            if control in measured and control not in [bar.variant for bar in bars]
        ]
    return bars


def _every_direction(cells: pd.DataFrame, bars: Sequence[_Bar], directions: Sequence[tuple[str, str]]) -> Figure:
    """Grouped bars: all directions together, then one group per direction."""
    groups = [(ALL, ALL), *directions]
    size = len(bars) + 0.9
    figure = Figure(figsize=(min(9.4, max(6.2, 1.4 + 0.19 * size * len(groups))), 3.9), layout="constrained")
    axes = figure.subplots()
    for place, bar in enumerate(bars):
        found = cells.reindex([(bar.variant, *group) for group in groups])
        where = size * np.arange(len(groups)) + place + np.where(np.arange(len(groups)) > 0, 0.6, 0)
        shares = 100 * found["share"].to_numpy()
        axes.bar(where, np.nan_to_num(shares), 0.86, linewidth=0.9, **_looks(bar))
        lengths = _lengths(found)
        axes.errorbar(where, shares, lengths, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.6)
        face = PAPER if bar.of else bar.colour  # so that a bar of no height can be told
        for unknown in where[np.isnan(shares)]:
            axes.text(unknown, 1, "–", ha="center", va="bottom", color=MUTED, fontsize=8)
        axes.scatter(where, shares, 11, color=face, edgecolors=bar.colour, linewidths=0.9, zorder=3, clip_on=False)
    middles = size * np.arange(len(groups)) + (len(bars) - 1) / 2 + np.where(np.arange(len(groups)) > 0, 0.6, 0)
    labels = [f"all {len(directions)}\ntogether", *(f"{prompt} → {target}" for prompt, target in directions)]
    axes.set_xticks(middles, labels, fontsize=9 if len(groups) <= 8 else 7.5)
    axes.axvline(size - 0.65, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xlim(-0.9, middles[-1] + len(bars) / 2 + 0.4)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 100)
    axes.grid(axis="y")
    axes.set_ylabel("answers in the target language (%)")
    axes.set_xlabel("language of the prompts → target")
    _legend(figure, bars)
    return figure


def _together(cells: pd.DataFrame, bars: Sequence[_Bar], names: Sequence[str], languages: Sequence[str]) -> Figure:
    """All directions together; below, heat maps of the directions: unperturbed, and by the best variant."""
    shares = {name: float(np.nan_to_num(cells["share"].get((name, ALL, ALL), np.nan), nan=-1.0)) for name in names}
    ranked = sorted(names, key=lambda name: -shares[name])
    left_out = set(ranked[MAX_ROWS:])
    rows = _rows([bar for bar in bars if bar.variant not in left_out and bar.of not in left_out])
    there = [row[0].variant for row in rows]
    maps = [name for name in (BASELINE, ranked[0]) if name in there]
    heights = [1.1 + 0.2 * len(rows), 1.3 + 0.42 * len(languages)]
    figure = Figure(figsize=(8.6, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flatten()
    axes = above.subplots()
    for place, row in enumerate(rows):
        _row(axes, cells, place, row)
    axes.set_yticks(range(len(rows)), [row[0].label for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    which = f"; the {MAX_ROWS} best of {len(names)} variants" if left_out else ""
    axes.set_xlabel(f"answers in the target language, all directions together (%){which}")
    figure.legend(handles=_legend_of_rows(rows), loc="outside upper left", ncols=4)
    grid = below.subplots(1, len(maps), squeeze=False).flatten()
    for panel, name in zip(grid, maps, strict=True):
        mesh = _heat_map(panel, cells, name, languages)
        of_many = f"{name}, the best of {len(names)}" if len(names) > 1 else name
        panel.set_title("not perturbed" if name == BASELINE else of_many)
    colour_bar(below, mesh, grid, "answers in the target language (%)")
    return figure


def _legend_of_rows(rows: Sequence[Sequence[_Bar]]) -> list[Patch | Line2D]:
    residual = {row[0].residual for row in rows if row[0].variant != BASELINE}
    handles: list[Patch | Line2D] = [Patch(color=VARIANTS[0], label="neurons steered")] if False in residual else []
    handles += [Patch(color=VARIANTS[2], label="residual stream shifted")] if True in residual else []
    if any(len(row) > 1 for row in rows):
        handles.append(dot(Look(INK, "", "D"), "its random control", False))
    return handles


def _rows(bars: Sequence[_Bar]) -> list[list[_Bar]]:
    """Every bar with its controls behind."""
    rows: list[list[_Bar]] = []
    for bar in bars:
        if bar.of is None:
            rows.append([bar])
        else:
            rows[-1].append(bar)
    return rows


def _row(axes: Axes, cells: pd.DataFrame, place: int, row: Sequence[_Bar]) -> None:
    """A bar with its interval, and its controls as hollow diamonds with theirs."""
    found = cells.reindex([(bar.variant, ALL, ALL) for bar in row])
    lengths = _lengths(found)
    for number, (bar, share) in enumerate(zip(row, 100 * found["share"].to_numpy(), strict=True)):
        extent = lengths[:, [number]]
        if np.isnan(share) and bar.of is None:
            axes.text(1, place, "–", va="center", color=MUTED, fontsize=8)
        if bar.of is None:
            colour = bar.colour if bar.variant == BASELINE else VARIANTS[2 if bar.residual else 0]
            axes.barh(place, np.nan_to_num(share), 0.72, color=colour)
            axes.errorbar(share, place, xerr=extent, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.6)
        else:
            axes.errorbar(
                *(share, place), xerr=extent, fmt="D", markersize=4, color=INK, markerfacecolor=PAPER, elinewidth=0.7
            )


def _heat_map(axes: Axes, cells: pd.DataFrame, variant: str, languages: Sequence[str]) -> QuadMesh:
    keys = [(variant, prompt, target) for prompt in languages for target in languages]
    shares = 100 * cells["share"].reindex(keys).to_numpy().reshape(len(languages), len(languages))
    axes.set_facecolor(GRID)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(shares), vmin=0, vmax=100, cmap="Blues", edgecolors=PAPER, linewidth=1.5
    )
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        colour = readable_on(tuple(mesh.cmap(mesh.norm(share)))) if np.isfinite(share) else INK
        text = f"{share:.0f}" if np.isfinite(share) else "" if row == column else "–"
        if text:
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
    frame_grid(axes, languages)
    axes.set_xlabel("target")
    axes.set_ylabel("prompts in")
    return mesh


def _looks(bar: _Bar) -> dict[str, Any]:
    """Bars are filled, those of controls are hollow."""
    face, hatch = (PAPER, "////") if bar.of else (bar.colour, "")
    return {"facecolor": face, "edgecolor": bar.colour, "hatch": hatch}


def _lengths(found: pd.DataFrame) -> np.ndarray:
    """How far intervals reach below and above the shares, in percent; nothing where there is none."""
    lengths = np.stack([found["share"] - found["low"], found["high"] - found["share"]])
    known = ~np.isnan(lengths).any(axis=0)
    return 100 * np.where(known, np.maximum(lengths, 0.0), 0.0)


def _legend(figure: Figure, bars: Sequence[_Bar]) -> None:
    handles = [Patch(label=bar.label, **_looks(bar)) for bar in bars]
    figure.legend(handles=handles, loc="outside upper left", ncols=legend_columns(len(handles), 5))
