"""The core of recording without a model: what it counts and sums, what it refuses, and how much memory it needs."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engines.rounding import FORMULAS, UNIT, rounded
from langneurons.engines import counting
from langneurons.engines.base import EngineError
from langneurons.engines.counting import FUNCTIONS, SUM_STEPS, Accumulator, TorchAdd

ROOT = Path(__file__).parents[2]
HALF = [torch.bfloat16, torch.float16]
DTYPES = [torch.float32, torch.float64, *HALF]
SIZES = [(1, 1), (5, 3), (300, 203), (1000, 64)]
"""Tokens and neurons, the last ones in several blocks (see `small_blocks`)."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that batches of a test have several and the last one is cut."""
    monkeypatch.setattr(counting, "CPU_BLOCK", 2**12)


def halves(tokens: int, neurons: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Gate and up as halves of one tensor, `[token, neuron]`: their rows do not follow each other in memory."""
    fused = torch.randn(tokens, 2 * neurons, generator=torch.Generator().manual_seed(0))
    fused[torch.rand(fused.shape, generator=torch.Generator().manual_seed(1)) < 0.1] = 0.0
    fused[torch.rand(fused.shape, generator=torch.Generator().manual_seed(2)) < 0.1] *= -0.0
    gate, up = (3 * fused).to(dtype).chunk(2, dim=-1)
    return gate, up


@dataclass(frozen=True)
class ByHand:
    """What is expected of a column each."""

    count: np.ndarray
    low: np.ndarray
    """The least sum, and the largest: near the middle between two numbers of a format libraries round differently."""
    high: np.ndarray
    size: np.ndarray
    """The sum of absolute values."""

    def __add__(self, other: ByHand) -> ByHand:
        return ByHand(self.count + other.count, self.low + other.low, self.high + other.high, self.size + other.size)


def by_hand(values: torch.Tensor, function: str = "identity") -> ByHand:
    """Of the activation in the format of the values, which is what the model goes on with. It is above zero where its
    argument is: no library's erf or tanh leaves [-1, 1], and the values here are far from the least of their format."""
    low, high = rounded(FORMULAS[function], values)
    found = ((values > 0).sum(0), low.sum(0), high.sum(0), torch.maximum(low.abs(), high.abs()).sum(0))
    return ByHand(*(one.numpy() for one in found))


def assert_sums(found: np.ndarray, expected: ByHand, summands: int, batches: int = 1) -> None:
    """So many summands are added in float32, in any order: as many roundings of the absolute sum. The sums of a batch
    are rounded to multiples of 1/SUM_STEPS."""
    assert found.dtype == np.float64
    allowed = summands * UNIT * expected.size + 0.5 * batches / SUM_STEPS
    assert (found >= expected.low - allowed).all()
    assert (found <= expected.high + allowed).all()


# -- counts and sums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "neurons"), SIZES)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_and_sums_are_those_by_hand(dtype: torch.dtype, function: str, tokens: int, neurons: int) -> None:
    gate, up = halves(tokens, neurons, dtype)
    product = FUNCTIONS[function](gate) * up
    hidden, residual = (part[:, : neurons + 1] for part in halves(tokens, neurons + 1, dtype))
    accumulator = Accumulator((1, neurons), neurons + 1, gated=True)
    accumulator.add_activation(0, gate, function, product)
    accumulator.add_hidden(0, hidden, residual)
    accumulator.end_batch(tokens)
    assert accumulator.tokens == tokens
    arrays = accumulator.arrays()
    expected = by_hand(gate, function)
    np.testing.assert_array_equal(arrays["over_zero"][0], expected.count)
    assert arrays["over_zero"].dtype == np.int64
    assert_sums(arrays["activation_sum"][0], expected, tokens)
    assert_sums(arrays["product_sum"][0], by_hand(product), tokens)
    assert_sums(arrays["hidden_sum"][0], by_hand(hidden) + by_hand(residual), 2 * tokens)


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_what_is_above_zero_is_counted(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    values = torch.tensor([0.0, -0.0, tiny, -tiny, float("inf"), float("-inf"), float("nan"), 1.0], dtype=dtype)
    accumulator = Accumulator((1, len(values)), 1, gated=False)
    accumulator.add_activation(0, torch.stack([values, values]))
    accumulator.add_hidden(0, torch.ones(2, 1))
    accumulator.end_batch(2)
    arrays = accumulator.arrays()
    assert arrays["over_zero"][0].tolist() == [0, 0, 2, 0, 2, 0, 0, 2]
    assert np.isnan(arrays["activation_sum"][0]).tolist() == [False] * 6 + [True, False]
    assert np.isinf(arrays["activation_sum"][0]).tolist() == [False] * 4 + [True, True, False, False]


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 7, 300])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_rows(threads: int, tokens: int, sums: bool) -> None:
    """Also rows that do not go round, and fewer rows than threads."""
    gate, _ = halves(tokens, 203, torch.float32)
    accumulator = Accumulator((1, 203), 1, gated=False, sums=sums)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        accumulator.add_activation(0, gate, "silu")
    finally:
        torch.set_num_threads(before)
    accumulator.add_hidden(0, gate[:, :1])
    accumulator.end_batch(tokens)
    arrays, expected = accumulator.arrays(), by_hand(gate, "silu")
    np.testing.assert_array_equal(arrays["over_zero"][0], expected.count)
    if sums:
        assert_sums(arrays["activation_sum"][0], expected, tokens)


def test_sums_are_of_activations_in_their_format() -> None:
    """What is summed is rounded first, as the model goes on with it: unrounded sums are outside of the bounds, narrow
    as these are for few summands."""
    for dtype, function in itertools.product(HALF, ("silu", "gelu", "gelu_tanh")):
        gate, _ = halves(20, 203, dtype)
        accumulator = Accumulator((1, 203), 1, gated=False)
        accumulator.add_activation(0, gate, function)
        accumulator.add_hidden(0, gate[:, :1])
        accumulator.end_batch(20)
        expected = by_hand(gate, function)
        assert_sums(accumulator.arrays()["activation_sum"][0], expected, 20)
        unrounded = FORMULAS[function](gate.double()).sum(0).numpy()
        allowed = 20 * UNIT * expected.size
        outside = (unrounded < expected.low - allowed) | (unrounded > expected.high + allowed)
        assert outside.mean() > 0.5


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("dtype", HALF)
def test_an_activation_that_is_rounded_to_zero_is_not_counted(
    dtype: torch.dtype, sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest number of a format, halved, is rounded to the even of its neighbours, which is zero: the model goes
    on with that. The functions of models are a little above half of it, where libraries round differently."""
    monkeypatch.setitem(FUNCTIONS, "halved", lambda values: values * 0.5)
    values = torch.full((3, 1), torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps, dtype=dtype)
    assert values[0] > 0
    accumulator = Accumulator((1, 1), 1, gated=False, sums=sums)
    accumulator.add_activation(0, torch.cat([values, 4 * values]), "halved")
    accumulator.add_hidden(0, torch.cat([values, values]))
    accumulator.end_batch(6)
    assert accumulator.arrays()["over_zero"].item() == 3


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_alone_are_those_of_the_computed_activation(dtype: torch.dtype, function: str) -> None:
    """Of every number of the formats of 16 bits; of the others, the smallest of both signs, those around twice the
    smallest normal number, and a million at random.

    A subnormal activation may be computed as zero, and that of infinity as NaN: `least_active` does not promise them.
    From twice the smallest normal number on, rounding errors leave an activation normal, and no library makes it zero.
    """
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    limits = torch.iinfo(integers)
    if dtype.itemsize == 2:
        bits = torch.arange(limits.min, limits.max + 1).to(integers)
    else:
        near = torch.arange(1000, dtype=integers)
        normal = near - 500 + torch.full((1,), 2 * torch.finfo(dtype).smallest_normal, dtype=dtype).view(integers)
        anywhere = torch.randint(limits.min, limits.max, (1_000_000,), generator=torch.Generator().manual_seed(0))
        bits = torch.cat([near, near + limits.min, normal, normal + limits.min, anywhere.to(integers)])
    values = bits.view(dtype)[None]
    accumulator = Accumulator((1, len(bits)), 1, gated=True, sums=False)
    rows = torch.cat([values, torch.zeros_like(values)])  # the last one must be finite
    accumulator.add_activation(0, rows, function)
    accumulator.end_batch(2)
    counted = torch.from_numpy(accumulator.arrays()["over_zero"][0]).bool()
    exact = FORMULAS[function](values[0].double())
    ordinary = values[0].isfinite() & (exact.abs() >= 2 * torch.finfo(dtype).smallest_normal)
    assert ordinary.double().mean() > 0.4
    assert torch.equal(counted[ordinary], (FUNCTIONS[function](values)[0] > 0)[ordinary])
    assert torch.equal(counted[ordinary], (exact > 0)[ordinary])
    assert not counted[~(values[0] > 0)].any()  # also none that is NaN


def test_without_sums_there_are_counts_alone() -> None:
    gate, up = halves(9, 4, torch.float32)
    accumulator = Accumulator((2, 4), 6, gated=True, sums=False)
    for layer in range(2):
        accumulator.add_activation(layer, gate, "silu", up)
    accumulator.add_product(0, up)  # what was not asked for is left out, also where it is given
    accumulator.add_hidden(0, torch.ones(9, 6))
    accumulator.end_batch(9)
    arrays = accumulator.arrays()
    assert set(arrays) == {"over_zero"}
    np.testing.assert_array_equal(arrays["over_zero"], [by_hand(gate, "silu").count] * 2)


def test_in_plain_ffns_the_product_is_the_activation() -> None:
    values, _ = halves(9, 4, torch.float32)
    accumulator = Accumulator((1, 4), 6, gated=False)
    accumulator.add_activation(0, values, "relu")
    accumulator.add_product(0, values)  # left out
    accumulator.add_hidden(0, torch.ones(9, 6))
    accumulator.end_batch(9)
    arrays = accumulator.arrays()
    assert set(arrays) == {"over_zero", "activation_sum", "product_sum", "hidden_sum"}
    np.testing.assert_array_equal(arrays["product_sum"], arrays["activation_sum"])


def test_counts_are_exact_whatever_the_number_of_rows() -> None:
    """More rows in a batch than float32 can count one by one, and a total that only 64 bits hold."""
    rows = 2**24 + 3
    accumulator = Accumulator((1, 1), 1, gated=False)
    accumulator.totals["over_zero"][0] += 2**53
    accumulator.add_activation(0, torch.ones(1, 1, dtype=torch.bfloat16).expand(rows, 1))
    accumulator.add_hidden(0, torch.ones(1, 1, dtype=torch.bfloat16).expand(rows, 1))
    accumulator.end_batch(rows)
    arrays = accumulator.arrays()
    assert arrays["over_zero"].item() == 2**53 + rows
    assert arrays["activation_sum"].item() == rows


def test_batches_and_their_parts_add_up() -> None:
    gate, up = halves(300, 20, torch.float32)
    whole, parts = (Accumulator((2, 20), 20, gated=True) for _ in range(2))
    for layer in range(2):
        whole.add_activation(layer, gate, "silu", up)
        whole.add_hidden(layer, gate)
    whole.end_batch(300)
    for start, stop in [(0, 120), (120, 300)]:
        for layer in range(2):  # a batch in several forward passes, one of them without a row
            for step in (slice(start, start + 1), slice(start, start), slice(start + 1, stop)):
                parts.add_activation(layer, gate[step], "silu")
                parts.add_product(layer, up[step])
                parts.add_hidden(layer, gate[step])
        parts.end_batch(stop - start)
    assert parts.tokens == whole.tokens == 300
    np.testing.assert_array_equal(parts.arrays()["over_zero"], whole.arrays()["over_zero"])
    for name, expected in (
        ("activation_sum", by_hand(gate, "silu")),
        ("product_sum", by_hand(up)),
        ("hidden_sum", by_hand(gate)),
    ):
        for layer in range(2):
            assert_sums(whole.arrays()[name][layer], expected, 300)
            assert_sums(parts.arrays()[name][layer], expected, 300, batches=2)


def test_no_gradient_is_kept() -> None:
    values = torch.ones(3, 2, requires_grad=True)
    accumulator = Accumulator((1, 2), 2, gated=True)
    accumulator.add_activation(0, values, "silu", values * 2)
    accumulator.add_hidden(0, values)
    accumulator.end_batch(3)
    assert not any(total.requires_grad for totals in accumulator.totals.values() for total in totals)
    assert accumulator.arrays()["product_sum"].tolist() == [[6.0, 6.0]]


def test_inference_mode_may_be_left_and_entered() -> None:
    accumulator = Accumulator((1, 2), 2, gated=True)
    for mode in (True, False, True):
        with torch.inference_mode(mode):
            for dtype in (torch.float32, torch.bfloat16):
                accumulator.add_activation(0, torch.ones(3, 2, dtype=dtype), "identity", torch.ones(3, 2))
                accumulator.add_hidden(0, torch.ones(3, 2))
                accumulator.end_batch(3)
    assert accumulator.arrays()["over_zero"].tolist() == [[18, 18]]


def test_what_failed_is_taken_back() -> None:
    accumulator = Accumulator((1, 2), 2, gated=False)

    def batch(rows: int, ends_well: bool = True) -> None:
        with accumulator.all_or_nothing():
            accumulator.add_activation(0, torch.ones(rows, 2))
            if not ends_well:
                raise MemoryError
            accumulator.add_hidden(0, torch.ones(rows, 2))
            accumulator.end_batch(rows)

    batch(3)
    with pytest.raises(MemoryError):
        batch(5, ends_well=False)
    batch(4)
    assert accumulator.tokens == 7
    assert accumulator.arrays()["over_zero"].tolist() == [[7, 7]]
    assert accumulator.arrays()["activation_sum"].tolist() == [[7.0, 7.0]]


def test_batches_add_up_to_the_same_bits_in_any_grouping() -> None:
    """What shards rely on. Unrounded, the sums of these batches depend on their grouping, so the test could fail."""
    batches = [halves(50, 20, torch.float32)[0] * 10.0**power for power in range(-9, 7)]

    def recorded(chosen: list[torch.Tensor]) -> np.ndarray:
        accumulator = Accumulator((1, 20), 20, gated=False)
        for values in chosen:
            accumulator.add_activation(0, values)
            accumulator.add_hidden(0, values)
            accumulator.end_batch(len(values))
        return accumulator.arrays()["activation_sum"][0]

    whole = recorded(batches)
    for cut in range(1, len(batches)):
        np.testing.assert_array_equal(recorded(batches[:cut]) + recorded(batches[cut:]), whole)
    np.testing.assert_array_equal(recorded(batches[::-1]), whole)
    sums = [values.sum(0).double().numpy() for values in batches]
    assert (sum(sums) != sum(sums[5:]) + sum(sums[:5])).any()


# -- what is refused ---------------------------------------------------------------------------------------------------

ADD: dict[str, Callable[[Accumulator, int, torch.Tensor], None]] = {
    "over_zero": lambda accumulator, layer, values: accumulator.add_activation(layer, values),
    "product_sum": lambda accumulator, layer, values: accumulator.add_product(layer, values),
    "hidden_sum": lambda accumulator, layer, values: accumulator.add_hidden(layer, values),
}


@pytest.mark.parametrize("rows", [0, 4, 6, 10])
@pytest.mark.parametrize("wrong", ADD)
def test_a_layer_with_rows_missing_or_too_many_is_refused(wrong: str, rows: int) -> None:
    accumulator = Accumulator((3, 2), 2, gated=True)
    for layer in range(3):
        for name, add in ADD.items():
            add(accumulator, layer, torch.ones(rows if (name, layer) == (wrong, 1) else 5, 2))
    with pytest.raises(EngineError, match=rf"layer 1 was not recorded .*: {rows} rows of {wrong} for 5 tokens\."):
        accumulator.end_batch(5)


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (5,), (1, 5, 2)])
@pytest.mark.parametrize("name", ADD)
def test_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    accumulator = Accumulator((1, 2), 2, gated=True)
    with pytest.raises(EngineError, match=rf"layer 0 has {name} of the shape .*, not \[\d, 2\]"):
        ADD[name](accumulator, 0, torch.ones(shape))


def test_parts_that_do_not_belong_together_are_refused() -> None:
    accumulator = Accumulator((1, 2), 2, gated=True)
    with pytest.raises(EngineError, match="layer 0 has 5 activations, but 4 products"):
        accumulator.add_activation(0, torch.ones(5, 2), "silu", torch.ones(4, 2))
    with pytest.raises(EngineError, match=r"hidden_sum of the shape \(4, 2\), not \[5, 2\]"):
        accumulator.add_hidden(0, torch.ones(5, 2), torch.ones(4, 2))


# -- Triton ------------------------------------------------------------------------------------------------------------


def test_where_triton_does_not_run_torch_counts() -> None:
    fused = counting.fused.__wrapped__  # what it finds is kept for the whole process
    if torch.cuda.is_available():
        assert fused() is not None
        return
    with pytest.warns(UserWarning, match=r"^Triton does not run here \(.+\); counting in torch, which is slower\.$"):
        assert fused() is None


@pytest.mark.parametrize("kernel", [None, TorchAdd()])
def test_the_device_and_the_format_choose_what_counts(
    kernel: counting.Add | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "fused", lambda: kernel)
    accumulator = Accumulator((1, 2), 2, gated=True)

    def chosen(is_cuda: bool, dtype: torch.dtype) -> counting.Add:
        return accumulator._adder(SimpleNamespace(is_cuda=is_cuda, dtype=dtype))  # type: ignore[arg-type]

    for dtype in DTYPES:
        assert chosen(False, dtype) is accumulator.in_torch
        here = kernel if kernel and dtype != torch.float64 else accumulator.in_torch  # it sums in float32
        assert chosen(True, dtype) is here


def in_a_process(script: str, *arguments: str, **variables: str) -> str:
    """What a script prints in a process of its own, with one thread."""
    path = os.pathsep.join(str(ROOT / folder) for folder in ("workflow", "tests"))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"} | variables
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


INTERPRETED = """
import sys
import numpy as np
import torch
from engines.rounding import FORMULAS, UNIT, rounded
from langneurons.engines import counting_kernel
from langneurons.engines.counting import FUNCTIONS

counting_kernel.probe("cpu")  # what decides on a GPU whether the kernel is used

def both(values, function):
    count, total = torch.zeros(values.shape[1], dtype=torch.int64), torch.zeros(values.shape[1], dtype=torch.float64)
    counting_kernel.add(values, function, count, total)
    return count, total

# Values that are special, one per neuron, and the rest of the tile.
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    tiny = 4 * torch.finfo(dtype).smallest_normal  # the interpreter takes bfloat16 that are not normal for zero
    special = [0.0, -0.0, tiny, -tiny, 1e4, -1e4, np.nan, np.inf, -np.inf]
    for function in FUNCTIONS:
        known = special[:-2] if function == "gelu" else special  # torch's own GELU of infinity differs between devices
        values = torch.tensor(known, dtype=dtype).expand(3, -1).contiguous()
        activation = FUNCTIONS[function](values)
        count, total = both(values, function)
        assert torch.equal(count, (activation > 0).sum(0)), (dtype, function, count)
        assert torch.allclose(total, activation.double().sum(0), equal_nan=True), (dtype, function, total)

# The smallest number of float16, halved, is rounded to zero as the model's is, and not counted.
smallest = torch.full((3, 1), 2.0**-24, dtype=torch.float16)
assert [both(smallest, function)[0].item() for function in ("identity", "silu", "gelu", "gelu_tanh")] == [3, 0, 0, 0]

# Activations are rounded to their format before they are summed: unrounded sums are outside of the bounds.
values = 3 * torch.randn(20, 150, generator=torch.Generator().manual_seed(0)).half()
for function in ("silu", "gelu", "gelu_tanh"):
    low, high = (bound.sum(0) for bound in rounded(FORMULAS[function], values))
    allowed = 20 * UNIT * values.double().abs().sum(0)  # as many summands, and no activation exceeds its argument
    total = both(values, function)[1]
    assert ((total >= low - allowed) & (total <= high + allowed)).all(), function
    unrounded = FUNCTIONS[function](values.double()).sum(0)
    assert ((unrounded < low - allowed) | (unrounded > high + allowed)).double().mean() > 0.3, function

# Sums alone, over rows whose neurons do not follow each other in memory; nothing from no rows.
total = torch.ones(150, dtype=torch.float64)
counting_kernel.add(values.T.contiguous().T, "identity", None, total)
counting_kernel.add(values[:0], "identity", None, total)
assert ((total - 1 - values.double().sum(0)).abs() <= allowed).all()

# Rows further apart than 32 bits can address, in a file that takes no room on the disk.
stride = 2**30 + 8
far = torch.from_numpy(np.memmap(sys.argv[1], dtype=np.float16, mode="w+", shape=(2 * stride + 2,)))
rows = far.as_strided((3, 2), (stride, 1))
rows.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0], [3.0, 5.0]]))
count, total = both(rows, "identity")
assert (count.tolist(), total.tolist()) == ([3, 1], [6.0, 4.0])
for pair in [(rows, rows.contiguous()), (rows.contiguous(), rows)]:
    total, product = torch.zeros(2, 2, dtype=torch.float64)
    counting_kernel.add(pair[0], "identity", torch.zeros(2, dtype=torch.int64), total, pair[1], product)
    assert total.tolist() == product.tolist() == [6.0, 4.0]
print("done")
"""
"""Triton's interpreter has to be chosen before Triton is imported, so this is a process of its own."""


@pytest.mark.full
def test_the_kernel_where_numbers_are_special(tmp_path: Path) -> None:
    assert in_a_process(INTERPRETED, str(tmp_path / "far"), TRITON_INTERPRET="1") == "done\n"


# -- memory ------------------------------------------------------------------------------------------------------------

RECORDED = """
import resource
import sys
import numpy as np
from engines.common import engine_of

engine = engine_of("llama")
windows = np.load(sys.argv[1], mmap_mode="r")
peaks = []
for number in (50, 500):
    counts = engine.record(windows[:number])
    assert counts.tokens == windows[:number].size
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


@pytest.mark.full
def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path: Path) -> None:
    """Ten times as many windows, read where they lie, in a file that cannot be written. Their activations alone would
    take another 55 MB (900 windows of 64 tokens, three layers of 80 neurons, float32)."""
    file = tmp_path / "windows.npy"
    np.save(file, np.random.default_rng(0).integers(0, 96, (500, 64)).astype(np.uint32))
    file.chmod(0o444)
    grown = int(in_a_process(RECORDED, str(file)))  # KiB
    # The windows themselves, 0.1 MB, and what a memory allocator leaves between batches: less than half of that.
    assert grown < 27e6 / 1024 / 2
