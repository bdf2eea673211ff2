"""What an audit looks at, damaged files included, and what its findings are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import artifacts
from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts

Json = dict[str, Any]

FATAL, WARNING, NOTE, PASSED = "fatal", "warning", "note", "passed"
"""Fatal: the numbers cannot be true. Warning: a conclusion from them may not hold. Note: not checked, or worth knowing.
Passed: looked for and not found."""

Found = Iterator[tuple[str, str, str]]
"""Severity, cell and sentence."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    severity: str
    cell: str
    """What it is about: a language, a method, a variant or `<perturbation>/<language>`; empty for the whole model."""
    sentence: str


@dataclass(frozen=True)
class Evidence:
    """All there is of one model. What is missing is not checked, and that is said."""

    published: bool = False
    """Whether others measured it."""
    languages: list[str] = field(default_factory=list)
    perturbations: list[Json] = field(default_factory=list)
    """`id, variant, kind, language, draw` of every perturbation, the baseline first."""
    identification: Json = field(default_factory=dict)
    """`top_rate, activation_percentile`."""
    recordings: dict[str, ActivationCounts] = field(default_factory=dict)
    """By language, unchecked."""
    texts: dict[str, Json] = field(default_factory=dict)
    """What is known of the text that was recorded, by language: the metadata of its windows."""
    neurons: dict[str, tuple[pd.DataFrame, Json]] = field(default_factory=dict)
    """By method: selected neurons, and thresholds and counts."""
    text: pd.DataFrame | None = None
    """One row per answer."""
    perplexity: pd.DataFrame | None = None
    """One row per window."""
    effects: dict[str, Json] = field(default_factory=dict)
    """Proof by perturbation."""
    problems: list[str] = field(default_factory=list)
    """What could not be read."""


def read_evidence(
    folder: Path, contents: Json, perturbations: list[Json], languages: list[str], identification: Json
) -> Evidence:
    """Read whatever there is in a model's folder; what cannot be read becomes a problem.

    Args:
        folder: `results/<model>`.
        contents: what the model has, from `config.contents`.
        perturbations: from `config.describe_all`.
        languages: of the run.
        identification: that section of the config.
    """
    problems: list[str] = []

    def attempt(read: Callable[[Path], Any], path: Path) -> Any:
        try:
            return read(path)
        except (UserError, KeyError, ValueError, OSError) as error:
            problems.append(f"A file cannot be used. {error}")
            return None

    def all_of(names: list[str], read: Callable[[Path], Any], pattern: str) -> Json:
        found = {name: attempt(read, folder / pattern.format(name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def table_of(kind: str, name: str) -> pd.DataFrame | None:
        return attempt(lambda path: artifacts.read_table(path, kind)[0], folder / "metrics" / f"{name}.parquet")

    recorded, read = languages if contents["recorded"] else [], contents["read"]
    edited = [row["id"] for row in perturbations if row["kind"] != "none"] if read else []
    recordings = all_of(recorded, artifacts.read_activations_unchecked, "activations/{}.safetensors")
    return Evidence(
        published=contents["published"],
        languages=languages,
        perturbations=[row for row in perturbations if row["id"] in {*contents["answered"], *contents["read"]}],
        identification=identification,
        recordings={language: counts for language, (counts, _) in recordings.items()},
        texts={language: about.get("text", {}) for language, (_, about) in recordings.items()},
        neurons=all_of(contents["methods"], lambda path: artifacts.read_table(path, "neurons"), "neurons/{}.parquet"),
        text=table_of("text-metrics", "text") if contents["answered"] else None,
        perplexity=table_of("perplexity", "perplexity") if read else None,
        effects=all_of(edited, lambda path: artifacts.read_document(path, "effect"), "effects/{}.json"),
        problems=problems,
    )
