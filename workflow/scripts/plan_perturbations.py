"""Write the intervention files of one perturbation variant: which neurons are edited, and how."""

import argparse
import json

from langneurons import artifacts
from langneurons.errors import run
from langneurons.interventions import deactivate
from langneurons.neurons.controls import draw_random


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", required=True, help="selected neurons, Parquet")
    parser.add_argument("--kind", choices=["deactivate", "random"], required=True)
    parser.add_argument("--site", choices=["activation", "product"], required=True)
    parser.add_argument("--members", type=json.loads, required=True, help="id, language and draw of each member, JSON")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--outputs", nargs="+", required=True, help="one intervention file per member")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    selected, summary = artifacts.read_table(args.neurons, "neurons")
    size = summary["layers"], summary["neurons_per_layer"]
    for member, path in zip(args.members, args.outputs, strict=True):
        if args.kind == "random":
            layers, neurons = draw_random(selected, member["language"], member["draw"], *size, args.seed)
        else:
            own = selected[selected["language"] == member["language"]]
            layers, neurons = own["layer"].to_numpy(), own["neuron"].to_numpy()
        artifacts.write_intervention(path, deactivate(layers, neurons, args.site), member)


if __name__ == "__main__":
    run(main)
