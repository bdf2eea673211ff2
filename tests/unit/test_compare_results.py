"""The command that compares two runs: what it writes, and messages on unusable folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from langneurons import formats
from langneurons.errors import UserError
from langneurons.report.runs import Run
from unit.comparison_cases import NEURONS, run_of, tables, write
from unit.report_cases import ROOT, config_of


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
    with pytest.raises(UserError, match=r"a/config.json: is not a JSON object"):
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
