"""Whether the memory of recording grows with the text: the peak of the rule's command line, for N and 10 N windows.

python tests/benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from benchmarks.report import Runs, Usage
from benchmarks.shapes import SHAPES, save, windows
from langneurons import artifacts
from langneurons.corpus.windows import TokenWindows


def record(engine: str, model: str, tokens: Path, batch: int, threads: int) -> Usage:
    """The command line of the rule, with all sums."""
    about = json.dumps({"name": engine, "model": model, "dtype": "float32"})
    options = ["--threads", str(threads), "--batch-size", str(batch), "--tokens", str(tokens)]
    return report.run("record_activations", "--model", about, *options, "--output", str(tokens.with_suffix(".counts")))


def growth(runs: Runs, usages: list[Usage], numbers: list[int], **facts: str) -> None:
    """Add runs of the same with these numbers of windows, and how their memory compares with the first."""
    for usage, number in zip(usages, numbers, strict=True):
        ratio = usage.gigabytes / usages[0].gigabytes
        runs.add(usage, **facts, windows=number, **{"memory, times the first": ratio})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=160, help="N")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    shape = SHAPES["llama"]
    numbers = [args.windows, 10 * args.windows]
    title = f"llama: windows of {shape.length} tokens, batch {shape.batch}, {shape.dtype}, all sums"
    runs = Runs(title, ("engine", "windows", "memory, times the first"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save(shape, folder / "model")
        for number in numbers:
            artifacts.write_tokens(folder / f"{number}", TokenWindows(windows(shape, number), {"language": "none"}))
        for engine in ["hf"] + ["vllm"] * bool(importlib.util.find_spec("vllm")):
            usages = [record(engine, model, folder / f"{number}", shape.batch, args.threads) for number in numbers]
            growth(runs, usages, numbers, engine=engine)
    report.write("memory", "Whether the memory of recording grows with the text", [runs], vars(args))


if __name__ == "__main__":
    main()
