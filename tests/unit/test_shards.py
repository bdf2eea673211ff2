"""Neurons of a layer over several workers."""

from __future__ import annotations

import numpy as np
import pytest

from langneurons.engines.shards import Shard, gather


def test_by_hand() -> None:
    """Twelve neurons over three workers: four each, in the order of their ranks."""
    neurons = np.array([0, 3, 4, 7, 11])
    splits = [Shard(number, 3, 4).split(neurons) for number in range(3)]
    assert [mine.tolist() for mine, _ in splits] == [
        [True, True, False, False, False],
        [False, False, True, True, False],
        [False, False, False, False, True],
    ]
    assert [local.tolist() for _, local in splits] == [[0, 3], [0, 3], [3]]
    assert all(local.dtype == np.int64 for _, local in splits)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_edits_of_shards_are_the_edit_of_the_whole(workers: int) -> None:
    """Each worker edits its slice by local numbers, and what they have is joined: nothing is lost, doubled or moved."""
    generator = np.random.default_rng(workers)
    whole = generator.normal(size=(5, 96))  # [token, neuron]
    neurons = generator.permutation(96)[:30]
    keep, fill = generator.normal(size=(2, 30))
    edited = whole.copy()
    edited[:, neurons] = edited[:, neurons] * keep + fill
    weight = generator.normal(size=(7, 96))  # [d_model, neuron]
    parts, outputs = [], []
    for number in range(workers):
        shard = Shard(number, workers, 96 // workers)
        mine, local = shard.split(neurons)
        here = slice(number * shard.size, (number + 1) * shard.size)
        part = whole[:, here].copy()
        part[:, local] = part[:, local] * keep[mine] + fill[mine]
        parts.append(part)
        outputs.append(part @ weight[:, here].T)
    assert np.array_equal(gather(parts), edited)
    assert sum(outputs) == pytest.approx(edited @ weight.T)  # what all-reduce adds up


def test_counts_are_joined_by_rank() -> None:
    parts = [np.full((2, 3), rank, dtype=np.int64) for rank in range(4)]
    joined = gather(parts)
    assert joined.dtype == np.int64
    assert joined.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]] * 2
