"""Take over the published recordings of one model, one file per language."""

import argparse
from pathlib import Path

from langneurons import __version__, artifacts
from langneurons.arguments import from_json
from langneurons.errors import UserError, run
from langneurons.published import activations, files

EXAMPLE = (
    "example: PYTHONPATH=workflow python workflow/scripts/import_activations.py "
    "--inputs activation.en.train.llama-7b activation.de.train.llama-7b --languages en de "
    "--layers 32 --neurons 11008 --outputs en.safetensors de.safetensors"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--inputs", nargs="+", required=True, help="published recordings")
    parser.add_argument("--languages", nargs="+", required=True, help="in the order of the inputs")
    parser.add_argument("--layers", type=int, help="number of layers of the model, to check")
    parser.add_argument("--neurons", type=int, help="number of neurons per layer, to check")
    parser.add_argument("--sha256", type=from_json, default={}, help="expected checksums by language, JSON")
    parser.add_argument("--outputs", nargs="+", required=True, help="counts, safetensors, in the order of the inputs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if not len(args.inputs) == len(args.languages) == len(args.outputs):
        raise UserError(f"{len(args.inputs)} inputs, {len(args.languages)} languages and {len(args.outputs)} outputs.")
    recordings = []
    for path, language in zip(args.inputs, args.languages, strict=True):
        files.check_sha256(path, args.sha256.get(language, ""))
        counts = activations.read_activations(path)
        activations.check_shape(path, counts.over_zero.shape, args.layers, args.neurons)
        if recordings and counts.over_zero.shape != recordings[0][0].over_zero.shape:
            shapes = [list(one.over_zero.shape) for one in (counts, recordings[0][0])]
            raise UserError(
                f"{path}: has the shape [layer, neuron] {shapes[0]}, but {args.inputs[0]} has {shapes[1]}. Name "
                "recordings of one model."
            )
        metadata = {"language": language, "source": "published", "langneurons": __version__}
        metadata |= {"file": Path(path).name, "file_sha256": files.file_sha256(path)}  # no folder: results can be moved
        recordings.append((counts, metadata))
    for output, (counts, metadata) in zip(args.outputs, recordings, strict=True):
        artifacts.write_activations(output, counts, metadata)


if __name__ == "__main__":
    run(main)
