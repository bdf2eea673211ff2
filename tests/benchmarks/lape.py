"""How long joint LAPE takes, from files to Parquet, and its peak memory: each case is the command line of the rule.

The largest case has the size of LLaMA-2-70B with 21 languages; its recordings are random counts. With the folder of the
published recordings of LLaMA-2-7B (activation.<language>.train.llama-7b for en, de, tr), those are measured too, their
import included.

    python tests/benchmarks/lape.py [--published FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import report
from benchmarks.report import Runs, Usage, run
from langneurons import artifacts
from langneurons.neurons.counting import ActivationCounts

CASES = {"demo": (4, 512, 3), "LLaMA-2-7B": (32, 11008, 7), "LLaMA-2-70B": (80, 28672, 21)}
"""Layers, FFN neurons per layer, languages."""
TOKENS = 100_000_000


def identify(folder: Path, languages: list[str]) -> Usage:
    """LAPE over recordings in our format."""
    recordings = [str(folder / f"{language}.safetensors") for language in languages]
    rates = ["--top-rate", "0.01", "--activation-percentile", "0.95"]
    outputs = ["--output-neurons", str(folder / "lape.parquet"), "--output-summary", str(folder / "lape.json")]
    return run("identify_neurons", "--activations", *recordings, *rates, *outputs)


def record(folder: Path, layers: int, neurons: int, languages: list[str]) -> None:
    """Random counts with all arrays that a recording has; some neurons are active in one language alone."""
    generator = np.random.default_rng(0)
    common = generator.beta(0.5, 2, (layers, neurons))
    for language in languages:
        own = np.where(generator.random(common.shape) < 0.01, generator.random(common.shape), 0)
        over_zero = (np.clip(common + own, 0, 1) * TOKENS).astype(np.int64)
        sums = over_zero.astype(np.float64)
        counts = ActivationCounts(over_zero, sums, sums, TOKENS, over_zero // 2, TOKENS // 2)
        artifacts.write_activations(folder / f"{language}.safetensors", counts, {"language": language})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, help="folder of published recordings")
    args = parser.parse_args()
    runs = Runs("files to Parquet", ("case", "layers", "neurons", "languages"))
    if args.published:
        languages = ["en", "de", "tr"]
        size = {"layers": 32, "neurons": 11008, "languages": len(languages)}
        with tempfile.TemporaryDirectory() as name:
            inputs = [str(args.published / f"activation.{language}.train.llama-7b") for language in languages]
            outputs = [f"{name}/{language}.safetensors" for language in languages]
            files = ("--inputs", *inputs, "--languages", *languages, "--outputs", *outputs)
            runs.add(run("import_activations", *files), case="published: import", **size)
            runs.add(identify(Path(name), languages), case="published: LAPE", **size)
    for label, (layers, neurons, number) in CASES.items():
        languages = [f"language_{index}" for index in range(number)]
        size = {"layers": layers, "neurons": neurons, "languages": number}
        with tempfile.TemporaryDirectory() as name:
            record(Path(name), layers, neurons, languages)
            runs.add(identify(Path(name), languages), case=f"random, size of {label}", **size)
    report.write("lape", "What LAPE costs", [runs], {"published": str(args.published) if args.published else None})


if __name__ == "__main__":
    main()
