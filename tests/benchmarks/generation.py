"""What an edit costs when text is generated: tokens per second with 1 % of the neurons off, against none.

The edit is one of the weights, so it should cost nothing; that it is made and undone is part of its time. Greedy, with
a repetition penalty of 1.1, all answers of the same length, in rounds in which every work has its turn. hf is compared
with vLLM too. Of a large model both are compiled, and hf is measured without that as well.

    python tests/benchmarks/generation.py
    python tests/benchmarks/generation.py --device cuda --shape llama-2-7b

The second is for a GPU; with --shape rehearsal all that it does can be tried on a CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.report import Round, Series
from benchmarks.shapes import Place, Shape, Works, benchmark, prompts
from langneurons.engines.base import Completion, Sampling
from langneurons.interventions import Intervention, deactivate

SHARE = 0.01
"""Neurons that are off."""
EDITED = f"{100 * SHARE:g} % off"


def edit(layers: int, neurons: int) -> Intervention:
    """Random neurons off."""
    chosen = np.random.default_rng(0).permutation(layers * neurons)[: round(SHARE * layers * neurons)]
    return deactivate(chosen // neurons, chosen % neurons)


def answers(engine: Any, shape: Shape, intervention: Intervention | None, eager: bool | None) -> list[Completion]:
    """Generate, with or without the edit, and with or without compilation where that can be chosen."""
    if eager is not None:
        engine.eager = eager
    sampling = Sampling(max_new_tokens=shape.new_tokens, repetition_penalty=1.1)
    if intervention is None:
        return engine.generate(prompts(shape.prompts), sampling)
    with engine.perturbed(intervention):
        return engine.generate(prompts(shape.prompts), sampling)


def works(name: str, engine: Any, shape: Shape, eager: bool | None = None) -> Works:
    """None and the edit, of one engine."""
    intervention = edit(*engine.shape)
    return {
        f"{name}: none": partial(answers, engine, shape, None, eager),
        f"{name}: {EDITED}": partial(answers, engine, shape, intervention, eager),
    }


@contextmanager
def hf_works(place: Place) -> Iterator[Works]:
    """The reference engine."""
    with place.hf() as engine:
        if not place.shape.large:
            yield works("hf", engine, place.shape)
            return
        engine.compile()
        eager, compiled = (works(name, engine, place.shape, name == "hf, eager") for name in ("hf, eager", "hf"))
        yield eager | compiled


@contextmanager
def vllm_works(place: Place) -> Iterator[Works]:
    """vLLM."""
    with place.vllm() as engine:
        yield works("vllm", engine, place.shape) if engine else {}


def check(found: Works, shape: Shape) -> None:
    """Exit unless all answers have their length, and the edit changes some; those of large models, which are noise, may
    all stay."""
    texts = {}
    for name, work in found.items():
        completions = work()
        if {completion.tokens for completion in completions} != {shape.new_tokens}:
            raise SystemExit(f"{name}: not every answer has {shape.new_tokens} tokens")
        texts[name] = [completion.text for completion in completions]
    for name, before in texts.items():
        if name.endswith(": none") and texts[name.replace("none", EDITED)] == before and not shape.large:
            raise SystemExit(f"{name}: the edit changed no answer")


def series(place: Place, rounds: list[Round]) -> Series:
    """What was measured of one shape, and the targets."""
    shape = place.shape
    title = f"{shape.name}, {shape.dtype}: {shape.prompts} prompts x {shape.new_tokens} new tokens"
    result = Series(title, rounds, shape.prompts * shape.new_tokens)
    names = rounds[0].seconds
    for name in names:
        engine, _, edited = name.partition(": ")
        reference = f"{engine}: none" if edited == EDITED else "vllm: none"
        result.add(name, reference if reference in names and reference != name else None)
    for engine in ("hf, eager", "hf", "vllm"):
        result.expect(f"{engine} with the edit, against none", f"{engine}: {EDITED}", f"{engine}: none", 0.98)
    return result


if __name__ == "__main__":
    heading = "What an edit costs when text is generated"
    rounds = attrgetter("generation_rounds")
    benchmark("generation", heading, __doc__, ["llama"], [hf_works, vllm_works], check, series, rounds)
