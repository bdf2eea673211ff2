"""Take over published language-specific neurons."""

import argparse
import sys
from pathlib import Path

import numpy as np

from langneurons import artifacts
from langneurons.errors import UserError, run
from langneurons.published import activations, files
from langneurons.published import masks as published_masks

EXAMPLE = (
    "example: PYTHONPATH=workflow python workflow/scripts/import_neurons.py "
    "--mask activation_mask/llama-7b --languages en zh fr es vi id "
    "ja --layers 32 --neurons 11008 --output-neurons neurons.csv"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--mask", required=True, help="published neurons")
    parser.add_argument("--languages", nargs="+", required=True, help="languages of the mask, in its order")
    parser.add_argument("--layers", type=int, help="number of layers of the model, to check")
    parser.add_argument("--neurons", type=int, help="number of neurons per layer, to check")
    parser.add_argument("--recordings", nargs="*", default=[], help="recordings of the model, whose size is checked")
    parser.add_argument("--sha256", default="", help="expected checksum of the file, to check")
    parser.add_argument(
        "--output-neurons", type=Path, required=True, help="one row per language and neuron, .parquet or .csv"
    )
    parser.add_argument("--output-summary", help="counts, JSON")
    return parser.parse_args(argv)


def summarise(masks: published_masks.Masks, path: str, neurons: int | None) -> dict[str, object]:
    unknown = ("activation_bar", "candidates", "requested", "entropy_min", "entropy_max", "top_rate")
    return dict.fromkeys((*unknown, "activation_percentile")) | {
        "method": "published",
        "percentile_by_language": {},
        "selected": masks.distinct(),
        "count_by_language": masks.count_by_language(),
        "layers": masks.layers,
        "neurons_per_layer": neurons,
        "file": Path(path).name,  # no folder: results hold no paths of a machine
        "file_sha256": files.file_sha256(path),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.output_neurons.suffix not in (".parquet", ".csv"):
        raise UserError(f"{args.output_neurons}: neurons are written as .parquet or .csv. Choose one of these endings.")
    files.check_sha256(args.mask, args.sha256)
    layers, neurons = args.layers, args.neurons
    if args.recordings:
        shape = artifacts.read_activations(args.recordings[0])[0].over_zero.shape
        activations.check_shape(args.recordings[0], shape, layers, neurons)
        layers, neurons = shape
    masks = published_masks.read_masks(args.mask, args.languages, layers, neurons)
    summary = summarise(masks, args.mask, neurons)
    if args.output_neurons.suffix == ".csv":
        artifacts.write_text(args.output_neurons, masks.table.to_csv(index=False, lineterminator="\n"))
    else:
        table = masks.table.assign(entropy=np.nan, probability=np.nan)
        artifacts.write_table(args.output_neurons, "neurons", table, summary)
    if args.output_summary:
        artifacts.write_document(args.output_summary, "selection", summary)
    print(f"{args.mask}: {masks.distinct()} distinct neurons: {masks.count_by_language()}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
