"""Two runs side by side: verdicts on known numbers, settings, neurons, hostile text, messages on unusable folders."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts, formats
from langneurons.errors import UserError
from langneurons.report import comparison, comparison_page, figures, run_settings, runs
from langneurons.report import formats as report_formats
from langneurons.report.runs import Run
from unit.report_cases import ROOT, SCRIPT, Page, all_tables, config_of, differences, perplexity

TEMPLATE = ROOT / "report" / "templates" / "comparison.html.j2"
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[31m'
NEURONS = pd.DataFrame(
    {"language": ["en", "en", "en", "de", "de"], "layer": [0, 0, 1, 1, 1], "neuron": [1, 2, 3, 4, 5]}
)


def tables(own: float = 1.5, **others: pd.DataFrame) -> dict[str, pd.DataFrame]:
    ratios = perplexity(own)
    return all_tables() | {"perplexity": ratios, "differences": differences(ratios)} | others


def run_of(name: str = "a", own: float = 1.5, **others: Any) -> Run:
    return Run(name, tables(own), **({"config": config_of()} | others))


def steering(*rows: tuple[str, float, float, float]) -> Run:
    """Variants with a share and its interval."""
    table = pd.DataFrame(rows, columns=["variant", "share", "low", "high"])
    return Run("r", {"steering": table.assign(model="m", language="all", target="all")})


def row_of(rows: pd.DataFrame, **keys: str) -> pd.Series:
    for key, value in keys.items():
        rows = rows[rows[key] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def write(folder: Path, run: Run) -> Path:
    """A results folder of a run."""
    for name, table in run.tables.items():
        artifacts.write_text(folder / "tables" / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    if run.config is not None:
        artifacts.write_text(folder / "config.json", json.dumps(run.config))
    for (model, method), table in run.neurons.items():
        artifacts.write_table(folder / model / "neurons" / f"{method}.parquet", "neurons", table)
    return folder


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


# -- page ------------------------------------------------------------------------------------------------------------


def page_of(a: Run, b: Run) -> tuple[Page, str]:
    html = comparison_page.render(a, b, comparison.compare(a, b), comparison.neuron_sets(a, b), TEMPLATE)
    return Page(html), html


def test_the_page_shows_values_intervals_and_verdicts() -> None:
    a = run_of(neurons={("tiny", "lape"): NEURONS})
    b = run_of("b", 1.9, config=config_of(seed=7), neurons={("tiny", "lape"): NEURONS.iloc[1:]})
    page, html = page_of(a, b)
    own = "Perplexity of its own text with a language's neurons off, as a multiple of the unperturbed model's"
    shown = ["deactivate-de · de", "perplexity: ratio", "1.5[1.357, 1.658]", "1.9[1.719, 2.1]", "× 1.267", "moved"]
    assert shown in [row[1:] for row in page.tables[own]]
    assert page.row("Keys of the configuration that differ", "seed") == ["0", "7"]
    assert page.row("Language-specific neurons that both runs select", "tiny", "lape", "en")[:4] == [
        "3",
        "2",
        "2",
        "0.667",
    ]
    assert page.row("Numbers by table and verdict", "perplexity")[:3] == ["2", "0", "2"]
    assert "data:image/svg+xml" in html
    assert all(
        value.startswith(("#", "data:")) for _, at in page.tags for key, value in at.items() if key in ("src", "href")
    )


def test_the_page_of_equal_runs_says_so() -> None:
    page, _ = page_of(run_of(), run_of("b"))
    for sentence in ("Nothing moved", "The configurations are equal.", "Both runs have the same rows."):
        assert sentence in page.text
    assert "Numbers that moved" not in page.tables


def test_the_page_without_config_and_with_missing_values() -> None:
    a, b = run_of(config=None), run_of("b")
    b.tables["text"] = b.tables["text"].assign(mean_characters=math.nan)
    page, _ = page_of(a, b)
    assert "A does not hold a config.json" in page.text
    row = page.row("Numbers that are missing (NaN) in one of the runs", "tiny", "none · en")
    assert row == ["text: mean_characters", "100", "–", "–"]


def test_hostile_text_is_escaped() -> None:
    a, b = run_of(), run_of(HOSTILE, config=config_of() | {HOSTILE: HOSTILE})
    for name in ("perplexity", "differences"):
        b.tables[name] = b.tables[name].assign(perturbation=lambda table: table["perturbation"] + HOSTILE)
    b.tables["recordings"] = b.tables["recordings"].assign(device=HOSTILE)
    page, html = page_of(a, b)
    assert "alert(1)" in page.text
    assert [tag for tag, _ in page.tags].count("script") == html.count("<script") == 1  # the page's own
    assert not [at for _, at in page.tags if "onerror" in at]
    assert "\x1b" not in html
    assert "{{ 7 * 7 }}" in page.text
    told = comparison_page.summary(a, b, comparison.compare(a, b), comparison.neuron_sets(a, b))
    assert "\x1b" not in told


def test_its_tables_are_sorted_by_the_script_of_the_report_and_no_other_may_run() -> None:
    """The policy names the checksum of exactly what stands between the tags, and allows nothing else."""
    page, html = page_of(run_of(), run_of("b", 1.9))
    code = html.partition("<script>")[2].partition("</script>")[0]
    assert code == f"\n{SCRIPT}"
    digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
    policy = [at["content"] for tag, at in page.tags if at.get("http-equiv") == "Content-Security-Policy"]
    allowed = f"script-src 'sha256-{digest}'"
    assert policy == [f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {allowed}"]
    classes = {name for _, at in page.tags for name in (at.get("class") or "").split()}
    assert "table" in classes  # what the script looks for first; of the rest there is nothing here
    assert not classes & {"examples", "example"}
    assert not [at for _, at in page.tags if "data-table" in at or at.get("id", "").startswith("data-")]


def test_the_figure_has_a_pair_of_dots_per_language_and_is_limited() -> None:
    a, b = run_of("a", 1.5), run_of("b", 1.9)
    ratios = comparison_page.own_ratios(comparison.compare(a, b), b)
    assert ratios["language"].tolist() == ["en", "de"]
    assert (ratios["verdict"] == "moved").all()
    drawn = comparison_page.ratio_figure(ratios, ["en", "de"])
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["en, moved", "de, moved"]
    places = [float(dots.get_offsets()[0][0]) for dots in drawn.axes[0].collections]
    assert places == [1.5, 1.9, 1.5, 1.9]
    many = pd.concat([ratios.iloc[:1]] * 100, ignore_index=True).assign(distance=np.arange(100.0))
    assert len(comparison_page.ratio_figure(many, ["en", "de"]).axes[0].collections) == 2 * comparison_page.LINES
    assert figures.plot([ratios], comparison_page.ratio_figure, ["en", "de"]).count("<svg") == 1


# -- script ----------------------------------------------------------------------------------------------------------


def compare(*arguments: Path | str) -> None:
    from scripts import compare_results

    compare_results.main([str(argument) for argument in arguments])


def test_the_script_writes_page_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", run_of("a", neurons={("tiny", "lape"): NEURONS}))
    b = write(tmp_path / "b", run_of("b", 1.9, config=config_of(seed=7), neurons={("tiny", "lape"): NEURONS.iloc[1:]}))
    formats.stamp(a)
    compare(a, b)
    told = capsys.readouterr().out
    assert "seed: 0 -> 7" in told
    moved = "tiny · deactivate-de · de: perplexity: ratio 1.5 [1.357, 1.658] -> 1.9 [1.719, 2.1] (x 1.267)"
    assert moved in told
    assert "tiny · lape · en: 0.667" in told
    assert "of unknown version" not in told  # A is stamped
    assert "and unknown (B)" in told
    rows = pd.read_csv(b / "comparison" / "comparison.csv", keep_default_na=False, na_values=[""])
    assert (rows["verdict"] == "moved").sum() == 4  # the ratios, and those to the random control, in two languages
    assert pd.read_csv(b / "comparison" / "neuron_sets.csv")["shared"].tolist() == [2, 2]
    assert "Comparison of two runs" in (b / "comparison" / "comparison.html").read_text(encoding="utf-8")
    compare(a, b, "--output", tmp_path / "elsewhere")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == [
        *("comparison.csv", "comparison.html", "neuron_sets.csv")
    ]


def test_a_copy_of_a_folder_has_nothing_that_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", run_of(neurons={("tiny", "lape"): NEURONS}))
    shutil.copytree(a, tmp_path / "b")
    compare(a, tmp_path / "b")
    told = capsys.readouterr().out
    assert "Nothing moved" in told
    assert "The configurations are equal." in told
    assert "Moved most" not in told
    assert set(pd.read_csv(tmp_path / "b" / "comparison" / "comparison.csv")["verdict"]) == {"unchanged"}


def test_a_folder_without_config_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", run_of(config=None)), write(tmp_path / "b", run_of())
    compare(a, b)
    told = capsys.readouterr().out
    assert "A: There is no config.json" in told
    assert "B: There is no config.json" not in told
    assert "The configurations cannot be compared" in told


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", run_of()), write(tmp_path / "b", run_of())
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    other = {name: table.assign(model="other") for name, table in tables().items()}
    write(tmp_path / "other", Run("other", other))
    cases = {
        ("missing", "a"): "missing is not a folder. Name a results folder",
        ("file", "a"): "file is not a folder",
        ("a", "empty"): "empty has no tables.*results/report/report.html",
        ("a", "a"): "are the same folder. Copy",
        ("a", "other"): r"have no model in common \(tiny; other\)",
    }
    for names, message in cases.items():
        with pytest.raises(UserError, match=message):
            compare(*(tmp_path / name for name in names))
    with pytest.raises(UserError, match="are the same folder"):
        compare(a, tmp_path / "b" / ".." / "a")
    assert not (b / "comparison").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("perplexity", "model,perturbation,language,perplexity,ratio\ntiny,none,en,2", "does not end in a whole line"),
        ("perplexity", "", "it is empty"),
        ("perplexity", 'a,b\n"1,2\n', "cannot be read"),
        ("perplexity", "model,perturbation,perplexity,ratio\ntiny,none,2,1\n", "has no column language"),
        ("perplexity", "model,perturbation,language,perplexity\ntiny,none,en,2\n", "has no column ratio"),
        (
            "perplexity",
            "model,perturbation,language,perplexity,ratio\n" + "tiny,none,en,2,1\n" * 2,
            "has two rows of tiny, none, en",
        ),
        (
            "perplexity",
            "model,perturbation,language,perplexity,ratio\ntiny,none,en,two,1\n",
            "'two' in the column perplexity, where numbers are",
        ),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    a, b = write(tmp_path / "a", run_of()), write(tmp_path / "b", run_of())
    (b / "tables" / f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        compare(a, b)
    assert f"{name}.csv" in str(caught.value)
    assert str(b) in str(caught.value)
    assert "--forcerun make_tables" in str(caught.value)


def test_a_damaged_config_and_neurons_are_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", run_of()), write(tmp_path / "b", run_of(neurons={("tiny", "lape"): NEURONS}))
    (a / "config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"a/config.json: is no JSON object"):
        compare(a, b)
    (a / "config.json").unlink()
    file = b / "tiny" / "neurons" / "lape.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"lape.parquet"):
        compare(a, b)


def test_make_asks_for_both_folders() -> None:
    for given in ([], ["A=somewhere"], ["B=somewhere"]):
        made = subprocess.run(["make", "compare", "A=", "B=", *given], cwd=ROOT, capture_output=True, text=True)
        assert made.returncode != 0
        assert "make compare A=results-before B=results" in made.stdout


def test_the_script_ends_with_a_message(tmp_path: Path) -> None:
    script = ROOT / "workflow" / "scripts" / "compare_results.py"
    made = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "x"), str(tmp_path)],
        env={"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 1
    assert made.stderr.startswith(f"error: {tmp_path / 'x'} is not a folder")
