"""Figures of the selected neurons: in which layers they are, and which of them languages share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, MaxNLocator

from langneurons.config import PUBLISHED
from langneurons.report.choices import at_rate, default_of
from langneurons.report.formats import fixed1, integer
from langneurons.report.looks import (
    GRID,
    INK,
    MUTED,
    PAPER,
    colour_bar,
    frame_grid,
    hide_unused,
    look,
    notice,
    readable_on,
)

MAX_GROUPED_BARS = 48
MAX_COLUMNS = 4
"""Of more languages than this, each has a row of panels in place of a column."""
MAX_LABELLED = 25
"""Heat maps of more languages than this have no numbers in their cells."""


# -- where the neurons are ---------------------------------------------------------------------------------------------


def layer_profile(table: pd.DataFrame, thresholds: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Neurons per layer and language, of every method at the default rate and of a published mask.

    Of one method grouped bars; for many layers or languages one panel per language, in percent of its neurons. Of
    several methods a panel per method and language.

    Args:
        table: neurons of every method, language and layer.
        thresholds: of every selection, the default first; names the rates.
        languages: of the run.
    """
    if len(table) and "neurons" in table and table["neurons"].isna().all():
        return notice("How many neurons there are is not known.")
    methods = _compared_methods(table, thresholds)
    if len([method for method in methods if method != PUBLISHED]) > 1 and table["neurons"].sum():
        return _profile_grid(table, methods, _known(table, languages))
    known = _known(table, languages)
    parts = {}
    for method in _shown_methods(table):
        own = table[table["method"] == method]
        sums = own.groupby(["layer", "language"])["neurons"].agg(lambda numbers: numbers.sum(skipna=False))
        counts = sums.unstack(fill_value=0)  # what is not known stays so
        parts[method] = counts.reindex(columns=_compared(method, counts.columns, languages, known))
    if not parts:
        return notice("No neurons were recorded.")
    if all(counts.to_numpy().sum() == 0 for counts in parts.values()):
        return notice("No neuron was selected.")
    heights = [3.3 if counts.size <= MAX_GROUPED_BARS else _panel_height(counts.shape[1]) for counts in parts.values()]
    wide = any(counts.size > MAX_GROUPED_BARS for counts in parts.values())
    figure = Figure(figsize=(8.6 if wide else 7.6, sum(heights)), layout="constrained")
    figures = figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False).flatten()
    for part, (method, counts) in zip(figures, parts.items(), strict=True):
        (_grouped_bars if counts.size <= MAX_GROUPED_BARS else _panels)(part, counts, known)
        if len(parts) > 1:
            part.suptitle(method, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _shown_methods(table: pd.DataFrame) -> list[str]:
    """The first selection of a table, and a published mask if there is one."""
    methods = list(dict.fromkeys(table["method"])) if "method" in table else []
    return [method for method in methods if method in (methods[0], PUBLISHED)]


def _compared_methods(table: pd.DataFrame, thresholds: pd.DataFrame) -> list[str]:
    """The selections of the default rate, and a published mask."""
    default = default_of(thresholds)
    if default is None or "method" not in table:
        return _shown_methods(table)
    rated = set(at_rate(thresholds, default[1])["method"]) | {PUBLISHED}
    return [method for method in dict.fromkeys(table["method"]) if method in rated]


def _profile_grid(table: pd.DataFrame, methods: Sequence[str], known: Sequence[str]) -> Figure:
    """A panel per method and language, in percent of its neurons; of few languages, these are the columns."""
    wide = len(known) <= MAX_COLUMNS
    rows, columns = (methods, known) if wide else (known, methods)
    width = min(9.8, 1.6 + max(1.3, 6.6 / len(columns)) * len(columns))
    figure = Figure(figsize=(width, 0.9 + 1.05 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    layers = 1 + int(table["layer"].max())
    for (row, first), (column, second) in product(enumerate(rows), enumerate(columns)):
        axes, (method, language) = grid[row, column], (first, second) if wide else (second, first)
        own = table[(table["method"] == method) & (table["language"] == language)]
        counts = own.set_index("layer")["neurons"].reindex(range(layers), fill_value=0)
        total, style = counts.sum(skipna=False), look(language, known)
        shares = 100 * counts / total if total > 0 else counts * 0.0
        axes.bar(counts.index, shares, 0.85, color=style.colour, hatch=style.hatch, edgecolor=PAPER, linewidth=0.3)
        note = ("not known" if np.isnan(total) else integer(total)) if len(own) else "not compared"
        axes.text(0.98, 0.96, note, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, color=MUTED)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(FixedLocator(range(layers)) if layers <= 8 else MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        if row == 0:
            axes.set_title(second)
        if column == 0:
            axes.set_ylabel(first, rotation=0, ha="right", va="center", fontsize=9)
    grid[0, 0].set_ylim(top=1.22 * grid[0, 0].get_ylim()[1])
    figure.supxlabel("layer (0 is nearest to the input)", fontsize=9)
    figure.supylabel("% of the neurons (their number in the corner)", fontsize=9)
    return figure


def _known(table: pd.DataFrame, languages: Sequence[str]) -> list[str]:
    """The languages of the run, then those that only a published mask has: each keeps its look in all figures."""
    return list(dict.fromkeys([*languages, *table.get("language", [])]))


def _compared(method: str, there: Collection[str], languages: Sequence[str], known: Sequence[str]) -> list[str]:
    """The languages that a method compares, also those that a table lacks: of the run, of a published mask its own."""
    return [name for name in known if name in there or (name in languages and method != PUBLISHED)]


def _grouped_bars(figure: FigureBase, counts: pd.DataFrame, known: Sequence[str]) -> None:
    axes = figure.subplots()
    width = 0.84 / counts.shape[1]
    for position, language in enumerate(counts.columns):
        style = look(language, known)
        places = counts.index.to_numpy() + (position - (counts.shape[1] - 1) / 2) * width
        bars = axes.bar(
            places,
            counts[language].fillna(0),
            width,
            color=style.colour,
            hatch=style.hatch,
            edgecolor=PAPER,
            label=language,
        )
        if counts.size <= 24:
            labels = ["" if np.isnan(number) else f"{number:g}" for number in counts[language]]
            axes.bar_label(bars, labels, fontsize=8, color=MUTED, padding=2)
        for place, number in zip(places, counts[language], strict=True):
            if np.isnan(number):
                axes.text(place, 0, "–", ha="center", va="bottom", fontsize=8, color=MUTED)
    axes.set_xticks(counts.index)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("layer (0 is nearest to the input)")
    axes.set_ylabel("selected neurons")
    figure.legend(loc="outside upper left", ncols=min(counts.shape[1], 12), title="neurons of", alignment="left")


def _panel_grid(number: int) -> tuple[int, int]:
    columns = 1 if number <= 3 else 2 if number <= 8 else 3
    return -(-number // columns), columns


def _panel_height(number: int) -> float:
    return 0.7 + 1.35 * _panel_grid(number)[0]


def _panels(figure: FigureBase, counts: pd.DataFrame, known: Sequence[str]) -> None:
    rows, columns = _panel_grid(counts.shape[1])
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, language in zip(grid, counts.columns, strict=False):
        style = look(language, known)
        total = counts[language].sum(skipna=False)
        shares = 100 * counts[language] / total if total > 0 else counts[language] * 0.0
        axes.bar(counts.index, shares, 0.85, color=style.colour, hatch=style.hatch, edgecolor=PAPER, linewidth=0.3)
        number = "not known how many" if np.isnan(total) else integer(total)
        axes.set_title(f"{language}: {number} neuron{'' if total == 1 else 's'}")
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    hide_unused(grid, counts.shape[1], columns)
    figure.supxlabel("layer (0 is nearest to the input)", fontsize=9)
    figure.supylabel("% of the language's neurons", fontsize=9)


# -- which neurons languages share -------------------------------------------------------------------------------------


def neuron_overlap(table: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Heat map of the neurons that two languages share, of the first method of the table and of a published mask."""
    within = table[table["method"] == table["other_method"]] if len(table) else table
    methods = _shown_methods(within)
    if not methods:
        return notice("There are no neurons of two languages to compare.")
    sizes = {method: len(set(within.loc[within["method"] == method, "language"])) + 1 for method in methods}
    side = max(2.6, 0.5 * max(sizes.values()) + 0.6)
    figure = Figure(figsize=(max(4.6, len(methods) * (side + 0.7)), side + 1.2), layout="constrained")
    grid = figure.subplots(1, len(methods), squeeze=False).flatten()
    drawn = within.loc[within["method"].isin(methods), "jaccard"].dropna()
    limit = max(0.05, float(drawn.max()) if len(drawn) else 0.0)
    mesh = None
    for axes, method in zip(grid, methods, strict=True):
        own = within[within["method"] == method]
        there = [*own["language"], *own["other_language"]]
        names = _compared(method, there, languages, list(dict.fromkeys([*languages, *there])))
        mesh = _overlap_map(axes, own, names, limit)
        axes.set_title(method)
    assert mesh is not None
    colour_bar(figure, mesh, grid, "shared neurons, in % of those of either language")
    return figure


def _overlap_map(axes: Axes, own: pd.DataFrame, names: Sequence[str], limit: float) -> QuadMesh:
    """One method: the number of shared neurons in every cell, the number of a language's own on the diagonal."""
    place = {name: index for index, name in enumerate(names)}
    shares = np.full((len(names), len(names)), np.nan)
    numbers = np.full((len(names), len(names)), np.nan)
    for row in own.itertuples():
        one, other = place[row.language], place[row.other_language]
        shares[one, other] = shares[other, one] = 100 * row.jaccard
        numbers[one, other] = numbers[other, one] = row.shared
        numbers[one, one], numbers[other, other] = row.neurons, row.other_neurons
    axes.set_facecolor(GRID)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(shares), vmin=0, vmax=100 * limit, cmap="Blues", edgecolors=PAPER, linewidth=1.5
    )
    for row, column in np.ndindex(shares.shape) if len(names) <= MAX_LABELLED else ():
        share = shares[row, column]
        colour = readable_on(tuple(mesh.cmap(mesh.norm(share)))) if np.isfinite(share) else INK
        where = (column + 0.5, row + 0.5)
        axes.text(*where, integer(numbers[row, column]), ha="center", va="center", color=colour, fontsize=8)
    frame_grid(axes, names)
    return mesh


# -- which neurons methods share ---------------------------------------------------------------------------------------


def method_overlap(table: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """Heat maps of the neurons that two methods share, one per language: in percent of those of either method.

    Args:
        table: of every pair of methods, language and layer; the rows without a layer are of all layers together.
        languages: of the run.
    """
    rows = table[table["layer"].isna()] if "layer" in table else table
    if rows.empty:
        return notice(
            "Only one method found neurons: there is nothing to compare. identification.compare adds methods."
        )
    methods = list(dict.fromkeys([*rows["method"], *rows["other_method"]]))
    names = list(languages)
    columns = min(len(names), 3)
    lines, side = -(-len(names) // columns), 0.25 + 0.51 * (len(methods) - 1)
    size = (max(4.6, 1.5 + columns * (side + 0.25)), 1.7 + lines * (side + 0.35))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    known = rows["jaccard"].dropna()
    limit = max(0.05, float(known.max()) if len(known) else 0.0)
    mesh = None
    for axes, language in zip(grid, names, strict=False):
        mesh = _method_map(axes, rows[rows["language"] == language], methods, limit)
        axes.set_title(language)
    assert mesh is not None
    hide_unused(grid, len(names), columns)
    colour_bar(figure, mesh, grid, "shared neurons, in % of those of either method")
    return figure


def _method_map(axes: Axes, own: pd.DataFrame, methods: Sequence[str], limit: float) -> QuadMesh:
    """One language: below the diagonal the overlap of every pair, and below it, smaller, what chance gives."""
    place = {name: index for index, name in enumerate(methods)}
    shares = np.full((len(methods) - 1, len(methods) - 1), np.nan)
    notes = {}
    for row in own.itertuples():
        first, second = sorted((place[row.method], place[row.other_method]))
        shares[second - 1, first] = 100 * row.jaccard
        either = row.neurons + row.other_neurons - row.expected
        chance = fixed1(100 * row.expected / either) if either else ""
        notes[second - 1, first] = f"chance {chance}" if chance else ""
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(shares), vmin=0, vmax=100 * limit, cmap="Blues", edgecolors=PAPER, linewidth=1.5
    )
    if own.empty:
        axes.text(0.5, 0.5, "not compared", transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=8)
    for (row, column), note in notes.items():
        share = shares[row, column]
        colour = readable_on(tuple(mesh.cmap(mesh.norm(share)))) if np.isfinite(share) else MUTED
        text = f"{share:.0f}" if np.isfinite(share) else "–"
        axes.text(column + 0.5, row + 0.42, text, ha="center", va="center", color=colour, fontsize=9)
        axes.text(column + 0.5, row + 0.74, note, ha="center", va="center", color=colour, fontsize=5.5)
    axes.set_xticks(np.arange(len(methods) - 1) + 0.5, methods[:-1], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(methods) - 1) + 0.5, methods[1:])
    axes.tick_params(length=0)
    axes.set_ylim(len(methods) - 1, 0)
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    return mesh
