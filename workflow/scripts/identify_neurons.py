"""Select the language-specific neurons of one model, jointly over its languages, by one of several methods."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from langneurons import artifacts
from langneurons.errors import UserError, run
from langneurons.neurons.methods import METHODS, select


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--activations", nargs="+", required=True, help="recordings, one per language")
    parser.add_argument("--sentences", nargs="*", default=[], help="mean activations of sentences, one per language")
    parser.add_argument("--method", choices=list(METHODS), default="lape", help="how neurons are found")
    parser.add_argument("--top-rate", type=float, required=True, help="share of all neurons to select")
    parser.add_argument("--activation-percentile", type=float, required=True, help="rank of the activation bar")
    parser.add_argument("--bonus", type=float, default=0.2, help="weight of strong activation, for lape-bonus")
    parser.add_argument(
        "--neurons-per-language", type=int, help="for methods not by entropy; by default as many as LAPE selects"
    )
    parser.add_argument("--output-neurons", required=True, help="one row per language and neuron, Parquet")
    parser.add_argument("--output-summary", required=True, help="thresholds and counts, JSON")
    return parser.parse_args(argv)


def read_all(paths: list[str], read: Callable[[str], tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    recordings = [read(path) for path in paths]
    by_language = {metadata["language"]: recorded for recorded, metadata in recordings}
    if len(by_language) < len(recordings):
        raise UserError(f"two recordings are of the same language: {', '.join(paths)}")
    return by_language


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    counts = read_all(args.activations, artifacts.read_activations)
    sentences = read_all(args.sentences if METHODS[args.method].needs == "sentences" else [], artifacts.read_sentences)
    own = {"bonus": args.bonus, "neurons_per_language": args.neurons_per_language}
    selection = select(args.method, counts, sentences, args.top_rate, args.activation_percentile, **own)
    layers, neurons = next(iter(counts.values())).over_zero.shape
    summary = selection.summary() | {
        "method": args.method,
        "top_rate": args.top_rate,
        "activation_percentile": args.activation_percentile,
        "layers": layers,
        "neurons_per_layer": neurons,
    }
    summary |= {name: own[name] for name in METHODS[args.method].settings}
    artifacts.write_table(args.output_neurons, "neurons", selection.table, summary)
    artifacts.write_document(args.output_summary, "selection", summary)
    print(
        f"selected {selection.selected} of {layers * neurons} neurons: {summary['count_by_language']}", file=sys.stderr
    )


if __name__ == "__main__":
    run(main)
