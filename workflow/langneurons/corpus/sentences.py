"""Sentences inside packed windows, for methods that compare single sentences of languages."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from langneurons.errors import CorpusError

ENDS = ".!?…。！？｡؟۔।॥።။\n"
"""Characters that end a sentence."""
BEFORE_SPACE = ".!?"
"""Those that end one only before white space or the end of a document: they also stand inside of numbers and names."""
CLOSING = "\"'”’»«)]」』）"
"""What may follow the end of a sentence and still belongs to it."""
END = re.compile(rf"[{re.escape(ENDS.strip())}]+[{re.escape(CLOSING)}]*|\n")
SHORTEST, LONGEST = 5, 64
"""Tokens of a sentence. Shorter pieces are abbreviations and headings; longer ones, and text without ends, are cut."""
UNFINISHED = "\ufffd"
"""What tokens decode to whose bytes are only a part of a character."""
BYTES = 4
"""Tokens that a character is made of at most: one for each of its bytes."""

Decode = Callable[[Sequence[int]], str]
"""The text of tokens, without special ones."""


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


def find_sentences(
    windows: np.ndarray, decode: Decode, separator: int | None, wanted: int, language: str
) -> list[Sentence]:
    """Find sentences in windows: one of each window in turn, then a second one of each, until there are enough.

    Ends are looked for in the text, and belong to the token that holds them. What a window begins with, the rest of a
    sentence of the window before, is left out, and so is what it ends with.

    Args:
        windows: uint32 `[window, position]`.
        decode: the text of tokens.
        separator: the token between documents, which ends a sentence; None where there is none.
        wanted: number of sentences.
        language: for the message.

    Raises:
        CorpusError: there are too few.
    """
    by_window: list[list[Sentence]] = []  # of windows that have some
    for number, row in enumerate(windows):
        ids = row.tolist()
        if found := _sentences(number, len(ids), sentence_ends(ids, decode, separator)):
            by_window.append(found)
        if len(by_window) == wanted:
            break  # one of each is enough
    rounds = range(max((len(found) for found in by_window), default=0))
    turns = [found[turn] for turn in rounds for found in by_window if turn < len(found)]
    if len(turns) < wanted:
        raise CorpusError(
            f"the recorded text of language '{language}' holds {len(turns)} whole sentences, but "
            f"identification.sentences asks for {wanted}. Lower it, or record more text (corpora.tokens.train)."
        )
    return sorted(turns[:wanted], key=lambda sentence: (sentence.window, sentence.start))


def sentence_ends(ids: Sequence[int], decode: Decode, separator: int | None) -> list[int]:
    """Where sentences end in a window: the positions behind their last tokens, ascending."""
    stops: set[int] = set()
    for start, stop in _documents(ids, separator):
        text, offsets = text_with_offsets(ids[start:stop], decode)
        for found in END.finditer(text):
            if _is_end(text, found):
                stops.add(start + bisect_left(offsets, found.end()) + 1)
        if stop < len(ids):
            stops.add(stop + 1)  # the separator belongs to what it ends
    return sorted(stop for stop in stops if stop <= len(ids))


def text_with_offsets(ids: Sequence[int], decode: Decode) -> tuple[str, list[int]]:
    """The text of tokens, and where in it the text of each ends.

    Tokens are decoded with those before them, since many have another text alone: none, or one without the space
    before it. A character that is made of several tokens belongs to the last of them; a token that is a part of none,
    such as the rest of one at the beginning of a window, has the text of an unknown character.
    """
    text, offsets = "", []
    context = first = 0  # where the tokens begin that ended the last character, and those that are not text yet
    for position in range(len(ids)):
        last = position + 1 == len(ids)
        while first <= position:
            more = decode(ids[context : position + 1])[len(decode(ids[context:first])) :]
            if not more.endswith(UNFINISHED) or last:
                text += more
                context, first = first, position + 1
            elif position + 1 - first < BYTES:
                break
            else:
                text += UNFINISHED
                context = first = first + 1
        offsets.append(len(text))
    return text, offsets


def _is_end(text: str, found: re.Match[str]) -> bool:
    """Whether marks end a sentence where they stand."""
    inside = all(mark in BEFORE_SPACE for mark in found[0].rstrip(CLOSING))
    return not inside or found.end() == len(text) or text[found.end()].isspace()


def _documents(ids: Sequence[int], separator: int | None) -> Iterator[tuple[int, int]]:
    """The runs of tokens between separators."""
    ends = [position for position, token in enumerate(ids) if token == separator]
    yield from ((first + 1, last) for first, last in pairwise([-1, *ends, len(ids)]))


def _sentences(window: int, length: int, stops: list[int]) -> list[Sentence]:
    """The sentences of one window."""
    if not stops:  # no end at all: a script without such marks
        stops = list(range(0, length + 1, LONGEST))
    result = []
    for start, stop in pairwise(stops):
        for begin in range(start, stop, LONGEST):
            end = min(begin + LONGEST, stop)
            if end - begin >= SHORTEST:
                result.append(Sentence(window, begin, end))
    return result
