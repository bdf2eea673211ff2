"""Sentences found in packed windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tokenizers

from langneurons.corpus.sentences import (
    CLOSING,
    ENDS,
    LONGEST,
    SHORTEST,
    Sentence,
    find_sentences,
    sentence_ends,
    text_with_offsets,
)
from langneurons.errors import CorpusError

TEXTS = {0: " word", 1: ".", 2: "?", 3: "\n", 4: ". ", 5: '."', 6: '" ', 7: "", 8: "3.5", 9: "。", 10: "!)"}
"""Text of each token; 0 ends nothing, and 7 stands between documents."""
SEPARATOR = 7


def decode(ids: Sequence[int]) -> str:
    return "".join(TEXTS[token] for token in ids)


def found(rows: list[list[int]], wanted: int = 1) -> list[tuple[int, int, int]]:
    """Window, start and stop of each sentence; all of them where `wanted` is exact."""
    windows = np.array(rows, dtype=np.uint32)
    return [(one.window, one.start, one.stop) for one in find_sentences(windows, decode, SEPARATOR, wanted, "de")]


def window(*lengths: int, rest: int = 0) -> list[int]:
    """Runs of tokens of these lengths, each with its end, and then some without."""
    return [token for length in lengths for token in [*[0] * (length - 1), 1]] + [0] * rest


def refusal(rows: list[list[int]], wanted: int = 1) -> str:
    with pytest.raises(CorpusError) as caught:
        found(rows, wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- whole sentences ---------------------------------------------------------------------------------------------------


def test_sentences_between_ends_without_the_first_and_the_last_piece() -> None:
    """The first piece began in the window before, the last one goes on in the next."""
    assert found([window(7, 5, 9, rest=6)], 2) == [(0, 7, 12), (0, 12, 21)]


def test_a_window_that_ends_with_its_sentence() -> None:
    assert found([window(7, 5, 9)], 2) == [(0, 7, 12), (0, 12, 21)]


def test_a_window_that_begins_with_an_end() -> None:
    assert found([[1, *window(6, rest=3)]]) == [(0, 1, 7)]


@pytest.mark.parametrize("length", [SHORTEST - 1, 1])
def test_what_is_too_short_is_left_out_but_still_ends(length: int) -> None:
    assert found([window(5, length, 8)]) == [(0, 5 + length, 13 + length)]
    assert found([window(5, SHORTEST)]) == [(0, 5, 5 + SHORTEST)]


@pytest.mark.parametrize(
    ("length", "parts"),
    [
        (LONGEST, [LONGEST]),
        (LONGEST + 1, [LONGEST]),  # a rest too short to be one
        (LONGEST + SHORTEST - 1, [LONGEST]),
        (LONGEST + SHORTEST, [LONGEST, SHORTEST]),
        (2 * LONGEST + 20, [LONGEST, LONGEST, 20]),
    ],
)
def test_what_is_too_long_is_cut(length: int, parts: list[int]) -> None:
    sentences = found([window(5, length)], len(parts))
    starts = [5, 5 + LONGEST, 5 + 2 * LONGEST]
    assert sentences == [(0, start, start + part) for start, part in zip(starts, parts, strict=False)]


@pytest.mark.parametrize("token", [1, 2, 3, 4, 5, 9, 10])
def test_ends(token: int) -> None:
    """Full stops of any script, also before spaces, closing quotes and brackets."""
    assert found([[0] * 4 + [token] + [0] * 6 + [token]]) == [(0, 5, 12)]


@pytest.mark.parametrize("token", [0, 6, 8])
def test_no_ends(token: int) -> None:
    """Spaces, quotes alone, a stop inside a number."""
    assert found([[3] + [token] * 6 + [1]]) == [(0, 1, 8)]


def test_a_document_ends_its_sentence() -> None:
    """Special tokens have no text; the one between documents separates what has no full stop."""
    assert found([[1, *[0] * 6, 7, *[0] * 6, 1]], 2) == [(0, 1, 8), (0, 8, 15)]


def test_every_end_with_every_closing_mark() -> None:
    texts = {0: " x", **{index + 1: end for index, end in enumerate(ENDS)}}
    texts |= {len(texts) + index: f" x.{mark} " for index, mark in enumerate(CLOSING)}
    for token in range(1, len(texts)):
        row = np.array([[token, *[0] * 6, token]], dtype=np.uint32)
        found = find_sentences(row, lambda ids: "".join(texts[one] for one in ids), None, 1, "de")
        assert found == [Sentence(0, 1, 8)]


def test_no_more_windows_are_read_than_are_needed() -> None:
    read: list[int] = []

    def decoded(ids: Sequence[int]) -> str:
        read.extend(ids)
        return decode(ids)

    find_sentences(np.array([window(5, 6, 7), [8] * 18], dtype=np.uint32), decoded, SEPARATOR, 1, "de")
    assert set(read) == {0, 1}
    assert all(type(token) is int for token in read)


# -- tokens that are no whole characters, or no characters at all ------------------------------------------------------

SENTENCES = {
    "Latin": ["Hier sind 3.5 Sätze.", " Noch ein „Satz“!", " Und der dritte?"],
    "Devanagari": ["यह पहला वाक्य है।", " यह दूसरा वाक्य है।", " यह तीसरा वाक्य है।"],
    "Arabic": ["هذه هي الجملة الأولى.", " هل هذه هي الثانية؟", " هذه هي الثالثة."],
    "Han": ["这是第一个句子。", "这是第二个句子！", "这是第三个句子？"],
    "Cyrillic": ["Это первое предложение.", " Это второе!", " А это третье?"],
}


def byte_level() -> Any:
    """As in GPT-2 and Llama 3: bytes, of which a character may need several; here without any merges."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    return raw


def with_byte_fallback() -> Any:
    """As in Llama 2: a mark for spaces, alone before letters that it does not know, and bytes for those."""
    known = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", *"abcdefghijklmnopqrstuvwxyzEUN.!?"]
    raw = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {token: number for number, token in enumerate(["<unk>", *known])}, [], unk_token="<unk>", byte_fallback=True
        )
    )
    raw.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    raw.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    return raw


def of_letters() -> Any:
    """As in Unigram models of many languages: pieces of letters, the space before a word in its first."""
    letters = sorted({letter for text in SENTENCES.values() for letter in "".join(text)} - {" "})
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    raw = tokenizers.Tokenizer(tokenizers.models.Unigram([*pieces, *((f"▁{one}", -2.5) for one in letters)], unk_id=0))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    raw.decoder = tokenizers.decoders.Metaspace()
    return raw


@pytest.mark.parametrize("make", [byte_level, with_byte_fallback, of_letters])
@pytest.mark.parametrize("script", SENTENCES)
def test_sentences_of_a_text_by_any_tokenizer(make: Callable[[], Any], script: str) -> None:
    tokenizer = make()
    ids = tokenizer.encode("".join(SENTENCES[script])).ids
    stops = sentence_ends(ids, tokenizer.decode, None)
    parts = [tokenizer.decode(ids[start:stop]).strip() for start, stop in pairwise([0, *stops])]
    assert parts == [part.strip() for part in SENTENCES[script]]


@pytest.mark.parametrize("make", [byte_level, with_byte_fallback])
def test_a_window_that_begins_within_a_character(make: Callable[[], Any]) -> None:
    tokenizer = make()
    ids = tokenizer.encode("".join(SENTENCES["Han"])).ids
    skipped = 1 if make is byte_level else 2  # a byte of the first character, and the mark of a space
    stops = sentence_ends(ids, tokenizer.decode, None)
    assert sentence_ends(ids[skipped:], tokenizer.decode, None) == [stop - skipped for stop in stops]


@pytest.mark.parametrize("make", [byte_level, with_byte_fallback, of_letters])
def test_every_token_has_its_place_in_the_text(make: Callable[[], Any]) -> None:
    tokenizer = make()
    for text in map("".join, SENTENCES.values()):
        ids = tokenizer.encode(text).ids
        found, offsets = text_with_offsets(ids, tokenizer.decode)
        assert found == text
        assert len(offsets) == len(ids)
        assert offsets == sorted(offsets)
        assert offsets[-1] == len(text)


# -- windows without ends ----------------------------------------------------------------------------------------------


def test_text_without_any_end_is_cut_from_the_beginning() -> None:
    """A script without such marks, such as Thai; what is left at the end of the window is no whole piece."""
    assert found([[0] * (2 * LONGEST + 63)], 2) == [(0, 0, LONGEST), (0, LONGEST, 2 * LONGEST)]
    assert found([[0] * (2 * LONGEST)], 2) == [(0, 0, LONGEST), (0, LONGEST, 2 * LONGEST)]


def test_a_window_with_one_end_has_no_whole_sentence() -> None:
    assert "holds 0 whole sentences" in refusal([window(90, rest=90)])


def test_a_window_too_short_for_a_piece() -> None:
    assert "holds 0 whole sentences" in refusal([[0] * (LONGEST - 1)])


# -- which of them -----------------------------------------------------------------------------------------------------

THREE = [window(5, 5, 6, 7, rest=3), window(5, 8, rest=13), window(5, 9, 10, rest=2)]
"""Windows of 26 tokens with three, one and two sentences."""


def test_one_of_each_window_in_turn() -> None:
    first = [(0, 5, 10), (1, 5, 13), (2, 5, 14)]
    assert found(THREE, 1) == first[:1]
    assert found(THREE, 2) == first[:2]
    assert found(THREE, 3) == first
    assert found(THREE, 4) == sorted([*first, (0, 10, 16)])
    assert found(THREE, 5) == sorted([*first, (0, 10, 16), (2, 14, 24)])
    assert found(THREE, 6) == sorted([*first, (0, 10, 16), (2, 14, 24), (0, 16, 23)])


def test_windows_without_sentences_are_passed_over() -> None:
    rows = [[0] * 26, THREE[0], window(26), THREE[2]]
    assert found(rows, 3) == [(1, 5, 10), (1, 10, 16), (3, 5, 14)]


def test_too_few_sentences() -> None:
    assert refusal(THREE, 7) == (
        "the recorded text of language 'de' holds 6 whole sentences, but identification.sentences asks for 7. Lower "
        "it, or record more text (corpora.tokens.train)."
    )


def test_no_windows() -> None:
    with pytest.raises(CorpusError, match="holds 0 whole sentences"):
        find_sentences(np.zeros((0, 16), dtype=np.uint32), decode, SEPARATOR, 1, "de")


def test_sentences_never_overlap_and_are_as_long_as_they_may_be() -> None:
    generator = np.random.default_rng(0)
    rows = (generator.random((30, 200)) < 0.03).astype(np.uint32)  # one end in 33 tokens
    rows[:, 1:] *= 1 - rows[:, :-1]  # never two ends in a row, which would be one
    sentences = find_sentences(rows, decode, SEPARATOR, 80, "de")
    assert len(sentences) == 80
    assert sentences == sorted(sentences, key=lambda one: (one.window, one.start))
    taken = np.zeros(rows.shape, dtype=int)
    for one in sentences:
        assert SHORTEST <= one.tokens == one.stop - one.start <= LONGEST
        taken[one.window, one.start : one.stop] += 1
        assert rows[one.window, : one.start].any()  # an end stands before
        assert not rows[one.window, one.start : one.stop - 1].any()
        assert rows[one.window, one.stop - 1] or one.tokens == LONGEST
    assert taken.max() == 1
