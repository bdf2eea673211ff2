"""What fits on one screen: both answers for every model, with intervals, and what the audit found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from langneurons import variants
from langneurons.metrics.steering import ALL
from langneurons.report.findings import Tables, table_of
from langneurons.report.formats import ratio_interval, share_interval
from langneurons.report.questions import RQ1, RQ2, Answer, control_words
from langneurons.report.views import without_neurons

Json = dict[str, Any]

SEVERITIES = {"fatal": ("fatal", "fatal"), "warning": ("warning", "warnings"), "note": ("note", "notes")}
"""Of one finding, and of another number."""


def glance(answers: Sequence[Answer], tables: Tables, config: Json) -> list[Json]:
    """A card per model.

    Args:
        answers: as `questions.answers` gives them.
        tables: `differences`, `steering` and `audit`, by name.
        config: validated, as `config.reported` gives it.

    Returns:
        By model: `model`; `off` and `on`, each with `supported`, and `figures` as pairs of words and number, or None
        where nothing was measured; `audit`, as pairs of severity and number of findings, or None without an audit.
    """
    verdicts = {(answer.question, answer.model): answer.supported for answer in answers}
    cards = []
    for model in config["run"]["models"]:
        off, on = _off(model, tables, config), _on(model, tables, config)
        cards.append(
            {
                "model": model,
                "off": off and {"figures": off, "supported": verdicts.get((RQ1, model))},
                "on": on and {"figures": on, "supported": verdicts.get((RQ2, model))},
                "audit": _audit(table_of(tables, "audit", model)),
            }
        )
    return cards


def _off(model: str, tables: Tables, config: Json) -> list[tuple[str, str]] | None:
    """By language: the perplexity of its text with its neurons off, as a multiple of the unperturbed model's."""
    table = table_of(tables, "differences", model)
    if table.empty:
        return None
    table = table[(table["measure"] == "perplexity") & (table["against"] == variants.BASELINE)]
    table = table[table["language"] == table["edited_language"]]
    for name in config["run"]["perturbations"]:
        rows = table[table["variant"] == name]
        if config["perturbations"][name]["kind"] == variants.DEACTIVATE and len(rows):
            measured = {str(row["language"]): ratio_interval(row) for row in rows.to_dict("records")}
            targets = dict.fromkeys(member.language for member in variants.members(config, name))
            shown = dict.fromkeys(targets, "not measured") | measured
            return list((shown | dict.fromkeys(without_neurons(name, model, tables, config), "no neurons")).items())
    return None


def _on(model: str, tables: Tables, config: Json) -> list[tuple[str, str]] | None:
    """Answers in the target language: steered by neurons, by their control, and unperturbed. Of several variants that
    steer, the most successful."""
    table = table_of(tables, "steering", model)
    if table.empty:
        return None
    together = table[table["language"] == ALL].set_index("variant")
    catalogue = config["perturbations"]
    steered = [
        name
        for name in config["run"]["perturbations"]
        if catalogue[name]["kind"] == variants.STEER and catalogue[name]["site"] != variants.RESIDUAL
    ]
    steered = [name for name in steered if name in together.index]
    if not steered:
        return None
    best = max(steered, key=lambda name: float(together["share"].fillna(-1.0).loc[name]))
    figures = [(f"steered ({best})", share_interval(together.loc[best]))]
    controls = [name for name in config["run"]["perturbations"] if best in variants.controlled(config, name)]
    shown = [(control_words(name, config), name) for name in controls] + [("unperturbed", variants.BASELINE)]
    return figures + [(words, share_interval(together.loc[name])) for words, name in shown if name in together.index]


def _audit(rows: pd.DataFrame) -> list[tuple[str, int]] | None:
    """How many findings there are of each severity, the gravest first."""
    if rows.empty:
        return None
    counts = rows["severity"].value_counts()
    numbers = {severity: int(counts.get(severity, 0)) for severity in SEVERITIES}
    return [(SEVERITIES[severity][number != 1], number) for severity, number in numbers.items()]
