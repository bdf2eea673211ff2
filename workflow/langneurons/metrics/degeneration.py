"""Answers that go round in circles."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

TIMES = 3
"""A passage that stands at the end of an answer at least so many times in a row is a loop."""

SHORTEST_LOOP = 30
"""Bytes of UTF-8 of all repetitions together: `...`, `ha ha ha` and a short dashed line are no loops.

Bytes and not characters, since ten Chinese characters say about as much as thirty Latin letters.
"""


def loops(text: str) -> bool:
    """Whether a text ends in the same passage at least three times in a row, the last time perhaps cut off.

    The amount of white space does not count. Takes time in proportion to the length.
    """
    # White space also before the first word, or a text that is all loop would lack that of its first passage.
    reverse = "".join(f" {part}" for part in text.split()).encode()[::-1]
    # Knuth, Morris and Pratt's prefix function: border[i] is the length of the longest proper prefix of reverse[:i + 1]
    # that is also its end. The shortest passage whose repetition gives these i + 1 bytes has i + 1 - border[i] bytes.
    border = [0] * len(reverse)
    for index in range(1, len(reverse)):
        length = border[index - 1]
        while length and reverse[index] != reverse[length]:
            length = border[length - 1]
        border[index] = length + (reverse[index] == reverse[length])
        end = index + 1
        if end >= SHORTEST_LOOP and end >= TIMES * (end - border[index]):
            return True
    return False


def repeated_ngrams(words: Sequence[str], size: int = 4) -> float:
    """Share of a text's word n-grams that occurred before in it; NaN for fewer than `size` words."""
    return 1 - distinct_ngrams(words, size)


def distinct_ngrams(words: Sequence[str], size: int = 2) -> float:
    """Distinct word n-grams over all of a text; NaN for fewer than `size` words."""
    grams = list(zip(*(words[start:] for start in range(size)), strict=False))  # the later starts end earlier
    return len(set(grams)) / len(grams) if grams else math.nan


def compression_ratio(text: str) -> float:
    """Bytes of a text over its bytes after zlib, level 9; NaN for an empty text.

    The higher, the more repetitive. Short texts are below 1, since zlib adds about ten bytes: compare texts of like
    length only.
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data, 9)) if data else math.nan
