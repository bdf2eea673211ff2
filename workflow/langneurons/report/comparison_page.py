"""The page and the summary of a comparison of two runs: what differs, what moved, and a figure of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langneurons.report import choices, comparison, figures, formats, run_settings
from langneurons.report.comparison import MISSING, MOVED, ONLY_A, ONLY_B, SAME, UNCERTAIN, WITHIN
from langneurons.report.looks import MUTED, PAPER, Look, dot, look, ratio_axis
from langneurons.report.render import embed, embed_script, environment
from langneurons.report.runs import Run, cells, keyed
from langneurons.variants import DEACTIVATE

Json = dict[str, Any]

FIRST, MOST = 20, 200
"""So many rows of a table are open, and so many are on the page at all; every row is in comparison.csv."""
LINES = 60
"""Pairs of dots in the figure; of more, those that are farthest apart."""
TOLD = 10
"""Rows of each kind in the summary on the terminal."""
RATIO_LABEL = "perplexity of its own text with a language's neurons off, as a multiple of the unperturbed (log scale)"


# -- figure ------------------------------------------------------------------------------------------------------------


def own_ratios(rows: pd.DataFrame, b: Run) -> pd.DataFrame:
    """Perplexity ratios of a language's own text with its neurons off, of the variants that B's report shows in full.

    Args:
        rows: from `comparison.compare`.
        b: the second run, whose tables say which perturbations these are.
    """
    about = keyed(b, "perplexity")
    if not {"kind", "variant", "edited_language"} <= set(about):
        return rows.iloc[:0]
    variants, thresholds = b.tables.get("variants", pd.DataFrame()), b.tables.get("thresholds", pd.DataFrame())
    shown = choices.deactivating(variants, choices.default_of(thresholds))
    own = about[(about["kind"] == DEACTIVATE) & (about["edited_language"] == about["language"])]
    own = own[own["variant"].isin(shown)] if shown else own
    keys = ["model", "perturbation", "language"]
    ratios = rows[
        (rows["table"] == "perplexity") & (rows["metric"] == "ratio") & ~rows["verdict"].isin([ONLY_A, ONLY_B])
    ]
    return ratios.merge(own[keys].drop_duplicates(), on=keys)


def ratio_figure(ratios: pd.DataFrame, languages: Sequence[str]) -> Figure:
    """A panel per model, a pair of dots with intervals per language: A hollow, B filled.

    Args:
        ratios: from `own_ratios`, at least one row.
        languages: which have a look of their own.
    """
    ratios = ratios.loc[ratios["distance"].fillna(-1.0).nlargest(LINES).index.sort_values()]
    models = list(dict.fromkeys(ratios["model"]))
    heights = [int((ratios["model"] == model).sum()) for model in models]
    figure = Figure(figsize=(7.6, 1.25 + 0.36 * sum(heights) + 0.35 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), 1, sharex=True, squeeze=False, height_ratios=heights).flatten()
    for axes, model in zip(grid, models, strict=True):
        _panel(axes, ratios[ratios["model"] == model], languages)
        axes.set_title(model)
    bounds = ratios[["a", "low_a", "high_a", "b", "low_b", "high_b"]].to_numpy(dtype=float)
    bounds = bounds[np.isfinite(bounds) & (bounds > 0)]
    ratio_axis(grid[0].xaxis, min(bounds.min(initial=1.0), 0.99), max(bounds.max(initial=1.0), 1.05))
    figure.supxlabel(RATIO_LABEL, fontsize=9)
    handles = [dot(Look(MUTED, "", "o"), name, filled) for name, filled in (("A", False), ("B", True))]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1.4)
    return figure


def _panel(axes: Axes, ratios: pd.DataFrame, languages: Sequence[str]) -> None:
    axes.axvline(1, color=MUTED, linewidth=1)
    several = ratios["language"].duplicated().any()  # variants that switch off at different sites
    labels = []
    for place, row in enumerate(ratios.to_dict("records")):
        style = look(row["language"], languages)
        for side, lane in (("a", -0.17), ("b", 0.17)):
            low, high = row[f"low_{side}"], row[f"high_{side}"]
            if np.isfinite(low) and np.isfinite(high):
                axes.plot([low, high], [place + lane] * 2, color=style.colour, linewidth=1.4, zorder=2)
            face = style.colour if side == "b" else PAPER
            axes.scatter(
                row[side], place + lane, s=34, marker=style.marker, facecolors=face, edgecolors=style.colour, zorder=3
            )
        name = row["perturbation"] if several else row["language"]
        labels.append(f"{name}, moved" if row["verdict"] == MOVED else name)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


# -- page --------------------------------------------------------------------------------------------------------------


def render(a: Run, b: Run, rows: pd.DataFrame, neurons: pd.DataFrame, template: Path) -> str:
    """The page.

    Args:
        a: one run.
        b: the other one.
        rows: from `comparison.compare`.
        neurons: from `comparison.neuron_sets`.
        template: the Jinja2 template; beside it are `style.css` and `script.js`, which are put into the page.
    """
    style, script = (template.with_name(name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    ratios = own_ratios(rows, b)
    languages = list(dict.fromkeys(str(name) for name in [*keyed(b, "perplexity")["language"], *ratios["language"]]))
    drawn = (
        embed(figures.plot([ratios], ratio_figure, languages)) if ratios[["a", "b"]].notna().any(axis=None) else None
    )
    alone = run_settings.unmatched(a, b)
    listed = {
        "moved": comparison.largest(rows),
        "uncertain": _by_size(rows[rows["verdict"] == UNCERTAIN]),
        "missing_rows": rows[(rows["verdict"] == MISSING) & (rows["a"].notna() | rows["b"].notna())],
    }
    context = {
        "a": a,
        "b": b,
        "sentences": sentences(a, b, rows),
        "verdicts": comparison.VERDICTS,
        "counts": [{"table": name, "cells": list(row)} for name, row in comparison.counts(rows).iterrows()],
        "ratios": _shown(ratios),
        "figure": drawn,
        "lines": min(len(ratios), LINES),
        **{name: _shown(part.head(MOST)) for name, part in listed.items()},
        "numbers": {name: len(part) for name, part in (listed | {"alone": alone}).items()},
        "first": FIRST,
        "settings": run_settings.settings(a.config, b.config).to_dict("records"),
        "descriptions": run_settings.descriptions(a, b).head(MOST).to_dict("records"),
        "neurons": neurons.to_dict("records"),
        "alone": alone.head(MOST).to_dict("records"),
        "style": Markup(style),
        **embed_script(script),
    }
    return environment(template.parent).get_template(template.name).render(context)


def _shown(rows: pd.DataFrame) -> list[Json]:
    """Rows of numbers as the page shows them: what identifies each beyond the model, and the metric, in words."""
    about = cells(rows.drop(columns=["model", "measure", "against"]))
    return [
        row | {"cell": cell, "metric": _metric(row)} for row, cell in zip(rows.to_dict("records"), about, strict=True)
    ]


def _metric(row: Json) -> str:
    if row["table"] != "differences":
        return f"{row['table']}: {row['metric']}"
    ratio = " ratio" if row["change_is"] == comparison.RATIO else ""
    return f"effect on {row['measure']}{ratio}, against {row['against']}"


def _by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """The largest change first, relative to the larger of both values."""
    with np.errstate(all="ignore"):
        size = (rows["b"] - rows["a"]).abs() / rows[["a", "b"]].abs().max(axis=1)
    return rows.loc[size.sort_values(ascending=False, kind="stable").index]


# -- sentences ---------------------------------------------------------------------------------------------------------


def sentences(a: Run, b: Run, rows: pd.DataFrame) -> list[str]:
    """What differs and what moved, in a few sentences."""
    number = rows["verdict"].value_counts().to_dict()
    compared = sum(number.get(name, 0) for name in (MOVED, WITHIN, UNCERTAIN, SAME))
    common = [model for model in a.models if model in b.models]
    told = [f"{_count(len(common), 'model')} in common: {', '.join(common)}."]
    if a.version != b.version:
        told.append(f"Made by langneurons {a.version or 'of unknown version'} (A) and {b.version or 'unknown'} (B).")
    for name, run in (("A", a), ("B", b)):
        told += [f"{name}: {note}" for note in run.notes]
    if a.config is None or b.config is None:
        told.append("The configurations cannot be compared; what the tables tell of them is.")
    else:
        differ = len(run_settings.settings(a.config, b.config))
        told.append(
            f"The configurations differ in {_count(differ, 'key')}." if differ else "The configurations are equal."
        )
    moved = number.get(MOVED, 0)
    if moved:
        told.append(
            f"Of {_count(compared, 'number')} that both runs have, {moved:,} moved: "
            "the intervals of A and B are disjoint."
        )
    else:
        told.append(f"Nothing moved: of {_count(compared, 'number')} that both runs have, none has disjoint intervals.")
    told.append(
        f"Changed within the uncertainty, as the intervals overlap: {number.get(WITHIN, 0):,}. Changed, without an "
        f"interval: {number.get(UNCERTAIN, 0):,}. Unchanged: {number.get(SAME, 0):,}. Missing (NaN) in A, B or both: "
        f"{number.get(MISSING, 0):,}. Only in A: {number.get(ONLY_A, 0):,}; only in B: {number.get(ONLY_B, 0):,}."
    )
    return told


def summary(a: Run, b: Run, rows: pd.DataFrame, neurons: pd.DataFrame) -> str:
    """What a terminal shows: sentences, the keys that differ, the numbers that moved most, the least equal neurons."""
    lines = [f"A: {a.name}", f"B: {b.name}", *sentences(a, b, rows)]
    keys = run_settings.settings(a.config, b.config).to_dict("records")
    if keys:
        lines += ["", "Configuration (A -> B):"]
        lines += [f"  {row['key']}: {row['a'] or 'not set'} -> {row['b'] or 'not set'}" for row in keys[:TOLD]]
        lines += [f"  … and {len(keys) - TOLD} more"] if len(keys) > TOLD else []
    moved = comparison.largest(rows, TOLD)
    if len(moved):
        total = int((rows["verdict"] == MOVED).sum())
        lines += ["", f"Moved most, relative to the intervals, random controls last ({len(moved)} of {total}; A -> B):"]
        lines += [f"  {row['model']} · {row['cell']}: {_change(row)}" for row in _shown(moved)]
    differ = neurons[neurons["jaccard"] < 1].sort_values("jaccard", kind="stable")
    if len(differ):
        lines += [
            "",
            f"Neurons that differ most (Jaccard index of A and B; {len(differ)} of {len(neurons)} sets differ):",
        ]
        lines += [
            f"  {row.model} · {row.method} · {row.language}: {row.jaccard:.3f}" for row in differ[:TOLD].itertuples()
        ]
    return formats.visible("\n".join(lines))


def _change(row: Json) -> str:
    number = formats.significant
    sides = [f"{number(row[side])} [{number(row[f'low_{side}'])}, {number(row[f'high_{side}'])}]" for side in "ab"]
    change = (
        f"x {number(row['change'])}"
        if row["change_is"] == comparison.RATIO
        else f"{'+' * (row['change'] > 0)}{number(row['change'])}"
    )
    return f"{row['metric']} {sides[0]} -> {sides[1]} ({change})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
