"""How much recording costs: tokens per second of recording against the bare forward pass.

Same base model without head, same batch, threads and number format, in one process; rounds alternate, so that a busy
machine slows both. The ratio of a round compares its own two measurements; the median of the rounds is printed.

    python tests/benchmarks/recording.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

import numpy as np
import torch
import transformers

from langneurons.engines.hf import HfEngine

SHAPES = {
    "llama (gated, all arrays)": lambda: transformers.LlamaConfig(
        vocab_size=2500, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512
    ),
    "gpt2 (plain, all arrays)": lambda: transformers.GPT2Config(
        vocab_size=2500, n_embd=128, n_layer=4, n_head=4, n_inner=512, n_positions=128
    ),
}


def measure(engine: HfEngine, windows: np.ndarray, rounds: int) -> tuple[float, float, float]:
    """Median tokens per second of the forward pass and of recording, and the median ratio of the rounds."""

    def forward() -> None:
        with torch.inference_mode():
            for start in range(0, len(windows), engine.batch_size):
                batch = torch.from_numpy(windows[start : start + engine.batch_size].astype(np.int64))
                engine.model.base_model(input_ids=batch, use_cache=False)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    forward()
    engine.record(windows)
    pairs = [(seconds(forward), seconds(lambda: engine.record(windows))) for _ in range(rounds)]
    rates = [statistics.median(windows.size / pair[index] for pair in pairs) for index in (0, 1)]
    return rates[0], rates[1], statistics.median(bare / recorded for bare, recorded in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    windows = np.random.default_rng(0).integers(0, 2500, (args.windows, 128)).astype(np.uint32)
    print(f"{args.windows} windows of 128 tokens, batch {args.batch_size}, {args.threads} threads, float32, CPU")
    print(f"{'model':28}{'forward tokens/s':>18}{'recording tokens/s':>20}{'ratio':>8}")
    for name, config in SHAPES.items():
        model = transformers.AutoModelForCausalLM.from_config(config()).eval()
        engine = HfEngine(model, tokenizer=None, batch_size=args.batch_size, generation_batch_size=1)
        bare, recorded, ratio = measure(engine, windows, args.rounds)
        print(f"{name:28}{bare:18,.0f}{recorded:20,.0f}{ratio:8.3f}")


if __name__ == "__main__":
    main()
