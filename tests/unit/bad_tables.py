"""The fullest case of a report, and what can be wrong with one of its tables."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.text import Text

from langneurons.report import figures, findings
from unit import test_figures
from unit.report_cases import (
    CATALOGUE,
    LANGUAGES,
    Page,
    all_tables,
    answers,
    config_of,
    neurons,
    page_of,
    steering,
    text_metrics,
    variant_settings,
)

RUN = {"models": ["tiny"], "languages": LANGUAGES, "perturbations": [*CATALOGUE]}
SHARES = {"none": 0.05, "steer": 0.6, "random-steer": 0.1, "steer-residual": 0.9}
KEPT = {"layer", "draw", "agrees"}
"""Columns of numbers that tell rows apart, and one of truth values."""
NO_NUMBER = re.compile(r"(?<![\w-])(?:nan|NaN|NaT|<NA>|inf|None(?! of))(?!\w)")
"""How Python and pandas write what is no number, as no reader should see it."""
SVG = '<svg width="540pt" height="100pt" xmlns="http://www.w3.org/2000/svg"><g/></svg>'


@cache
def complete_config() -> dict[str, Any]:
    """A run of every kind of variant, whose numbers are put beside published ones."""
    model = {"source": "demo", "architecture": "llama", "replicates": "mgpt"}
    return config_of(run=RUN, perturbations=CATALOGUE, models={"tiny": model})


@cache
def complete() -> dict[str, pd.DataFrame]:
    """Every table that the workflow makes, as it is read from its file."""
    tables = all_tables()
    both = {name: [table, table.assign(method="probe")] for name, table in neurons().items()}
    tables |= {name: pd.concat(parts, ignore_index=True) for name, parts in both.items()}
    tables["overlaps"] = test_figures.overlaps(LANGUAGES, ("lape", "probe")).assign(model="tiny", expected=0.5)
    tables["neurons_by_layer"] = test_figures.by_layer(LANGUAGES, 4, ("lape", "probe")).assign(model="tiny")
    tables["variants"] = variant_settings()
    tables["steering"] = steering(SHARES)
    shares = tables["output_languages"]
    tables["output_languages"] = shares.drop(columns=[*shares.columns.intersection(text_metrics().columns[7:])])
    for name in ("perplexity", "text", "output_languages"):
        tables[name] = with_others(tables[name], name == "perplexity")
    checks = {"padding": "warning", "budgets": "note", "counts": "passed"}
    audit = [{"check": check, "severity": severity, "cell": None} for check, severity in checks.items()]
    tables["audit"] = pd.DataFrame(audit).assign(model="tiny", sentence="Something was seen.")
    published = {"mean_characters": (953.471, 953.471, 0.0, True), "stop_word_ratio": (0.366, 0.368, 0.002, False)}
    rows = [(quantity, *numbers) for quantity, numbers in published.items()]
    columns = ["quantity", "theirs", "ours", "difference", "agrees"]
    about = {"reference": "mgpt", "source": "replication", "perturbation": "none", "language": "en", "decimals": 3}
    tables["replication"] = pd.DataFrame(rows, columns=columns).assign(model="tiny", **about)
    return {name: reread(table) for name, table in tables.items()}


def with_others(table: pd.DataFrame, read: bool) -> pd.DataFrame:
    """The same measured under other rates, or of answers under steering."""
    off = table[table["variant"] == "deactivate"]
    names = {"deactivate-rate-0.01": "deactivate", "deactivate-rate-0.1": "deactivate"} if read else {"steer": "steer"}
    others = [
        off.assign(variant=name, kind=kind, perturbation=off["perturbation"].str.replace("deactivate", name))
        for name, kind in names.items()
    ]
    return pd.concat([table, *others], ignore_index=True)


def reread(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it comes back from its file."""
    text = table.to_csv(index=False, lineterminator="\n")
    types = dict.fromkeys(findings.TEXT_COLUMNS, "str")
    return pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, na_values=[""])


def metrics(name: str) -> list[str]:
    """The columns of numbers of a table."""
    table = complete()[name]
    return [column for column in table if pd.api.types.is_numeric_dtype(table[column]) and column not in KEPT]


def with_value(name: str, columns: list[str], value: float = math.nan, where: str = "all") -> pd.DataFrame:
    """A table with this value in columns, in `all` rows or in `one`."""
    table = complete()[name].astype(dict.fromkeys(columns, float))
    table.loc[table.index if where == "all" else first_rows(table), columns] = value
    return reread(table)


def first_rows(table: pd.DataFrame) -> pd.Index:
    """The first row of an edit; else the first of every kind of rows, such as of one layer and of all."""
    if "variant" in table:
        return table.index[table["variant"].isin(["deactivate", "steer"])][:1]
    if {"language", "other_language"} <= set(table):
        return (table["language"] == table["other_language"]).drop_duplicates().index
    return table["layer"].isna().drop_duplicates().index if "layer" in table else table.index[:1]


def page_with(config: dict[str, Any] | None = None, **changed: pd.DataFrame | None) -> Page:
    """The page of the full case, some tables changed or (None) missing, and every figure there."""
    tables = {name: table for name, table in (complete() | changed).items() if table is not None}
    drawn = {"tiny": dict.fromkeys(figures.FIGURES, SVG)}
    timings = pd.DataFrame({"rule": ["generate"], "job": [""], "seconds": [3.0], "megabytes": [100.0]})
    parts = {"figures": drawn, "texts": {"tiny": answers()}, "timings": timings}
    return page_of(tables=tables, config=config or complete_config(), **parts)[0]


@cache
def intact() -> Page:
    """The page of the full case."""
    return page_with()


def shown_as_numbers(page: Page) -> list[str]:
    """Places of the page that show what is no number."""
    return [
        f"{section}: …{text[max(found.start() - 40, 0) : found.end() + 20]}"
        for section, text in page.sections.items()
        for found in NO_NUMBER.finditer(text)
    ]


def drawn(name: str, **changed: pd.DataFrame) -> list[str]:
    """The visible texts of a figure of the full case, some tables changed."""
    return list(_drawn_intact(name)) if not changed else _texts_of(name, complete() | changed)


@cache
def _drawn_intact(name: str) -> tuple[str, ...]:
    return tuple(_texts_of(name, complete()))


def _texts_of(name: str, tables: dict[str, pd.DataFrame]) -> list[str]:
    """Drawn, with the ticks of its axes. It is not laid out and not saved, which takes most of the time."""
    figure = figures.FIGURES[name].draw(*rows_of_model(name, tables), LANGUAGES)
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    return list(_visible(figure))


def rows_of_model(name: str, tables: dict[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables of a figure, cut to the model as the script cuts them."""
    return [
        table[table["model"] == "tiny"] if "model" in table else table
        for table in (tables[table] for table in figures.FIGURES[name].tables)
    ]


def saved(name: str, **changed: pd.DataFrame) -> list[str]:
    """The texts of the same figure as SVG, in which matplotlib leaves each line as a comment."""
    svg = figures.plot(rows_of_model(name, complete() | changed), figures.FIGURES[name].draw, LANGUAGES)
    return re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)


def _visible(artist: Artist) -> Iterator[str]:
    if not artist.get_visible():
        return
    if isinstance(artist, Text) and artist.get_text().strip():
        yield artist.get_text()
    for part in artist.get_children():
        yield from _visible(part)
