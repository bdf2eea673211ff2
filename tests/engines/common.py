"""What tests on the tiny random models share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from engines.families import FAMILIES, VOCABULARY
from langneurons.engines.hf import HfEngine

PROBE = np.random.default_rng(0).integers(0, VOCABULARY, (6, 24)).astype(np.uint32)
HALF = [torch.bfloat16, torch.float16]
IN_HALF = ["llama", "gpt2"]
"""Families whose edits are tested in these formats: a gated FFN and a plain one."""

IN_DOUBLE = 1e-6
"""Allowed difference of two computations in float64 that round differently, relative to the largest value: far above
its epsilon of 2e-16, since norms and attention of some families compute in float32 whatever the format, where one
entry may then be rounded the other way, by 6e-8."""

IN_OTHER_BATCHES = 1e-4
"""Allowed difference of sums of such a model over other batches, each of which is rounded to multiples of 1e-6: with
what was said above for a state of size 10, ten of these. One token more or less changes sums by a thousand times it."""


@cache
def engine_of(name: str, dtype: torch.dtype = torch.float32) -> HfEngine:
    """One engine per family and number format; tests leave it as it was. Six windows make an uneven last batch of 4."""
    return HfEngine(FAMILIES[name].build().to(dtype), None, batch_size=4, generation_batch_size=4)


def logits(model: Any, windows: np.ndarray = PROBE) -> torch.Tensor:
    """Logits of the whole model."""
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.from_numpy(windows.astype(np.int64)), use_cache=False).logits
    return found


def hooks_of(model: Any) -> int:
    """Number of hooks on all modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
