"""A recording in several jobs: which windows each of them records, and how their counts add up. Standard library only.

Shards end where batches of the whole recording do, in each of its parts (see `ROUND`), and sums of batches are added
without rounding (see `langneurons.engines.counting.SUM_STEPS`): so shards add up to the very bits of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langneurons.errors import UserError

if TYPE_CHECKING:
    from langneurons.neurons.counting import ActivationCounts

ROUND = 4
"""Every fourth window is in the first quarter of the text, every other one in its half: these are recorded apart."""
TOGETHER = {"hf": 1, "vllm": 16}
"""Batches whose sums are added before they are rounded, by engine."""


class ShardError(UserError):
    """Windows that cannot be shared out as asked, or shards that do not belong together."""


def unit(engine: str, batch_size: int) -> int:
    """Windows after which a shard may end."""
    return ROUND * TOGETHER[engine] * batch_size


def most(windows: int, size: int) -> int:
    """The largest number of shards of so many windows, of at least one unit of `size` windows each."""
    return max(windows // size, 1)


def shard_range(windows: int, size: int, shard: int, shards: int) -> range:
    """The windows of one shard, numbered from 1: whole units of `size` windows, and in the last what is left.

    Raises:
        ShardError: there are more shards than units.
    """
    units = most(windows, size)
    if shards > units:
        raise ShardError(
            f"{shards} shards are more than {windows:,} windows allow: a shard has at least {size} (recording.shards "
            f"is at most {units} here). Ask for fewer, or lower batch_size."
        )
    stop = windows if shard == shards else shard * units // shards * size
    return range((shard - 1) * units // shards * size, stop)


def add_up(counts: Sequence[ActivationCounts]) -> ActivationCounts:
    """The counts and sums of all shards together. Whether any was recorded, and which, is the same in all."""
    first = counts[0]
    added: dict[str, Any] = {}
    for name in first.__dataclass_fields__:
        values = [getattr(one, name) for one in counts]
        added[name] = None if any(value is None for value in values) else sum(values[1:], values[0])
    return type(first)(**added)


def joined(descriptions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What the metadata of all shards, by file, say of the whole.

    Raises:
        ShardError: they are not all of its windows, each once, or were recorded in different ways.
    """
    files = sorted(descriptions, key=lambda file: descriptions[file]["shard"]["start"])
    expected, whole = 0, {key: value for key, value in descriptions[files[0]].items() if key != "shard"}
    remedy = "Delete the folder of the shards, and run again."
    for file in files:
        shard = descriptions[file]["shard"]
        if shard["start"] != expected:
            raise ShardError(
                f"{file}: the shard begins with window {shard['start']}, but window {expected} comes next. Shards were "
                f"cut for different batch sizes. {remedy}"
            )
        expected = shard["stop"]
        for key, value in descriptions[file].items():
            if key != "shard" and value != whole.get(key):
                raise ShardError(
                    f"{file}: recorded with {key} {value!r}, but {files[0]} with {whole.get(key)!r}. {remedy}"
                )
    if expected != descriptions[files[0]]["shard"]["windows"]:
        raise ShardError(f"{files[-1]}: no shard has the windows from {expected} on. {remedy}")
    return whole
