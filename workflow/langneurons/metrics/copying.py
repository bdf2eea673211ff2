"""Answers that repeat their question."""

from __future__ import annotations

import math

from rapidfuzz import fuzz

COPIES = 0.9
"""An answer more similar to its question than this copies it.

The 840 published answers of LLaMA-2-7B, beside a question that is not their own, stay below 0.65. Answers that take up
the words of their question (`The best ways to save water are …`) are mostly at 0.7 to 0.85.
"""

SHORTEST_QUESTION = 8
"""Characters. A shorter question can stand in a long answer by chance, and is compared with the whole answer."""


def copied_question(answer: str, question: str) -> float:
    """How similar the passage of an answer that is most like the question is to the question.

    Letter case and the amount of white space do not count. An answer that is shorter than its question is compared as a
    whole with the whole question: else `the` would be a perfect copy of every question with that word.

    Returns:
        0 (no character in common, or an empty answer) to 1 (the answer has the whole question); NaN where the question
        is empty.
    """
    answer, question = _plain(answer), _plain(question)
    if not question:
        return math.nan
    whole = len(answer) <= len(question) or len(question) < SHORTEST_QUESTION
    compare = fuzz.ratio if whole else fuzz.partial_ratio
    return compare(question, answer) / 100


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
