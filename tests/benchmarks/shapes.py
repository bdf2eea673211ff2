"""Models to measure, by their shape, and the engines that run them."""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle, islice
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers

from benchmarks import report
from benchmarks.report import Round, Series
from langneurons import progress
from langneurons.demo.training import train_tokenizer
from langneurons.engines import vllm as vllm_engine
from langneurons.engines.base import EngineError
from langneurons.engines.hf import HfEngine
from langneurons.engines.vllm import VllmEngine

Works = Mapping[str, Callable[[], Any]]
DEMO = Path(__file__).parents[2] / "workflow" / "langneurons" / "demo"
VOCABULARY = 2500


@dataclass(frozen=True)
class Shape:
    """A model with random weights, and how much it is given to do."""

    name: str
    config: Callable[[], Any]
    dtype: str
    windows: int
    length: int
    """Tokens of a window."""
    batch: int
    prompts: int
    new_tokens: int
    rounds: int
    """Of recording."""
    generation_rounds: int
    """One takes less time on a CPU, and varies by a tenth: telling 2 % takes more than a hundred."""
    large: bool = False
    """For a GPU: one engine is loaded at a time, the weights are never on disk (vLLM makes its own), shares of the peak
    are measured, and what the engines can compile they do."""


_SMALL: dict[str, Any] = {
    "dtype": "float32",
    "windows": 64,
    "length": 128,
    "batch": 32,
    "prompts": 32,
    "new_tokens": 64,
    "rounds": 30,
    "generation_rounds": 150,
}
_SHAPES = [
    Shape(
        "llama",
        lambda: transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=256,
        ),
        **_SMALL,
    ),
    Shape(
        "gpt2",
        lambda: transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=128,
            n_layer=4,
            n_head=4,
            n_inner=512,
            n_positions=256,
            activation_function="gelu_pytorch_tanh",  # as the demo model
        ),
        **_SMALL,
    ),
    Shape(
        "llama-2-7b",
        transformers.LlamaConfig,  # its defaults are this model
        dtype="bfloat16",
        windows=64,
        length=2048,
        batch=16,
        prompts=210,
        new_tokens=512,
        rounds=5,
        generation_rounds=5,
        large=True,
    ),
    Shape(  # everything that is done with a large model, in seconds and on any machine
        "rehearsal",
        lambda: transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
        ),
        dtype="bfloat16",
        windows=8,
        length=64,
        batch=4,
        prompts=8,
        new_tokens=16,
        rounds=2,
        generation_rounds=2,
        large=True,
    ),
]
SHAPES = {shape.name: shape for shape in _SHAPES}


@cache
def tokenizer() -> Any:
    """A tokenizer of the embedded corpus."""
    return train_tokenizer([path.read_text() for path in sorted((DEMO / "corpus").rglob("*.txt"))], VOCABULARY)


def prompts(number: int) -> list[str]:
    """So many of the embedded questions, over and over."""
    found = [line for path in sorted((DEMO / "prompts").glob("*.txt")) for line in path.read_text().splitlines()]
    return list(islice(cycle(found), number))


def windows(shape: Shape, number: int | None = None) -> np.ndarray:
    """Random tokens, uint32 `[window, position]`."""
    generator = np.random.default_rng(0)
    return generator.integers(0, VOCABULARY, (number or shape.windows, shape.length)).astype(np.uint32)


def save(shape: Shape, folder: Path) -> str:
    """Write the model's folder: of a large one without weights."""
    config = shape.config()
    tokenizer().save_pretrained(folder)
    if shape.large:
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder)
    else:
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class Place:
    """Where a saved model of a shape runs."""

    shape: Shape
    folder: str
    device: str
    threads: int

    @contextmanager
    def hf(self) -> Iterator[HfEngine]:
        """The reference engine. Its answers end only by their length."""
        engine = self._random() if self.shape.large else HfEngine.load(self.folder, **self._options())
        engine.end_tokens = []
        yield engine

    @contextmanager
    def vllm(self) -> Iterator[VllmEngine | None]:
        """vLLM, or None where it is not installed. Its answers end only by their length."""
        started = vllm_engine._started
        if self.shape.large:
            started = partial(started, load_format="dummy")
        try:
            with mock.patch.object(vllm_engine, "_started", started):
                engine = VllmEngine.load(
                    self.folder, **self._options(), eager=not self.shape.large, window=self.shape.length
                )
        except EngineError as error:
            print(f"vLLM is left out: {error}", flush=True)
            yield None
            return
        engine.end_tokens = []
        yield engine
        engine.close()

    def _options(self) -> dict[str, Any]:
        return {
            "dtype": self.shape.dtype,
            "gpus": int(self.device == "cuda"),
            "threads": self.threads,
            "batch_size": self.shape.batch,
            "generation_batch_size": self.shape.prompts,
        }

    def _random(self) -> HfEngine:
        """With weights that are made on the device."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        config = transformers.AutoConfig.from_pretrained(self.folder)
        with torch.device(self.device):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, self.shape.dtype))
        return HfEngine(model.eval(), tokenizer(), self.shape.batch, self.shape.prompts)


Load = Callable[[Place], AbstractContextManager[Works]]
"""Loads an engine, and says what is to be measured of it."""
Summary = Callable[[Place, list[Round]], Series]
"""What follows from the seconds of all works in each round."""


def benchmark(
    name: str,
    title: str,
    description: str,
    default: list[str],
    loads: Sequence[Load],
    check: Callable[[Works, Shape], None],
    series: Summary,
    rounds: Callable[[Shape], int] = attrgetter("rounds"),
) -> None:
    """The command line of a benchmark: measure shapes and write <name>.json, or <name>-<shape>.json of another shape.

    Args:
        name, title, description: of the benchmark.
        default: the shapes that are measured if none is named.
        loads: the engines and their works.
        check: runs all works once, and exits if one does not do what it should.
        series: makes the tables of one shape.
        rounds: how many a shape needs.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=default)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--rounds", type=int, help="by default as many as the shape needs")
    args = parser.parse_args()
    found = []
    for shape in (SHAPES[one] for one in args.shape):
        with tempfile.TemporaryDirectory() as folder:
            place = Place(shape, save(shape, Path(folder)), args.device, args.threads)
            found.append(series(place, measure(place, loads, args.rounds or rounds(shape), check)))
    suffix = [] if args.shape == default else args.shape
    report.write("-".join([name, *suffix]), title, found, vars(args))


def measure(place: Place, loads: Sequence[Load], rounds: int, check: Callable[[Works, Shape], None]) -> list[Round]:
    """Rounds of all works: those of all engines in turn, those of a large model engine by engine."""
    found = [Round({}, 0.0)] * rounds
    for group in [[load] for load in loads] if place.shape.large else [loads]:
        more = _measure_together(place, group, rounds, check)
        found = [
            Round(one.seconds | other.seconds, max(one.others, other.others))
            for one, other in zip(found, more, strict=True)
        ]
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
    return found


def _measure_together(
    place: Place, loads: Sequence[Load], rounds: int, check: Callable[[Works, Shape], None]
) -> list[Round]:
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(progress, "tqdm", partial(progress.tqdm, disable=True)))
        works: dict[str, Callable[[], Any]] = {}
        for load in loads:
            works |= stack.enter_context(load(place))
        check(works, place.shape)
        return report.in_turn(works, rounds, torch.cuda.synchronize if place.device == "cuda" else lambda: None)
