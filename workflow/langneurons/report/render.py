"""The report: one self-contained HTML page, made of tables, figures and generated texts.

Everything between reading and writing is pure: `render` turns values into text. Generated texts are untrusted: the
template escapes every value, and control characters are made visible.
"""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from langneurons import artifacts, variants
from langneurons import config as experiment
from langneurons.report import agreement, findings, formats
from langneurons.report.findings import Tables, language_shares, read_csv
from langneurons.report.looks import GRID, INK, MUTED, PAPER
from langneurons.report.references import SOURCES

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
LIBRARIES = (
    "numpy",
    "pandas",
    "scipy",
    "lingua-language-detector",
    "stopwordsiso",
    "matplotlib",
    "jinja2",
    "snakemake",
)
TEXT_METRICS = (
    ("mean_characters", "Mean length of the answers (characters)", "fixed1"),
    ("stop_word_ratio", "Stop-word ratio (of the prompt's language)", "fixed3"),
    ("prompt_language", "Answers in the prompt's language", "percent"),
    ("identical_to_baseline", "Answers identical to the unperturbed ones", "percent"),
    ("empty", "Empty answers", "percent"),
)
DARK = {INK: "#e3e6ea", MUTED: "#9ea8b3", GRID: "#353c45", PAPER: "#15181c"}
"""What the figures' four neutral colours become in the dark, like those of the style sheet."""


@dataclass(frozen=True)
class Inputs:
    """All that the page shows. Whatever is missing is said to be missing."""

    config: Json
    tables: Tables = field(default_factory=dict)
    """By name, as `tables.make_tables` made them."""
    figures: dict[str, dict[str, str]] = field(default_factory=dict)
    """SVG text by model and name."""
    texts: dict[str, pd.DataFrame] = field(default_factory=dict)
    """By model: one row per answer."""
    timings: pd.DataFrame = field(default_factory=pd.DataFrame)
    """`rule, job, seconds, megabytes`."""
    provenance: Json = field(default_factory=dict)
    """`date, commit, changed, versions`."""


# -- reading -----------------------------------------------------------------------------------------------------------


def read(results: Path, config: Json) -> Inputs:
    """Read what there is of a run."""
    models = config["run"]["models"]
    found = {model: results / model / "metrics" / "text.parquet" for model in models}
    return Inputs(
        config=config,
        tables={path.stem: read_csv(path) for path in sorted((results / "tables").glob("*.csv"))},
        figures={
            model: {
                path.stem: path.read_text(encoding="utf-8")
                for path in sorted((results / "figures" / model).glob("*.svg"))
            }
            for model in models
        },
        texts={model: artifacts.read_table(path, "text-metrics")[0] for model, path in found.items() if path.exists()},
        timings=read_timings(results / "timings", models),
        provenance=provenance(),
    )


def read_timings(folder: Path, models: list[str]) -> pd.DataFrame:
    """Snakemake's benchmark files, `<rule>.tsv` or `<rule>/<model>….tsv`, as `rule, job, seconds, megabytes`.

    Files of other models are from another run.
    """
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        inside = path.relative_to(folder)
        if len(inside.parts) > 1 and inside.parts[1].partition(".")[0] not in models:
            continue
        try:
            table = pd.read_csv(path, sep="\t")
        except (pd.errors.EmptyDataError, pd.errors.ParserError):
            continue
        if not {"s", "max_rss"} <= set(table):
            continue
        numbers = table[["s", "max_rss"]].apply(pd.to_numeric, errors="coerce")
        job = inside.stem if len(inside.parts) > 1 else ""
        rule = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        rows += [{"rule": rule, "job": job, "seconds": row.s, "megabytes": row.max_rss} for row in numbers.itertuples()]
    return pd.DataFrame(rows, columns=["rule", "job", "seconds", "megabytes"])


def provenance(root: Path = ROOT) -> Json:
    """When, from which commit and with which versions the page is made."""
    versions = {"python": python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit, changed = git_commit(root)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit,
        "changed": changed,
        "versions": versions,
    }


def git_commit(root: Path) -> tuple[str, bool]:
    """The commit of a repository and whether files differ from it; `unknown` if `root` is not the root of one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", str(root), *arguments), capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown", False
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


# -- rendering ---------------------------------------------------------------------------------------------------------


def render(inputs: Inputs, template: Path, style: str) -> str:
    """The page.

    Args:
        inputs: what it shows.
        template: the Jinja2 template.
        style: the style sheet, put into the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        finalize=formats.shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= formats.FILTERS | {"enumerated": findings.join}
    config, tables = inputs.config, inputs.tables
    comparisons = findings.compare(tables, config)
    context = {
        "config": config,
        "config_text": yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=100),
        "provenance": inputs.provenance,
        "style": Markup(style),
        "figures": {
            model: {name: embed(svg) for name, svg in drawn.items()} for model, drawn in inputs.figures.items()
        },
        "comparisons": comparisons,
        "sentences": {
            model: findings.sentences(model, comparisons, tables, config) for model in config["run"]["models"]
        },
        "models": {model: findings.describe_model(model, tables, config) for model in config["run"]["models"]},
        "records": {name: table.to_dict("records") for name, table in tables.items()},
        "perplexities": {model: perplexity_table(rows) for model, rows in _by_model(tables, "perplexity")},
        "text_tables": {model: text_tables(rows, config) for model, rows in _by_model(tables, "text")},
        "shares": {model: share_table(rows, config) for model, rows in _by_model(tables, "output_languages")},
        "examples": {model: examples(texts, config) for model, texts in inputs.texts.items()},
        "effects": findings.summarise_effects(tables, config),
        "overlaps": {model: overlaps_of_methods(rows) for model, rows in _by_model(tables, "overlaps")},
        "audits": findings.audits(tables, config),
        "replications": {model: replication_of(rows) for model, rows in _by_model(tables, "replication")},
        "sources": SOURCES,
        **_presence(config),
        "timings": summarise_timings(inputs.timings),
    }
    return environment.get_template(template.name).render(context)


def _presence(config: Json) -> dict[str, Any]:
    """The models that ran here, those that others ran, and what there is of them."""
    models = config["run"]["models"]
    own = [model for model in models if config["models"][model]["source"] != experiment.PUBLISHED]
    theirs = [model for model in models if model not in own]
    there = {model: experiment.contents(config, model) for model in models}
    return {
        "own": own,
        "theirs": theirs,
        "unanswered": [model for model in theirs if not there[model]["answered"]],
        "selected": [model for model in models if there[model]["methods"]],
        "left_out": {model: _left_out(there[model], config) for model in theirs},
        "unused": {model: _unused(model, config) for model in theirs},
    }


def _left_out(there: Json, config: Json) -> list[str]:
    """What the files of a published model do not hold of this run."""
    parts = [] if there["recorded"] else ["recordings"]
    parts += [] if experiment.PUBLISHED in there["methods"] else ["a neuron mask"]
    parts.append("perplexity")
    if not there["answered"]:
        return [*parts, "answers"]
    parts += [] if variants.BASELINE in there["answered"] else ["answers of the unperturbed model"]
    for variant in config["run"]["perturbations"]:
        if not set(variants.member_ids(config, variant)) & set(there["answered"]):
            parts.append(f"answers under {variant}")
    return parts


def _unused(model: str, config: Json) -> list[str]:
    """Variants whose answers a published model has, but which this run does not name."""
    given = config["models"][model].get("generations", {})
    return [name for name in given if name not in (variants.BASELINE, *config["run"]["perturbations"])]


def _by_model(tables: Tables, name: str) -> Iterable[tuple[str, pd.DataFrame]]:
    table = tables.get(name, pd.DataFrame())
    return [] if table.empty else [(str(model), rows) for model, rows in table.groupby("model", sort=False)]


def embed(svg: str) -> Json:
    """An SVG figure as a data URI that follows the reader's light or dark scheme, and its natural width in pixels."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    themed = re.sub(
        r"(<svg\b[^>]*>)", rf"\1<style>@media (prefers-color-scheme: dark){{{rules}}}</style>", svg, count=1
    )
    width = re.search(r'<svg\b[^>]*?\swidth="([\d.]+)pt"', svg)
    data = base64.b64encode(themed.encode("utf-8")).decode("ascii")
    return {"uri": f"data:image/svg+xml;base64,{data}", "width": round(float(width[1]) * 4 / 3) if width else 720}


def perplexity_table(rows: pd.DataFrame) -> Json:
    """Perplexity and ratio of every perturbation: one row each, the languages read as columns."""
    languages = list(dict.fromkeys(rows["language"]))
    cells = rows.set_index(["perturbation", "language"])[["perplexity", "ratio"]]
    table = [
        {
            "perturbation": name,
            **{what: [_at(cells[what], (name, key)) for key in languages] for what in ("perplexity", "ratio")},
        }
        for name in dict.fromkeys(rows["perturbation"])
    ]
    return {"languages": languages, "rows": table}


def text_tables(rows: pd.DataFrame, config: Json) -> list[Json]:
    """The replication's tables: a row per prompt language; unperturbed, every variant and language as columns.

    Of random variants, the mean over the draws.
    """
    languages = config["run"]["languages"]
    names = [name for name in dict.fromkeys(rows["variant"]) if name != variants.BASELINE]
    kinds = dict(zip(rows["variant"], rows["kind"], strict=True))
    baseline = rows[rows["kind"] == "none"].set_index("language")
    means = rows[rows["kind"] != "none"].groupby(["variant", "edited_language", "language"])
    tables = []
    for metric, title, form in TEXT_METRICS:
        mean = means[metric].mean()
        body = []
        for language in languages:
            cells = [
                {"value": _at(mean, (variant, edited, language)), "own": edited == language}
                for variant in names
                for edited in languages
            ]
            body.append({"language": language, "baseline": _at(baseline[metric], language), "cells": cells})
        groups = [findings.heading(variant, kinds[variant]) for variant in names]
        tables.append({"title": title, "format": form, "groups": groups, "languages": languages, "rows": body})
    return tables


def overlaps_of_methods(rows: pd.DataFrame) -> list[Json]:
    """Pairs of selections of one language."""
    return rows[rows["language"] == rows["other_language"]].to_dict("records")


def replication_of(rows: pd.DataFrame) -> Json:
    """Published numbers beside ours: whose, what agrees in sentences by source, and the rows that could be compared."""
    parts = agreement.summarise(rows)
    compared = rows[rows["ours"].notna()].astype({"agrees": "boolean"})
    return {
        "reference": rows["reference"].iloc[0],
        "parts": [part for part in parts if part["compared"]],
        "absent": [part["sentence"] for part in parts if not part["compared"]],
        "rows": compared.to_dict("records"),
    }


def share_table(rows: pd.DataFrame, config: Json) -> Json:
    """Shares of the answers' languages: one row per perturbation and language of the prompt."""
    shares, names = language_shares(rows, config["run"]["languages"])
    table = [
        {"label": label, "language": language, "shares": list(row)}
        for (label, language), row in zip(shares.index, shares.to_numpy(), strict=True)
    ]
    return {"names": names, "rows": table}


def _at(series: pd.Series, key: Any) -> float:
    return float(series.loc[key]) if key in series.index else float("nan")


# -- examples ----------------------------------------------------------------------------------------------------------


def examples(texts: pd.DataFrame, config: Json) -> list[Json]:
    """The first prompts of each language, with the answers of some perturbations side by side."""
    result = []
    answers = texts.set_index(["perturbation", "language", "id"])
    for language in config["run"]["languages"]:
        own = texts[texts["language"] == language]
        asked = own[own["perturbation"] == own["perturbation"].iloc[0]] if len(own) else own  # the baseline, if any
        for _, prompt in asked.head(config["report"]["examples"]).iterrows():
            shown = []
            for title, perturbation in shown_perturbations(language, config):
                key = (perturbation, language, prompt["id"])
                if key in answers.index:
                    shown.append({"title": title, "perturbation": perturbation, **answers.loc[key].to_dict()})
            result.append({"language": language, "id": prompt["id"], "input": prompt["input"], "answers": shown})
    return result


def shown_perturbations(language: str, config: Json) -> list[tuple[str, str]]:
    """Title and id of the perturbations side by side: none, own neurons, those of another language, one random draw."""
    languages, run = config["run"]["languages"], config["run"]["perturbations"]
    other = languages[(languages.index(language) + 1) % len(languages)]
    kinds = {name: config["perturbations"][name]["kind"] for name in run}
    result = [("Not perturbed", variants.BASELINE)]
    for variant in [name for name in run if kinds[name] == "deactivate"][:1]:
        result += [(f"Neurons of {edited} off", f"{variant}-{edited}") for edited in (language, other)]
    for variant in [name for name in run if kinds[name] == "random"][:1]:
        result.append((f"As many random neurons as {language} has, off", f"{variant}-{language}-1"))
    return result


def summarise_timings(timings: pd.DataFrame) -> list[Json]:
    """Per rule: jobs, seconds in total and of the longest job, and the peak memory of a job."""
    if timings.empty:
        return []
    rows = []
    for rule, group in timings.groupby("rule", sort=False):
        longest = group.loc[group["seconds"].idxmax()] if group["seconds"].notna().any() else group.iloc[0]
        total = group["seconds"].sum(min_count=1)
        row = {"rule": rule, "jobs": len(group), "total": total, "longest": longest["seconds"], "job": longest["job"]}
        rows.append(row | {"megabytes": group["megabytes"].max()})
    return sorted(rows, key=lambda row: -1.0 if pd.isna(row["total"]) else row["total"], reverse=True)
