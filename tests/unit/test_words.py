"""Words as Unicode and dictionaries divide them, and the stop words among them."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langneurons.errors import UserError
from langneurons.metrics.language import UNDETERMINED, say_once
from langneurons.metrics.text import measure_outputs
from langneurons.metrics.words import SEGMENTERS, NoSegmenter, fold, stop_word_matrix, words, words_of_answers


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The dog's 3.14, can't e-mail foo_bar ___!", "en", ["The", "dog's", "3.14", "can't", "e", "mail", "foo_bar"]),
        ("don’t «stop» — now…", "en", ["don’t", "stop", "now"]),
        ("İstanbul'da ılık bir gün;\nçok iyi.", "tr", ["İstanbul'da", "ılık", "bir", "gün", "çok", "iyi"]),
        ('שלום, צה"ל!', "he", ["שלום", 'צה"ל']),
        ("السلامُ عليكم، أهلا", "ar", ["السلامُ", "عليكم", "أهلا"]),
        ("नमस्ते दुनिया।", "hi", ["नमस्ते", "दुनिया"]),  # with its vowel signs
        ("안녕 하세요.", "ko", ["안녕", "하세요"]),
        ("cafe\u0301 a\x00b", "fr", ["cafe\u0301", "a", "b"]),
        ("", "en", []),
        (" \n…!?", "en", []),
        ("🙂👩‍👩‍👧", "en", []),
        ("x", "xx", ["x"]),
        ("我喜欢吃苹果，因为它们很好吃。", "zh", ["我", "喜欢", "吃", "苹果", "因为", "它们", "很好", "吃"]),
        ("我喜歡吃蘋果，2024年🙂", "zh_tw", ["我", "喜歡", "吃", "蘋果", "2024", "年"]),
        ("今日は天気がいいですね。", "ja", ["今日", "は", "天気", "が", "いい", "です", "ね"]),
        ("ฉันชอบกินข้าวผัดมาก", "th", ["ฉัน", "ชอบ", "กิน", "ข้าว", "ผัด", "มาก"]),
        ("ຂ້ອຍມັກກິນເຂົ້າ", "lo", ["ຂ້ອຍ", "ມັກ", "ກິນເຂົ້າ"]),
        ("ខ្ញុំចូលចិត្តញ៉ាំបាយ", "km", ["ខ្ញុំ", "ចូលចិត្ត", "ញ៉ាំបាយ"]),
        ("ကျွန်တော်ထမင်းစားချင်တယ်", "my", ["ကျွန်တော်", "ထမင်းစား", "ချင်", "တယ်"]),
        ("", "zh", []),
        ("。，", "zh", []),
    ],
)
def test_words(text: str, language: str, expected: list[str]) -> None:
    assert words(text, language) == expected


def test_words_of_a_very_long_text() -> None:
    assert len(words("two words, " * 50_000, "en")) == 100_000
    assert words("我喜欢吃苹果。" * 5_000, "zh") == ["我", "喜欢", "吃", "苹果"] * 5_000


@given(st.text(max_size=40), st.sampled_from(["en", "tr", *SEGMENTERS]))
def test_words_stand_in_the_text(text: str, language: str) -> None:
    position = 0
    for word in words(text, language):
        assert any(map(str.isalnum, word))
        position = text.index(word, position) + len(word)
    assert words(text, language) == words(text, language)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("IŞIK İYİ", "tr", "ışık iyi"),
        ("IŞIQ İYİ", "az", "ışıq iyi"),
        ("I\u0307Yİ", "tr", "iyi"),  # İ in two characters
        ("INSIDE İ", "en", "inside i\u0307"),
        ("STRASSE Straße", "de", "strasse strasse"),
        ("Don’t", "en", "don't"),
        ("cafe\u0301", "fr", "café"),
        ("ΣΊΣΥΦΟΣ ς", "el", "σίσυφοσ σ"),
        ("", "en", ""),
    ],
)
def test_fold(text: str, language: str, expected: str) -> None:
    assert fold(text, language) == expected


@pytest.fixture
def _without_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    say_once.cache_clear()


@pytest.mark.usefixtures("_without_segmenter")
@pytest.mark.parametrize("language", [*SEGMENTERS, "zh_tw"])
def test_no_segmenter(language: str) -> None:
    base = language.partition("_")[0]
    with pytest.raises(NoSegmenter, match=rf"language '{base}' is written without spaces.*pip install icu4py\."):
        words("我", language)
    assert issubclass(NoSegmenter, UserError)


@pytest.mark.usefixtures("_without_segmenter")
def test_answers_that_cannot_be_divided(capsys: pytest.CaptureFixture[str]) -> None:
    """They stay empty, which is said once; the others are divided."""
    divided = words_of_answers(["我", "A B", "我们", "ฉัน"], ["zh", "en", "zh", "th"], ["en"] * 4)
    assert divided == [None, ["a", "b"], None, None]
    notes = capsys.readouterr().err.splitlines()
    assert [note.partition(" is")[0] for note in notes] == ["note: language 'zh'", "note: language 'th'"]
    assert all("pip install icu4py" in note for note in notes)


def test_answers_are_divided_by_their_own_language() -> None:
    """`I` is ı in Turkish; an undetermined answer is taken for one in the language of its prompt."""
    answers = ["IT", "IT", "IT", "IT", "我喜欢"]
    detected = ["tr", "en", UNDETERMINED, UNDETERMINED, UNDETERMINED]
    prompted = ["en", "tr", "tr", "en", "zh"]
    assert words_of_answers(answers, detected, prompted) == [["ıt"], ["it"], ["ıt"], ["it"], ["我", "喜欢"]]


LISTS = {"en": frozenset({"The", "it"}), "tr": frozenset({"Ve", "IŞIK"})}


def measured(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        rows, columns=["perturbation", "language", "output_language", "output"], index=range(7, 7 + len(rows))
    )


def test_matrix_by_hand() -> None:
    rows = [
        ("none", "en", "en", "The end, the IT."),
        ("none", "en", "fr", "the fin"),  # in no language of the run
        ("none", "en", "en", "It ve"),
        ("none", "en", UNDETERMINED, "the?"),
        ("off", "tr", "tr", "İşık ve IŞIK: the"),
    ]
    matrix = stop_word_matrix(measured(rows), LISTS)
    keys = ["perturbation", "language", "output_language", "list"]
    assert matrix.columns.tolist() == [*keys, "outputs", "words", "stop_words", "ratio"]
    assert matrix.to_numpy().tolist() == [
        ["none", "en", "en", "en", 2, 6, 4, 4 / 6],
        ["none", "en", "en", "tr", 2, 6, 1, 1 / 6],
        ["none", "en", "other", "en", 1, 2, 1, 1 / 2],
        ["none", "en", "other", "tr", 1, 2, 0, 0],
        ["none", "en", UNDETERMINED, "en", 1, 1, 1, 1],
        ["none", "en", UNDETERMINED, "tr", 1, 1, 0, 0],
        ["off", "tr", "tr", "en", 1, 4, 1, 1 / 4],
        ["off", "tr", "tr", "tr", 1, 4, 2, 2 / 4],  # İşık is işık, which is another word
    ]
    pd.testing.assert_frame_equal(matrix, stop_word_matrix(measured(rows), LISTS))


def test_matrix_of_answers_without_words() -> None:
    matrix = stop_word_matrix(measured([("none", "en", UNDETERMINED, ""), ("none", "en", UNDETERMINED, "🙂 …")]), LISTS)
    assert matrix[["outputs", "words", "stop_words"]].to_numpy().tolist() == [[2, 0, 0], [2, 0, 0]]
    assert matrix["ratio"].isna().all()


def test_matrix_of_chinese() -> None:
    lists = {"zh": frozenset({"我", "因为", "它们"}), "en": frozenset({"the"})}
    row = ("none", "zh", "zh", "我喜欢吃苹果，因为它们很好吃。")
    assert stop_word_matrix(measured([row]), lists)["ratio"].tolist() == [3 / 8, 0]


@pytest.mark.usefixtures("_without_segmenter")
def test_matrix_of_answers_that_cannot_be_divided() -> None:
    """Half of the answers would give numbers that look like all."""
    rows = [("none", "en", "zh", "我"), ("none", "en", "fr", "the"), ("none", "en", "en", "the the")]
    matrix = stop_word_matrix(measured(rows), LISTS)
    assert matrix["outputs"].tolist() == [2, 2, 1, 1]
    assert matrix[["words", "stop_words", "ratio"]].isna().all(axis=1).tolist() == [True, True, False, False]
    assert matrix.loc[2, ["words", "stop_words", "ratio"]].tolist() == [2, 2, 1]


def test_matrix_of_no_answers() -> None:
    assert stop_word_matrix(measured([]), LISTS).empty


def test_words_of_chinese_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """White space gives one word, a dictionary ten; without it, the measures of words are empty, and it is said."""
    say_once.cache_clear()
    rows = {
        "id": ["1", "2"],
        "output": ["我喜欢吃苹果，我喜欢吃苹果。我喜欢", "The old man walked slowly along the river."],
    }
    table = pd.DataFrame(rows).assign(perturbation="none", language="en", output_tokens=9)
    divided = measure_outputs(table, LISTS)
    assert divided["words"].tolist()[0] == 1
    assert divided["repeated_ngrams"].tolist() == [pytest.approx(3 / 7), 0]
    assert divided["distinct_2"].tolist() == [pytest.approx(4 / 9), 1]
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    without = measure_outputs(table, LISTS)
    assert without[["repeated_ngrams", "distinct_2"]].isna().all(axis=1).tolist() == [True, False]
    assert divided.columns.tolist() == without.columns.tolist()
    measure_outputs(table, LISTS)
    assert capsys.readouterr().err.count("pip install icu4py") == 1
