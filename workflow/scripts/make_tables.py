"""Write the tables of the report as CSV, over all models of the run."""

import argparse
from pathlib import Path

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import run
from langneurons.report import tables


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contents", type=from_json, required=True, help="what there is of each model, JSON")
    parser.add_argument("--replicates", type=from_json, default={}, help="whose numbers to put beside, by model, JSON")
    parser.add_argument("--models", nargs="+", required=True, help="their order")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--perturbations", type=from_json, required=True, help="id, variant, language and draw, JSON")
    parser.add_argument("--variants", type=from_json, required=True, help="settings of every variant, JSON")
    parser.add_argument("--results", type=Path, required=True, help="the folder with one folder per model")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    models = {
        model: tables.read_model(args.results / model, args.contents[model], args.languages, args.replicates.get(model))
        for model in args.models
    }
    own = [model for model in args.models if args.contents[model]["read"]]
    effects = tables.read_effects(args.results, own, args.perturbations)
    for name, table in tables.make_tables(models, effects, args.perturbations, args.variants, args.languages).items():
        artifacts.write_text(
            args.output / f"{name}.csv", table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        )


if __name__ == "__main__":
    run(main)
