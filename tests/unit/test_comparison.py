"""Two runs side by side: verdicts on known numbers, settings, neurons."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from langneurons.report import comparison, comparison_page, run_settings, runs
from langneurons.report import formats as report_formats
from langneurons.report.runs import Run
from unit.comparison_cases import NEURONS, run_of
from unit.report_cases import all_tables, differences


def steering(*rows: tuple[str, float, float, float]) -> Run:
    """Variants with a share and its interval."""
    table = pd.DataFrame(rows, columns=["variant", "share", "low", "high"])
    return Run("r", {"steering": table.assign(model="m", language="all", target="all")})


def row_of(rows: pd.DataFrame, **keys: str) -> pd.Series:
    for key, value in keys.items():
        rows = rows[rows[key] == value]
    assert len(rows) == 1
    return rows.iloc[0]


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_disjoint_intervals_moved_and_overlapping_did_not() -> None:
    a = steering(
        ("apart", 0.2, 0.1, 0.3), ("near", 0.2, 0.1, 0.3), ("touching", 0.2, 0.1, 0.3), ("same", 0.2, 0.1, 0.3)
    )
    b = steering(
        ("apart", 0.6, 0.5, 0.7), ("near", 0.3, 0.2, 0.4), ("touching", 0.4, 0.3, 0.5), ("same", 0.2, 0.1, 0.4)
    )
    rows = comparison.compare(a, b).set_index("variant")
    found = rows["verdict"].to_dict()
    assert found == {
        "apart": "moved",
        "near": "within the uncertainty",
        "touching": "within the uncertainty",
        "same": "unchanged",
    }
    apart = rows.loc["apart"]
    assert apart[["a", "low_a", "high_a", "b", "low_b", "high_b"]].tolist() == [0.2, 0.1, 0.3, 0.6, 0.5, 0.7]
    assert (apart["change_is"], apart["change"]) == ("difference", pytest.approx(0.4))
    assert apart["distance"] == pytest.approx(0.4 / math.hypot(0.1, 0.1))


def test_a_value_without_interval_says_so() -> None:
    a, b = steering(("x", 0.2, math.nan, math.nan)), steering(("x", 0.9, 0.8, 1.0))
    row = comparison.compare(a, b).iloc[0]
    assert row["verdict"] == "no interval"
    assert row["change"] == pytest.approx(0.7)
    assert math.isnan(row["distance"])


def test_nan_is_missing_and_not_equal() -> None:
    a = steering(("one", math.nan, math.nan, math.nan), ("both", math.nan, math.nan, math.nan))
    b = steering(("one", 0.5, 0.4, 0.6), ("both", math.nan, math.nan, math.nan))
    assert comparison.compare(a, b)["verdict"].tolist() == ["missing", "missing"]


def test_rows_of_one_run_are_listed() -> None:
    a, b = (
        steering(("x", 0.2, 0.1, 0.3), ("old", 0.2, 0.1, 0.3)),
        steering(("new", 0.2, 0.1, 0.3), ("x", 0.2, 0.1, 0.3)),
    )
    rows = comparison.compare(a, b)
    assert dict(zip(rows["variant"], rows["verdict"], strict=True)) == {
        "x": "unchanged",
        "old": "only in A",
        "new": "only in B",
    }
    alone = run_settings.unmatched(a, b)
    assert alone.to_dict("records") == [
        {"side": "only in A", "table": "steering", "cell": "m · old · all · all"},
        {"side": "only in B", "table": "steering", "cell": "m · new · all · all"},
    ]


def test_a_model_or_table_of_one_run_is_one_row() -> None:
    a, b = steering(("x", 0.2, 0.1, 0.3)), steering(("x", 0.2, 0.1, 0.3))
    b.tables["steering"] = pd.concat([b.tables["steering"], b.tables["steering"].assign(model="other")])
    b.tables["neurons"] = pd.DataFrame({"model": "m", "method": "lape", "language": ["en", "de"], "neurons": 3})
    assert run_settings.unmatched(a, b)["cell"].tolist() == ["other: every row", "the whole table, 2 rows"]


def test_perplexity_ratios_have_the_interval_of_their_effect() -> None:
    rows = comparison.compare(run_of("a", 1.5), run_of("b", 1.9))
    row = row_of(rows, table="perplexity", metric="ratio", perturbation="deactivate-de", language="de")
    assert (row["a"], row["b"], row["verdict"], row["change_is"]) == (1.5, 1.9, "moved", "ratio")
    assert row["change"] == pytest.approx(1.9 / 1.5)
    # The effect is the logarithm of the ratio, and its interval reaches 0.1 to either side.
    assert row["low_a"] == pytest.approx(1.5 * math.exp(-0.1))
    assert row["high_b"] == pytest.approx(1.9 * math.exp(0.1))
    assert row["distance"] == pytest.approx(math.log(1.9 / 1.5) / math.hypot(0.1, 0.1))
    against_random = row_of(rows, metric="perplexity_ratio", perturbation="deactivate-de", against="random")
    assert against_random["a"] == pytest.approx(1.5 * math.exp(-0.04))
    assert rows[(rows["metric"] == "perplexity_ratio") & (rows["against"] == "none")].empty  # not twice
    assert row_of(rows, metric="perplexity", perturbation="deactivate-de", language="de")["verdict"] == "no interval"


def test_shares_of_answers_have_wilsons_interval() -> None:
    one = all_tables()["text"]
    a, b = run_of(), run_of("b")
    b.tables["text"] = one.assign(loops=0.75)
    rows = comparison.compare(a, b)
    row = row_of(rows, table="text", metric="loops", perturbation="none", language="en")
    # Wilson's interval of 6 of 40 (0.15), from its formula with z = 1.959964.
    centre, half = (6 + 1.959964**2 / 2) / (40 + 1.959964**2), 1.959964 / (40 + 1.959964**2)
    half *= math.sqrt(40 * 0.15 * 0.85 + 1.959964**2 / 4)
    assert [row["low_a"], row["high_a"]] == pytest.approx([centre - half, centre + half], rel=1e-6)
    assert row["verdict"] == "moved"
    lengths = rows[(rows["table"] == "text") & (rows["metric"] == "mean_characters")]
    assert lengths[["low_a", "high_b"]].isna().all(axis=None)
    agreement = rows[(rows["table"] == "text") & (rows["metric"] == "agreement")]  # its answers are not counted
    assert agreement["low_a"].isna().all()


def test_equal_runs_have_nothing_that_moved() -> None:
    rows = comparison.compare(run_of(), run_of("b"))
    assert set(rows["verdict"]) == {"unchanged"}
    assert len(rows) > 500
    assert comparison.largest(rows).empty
    assert any(
        sentence.startswith("Nothing moved") for sentence in comparison_page.sentences(run_of(), run_of("b"), rows)
    )


def test_numbers_that_differ_in_rounding_are_unchanged() -> None:
    a, b = steering(("x", 0.2, 0.1, 0.3)), steering(("x", 0.2 * (1 + 1e-10), 0.1, 0.3))
    assert comparison.compare(a, b)["verdict"].tolist() == ["unchanged"]


def test_the_largest_comes_first() -> None:
    wide, narrow = ("wide", 0.1, 0.0, 0.2), ("narrow", 0.1, 0.09, 0.11)
    a, b = steering(wide, narrow), steering(("wide", 0.9, 0.8, 1.0), ("narrow", 0.3, 0.29, 0.31))
    rows = comparison.compare(a, b)
    assert comparison.largest(rows)["variant"].tolist() == ["narrow", "wide"]  # 14 and 5.7 widths
    assert comparison.largest(rows, 1)["variant"].tolist() == ["narrow"]
    assert comparison.counts(rows).loc["steering"].to_dict() == dict.fromkeys(comparison.VERDICTS, 0) | {"moved": 2}


def test_random_controls_come_last() -> None:
    """With another seed they are other neurons."""
    a, b = run_of(), run_of("b", 1.9)
    drawn = b.tables["perplexity"]["kind"] == "random"
    b.tables["perplexity"].loc[drawn, "ratio"] = 9.0
    b.tables["differences"] = differences(b.tables["perplexity"])
    moved = comparison.largest(comparison.compare(a, b))
    assert moved["kind"].tolist() == ["deactivate"] * 4 + ["random"] * 8
    assert moved["distance"].tolist()[4] > moved["distance"].tolist()[0]
    variants = pd.DataFrame({"variant": ["x"], "kind": ["random"]})
    steered = steering(("x", 0.2, 0.1, 0.3))
    steered.tables["variants"] = variants
    assert comparison.compare(steered, steered)["kind"].tolist() == ["random"]


def test_four_significant_digits() -> None:
    values = [None, math.nan, -math.inf, 0.0, 12345.0, 12345.6, -0.07613, 1.5, 2.5e-7]
    shown = ["–", "–", "−∞", "0", "12,345", "12,346", "−0.07613", "1.5", "2.5e−07"]
    assert [report_formats.significant(value) for value in values] == shown


def test_keys_of_every_table_are_columns() -> None:
    rows = comparison.compare(run_of(), run_of("b"))
    assert tuple(rows.columns) == comparison.COLUMNS
    assert {key for layout in runs.LAYOUTS.values() for key in layout.keys} == set(runs.KEYS)


# -- settings and neurons --------------------------------------------------------------------------------------------


def test_settings_are_told_key_by_key() -> None:
    a = {
        "seed": 0,
        "models": {"m": {"revision": "abc"}},
        "run": {"languages": ["en"]},
        "p": {"rate-0.1": {"x": 1}},
        "q": {},
    }
    b = {
        "seed": 0,
        "models": {"m": {"revision": "def"}},
        "run": {"languages": ["en", "de"]},
        "p": {"rate-0.1": {"x": 2}},
    }
    assert run_settings.settings(a, b).to_dict("records") == [
        {"key": "models.m.revision", "a": '"abc"', "b": '"def"'},
        {"key": 'p."rate-0.1".x', "a": "1", "b": "2"},
        {"key": "q", "a": "{}", "b": None},
        {"key": "run.languages", "a": '["en"]', "b": '["en", "de"]'},
    ]
    assert run_settings.settings(a, a).empty
    assert run_settings.settings(None, b).empty


def test_words_that_differ_are_told_once_per_model() -> None:
    a, b = run_of(), run_of("b")
    b.tables["recordings"] = b.tables["recordings"].assign(torch="9.9.0")
    audit = pd.DataFrame({"model": "tiny", "check": ["c", "c", "d"], "cell": ["", "", None], "severity": "passed"})
    a.tables["audit"], b.tables["audit"] = audit, audit.assign(severity=["passed", "warning", "passed"])
    assert run_settings.descriptions(a, b).to_dict("records") == [
        {"table": "recordings", "model": "tiny", "what": "torch", "a": "9.8.7", "b": "9.9.0", "cells": "en, de"},
        {"table": "audit", "model": "tiny", "what": "severity", "a": "passed", "b": "passed, warning", "cells": "c"},
    ]
    assert run_settings.descriptions(a, a).empty


def test_jaccard_index_of_neurons() -> None:
    other = NEURONS.assign(neuron=[1, 2, 9, 6, 7])  # en shares 2 of 4, de none of 4
    a, b = run_of(neurons={("tiny", "lape"): NEURONS}), run_of("b", neurons={("tiny", "lape"): other})
    found = comparison.neuron_sets(a, b).set_index("language")
    assert found.loc["en", ["neurons_a", "neurons_b", "shared", "jaccard"]].tolist() == [3, 3, 2, 0.5]
    assert found.loc["de", "jaccard"] == 0
    by_chance = 3 * 3 / 400  # of 4 layers with 100 neurons
    assert found.loc["en", "expected"] == pytest.approx(by_chance / (6 - by_chance))
    assert (comparison.neuron_sets(a, a)["jaccard"] == 1).all()
    nothing = run_of("c", neurons={("tiny", "lape"): NEURONS.iloc[:0]})
    assert comparison.neuron_sets(nothing, nothing)["jaccard"].isna().all()
    assert comparison.neuron_sets(a, run_of("d", neurons={("tiny", "probe"): NEURONS})).empty
