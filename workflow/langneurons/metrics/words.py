"""Words, as Unicode and dictionaries divide them, and the stop words of every language among them.

The ratio of stop words in `metrics.text` is that of the replication, split at white space; this one is apart from it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import pandas as pd
import regex  # type: ignore[import-untyped]

from langneurons.errors import UserError
from langneurons.metrics.language import UNDETERMINED, say_once

OTHER = "other"
"""Detected, but no language of the run."""

SEGMENTERS = dict.fromkeys(("zh", "yue", "wuu", "ja", "th", "lo", "km", "my"), "icu4py")
"""Languages written without spaces, and the package on PyPI that divides them by a dictionary."""

DOTTED = {"tr", "az"}
"""Languages in which I is the capital of ı, and İ that of i."""

_WORD = regex.compile(r"\b\w.*?\b", regex.WORD | regex.DOTALL)  # WORD: the boundaries of Unicode's annex 29

Words = list[str]


class NoSegmenter(UserError):  # noqa: N818 (what is missing, not what is wrong)
    """A text in a language written without spaces, and no dictionary to divide it."""


def words(text: str, language: str) -> Words:
    """The words of a text, without punctuation: between the boundaries of Unicode's annex 29, with a letter or digit.

    Args:
        text: any text.
        language: its code. What follows an underscore does not count: zh_tw is divided as zh.

    Raises:
        NoSegmenter: the language is written without spaces, and the package that divides it is not installed.
    """
    found = _segments(text, _base(language)) if _base(language) in SEGMENTERS else _WORD.findall(text)
    return [word for word in found if any(map(str.isalnum, word))]


def fold(text: str, language: str) -> str:
    """A text without differences of case, of apostrophes and of composed characters, as its language has them."""
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    if _base(language) in DOTTED:
        text = text.replace("I", "ı").replace("İ", "i")
    return text.casefold()


def words_of_answers(answers: Sequence[str], detected: Sequence[str], prompted: Sequence[str]) -> list[Words | None]:
    """The folded words of answers, divided by the detected language, or by the prompt's where there is none.

    Returns:
        One list per answer; None where the package that divides the language is not installed, which is said once.
    """
    result: list[Words | None] = []
    for answer, found, prompt in zip(answers, detected, prompted, strict=True):
        language = prompt if found == UNDETERMINED else found
        try:
            result.append(words(fold(answer, language), language))
        except NoSegmenter as error:
            say_once(f"{error} Until then the measures of words stay empty.")
            result.append(None)
    return result


def stop_word_matrix(measured: pd.DataFrame, lists: dict[str, frozenset[str]]) -> pd.DataFrame:
    """How many stop words of each language the answers have, by the language of the prompt and of the answer.

    Args:
        measured: one row per answer: `perturbation, language, output, output_language`, from `measure_outputs`.
        lists: stop words by language. Case does not count.

    Returns:
        `perturbation, language, output_language, list, outputs, words, stop_words, ratio`, in the order of appearance.
        `language` is the prompt's; `output_language` is one of `lists`, `other` or `undetermined`; `list` is the
        language of the stop words; `ratio` is stop words over words, missing where there are no words. `words` and
        `stop_words` are missing where an answer could not be divided.
    """
    keys = ["perturbation", "language", "output_language"]
    table = measured[keys].reset_index(drop=True)
    divided = words_of_answers(*(measured[name].tolist() for name in ("output", "output_language", "language")))
    table["output_language"] = table["output_language"].where(
        table["output_language"].isin([*lists, UNDETERMINED]), OTHER
    )
    table["words"] = [None if row is None else len(row) for row in divided]
    parts = []
    for name, stop_words in lists.items():
        folded = {fold(word, name) for word in stop_words}
        counts = [None if row is None else sum(word in folded for word in row) for row in divided]
        parts.append(table.assign(list=name, stop_words=counts))
    rows = pd.concat(parts).sort_index(kind="stable").astype({"words": float, "stop_words": float})
    groups = rows.groupby([*keys, "list"], sort=False)
    matrix = groups[["words", "stop_words"]].sum(skipna=False)
    matrix.insert(0, "outputs", groups.size())
    matrix["ratio"] = matrix["stop_words"] / matrix["words"]
    return matrix.reset_index()


def _base(language: str) -> str:
    return language.partition("_")[0]


def _segments(text: str, language: str) -> Any:
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        raise NoSegmenter(
            f"language '{language}' is written without spaces, and the package that divides it into words is not "
            f"installed: pip install {SEGMENTERS[language]}."
        ) from None
    return WordBreaker(text, language)
