"""Documents of one language, from the embedded corpus, local files or Wikipedia.

To add a source: write a function that yields `Document`s, name it in `READERS`, and describe its keys in
`workflow/schemas/config.schema.yaml` under `$defs/source`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from langneurons.errors import CorpusError

Settings = dict[str, Any]

SPLIT_SEED = 0
"""Seeds the splits, apart from the experiment's seed: what is held out is held out in every run."""


@dataclass(frozen=True)
class Document:
    """One text and its name within its language."""

    key: str
    """Decides the split. The embedded corpus gives the same topic the same key in every language."""
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


def _hash(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but the parts."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 256**7


# -- local files ------------------------------------------------------------------------------------------------------


def _read_files(settings: Settings, files: list[str], seed: int) -> Iterator[Document]:
    found = [document for path in files for document in _read_file(Path(path), settings)]
    yield from sorted(found, key=lambda document: _hash(seed, "order", document.key))


def _read_file(path: Path, settings: Settings) -> Iterator[Document]:
    name = _name(path, settings)
    form = settings.get("format", "txt")
    if form == "auto":
        form = path.suffix.lstrip(".").lower()
    whole = form == "txt" and settings.get("document", "file") == "file"
    if form == "txt":
        texts = _split_text(_decode(path), settings.get("document", "file"))
    elif form == "jsonl":
        texts = _read_json_lines(path, settings["field"])
    elif form == "parquet":
        texts = _read_parquet(path, settings["field"])
    else:
        raise CorpusError(f"{path}: the format '{form}' is unknown. Set 'format' to txt, jsonl or parquet.")
    texts = [text.strip() for text in texts]
    for index, text in enumerate(texts):
        if text:
            yield Document(name if whole else f"{name}-{index}", text)


def _name(path: Path, settings: Settings) -> str:
    """A file's name below the folder that the config's path names, so that other files cannot change it."""
    if "path" not in settings:
        return path.stem
    parts = Path(settings["path"]).parts[:-1]
    folder = Path(*takewhile(lambda part: not set("*?[") & set(part), parts))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).with_suffix("").as_posix()


def _decode(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}). Convert the file, "
            f"for example: "
            f"iconv -f LATIN1 -t UTF-8 {path} > converted.txt"
        ) from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}).") from None


def _split_text(text: str, document: str) -> list[str]:
    if document == "line":
        return text.splitlines()
    return text.split("\n\n") if document == "paragraph" else [text]


def _read_json_lines(path: Path, field: str) -> list[str]:
    texts = []
    for number, line in enumerate(_decode(path).split("\n"), 1):  # splitlines() would cut at U+2028, which JSON allows
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}, line {number}: not JSON ({error.msg}).") from None
        except (KeyError, TypeError):
            raise CorpusError(f"{path}, line {number}: no field '{field}'. Name the right one in 'field'.") from None
        texts.append(_text(text, f"{path}, line {number}", field))
    return texts


def _read_parquet(path: Path, field: str) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_schema(path).names
        if field not in columns:
            raise CorpusError(f"{path}: no column '{field}', but {', '.join(columns)}. Name the right one in 'field'.")
        texts = pyarrow.parquet.read_table(path, columns=[field])[field].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}).") from None
    return [_text(text, f"{path}, row {number}", field) for number, text in enumerate(texts, 1)]


def _text(value: Any, where: str, field: str) -> str:
    """A text; null is an empty one."""
    if not isinstance(value, str | None):
        raise CorpusError(f"{where}: field '{field}' is {str(value)[:50]!r}, no text. Name the right one in 'field'.")
    return value or ""


# -- Wikipedia --------------------------------------------------------------------------------------------------------


def _read_wikipedia(settings: Settings, files: list[str], seed: int) -> Iterator[Document]:
    """Stream articles through `datasets`, shuffled in a buffer; nothing is downloaded that is not read."""
    import datasets

    name = f"{settings['snapshot']}.{settings['code']}"
    try:
        articles = datasets.load_dataset(
            settings["dataset"], name, revision=settings["revision"], split="train", streaming=True
        )
        for article in articles.shuffle(seed=seed, buffer_size=settings["shuffle_buffer"]):
            if text := article["text"].strip():
                yield Document(str(article["id"]), text)
    except (OSError, ValueError, ConnectionError) as error:
        raise CorpusError(
            f"the dataset '{settings['dataset']}' ({name}) cannot be read: {str(error).splitlines()[0]} "
            "Check the network and the name, or name a local folder of the same form in 'dataset'."
        ) from None


READERS: dict[str, Callable[[Settings, list[str], int], Iterator[Document]]] = {
    "embedded": _read_files,
    "files": _read_files,
    "wikipedia": _read_wikipedia,
}
