"""Answers that repeat their question, and short ones that only seem to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langneurons.metrics.copying import COPIES, SHORTEST_QUESTION, copied_question

QUESTION = "How do bees turn nectar into honey?"


@pytest.mark.parametrize(
    "answer",
    [
        QUESTION,
        f"Good question. {QUESTION} {QUESTION} They collect it.",
        "how do  BEES turn\nnectar into honey? Well,",  # case and white space do not count
    ],
)
def test_copies(answer: str) -> None:
    assert copied_question(answer, QUESTION) == 1


def test_copy_with_a_slip_is_a_copy() -> None:
    assert COPIES < copied_question("How do bees turns nectar into honey ? A: They", QUESTION) < 1


@pytest.mark.parametrize(
    "answer",
    [
        "They swallow the nectar, carry it to the hive, and let the water evaporate there.",
        "In a hive, workers pass what they have gathered from mouth to mouth until it thickens.",
        "To bake bread, mix flour, water, salt and yeast, and let the dough rise for two hours.",
    ],
)
def test_answers_are_no_copies(answer: str) -> None:
    assert copied_question(answer, QUESTION) < 0.7


@pytest.mark.parametrize(
    ("answer", "similarity"),
    [("honey?", 12 / 41), ("How", 6 / 38), ("h", 2 / 36), ("How do bees", 22 / 46), ("", 0), ("   ", 0), ("🙂", 0)],
)
def test_short_answers_are_compared_as_a_whole(answer: str, similarity: float) -> None:
    """Twice the common characters over the characters of both: a word of the question is no copy of it."""
    assert copied_question(answer, QUESTION) == pytest.approx(similarity)


def test_short_questions_are_compared_with_the_whole_answer() -> None:
    answer = "I know why? Because it rains, and because nobody has brought an umbrella."
    assert len("Why?") < SHORTEST_QUESTION
    assert copied_question(answer, "Why?") == pytest.approx(2 * 4 / (4 + len(answer)))
    assert copied_question("Why?", "Why?") == 1


@pytest.mark.parametrize("question", ["", "  \n"])
def test_without_a_question_there_is_nothing_to_copy(question: str) -> None:
    assert math.isnan(copied_question("An answer.", question))
    assert not copied_question("An answer.", question) > COPIES


def test_other_scripts() -> None:
    assert copied_question("请问，法国的首都是哪里？是巴黎。", "法国的首都是哪里？") == 1
    assert copied_question("巴黎是法国的首都，也是最大的城市。", "法国的首都是哪里？") < COPIES
    assert copied_question("אמרת: מהי בירת צרפת? פריז.", "מהי בירת צרפת?") == 1


def test_a_very_long_answer() -> None:
    assert copied_question("They fly. " * 20_000 + QUESTION, QUESTION) == 1
    assert copied_question("They fly. " * 20_000, QUESTION) < 0.7


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_a_share(answer: str, question: str) -> None:
    similarity = copied_question(answer, question)
    assert similarity == copied_question(answer, question) or math.isnan(similarity)
    assert math.isnan(similarity) or 0 <= similarity <= 1
