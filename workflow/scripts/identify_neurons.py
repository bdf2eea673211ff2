"""Select the language-specific neurons of one model by LAPE, jointly over its languages."""

import argparse
import sys

from langneurons import artifacts
from langneurons.errors import UserError, run
from langneurons.neurons.lape import select


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--activations", nargs="+", required=True, help="recordings, one per language")
    parser.add_argument("--top-rate", type=float, required=True, help="share of all neurons to select")
    parser.add_argument("--activation-percentile", type=float, required=True, help="rank of the activation bar")
    parser.add_argument("--output-neurons", required=True, help="one row per language and neuron, Parquet")
    parser.add_argument("--output-summary", required=True, help="thresholds and counts, JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    recordings = [artifacts.read_activations(path) for path in args.activations]
    counts = {metadata["language"]: recorded for recorded, metadata in recordings}
    if len(counts) < len(recordings):
        raise UserError(f"two recordings are of the same language: {', '.join(args.activations)}")
    selection = select(counts, args.top_rate, args.activation_percentile)
    layers, neurons = recordings[0][0].over_zero.shape
    summary = selection.summary() | {
        "method": "lape",
        "top_rate": args.top_rate,
        "activation_percentile": args.activation_percentile,
        "layers": layers,
        "neurons_per_layer": neurons,
    }
    artifacts.write_table(args.output_neurons, "neurons", selection.table, summary)
    artifacts.write_document(args.output_summary, "selection", summary)
    print(
        f"selected {selection.selected} of {layers * neurons} neurons: {summary['count_by_language']}", file=sys.stderr
    )


if __name__ == "__main__":
    run(main)
