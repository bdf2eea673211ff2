"""One reader for text files: encodings, ends of lines, and what is no text."""

from __future__ import annotations

import bz2
import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langneurons.corpus import textfiles
from langneurons.corpus.textfiles import LINE_END, PARAGRAPH_END, opened, pieces, read_lines, read_text
from langneurons.errors import CorpusError
from langneurons.metrics.text import stop_words

LINES = st.lists(st.sampled_from(["a", "ğ", "\n", "\r", "\r\n", "\u2028", "\x85"]), max_size=60).map("".join)


@pytest.mark.parametrize(("end", "separator"), [(LINE_END, "\n"), (PARAGRAPH_END, "\n\n")], ids=["lines", "paragraphs"])
@given(text=LINES, chunk=st.integers(1, 9))
def test_pieces_are_those_of_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, end: re.Pattern[bytes], separator: str, text: str, chunk: int
) -> None:
    """However little is read at a time; only line feeds and carriage returns end lines."""
    path = tmp_path_factory.mktemp("pieces") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch, opened(path) as handle:
        patch.setattr(textfiles, "CHUNK", chunk)
        found = list(pieces(handle, end))
    raw = path.read_bytes()
    assert [raw[start : start + len(content)] for start, content in found] == [content for _, content in found]
    parts = [content.decode().replace("\r\n", "\n").replace("\r", "\n") for _, content in found]
    assert parts == read_text(path).split(separator)


def test_lines_of_any_system_and_none_at_other_separators(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still\r\n# a comment\r\n\r\n two \rthree\n".encode())
    assert read_lines(path) == ["one\u2028still", "two", "three"]


def test_stop_words_with_a_byte_order_mark_and_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffund\n# of a project\noder auch\n".encode())
    assert stop_words("de", str(path)) == {"und", "oder", "auch"}


@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        (gzip.compress(b"text"), "compressed with gzip", "gzip -dc"),
        (bz2.compress(b"text"), "compressed with bzip2", "bzip2 -dc"),
        ("text".encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t"),
        ("text".encode("utf-16-be"), "it holds null characters", "iconv -f UTF-16LE"),
        ("text".encode("utf-16-le"), "it holds null characters", "iconv -f UTF-16LE"),
        ("Grün".encode("latin-1"), "not UTF-8 (byte 2 is 0xfc)", "iconv -f LATIN1"),
    ],
    ids=["gzip", "bzip2", "UTF-16 with a mark", "UTF-16BE", "UTF-16LE", "Latin-1"],
)
def test_what_is_no_utf8_gets_a_remedy_that_does_not_spoil_it(
    tmp_path: Path, content: bytes, said: str, remedy: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        read_text(path, "the prompts of language 'de'")
    message = str(caught.value)
    assert message.startswith(f"{path} (the prompts of language 'de'): {said}")
    assert remedy in message
    assert ("LATIN1" in message) == ("LATIN1" in remedy)
