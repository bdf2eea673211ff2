"""Text metrics, by hand and on the published answers of the replication."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from langneurons import artifacts
from langneurons.errors import UserError
from langneurons.metrics.language import UNDETERMINED, identify, say_once
from langneurons.metrics.text import measure_outputs, output_languages, stop_words, summarise
from langneurons.metrics.words import stop_word_matrix

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
    with pytest.raises(UserError, match=r"latin \(the stop-word list of language 'de'\): not UTF-8"):
        stop_words("de", str(tmp_path / "latin"))


# -- language: two identifiers, and a threshold -----------------------------------------------------------------------

NO_LISTS = {"en": frozenset[str]()}


def answers(*texts: str, **columns: str | None) -> pd.DataFrame:
    """Unperturbed answers to English prompts."""
    rows = [("none", "en", f"en-{number}", text) for number, text in enumerate(texts, 1)]
    return outputs(rows).assign(**columns)


def test_both_identifiers() -> None:
    measured = measure_outputs(answers(ENGLISH, GERMAN, TURKISH, "", "🙂", "I"), NO_LISTS)
    expected = ["en", "de", "tr", *[UNDETERMINED] * 3]
    assert measured["output_language"].tolist() == measured["second_language"].tolist() == expected
    assert measured["confidence"].tolist() == [confidence for _, confidence in identify(measured["output"].tolist())]
    assert 0 < measured.loc[5, "confidence"] < 0.5  # kept
    assert measured.loc[3:4, ["confidence", "second_confidence"]].to_numpy().tolist() == [[0, 0], [0, 0]]
    assert measured["identifier"].unique().tolist() == ["lingua"]
    assert measured["second_identifier"].unique().tolist() == ["py3langid"]


def test_threshold() -> None:
    texts = [ENGLISH, GERMAN, TURKISH]
    certain = measure_outputs(answers(*texts), NO_LISTS, threshold=1)
    bar = measure_outputs(answers(*texts), NO_LISTS, threshold=certain["confidence"].median())
    assert (bar["output_language"] == UNDETERMINED).sum() == 1  # a confidence as high as the threshold is enough
    assert bar["confidence"].tolist() == certain["confidence"].tolist()
    assert measure_outputs(answers("I"), NO_LISTS, threshold=0)["output_language"].tolist() != [UNDETERMINED]


def test_one_identifier() -> None:
    measured = measure_outputs(answers(ENGLISH, ""), NO_LISTS, ["py3langid"])
    assert measured["output_language"].tolist() == ["en", UNDETERMINED]
    assert measured["identifier"].tolist() == ["py3langid"] * 2
    assert measured[["second_language", "second_confidence", "second_identifier"]].isna().all(axis=None)
    assert summarise(measured, ["en"])["agreement"].isna().all()


@pytest.mark.parametrize("identifiers", [[], ["lingua", "py3langid", "lingua"]])
def test_number_of_identifiers(identifiers: list[str]) -> None:
    with pytest.raises(UserError, match=rf"metrics\.identifiers: name one or two .* not {len(identifiers)}\."):
        measure_outputs(answers("a"), NO_LISTS, identifiers)


def test_unknown_identifier() -> None:
    with pytest.raises(UserError, match="'cld9' is no language identifier"):
        measure_outputs(answers("a"), NO_LISTS, ["lingua", "cld9"])


def test_a_language_that_the_identifier_does_not_know_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    say_once.cache_clear()
    lists = {"en": frozenset[str](), "xx": frozenset[str](), "mi": frozenset[str]()}
    for identifiers in (["lingua"], ["lingua", "py3langid"], ["py3langid"]):
        measure_outputs(answers(ENGLISH), lists, identifiers)
    notes = [line.partition(":")[2].partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert notes == [
        " the language identifier 'lingua' does not know language 'xx'",
        " the language identifier 'py3langid' does not know language 'xx'",
        " the language identifier 'py3langid' does not know language 'mi'",
    ]


def test_shares_are_those_of_the_first_identifier() -> None:
    """lingua knows Maori and py3langid does not; it is the other way round with Galician."""
    for identifier, missing in (("lingua", "gl"), ("py3langid", "mi")):
        summary = summarise(measure_outputs(answers(ENGLISH), NO_LISTS, [identifier]), ["en", "gl", "mi"]).iloc[0]
        assert pd.isna(summary[f"share_{missing}"])
        assert summary[["share_gl", "share_mi"]].notna().sum() == 1


# -- copying and degeneration -----------------------------------------------------------------------------------------

QUESTION = "Where did the old man walk, and what did he think about?"


def test_copied_question() -> None:
    """`question` where there is one, else `input`, else nothing."""
    texts = [f"{QUESTION} I do not know.", ENGLISH, "the", ""]
    measured = measure_outputs(answers(*texts, question=QUESTION, input=f"Q: {ENGLISH}\nA:"), NO_LISTS)
    assert measured["copied_question"].iloc[0] == 1
    assert measured["copied_question"].iloc[1:].between(0, 0.7).all()
    assert measured["copies"].tolist() == [True, False, False, False]
    assert measured["copies"].dtype == bool
    for columns in ({"input": QUESTION}, {"question": None, "input": QUESTION}):
        assert measure_outputs(answers(*texts, **columns), NO_LISTS)["copies"].tolist() == [True, False, False, False]
    for columns in ({}, {"question": None}, {"input": None}, {"input": ""}):
        unknown = measure_outputs(answers(*texts, **columns), NO_LISTS)
        assert unknown["copied_question"].isna().all()
        assert not unknown["copies"].any()


def test_degeneration() -> None:
    loop = "I do not know. I do not know. I do not know."
    measured = measure_outputs(answers(ENGLISH, loop, "", "🙂"), NO_LISTS)
    assert measured["loops"].tolist() == [False, True, False, False]
    assert measured["loops"].dtype == bool
    assert measured["repeated_ngrams"].tolist()[:2] == [0, pytest.approx(5 / 9)]  # 12 words, 9 of 4; 4 are distinct
    assert measured["distinct_2"].tolist()[:2] == [1, pytest.approx(4 / 11)]
    assert measured[["repeated_ngrams", "distinct_2"]].iloc[2:].isna().all(axis=None)
    ratios = measured["compression_ratio"]
    assert ratios[1] > 1.5 > ratios[0] > ratios[3] > 0
    assert pd.isna(ratios[2])


def test_summary_of_languages_copying_and_degeneration_by_hand() -> None:
    """Lengths and languages as if they were measured; of five outputs both identifiers determine three."""
    some = {"perturbation": "off", "language": "de", "output_tokens": 1, "characters": 1, "words": 1, "stop_words": 0}
    rows = {
        "output_language": ["en", "de", "en", UNDETERMINED, "fr"],
        "second_language": ["en", "en", UNDETERMINED, "de", "fr"],
        "copies": [True, False, False, False, False],
        "loops": [True, True, False, False, False],
        "repeated_ngrams": [0.5, 0.25, None, None, 0],
        "distinct_2": [0.5, 1, 1, None, None],
        "compression_ratio": [1, 2, 3, 4, None],
    }
    known = {"empty": False, "identical_to_baseline": False, "identifier": "lingua"}
    row = summarise(pd.DataFrame(rows).assign(**some, **known), ["de", "en"]).iloc[0]
    shares = row[["prompt_language", "share_de", "share_en", "english", "undetermined"]]
    assert shares.tolist() == [0.2, 0.2, 0.4, 0.4, 0.2]
    assert row["share_other"] == 0.4  # fr and the undetermined one
    assert row[["copies", "loops", "repeated_ngrams", "distinct_2"]].tolist() == [0.2, 0.4, 0.25, 2.5 / 3]
    assert row["compression_ratio"] == 2.5
    assert row["agreement"] == pytest.approx(2 / 3)


def test_no_determined_answers_do_not_agree() -> None:
    row = summarise(measure_outputs(answers("", "🙂"), NO_LISTS), ["en"]).iloc[0]
    assert row[["english", "undetermined", "copies", "loops", "share_other"]].tolist() == [0, 1, 0, 0, 1]
    assert row[["agreement", "repeated_ngrams", "distinct_2"]].isna().all()


def test_scripts_from_right_to_left_and_very_long_answers() -> None:
    hebrew = "האיש הזקן הלך לאט לאורך הנהר וחשב על בתו."
    row = measure_outputs(answers(hebrew, ENGLISH * 500), NO_LISTS)
    assert row["output_language"].tolist() == ["he", "en"]
    assert row["words"].tolist()[0] == 9
    assert row["loops"].tolist() == [False, True]


def test_the_same_answers_give_the_same_table() -> None:
    table = answers(ENGLISH, GERMAN, TURKISH, "", "🙂", "I", "我喜欢吃苹果", "the the the", input=QUESTION)
    before = table.copy()
    first, second = measure_outputs(table, NO_LISTS), measure_outputs(table, NO_LISTS)
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    pd.testing.assert_frame_equal(summarise(first, ["en"]), summarise(second, ["en"]), check_exact=True)
    pd.testing.assert_frame_equal(table, before)  # the input is left alone


def test_no_outputs() -> None:
    assert measure_outputs(answers("a", input="b").iloc[:0], NO_LISTS).empty


# -- the script -------------------------------------------------------------------------------------------------------


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    """The folder of files of two answers each, for two perturbations and two languages."""
    folder = tmp_path / "generations"
    for perturbation in ("none", "off"):
        for language, text in (("en", ENGLISH), ("tr", TURKISH)):
            about = {"split": "test", "input": QUESTION, "output_tokens": 9, "finish_reason": "stop"}
            records = [about | {"id": f"{language}-1", "output": text}, about | {"id": f"{language}-2", "output": ""}]
            artifacts.write_records(folder / perturbation / f"{language}.jsonl", "generations", records)
    return folder


def score(folder: Path, generations: Path, *options: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the script: the measures and the matrix."""
    from scripts import score_text

    files = [str(folder / "text.parquet"), str(folder / "stop-words.parquet")]
    run = ["--perturbations", "none", "off", "--languages", "en", "tr", "--generations", str(generations)]
    score_text.main([*run, *options, "--output", files[0], "--output-matrix", files[1]])
    return artifacts.read_table(files[0], "text-metrics")[0], artifacts.read_table(files[1], "stop-words")[0]


def test_script(tmp_path: Path, generations: Path) -> None:
    measured, matrix = score(tmp_path, generations)
    assert measured[["perturbation", "language", "output_language"]].drop_duplicates().to_numpy().tolist() == [
        [perturbation, language, found]
        for perturbation in ("none", "off")
        for language in ("en", "tr")
        for found in (language, UNDETERMINED)
    ]
    assert measured["identical_to_baseline"].all()
    assert measured["second_identifier"].eq("py3langid").all()
    assert matrix["outputs"].tolist() == [1] * 16  # two perturbations, prompts, detected languages and lists
    lists = {language: stop_words(language, None) for language in ("en", "tr")}
    pd.testing.assert_frame_equal(matrix, stop_word_matrix(measured, lists))


def test_script_writes_the_same_files_twice(tmp_path: Path, generations: Path) -> None:
    files = [tmp_path / "text.parquet", tmp_path / "stop-words.parquet"]
    score(tmp_path, generations)
    first = [file.read_bytes() for file in files]
    score(tmp_path, generations)
    assert [file.read_bytes() for file in files] == first


def test_options_of_the_script(tmp_path: Path, generations: Path) -> None:
    (tmp_path / "own").write_text("OLD\n")
    own = json.dumps({"en": str(tmp_path / "own")})
    options = ["--identifiers", "py3langid", "--threshold", "1", "--stop-words", own]
    measured, matrix = score(tmp_path, generations, *options)
    assert measured["identifier"].eq("py3langid").all()
    assert measured[["second_language", "second_confidence", "second_identifier"]].isna().all(axis=None)
    assert measured["output_language"].tolist() == [UNDETERMINED] * 8
    english = measured["language"] == "en"
    assert measured.loc[english, "stop_words"].sum() == 0  # case counts, as in the replication
    cells = matrix[(matrix["language"] == "en") & (matrix["list"] == "en")]
    assert cells["stop_words"].tolist() == [1, 1]  # and here it does not
