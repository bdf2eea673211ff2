"""Counts and sums of activations, for every engine: exact, batch after batch, on the device of each layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from langneurons.engines.base import EngineError

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda values: values,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}
"""Activation functions by name; the result has the number format of the argument."""

EXACT_ROWS = 2**20
"""Rows that are added up in float32, which holds every integer up to 2**24, before they go into int64 and float64."""
CPU_BLOCK = 2**18
"""Numbers per thread that stay in a processor's cache while they are summed and counted."""
DEVICE_BLOCK = 2**24
"""Numbers that are counted at a time on other devices, where Triton is missing."""
SUM_STEPS = 2**20
"""Sums of a batch are rounded to multiples of 1/SUM_STEPS: float64 adds those without rounding, in any order and
grouping, up to 2**53 / SUM_STEPS (8.6e9). So the shards of a recording add up to the very sums of the whole."""


class AllRecorded(Exception):  # noqa: N818 (no error)
    """Ends a forward pass of which nothing more is recorded."""


class Add(Protocol):
    """Adds counts and sums over the rows of `values`, `[token, neuron]`, in place; what is None is not asked for."""

    def __call__(
        self,
        values: torch.Tensor,
        function: str,
        over_zero: torch.Tensor | None,
        activation_sum: torch.Tensor | None,
        product: torch.Tensor | None = None,
        product_sum: torch.Tensor | None = None,
    ) -> None:
        """Add to `over_zero` (int64), `activation_sum` and `product_sum` (float64), all `[neuron]`."""
        ...


class Accumulator:
    """Counts and sums of `layers` x `neurons`, in place, batch after batch.

    Adding waits for no device, and memory does not grow with the number of tokens. A batch may come in several parts,
    as long as the rows of every layer add up to its tokens; what it adds is kept apart until it ends.
    """

    def __init__(self, shape: tuple[int, int], width: int, *, gated: bool, sums: bool = True) -> None:
        layers, neurons = shape
        lengths = {"over_zero": neurons}
        if sums:
            lengths |= {"activation_sum": neurons, "hidden_sum": width}
            lengths |= {"product_sum": neurons} if gated else {}
        self.gated, self.sums = gated, sums
        self.tokens = 0
        self.totals = {
            name: [
                torch.zeros(length, dtype=torch.int64 if name == "over_zero" else torch.float64) for _ in range(layers)
            ]
            for name, length in lengths.items()
        }
        self.batch = {name: [total.clone() for total in totals] for name, totals in self.totals.items()}
        """The part of the batch that has not ended."""
        self.finite = [] if sums else [torch.ones(neurons, dtype=torch.bool) for _ in range(layers)]
        """Without sums, which would be NaN: whether the last activation of every batch was a number, `[neuron]`."""
        self.rows = {name: [0] * layers for name in lengths}
        self.in_torch = TorchAdd()

    def add_activation(
        self, layer: int, values: torch.Tensor, function: str = "identity", product: torch.Tensor | None = None
    ) -> None:
        """Count where `function` of `values`, `[token, neuron]`, is above zero, and sum it as rounded to its format.

        `product`, `[token, neuron]`, is the input of the down projection of gated FFNs, if it is at hand; else it comes
        by `add_product`. It is left out without sums, and in plain FFNs, where it is the activation.
        """
        over_zero = self._place("over_zero", layer, values)
        activation_sum = self._place("activation_sum", layer, values) if self.sums else None
        if not (self.sums and self.gated):
            product = None
        product_sum = None if product is None else self._place("product_sum", layer, product)
        if product is not None and len(product) != len(values):
            raise EngineError(f"layer {layer} has {len(values)} activations, but {len(product)} products")
        self._adder(values)(values, function, over_zero, activation_sum, product, product_sum)
        if self.finite and len(values):
            self.finite[layer] = self.finite[layer].to(values.device) & values[-1].isfinite()

    def add_product(self, layer: int, product: torch.Tensor) -> None:
        """Sum the input of the down projection, `[token, neuron]`, where it comes apart from the activation."""
        if self.sums and self.gated:
            total = self._place("product_sum", layer, product)
            self._adder(product)(product, "identity", None, total)

    def add_hidden(self, layer: int, *parts: torch.Tensor) -> None:
        """Sum the hidden state after a layer, `[token, d_model]`, which is the sum of the parts."""
        if self.sums:
            total = self._place("hidden_sum", layer, *parts)
            for part in parts:
                self._adder(part)(part, "identity", None, total)

    def end_batch(self, tokens: int) -> None:
        """Add the batch to the totals, once it is sure that every layer left one row per token.

        Raises:
            EngineError: naming the first layer that did not; after the first batch also the first layer whose
                activations are not numbers.
        """
        if not self.tokens:
            self.check_finite()
        for name, rows in self.rows.items():
            for layer, seen in enumerate(rows):
                if seen != tokens:
                    raise EngineError(
                        f"layer {layer} was not recorded as it should be: {seen} rows of {name} for {tokens} tokens. "
                        "The model did not call the modules that its layout names, or not once per token."
                    )
        for name in self.batch:
            for totals, batch in self._by_device(name):
                if name != "over_zero":
                    torch._foreach_mul_(batch, SUM_STEPS)
                    torch._foreach_round_(batch)
                    torch._foreach_div_(batch, SUM_STEPS)
                torch._foreach_add_(totals, batch)
        self.tokens += tokens
        self.discard_batch()

    def discard_batch(self) -> None:
        """Forget what was added since the last batch ended."""
        for name, rows in self.rows.items():
            for _, batch in self._by_device(name):
                torch._foreach_zero_(batch)
            rows[:] = [0] * len(rows)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Discard the batch if the block ends with an error, such as one that needs too much memory and is begun
        anew."""
        try:
            yield
        except BaseException:
            self.discard_batch()
            raise

    def arrays(self) -> dict[str, np.ndarray]:
        """All counts and sums by name, `[layer, neuron]` or `[layer, d_model]`: `over_zero` in int64, and unless left
        out `activation_sum`, `product_sum` and `hidden_sum` in float64."""
        self.check_finite()
        found = {name: torch.stack([total.cpu() for total in totals]).numpy() for name, totals in self.totals.items()}
        if self.sums and not self.gated:
            found["product_sum"] = found["activation_sum"]
        return found

    def check_finite(self) -> None:
        """Check that counts without sums are of numbers: NaN is not above zero, so it would count as inactive.

        One token of each batch is looked at. What is wrong with a weight is wrong with every token, and what overflows
        at one token reaches, by attention, those that follow it.

        Raises:
            EngineError: naming layer and neuron.
        """
        for layer, finite in enumerate(self.finite):
            broken = (~finite).nonzero().flatten().tolist()
            if len(broken) == len(finite):
                cause = f"All neurons are, so look before them: {_before(layer)}."
            elif broken:
                cause = "Others are not, so look at the weights before the activation function of these neurons."
            if broken:
                raise EngineError(
                    f"{len(broken)} of {len(finite)} activations are NaN or infinite in layer {layer}, first in neuron "
                    f"{broken[0]}. {cause} If the weights are sound, record in a wider number format, such as dtype: "
                    "bfloat16 or float32."
                )

    def _by_device(self, name: str) -> list[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """Totals and the batch of all layers, device by device: one operation then serves many layers."""
        found: dict[torch.device, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for total, batch in zip(self.totals[name], self.batch[name], strict=True):
            totals, batches = found.setdefault(total.device, ([], []))
            totals.append(total)
            batches.append(batch)
        return list(found.values())

    def _place(self, name: str, layer: int, *parts: torch.Tensor) -> torch.Tensor:
        """Where to add parts of one kind: on their device. Their rows are counted once."""
        place = self.batch[name][layer]
        for part in parts:
            if part.shape != (len(parts[0]), len(place)):
                raise EngineError(
                    f"layer {layer} has {name} of the shape {tuple(part.shape)}, not [{len(parts[0])}, {len(place)}]"
                )
        self.rows[name][layer] += len(parts[0])
        if place.device != parts[0].device:
            with torch.inference_mode(False):  # else nothing could be added outside of inference mode any more
                for kept in (self.totals, self.batch):
                    kept[name][layer] = kept[name][layer].to(parts[0].device)
        return self.batch[name][layer]

    def _adder(self, values: torch.Tensor) -> Add:
        kernel = fused() if values.is_cuda and values.dtype != torch.float64 else None
        return kernel or self.in_torch


def _before(layer: int) -> str:
    """What activations of a layer depend on that those of the layer before do not."""
    return (
        f"from the down projection of layer {layer - 1} on" if layer else "embeddings, or the first layer's attention"
    )


class TorchAdd:
    """Counts and sums by torch alone, block by block of rows, so that what is summed and compared stays in the cache.

    Comparisons are written as numbers: summing them in a floating-point format is faster than summing truth values.
    On a CPU each thread has rows of its own: summing a matrix, it would have columns, half of them written by another
    thread just before, which takes cores that share no cache twice as long.
    """

    def __init__(self) -> None:
        self.blocks: dict[tuple[torch.device, torch.dtype, int, int], torch.Tensor] = {}
        """Memory for a block, `[thread, row, neuron]`, which serves all layers in turn."""

    def __call__(
        self,
        values: torch.Tensor,
        function: str,
        over_zero: torch.Tensor | None,
        activation_sum: torch.Tensor | None,
        product: torch.Tensor | None = None,
        product_sum: torch.Tensor | None = None,
    ) -> None:
        """See `Add`; float32 (float64 for a model in float64) within `EXACT_ROWS` rows."""
        values = values.detach()
        block = self._block(values)
        whole = over_zero is None and function == "identity" and values.dtype == block.dtype
        for chunk in values.split(EXACT_ROWS) if len(values) > EXACT_ROWS else (values,):
            if whole:
                total = chunk.sum(0)
            else:
                count, total = by_blocks(chunk, function, block, over_zero is not None, activation_sum is not None)
            if over_zero is not None:
                over_zero.add_(count.long())
            if activation_sum is not None:
                activation_sum.add_(total.double())  # faster than if `add_` converts it
        if product is not None:
            self(product, "identity", None, product_sum)

    def _block(self, values: torch.Tensor) -> torch.Tensor:
        device, dtype, neurons = values.device, torch.promote_types(values.dtype, torch.float32), values.shape[1]
        threads, size = (torch.get_num_threads(), CPU_BLOCK) if device.type == "cpu" else (1, DEVICE_BLOCK)
        key = device, dtype, threads, neurons
        if key not in self.blocks:
            with torch.inference_mode(False):  # as in `_place`
                self.blocks[key] = torch.empty(threads, max(size // neurons, 1), neurons, dtype=dtype, device=device)
        return self.blocks[key]


def by_blocks(
    values: torch.Tensor, function: str, block: torch.Tensor, counted: bool, summed: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts and sums over rows, `[neuron]` each, in the format of the block; zero where not asked for.

    Without sums no activation is computed: `least_active` says which numbers may then count otherwise.
    """
    threads, rows, neurons = block.shape
    count = torch.zeros(threads, neurons, dtype=block.dtype, device=block.device)
    total = torch.zeros_like(count)
    for part in _parts(values, threads, rows):
        room, counts, totals = block[: len(part), : part.shape[1]], count[: len(part)], total[: len(part)]
        if not summed:
            least = least_active(function, values.dtype, values.device)
            counts += torch.ge(part, least, out=room).sum(1)
            continue
        activation = FUNCTIONS[function](part)
        if activation.dtype != block.dtype:
            activation = room.copy_(activation)
        totals += activation.sum(1)
        if counted:
            counts += torch.gt(activation, 0, out=room).sum(1)
    return count.sum(0), total.sum(0)


def _parts(values: torch.Tensor, threads: int, rows: int) -> Iterator[torch.Tensor]:
    """Blocks of rows, `[thread, row, neuron]`; the last has the rows that threads cannot share equally."""
    even = len(values) - len(values) % threads
    if even:
        yield from values[:even].unflatten(0, (threads, -1)).split(rows, dim=1)
    if even < len(values):
        yield values[even:].unsqueeze(1)


@cache
def least_active(function: str, dtype: torch.dtype, device: torch.device) -> float:
    """The least number whose activation is above zero, so that counts need no activation.

    All functions here are above zero from some number on, and nowhere else: from the least number of the format, or
    from a few times that, where the format rounds its activation to zero.

    Counts are those of the computed activation wherever that is finite and at least twice the smallest normal number of
    its format, and nothing counts that is not above zero. Two kinds of numbers may count otherwise, as libraries, and
    the kernels of one library for a single number and for many, differ in them: those with a subnormal activation,
    which some round to zero, and infinity, of which some return NaN.
    """
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]

    def number(bits: int) -> torch.Tensor:
        return torch.tensor([bits], dtype=integers, device=device).view(dtype)

    # numbers above zero are in the order of their bits; of 1 all functions are
    none, active = 0, int(torch.ones(1, dtype=dtype).view(integers))
    while active - none > 1:
        middle = (none + active) // 2
        if FUNCTIONS[function](number(middle)) > 0:
            active = middle
        else:
            none = middle
    return number(active).item()


@cache
def fused() -> Add | None:
    """Triton's kernel, once it has run on this machine; None where it cannot, and torch counts instead."""
    try:
        from langneurons.engines import counting_kernel

        counting_kernel.probe("cuda")
    except Exception as error:  # of many kinds: no Triton, no C compiler or headers for it, a driver it does not know
        warnings.warn(f"Triton does not run here ({error}); counting in torch, which is slower.", stacklevel=2)
        return None
    return counting_kernel.add
