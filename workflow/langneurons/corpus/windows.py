"""Packed windows of tokens: no padding, no special tokens but the separator between documents."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from langneurons.corpus.shares import ODD
from langneurons.corpus.sources import Document, split_of
from langneurons.errors import CorpusError

DOCUMENTS_PER_BATCH = 64
FEW = 20
"""Fewer documents than this can hardly be shared out over three splits."""


class Tokenizer(Protocol):
    """What is used of a tokenizer of `transformers`."""

    eos_token_id: int | None
    unk_token_id: int | None
    all_special_ids: list[int]

    def __call__(self, text: list[str], **options: Any) -> Any: ...

    def decode(self, token_ids: list[int], **options: Any) -> str:
        """The text of tokens."""
        ...


@dataclass(frozen=True)
class TokenWindows:
    """Windows of one language and split."""

    windows: np.ndarray
    """uint32 `[window, position]`."""
    metadata: dict[str, Any]
    """language, split, corpus fingerprint, tokenizer, separator of documents (a token), documents, tokens, and how many
    of these repeat a text that came before."""


def pack(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    window: int,
    budgets: dict[str, int],
    share: dict[str, float],
    seed: int,
    language: str,
) -> dict[str, TokenWindows]:
    """Tokenize documents and pack each split's tokens into windows, until every split has its budget.

    Documents are joined by the tokenizer's end-of-text token where it has one; what is left of the last window is
    dropped. Splits never share a document. Special tokens that are spelt out in a text are letters like others.

    Args:
        documents: in random order; only as many are read as the budgets need.
        tokenizer: adds no special tokens here.
        window: tokens per window.
        budgets: tokens wanted per split; rounded down to whole windows.
        share: of documents for valid and test.
        seed: decides the splits.
        language: for messages and metadata.

    Raises:
        CorpusError: a split has fewer tokens than its budget.
    """
    wanted = {split: budget // window * window for split, budget in budgets.items()}
    for split, number in wanted.items():
        if number == 0:
            raise CorpusError(
                f"language '{language}': corpora.tokens.{split} is {budgets[split]}, less than one window of "
                f"{window} tokens."
            )
    tokens = {split: array("I") for split in wanted}  # four bytes each; a list takes ten times that
    used = dict.fromkeys(wanted, 0)
    repeated, seen = dict.fromkeys(wanted, 0), set[int]()
    digests = {split: hashlib.sha256() for split in wanted}
    separator = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    read = 0
    for document, split, ids in _tokenized(documents, tokenizer, share, seed):
        read += 1
        if split in wanted and len(tokens[split]) < wanted[split]:
            more = (ids + separator)[: wanted[split] - len(tokens[split])]
            tokens[split].extend(more)
            text = hash((document.key, document.text))
            repeated[split] += len(more) if text in seen else 0
            seen.add(text)
            used[split] += 1
            digests[split].update(f"{document.key}\0{document.text}\0".encode())
        if all(len(tokens[name]) >= wanted[name] for name in wanted):
            break
    short = [split for split in wanted if len(tokens[split]) < wanted[split]]
    if short:
        has = "; ".join(f"{split} has {len(tokens[split]):,} tokens and needs {wanted[split]:,}" for split in short)
        few = (
            f" It has only {read} documents, and a document is in one split alone: if its files hold many texts, set "
            "'document: paragraph' or 'document: line'."
            if read < FEW
            else ""
        )
        raise CorpusError(
            f"language '{language}': its corpus is too small: {has}. Give it more text, or lower corpora.tokens, or "
            f"change corpora.share.{few}"
        )
    return {
        split: TokenWindows(
            np.array(tokens[split], dtype=np.uint32).reshape(-1, window),
            {
                "language": language,
                "split": split,
                "documents": used[split],
                "tokens": wanted[split],
                "repeated_tokens": repeated[split],
                "window": window,
                "separator": tokenizer.eos_token_id,
                "corpus_sha256": digests[split].hexdigest(),
            },
        )
        for split in wanted
    }


def pack_all(texts: list[str], tokenizer: Tokenizer, window: int, language: str) -> np.ndarray:
    """Pack all texts into windows, uint32 `[window, position]`, as `pack` does.

    Raises:
        CorpusError: less than one window.
    """
    separator = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    encoded = _encoded(texts, tokenizer) if texts else []
    tokens = [token for ids in encoded for token in list(ids) + separator]
    whole = len(tokens) // window * window
    if not whole:
        raise CorpusError(
            f"language '{language}': its training text has {len(tokens):,} tokens, less than one window of "
            f"{window}. Give it "
            "more text."
        )
    return np.array(tokens[:whole], dtype=np.uint32).reshape(-1, window)


def _tokenized(
    documents: Iterable[Document], tokenizer: Tokenizer, share: dict[str, float], seed: int
) -> Iterator[tuple[Document, str, list[int]]]:
    for batch in _batches(documents):
        for document, ids in zip(batch, _encoded([document.text for document in batch], tokenizer), strict=True):
            yield document, split_of(document.key, seed, share), list(ids)


def _encoded(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of texts, none added, and none made of the letters of a special token."""
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    found: list[list[int]] = tokenizer(texts, **options)["input_ids"]
    return found


def odd_tokens(windows: np.ndarray, tokenizer: Tokenizer) -> dict[str, int]:
    """How many tokens of windows stand for no text of their own.

    Returns:
        `unknown_tokens`, which stand for text that the tokenizer does not know; `special_tokens`, such as the separator
        of documents; and `empty_tokens`, all others whose text is empty.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    counts = dict.fromkeys(ODD[1:], 0)
    for token, number in zip(*np.unique(windows, return_counts=True), strict=True):
        if token == tokenizer.unk_token_id:
            counts["unknown_tokens"] += int(number)
        elif token in special or token == tokenizer.eos_token_id:
            counts["special_tokens"] += int(number)
        elif not tokenizer.decode([int(token)]):
            counts["empty_tokens"] += int(number)
    return counts


def _batches(documents: Iterable[Document]) -> Iterator[tuple[Document, ...]]:
    iterator = iter(documents)
    while batch := tuple(islice(iterator, DOCUMENTS_PER_BATCH)):
        yield batch
