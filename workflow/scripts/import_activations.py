"""Take over the published activations of one language."""

import argparse
from pathlib import Path

from langneurons import __version__, artifacts, published
from langneurons.errors import run

EXAMPLE = (
    "example: PYTHONPATH=workflow python workflow/scripts/import_activations.py "
    "--input activation.de.train.llama-7b --language de "
    "--layers 32 --neurons 11008 --output results/llama-7b/activations/de.safetensors"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--input", required=True, help="published activations")
    parser.add_argument("--language", required=True)
    parser.add_argument("--layers", type=int, help="number of layers of the model, to check")
    parser.add_argument("--neurons", type=int, help="number of neurons per layer, to check")
    parser.add_argument("--sha256", default="", help="expected checksum of the file, to check")
    parser.add_argument("--output", required=True, help="counts, safetensors")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    published.check_sha256(args.input, args.sha256)
    counts = published.read_activations(args.input)
    published.check_shape(args.input, counts.over_zero.shape, args.layers, args.neurons)
    metadata = {
        "language": args.language,
        "source": "published",
        "file": Path(args.input).name,  # no folder: results hold no paths of a machine
        "file_sha256": published.file_sha256(args.input),
        "langneurons": __version__,
    }
    artifacts.write_activations(args.output, counts, metadata)


if __name__ == "__main__":
    run(main)
