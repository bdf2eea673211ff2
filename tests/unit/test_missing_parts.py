"""What the page says of parts that are missing: which, and the target that makes them.

Apart from these stand what is no part of the run, and tables that are there without rows of a model.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from langneurons import artifacts
from langneurons.errors import ResultError
from langneurons.report import figures, findings, render
from unit.bad_tables import RUN, SVG, complete, complete_config, intact, page_with, shown_as_numbers
from unit.report_cases import CATALOGUE, LANGUAGES, Page, answers, config_of, page_of
from unit.test_render import PUBLISHED

SECTIONS = {
    "recordings": ["run"],
    "neurons": ["summary", "neurons", "methods"],
    "thresholds": ["summary", "neurons", "methods"],
    "overlaps": ["neurons"],
    "convergence": ["methods"],
    "stability": ["firmness"],
    "perplexity": ["summary", "perplexity"],
    "text": ["summary", "text"],
    "output_languages": ["output-languages"],
    "stop_words": ["text"],
    "steering": ["glance", "answers", "summary", "steering"],
    "differences": ["glance", "answers", "differences"],
    "replication": ["summary", "replication"],
    "audit": ["glance", "summary", "audit"],
    "effects": ["effects"],
}
"""The sections that a table is needed for."""
PLACES = {
    "layer_profile": ["neurons"],
    "neuron_overlap": ["neurons"],
    "method_overlap": ["methods"],
    "language_effects": ["answers", "perplexity"],
    "rate_curve": ["perplexity"],
    "perplexity_ratio": ["perplexity"],
    "perplexity_spread": ["perplexity"],
    "steering_success": ["answers", "steering"],
    "output_languages": ["output-languages"],
}
"""The sections that a figure is needed for."""


def asked_for(page: Page, target: str) -> list[str]:
    """The sections that give the command for a target, as code."""
    command = f"snakemake --cores all {target}"
    return [section for section in page.sections if command in page.commands.get(section, [])]


def of_commands(page: Page) -> list[str]:
    """All commands of the page."""
    return [code for codes in page.commands.values() for code in codes if code.startswith("snakemake")]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_nothing_is_missing() -> None:
    assert of_commands(intact()) == []
    assert "missing" not in " ".join(text for name, text in intact().sections.items() if name != "definitions")


@pytest.mark.parametrize("table", SECTIONS)
def test_a_table_that_is_missing(table: str) -> None:
    page = page_with(**{table: None})
    target = f"results/tables/{table}.csv"
    assert asked_for(page, target) == SECTIONS[table]
    assert set(of_commands(page)) == {f"snakemake --cores all {target}"}
    assert f"{table}.csv has no" not in " ".join(page.sections.values())


@pytest.mark.parametrize("table", SECTIONS)
@pytest.mark.parametrize(
    "how",
    [pytest.param("header", marks=pytest.mark.full), pytest.param("nothing", marks=pytest.mark.full), "another model"],
)
def test_a_table_without_rows_of_a_model(table: str, how: str) -> None:
    full = complete()[table]
    changed = {"header": full.iloc[:0], "nothing": pd.DataFrame(), "another model": full.assign(model="another")}[how]
    page = page_with(**{table: changed})
    said = f"the table {table}.csv has no rows for tiny."
    assert [section for section, text in page.sections.items() if said in text] == SECTIONS[table]
    assert of_commands(page) == []  # it is there
    assert shown_as_numbers(page) == []
    assert "another" not in page.sections["neurons"] + page.sections["run"]


@pytest.mark.parametrize("how", ["header", "nothing"])
def test_tables_without_any_rows(how: str) -> None:
    """All of them at once: each is said where it is needed, and none is asked for."""
    empty = {table: complete()[table].iloc[:0] if how == "header" else pd.DataFrame() for table in SECTIONS}
    page = page_with(**empty)
    words = " ".join(page.sections.values())
    said = {table for table in SECTIONS if f"the table {table}.csv has no rows for tiny." in words}
    assert said == {*SECTIONS} - {"convergence"}  # without neurons there are no two methods to compare
    assert of_commands(page) == []
    assert shown_as_numbers(page) == []


@pytest.mark.parametrize(
    ("table", "column", "value", "section"),
    [
        ("differences", "measure", "novelty", "glance"),
        ("steering", "variant", "none", "steering"),
        ("steering", "variant", "steer-residual", "glance"),
    ],
)
def test_a_table_with_other_rows_of_the_model(table: str, column: str, value: str, section: str) -> None:
    full = complete()[table]
    page = page_with(**{table: full.assign(measure=value) if column == "measure" else full[full[column] == value]})
    assert f"the table {table}.csv has no such rows for tiny." in page.sections[section]
    assert of_commands(page) == []


def test_only_the_model_without_rows_is_named() -> None:
    config = config_of(
        run=RUN | {"models": ["tiny", "twin"]},
        perturbations=CATALOGUE,
        models={name: {"source": "demo", "architecture": "llama"} for name in ("tiny", "twin")},
    )
    page, _ = page_of(tables=complete(), config=config, texts={"tiny": answers()})
    words = " ".join(page.sections.values())
    assert "The perplexities of twin are missing: the table perplexity.csv has no rows for twin." in words
    assert "The perplexities of tiny" not in words
    assert {command.rpartition("/")[0] for command in of_commands(page)} == {
        *(f"snakemake --cores all results/figures/{name}" for name in ("tiny", "twin")),
        "snakemake --cores all results/twin/metrics",  # its answers, of the examples
    }


# -- figures and other files -------------------------------------------------------------------------------------------


def test_figures_that_are_missing() -> None:
    """All of them: each is asked for where it is needed."""
    page, _ = page_of(tables=complete(), config=complete_config(), texts={"tiny": answers()})
    assert {name: asked_for(page, f"results/figures/tiny/{name}.svg") for name in figures.FIGURES} == PLACES
    for name, places in PLACES.items():
        assert f"The figure {name} of tiny is missing:" in page.sections[places[0]]


@pytest.mark.full
@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_that_is_missing(name: str) -> None:
    drawn = {"tiny": {other: SVG for other in figures.FIGURES if other != name}}
    page, _ = page_of(tables=complete(), config=complete_config(), texts={"tiny": answers()}, figures=drawn)
    assert asked_for(page, f"results/figures/tiny/{name}.svg") == PLACES[name]
    assert len(set(of_commands(page))) == 1
    assert f"The figure {name} of tiny is missing:" in page.sections[PLACES[name][0]]


def test_timings_that_are_missing() -> None:
    page, _ = page_of(tables=complete(), config=complete_config())
    assert "No timings were found. Every job writes its own when it runs" in page.sections["timings"]


def test_answers_without_rows_are_not_missing_as_a_file() -> None:
    page, _ = page_of(tables=complete(), config=complete_config(), texts={"tiny": answers().iloc[:0]})
    assert "There are no answers to prompts in en." in page.sections["examples"]
    assert "text.parquet" not in page.sections["examples"]
    absent, _ = page_of(tables=complete(), config=complete_config())
    assert "snakemake --cores all results/tiny/metrics/text.parquet" in absent.sections["examples"]


# -- what is no part of the run ----------------------------------------------------------------------------------------


def measured(config: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The tables of a run: the rows of its variants alone."""
    names = {"none", *config["run"]["perturbations"]}
    tables = {}
    for name, table in complete().items():
        kept = table[table["variant"].isin(names)] if "variant" in table else table
        tables[name] = kept[kept["against"].isin(names)] if "against" in kept else kept
    if not config["run"]["perturbations"]:
        tables["effects"] = tables["effects"].iloc[:0]
    elif tables["differences"].empty:  # of steering, on answers
        told = complete()["differences"][lambda rows: rows["unit"] == "prompts"]
        tables["differences"] = told.assign(variant=config["run"]["perturbations"][0], kind="steer")
    return tables


@cache
def page_of_run(*perturbations: str) -> Page:
    """The page of a run of these variants alone, with all that it measured."""
    tiny = {"source": "demo", "architecture": "llama"}
    run = RUN | {"perturbations": list(perturbations)}
    config = config_of(run=run, perturbations=CATALOGUE, models={"tiny": tiny})
    return page_with(config=config, **measured(config))


@pytest.mark.parametrize(
    ("perturbations", "section", "words"),
    [
        ([], "glance", "Perplexity with a language's neurons off was not measured: run.perturbations names no variant"),
        ([], "glance", "No answers of tiny were steered to another language: run.perturbations names no variant"),
        ([], "summary", "were switched off while the model read text: run.perturbations names no variant that does."),
        ([], "run", "No perturbation variant is part of this run: run.perturbations names none."),
        ([], "steering", "No answers of tiny were steered to another language: run.perturbations names no variant"),
        ([], "differences", "nothing was measured beside the unperturbed model: run.perturbations names no variant."),
        ([], "effects", "There are no proofs of edits of tiny: run.perturbations names no variant."),
        (["deactivate"], "answers", "No answers of tiny were steered to another language: run.perturbations names no"),
        (["deactivate"], "steering", "No answers of tiny were steered to another language: run.perturbations names no"),
        (["steer"], "answers", "Perplexity with a language's neurons off was not measured: run.perturbations names no"),
        (["steer"], "summary", "were switched off while the model read text: run.perturbations names no variant"),
        (["steer-residual"], "glance", "No answers of tiny were steered to another language: run.perturbations names"),
    ],
)
def test_what_is_no_part_of_the_run(perturbations: list[str], section: str, words: str) -> None:
    page = page_of_run(*perturbations)
    assert words in page.sections[section]
    assert words not in intact().sections[section]
    assert of_commands(page) == []
    assert ".csv has no" not in " ".join(page.sections.values())


def test_files_that_others_published_are_not_missing() -> None:
    page, _ = page_of(config=config_of(models=PUBLISHED), tables={"neurons": complete()["neurons"]})
    assert "Perplexity is not part of the published files of tiny." in page.sections["glance"]
    assert "The published files of tiny hold no steered answers." in page.sections["glance"]
    assert "Of tiny nothing was measured beside" not in page.sections["differences"]  # it is not answered at all
    wanted = {name for name in SECTIONS if asked_for(page, f"results/tables/{name}.csv")}
    assert wanted == {"thresholds", "overlaps", "audit"}


# -- files that cannot be read -----------------------------------------------------------------------------------------


def results_of(folder: Path) -> Path:
    """A results folder of the full case."""
    for name, table in complete().items():
        artifacts.write_text(folder / "tables" / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    for name in figures.FIGURES:
        artifacts.write_text(folder / "figures" / "tiny" / f"{name}.svg", SVG)
    return folder


BROKEN = {
    "empty": (b"", "it is empty"),
    "cut off": (b"model,perturbation\ntiny,no", "it does not end in a whole line"),
    "no table": (b'model,ratio\n"tiny,1\n', "cannot be read"),
    "no text": (b"model,ratio\n\xff\xfe,1\n", "cannot be read"),
    "more cells": (b"model,ratio\ntiny,1,2,3\ntiny,1\n,,,,,\n", "cannot be read"),
    "words": (b"model,ratio\ntiny,two\n", "has 'two' in the column ratio, where numbers are"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_table_is_refused(tmp_path: Path, how: str) -> None:
    """With its name, the reason and the command, by the page and by the figures."""
    from scripts import plot_figures

    results = results_of(tmp_path / "results")
    content, reason = BROKEN[how]
    (results / "tables" / "perplexity.csv").write_bytes(content)
    folders = ["--tables", str(results / "tables"), "--output", str(tmp_path / "figures")]
    for make in (
        lambda: render.read(results, complete_config()),
        lambda: plot_figures.main(["--model", "tiny", "--languages", *LANGUAGES, *folders]),
    ):
        with pytest.raises(ResultError) as caught:
            make()
        said = str(caught.value)
        assert said.startswith(f"{results / 'tables' / 'perplexity.csv'}: cannot be read (")
        assert reason in said
        assert said.endswith("snakemake --cores all --forcerun make_tables")
    assert not (tmp_path / "figures").exists()


def test_only_a_header_and_missing_numbers_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("model,language,ratio\n", encoding="utf-8")
    assert list(findings.read_csv(path)) == ["model", "language", "ratio"]
    path.write_text("model,language,ratio\ntiny,nan,\ntiny,en,nan\ntiny,de,inf\ntiny,tr,1.5\n", encoding="utf-8")
    table = findings.read_csv(path)
    assert table["ratio"].isna().tolist() == [True, True, False, False]
    assert table["ratio"].tolist()[2:] == [float("inf"), 1.5]
    assert table["language"].tolist()[0] == "nan"


@pytest.mark.parametrize("content", [b"", b'<svg width="540pt"><g>', b"\xff\xfe"])
def test_a_broken_figure_is_refused(tmp_path: Path, content: bytes) -> None:
    results = results_of(tmp_path)
    assert set(render.read(results, complete_config()).figures["tiny"]) == set(figures.FIGURES)
    path = results / "figures" / "tiny" / "rate_curve.svg"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=r"rate_curve\.svg: is no whole figure.*--forcerun plot_figures"):
        render.read(results, complete_config())
