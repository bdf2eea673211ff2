"""Text metrics, by hand and on the published answers of the replication."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from langneurons.errors import UserError
from langneurons.metrics.language import UNDETERMINED, identify
from langneurons.metrics.text import measure_outputs, output_languages, stop_words, summarise

REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))

ENGLISH = "The old man walked slowly along the river and thought about his daughter."
GERMAN = "Der alte Mann ging langsam am Fluss entlang und dachte an seine Tochter."
TURKISH = "Yaşlı adam nehir boyunca yavaşça yürüdü ve kızını düşündü."


def outputs(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Rows of (perturbation, language, id, output)."""
    table = pd.DataFrame(rows, columns=["perturbation", "language", "id", "output"])
    return table.assign(output_tokens=range(1, len(rows) + 1))


def test_lengths_and_stop_words_by_hand() -> None:
    """`The` is not in the list: case is kept, as in the replication. `and,` is not: words are split at white space."""
    lists = {"en": frozenset({"the", "and", "of"})}
    measured = measure_outputs(outputs([("none", "en", "en-1", "The end of the\nday and, so on")]), lists)
    row = measured.iloc[0]
    assert (row["characters"], row["words"], row["stop_words"]) == (29, 8, 2)
    assert not row["empty"]


def test_summary_by_hand() -> None:
    lists = {"en": frozenset({"the"}), "de": frozenset({"der"})}
    rows = [
        ("none", "en", "en-1", "the the a"),
        ("none", "en", "en-2", "a"),
        ("off", "en", "en-1", "the the a"),
        ("off", "en", "en-2", ""),
        ("none", "de", "de-1", "der the"),
        ("off", "de", "de-1", "der der"),
    ]
    summary = summarise(measure_outputs(outputs(rows), lists), ["en", "de"]).set_index(["perturbation", "language"])
    assert summary.loc[("none", "en"), "outputs"] == 2
    assert summary.loc[("none", "en"), "mean_characters"] == (9 + 1) / 2
    assert summary.loc[("none", "en"), "mean_words"] == (3 + 1) / 2
    assert summary.loc[("none", "en"), "mean_tokens"] == (1 + 2) / 2
    assert (
        summary.loc[("none", "en"), "stop_word_ratio"] == 2 / 4
    )  # over all words of all outputs, not a mean of ratios
    assert summary.loc[("off", "en"), "stop_word_ratio"] == 2 / 3
    assert summary.loc[("off", "en"), "identical_to_baseline"] == 0.5
    assert summary.loc[("off", "en"), "empty"] == 0.5
    assert summary.loc[("none", "de"), "stop_word_ratio"] == 1 / 2  # the list of the prompt's language
    assert summary.loc[("none", "de"), "identical_to_baseline"] == 1
    assert summary.loc[("off", "de"), "identical_to_baseline"] == 0


def test_only_empty_outputs_have_no_ratio() -> None:
    summary = summarise(measure_outputs(outputs([("none", "en", "en-1", "")]), {"en": frozenset({"the"})}), ["en"])
    assert pd.isna(summary.loc[0, "stop_word_ratio"])
    assert summary.loc[0, "mean_characters"] == 0
    assert (summary.loc[0, "prompt_language"], summary.loc[0, "share_other"]) == (0, 1)


def test_languages_are_identified() -> None:
    named = identify([ENGLISH, GERMAN, TURKISH])
    assert [language for language, _ in named] == ["en", "de", "tr"]
    assert all(0.5 < confidence <= 1 for _, confidence in named)  # more probable than all other languages together


@pytest.mark.parametrize("text", ["", "   ", "1234 5678", "!?…"])
def test_text_without_letters_is_undetermined(text: str) -> None:
    assert identify([text]) == [(UNDETERMINED, 0.0)]


def test_language_shares() -> None:
    """Shares are of all outputs; a language outside the run is `other`."""
    french = "Le vieil homme marchait lentement le long de la rivière en pensant à sa fille."
    rows = [("none", "en", f"en-{i}", text) for i, text in enumerate([ENGLISH, ENGLISH, GERMAN, french])]
    measured = measure_outputs(outputs(rows), {"en": frozenset()})
    summary = summarise(measured, ["en", "de", "tr"]).iloc[0]
    assert summary[["share_en", "share_de", "share_tr", "share_other", "prompt_language"]].tolist() == [
        0.5,
        0.25,
        0,
        0.25,
        0.5,
    ]
    table = output_languages(measured)
    assert dict(zip(table["output_language"], table["share"], strict=True)) == {"en": 0.5, "de": 0.25, "fr": 0.25}


def test_stop_word_lists(tmp_path: Path) -> None:
    assert {"the", "and"} <= stop_words("en", None)
    assert stop_words("xx", "de") == stop_words("de", None)
    own = tmp_path / "own.txt"
    own.write_text("çok\nve\n", encoding="utf-8")
    assert stop_words("tr", str(own)) == {"çok", "ve"}


def test_missing_stop_word_list() -> None:
    with pytest.raises(UserError, match=r"language 'xx' has no stop-word list.*metrics\.stop_words\.xx"):
        stop_words("xx", None)


def test_empty_stop_word_list(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(UserError, match=r"empty\.txt: the stop-word list of language 'xx' is empty"):
        stop_words("xx", str(empty))


PUBLISHED = {
    "en": [(780.600, 0.408), (940.629, 0.390), (1345.214, 0.432), (1569.071, 0.316)],
    "de": [(1327.300, 0.203), (1252.457, 0.195), (1295.400, 0.205), (833.957, 0.102)],
    "tr": [(471.114, 0.008), (536.686, 0.029), (314.014, 0.002), (453.400, 0.003)],
}
"""Mean characters and stop-word ratio of LLaMA-2-7B, unperturbed and with the neurons of en, de, tr off: the table of
the replication, printed with three digits."""


@pytest.mark.parametrize("language", ["en", "de", "tr"])
def test_published_table(language: str) -> None:
    """Our definitions give the replication's table from its answers and its lists, to the printed digits."""
    folder = REFERENCE / "generations" / "Llama-2-7b-hf"
    if not folder.is_dir():
        pytest.skip(f"no published generations in {folder}; name their folder in LANGNEURONS_REFERENCE")
    name = {"en": "english", "de": "german", "tr": "turkish"}[language]
    lists = {language: stop_words(language, str(REFERENCE / "stopwords" / name))}
    off = [f"{language}.perturb.{other}.train.llama-7b.jsonl" for other in ("en", "de", "tr")]
    for (characters, ratio), file in zip(PUBLISHED[language], [f"{language}.jsonl", *off], strict=True):
        answers = [entry["output"] for entry in json.loads((folder / file).read_text(encoding="utf-8"))]
        rows = [("none", language, str(index), answer) for index, answer in enumerate(answers)]
        summary = summarise(measure_outputs(outputs(rows), lists), [language]).iloc[0]
        assert summary["outputs"] == 70
        assert round(summary["mean_characters"], 3) == characters
        assert round(summary["stop_word_ratio"], 3) == ratio


def test_baseline_is_that_of_the_same_language() -> None:
    """Published answers often number every language's prompts alike."""
    rows = [("none", "en", "1", "a"), ("none", "de", "1", "b"), ("off", "en", "1", "b"), ("off", "de", "1", "b")]
    lists = {"en": frozenset(), "de": frozenset()}
    measured = measure_outputs(outputs(rows), lists)
    assert measured["identical_to_baseline"].tolist() == [True, True, False, True]


def test_without_a_baseline_sameness_is_not_known() -> None:
    measured = measure_outputs(outputs([("off", "en", "1", "a")]), {"en": frozenset()})
    assert measured["identical_to_baseline"].isna().all()
    assert summarise(measured, ["en"])["identical_to_baseline"].isna().all()


def test_published_answers_have_no_number_of_tokens() -> None:
    table = outputs([("none", "en", "1", "a")]).assign(output_tokens=None)
    assert summarise(measure_outputs(table, {"en": frozenset()}), ["en"])["mean_tokens"].isna().all()


def test_share_of_a_language_that_the_detector_does_not_know_is_missing() -> None:
    lists = {"en": frozenset(), "xx": frozenset()}
    summary = summarise(
        measure_outputs(outputs([("none", "en", "1", ENGLISH), ("none", "xx", "1", ENGLISH)]), lists), ["en", "xx"]
    )
    assert summary["share_en"].tolist() == [1, 1]
    assert summary["share_xx"].isna().all()
    assert summary["prompt_language"].isna().tolist() == [False, True]


def test_stop_words_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("für".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin: the stop-word list of language 'de' is not UTF-8"):
        stop_words("de", str(tmp_path / "latin"))
