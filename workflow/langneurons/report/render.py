"""The report: one self-contained HTML page, made of tables, figures and generated texts.

Everything between reading and writing is pure: `render` turns values into text. Generated texts are untrusted: the
template escapes every value, and control characters are made visible.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
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
from langneurons.errors import ResultError
from langneurons.metrics.copying import COPIES
from langneurons.metrics.degeneration import SHORTEST_LOOP, TIMES
from langneurons.metrics.statistics import MINIMUM_SAMPLES, RESAMPLES
from langneurons.report import choices, effect_views, findings, formats, questions, views
from langneurons.report.findings import Tables, read_csv
from langneurons.report.glance import glance
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
LIMITS = {
    "copies": COPIES,
    "times": TIMES,
    "shortest_loop": SHORTEST_LOOP,
    "resamples": RESAMPLES,
    "minimum": MINIMUM_SAMPLES,
}
"""Constants that the definitions name."""
SHOWN_AS_THEY_ARE = ("recordings", "neurons", "thresholds")
"""Tables of which the page shows every row."""
DARK = {INK: "#e3e6ea", MUTED: "#9ea8b3", GRID: "#353c45", PAPER: "#15181c"}
"""What the figures' four neutral colours become in the dark, like those of the style sheet."""


@dataclass(frozen=True)
class Inputs:
    """All that the page shows. Whatever is missing is said to be missing."""

    config: Json
    tables: Tables = field(default_factory=dict)
    """By name, as `tables.make_tables` made them."""
    files: dict[str, str] = field(default_factory=dict)
    """The same tables as text, for readers who go on with them."""
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
    tables = sorted((results / "tables").glob("*.csv"))
    return Inputs(
        config=config,
        tables={path.stem: read_csv(path) for path in tables},
        files={path.stem: path.read_text(encoding="utf-8") for path in tables},
        figures={
            model: {path.stem: read_figure(path) for path in sorted((results / "figures" / model).glob("*.svg"))}
            for model in models
        },
        texts={model: artifacts.read_table(path, "text-metrics")[0] for model, path in found.items() if path.exists()},
        timings=read_timings(results / "timings", models),
        provenance=provenance(),
    )


def read_figure(path: Path) -> str:
    """An SVG figure.

    Raises:
        ResultError: the file is empty, cut off or no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text.rstrip().endswith("</svg>"):
        raise ResultError(f"{path}: is no whole figure. Make it anew: snakemake --cores all --forcerun plot_figures")
    return text


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


@cache
def environment(folder: Path) -> jinja2.Environment:
    """What turns templates of a folder into pages: every value is escaped, and a name that is not there is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        finalize=formats.shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= formats.FILTERS | {"enumerated": formats.join}
    return made


def render(inputs: Inputs, template: Path, style: str, script: str) -> str:
    """The page.

    Args:
        inputs: what it shows.
        template: the Jinja2 template.
        style: the style sheet, put into the page.
        script: what sorts and filters its tables, put into the page, whose security policy allows no other.
    """
    parts = {"style": Markup(style), **embed_script(script)}
    return environment(template.parent).get_template(template.name).render(_context(inputs) | parts)


def embed_script(script: str) -> dict[str, Any]:
    """A script as it stands between its tags, and the checksum by which a page's security policy allows it alone."""
    code = f"\n{script}"
    digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
    return {"script": Markup(code), "script_digest": digest}


def _context(inputs: Inputs) -> dict[str, Any]:
    """What the template shows, by name."""
    config, tables = inputs.config, inputs.tables
    models, languages = config["run"]["models"], config["run"]["languages"]
    by_model = partial(_by_model, tables, models)
    comparisons = findings.compare(tables, config)
    answered = questions.answers(tables, config)
    answers = [answer.shown() for answer in answered]
    steered = {model: findings.table_of(tables, "steering", model) for model in models}
    return {
        "answers": answers,
        "glance": glance(answered, tables, config),
        "above": {tuple(answer["figure"]) for answer in answers if answer["figure"]},
        "config": config,
        "config_text": yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=100),
        "provenance": inputs.provenance,
        "figures": {
            model: {name: embed(svg) for name, svg in drawn.items()} for model, drawn in inputs.figures.items()
        },
        "comparisons": comparisons,
        "run": config["run"],
        "variants": [
            row | {"measure": config["perturbations"][row["variant"]]["measure"]} for row in variants.settings(config)
        ],
        "default_methods": (config["identification"]["method"], experiment.PUBLISHED),
        "limits": LIMITS,
        "main": choices.deactivating(*findings.settings_of(config)),
        "sentences": {model: findings.sentences(model, comparisons, tables, config) for model in models},
        "models": {model: views.describe_model(model, tables, config) for model in models},
        "there": {name: set(table["model"]) if "model" in table else set() for name, table in tables.items()},
        "records": {name: views.records(name, tables, config) for name in SHOWN_AS_THEY_ARE if name in tables},
        "perplexities": {model: views.perplexity_table(rows, languages) for model, rows in by_model("perplexity")},
        "text_tables": {model: views.text_tables(rows, config, steered[model]) for model, rows in by_model("text")},
        "text_front": views.FRONT,
        "printed_examples": views.PRINTED_EXAMPLES,
        "shares": {
            model: views.share_table(rows, config, steered[model]) for model, rows in by_model("output_languages")
        },
        "stop_words": {
            model: views.stop_word_rows(rows, config, steered[model]) for model, rows in by_model("stop_words")
        },
        "examples": {model: views.examples(texts, config, steered[model]) for model, texts in inputs.texts.items()},
        "effects": views.summarise_effects(tables, config),
        "overlaps": {model: views.overlaps_of_methods(rows) for model, rows in by_model("overlaps")},
        "audits": views.audits(tables, config),
        "replications": dict.fromkeys(model for model in models if config["models"][model].get("replicates"))
        | {model: views.replication_of(rows) for model, rows in by_model("replication")},
        "differences": {
            model: effect_views.differences(rows, config, steered[model]) for model, rows in by_model("differences")
        },
        "steering": {model: effect_views.steering(model, tables, config) for model in models},
        "methods": {model: effect_views.methods(model, tables, config) for model in models},
        "stability": {model: effect_views.stability(rows, languages) for model, rows in by_model("stability")},
        "seeds": effect_views.seeds(comparisons, tables, config),
        "sources": SOURCES,
        **_presence(config),
        "timings": summarise_timings(inputs.timings),
        "downloads": {name: download(text) for name, text in inputs.files.items()},
    }


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
        "recorded": [model for model in models if there[model]["recorded"]],
        "selected": [model for model in models if there[model]["methods"]],
        "expects": {model: _expected(model, there[model], config) for model in models},
        "left_out": {model: _left_out(there[model], config) for model in theirs},
        "unused": {model: _unused(model, config) for model in theirs},
    }


def _expected(model: str, there: Json, config: Json) -> Json:
    """What the tables hold of a model, if none is missing.

    Returns:
        Whether there are effects of switching off on perplexity (`off`) and on anything (`degraded`), of switching
        neurons on (`on`), of any steering (`steered`), and of anything (`effects`); and the `tables` of the summary.
    """
    read, answered = set(there["read"]), set(there["answered"])

    def has(kind: str, measured: set[str], *, shifts: bool = True) -> bool:
        rows = {name: config["perturbations"][name] for name in config["run"]["perturbations"]}
        names = [name for name, row in rows.items() if row["kind"] == kind]
        names = [name for name in names if shifts or rows[name]["site"] != variants.RESIDUAL]
        return any(measured & set(variants.member_ids(config, name)) for name in names)

    off, steered = has(variants.DEACTIVATE, read), has(variants.STEER, answered)
    tables = ["thresholds", "neurons"] if there["methods"] else []
    tables += ["perplexity"] * off + ["text"] * bool(answered) + ["steering"] * steered
    tables += ["replication"] * bool(config["models"][model].get("replicates")) + ["audit"]
    return {
        "off": off,
        "degraded": has(variants.DEACTIVATE, read | answered),
        "on": has(variants.STEER, answered, shifts=False),
        "steered": steered,
        "effects": variants.BASELINE in read | answered and len(read | answered) > 1,
        "tables": tables,
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


def _by_model(tables: Tables, models: Sequence[str], name: str) -> list[tuple[str, pd.DataFrame]]:
    """The rows of a table, for every model of the run that has any."""
    parts = [(model, findings.table_of(tables, name, model)) for model in models]
    return [(model, rows) for model, rows in parts if len(rows)]


def embed(svg: str) -> Json:
    """An SVG figure as a data URI that follows the reader's light or dark scheme, and its natural width in pixels."""
    rules = "".join(
        f'[style*="{what}: {light}"],[{what}="{light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    themed = re.sub(
        r"(<svg\b[^>]*>)", rf"\1<style>@media (prefers-color-scheme: dark){{{rules}}}</style>", svg, count=1
    )
    width = re.search(r'<svg\b[^>]*?\swidth="([\d.]+)pt"', svg)
    data = base64.b64encode(themed.encode("utf-8")).decode("ascii")
    return {"uri": f"data:image/svg+xml;base64,{data}", "width": round(float(width[1]) * 4 / 3) if width else 720}


def download(text: str) -> Json:
    """A CSV file as a data URI, and its numbers of rows and of bytes."""
    content = text.encode("utf-8")
    uri = f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content).decode('ascii')}"
    return {"uri": uri, "rows": max(len(text.splitlines()) - 1, 0), "bytes": len(content)}


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
