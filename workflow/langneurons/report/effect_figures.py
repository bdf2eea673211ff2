"""Figures of what switching neurons off does to perplexity: with intervals, beside random controls, at every rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from langneurons.report import choices
from langneurons.report.formats import integer
from langneurons.report.looks import (
    GREYS,
    INK,
    MUTED,
    NOTHING_EDITED,
    NOTHING_READ,
    PAPER,
    Look,
    dot,
    hide_unused,
    legend_columns,
    look,
    notice,
    ratio_axis,
)
from langneurons.report.shares import OTHER
from langneurons.variants import BASELINE, DEACTIVATE

GREY = GREYS[OTHER]
RATIO = "perplexity, as a multiple of the unperturbed model's (log scale)"
NOTHING_KNOWN = "No perplexity ratio of this is known."
MANY = 4
"""Panels of more languages stand in two columns."""
FEW = 4
"""So many numbers of neurons fit in the title of a panel."""
CONTROLS = {"layer": "random, same layers", "activity": "random, as active"}


# -- effects with intervals --------------------------------------------------------------------------------------------


def language_effects(
    differences: pd.DataFrame,
    variants: pd.DataFrame,
    thresholds: pd.DataFrame,
    edits: pd.DataFrame,
    languages: Sequence[str],
) -> Figure:
    """A panel per language whose neurons are off: its own text, that of others, and as many random neurons off.

    Args:
        differences: effects with their intervals.
        variants: settings of every variant.
        thresholds: of every selection, the default first.
        edits: with the number of `edited_neurons` of every perturbation.
        languages: of the run.
    """
    rows = _ratios(differences)
    off = [name for name in choices.deactivating(variants, choices.default_of(thresholds)) if _has(rows, name)]
    if not off:
        return notice(NOTHING_READ if rows.empty else NOTHING_EDITED)
    variant = off[0]
    drawn = {name: CONTROLS[kind] for kind in CONTROLS for name in choices.controls(variants, off[:1], kind)}
    drawn = {name: label for name, label in drawn.items() if _has(rows, name)}
    shown = rows[rows["variant"].isin([variant, *drawn])]
    if not np.isfinite(shown["ratio"]).any():
        return notice(NOTHING_KNOWN)
    columns = 1 if len(languages) <= MANY else 2
    lines = -(-len(languages) // columns)
    height = 0.42 + 0.25 * (2 + len(drawn))
    figure = Figure(figsize=(7.6 if columns == 1 else 9.4, 1.2 + lines * height), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, squeeze=False).flatten()
    counts = dict(zip(edits.get("perturbation", []), edits.get("edited_neurons", []), strict=True))
    for axes, language in zip(grid, languages, strict=False):
        _effects_of(axes, shown[shown["edited_language"] == language], variant, drawn, language, languages)
        number = counts.get(f"{variant}-{language}")
        axes.set_title(f"neurons of {language}" + ("" if number is None else f" ({integer(number)})"))
    hide_unused(grid, len(languages), columns)
    bounds = shown[["ratio", "low", "high"]].to_numpy(dtype=float)
    bounds = bounds[np.isfinite(bounds) & (bounds > 0)]
    ratio_axis(grid[0].xaxis, min(bounds.min(initial=1.0), 0.99), max(bounds.max(initial=1.0), 1.05))
    figure.supxlabel(RATIO, fontsize=9)
    handles = [dot(look(language, languages), f"reads {language}", True) for language in languages]
    handles += [dot(Look(MUTED, "", "o"), "the language of the neurons", True)]
    handles += [dot(Look(MUTED, "", "o"), "another language", False)]
    if drawn:
        handles += [
            Line2D([], [], linestyle="", marker="o", markersize=3, color=GREY, label="one draw"),
            Line2D(
                [], [], linestyle="", marker="|", markersize=11, markeredgewidth=2, color=INK, label="mean of draws"
            ),
        ]
    columns = legend_columns(len(handles), 6)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handletextpad=0.2, columnspacing=1.4)
    return figure


def _ratios(differences: pd.DataFrame) -> pd.DataFrame:
    """Perplexity against the unperturbed model: `ratio` with `low` and `high`."""
    if "measure" not in differences:
        return differences.iloc[:0]
    rows = differences[(differences["measure"] == "perplexity") & (differences["against"] == BASELINE)]
    with np.errstate(over="ignore"):  # what is too large for a number is infinite
        exponents = np.exp(rows[["difference", "low", "high"]].astype(float))
    return rows.assign(ratio=exponents["difference"], low=exponents["low"], high=exponents["high"])


def _has(rows: pd.DataFrame, variant: str) -> bool:
    return bool((rows["variant"] == variant).any()) if len(rows) else False


def _effects_of(
    axes: Axes, rows: pd.DataFrame, variant: str, drawn: dict[str, str], own: str, languages: Sequence[str]
) -> None:
    """One panel: a line for its own text, one for all others, one per control."""
    axes.axvline(1, color=MUTED, linewidth=1)
    edited = rows[rows["variant"] == variant].set_index("language")
    others = [language for language in languages if language != own]
    for language in [own, *others]:
        if language not in edited.index:
            continue
        row, style = edited.loc[language], look(language, languages)
        lane = 0.0 if len(others) == 1 else (others.index(language) / (len(others) - 1) - 0.5) if language != own else 0
        place = 0.0 if language == own else 1 + 0.6 * lane
        if np.isfinite(row[["low", "ratio", "high"]].to_numpy(dtype=float)).all():
            axes.plot([row["low"], row["high"]], [place, place], color=style.colour, linewidth=1.4, zorder=2)
        face = style.colour if language == own else PAPER
        size = 46 if language == own else 24
        axes.scatter(
            row["ratio"], place, s=size, marker=style.marker, facecolors=face, edgecolors=style.colour, zorder=3
        )
    note_unknown(axes, 0, edited["ratio"].reindex([own]), named=False)
    note_unknown(axes, 1, edited["ratio"].reindex(others), named=len(others) > 1)
    labels = ["read its text", "read other texts"]
    for place, (control, label) in enumerate(drawn.items(), 2):
        draws = rows[(rows["variant"] == control) & (rows["language"] == own)]["ratio"].dropna()
        if np.isinf(draws).any():
            axes.text(0.99, place, "∞", transform=axes.get_yaxis_transform(), ha="right", va="center", color=MUTED)
        axes.scatter(draws, np.full(len(draws), place), s=9, color=GREY, zorder=2)
        if len(draws):
            axes.scatter(draws.mean(), place, s=120, marker="|", color=INK, linewidths=2, zorder=3)
        labels.append(f"{label} ({len(draws)})")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def note_unknown(axes: Axes, place: float, ratios: pd.Series, named: bool = True) -> None:
    """Write beside a line of dots which are not there, and why.

    Args:
        axes: a panel of ratios.
        place: of the line.
        ratios: by language read.
        named: whether the languages are named.
    """
    reasons = {"∞": np.isinf(ratios), "not measured": ratios.isna()}
    parts = {words: ", ".join(ratios.index[missing]) for words, missing in reasons.items() if missing.any()}
    text = "; ".join(f"{words}: {languages}" if named else words for words, languages in parts.items())
    if text:
        transform = axes.get_yaxis_transform()
        axes.text(0.99, place, text, transform=transform, ha="right", va="center", color=MUTED, fontsize=8)


# -- how the effect grows ----------------------------------------------------------------------------------------------


def rate_curve(
    perplexity: pd.DataFrame,
    variants: pd.DataFrame,
    thresholds: pd.DataFrame,
    edits: pd.DataFrame,
    languages: Sequence[str],
) -> Figure:
    """A panel per language: its perplexity and the largest of another language, by the share of neurons off.

    The shares are those of the variants of one method and site; the random controls match the neurons per layer.

    Args:
        perplexity: of every perturbation, with the ratio to the unperturbed model.
        variants: settings of every variant.
        thresholds: of every selection, the default first.
        edits: with the number of `edited_neurons` of every perturbation.
        languages: of the run.
    """
    if perplexity.empty:
        return notice(NOTHING_READ)
    swept = _swept(perplexity, variants, thresholds)
    if swept.empty:
        return notice(NOTHING_EDITED)
    swept = swept[swept["top_rate"].notna()]
    if swept.empty:
        return notice("Which share of the neurons was switched off is not known.")
    method, rates = swept["method"].iloc[0], swept["top_rate"].astype(float).to_numpy()
    if not np.isfinite(perplexity.loc[perplexity["variant"].isin(swept["variant"]), "ratio"]).any():
        return notice(NOTHING_KNOWN)
    if len(rates) == 1:
        return notice(
            f"Only one share of the neurons was switched off: {rates[0]:.3g} of all ({method}).\n"
            "A list in top_rate of a variant gives the curve."
        )
    columns = min(len(languages), 3 if len(languages) != MANY else 2)
    lines = -(-len(languages) // columns)
    figure = Figure(figsize=(max(4.6, 2.75 * columns + 0.6), 1.3 + 2.3 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    counts = dict(zip(edits.get("perturbation", []), edits.get("edited_neurons", []), strict=True))
    values: list[float] = [1.0]
    for axes, language in zip(grid, languages, strict=False):
        edited = perplexity[perplexity["edited_language"] == language]
        values += _curve(axes, edited, swept, variants, language, languages)
        numbers = [counts.get(f"{variant}-{language}") for variant in swept["variant"]]
        known = [integer(number) for number in numbers if number is not None]
        listed = ", ".join(known) if len(known) <= FEW else f"{known[0]} to {known[-1]}"
        axes.set_title(f"{language}: {listed} neurons" if known else language, fontsize=8.5)
    hide_unused(grid, len(languages), columns)
    finite = [value for value in values if np.isfinite(value) and value > 0]
    ratio_axis(grid[0].yaxis, min(finite), max(*finite, 1.05))
    figure.supxlabel(f"share of all neurons that {method} selects for all languages together (log scale)", fontsize=9)
    figure.supylabel("perplexity ratio (log scale)", fontsize=9)
    _legend_of_curves(figure)
    return figure


def _swept(perplexity: pd.DataFrame, variants: pd.DataFrame, thresholds: pd.DataFrame) -> pd.DataFrame:
    """The measured variants that switch off by one method at one site, one per rate, in the order of the rates."""
    if "kind" not in variants:
        return variants.iloc[:0]
    off = variants[(variants["kind"] == DEACTIVATE) & variants["variant"].isin(perplexity["variant"])]
    if off.empty:
        return off
    default = choices.deactivating(off, choices.default_of(thresholds))
    first = off[off["variant"].isin(default)].iloc[0]
    same = off[(off["method"] == first["method"]) & (off["site"] == first["site"])]
    return same.drop_duplicates("top_rate").sort_values("top_rate")


def _curve(
    axes: Axes, edited: pd.DataFrame, swept: pd.DataFrame, variants: pd.DataFrame, own: str, languages: Sequence[str]
) -> list[float]:
    """Draw one panel; all values that are drawn."""
    points = []
    for row in swept.itertuples():
        ratios = edited[edited["variant"] == row.variant].set_index("language")["ratio"]
        controls = choices.controls(variants, [str(row.variant)], "layer")
        draws = edited[edited["variant"].isin(controls) & (edited["language"] == own)]["ratio"].astype(float)
        others = ratios.drop(own, errors="ignore").max() if len(ratios) else np.nan
        points.append((row.top_rate, ratios.get(own, np.nan), others, draws.min(), draws.mean(), draws.max()))
    rate, mine, others, low, mean, high = np.array(points, dtype=float).T
    style = look(own, languages)
    drawn = np.isfinite(mean)
    axes.axhline(1, color=MUTED, linewidth=1)
    axes.fill_between(rate[drawn], low[drawn], high[drawn], color=GREY, alpha=0.35, linewidth=0)
    axes.plot(rate[drawn], mean[drawn], color=GREY, linewidth=1.4, marker="_", markersize=8)
    axes.plot(
        rate,
        others,
        color=style.colour,
        linestyle=(0, (4, 2)),
        marker=style.marker,
        markerfacecolor=PAPER,
        markersize=4.5,
    )
    for text, missing in (("∞", np.isinf), ("–", np.isnan)):  # above, where no line is
        for value in rate[missing(mine) | missing(others)]:
            axes.text(value, 0.99, text, transform=axes.get_xaxis_transform(), ha="center", va="top", color=MUTED)
    axes.plot(rate, mine, color=style.colour, linewidth=1.8, marker=style.marker, markersize=6)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(rate)))
    axes.xaxis.set_minor_locator(NullLocator())
    labelled: list[float] = []  # those with room for a label
    for value in rate:
        labelled += [value] if not labelled or np.log(value / labelled[-1]) >= np.log(rate[-1] / rate[0]) / 7 else []
    axes.set_xticklabels([f"{100 * value:.3g}%" if value in labelled else "" for value in rate])
    axes.grid(axis="y")
    return [*mine, *others, *low[drawn], *high[drawn]]


def _legend_of_curves(figure: Figure) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=MUTED, linewidth=1.8, marker="o", label="own language"),
        Line2D(
            [], [], color=MUTED, linestyle=(0, (4, 2)), marker="o", markerfacecolor=PAPER, label="largest of the others"
        ),
        Patch(facecolor=GREY, alpha=0.35, label="as many random neurons off: all draws"),
        Line2D([], [], color=GREY, marker="_", label="their mean"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=2.6, columnspacing=1.4)
