"""How long joint LAPE takes, from files to Parquet, and its peak memory: each case is the command line of the rule.

The largest case has the size of LLaMA-2-70B with 21 languages; its recordings are random counts. With the folder of the
published recordings of LLaMA-2-7B (activation.<language>.train.llama-7b for en, de, tr), those are measured too, their
import included.

    python tests/benchmarks/lape.py [--published FOLDER]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

import numpy as np  # noqa: E402 (the library's folder must be known first)

from langneurons import artifacts  # noqa: E402
from langneurons.neurons.counting import ActivationCounts  # noqa: E402

CASES = {"demo": (4, 512, 3), "LLaMA-2-7B": (32, 11008, 7), "LLaMA-2-70B": (80, 28672, 21)}
"""Layers, FFN neurons per layer, languages."""
TOKENS = 100_000_000


def run(script: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak memory in GB of one of the workflow's command lines."""
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / f"{script}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{script} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


def identify(folder: Path, languages: list[str]) -> tuple[float, float]:
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
    print(f"{'LAPE, files to Parquet':28}{'layers':>8}{'neurons':>9}{'languages':>11}{'seconds':>9}{'peak GB':>9}")
    if args.published:
        languages = ["en", "de", "tr"]
        with tempfile.TemporaryDirectory() as name:
            inputs = [str(args.published / f"activation.{language}.train.llama-7b") for language in languages]
            outputs = [f"{name}/{language}.safetensors" for language in languages]
            files = ("--inputs", *inputs, "--languages", *languages, "--outputs", *outputs)
            show("published: import", (32, 11008, 3), *run("import_activations", *files))
            show("published: LAPE", (32, 11008, 3), *identify(Path(name), languages))
    for label, (layers, neurons, number) in CASES.items():
        languages = [f"language_{index}" for index in range(number)]
        with tempfile.TemporaryDirectory() as name:
            record(Path(name), layers, neurons, languages)
            show(f"random, size of {label}", (layers, neurons, number), *identify(Path(name), languages))


def show(label: str, size: tuple[int, int, int], seconds: float, gigabytes: float) -> None:
    """One line of the table."""
    print(f"{label:28}{size[0]:8}{size[1]:9,}{size[2]:11}{seconds:9.2f}{gigabytes:9.2f}", flush=True)


if __name__ == "__main__":
    main()
