"""The first screen of the report: both answers with their intervals, and the audit."""

from __future__ import annotations

import math

import pandas as pd

from langneurons.report import questions
from langneurons.report.glance import glance
from unit.report_cases import all_tables, config_of_kinds, differences, page_of, steering

CONFIG = config_of_kinds()
AUDIT = pd.DataFrame(
    [
        {"model": "tiny", "check": "padding", "severity": severity, "cell": None, "sentence": "Something."}
        for severity in ("warning", "note", "note", "passed")
    ]
)


def card(**tables: pd.DataFrame) -> dict:
    """The one card of the only model."""
    there = all_tables() | {"audit": AUDIT} | tables
    found = glance(questions.answers(there, CONFIG), there, CONFIG)
    assert [one["model"] for one in found] == ["tiny"]
    return found[0]


def test_perplexity_of_every_language_with_its_own_neurons_off() -> None:
    """A ratio of 1.5, and an interval of 0.1 nats to either side: 1.5 / e^0.1 = 1.357 and 1.5 x e^0.1 = 1.658."""
    assert card()["off"] == {
        "figures": [("en", "1.500 [1.357, 1.658]"), ("de", "1.500 [1.357, 1.658]")],
        "supported": True,
    }


def test_answers_beside_the_control_and_the_unperturbed_model() -> None:
    found = card()["on"]
    words, values = zip(*found["figures"], strict=True)
    assert values == ("60% [56%, 64%]", "10% [6%, 14%]", "5% [1%, 9%]")
    assert words[0] == "steered (steer)"
    assert "random-steer" in words[1]
    assert words[2] == "unperturbed"
    assert found["supported"] is True


def test_findings_are_counted() -> None:
    assert card()["audit"] == [("fatal", 0), ("warning", 1), ("notes", 2)]


def test_what_is_missing_is_none() -> None:
    empty = pd.DataFrame()
    found = card(differences=empty, steering=empty, audit=empty)
    assert (found["off"], found["on"], found["audit"]) == (None, None, None)


def test_numbers_that_are_none_are_shown_as_such() -> None:
    shares = steering({"none": math.nan, "steer": 0.6})
    table = differences().assign(low=math.nan, high=math.nan)
    found = card(differences=table, steering=shares)
    assert found["off"]["figures"][0] == ("en", "1.500")
    assert found["off"]["supported"] is False
    assert found["on"]["figures"][-1][0] == "unperturbed"
    assert found["on"]["supported"] is None


def test_the_page_begins_with_it() -> None:
    page, html = page_of(tables=all_tables() | {"audit": AUDIT}, config=CONFIG)
    words = " ".join(page.text.split())
    assert html.index('id="glance"') < html.index('id="answers"')
    assert "en 1.500 [1.357, 1.658] de 1.500 [1.357, 1.658]" in words
    assert "Audit: 0 fatal, 1 warning, 2 notes" in words
    missing = " ".join(page_of(config=CONFIG)[0].text.split())
    assert "The audit is missing: snakemake --cores all results/tables/audit.csv" in missing
