"""Text files that others wrote: one reader, for documents, questions and lists of words.

Text is UTF-8, with or without a byte-order mark. A line ends in a line feed, a carriage return or both, and in nothing
else: other separators, such as U+2028, belong to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from langneurons.errors import CorpusError

MARK = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8, which is no text."""
LINE_END = re.compile(rb"(?>\r\n|\r|\n)")
PARAGRAPH_END = re.compile(rb"(?>\r\n|\r|\n){2}")
LONGEST_END = 4
"""Bytes of the longest of these."""
CHUNK = 1 << 20
"""Bytes that are read at a time."""
OTHER_FORMS = {
    b"\x1f\x8b": ("compressed with gzip", "gzip -dc {0} > {0}.txt"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "zstd -dc {0} > {0}.txt"),
    **{b"BZh%d1AY" % level: ("compressed with bzip2", "bzip2 -dc {0} > {0}.txt") for level in range(1, 10)},
    b"\xfd7zXZ": ("compressed with xz", "xz -dc {0} > {0}.txt"),
    b"PK\x03\x04": ("a zip archive", "unzip {0}"),
    b"\xff\xfe": ("UTF-16", "iconv -f UTF-16 -t UTF-8 {0} > {0}.txt"),
    b"\xfe\xff": ("UTF-16", "iconv -f UTF-16 -t UTF-8 {0} > {0}.txt"),
}
"""What a file is that begins with these bytes, and what makes text of it."""


def read_text(path: str | Path, what: str = "") -> str:
    """A whole file, its line ends as line feeds.

    Args:
        path: the file.
        what: what it is for, for messages, such as "the prompts of language 'en'".

    Raises:
        CorpusError: it cannot be read, or is not UTF-8.
    """
    with opened(path, what) as handle:
        content = handle.read()
    return decoded(content, path, what)


def read_lines(path: str | Path, what: str = "") -> list[str]:
    """The lines of a whole file, without white space around them; empty ones, and comments that begin with #, are left
    out.

    Raises:
        CorpusError: it cannot be read, or is not UTF-8.
    """
    lines = [line.strip() for line in read_text(path, what).split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def opened(path: str | Path, what: str = "") -> BinaryIO:
    """A file opened for reading, behind its byte-order mark.

    Raises:
        CorpusError: it cannot be read, is compressed or UTF-16.
    """
    place = _place(path, what)
    try:
        handle = Path(path).open("rb")  # noqa: SIM115 (the caller closes it)
        start = handle.read(8)
    except OSError as error:
        raise CorpusError(f"{place}: cannot be read ({error.strerror}).") from None
    for mark, (form, command) in OTHER_FORMS.items():
        if start.startswith(mark):
            raise CorpusError(f"{place}: {form}, not UTF-8 text. Convert it: {command.format(path)}")
    handle.seek(len(MARK) if start.startswith(MARK) else 0)
    return handle


def decoded(content: bytes, path: str | Path, what: str = "", start: int = 0) -> str:
    """Text of a file, its line ends as line feeds.

    Args:
        content: a part of the file.
        path, what: for messages.
        start: where the part begins.

    Raises:
        CorpusError: it is not UTF-8, or holds null characters, as UTF-16 read as UTF-8 does.
    """
    place = _place(path, what)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{place}: not UTF-8 (byte {start + error.start} is 0x{content[error.start]:02x}). Save it as UTF-8; if it "
            f"is Latin-1, for example: iconv -f LATIN1 -t UTF-8 {path} > {path}.txt"
        ) from None
    if "\0" in text:
        raise CorpusError(
            f"{place}: it holds null characters (the first at byte {start + content.index(0)}), as UTF-16 does. If it "
            f"is UTF-16, convert it: iconv -f UTF-16LE -t UTF-8 {path} > {path}.txt"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def pieces(handle: BinaryIO, end: re.Pattern[bytes] | None) -> Iterator[tuple[int, bytes]]:
    """Parts of a file between ends of lines or paragraphs, without reading all of it at once.

    Args:
        handle: from `opened`.
        end: `LINE_END` or `PARAGRAPH_END`; None takes all for one part.

    Yields:
        Where a part begins in the file, and its bytes without its end.
    """
    start, rest = handle.tell(), b""
    searched = 0  # no end begins before it
    while True:
        chunk = handle.read(CHUNK if end else -1)
        rest += chunk
        first = 0
        for found in end.finditer(rest, searched) if end else ():
            if chunk and found.end() > len(rest) - LONGEST_END:
                break  # what follows may belong to it
            yield start + first, rest[first : found.start()]
            first = found.end()
        searched = max(len(rest) - 2 * LONGEST_END - first, 0)
        start, rest = start + first, rest[first:]
        if not chunk or not end:
            yield start, rest
            return


def _place(path: str | Path, what: str) -> str:
    return f"{path} ({what})" if what else str(path)
