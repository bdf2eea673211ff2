"""What the page shows of effects with intervals, of steering, of methods, and of how firm the neurons are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from langneurons import variants
from langneurons.config import PUBLISHED
from langneurons.metrics.steering import ALL
from langneurons.report import choices
from langneurons.report.findings import Comparison, Tables, settings_of, table_of
from langneurons.report.views import completed
from langneurons.variants import BASELINE, DEACTIVATE, STEER

Json = dict[str, Any]

NAN = float("nan")


# -- effects with intervals --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """How a measure is written."""

    title: str
    unit: str
    scale: float = 1
    decimals: int = 3


MEASURES = {
    "perplexity": Measure("Perplexity", "nats per token; the difference is the logarithm of the ratio"),
    "prompt_language": Measure("Answers in the prompt's language", "%; differences in percentage points", 100, 1),
    "target_language": Measure(
        "Answers in the language whose neurons are off or on, another than the prompt's",
        "%; differences in percentage points",
        100,
        1,
    ),
    "english": Measure("Answers in English, to prompts that are not", "%; differences in percentage points", 100, 1),
    "stop_words": Measure("Stop-word ratio of an answer (replication's definition)", "mean over the answers"),
    "characters": Measure("Length of the answers", "characters", 1, 1),
    "copies": Measure("Answers that copy the question", "%; differences in percentage points", 100, 1),
    "loops": Measure("Answers that end in a loop", "%; differences in percentage points", 100, 1),
    "repeated_ngrams": Measure("Repeated word 4-grams", "mean share"),
    "distinct_2": Measure("Distinct-2", "mean share of distinct word pairs"),
    "compression_ratio": Measure("Compression ratio", "mean"),
    "relevance": Measure("Relevance of the answers", "mean score"),
}
"""By name, as in the table of differences."""


def differences(rows: pd.DataFrame, config: Json, success: pd.DataFrame) -> Json:
    """Effects of one model, a group per measure; of variants that switch off or on.

    Of perplexity every variant that switches off; of answers the variants that are shown in full.

    Returns:
        `groups` of `name, title, unit, scale, decimals, ratio` (whether exp(difference) is shown), `number` and `rows`,
        `left_out`, the number of rows that only the table differences.csv has, and `without`, the languages of the run
        that no row is of.
    """
    table, default = settings_of(config)
    shown = [*choices.deactivating(table, default), *choices.steering(table, success)]
    read = (rows["measure"] == "perplexity") & rows["kind"].isin([DEACTIVATE, STEER])
    kept = rows[read | (rows["variant"].isin(shown) & rows["kind"].isin([DEACTIVATE, STEER]))]
    groups = []
    for name in [*MEASURES, *(name for name in dict.fromkeys(kept["measure"]) if name not in MEASURES)]:
        group, measure = kept[kept["measure"] == name], MEASURES.get(name, Measure(name, "mean"))
        if group.empty:
            continue
        ratio = name == "perplexity"
        records = group.assign(ratio=group["difference"].map(_exponential) if ratio else NAN)
        groups.append(
            {
                "name": name,
                "title": measure.title,
                "unit": measure.unit,
                "scale": measure.scale,
                "decimals": measure.decimals,
                "ratio": ratio,
                "number": len(group),
                "rows": records.to_dict("records"),
            }
        )
    without = [language for language in config["run"]["languages"] if language not in set(rows["language"])]
    return {"groups": groups, "left_out": len(rows) - len(kept), "without": without}


# -- steering ----------------------------------------------------------------------------------------------------------


def steering(model: str, tables: Tables, config: Json) -> Json | None:
    """Success of every steering variant beside its controls and the unperturbed answers; None if nothing was steered.

    Returns:
        `rows`: one per variant, over all directions, with `how` it steers, `controls`, `baseline` (of the same
        directions) and whether it is `shown` in full; `columns`: the variants shown in full, with the unperturbed
        answers and the controls; `directions`: `language, target, cells`, one per column; `residual`: variants that use
        no neurons.
    """
    success = table_of(tables, "steering", model)
    if success.empty:
        return None
    table, _ = settings_of(config)
    cells = success.set_index(["variant", "language", "target"])
    names = [name for name in config["run"]["perturbations"] if config["perturbations"][name]["kind"] == STEER]
    rows = []
    for name in names:
        if (name, ALL, ALL) not in cells.index:
            continue
        controls = [
            {"variant": control, **cells.loc[(control, ALL, ALL)].to_dict()}
            for control in choices.controls(table, [name])
            if (control, ALL, ALL) in cells.index
        ]
        own = {
            "variant": name,
            "how": how(config["perturbations"][name], model),
            **cells.loc[(name, ALL, ALL)].to_dict(),
        }
        rows.append(own | {"controls": controls, "baseline": _baseline_of(success, name)})
    if not rows:
        return None
    shown = choices.steering(table, success)
    there = set(success["variant"])
    columns = [name for name in (BASELINE, *shown, *choices.controls(table, shown)) if name in there]
    empty = {"share": NAN, "low": NAN, "high": NAN}
    directions = [
        {
            "language": language,
            "target": target,
            "cells": [
                cells.loc[key].to_dict() if (key := (name, language, target)) in cells.index else empty
                for name in columns
            ],
        }
        for language, target in product(config["run"]["languages"], repeat=2)
        if language != target
    ]
    return {
        "rows": [row | {"shown": row["variant"] in shown} for row in rows],
        "columns": columns,
        "directions": directions,
        "residual": [name for name in names if config["perturbations"][name]["site"] == variants.RESIDUAL],
    }


def how(settings: Json, model: str) -> str:
    """How a variant steers a model, in words."""
    scale = variants.scale(settings, model)
    if settings["site"] == variants.RESIDUAL:
        layers = settings.get("layers")
        where = f"after layer {', '.join(map(str, layers))}" if layers else "after the middle layer"
        return f"no neurons: {scale:g} × DiffMean added to the residual stream {where}"
    verb = "set to" if settings["edit"] == "set" else "raised by"
    place = "the activation" if settings["site"] == "activation" else "the input of the down projection"
    off = ", the source's neurons off" if settings.get("source_off") else ""
    return f"neurons {verb} {scale:g} × their mean on the target ({place}){off}"


def _baseline_of(success: pd.DataFrame, variant: str) -> float:
    """Share of unperturbed answers in the target language over the directions of a variant, weighted by prompts; NaN if
    that of any direction is."""
    own = success[(success["variant"] == variant) & (success["target"] != ALL)]
    baseline = success[success["variant"] == BASELINE].merge(own[["language", "target"]], on=["language", "target"])
    prompts = baseline["prompts"].sum(skipna=False)
    return float((baseline["share"] * baseline["prompts"]).sum(skipna=False) / prompts) if prompts else NAN


# -- methods -----------------------------------------------------------------------------------------------------------


def methods(model: str, tables: Tables, config: Json) -> list[Json]:
    """A row per method and language: neurons, overlap with the default method, and effect of switching them off.

    Of the methods at the default rate. `ratio, low, high` is the perplexity of the language's own text with these
    neurons off, as a multiple of the unperturbed model's, and `other` the largest of another language, where a variant
    switches off the neurons of the method.
    """
    table, (first, rate) = settings_of(config)
    thresholds, neurons = table_of(tables, "thresholds", model), table_of(tables, "neurons", model)
    if thresholds.empty or neurons.empty:
        return []
    rated = choices.at_rate(thresholds, rate)["method"]
    overlap, effects = _overlap_with(first, table_of(tables, "convergence", model)), _perplexity(tables, model)
    rows = []
    for method in [name for name in rated if name != PUBLISHED]:
        variant = next(iter(_off_by(method, rate, table, effects)), None)
        found = neurons[neurons["method"] == method].to_dict("records")
        for own in completed(found, config["run"]["languages"], ["method"]):
            language = own["language"]
            shared = overlap.get((method, language), {"jaccard": NAN, "by_chance": NAN})
            row = {"method": method, "language": language, "neurons": own["neurons"], **shared, "default": first}
            rows.append(row | {"variant": variant, **_effect(effects, variant, language)})
    return rows


def _overlap_with(first: str, convergence: pd.DataFrame) -> dict[tuple[str, str], Json]:
    """Jaccard overlap with the default method, and what chance gives, by method and language."""
    result = {}
    rows = convergence[convergence["layer"].isna()] if "layer" in convergence else convergence
    for row in rows.to_dict("records"):
        if first in (row["method"], row["other_method"]):
            method = row["other_method"] if row["method"] == first else row["method"]
            either = row["neurons"] + row["other_neurons"] - row["expected"]
            chance = row["expected"] / either if either else NAN
            result[method, row["language"]] = {"jaccard": row["jaccard"], "by_chance": chance}
    return result


def _off_by(method: str, rate: float, table: pd.DataFrame, effects: pd.DataFrame) -> list[str]:
    """The measured variants that switch off the neurons of a method at the default rate."""
    if table.empty or effects.empty:
        return []
    off = table[(table["kind"] == DEACTIVATE) & (table["method"] == method)]
    return [name for name in choices.at_rate(off, rate)["variant"] if (effects["variant"] == name).any()]


def _perplexity(tables: Tables, model: str) -> pd.DataFrame:
    """Effects on perplexity against the unperturbed model."""
    rows = table_of(tables, "differences", model)
    if rows.empty:
        return rows
    return rows[(rows["measure"] == "perplexity") & (rows["against"] == BASELINE)]


def _effect(effects: pd.DataFrame, variant: str | None, language: str) -> Json:
    nothing = {"ratio": NAN, "low": NAN, "high": NAN, "other": NAN, "other_language": None}
    if variant is None:
        return nothing
    own = effects[(effects["variant"] == variant) & (effects["edited_language"] == language)]
    own = own.drop_duplicates("language").set_index("language")
    others = own["difference"].drop(language, errors="ignore").dropna()
    result = {"other": _exponential(others.max()), "other_language": others.idxmax()} if len(others) else {}
    if language in own.index:
        row = own.loc[language]
        result |= {
            "ratio": _exponential(row["difference"]),
            "low": _exponential(row["low"]),
            "high": _exponential(row["high"]),
        }
    return nothing | result


# -- firmness ----------------------------------------------------------------------------------------------------------

COMPARISONS = {"halves": "one half of the text and the other", "1/4": "a quarter and all", "1/2": "half and all"}


def stability(rows: pd.DataFrame, languages: Sequence[str]) -> list[Json]:
    """Neurons that parts of the text give: a row per comparison and language, with the overlap by chance."""
    either = rows["neurons"] + rows["other_neurons"] - rows["expected"]
    chance = rows["expected"] / either.where(either > 0)
    words = rows["comparison"].map(COMPARISONS).fillna(rows["comparison"])
    return completed(rows.assign(by_chance=chance, compared=words).to_dict("records"), languages, ["compared"])


def seeds(comparisons: Sequence[Comparison], tables: Tables, config: Json) -> list[Json]:
    """Models that differ in their training seed alone, their headline numbers side by side.

    Returns:
        Per model that was trained several times: `name, models, rows` of `what, format, values` (by model, in order)
        and the `lowest` and `highest` of them.
    """
    groups: dict[str, list[str]] = {}
    for model in config["run"]["models"]:
        found = re.fullmatch(r"(.+)-seed--?\d+", model)
        if found:
            groups.setdefault(found[1], []).append(model)
    result = []
    for name, models in groups.items():
        if len(models) > 1:
            rows = [*_perplexities_by_seed(models, comparisons, config), *_steering_by_seed(models, tables, config)]
            result.append({"name": name, "models": models, "rows": rows})
    return result


def _perplexities_by_seed(models: Sequence[str], comparisons: Sequence[Comparison], config: Json) -> list[Json]:
    shown = choices.deactivating(*settings_of(config))
    known = {(row.model, row.variant, row.language): row for row in comparisons if row.variant in shown}
    rows = []
    for variant in [name for name in shown if any(key[1] == name for key in known)]:
        for language in config["run"]["languages"]:
            own = [known.get((model, variant, language)) for model in models]
            for what, attribute in (
                (f"neurons of {language}", "neurons"),
                (f"perplexity ratio of {language}, its neurons off", "own"),
                ("largest of another language", "other"),
                ("as many random neurons off, mean", "random_mean"),
            ):
                values = [NAN if row is None else getattr(row, attribute) for row in own]
                rows.append(_by_seed(what, "integer" if attribute == "neurons" else "fixed3", values))
    return rows


def _steering_by_seed(models: Sequence[str], tables: Tables, config: Json) -> list[Json]:
    table, _ = settings_of(config)
    success = {model: table_of(tables, "steering", model) for model in models}
    shares = {model: choices.shares_of_all(rows) for model, rows in success.items()}
    names = choices.steering(table, pd.concat(list(success.values())))
    wanted = [BASELINE, *names, *choices.controls(table, names)] if names else []
    return [
        _by_seed(f"answers in the target language: {label}", "percent", values)
        for name in wanted
        for label in ["not perturbed" if name == BASELINE else name]
        for values in [[shares[model].get(name, NAN) for model in models]]
        if not all(pd.isna(value) for value in values)
    ]


def _by_seed(what: str, form: str, values: Sequence[float]) -> Json:
    known = [value for value in values if not pd.isna(value)]
    bounds = {"lowest": min(known, default=NAN), "highest": max(known, default=NAN)}
    return {"what": what, "format": form, "values": list(values), **bounds}


def _exponential(value: float) -> float:
    """Its exponential, infinite where it is too large for a number."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))
