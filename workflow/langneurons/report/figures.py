"""The figures of the report, one model each, as SVG that is the same byte for byte whenever the numbers are.

Every figure is a function of tables, cut to one model, and of the languages of the run. Text is drawn as outlines,
so that it looks the same without any font installed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from langneurons.report import choices
from langneurons.report.effect_figures import NOTHING_KNOWN, language_effects, note_unknown, rate_curve
from langneurons.report.looks import (
    GRID,
    INK,
    MUTED,
    NOTHING_EDITED,
    NOTHING_READ,
    PAPER,
    STYLE,
    Look,
    colour_bar,
    dot,
    frame_grid,
    hide_unused,
    legend_columns,
    look,
    notice,
    number,
    ratio_axis,
    readable_on,
    round_ratios,
)
from langneurons.report.neuron_figures import layer_profile, method_overlap, neuron_overlap
from langneurons.report.shares import language_shares
from langneurons.report.steering_figures import steering_success

MANY = 4
"""Languages, above which a figure leaves out what another one shows."""


def plot(tables: Sequence[pd.DataFrame], draw: Callable[..., Figure], languages: Sequence[str]) -> str:
    """Draw a figure of one model's rows of some tables in the shared style, as SVG text without a date."""
    settings: Any = {**mpl.rcParamsDefault, **STYLE}
    with mpl.rc_context(settings):
        buffer = io.StringIO()
        draw(*tables, languages).savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.08
        )
    return buffer.getvalue()


# -- perplexity --------------------------------------------------------------------------------------------------------


def perplexity_ratio(table: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Heat maps of the perplexity ratio, one per variant: edits on the left, random controls on the right."""
    edits = _variants(table, lambda kind: kind not in ("none", "random"))
    controls = _variants(table, lambda kind: kind == "random")
    if not edits and not controls:
        return notice(NOTHING_EDITED if len(table) else NOTHING_READ)
    size = len(languages)
    side = max(2.5, 0.47 * size + 0.5)
    rows, columns = max(len(edits), len(controls)), bool(edits) + bool(controls)
    figure = Figure(figsize=(max(4.6, columns * (side + 0.8)), rows * (side + 0.6) + 1.0), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    ratios = table.loc[table["kind"] != "none", "ratio"].to_numpy(dtype=float)
    usable = np.log(ratios[np.isfinite(ratios) & (ratios > 0)])
    limit = float(np.exp(np.abs(usable).max(initial=np.log(1.1))))
    lowest = float(np.exp(min(usable.min(initial=0), -np.log(limit) / 20)))
    mesh = None
    for column, variants in enumerate(part for part in (edits, controls) if part):
        for row in range(rows):
            if row >= len(variants):
                grid[row, column].set_visible(False)
                continue
            own = table[table["variant"] == variants[row]]
            mesh = _heat_map(grid[row, column], own, languages, LogNorm(1 / limit, limit))
    assert mesh is not None
    bar = colour_bar(figure, mesh, grid, "perplexity, as a multiple of the unperturbed model's (log scale)")
    bar.ax.set_xlim(lowest, limit)
    round_ratios(bar.ax.xaxis, lowest, limit)
    return figure


def _heat_map(axes: Axes, own: pd.DataFrame, languages: Sequence[str], norm: LogNorm) -> QuadMesh:
    """One variant. Of random draws, the mean is coloured and printed, the largest printed below."""
    control = own["kind"].iloc[0] == "random"
    cells = own.groupby(["edited_language", "language"])["ratio"].agg(["mean", "max"]).unstack()
    mean, largest = (
        cells[name].reindex(index=list(languages), columns=list(languages)).to_numpy(float) for name in ("mean", "max")
    )
    axes.set_facecolor(GRID)
    mesh = axes.pcolormesh(np.ma.masked_invalid(mean), norm=norm, cmap="RdBu_r", edgecolors=PAPER, linewidth=1.5)
    for row, column in np.ndindex(mean.shape):
        value = mean[row, column]
        colour = readable_on(mesh.cmap(norm(value))) if np.isfinite(value) else INK
        if row == column:
            axes.add_patch(
                Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, fill=False, edgecolor=colour, linewidth=1.2)
            )
        where = (column + 0.5, row + (0.4 if control else 0.5))
        axes.text(*where, number(value), ha="center", va="center", color=colour, fontsize=9)
        if control and np.isfinite(value):
            text = f"max {number(largest[row, column])}"
            axes.text(column + 0.5, row + 0.72, text, ha="center", va="center", color=colour, fontsize=6)
    frame_grid(axes, languages)
    axes.set_xlabel("language read")
    draws = own["draw"].nunique() if "draw" in own else 0
    axes.set_ylabel("as many neurons as those of" if control else "neurons of")
    axes.set_title(
        f"{own['variant'].iloc[0]}" + (f": mean of {draws} draw{'' if draws == 1 else 's'}" if control else "")
    )
    return mesh


def perplexity_spread(table: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Every single perplexity ratio: a row per edited language and variant, a dot per language read."""
    edited = table[table["kind"] != "none"] if "kind" in table else table
    if edited.empty:
        return notice(NOTHING_EDITED if len(table) else NOTHING_READ)
    if not np.isfinite(edited["ratio"]).any():
        return notice(NOTHING_KNOWN)
    variants = list(dict.fromkeys(edited["variant"]))
    names = [(language, variant) for language in languages for variant in variants]
    places = {name: index + index // len(variants) * 0.45 for index, name in enumerate(names)}
    figure = Figure(figsize=(7.6, 1.5 + 0.42 * max(places.values())), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color=MUTED, linewidth=1)
    for (whose, variant, read), group in edited.groupby(["edited_language", "variant", "language"], sort=False):
        style, own = look(read, languages), whose == read
        lane = 0.0 if len(languages) == 1 else list(languages).index(read) / (len(languages) - 1) - 0.5
        axes.scatter(
            group["ratio"],
            np.full(len(group), places[whose, variant] + 0.5 * lane),
            s=46 if own else 20,
            marker=style.marker,
            facecolors=style.colour if own else PAPER,
            edgecolors=style.colour,
            linewidths=1.2,
            zorder=3 if own else 2,
        )
    for (language, variant), place in places.items():
        own = edited[(edited["edited_language"] == language) & (edited["variant"] == variant)]
        largest = own.groupby("language")["ratio"].max()
        note_unknown(axes, place, largest.reindex(list(languages)))
    finite = edited["ratio"][np.isfinite(edited["ratio"]) & (edited["ratio"] > 0)]
    low, high = min(finite.min(), 1.0) if len(finite) else 0.9, max(finite.max(), 1.05) if len(finite) else 1.1
    ratio_axis(axes.xaxis, low, high)
    axes.set_yticks([places[name] for name in names], [f"{variant} · {language}" for language, variant in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(places.values()) + 0.6, -0.6)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("perplexity, as a multiple of the unperturbed model's (log scale)")
    _legend_of_dots(figure, languages)
    return figure


def _legend_of_dots(figure: Figure, languages: Sequence[str]) -> None:
    grey = Look(MUTED, "", "o")
    handles = [dot(look(language, languages), f"reads {language}", True) for language in languages]
    handles += [dot(grey, "the language of the neurons", True), dot(grey, "another language", False)]
    columns = legend_columns(len(handles), 5)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handletextpad=0.2, columnspacing=1.4)


# -- output languages --------------------------------------------------------------------------------------------------


def output_languages(table: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Stacked bars of the languages of the answers: a panel per language of the prompt, a bar per perturbation."""
    if table.empty:
        return notice("No answers were generated.")
    shares, names = language_shares(table, languages)
    labels = list(dict.fromkeys(shares.index.get_level_values("label")))
    columns = min(len(languages), 3)
    rows = -(-len(languages) // columns)
    figure = Figure(
        figsize=(9.4, 1.1 + rows * (0.55 + 0.27 * len(labels))), layout=ConstrainedLayoutEngine(wspace=0.05)
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, language in zip(grid, languages, strict=False):
        rows_of_panel = (
            shares[shares.index.get_level_values("language") == language].droplevel("language").reindex(labels)
        )
        _stacked_bars(axes, rows_of_panel, languages)
        axes.set_title(f"prompts in {language}")
    hide_unused(grid, len(languages), columns)
    figure.supxlabel("share of the answers (%)", fontsize=9)
    looks = {name: look(name, languages) for name in names}
    handles = [
        Patch(facecolor=style.colour, hatch=style.hatch, edgecolor=PAPER, label=name) for name, style in looks.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=legend_columns(len(handles), 9),
        title="language of the answer",
        alignment="left",
    )
    return figure


def _stacked_bars(axes: Axes, shares: pd.DataFrame, languages: Sequence[str]) -> None:
    left = np.zeros(len(shares))
    for name in shares.columns:
        style, widths = look(name, languages), 100 * shares[name].fillna(0.0).to_numpy()  # those not known say so below
        axes.barh(
            range(len(shares)),
            widths,
            0.78,
            left,
            color=style.colour,
            hatch=style.hatch,
            edgecolor=PAPER,
            linewidth=0.6,
        )
        for row, width in enumerate(widths):
            if width >= 12:
                text, box = readable_on(to_rgb(style.colour)), {"facecolor": style.colour, "linewidth": 0, "pad": 1.2}
                where = (left[row] + width / 2, row)
                axes.text(*where, f"{width:.0f}", ha="center", va="center", color=text, fontsize=7.5, bbox=box)
        left = left + widths
    for row in np.flatnonzero(shares.isna().any(axis=1)):
        axes.text(2, row, "–", va="center", color=MUTED, fontsize=7.5)
    axes.set_yticks(range(len(shares)), list(shares.index))
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


# -- small helpers -----------------------------------------------------------------------------------------------------


def _variants(table: pd.DataFrame, wanted: Callable[[str], bool]) -> list[str]:
    if table.empty:
        return []
    return list(dict.fromkeys(table.loc[table["kind"].map(wanted).astype(bool), "variant"]))


@dataclass(frozen=True)
class Drawing:
    """A figure of one model."""

    tables: tuple[str, ...]
    """The tables that it shows, by name."""
    draw: Callable[..., Figure]
    """From these tables, cut to the model, and the languages of the run."""


def _of_the_default(draw: Callable[[pd.DataFrame, Sequence[str]], Figure]) -> Drawing:
    """A figure of perplexities, of the variants that are shown in full."""

    def drawn(
        table: pd.DataFrame, variants: pd.DataFrame, thresholds: pd.DataFrame, languages: Sequence[str]
    ) -> Figure:
        return draw(choices.read(table, variants, choices.default_of(thresholds)), languages)

    return Drawing(("perplexity", "variants", "thresholds"), drawn)


def _chosen_output_languages(
    table: pd.DataFrame,
    variants: pd.DataFrame,
    thresholds: pd.DataFrame,
    success: pd.DataFrame,
    languages: Sequence[str],
) -> Figure:
    """Of many languages, with the best steering variant only: every variant takes a bar per language."""
    most = choices.MOST_STEERING if len(languages) <= MANY else 1
    default = choices.default_of(thresholds)
    return output_languages(choices.answered(table, variants, default, success, most), languages)


FIGURES = {
    "layer_profile": Drawing(("neurons_by_layer", "thresholds"), layer_profile),
    "neuron_overlap": Drawing(("overlaps",), neuron_overlap),
    "method_overlap": Drawing(("convergence",), method_overlap),
    "language_effects": Drawing(("differences", "variants", "thresholds", "effects"), language_effects),
    "rate_curve": Drawing(("perplexity", "variants", "thresholds", "effects"), rate_curve),
    "perplexity_ratio": _of_the_default(perplexity_ratio),
    "perplexity_spread": _of_the_default(perplexity_spread),
    "steering_success": Drawing(("steering", "variants"), steering_success),
    "output_languages": Drawing(("output_languages", "variants", "thresholds", "steering"), _chosen_output_languages),
}
"""By file name."""
