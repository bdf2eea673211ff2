"""Write the intervention files of one perturbation family: which neurons are edited, and how."""

import argparse
from pathlib import Path

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import run
from langneurons.planning import plan


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", nargs="*", default=[], help="selected neurons, Parquet, named by their selection")
    parser.add_argument(
        "--activations", nargs="*", default=[], help="recordings by language, where the edit needs them"
    )
    parser.add_argument("--members", type=from_json, required=True, help="what each perturbation is, JSON")
    parser.add_argument("--seed", type=int, required=True, help="of random draws")
    parser.add_argument("--outputs", nargs="+", required=True, help="one intervention file per member")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    selections = {Path(path).stem: artifacts.read_table(path, "neurons") for path in args.neurons}
    recordings = [artifacts.read_activations(path) for path in args.activations]
    counts = {metadata["language"]: recorded for recorded, metadata in recordings}
    for member, path in zip(args.members, args.outputs, strict=True):
        artifacts.write_intervention(path, plan(member, selections, counts, args.seed), member)


if __name__ == "__main__":
    run(main)
