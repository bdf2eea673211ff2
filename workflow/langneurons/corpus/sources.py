"""Documents of one language, from the embedded corpus, local files or Wikipedia.

To add a source: write a function that yields `Document`s, name it in `READERS`, and describe its keys in
`workflow/schemas/config.schema.yaml` under `$defs/source`.

A text that comes twice is two documents of one key, that of its first occurrence: so it is in one split alone. Texts
that differ in anything but the white space around them are different texts.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from langneurons.corpus import textfiles
from langneurons.errors import CorpusError

Settings = dict[str, Any]

SPLIT_SEED = 0
"""Seeds the splits, apart from the experiment's seed: what is held out is held out in every run."""


@dataclass(frozen=True)
class Document:
    """One text and its name within its language."""

    key: str
    """Decides the split. The embedded corpus gives the same topic the same key in every language; a repeated text has
    the key of its first occurrence."""
    text: str


def documents(settings: Settings, files: list[str], seed: int) -> Iterator[Document]:
    """Yield the documents of a text source in a random order fixed by the seed.

    Args:
        settings: an entry of the config's `corpora`, with `source` and its keys.
        files: the local files, where the source has some.
        seed: fixes the order, so that a token budget takes a random sample.
    """
    yield from READERS[settings["source"]](settings, files, seed)


def split_of(key: str, seed: int, share: dict[str, float]) -> str:
    """The split of a document: test, valid or train, by a hash of its key, so that it never moves."""
    position = _hash(seed, "split", key)
    if position < share["test"]:
        return "test"
    return "valid" if position < share["test"] + share["valid"] else "train"


def _digest(text: str) -> int:
    """A number that tells texts apart: 64 bits of their sha256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _hash(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but the parts."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 256**7


# -- local files ------------------------------------------------------------------------------------------------------


class _File(Protocol):
    """The texts of one file. All are read once, to check and to tell them apart, and then those that are used."""

    def __iter__(self) -> Iterator[str]: ...

    def text(self, index: int) -> str:
        """One text, by its place among all of them."""
        ...


def _read_files(settings: Settings, files: list[str], seed: int) -> Iterator[Document]:
    """Documents in random order. Of each only a few numbers are kept, and texts are read when it is their turn."""
    opened = [_open(Path(path), settings) for path in sorted(files)]
    names = [(_name(Path(path), settings), _whole(Path(path), settings)) for path in sorted(files)]
    places, digests = array("Q"), array("Q")  # file and index of each text; the text
    order = array("d")
    for number, file in enumerate(opened):
        for index, text in enumerate(file):
            if text:
                places.extend((number, index))
                digests.append(_digest(text))
                order.append(_hash(seed, "order", _key(*names[number], index)))
    if not order:
        return
    pairs = np.frombuffer(places, dtype=np.uint64).reshape(-1, 2).astype(np.int64)
    _, first, text_of = np.unique(np.frombuffer(digests, dtype=np.uint64), return_index=True, return_inverse=True)
    for place in np.argsort(np.frombuffer(order), kind="stable"):
        number, index = map(int, pairs[place])
        original, original_index = map(int, pairs[first[text_of[place]]])
        yield Document(_key(*names[original], original_index), opened[number].text(index))


def _key(name: str, whole: bool, index: int) -> str:
    """The name of one text: its file's, and if that holds several also which one it is."""
    return name if whole else f"{name}-{index}"


def _format(path: Path, settings: Settings) -> str:
    form = str(settings.get("format", "txt"))
    return path.suffix.lstrip(".").lower() if form == "auto" else form


def _whole(path: Path, settings: Settings) -> bool:
    """Whether a file is one document."""
    return _format(path, settings) == "txt" and settings.get("document", "file") == "file"


def _open(path: Path, settings: Settings) -> _File:
    form = _format(path, settings)
    if form == "txt":
        return _Text(path, ENDS[settings.get("document", "file")])
    if form == "jsonl":
        return _JsonLines(path, settings["field"])
    if form == "parquet":
        return _Parquet(path, settings["field"])
    textfiles.opened(path).close()  # of a compressed file it says so
    raise CorpusError(f"{path}: the format '{form}' is unknown. Set 'format' to txt, jsonl or parquet.")


def _name(path: Path, settings: Settings) -> str:
    """A file's name below the folder that the config's path names, so that other files cannot change it."""
    if "path" not in settings:
        return path.stem
    parts = Path(settings["path"]).parts[:-1]
    folder = Path(*takewhile(lambda part: not set("*?[") & set(part), parts))
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    return (name.with_suffix("") if name.suffix.lower() in SUFFIXES else name).as_posix()


SUFFIXES = (".txt", ".jsonl", ".parquet")
"""What is left out of a file's name; another ending may be all that tells files apart."""
ENDS = {"file": None, "paragraph": textfiles.PARAGRAPH_END, "line": textfiles.LINE_END}
"""What ends a document of plain text."""


class _Text:
    """Plain text: one document, or one per paragraph or line."""

    def __init__(self, path: Path, end: Any) -> None:
        self.path, self.end = path, end
        self.places = array("Q")  # start and length of each piece

    def __iter__(self) -> Iterator[str]:
        with textfiles.opened(self.path) as handle:
            for index, (start, content) in enumerate(textfiles.pieces(handle, self.end)):
                self.places.extend((start, len(content)))
                yield self._parsed(index, start, content)

    def text(self, index: int) -> str:
        start, length = self.places[2 * index : 2 * index + 2]
        with self.path.open("rb") as handle:
            handle.seek(start)
            return self._parsed(index, start, handle.read(length))

    def _parsed(self, index: int, start: int, content: bytes) -> str:
        return textfiles.decoded(content, self.path, start=start).strip()


class _JsonLines(_Text):
    """One JSON object per line, its text in a field."""

    def __init__(self, path: Path, field: str) -> None:
        super().__init__(path, textfiles.LINE_END)
        self.field = field

    def _parsed(self, index: int, start: int, content: bytes) -> str:
        line, where = super()._parsed(index, start, content), f"{self.path}, line {index + 1}"
        if not line:
            return ""
        try:
            text = json.loads(line)[self.field]
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON ({error.msg}).") from None
        except (KeyError, TypeError, IndexError):
            raise CorpusError(f"{where}: no field '{self.field}'. Name the right one in 'field'.") from None
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
            raise CorpusError(f"{where}: cannot be read as JSON ({error}).") from None
        return _text(text, where, self.field)


class _Parquet:
    """One document per row, its text in a column."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column

    def __iter__(self) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        try:
            columns = pyarrow.parquet.read_schema(self.path).names
            if self.column not in columns:
                raise CorpusError(
                    f"{self.path}: no column '{self.column}', but {', '.join(columns)}. Name the right one in 'field'."
                )
            self.values = pyarrow.parquet.read_table(self.path, columns=[self.column])[self.column]
        except (pyarrow.ArrowException, OSError) as error:
            raise CorpusError(f"{self.path}: not a Parquet file ({str(error).splitlines()[0]}).") from None
        for index in range(len(self.values)):
            yield self.text(index)

    def text(self, index: int) -> str:
        where = f"{self.path}, row {index + 1}"
        try:
            value = self.values[index].as_py()
        except UnicodeDecodeError as error:
            raise CorpusError(f"{where}: field '{self.column}' is not UTF-8 (byte {error.start}).") from None
        return _text(value, where, self.column)


def _text(value: Any, where: str, field: str) -> str:
    """A text without white space around it; null is an empty one.

    Raises:
        CorpusError: it is something else, or has half of a surrogate pair, which JSON can hold and UTF-8 cannot.
    """
    if not isinstance(value, str | None):
        raise CorpusError(f"{where}: field '{field}' is {str(value)[:50]!r}, no text. Name the right one in 'field'.")
    text = (value or "").strip()
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise CorpusError(
            f"{where}: field '{field}' holds half of a surrogate pair, which is not a character. Repair the text in "
            "the file."
        )
    return text


# -- Wikipedia --------------------------------------------------------------------------------------------------------


def _read_wikipedia(settings: Settings, files: list[str], seed: int) -> Iterator[Document]:
    """Stream articles through `datasets`, shuffled in a buffer; nothing is downloaded that is not read."""
    import datasets

    name = f"{settings['snapshot']}.{settings['code']}"
    where = f"the dataset '{settings['dataset']}' ({name})"
    first: dict[int, str] = {}  # the key of each text, by its digest
    try:
        articles = datasets.load_dataset(
            settings["dataset"], name, revision=settings["revision"], split="train", streaming=True
        )
        for article in articles.shuffle(seed=seed, buffer_size=settings["shuffle_buffer"]):
            if missing := [column for column in ("id", "text") if column not in article]:
                raise CorpusError(
                    f"{where} has no column '{missing[0]}', but {', '.join(article)}. Name a dataset of the form of "
                    "wikimedia/wikipedia, or use 'source: files' with its Parquet files."
                )
            if text := _text(article["text"], f"{where}, article {article['id']}", "text"):
                yield Document(first.setdefault(_digest(text), str(article["id"])), text)
    except CorpusError:
        raise
    except Exception as error:  # whatever a library of loaders raises: dataset scripts, missing configurations, network
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CorpusError(
            f"{where} cannot be read: {reason} Check the network and the name, or name a local folder of the same form "
            "in 'dataset'."
        ) from None


READERS: dict[str, Callable[[Settings, list[str], int], Iterator[Document]]] = {
    "embedded": _read_files,
    "files": _read_files,
    "wikipedia": _read_wikipedia,
}
