"""Runs to put side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import artifacts
from langneurons.report import comparison, comparison_page
from langneurons.report.runs import Run
from unit.report_cases import ROOT, Page, all_tables, config_of, differences, perplexity

TEMPLATE = ROOT / "report" / "templates" / "comparison.html.j2"
NEURONS = pd.DataFrame(
    {"language": ["en", "en", "en", "de", "de"], "layer": [0, 0, 1, 1, 1], "neuron": [1, 2, 3, 4, 5]}
)


def tables(own: float = 1.5, **others: pd.DataFrame) -> dict[str, pd.DataFrame]:
    ratios = perplexity(own)
    return all_tables() | {"perplexity": ratios, "differences": differences(ratios)} | others


def run_of(name: str = "a", own: float = 1.5, **others: Any) -> Run:
    return Run(name, tables(own), **({"config": config_of()} | others))


def write(folder: Path, run: Run) -> Path:
    """A results folder of a run."""
    for name, table in run.tables.items():
        artifacts.write_text(folder / "tables" / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    if run.config is not None:
        artifacts.write_text(folder / "config.json", json.dumps(run.config))
    for (model, method), table in run.neurons.items():
        artifacts.write_table(folder / model / "neurons" / f"{method}.parquet", "neurons", table)
    return folder


def page_of(a: Run, b: Run) -> tuple[Page, str]:
    html = comparison_page.render(a, b, comparison.compare(a, b), comparison.neuron_sets(a, b), TEMPLATE)
    return Page(html), html
