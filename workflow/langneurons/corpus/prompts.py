"""Questions that models answer, one per line of a text file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from langneurons.corpus.textfiles import read_lines
from langneurons.errors import CorpusError


@dataclass(frozen=True)
class Prompt:
    """One question."""

    id: str
    """`<language>-<line>`, such as en-021."""
    split: str
    """valid or test."""
    question: str


def read_prompts(path: str | Path, language: str, validation_prompts: int, split: str) -> list[Prompt]:
    """Read a language's questions and keep those of a split.

    Args:
        path: UTF-8 text, one question per line; empty lines do not count.
        language: for ids and messages.
        validation_prompts: the first so many questions are `valid`, the others `test`.
        split: valid, test or all.

    Raises:
        CorpusError: not UTF-8, or no question in the split.
    """
    questions = read_lines(path, f"the prompts of language '{language}'")
    prompts = [
        Prompt(f"{language}-{number:03d}", "valid" if number <= validation_prompts else "test", question)
        for number, question in enumerate(questions, 1)
    ]
    kept = [prompt for prompt in prompts if split in ("all", prompt.split)]
    if not kept:
        raise CorpusError(
            f"{path}: language '{language}' has no prompts of split '{split}' ({len(questions)} questions in "
            f"the file, the "
            f"first {validation_prompts} are for validation). Add questions, one per line, or lower "
            "generation.validation_prompts."
        )
    return kept
