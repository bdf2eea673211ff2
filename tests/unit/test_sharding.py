"""Sharing out windows, adding up shards, and shards that do not belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sharding import ROUND, ShardError, add_up, joined, most, shard_range, unit


@given(windows=st.integers(1, 5000), batch=st.integers(1, 40), engine=st.sampled_from(["hf", "vllm"]), data=st.data())
def test_shards_are_all_windows_once_and_end_where_batches_do(
    windows: int, batch: int, engine: str, data: st.DataObject
) -> None:
    size = unit(engine, batch)
    shards = data.draw(st.integers(1, most(windows, size)))
    parts = [shard_range(windows, size, shard, shards) for shard in range(1, shards + 1)]
    assert [number for part in parts for number in part] == list(range(windows))
    assert all(part.start % size == 0 for part in parts)
    assert all(len(part) >= min(size, windows) for part in parts)
    # All three parts of the recording (each fourth window, two later each fourth, every other) are in whole batches.
    for part in parts[:-1]:
        assert len(part[::ROUND]) % batch == len(part[2::ROUND]) % batch == len(part[1::2]) % batch == 0
    lengths = [len(part) for part in parts[:-1]]
    assert max(lengths, default=0) - min(lengths, default=0) <= size


def test_shares_by_hand() -> None:
    assert unit("hf", 8) == 32
    assert unit("vllm", 8) == 512  # vLLM is sent 16 batches at a time
    assert [shard_range(125, 32, shard, 3) for shard in (1, 2, 3)] == [range(32), range(32, 64), range(64, 125)]
    assert [shard_range(125, 32, shard, 2) for shard in (1, 2)] == [range(32), range(32, 125)]
    assert shard_range(5, 32, 1, 1) == range(5)


def test_more_shards_than_windows_allow() -> None:
    with pytest.raises(ShardError, match=r"4 shards are more than 125 windows allow: .* at least 32 .* at most 3 here"):
        shard_range(125, 32, 1, 4)


def counts(scale: int, **changes: Any) -> ActivationCounts:
    """Counts whose numbers are multiples of a scale."""
    ones = np.ones((2, 3), dtype=np.int64) * scale
    fields: dict[str, Any] = {
        "over_zero": 4 * ones,
        "activation_sum": 0.5 * ones,
        "product_sum": -0.25 * ones,
        "tokens": 8 * scale,
        "half_over_zero": 2 * ones,
        "half_tokens": 4 * scale,
        "quarter_over_zero": ones,
        "quarter_tokens": 2 * scale,
        "hidden_sum": 3.0 * ones[:, :1],
    }
    return ActivationCounts(**fields | changes)


def test_adding_up() -> None:
    added, expected = add_up([counts(1), counts(10), counts(100)]), counts(111)
    for name in ActivationCounts.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(added, name), getattr(expected, name), err_msg=name)
    alone = add_up([counts(1, activation_sum=None, product_sum=None, hidden_sum=None)] * 2)
    assert alone.activation_sum is alone.product_sum is alone.hidden_sum is None
    np.testing.assert_array_equal(alone.over_zero, counts(2).over_zero)


def described(start: int, stop: int, **changes: Any) -> dict[str, Any]:
    return {"shard": {"start": start, "stop": stop, "windows": 10}, "torch": "2", "text": {"tokens": 40}} | changes


def test_metadata_of_the_whole() -> None:
    shards = {"b": described(4, 10), "a": described(0, 4)}
    assert joined(shards) == {"torch": "2", "text": {"tokens": 40}}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (described(5, 10), "b: the shard begins with window 5, but window 4 comes next. .* different batch sizes"),
        (described(3, 10), "b: the shard begins with window 3, but window 4 comes next"),
        (described(4, 9), "b: no shard has the windows from 9 on"),
        (described(4, 10, torch="3"), "b: recorded with torch '3', but a with '2'"),
    ],
)
def test_shards_that_do_not_belong_together(second: dict[str, Any], message: str) -> None:
    with pytest.raises(ShardError, match=message + ".*Delete the folder of the shards, and run again"):
        joined({"a": described(0, 4), "b": second})
