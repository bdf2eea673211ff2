"""Record how often and how strongly each FFN neuron is active on one language's windows.

Or on a shard of them; or add up what all shards counted and summed, which gives the very numbers of the whole.
"""

import argparse
from typing import Any

from langneurons import __version__, artifacts
from langneurons.arguments import from_json
from langneurons.engines import load_engine
from langneurons.errors import run
from langneurons.neurons.counting import ActivationCounts, join_halves
from langneurons.neurons.sharding import add_up, joined, shard_range, unit


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=from_json, required=True, help="engine, model, revision and dtype, JSON")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="windows per batch")
    parser.add_argument("--tokens", required=True, help="packed windows")
    parser.add_argument("--sums", type=from_json, default=True, help="true, or false for counts alone")
    parser.add_argument(
        "--shard", type=int, nargs=2, metavar=("NUMBER", "OF"), help="record one of so many shards only"
    )
    parser.add_argument("--shards", nargs="*", default=[], help="recorded shards: add them up instead of recording")
    parser.add_argument("--output", required=True, help="counts and sums, safetensors")
    return parser.parse_args(argv)


def record(args: argparse.Namespace) -> tuple[ActivationCounts, dict[str, Any]]:
    """The counts and sums of the windows, and their metadata."""
    tokens = artifacts.read_tokens(args.tokens)
    windows, about = tokens.windows, {}
    if args.shard:
        part = shard_range(len(windows), unit(args.model["name"], args.batch_size), *args.shard)
        about = {"shard": {"start": part.start, "stop": part.stop, "windows": len(windows)}}
        windows = windows[part.start : part.stop]
    engine = load_engine(
        **args.model, gpus=args.gpus, threads=args.threads, batch_size=args.batch_size, window=windows.shape[1]
    )
    quarters = [engine.record(part, args.sums) for part in (windows[::4], windows[2::4]) if len(part)]
    counts = join_halves(*quarters) if len(quarters) > 1 else quarters[0]
    if len(windows) > 1:
        counts = join_halves(counts, engine.record(windows[1::2], args.sums))
    metadata = {**engine.description, **args.model, **about, "langneurons": __version__, "text": tokens.metadata}
    return counts, metadata | {"language": tokens.metadata["language"]}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.shards:
        shards = {path: artifacts.read_activations(path) for path in args.shards}
        counts = add_up([one for one, _ in shards.values()])
        metadata = joined({path: about for path, (_, about) in shards.items()})
    else:
        counts, metadata = record(args)
    artifacts.write_activations(args.output, counts, metadata)


if __name__ == "__main__":
    run(main)
