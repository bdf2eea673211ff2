"""Batches that are halved where memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from langneurons.engines.base import EngineError
from langneurons.models.devices import is_out_of_memory
from langneurons.progress import progress

Result = TypeVar("Result")


def in_batches(
    numbers: Sequence[int],
    size: int,
    compute: Callable[[Sequence[int]], Result],
    refuse: Callable[[int], EngineError],
    description: str,
    unit: str,
) -> tuple[list[Result], int]:
    """Compute items in batches; where memory runs out the batch is halved and begun anew.

    Args:
        numbers: the items, by number.
        size: items per batch.
        compute: computes a batch. Where memory runs out it must leave nothing behind that would count twice.
        refuse: what is raised where memory runs out for this item alone.
        description, unit: of the progress bar.

    Returns:
        The results, in order, and the size that memory allowed: where more is to come, it need not be found again.
    """
    results: list[Result] = []
    done = 0
    with progress(None, description, total=len(numbers), unit=unit) as bar:
        while done < len(numbers):
            batch = numbers[done : done + size]
            if _attempt(compute, batch, results):
                done += len(batch)
                bar.update(len(batch))
                continue
            if len(batch) == 1:
                raise refuse(batch[0])
            size = len(batch) // 2
            bar.write(f"{description}: memory ran out with a batch of {len(batch)}; going on with {size}", sys.stderr)
    return results, size


def _attempt(compute: Callable[[Sequence[int]], Any], batch: Sequence[int], results: list[Any]) -> bool:
    """Add the result of a batch; False where memory ran out, all of it given back."""
    try:
        results.append(compute(batch))
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # The error, and with it the frames that hold tensors, is gone only here.
    torch.cuda.empty_cache()
    return False
