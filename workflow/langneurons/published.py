"""Files that other projects published for language-specific neurons (Tang et al. 2024 and its replications).

Activations are `torch.save({"n": tokens, "over_zero": int32 [layer, neuron]})`; masks are `torch.save` of a list over
languages of a list over layers of int64 neuron indices; generations are a JSON array, or JSON lines, of
`{"input", "output"}`. Nothing in such a file is ever run: what is no tensor or plain container is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langneurons import artifacts
from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts

Json = dict[str, Any]

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
"""Types of tensors that hold counts or indices."""
ACTIVATIONS_FORM = 'torch.save({"n": number of tokens, "over_zero": integer tensor [layer, neuron]}, path)'
MASKS_FORM = "torch.save(list over languages of lists over layers of integer tensors of neuron indices, path)"
REFUSED = re.compile(r"GLOBAL\s+(\w+(?:\.\w+)+)\s|TorchScript|Trying to|Can only (?:build|create)|must be imported")
"""How torch words that a file is intact, but holds more than tensors and plain containers."""


class PublishedError(UserError):
    """A file of another project that cannot be used, with its path and the remedy."""


@dataclass(frozen=True)
class Masks:
    """Language-specific neurons as they are published."""

    table: pd.DataFrame
    """Columns `language` (str), `layer`, `neuron` (int64): by language, then layer, then in the order of the file."""
    languages: list[str]
    """In the order of the file, which does not name them; also those without neurons."""
    layers: int
    """Number of layers of the model, also of those without neurons."""

    def count_by_language(self) -> dict[str, int]:
        """Number of neurons of every language."""
        counts = self.table["language"].value_counts()
        return {language: int(counts.get(language, 0)) for language in self.languages}

    def distinct(self) -> int:
        """Number of neurons, those of several languages counted once."""
        return len(self.table[["layer", "neuron"]].drop_duplicates())


# -- activations ------------------------------------------------------------------------------------------------------


def read_activations(path: str | Path) -> ActivationCounts:
    """Read published counts, int64 `[layer, neuron]`, without sums.

    Raises:
        PublishedError: no such file, another format, or impossible counts.
    """
    content = _load(path, ACTIVATIONS_FORM)
    if not isinstance(content, Mapping):
        raise PublishedError(
            f"{path}: holds {_kind(content)}, but activations are a mapping. Expected is {ACTIVATIONS_FORM}."
        )
    missing = [key for key in ("n", "over_zero") if key not in content]
    if missing:
        raise PublishedError(
            f"{path}: lacks {' and '.join(missing)}; the keys found are {_names(content)}. "
            f"Expected is {ACTIVATIONS_FORM}."
        )
    tokens = _token_number(path, content["n"])
    over_zero = _integer_array(path, "over_zero", content["over_zero"])
    _check_counts(path, over_zero, tokens)
    return ActivationCounts(over_zero.astype(np.int64), None, None, tokens)


def write_activations(path: str | Path, counts: ActivationCounts) -> None:
    """Write counts as they are published, int32 `[layer, neuron]`; sums are no part of the format.

    Raises:
        PublishedError: impossible counts, or counts beyond int32.
    """
    import torch

    _check_counts(path, counts.over_zero, counts.tokens)
    limit = np.iinfo(np.int32).max
    large = int((counts.over_zero > limit).sum())
    if large:
        raise PublishedError(
            f"{path}: {large} counts do not fit the int32 of the published format; the largest is "
            f"{counts.over_zero.max()}, the limit {limit}. Record on fewer tokens."
        )
    over_zero = torch.tensor(counts.over_zero.astype(np.int32))
    _save(path, {"n": int(counts.tokens), "over_zero": over_zero})


def check_shape(path: str | Path, shape: tuple[int, ...], layers: int | None, neurons: int | None) -> None:
    """Check the shape `[layer, neuron]` of a file against the model's numbers, where they are known.

    Raises:
        PublishedError: another number of layers, or of neurons per layer.
    """
    expected = (shape[0] if layers is None else layers, shape[1] if neurons is None else neurons)
    if shape != expected:
        raise PublishedError(
            f"{path}: has {shape[0]} layers of {shape[1]} neurons, but {expected[0]} layers of {expected[1]} neurons "
            "are expected. Name the file of this model, or correct the numbers of layers and neurons."
        )


def _token_number(path: str | Path, value: object) -> int:
    """`n` as an int: published as an int, or as a 0-dimensional integer tensor."""
    import torch

    if isinstance(value, torch.Tensor):
        array = _integer_array(path, "n", value)
        if array.ndim:
            raise PublishedError(f"{path}: n has the shape {list(array.shape)}, but must be one number of tokens.")
        value = int(array)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PublishedError(f"{path}: n is {_kind(value)}, but must be the number of tokens, an int.")
    if not 1 <= value <= np.iinfo(np.int64).max:
        raise PublishedError(f"{path}: n is {value}, but must be the number of tokens: from 1, and within int64.")
    return value


def _check_counts(path: str | Path, over_zero: np.ndarray, tokens: int) -> None:
    """Raise PublishedError unless `over_zero` are counts `[layer, neuron]` over `tokens`."""
    if over_zero.ndim != 2 or not over_zero.size:
        raise PublishedError(
            f"{path}: over_zero has the shape {list(over_zero.shape)}, but must be [layer, neuron] with at least one "
            f"of each. Expected is {ACTIVATIONS_FORM}."
        )
    negative = int((over_zero < 0).sum())
    if negative:
        raise PublishedError(
            f"{path}: {negative} counts are negative, the lowest is {over_zero.min()}, as after an overflow. Record "
            "again with wider integers."
        )
    above = int((over_zero > tokens).sum())
    if above:
        raise PublishedError(
            f"{path}: {above} counts are above the {tokens} tokens of n; the largest is {over_zero.max()}. n and "
            "over_zero are not of one recording: correct n, or record again."
        )


# -- masks ------------------------------------------------------------------------------------------------------------


def read_masks(path: str | Path, languages: list[str], layers: int | None = None, neurons: int | None = None) -> Masks:
    """Read published neurons.

    Args:
        path: the file.
        languages: of the file, in its order, which it does not name itself.
        layers: number of layers of the model, if known.
        neurons: number of neurons per layer, if known.

    Raises:
        PublishedError: no such file, another format, or neurons, layers or languages that cannot be.
    """
    content = _load(path, MASKS_FORM)
    depth = _check_outline(path, content, languages, layers)
    cells = [
        (language, layer, _neuron_indices(path, language, layer, value, neurons))
        for language, per_layer in zip(languages, content, strict=True)
        for layer, value in enumerate(per_layer)
    ]
    sizes = [len(indices) for _, _, indices in cells]
    table = pd.DataFrame(
        {
            "language": pd.Series(np.repeat([language for language, _, _ in cells], sizes), dtype="str"),
            "layer": np.repeat(np.array([layer for _, layer, _ in cells], dtype=np.int64), sizes),
            "neuron": np.concatenate([indices for _, _, indices in cells]),
        }
    )
    return Masks(table, list(languages), depth)


def write_masks(path: str | Path, masks: Masks) -> None:
    """Write neurons as they are published: every language and layer has its tensor, if empty.

    Raises:
        PublishedError: a neuron of a language or layer that the file has no place for.
    """
    import torch

    table = masks.table
    stray = ~table["language"].isin(masks.languages) | ~table["layer"].between(0, masks.layers - 1)
    stray |= table["neuron"] < 0
    if stray.any():
        language, layer, neuron = table.loc[stray, ["language", "layer", "neuron"]].iloc[0]
        raise PublishedError(
            f"{path}: no place for language '{language}', layer {layer}, neuron {neuron} in a mask of the languages "
            f"{', '.join(masks.languages)} and {masks.layers} layers."
        )
    cells = {
        (str(language), int(layer)): rows.to_numpy(dtype=np.int64)
        for (language, layer), rows in table.groupby(["language", "layer"], sort=False)["neuron"]
    }
    nothing = np.zeros(0, dtype=np.int64)
    _save(
        path,
        [
            [torch.tensor(cells.get((language, layer), nothing)) for layer in range(masks.layers)]
            for language in masks.languages
        ],
    )


def order_languages(path: str | Path, table: pd.DataFrame, summary: Json, requested: list[str] | None) -> list[str]:
    """The languages of a selection in the order of a mask file.

    Args:
        path: of the selection, for messages.
        table: with the column `language`.
        summary: `count_by_language` also names languages without neurons; its own order is not kept in files.
        requested: the order; by default that of first appearance in the table, then languages without neurons.

    Raises:
        PublishedError: `requested` are not the languages of the selection.
    """
    present = list(dict.fromkeys([*table["language"].astype(str), *summary.get("count_by_language", {})]))
    if requested is None:
        return present
    if sorted(requested) != sorted(present):
        raise PublishedError(
            f"{path}: its languages are {', '.join(present)}, but the order requested is {', '.join(requested)}. "
            "Name each of them once."
        )
    return requested


def _check_outline(path: str | Path, content: Any, languages: list[str], layers: int | None) -> int:
    """Check the nesting of a mask; returns its number of layers."""
    twice = [language for language, number in Counter(languages).items() if number > 1]
    if twice:
        raise PublishedError(f"{path}: 'masks.languages' names {', '.join(twice)} more than once. Name each once.")
    if not isinstance(content, list | tuple):
        raise PublishedError(f"{path}: holds {_kind(content)}, but a mask is a list. Expected is {MASKS_FORM}.")
    if len(content) != len(languages) or not languages:
        raise PublishedError(
            f"{path}: has neurons of {len(content)} languages, but 'masks.languages' names {len(languages)} "
            f"({', '.join(languages) or 'none'}). Correct 'masks.languages': the languages of the file, in its order."
        )
    for language, per_layer in zip(languages, content, strict=True):
        if not isinstance(per_layer, list | tuple):
            raise PublishedError(
                f"{path}: language '{language}' is {_kind(per_layer)}, but must be a list over layers. "
                f"Expected is {MASKS_FORM}."
            )
    depths = {language: len(per_layer) for language, per_layer in zip(languages, content, strict=True)}
    depth = depths[languages[0]]
    if len(set(depths.values())) > 1 or not depth:
        found = ", ".join(f"{language} {number}" for language, number in depths.items())
        raise PublishedError(
            f"{path}: the numbers of layers are {found}, but every language needs the same number, at least 1. "
            "The file is damaged, or mixes models."
        )
    if layers is not None and depth != layers:
        raise PublishedError(
            f"{path}: has {depth} layers, but {layers} are expected. Name the file of this model, or correct the "
            "number of layers."
        )
    return depth


def _neuron_indices(path: str | Path, language: str, layer: int, value: Any, neurons: int | None) -> np.ndarray:
    """One tensor of a mask, int64 `[index]` in the order of the file."""
    import torch

    place = f"language '{language}', layer {layer}"
    if isinstance(value, torch.Tensor) and value.ndim != 1:
        raise PublishedError(
            f"{path}: {place}: the tensor has the shape {list(value.shape)}, but neuron indices are 1-dimensional."
        )
    if isinstance(value, torch.Tensor) and value.numel() == 0:
        return np.zeros(0, dtype=np.int64)  # of any type: torch.tensor([]) is float
    indices = _integer_array(path, place, value)
    limit = np.iinfo(np.int64).max if neurons is None else neurons - 1
    outside = indices[(indices < 0) | (indices > limit)]
    if outside.size:
        allowed = "from 0" if neurons is None else f"0 to {limit}"
        raise PublishedError(
            f"{path}: {place}: the index {outside[0]} is outside the allowed range ({allowed}). Name the file of this "
            "model, or correct the number of neurons."
        )
    values, numbers = np.unique(indices, return_counts=True)
    if (numbers > 1).any():
        raise PublishedError(
            f"{path}: {place}: neurons listed more than once: {_names(values[numbers > 1].tolist())}. Remove the "
            "repetitions, or name a file without them."
        )
    return indices.astype(np.int64)


# -- generations ------------------------------------------------------------------------------------------------------


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
        raise PublishedError(f"{path}: ids used by more than one entry: {_names(twice)}. Give every entry its own id.")
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
        text = _read(path).decode("utf-8-sig")
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
        raise PublishedError(f"{path}: entry {number} is {_kind(entry)}, but must be an object with input and output.")
    for key in ("input", "output"):
        if key not in entry:
            raise PublishedError(
                f"{path}: entry {number} has no '{key}'; its keys are {_names(entry)}. Rename the key in the file."
            )
        if not isinstance(entry[key], str):
            raise PublishedError(f"{path}: entry {number}: '{key}' is {_kind(entry[key])}, but must be text.")
    for key in ("id", "split", "input", "output", "finish_reason"):
        if any("\ud800" <= character <= "\udfff" for character in _text(entry.get(key)) or ""):
            raise PublishedError(
                f"{path}: entry {number}: '{key}' holds half of a surrogate pair, which is no character and cannot be "
                "written. Repair the text in the file."
            )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


# -- files ------------------------------------------------------------------------------------------------------------


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal text.

    Raises:
        PublishedError: the file cannot be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def check_sha256(path: str | Path, expected: str) -> None:
    """Check a file's sha256; an empty expectation checks nothing.

    Raises:
        PublishedError: the file has another one, or cannot be read.
    """
    if expected and (found := file_sha256(path)) != expected.lower():
        raise PublishedError(
            f"{path}: has the sha256 {found}, but {expected.lower()} is expected. The file is damaged or not the one "
            "that was meant: get it again, or correct 'sha256' in the config."
        )


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise PublishedError(f"{path}: the file does not exist. Correct the path.") from None
    except OSError as error:
        raise PublishedError(f"{path}: the file cannot be read ({error.strerror}). Correct the path.") from None


def _load(path: str | Path, form: str) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers alone."""
    import torch

    content = io.BytesIO(_read(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below says it in one message
            return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make torch raise nearly anything
        refused = REFUSED.search(str(error))
        detail = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
        reason = ": ".join([type(error).__name__, *detail[:1]])[:200]
    if refused:
        wanted = f" (it wants {refused[1]})" if refused[1] else ""
        raise PublishedError(
            f"{path}: holds more than tensors and plain containers{wanted}, which could run code when loaded, and so "
            f"is refused. If you trust its author, ask for a file made by {form}."
        )
    raise PublishedError(
        f"{path}: is no file of torch.save, or is truncated or damaged ({reason}). Get it again; expected is {form}."
    )


def _save(path: str | Path, content: Any) -> None:
    """Write with `torch.save`; the same content gives the same bytes."""
    import torch

    with artifacts.atomic(path) as temporary, temporary.open("wb") as handle:
        torch.save(content, handle)  # to a handle: given a path, torch writes the temporary name into the file


def _integer_array(path: str | Path, name: str, value: object) -> np.ndarray:
    """A tensor of integers as an array of its own type and shape."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise PublishedError(f"{path}: {name} is {_kind(value)}, but must be a tensor of integers.")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in INTEGERS:
        hint = " A boolean mask becomes indices by mask.nonzero().flatten()." if dtype == "bool" else ""
        raise PublishedError(f"{path}: {name} is a tensor of {dtype}, but must be a tensor of integers.{hint}")
    try:
        return value.numpy()
    except (RuntimeError, TypeError) as error:  # sparse tensors, and those without values
        reason = str(error).splitlines()[0][:200]
        raise PublishedError(f"{path}: {name} is no dense tensor with values ({reason}). Save it as one.") from None


def _kind(value: object) -> str:
    """What a value is, for messages: its type, and its value where it is short."""
    if isinstance(value, bool | int | float) or value is None:
        return f"{type(value).__name__} ({str(value)[:40]})" if value is not None else "nothing (null)"
    return f"a {type(value).__name__}"


def _names(values: Any, limit: int = 10) -> str:
    """Values for messages, the first few of them."""
    names = [str(value)[:80] for value in values]
    return (", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")) or "none"
