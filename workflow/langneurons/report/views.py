"""What the page shows of models, perplexity, answers, neurons, the audit and published numbers: tables as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from langneurons import variants
from langneurons.config import PUBLISHED
from langneurons.report import agreement, choices, findings
from langneurons.report.findings import NAN, Tables, table_of
from langneurons.report.formats import optional
from langneurons.report.shares import language_shares
from langneurons.variants import ANSWERS

Json = dict[str, Any]

TEXT_METRICS = (
    ("mean_characters", "Mean length of the answers (characters)", "fixed1"),
    ("stop_word_ratio", "Stop-word ratio (replication's definition, of the prompt's language)", "fixed3"),
    ("prompt_language", "Answers in the prompt's language", "percent"),
    ("english", "Answers in English", "percent"),
    ("undetermined", "Answers whose language is undetermined", "percent"),
    ("agreement", "Answers whose language both identifiers agree on", "percent"),
    ("loops", "Answers that end in a loop", "percent"),
    ("copies", "Answers that copy the question", "percent"),
    ("repeated_ngrams", "Repeated word 4-grams, mean share", "fixed3"),
    ("distinct_2", "Distinct-2, mean share of distinct word pairs", "fixed3"),
    ("compression_ratio", "Compression ratio, mean", "fixed2"),
    ("identical_to_baseline", "Answers identical to the unperturbed ones", "percent"),
    ("empty", "Empty answers", "percent"),
)
"""Column, title and format of the tables of answers."""
FRONT = 4
"""So many of them are open; the others are folded."""
PRINTED_EXAMPLES = 3
"""Prompts of each language that paper shows; the page shows as many as the config asks for."""


# -- models ------------------------------------------------------------------------------------------------------------


def describe_model(model: str, tables: Tables, config: Json) -> Json:
    """What is known of a model: its entry in the config, its size and how it was recorded."""
    recordings, thresholds = table_of(tables, "recordings", model), table_of(tables, "thresholds", model)
    settings = config["models"][model]
    sources = {"hub": settings.get("id"), "folder": settings.get("path"), "published": "published files of others"}
    source = sources.get(settings["source"], "trained in this run")
    known: Json = {"source": source, "revision": settings.get("revision")}
    for table, columns in (
        (recordings, ("architecture", "dtype", "device", "engine", "torch", "transformers", "window")),
        (thresholds, ("layers", "neurons_per_layer")),
    ):
        found = {column: table[column].iloc[0] if column in table and len(table) else None for column in columns}
        known |= {column: None if pd.isna(value) else value for column, value in found.items()}
    return known


def without_neurons(name: str, model: str, tables: Tables, config: Json) -> list[str]:
    """The languages of which the selection that a variant uses has no neurons."""
    rows = table_of(tables, "neurons", model)
    if rows.empty:
        return []
    none = (rows["method"] == variants.selection(config, name)) & (rows["neurons"] == 0)
    return [str(language) for language in rows.loc[none, "language"]]


# -- perplexity --------------------------------------------------------------------------------------------------------


def perplexity_table(rows: pd.DataFrame, languages: Sequence[str]) -> Json:
    """Perplexity and ratio of every perturbation: one row each, the languages of the run and others read as columns."""
    languages = list(dict.fromkeys([*languages, *rows["language"]]))
    cells = rows.set_index(["perturbation", "language"])[["perplexity", "ratio"]]
    table = [
        {
            "perturbation": name,
            **{what: [_at(cells[what], (name, key)) for key in languages] for what in ("perplexity", "ratio")},
        }
        for name in dict.fromkeys(rows["perturbation"])
    ]
    return {"languages": languages, "rows": table}


# -- answers -----------------------------------------------------------------------------------------------------------


def text_tables(rows: pd.DataFrame, config: Json, success: pd.DataFrame) -> list[Json]:
    """The replication's tables: a row per prompt language; unperturbed, every variant and language as columns.

    Of random variants, the mean over the draws. Measures that the table does not have are left out.

    Args:
        rows: measures of answers, by perturbation and language of the prompt, of one model.
        config: of the run.
        success: of the same model, the table of steering; of many steering variants the best are shown.
    """
    languages = config["run"]["languages"]
    rows = choices.answered(rows, *findings.settings_of(config), success, choices.MOST_STEERING)
    names = [name for name in dict.fromkeys(rows["variant"]) if name != variants.BASELINE]
    kinds = dict(zip(rows["variant"], rows["kind"], strict=True))
    baseline = rows[rows["kind"] == "none"].set_index("language")
    means = rows[rows["kind"] != "none"].groupby(["variant", "edited_language", "language"])
    tables = []
    for metric, title, form in TEXT_METRICS:
        if metric not in rows:
            continue
        mean = means[metric].mean()
        body = []
        for language in languages:
            cells = [
                {"value": _at(mean, (variant, edited, language)), "own": edited == language}
                for variant in names
                for edited in languages
            ]
            body.append({"language": language, "baseline": _at(baseline[metric], language), "cells": cells})
        groups = [_heading(variant, kinds[variant], config) for variant in names]
        tables.append({"title": title, "format": form, "groups": groups, "languages": languages, "rows": body})
    return tables


def _heading(variant: str, kind: str, config: Json) -> str:
    """Title of the columns of a variant, over the codes of the languages whose neurons are edited."""
    settings = config["perturbations"].get(variant, {})
    controlled = variants.controlled(config, variant) if settings else []
    steers = any(config["perturbations"][name]["kind"] == variants.STEER for name in controlled)
    words = {"deactivate": "neurons off, those of", "steer": "steered to"}
    if kind == variants.RANDOM:
        return f"{variant}: mean of draws {'for the target' if steers else 'matched to'}"
    return f"{variant}: {words.get(kind, 'neurons edited, those of')}"


def share_table(rows: pd.DataFrame, config: Json, success: pd.DataFrame) -> Json:
    """Shares of the answers' languages: one row per perturbation and language of the prompt."""
    rows = choices.answered(rows, *findings.settings_of(config), success, choices.MOST_STEERING)
    shares, names = language_shares(rows, config["run"]["languages"])
    table = [
        {"label": label, "language": language, "shares": list(row)}
        for (label, language), row in zip(shares.index, shares.to_numpy(), strict=True)
    ]
    return {"names": names, "rows": table}


def stop_word_rows(rows: pd.DataFrame, config: Json, success: pd.DataFrame) -> Json:
    """Stop words of every list in the answers, by perturbation, language of the prompt and language of the answer.

    Of the unperturbed answers and of what switches off or on, without random draws. `without`: the languages of the run
    that no prompt is in.
    """
    languages = config["run"]["languages"]
    without = [language for language in languages if language not in set(rows["language"])]
    rows = choices.answered(rows, *findings.settings_of(config), success, choices.MOST_STEERING)
    rows = rows[rows["kind"] != variants.RANDOM]
    lists = list(dict.fromkeys(rows["list"]))
    table = []
    for (perturbation, language, found), group in rows.groupby(
        ["perturbation", "language", "output_language"], sort=False
    ):
        ratios = group.set_index("list")["ratio"]
        about = {"perturbation": perturbation, "language": language, "output_language": found}
        own = [name == found for name in lists]
        table.append(
            about | {"outputs": group["outputs"].iloc[0], "ratios": [_at(ratios, name) for name in lists], "own": own}
        )
    return {"lists": lists, "rows": table, "without": without}


def examples(texts: pd.DataFrame, config: Json, success: pd.DataFrame) -> list[Json]:
    """The first prompts of each language, with the answers of some perturbations side by side."""
    result = []
    answers = texts.set_index(["perturbation", "language", "id"])
    for language in config["run"]["languages"]:
        own = texts[texts["language"] == language]
        asked = own[own["perturbation"] == own["perturbation"].iloc[0]] if len(own) else own  # the baseline, if any
        prompts = asked.head(config["report"]["examples"]).to_dict("records")
        perturbations = shown_perturbations(language, config, success)
        for number, prompt in enumerate(prompts, 1):
            shown = []
            for title, perturbation in perturbations:
                key = (perturbation, language, prompt["id"])
                if key in answers.index:
                    shown.append({"title": title, "perturbation": perturbation, **_answer(answers.loc[key].to_dict())})
            about = {"language": language, "number": number, "id": prompt["id"], "input": optional(prompt["input"])}
            result.append(about | {"answers": shown})
        if own.empty:
            said = f"There are no answers to prompts in {language}."
            result.append({"language": language, "number": 1, "id": "–", "input": said, "answers": []})
    return result


def _answer(row: Json) -> Json:
    """An answer, its missing values in words that can be shown."""
    same = row.get("identical_to_baseline")
    return row | {
        "output": "(no answer)" if pd.isna(row["output"]) else row["output"],
        "output_language": optional(row["output_language"]) or "–",
        "identical_to_baseline": not pd.isna(same) and bool(same),
    }


def shown_perturbations(language: str, config: Json, success: pd.DataFrame) -> list[tuple[str, str]]:
    """Title and id of the perturbations side by side: none, own neurons off, steered to another language, controls."""
    table, default = findings.settings_of(config)
    answered = [name for name in config["run"]["perturbations"] if ANSWERS in config["perturbations"][name]["measure"]]
    off = [name for name in choices.deactivating(table, default) if name in answered][:1]
    on = [name for name in choices.steering(table, success) if name in answered]
    result = [("Not perturbed", variants.BASELINE)]
    for variant in off:
        result += [(f"Neurons of {language} off", _member(config, variant, language, None))]
        controls = [name for name in choices.controls(table, [variant], "layer") if name in answered][:1]
        title = f"As many random neurons as {language} has, off"
        result += [(title, _member(config, control, language, None)) for control in controls]
    for variant in on:
        settings = config["perturbations"][variant]
        target = _target(config, variant, language)
        result.append((f"Steered to {target}: {variant}", _member(config, variant, target, language)))
        what = "random directions" if settings["site"] == variants.RESIDUAL else "random neurons"
        controls = [name for name in choices.controls(table, [variant]) if name in answered][:1]
        result += [
            (f"The same with {what}: {control}", _member(config, control, target, language)) for control in controls
        ]
    return [(title, perturbation) for title, perturbation in result if perturbation]


def _target(config: Json, variant: str, language: str) -> str:
    """The next language of the run that a variant steers to; empty if it steers to no other."""
    languages = config["run"]["languages"]
    place = languages.index(language)
    targets = {member.language for member in variants.members(config, variant)}
    return next((name for name in languages[place + 1 :] + languages[:place] if name in targets), "")


def _member(config: Json, variant: str, language: str, source: str | None) -> str:
    """The perturbation of a variant for a language, of several draws the first; empty if there is none."""
    for member in variants.members(config, variant):
        if member.language == language and member.source in (None, source) and member.draw in (None, 1):
            return member.id
    return ""


# -- neurons, the audit, published numbers, the proof of effect --------------------------------------------------------


def records(name: str, tables: Tables, config: Json) -> list[Json]:
    """All rows of a table of the models of the run; with a row without numbers for every language that is missing."""
    table = tables[name]
    rows = table[table["model"].isin(config["run"]["models"])].to_dict("records") if "model" in table else []
    by = [key for key in ("model", "method") if key in table]
    return completed(rows, config["run"]["languages"], by) if "language" in table else rows


def completed(rows: Sequence[Json], languages: Sequence[str], by: Sequence[str]) -> list[Json]:
    """Behind every group of rows, one without numbers for each language that it lacks; a published mask has its own."""
    groups: dict[tuple[Any, ...], list[Json]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    result = []
    for name, group in groups.items():
        there = {row["language"] for row in group}
        nothing = dict.fromkeys(group[0], NAN) | dict(zip(by, name, strict=True))
        lacking = [language for language in languages if language not in there and PUBLISHED not in name]
        result += [*group, *(nothing | {"language": language} for language in lacking)]
    return result


def overlaps_of_methods(rows: pd.DataFrame) -> list[Json]:
    """Pairs of selections of one language."""
    return rows[rows["language"] == rows["other_language"]].to_dict("records")


def replication_of(rows: pd.DataFrame) -> Json:
    """Published numbers beside ours: whose, what agrees in sentences by source, and the rows that could be compared."""
    parts = agreement.summarise(rows)
    compared = rows[rows["ours"].notna()].to_dict("records")
    agrees = [None if pd.isna(row["agrees"]) else bool(row["agrees"]) for row in compared]
    return {
        "reference": rows["reference"].iloc[0],
        "parts": [part for part in parts if part["compared"]],
        "absent": [part["sentence"] for part in parts if not part["compared"]],
        "rows": [row | {"agrees": agreed} for row, agreed in zip(compared, agrees, strict=True)],
    }


def audits(tables: Tables, config: Json) -> Json:
    """By model: findings that need attention, `open`, the gravest first, and the checks that passed."""
    order = ("fatal", "warning", "note")
    result = {}
    for model in config["run"]["models"]:
        rows = table_of(tables, "audit", model).to_dict("records")
        attention = [row for severity in order for row in rows if row["severity"] == severity]
        if rows:
            result[model] = {"open": attention, "passed": [row for row in rows if row["severity"] == "passed"]}
    return result


def summarise_effects(tables: Tables, config: Json) -> list[Json]:
    """Per model: how many edits were verified, the largest error, the smallest change, and what was noted.

    Perturbations without neurons, `empty`, and with a number of them that is not known are counted apart.
    """
    result = []
    for model in config["run"]["models"]:
        effects = table_of(tables, "effects", model)
        if effects.empty:
            continue
        edited = effects[effects["edited_neurons"] > 0]
        noted = effects[effects["note"].notna()] if "note" in effects else effects.iloc[:0]
        result.append(
            {
                "model": model,
                "edits": len(edited),
                "empty": int((effects["edited_neurons"] == 0).sum()),
                "unknown": int(effects["edited_neurons"].isna().sum()),
                "largest_error": edited["largest_error"].max(),
                "smallest_change": edited["largest_change"].min(),
                "smallest_logits_change": edited["logits_change"].min(),
                "notes": [f"{row.perturbation}: {row.note}" for row in noted.itertuples()],
                "rows": effects.to_dict("records"),
            }
        )
    return result


def _at(series: pd.Series, key: Any) -> float:
    return float(series.loc[key]) if key in series.index else float("nan")
