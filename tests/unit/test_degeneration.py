"""Loops, repeated n-grams and compression, by hand and against a plain search."""

from __future__ import annotations

import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langneurons.metrics.degeneration import (
    SHORTEST_LOOP,
    TIMES,
    compression_ratio,
    distinct_ngrams,
    loops,
    repeated_ngrams,
)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is no. The answer is no. The answer is no.",
        "First this. I like cats. I like cats. I like cats. I li",  # cut off
        "right now right  now right\nnow\n\nright now   \n",  # white space does not count
        "0" * SHORTEST_LOOP,
        "我不知道。我不知道。我不知道。",
        "ידעתי לא ידעתי לא ידעתי לא ידעתי לא",
        "🙂" * 10,
        "Well. " + "İstanbul ılık, " * 3,
    ],
)
def test_loops(text: str) -> None:
    assert loops(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "🙂",
        "   ",
        "Wait for it...",
        "Ha ha ha ha ha!",
        "0" * (SHORTEST_LOOP - 1),
        "The answer is no. The answer is no.",  # twice
        "The answer is no. The answer is no. The answer is no. Or is it yes?",  # not at the end
        "I like red cats. I like big cats. I like old cats.",
        "我不知道。我不知道。",
        "哈哈哈哈哈",
    ],
)
def test_no_loops(text: str) -> None:
    assert not loops(text)


def test_loops_of_long_texts() -> None:
    """A quadratic search would take hours."""
    passage = "".join(f"{number} bees, " for number in range(10_000))
    assert loops(passage * 3)
    assert not loops(passage * 2)
    assert not loops("ab" * 100_000 + "c")


def searched(text: str) -> bool:
    """The definition, tried for every length."""
    data = "".join(f" {part}" for part in text.split()).encode()
    return any(
        data[-size:] == data[-size - period : -period]
        for period in range(1, len(data))
        for size in [max(SHORTEST_LOOP, TIMES * period) - period]
        if size + period <= len(data)
    )


@given(st.text("ab ", max_size=12), st.text("abcü", min_size=1, max_size=14), st.integers(1, 40), st.integers(0, 13))
def test_loops_as_defined(start: str, passage: str, times: int, cut: int) -> None:
    text = start + passage * times + passage[:cut]
    assert loops(text) == searched(text)


def test_repeated_ngrams_by_hand() -> None:
    words = ["a", "b", "c", "d", "a", "b", "c", "d", "e"]  # abcd bcda cdab dabc abcd bcde: one of six was there before
    assert repeated_ngrams(words) == pytest.approx(1 / 6)
    assert repeated_ngrams(["a"] * 10) == pytest.approx(6 / 7)
    assert repeated_ngrams(["a", "b", "c", "d", "e", "f"]) == 0
    assert repeated_ngrams(["a", "b", "c", "d"]) == 0


def test_distinct_bigrams_by_hand() -> None:
    assert distinct_ngrams(["a", "b", "a", "b"]) == pytest.approx(2 / 3)
    assert distinct_ngrams(["a"] * 11) == 0.1
    assert distinct_ngrams(["a", "b"]) == 1


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b", "c"]])
def test_too_few_words_have_no_ngrams(words: list[str]) -> None:
    assert math.isnan(repeated_ngrams(words))
    assert math.isnan(distinct_ngrams(words[:1]))


def test_compression_by_hand() -> None:
    text = "Straße 我 "
    assert compression_ratio(text) == 12 / len(zlib.compress(text.encode(), 9))
    assert math.isnan(compression_ratio(""))


def test_repetition_compresses() -> None:
    varied = "The old man walked slowly along the river and thought about his daughter."
    assert compression_ratio("a") < 0.2
    assert 0.9 < compression_ratio(varied) < 1.1
    assert compression_ratio(varied * 10) > 7
    assert compression_ratio(varied * 1000) > 100
