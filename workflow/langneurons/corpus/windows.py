"""Packed windows of tokens: no padding, no special tokens but the separator between documents."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from langneurons.corpus.sources import Document, split_of
from langneurons.errors import CorpusError

DOCUMENTS_PER_BATCH = 64


class Tokenizer(Protocol):
    """What is used of a tokenizer of `transformers`."""

    eos_token_id: int | None

    def __call__(self, text: list[str], **options: Any) -> Any: ...


@dataclass(frozen=True)
class TokenWindows:
    """Windows of one language and split."""

    windows: np.ndarray
    """uint32 `[window, position]`."""
    metadata: dict[str, Any]
    """language, split, corpus fingerprint, tokenizer, documents, tokens."""


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
    dropped. Splits never share a document.

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
    digests = {split: hashlib.sha256() for split in wanted}
    separator = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for document, split, ids in _tokenized(documents, tokenizer, share, seed):
        if split in wanted and len(tokens[split]) < wanted[split]:
            tokens[split].extend(ids + separator)
            used[split] += 1
            digests[split].update(f"{document.key}\0{document.text}\0".encode())
        if all(len(tokens[name]) >= wanted[name] for name in wanted):
            break
    short = [split for split in wanted if len(tokens[split]) < wanted[split]]
    if short:
        has = "; ".join(f"{split} has {len(tokens[split]):,} tokens and needs {wanted[split]:,}" for split in short)
        raise CorpusError(
            f"language '{language}': its corpus is too small: {has}. Give it more text, or lower "
            f"corpora.tokens, or change "
            "corpora.share."
        )
    return {
        split: TokenWindows(
            np.array(tokens[split][: wanted[split]], dtype=np.uint32).reshape(-1, window),
            {
                "language": language,
                "split": split,
                "documents": used[split],
                "tokens": wanted[split],
                "window": window,
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
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
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
        encoded = tokenizer([document.text for document in batch], add_special_tokens=False, verbose=False)["input_ids"]
        for document, ids in zip(batch, encoded, strict=True):
            yield document, split_of(document.key, seed, share), list(ids)


def _batches(documents: Iterable[Document]) -> Iterator[tuple[Document, ...]]:
    iterator = iter(documents)
    while batch := tuple(islice(iterator, DOCUMENTS_PER_BATCH)):
        yield batch
