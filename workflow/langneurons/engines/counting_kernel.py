"""A Triton kernel that reads activations, and products beside them, once. Imported only where tensors are on a GPU.

Two stages and no atomics, so that results do not depend on the order in which programs run: each program counts and
sums a block of neurons over a chunk of tokens in int32 and float32; then the chunks are added up in int64 and float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

CHUNK_TOKENS = 512
"""Tokens per program: few enough for many programs at once, and many enough that partial sums (12 bytes per neuron)
are a hundredth of what is read."""
ROWS, COLUMNS = 32, 128
"""Tokens and neurons that a program reads at a time: 256 bytes in a row in a format of 16 bits."""
LAUNCH = {"num_warps": 8, "enable_fp_fusion": False}
"""Sums are rounded as written, whatever is the default of a version of Triton."""


@triton.jit
def _activated(x, FUNCTION: tl.constexpr):
    """The activation function in float32; NaN stays NaN."""
    if FUNCTION == "silu":
        x = x / (1.0 + tl.exp(-x))
    elif FUNCTION == "gelu":
        x = x * 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    elif FUNCTION == "gelu_tanh":  # 0.5 * (1 + tanh(z)) is 1 / (1 + exp(-2z))
        x = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    elif FUNCTION == "relu":
        x = tl.where(x < 0, 0.0, x)
    else:
        tl.static_assert(FUNCTION == "identity")
    return x


@triton.jit
def _count_chunks(
    values,
    product,
    counts,
    sums,
    product_sums,
    tokens,
    neurons,
    values_stride,
    product_stride,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    SUM: tl.constexpr,
    PRODUCT: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Counts (int32) and sums (float32) of one chunk of tokens and one block of neurons."""
    blocks = tl.cdiv(neurons, COLUMNS)
    chunk = (tl.program_id(0) // blocks).to(tl.int64)
    columns = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < neurons
    count = tl.zeros([ROWS, COLUMNS], tl.int32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    product_total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, CHUNK, ROWS):
        rows = chunk * CHUNK + start + tl.arange(0, ROWS)  # int64: tokens times a stride may exceed 2**31
        mask = (rows < tokens)[:, None] & inside[None, :]
        if COUNT or SUM:
            x = tl.load(values + rows[:, None] * values_stride + columns[None, :], mask=mask, other=0.0)
            activation = _activated(x.to(tl.float32), FUNCTION).to(x.dtype).to(tl.float32)
            if COUNT:
                count += (activation > 0).to(tl.int32)
            if SUM:
                total += activation
        if PRODUCT:
            y = tl.load(product + rows[:, None] * product_stride + columns[None, :], mask=mask, other=0.0)
            product_total += y.to(tl.float32)
    place = chunk * neurons + columns
    if COUNT:
        tl.store(counts + place, tl.sum(count, 0), mask=inside)
    if SUM:
        tl.store(sums + place, tl.sum(total, 0), mask=inside)
    if PRODUCT:
        tl.store(product_sums + place, tl.sum(product_total, 0), mask=inside)


@triton.jit
def _add_partials(partials, totals, chunks, neurons, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add up the chunks of one block of neurons in the format of its totals, always in the same order."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < neurons
    total = tl.zeros([ROWS, COLUMNS], totals.dtype.element_ty)
    for start in range(0, chunks, ROWS):
        rows = start + tl.arange(0, ROWS)
        mask = (rows < chunks)[:, None] & inside[None, :]
        part = tl.load(partials + rows.to(tl.int64)[:, None] * neurons + columns[None, :], mask=mask, other=0)
        total += part.to(totals.dtype.element_ty)
    before = tl.load(totals + columns, mask=inside)
    tl.store(totals + columns, before + tl.sum(total, 0), mask=inside)


@triton.jit
def _add_chunks(
    counts,
    sums,
    product_sums,
    over_zero,
    activation_sum,
    product_sum,
    chunks,
    neurons,
    COUNT: tl.constexpr,
    SUM: tl.constexpr,
    PRODUCT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Add what the chunks counted and summed to int64 and float64."""
    if COUNT:
        _add_partials(counts, over_zero, chunks, neurons, ROWS, COLUMNS)
    if SUM:
        _add_partials(sums, activation_sum, chunks, neurons, ROWS, COLUMNS)
    if PRODUCT:
        _add_partials(product_sums, product_sum, chunks, neurons, ROWS, COLUMNS)


def add(
    values: torch.Tensor,
    function: str,
    over_zero: torch.Tensor | None,
    activation_sum: torch.Tensor | None,
    product: torch.Tensor | None = None,
    product_sum: torch.Tensor | None = None,
) -> None:
    """See `langneurons.engines.counting.Add`; float16, bfloat16 or float32."""
    tokens, neurons = values.shape
    if not tokens:
        return
    values = values if values.stride(1) == 1 else values.contiguous()
    if product is not None and product.stride(1) != 1:
        product = product.contiguous()
    chunks, blocks = triton.cdiv(tokens, CHUNK_TOKENS), triton.cdiv(neurons, COLUMNS)
    totals = (over_zero, activation_sum, product_sum)
    partials = [
        None if total is None else values.new_empty((chunks, neurons), dtype=dtype)
        for total, dtype in zip(totals, (torch.int32, torch.float32, torch.float32), strict=True)
    ]
    wanted = {name: total is not None for name, total in zip(("COUNT", "SUM", "PRODUCT"), totals, strict=True)}
    tile = {"ROWS": ROWS, "COLUMNS": COLUMNS} | LAUNCH
    with torch.cuda.device_of(values):  # Triton launches on the current device
        _count_chunks[(chunks * blocks,)](
            *(values, product, *partials, tokens, neurons),
            *(values.stride(0), 0 if product is None else product.stride(0)),
            **(wanted | tile | {"FUNCTION": function, "CHUNK": CHUNK_TOKENS}),
        )
        _add_chunks[(blocks,)](*partials, *totals, chunks, neurons, **(wanted | tile))


def probe(device: str) -> None:
    """Run the kernel once on a few numbers; fails where Triton or what it needs does not work."""
    count = torch.zeros(1, dtype=torch.int64, device=device)
    add(torch.ones(1, 1, device=device), "identity", count, None)
    if count.item() != 1:
        raise RuntimeError(f"it counted {count.item()} for 1")
