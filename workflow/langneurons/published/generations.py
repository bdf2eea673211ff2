"""Published answers: a JSON array, or JSON lines, of `{"input", "output"}`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from langneurons import artifacts
from langneurons.published.files import PublishedError, kind, names, read_bytes

Json = dict[str, Any]


def read_generations(path: str | Path, language: str) -> list[Json]:
    """Read published answers, each text as it is in the file.

    Args:
        path: a JSON array, or JSON lines, of objects with the texts `input` and `output`; UTF-8.
        language: of the prompts, for ids.

    Returns:
        One record per entry: `id` (the entry's own where every entry has one, else `<language>-<entry>`), `split`,
        `input`, `output`, `output_tokens`, `finish_reason`. What the file lacks, or has of another type than text or,
        for `output_tokens`, int, is None.

    Raises:
        PublishedError: no such file, another format, or entries that cannot be used.
    """
    entries = _parse_entries(path)
    for number, entry in enumerate(entries, 1):
        _check_entry(path, number, entry)
    named = all(isinstance(entry.get("id"), str) for entry in entries)
    records = [
        {
            "id": entry["id"] if named else f"{language}-{number}",
            "split": _text(entry.get("split")),
            "input": entry["input"],
            "output": entry["output"],
            "output_tokens": entry["output_tokens"] if type(entry.get("output_tokens")) is int else None,
            "finish_reason": _text(entry.get("finish_reason")),
        }
        for number, entry in enumerate(entries, 1)
    ]
    counts = Counter(record["id"] for record in records)
    twice = [name for name, number in counts.items() if number > 1]
    if twice:
        raise PublishedError(f"{path}: ids used by more than one entry: {names(twice)}. Give every entry its own id.")
    return records


def write_generations(path: str | Path, records: list[Json]) -> None:
    """Write answers as they are published: a JSON array of `{"input", "output"}`."""
    entries = [{"input": record["input"], "output": record["output"]} for record in records]
    artifacts.write_text(path, json.dumps(entries, indent=4, ensure_ascii=False) + "\n")


def check_same_inputs(
    first: str | Path, first_records: list[Json], second: str | Path, second_records: list[Json]
) -> None:
    """Check that two files answer the same inputs, with the same ids, in the same order.

    Raises:
        PublishedError: they do not; with both files and the first entry that differs.
    """
    keys = [[(record["id"], record["input"]) for record in records] for records in (first_records, second_records)]
    if keys[0] == keys[1]:
        return
    shorter = min(len(keys[0]), len(keys[1]))
    index = next((index for index in range(shorter) if keys[0][index] != keys[1][index]), shorter)
    found = [repr(part[index])[:200] if index < len(part) else "no entry" for part in keys]
    raise PublishedError(
        f"{second}: must answer the same inputs in the same order as {first}, but they differ from entry {index + 1}: "
        f"{found[1]} in place of {found[0]} ({len(keys[1])} and {len(keys[0])} entries). Name files of one experiment "
        "and one language."
    )


def _parse_entries(path: str | Path) -> list[Any]:
    """The entries of a JSON array or of JSON lines, whichever the content is."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PublishedError(f"{path}: is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    array = text.lstrip().startswith("[")
    # split at line feeds alone: texts may hold other line separators, such as U+2028, as they are
    parts = [(1, text)] if array else list(enumerate(text.split("\n"), 1))
    values = [_parse_json(path, number, part) for number, part in parts if part.strip()]
    entries = values[0] if array else values
    if not entries:
        raise PublishedError(f"{path}: holds no entries. Name a file with answers.")
    return entries


def _parse_json(path: str | Path, line: int, text: str) -> Any:
    expected = 'Expected is a JSON array, or one JSON object per line, of {"input": text, "output": text}.'
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PublishedError(f"{path}: line {line + error.lineno - 1} is not JSON ({error.msg}). {expected}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise PublishedError(f"{path}: cannot be read as JSON from line {line} ({error}). {expected}") from None


def _check_entry(path: str | Path, number: int, entry: Any) -> None:
    """Raise PublishedError unless the entry is an object whose texts can be used."""
    if not isinstance(entry, dict):
        raise PublishedError(f"{path}: entry {number} is {kind(entry)}, but must be an object with input and output.")
    for key in ("input", "output"):
        if key not in entry:
            raise PublishedError(
                f"{path}: entry {number} has no '{key}'; its keys are {names(entry)}. Rename the key in the file."
            )
        if not isinstance(entry[key], str):
            raise PublishedError(f"{path}: entry {number}: '{key}' is {kind(entry[key])}, but must be text.")
    for key in ("id", "split", "input", "output", "finish_reason"):
        if any("\ud800" <= character <= "\udfff" for character in _text(entry.get(key)) or ""):
            raise PublishedError(
                f"{path}: entry {number}: '{key}' holds half of a surrogate pair, which is not a character and cannot "
                "be written. Repair the text in the file."
            )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
