"""Record how often and how strongly each FFN neuron is active on one language's windows."""

import argparse
import json

from langneurons import __version__, artifacts
from langneurons.engines import load_engine
from langneurons.errors import run
from langneurons.neurons.counting import join_halves


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=json.loads, required=True, help="engine, model, revision and dtype, JSON")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="windows per batch")
    parser.add_argument("--tokens", required=True, help="packed windows")
    parser.add_argument("--sums", type=json.loads, default=True, help="true, or false for counts alone")
    parser.add_argument("--output", required=True, help="counts and sums, safetensors")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    tokens = artifacts.read_tokens(args.tokens)
    engine = load_engine(
        **args.model,
        gpus=args.gpus,
        threads=args.threads,
        batch_size=args.batch_size,
        window=tokens.windows.shape[1],
    )
    windows = tokens.windows
    quarters = [engine.record(part, args.sums) for part in (windows[::4], windows[2::4]) if len(part)]
    counts = join_halves(*quarters) if len(quarters) > 1 else quarters[0]
    if len(windows) > 1:
        counts = join_halves(counts, engine.record(windows[1::2], args.sums))
    metadata = {**engine.description, **args.model, "langneurons": __version__, "text": tokens.metadata}
    artifacts.write_activations(args.output, counts, metadata | {"language": tokens.metadata["language"]})


if __name__ == "__main__":
    run(main)
