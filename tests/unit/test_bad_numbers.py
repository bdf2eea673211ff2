"""Numbers that are none: NaN and infinity in every metric of the page, languages without any, models without neurons.

Each is shown as such, as a dash, a symbol or a sentence where the number would stand; nothing crashes, and nothing is
left blank. The figures of the same tables are in test_bad_figures.
"""

from __future__ import annotations

import math
from functools import cache

import pandas as pd
import pytest

from langneurons.report import formats, questions, views
from unit.bad_tables import complete, complete_config, intact, metrics, page_with, shown_as_numbers, with_value
from unit.report_cases import SUMMARY, Page, answers, neurons, page_of

TABLES = [name for name in complete() if metrics(name) and name not in ("variants", "neurons_by_layer")]
"""Those that the page shows; of the others only figures are made."""
SECTIONS = {
    "recordings": "run",
    "neurons": "neurons",
    "thresholds": "neurons",
    "overlaps": "neurons",
    "convergence": "methods",
    "stability": "firmness",
    "perplexity": "perplexity",
    "text": "text",
    "output_languages": "output-languages",
    "stop_words": "text",
    "steering": "steering",
    "differences": "differences",
    "replication": "replication",
    "effects": "effects",
}
"""Where the numbers of a table are, each in a cell."""
ELSEWHERE = {"layers": "run", "neurons_per_layer": "run"}
SAID = {
    ("replication", "ours"): "Not in this run: 0 of 2 rows of length and stop-word ratio can be compared",
    ("replication", "decimals"): "not stop_word_ratio none en (ours 0.368, theirs 0.366)",
}
"""What is said where there is no dash."""
UNSHOWN = {
    *(("differences", "p_value"), ("stop_words", "words"), ("stop_words", "stop_words"), ("convergence", "shared")),
    *(("convergence", "p_value"), ("text", "outputs"), ("steering", "low"), ("steering", "high")),
}
"""Numbers without a cell. Where a bound is missing, there is no interval: see below."""
ALONE = {("thresholds", "top_rate")}
"""Numbers that choose what other sections show."""


# -- every metric of every table ---------------------------------------------------------------------------------------


@cache
def page_without(table: str, column: str) -> Page:
    """The page of the full case, a column without any number."""
    return page_with(**{table: with_value(table, [column])})


def rounds() -> list[dict[str, str]]:
    """Every column of numbers once: in a round one column each of tables that no section shows together."""
    left = {table: [name for name in metrics(table) if (table, name) not in {*SAID, *ALONE}] for table in TABLES}
    found: list[dict[str, str]] = [{table: column} for table, column in ALONE]
    while any(left.values()):
        chosen: dict[str, str] = {}
        sections: set[str] = set()
        for table in sorted(left, key=lambda name: -len(left[name])):  # the longest first: fewest rounds
            if left[table] and (section := ELSEWHERE.get(left[table][0], SECTIONS[table])) not in sections:
                chosen[table] = left[table].pop(0)
                sections.add(section)
        found.append(chosen)
    return found


def test_every_column_has_its_round() -> None:
    chosen = [(table, column) for one in rounds() for table, column in one.items()]
    assert len(chosen) == len(set(chosen))
    assert {*chosen, *SAID} == {(table, column) for table in TABLES for column in metrics(table)}
    assert all(
        len({ELSEWHERE.get(name, SECTIONS[table]) for table, name in one.items()}) == len(one) for one in rounds()
    )


@pytest.mark.parametrize("columns", rounds(), ids=lambda columns: ",".join(columns.values()))
def test_columns_without_any_number(columns: dict[str, str]) -> None:
    """Each shows a dash in its own section; the next test looks at each alone."""
    page = page_with(**{table: with_value(table, [column]) for table, column in columns.items()})
    assert shown_as_numbers(page) == []
    for table, column in columns.items():
        section = ELSEWHERE.get(column, SECTIONS[table])
        if (table, column) not in UNSHOWN:
            assert page.sections[section].count("–") > intact().sections[section].count("–"), (table, column)


@pytest.mark.full
@pytest.mark.parametrize("table", TABLES)
def test_a_column_without_any_number(table: str) -> None:
    for column in metrics(table):
        page = page_without(table, column)
        assert shown_as_numbers(page) == [], column
        section = ELSEWHERE.get(column, SECTIONS[table])
        if (table, column) not in {*SAID, *UNSHOWN}:
            assert page.sections[section].count("–") > intact().sections[section].count("–"), column


@pytest.mark.parametrize(("table", "column"), SAID)
def test_a_column_of_which_a_sentence_tells(table: str, column: str) -> None:
    page = page_without(table, column)
    assert shown_as_numbers(page) == []
    assert SAID[table, column] in page.sections[SECTIONS[table]]


def compared(table: str) -> list[str]:
    """The columns that may all be without numbers: without ours there is nothing to compare."""
    return [column for column in metrics(table) if column != "ours"]


def groups() -> list[list[str]]:
    """The tables, no two of a group in one section."""
    found: list[list[str]] = []
    for table in TABLES:
        free = [group for group in found if SECTIONS[table] not in {SECTIONS[other] for other in group}]
        if free:
            free[0].append(table)
        else:
            found.append([table])
    return found


@pytest.mark.parametrize("tables", groups(), ids=",".join)
def test_rows_without_any_number(tables: list[str]) -> None:
    """One row of each table; the next test looks at each table alone, and at all of its rows."""
    page = page_with(**{table: with_value(table, compared(table), where="one") for table in tables})
    assert shown_as_numbers(page) == []
    for table in tables:
        assert page.sections[SECTIONS[table]].count("–") > intact().sections[SECTIONS[table]].count("–"), table


@pytest.mark.full
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("where", ["one", "all"])
def test_rows_of_one_table_without_any_number(table: str, where: str) -> None:
    page = page_with(**{table: with_value(table, compared(table), where=where)})
    assert shown_as_numbers(page) == []
    assert page.sections[SECTIONS[table]].count("–") > intact().sections[SECTIONS[table]].count("–")


def test_no_number_in_any_table() -> None:
    """All together: no section fails, and none shows what is no number."""
    page = page_with(**{table: with_value(table, metrics(table)) for table in TABLES})
    assert shown_as_numbers(page) == []
    assert page.sections.keys() == intact().sections.keys()


@pytest.mark.parametrize(
    "columns",
    [
        {"perplexity": "perplexity", "differences": "difference"},
        {"perplexity": "ratio", "differences": "reference"},
        {"differences": "value"},
        {"differences": "high"},
    ],
    ids=lambda columns: "-".join(columns.values()),
)
@pytest.mark.parametrize("where", ["one", "all"])
def test_infinite_numbers(columns: dict[str, str], where: str) -> None:
    page = page_with(**{table: with_value(table, [column], math.inf, where) for table, column in columns.items()})
    assert shown_as_numbers(page) == []
    for table in columns:
        assert "∞" in page.sections[SECTIONS[table]], table


def test_the_cells_of_a_row_without_numbers() -> None:
    """The first row of each table: a dash in every cell, and the other rows as they were."""
    names = ("recordings", "neurons", "thresholds", "stability", "perplexity", "effects")
    page = page_with(**{name: with_value(name, metrics(name), where="one") for name in names})
    assert page.row("Text whose activations were recorded", "tiny", "en") == ["–", "–", "train"]
    assert page.row("Text whose activations were recorded", "tiny", "de") == ["23,456", "78", "train"]
    assert page.row("Selected neurons by language", "tiny", "lape", "en") == ["–"] * 4
    assert page.row("Thresholds of the selection", "tiny", "lape") == ["–"] * 8
    assert page.row("Neurons of tiny from parts of the text", "one half of the text and the other", "en") == ["–"] * 6
    assert page.row("Perplexity of tiny", "deactivate-en") == ["–", "33.00", "–", "1.100"]
    assert page.row("Edits of tiny", "deactivate-en") == ["–"] * 5
    assert page.row(SUMMARY, "tiny", "en")[:2] == ["–", "–"]
    assert page.row(SUMMARY, "tiny", "en")[-1] == "not measured"


# -- sentences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column", "section", "words"),
    [
        ("thresholds", "selected", "summary", "An unknown number of the 400 feed-forward neurons were selected (lape)"),
        ("neurons", "neurons", "summary", "(5.0%) were selected (lape): – (en) and – (de)."),
        ("text", "prompt_language", "summary", "Answers in the language of the prompt: not known unperturbed"),
        ("steering", "share", "summary", "How many answers are in the language that they are steered to is not known."),
        ("steering", "share", "glance", "steered (steer) not known"),
        ("steering", "share", "answers", "Not every share is known, so it is open whether it steers."),
        ("steering", "prompts", "answers", "of the answers to an unknown number of prompts in other languages"),
        ("steering", "high", "answers", "): 60% of the answers to 40 prompts"),
        ("steering", "low", "glance", "steered (steer) 60% as many"),
        ("perplexity", "ratio", "summary", "The perplexity with the neurons of en and de off was not measured."),
        ("differences", "difference", "glance", "en – [1.357, 1.658] de – [1.357, 1.658]"),
        ("differences", "difference", "answers", "was multiplied by – [1.357, 1.658] (en) and – ["),
        ("differences", "difference", "answers", "with the neurons of en off, what de loses is not known"),
        ("differences", "low", "answers", "for en, there is no interval"),
        ("differences", "high", "answers", "for de, there is no interval"),
        ("differences", "high", "glance", "en 1.500 de 1.500"),
        ("differences", "reference", "answers", "in the prompt's language: en not known to 25% (−65 points"),
        ("differences", "value", "answers", "in the prompt's language: en 90% to not known (−65 points"),
        ("differences", "difference", "answers", "en 90% to 25% (by how much is not known)"),
        ("differences", "samples", "answers", "on an unknown number of windows of held-out text"),
        ("differences", "samples", "answers", "In the answers to an unknown number of prompts per language"),
        ("differences", "q_value", "answers", "Whether any of these differs beyond chance was not tested."),
        ("effects", "edited_neurons", "effects", "Of 3 perturbations the number of edited neurons is not known."),
    ],
)
def test_what_is_not_known_is_said(table: str, column: str, section: str, words: str) -> None:
    page = page_without(table, column)
    assert words not in intact().sections[section]
    assert words in page.sections[section]


def test_a_direction_that_is_not_known() -> None:
    table = complete()["steering"].copy()
    row = (table["variant"] == "steer") & (table["target"] == "de")
    table.loc[row, "share"] = math.nan
    page = page_with(steering=table)
    assert "Of 1 direction it is not known." in page.sections["answers"]
    cells = page.row("Answers of tiny in the target language, by direction", "en", "de")
    assert cells[:2] == ["5.0% [1.0%, 9.0%]", "– [56.0%, 64.0%]"]


def test_a_baseline_of_unknown_directions_is_not_known() -> None:
    """And not the mean of the others, which are other prompts."""
    table = complete()["steering"].copy()
    table.loc[(table["variant"] == "none") & (table["target"] == "de"), "share"] = math.nan
    page = page_with(steering=table)
    assert page.row("Steering success of tiny, all directions together", "steer")[4] == "–"


def test_no_other_language_was_measured() -> None:
    """So it is not said that they suffer less."""
    table = complete()["perplexity"]
    table = table.assign(ratio=table["ratio"].where(table["language"] == table["edited_language"]))
    page = page_with(perplexity=table)
    assert page.row(SUMMARY, "tiny", "en")[2] == "–"
    assert page.row(SUMMARY, "tiny", "en")[-1] == "no other language was measured"
    assert "with the neurons of en off, no other language was measured" in page.sections["summary"]


def test_many_languages_of_which_some_are_not_known() -> None:
    values = {"en": 5.0, "de": math.nan, "tr": 3.0, "fi": 4.0, "sw": math.nan, "ja": 1.0}
    said = "between 1 (ja) and 5 (en), median 3 (tr), not known for de and sw"
    assert formats.listed(values, formats.integer) == said
    assert formats.listed(dict.fromkeys("abcdef", math.nan), formats.integer).startswith("– (a), – (b)")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (formats.fixed2(math.inf), "∞"),
        (formats.percent(-math.inf), "-∞%"),
        (formats.signed(-math.inf, 2), "−∞"),
        (formats.seconds(math.inf), "∞"),
        (formats.printed(2.0, math.nan), "2"),
        (formats.ratio(math.inf), "∞"),
        (formats.ratio(math.nan), "–"),
        (formats.share(math.nan), "not known"),
        (formats.points({"difference": -0.5, "low": math.nan, "high": 0.1}), "−50 points"),
    ],
)
def test_numbers_in_words(written: str, text: str) -> None:
    assert written == text


def test_a_published_number_whose_agreement_is_not_known() -> None:
    page = page_with(replication=complete()["replication"].assign(agrees=[True, None]))
    rows = page.tables["tiny beside mgpt"][1:]
    assert [row[-1] for row in rows] == ["yes", "–"]
    assert "1 of 2 rows of length and stop-word ratio agrees to the printed digits." in page.sections["replication"]


def test_answers_without_their_measures() -> None:
    texts = answers().assign(confidence=math.nan, output_language=None, identical_to_baseline=math.nan)
    texts.loc[texts["perturbation"] == "none", "output"] = None
    page, _ = page_of(tables=complete(), config=complete_config(), texts={"tiny": texts})
    assert shown_as_numbers(page) == []
    assert "Not perturbed – – (no answer)" in page.sections["examples"]
    assert "Neurons of en off – – an answer (deactivate-en, en-1)" in page.sections["examples"]
    assert "identical to unperturbed" not in page.sections["examples"]


# -- an empty language -------------------------------------------------------------------------------------------------


def without_german(name: str) -> pd.DataFrame:
    """A table that knows nothing of German text, prompts or neurons."""
    table = complete()[name]
    for column in ("language", "edited_language", "other_language", "target"):
        table = table[table[column] != "de"] if column in table else table
    return table


@pytest.fixture(scope="module")
def half() -> Page:
    """The page of a run that has nothing in one of its two languages."""
    texts = answers()
    names = [name for name in complete() if "language" in complete()[name]]
    tables = complete() | {name: without_german(name) for name in names}
    return page_of(tables=tables, config=complete_config(), texts={"tiny": texts[texts["language"] != "de"]})[0]


def test_a_language_without_anything_has_dashes(half: Page) -> None:
    assert shown_as_numbers(half) == []
    assert half.row("Text whose activations were recorded", "tiny", "de") == ["–", "–", "–"]
    assert half.row("Selected neurons by language", "tiny", "lape", "de") == ["–"] * 4
    assert half.row("Neurons of tiny by method", "probe", "de")[:3] == ["–"] * 3
    assert half.row("Neurons of tiny from parts of the text", "a quarter and all", "de") == ["–"] * 6
    assert half.row("Perplexity of tiny", "deactivate-en") == ["30.00", "–", "1.500", "–"]
    assert set(half.row("Mean length of the answers (characters)", "de")) == {"–"}
    assert half.row("Languages of the answers of tiny", "not perturbed", "de") == ["–", "–"]
    assert set(half.row("Answers of tiny in the target language, by direction", "de", "en")) == {"–"}
    assert half.row(SUMMARY, "tiny", "de")[:4] == ["–"] * 4


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("glance", "en 1.500 [1.357, 1.658] de not measured"),
        ("answers", "The evidence does not support the claim in every case: de was not measured."),
        ("summary", "The perplexity with the neurons of de off was not measured."),
        ("summary", "off, without prompts in de, which were not answered."),
        ("text", "Stop words were not counted in answers to prompts in de: there are none."),
        ("differences", "No text or prompts in de were compared."),
        ("examples", "There are no answers to prompts in de."),
    ],
)
def test_a_language_without_anything_is_named(half: Page, section: str, words: str) -> None:
    assert words in half.sections[section]
    assert words not in intact().sections[section]


# -- no neurons --------------------------------------------------------------------------------------------------------


def page_of_few(en: int, de: int) -> Page:
    """So many neurons by every method: nothing is edited where there are none, and nothing changes."""
    found = {name: pd.concat([table, table.assign(method="probe")]) for name, table in neurons(en, de).items()}
    found["thresholds"] = found["thresholds"].assign(selected=en + de)
    none = {language for language, number in (("en", en), ("de", de)) if not number}
    tables = {name: complete()[name].copy() for name in ("differences", "perplexity")}
    for name, columns in (("differences", ["difference", "low", "high"]), ("perplexity", ["ratio"])):
        tables[name].loc[tables[name]["edited_language"].isin(none), columns] = 0.0 if name == "differences" else 1.0
    return page_with(**found, **tables)


def test_no_neuron_of_any_language() -> None:
    page = page_of_few(0, 0)
    assert shown_as_numbers(page) == []
    assert "en no neurons de no neurons" in page.sections["glance"]
    assert "No neuron belongs to en and de, so nothing was switched off there." in page.sections["answers"]
    assert "No neuron belongs to en and de, so nothing was changed to steer there." in page.sections["answers"]
    assert "0 of the 400 feed-forward neurons (0.0%) were selected" in page.sections["summary"]
    assert [row[-1] for row in page.tables[SUMMARY][2:]] == ["no neurons", "no neurons"]
    assert "Supported by this run Perplexity" not in page.sections["glance"]


def test_no_neuron_of_one_language() -> None:
    page = page_of_few(12, 0)
    assert "en 1.500 [1.357, 1.658] de no neurons" in page.sections["glance"]
    assert "No neuron belongs to de, so nothing was switched off there." in page.sections["answers"]
    assert "for de, the effect is not clearly above unperturbed text" in page.sections["answers"]
    assert "for en, the effect is not clearly above" not in page.sections["answers"]
    assert [row[-1] for row in page.tables[SUMMARY][2:]] == ["above both", "no neurons"]


def test_a_shift_of_the_residual_stream_needs_no_neurons() -> None:
    tables = complete() | neurons(0, 0)
    assert views.without_neurons("steer", "tiny", tables, complete_config()) == ["en", "de"]
    assert views.without_neurons("steer-residual", "tiny", tables, complete_config()) == []
    answered = [one for one in questions.answers(tables, complete_config()) if one.question == questions.RQ2]
    assert ["so nothing was changed" in paragraph for paragraph in answered[0].paragraphs[:2]] == [True, False]
