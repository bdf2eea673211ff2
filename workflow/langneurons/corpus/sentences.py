"""Sentences inside packed windows, for methods that compare single sentences of languages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from langneurons.errors import CorpusError

ENDS = (".", "!", "?", "…", "。", "！", "？", "｡", "؟", "۔", "।", "॥", "።", "။", "\n")
"""A token that ends in one of these ends a sentence."""
CLOSING = "\"'”’»«)]」』）"
"""What may follow the end of a sentence in the same token."""
SHORTEST, LONGEST = 5, 64
"""Tokens of a sentence. Shorter pieces are abbreviations and headings; longer ones, and text without ends, are cut."""


@dataclass(frozen=True)
class Sentence:
    """A run of tokens within one window."""

    window: int
    start: int
    stop: int
    """Behind its last token."""

    @property
    def tokens(self) -> int:
        """Its length."""
        return self.stop - self.start


def find_sentences(windows: np.ndarray, decode: Callable[[int], str], wanted: int, language: str) -> list[Sentence]:
    """Find sentences in windows: one of each window in turn, then a second one of each, until there are enough.

    What a window begins with, the rest of a sentence of the window before, is left out, and so is what it ends with.

    Args:
        windows: uint32 `[window, position]`.
        decode: the text of one token.
        wanted: number of sentences.
        language: for the message.

    Raises:
        CorpusError: there are too few.
    """
    ends = _ends(windows, decode)
    by_window = [_sentences(number, row) for number, row in enumerate(ends)]
    rounds = range(max((len(found) for found in by_window), default=0))
    turns = [found[turn] for turn in rounds for found in by_window if turn < len(found)]
    if len(turns) < wanted:
        raise CorpusError(
            f"the recorded text of language '{language}' holds {len(turns)} whole sentences, but "
            f"identification.sentences asks for {wanted}. Lower it, or record more text (corpora.tokens.train)."
        )
    return sorted(turns[:wanted], key=lambda sentence: (sentence.window, sentence.start))


def _ends(windows: np.ndarray, decode: Callable[[int], str]) -> np.ndarray:
    """Which tokens end a sentence, bool `[window, position]`."""
    known = np.unique(windows)
    texts = [decode(int(token)) for token in known]
    # A token without text is the end of a document.
    end = [not text or text.rstrip(" ").rstrip(CLOSING).endswith(ENDS) for text in texts]
    return np.isin(windows, known[end])


def _sentences(window: int, ends: np.ndarray) -> list[Sentence]:
    """The sentences of one window."""
    stops = (np.flatnonzero(ends) + 1).tolist()
    if not stops:  # no end at all: a script without such marks
        stops = list(range(0, len(ends) + 1, LONGEST))
    result = []
    for start, stop in pairwise(stops):
        for begin in range(start, stop, LONGEST):
            end = min(begin + LONGEST, stop)
            if end - begin >= SHORTEST:
                result.append(Sentence(window, begin, end))
    return result
