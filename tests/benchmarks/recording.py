"""What recording costs: tokens per second of recording, by both engines and by others' ways, against a forward pass.

Same model, tokens, threads and number format, in one process and in rounds in which every work has its turn. The engine
hf and the others are compared with the bare forward pass of the base model, without language-model head; vLLM with the
same requests to itself, without hooks. The weights are random: no time depends on them.

    python tests/benchmarks/recording.py
    python tests/benchmarks/recording.py --device cuda --shape llama-2-7b

The second is for a GPU. It also says which share of the measured peak of a matrix product in bfloat16 is used, where a
token takes 2 x parameters of the layers + 2 x layers x width x window floating-point operations: one multiplication and
one addition per weight, and as many in attention's two products with, on average, half of the window. The head is not
counted, though some of the others compute it. With --shape rehearsal everything that it does can be tried on a CPU.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import transformers

from benchmarks.peers import check, peers, recorded
from benchmarks.report import Round, Series
from benchmarks.shapes import Place, Works, benchmark, windows

HF_FORWARD, VLLM_FORWARD = "hf: forward", "vllm: forward"


@contextmanager
def hf_works(place: Place) -> Iterator[Works]:
    """The forward pass with and without head, recording, and others' ways."""
    tokens = windows(place.shape)

    @torch.inference_mode()
    def forward(model: Any) -> None:
        for start in range(0, len(tokens), engine.batch_size):
            model(input_ids=engine._ids(tokens[start : start + engine.batch_size]), use_cache=False)

    with place.hf() as engine:
        base = engine.model.base_model
        works = {HF_FORWARD: partial(forward, base), "hf: forward with head": partial(forward, engine.model)}
        if place.shape.large:
            works["hf: forward, compiled"] = partial(forward, torch.compile(base))
        ours = {
            "hf: counts": partial(engine.record, tokens, sums=False),
            "hf: counts and sums": partial(engine.record, tokens),
        }
        yield works | ours | {name: partial(recorded, count, engine, tokens) for name, count in peers(engine).items()}


@contextmanager
def vllm_works(place: Place) -> Iterator[Works]:
    """The forward pass, by the requests of recording without its hooks, and recording."""
    tokens = windows(place.shape)

    def forward() -> None:
        for group in engine._groups(tokens, "forward"):
            engine._run(group.tolist())

    with place.vllm() as engine:
        if engine is None:
            yield {}
            return
        yield {
            VLLM_FORWARD: forward,
            "vllm: counts": partial(engine.record, tokens, sums=False),
            "vllm: counts and sums": partial(engine.record, tokens),
        }


def flops_per_token(config: Any, length: int) -> int:
    """Floating-point operations of the base model, see above."""
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    embeddings = model.get_input_embeddings().weight.numel()
    parameters = sum(parameter.numel() for parameter in model.parameters()) - embeddings
    return 2 * parameters + 2 * config.num_hidden_layers * config.hidden_size * length


def matmul_peak(device: str) -> float:
    """Floating-point operations per second of a large matrix product in bfloat16: the median of 20."""
    size = 8192 if device == "cuda" else 512
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)

    def seconds() -> float:
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds()
    return 2 * size**3 / statistics.median(seconds() for _ in range(20))


def series(place: Place, rounds: list[Round]) -> Series:
    """What was measured of one shape, and the targets."""
    shape = place.shape
    title = f"{shape.name}, {shape.dtype}: {shape.windows} windows of {shape.length} tokens, batch {shape.batch}"
    peak = 0.0
    if shape.large:
        peak = matmul_peak(place.device)
        title += f"; matrix product in bfloat16: {peak / 1e12:,.1f} TFLOP/s"
    result = Series(title, rounds, shape.windows * shape.length)
    for name in rounds[0].seconds:
        reference = VLLM_FORWARD if name.startswith("vllm") else HF_FORWARD
        one = result.add(name, None if name == reference else reference)
        if peak:
            one.facts["of the peak"] = f"{one.rate * flops_per_token(shape.config(), shape.length) / peak:.1%}"
    for engine in ("hf", "vllm"):
        for what, least in {"counts": 0.95, "counts and sums": 0.9}.items():
            name = f"{engine}: {what}"
            result.expect(f"{name}, against the forward pass", name, f"{engine}: forward", least)
    for text, names in {
        "hf: counts, against the faster of two others": ("TransformerLens", "nnsight"),
        "hf: counts, against these without head": ("TransformerLens, one logit", "nnsight, base model"),
    }.items():
        measured = [name for name in names if name in result.measurements]
        if measured:
            fastest = max(measured, key=lambda name: result.measurements[name].rate)
            result.expect(text, "hf: counts", fastest, 1.5)
    return result


if __name__ == "__main__":
    benchmark("recording", "What recording costs", __doc__, ["llama", "gpt2"], [hf_works, vllm_works], check, series)
