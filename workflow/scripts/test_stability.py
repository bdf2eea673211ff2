"""Count how many of the neurons that LAPE selects stay the same with other text, or less of it."""

import argparse

from langneurons import artifacts
from langneurons.errors import run
from langneurons.neurons.stability import stability


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--activations", nargs="+", required=True, help="recordings, one per language")
    parser.add_argument("--top-rate", type=float, required=True, help="share of all neurons to select")
    parser.add_argument("--activation-percentile", type=float, required=True, help="rank of the activation bar")
    parser.add_argument("--output", required=True, help="one row per comparison and language, Parquet")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    recordings = [artifacts.read_activations(path) for path in args.activations]
    counts = {metadata["language"]: recorded for recorded, metadata in recordings}
    table = stability(counts, args.top_rate, args.activation_percentile)
    artifacts.write_table(args.output, "stability", table)


if __name__ == "__main__":
    run(main)
