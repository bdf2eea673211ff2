"""Results folders as they are compared: what their tables hold, and reading them.

Tables are for people and have no checksum, so that whatever is read of them is checked here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import artifacts, formats
from langneurons.errors import UserError
from langneurons.report.findings import REMADE, Tables, as_numbers, read_csv

Json = dict[str, Any]

CONFIG = "config.json"
"""The config that the report was told, in the results folder."""
REPORT = "snakemake --cores all --resources gpu=1 results/report/report.html"
"""What makes the tables and the config."""


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are. Every column that is not named here or in `ABOUT` is a metric."""

    keys: tuple[str, ...]
    texts: tuple[str, ...] = ()
    """Columns of words that say how the numbers were made."""
    needed: tuple[str, ...] = ()
    """Columns without which the table says nothing, beside the keys."""


ANSWERS = ("model", "perturbation", "language")
LAYOUTS = {
    "recordings": Layout(
        ("model", "language"),
        ("split", "architecture", "dtype", "device", "engine", "torch", "transformers", "file"),
    ),
    "neurons": Layout(("model", "method", "language")),
    "neurons_by_layer": Layout(("model", "method", "language", "layer")),
    "overlaps": Layout(("model", "method", "language", "other_method", "other_language")),
    "thresholds": Layout(("model", "method")),
    "perplexity": Layout(ANSWERS, needed=("perplexity", "ratio")),
    "text": Layout(ANSWERS, needed=("outputs",)),
    "output_languages": Layout((*ANSWERS, "output_language"), needed=("outputs", "share")),
    "effects": Layout(("model", "perturbation")),
    "variants": Layout(
        ("variant",),
        ("kind", "of", "method", "top_rate", "site", "edit", "scale", "scale_by_model", "layers", "control"),
    ),
    "differences": Layout((*ANSWERS, "measure", "against"), needed=("difference", "low", "high")),
    "steering": Layout(("model", "variant", "language", "target"), needed=("share", "low", "high")),
    "stop_words": Layout((*ANSWERS, "output_language", "list")),
    "convergence": Layout(("model", "method", "other_method", "language", "layer")),
    "stability": Layout(("model", "comparison", "language")),
    "audit": Layout(("model", "check", "cell"), texts=("severity",), needed=("severity",)),
    "replication": Layout(("model", "reference", "source", "quantity", "perturbation", "language")),
}
"""The tables that are compared, as `tables.make_tables` makes them."""
KEYS = tuple(
    dict.fromkeys(
        [
            *("model", "method", "other_method", "perturbation", "variant"),
            *(key for layout in LAYOUTS.values() for key in layout.keys),
        ]
    )
)
"""The keys of all tables, in the order in which they are named; a row has those of its table."""
ABOUT = frozenset(
    {
        *("family", "variant", "kind", "edited_language", "source_language", "draw", "draws", "unit", "samples"),
        *("note", "sentence", "low", "high", "p_value", "q_value", "reference", "value"),
        *("theirs", "decimals", "agrees", "expected"),
        "largest_error",  # rounding of the engine: no two runs on different machines have the same
    }
)
"""Columns that describe a row, or belong to one of its metrics."""


@dataclass(frozen=True)
class Run:
    """What there is of one run."""

    name: str
    """The folder, as the user gave it."""
    tables: Tables
    """By name."""
    config: Json | None = None
    """As the report was told it; None if the folder does not hold it."""
    neurons: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    """Selected neurons by model and method: `language, layer, neuron`."""
    version: str | None = None
    """Of langneurons."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what the folder lacks."""

    @property
    def models(self) -> list[str]:
        """The models of all tables, in order of appearance."""
        return list(
            dict.fromkeys(str(name) for table in self.tables.values() if "model" in table for name in table["model"])
        )


# -- reading -----------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Run:
    """Read what there is of a run.

    Args:
        folder: a results folder.

    Raises:
        UserError: no folder, no tables in it, or a file that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name a results folder, such as results, or a copy of one.")
    found = {name: folder / "tables" / f"{name}.csv" for name in LAYOUTS}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        raise UserError(
            f"{folder} has no tables (tables/*.csv): it is no results folder, or its run did not end. Where the run "
            f"was made, this makes them, with --configfile and --config as there: {REPORT}"
        )
    tables = {name: read_csv(path) for name, path in found.items()}
    absent = [name for name in LAYOUTS if name not in found]
    notes = [f"These tables are missing: {', '.join(absent)}."] if absent else []
    config, said = _read_config(folder)
    neurons, unread = _read_neurons(folder)
    return Run(str(folder), tables, config, neurons, _version(folder), [*notes, *said, *unread])


def _read_config(folder: Path) -> tuple[Json | None, list[str]]:
    """The config; or None, and a sentence that says why."""
    path = folder / CONFIG
    config: object
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, [f"There is no {CONFIG}, which says what made a folder: it is older, or its report was not made."]
    except ValueError as error:
        config = error
    if not isinstance(config, dict):
        raise UserError(
            f"{path}: is not a JSON object ({str(config)[:200]}). Delete it, to compare without it; or make it anew, "
            "where the run was made: snakemake --cores all --forcerun render_report"
        )
    return config, []


def _read_neurons(folder: Path) -> tuple[dict[tuple[str, str], pd.DataFrame], list[str]]:
    """Selected neurons by model and method, and sentences on files of other formats."""
    neurons, notes = {}, []
    for path in sorted(folder.glob("*/neurons/*.parquet")):
        model = path.parent.parent.name
        try:
            neurons[model, path.stem] = artifacts.read_table(path, "neurons")[0][["language", "layer", "neuron"]]
        except artifacts.FormatError as error:
            notes.append(f"The neurons of {model} by {path.stem} are left out: the file {error.reason}.")
    return neurons, notes


def _version(folder: Path) -> str | None:
    """The version of langneurons that wrote the folder, if it says so."""
    try:
        return str(json.loads((folder / formats.STAMP).read_text(encoding="utf-8"))["langneurons"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- tables ------------------------------------------------------------------------------------------------------------


def keyed(run: Run, name: str) -> pd.DataFrame:
    """A table whose keys are text, empty where missing; without rows if the run has no such table.

    Raises:
        UserError: a key is missing, or a row is there twice.
    """
    keys = list(LAYOUTS[name].keys)
    table = run.tables.get(name, pd.DataFrame())
    if name not in run.tables or (table.empty and not len(table.columns)):
        return pd.DataFrame(columns=keys, dtype=object)
    missing = [key for key in (*keys, *LAYOUTS[name].needed) if key not in table]
    if missing:
        raise damaged(run, name, f"has no column {missing[0]}")
    table = table.assign(**{key: as_text(table[key]) for key in keys})
    if name == "audit":  # one check may say several things of a cell
        return table.groupby(keys, sort=False)["severity"].agg(_together).reset_index()
    if table.duplicated(keys).any():
        twice = table.loc[table.duplicated(keys), keys].iloc[0]
        raise damaged(run, name, f"has two rows of {listed([value for value in twice if value])}")
    return table


def _together(found: pd.Series) -> str:
    return ", ".join(sorted(set(found.dropna().astype(str))))


def damaged(run: Run, name: str, what: str) -> UserError:
    """A table that cannot be used, with the remedy."""
    return UserError(
        f"{run.name}: the table tables/{name}.csv {what}; it is damaged, or was edited. Make it anew where the run was "
        f"made: {REMADE}"
    )


def as_text(column: pd.Series) -> pd.Series:
    """A column of keys or words as text, empty where missing."""
    if pd.api.types.is_numeric_dtype(column):  # a column with gaps is read as float, one without as int
        return column.map(lambda value: "" if pd.isna(value) else f"{value:g}").astype(object)
    return column.map(lambda value: "" if pd.isna(value) else str(value)).astype(object)


def numeric(run: Run, name: str, column: pd.Series) -> pd.Series:
    """A column of numbers as float64.

    Raises:
        UserError: there are words in it.
    """
    try:
        return as_numbers(column).astype(float)
    except ValueError as error:
        raise damaged(run, name, str(error)) from None


def cells(rows: pd.DataFrame) -> list[str]:
    """What identifies each row, its keys in a line."""
    keys = [key for key in KEYS if key in rows]
    return [" · ".join(str(value) for value in row if value) for row in rows[keys].itertuples(index=False, name=None)]


def listed(names: Sequence[str]) -> str:
    """Names in a line."""
    return ", ".join(names) or "none"
