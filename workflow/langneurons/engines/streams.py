"""Random numbers of answers that are sampled: a stream for every prompt, whatever is answered beside it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence


def stream_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """The seed of each prompt's random numbers, 0 to 2**63 - 1.

    It follows from the experiment's seed, the prompt, and how often the same prompt came before: neither the batch, the
    order nor other prompts matter. Perturbations share it, so that their answers differ by what they changed.
    """
    seen: Counter[str] = Counter()
    seeds = []
    for prompt in prompts:
        digest = hashlib.sha256(f"{seed}\0{seen[prompt]}\0{prompt}".encode()).digest()
        seeds.append(int.from_bytes(digest[:8], "big") >> 1)
        seen[prompt] += 1
    return seeds
