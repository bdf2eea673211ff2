"""Write neurons, activations or answers in the forms that other projects publish and read."""

import argparse
import sys
from pathlib import Path

from langneurons import artifacts
from langneurons.errors import run
from langneurons.published import activations, generations, masks
from langneurons.published.files import PublishedError
from langneurons.published.masks import Masks

EXAMPLE = (
    "example: PYTHONPATH=workflow python workflow/scripts/export_published.py "
    "--neurons results/gpt2-demo/neurons/lape.parquet "
    "--languages en de tr --output activation_mask/gpt2-demo"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--neurons", help="selected neurons, Parquet: becomes a mask")
    source.add_argument("--activations", help="counts, safetensors; sums are not part of the published form")
    source.add_argument("--generations", help="answers, JSON lines: become a JSON array of input and output")
    parser.add_argument("--languages", nargs="+", help="order of the languages in a mask (default: of the table)")
    parser.add_argument("--output", type=Path, required=True, help="a name in .csv writes neurons as a table instead")
    args = parser.parse_args(argv)
    if args.languages and not args.neurons:
        parser.error("--languages goes with --neurons alone")
    return args


def export_neurons(path: str, languages: list[str] | None, output: Path) -> None:
    table, summary = artifacts.read_table(path, "neurons")
    if output.suffix == ".csv":
        artifacts.write_text(output, table.to_csv(index=False, lineterminator="\n"))
        return
    if "layers" not in summary:
        raise PublishedError(
            f"{path}: does not say how many layers the model has. Identify or import the neurons anew."
        )
    order = masks.order_languages(path, table, summary, languages)
    masks.write_masks(output, Masks(table, order, summary["layers"]))
    print(f"{output}: the mask does not name its languages; their order is: {' '.join(order)}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.neurons:
        export_neurons(args.neurons, args.languages, args.output)
    elif args.activations:
        activations.write_activations(args.output, artifacts.read_activations(args.activations)[0])
    else:
        generations.write_generations(args.output, artifacts.read_generations(args.generations))


if __name__ == "__main__":
    run(main)
