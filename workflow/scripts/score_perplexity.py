"""Gather the windows of all perturbations and languages of one model into one table."""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from langneurons import artifacts
from langneurons.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--perturbations", nargs="+", required=True)
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--windows", type=Path, required=True, help="folder, by perturbation and language below")
    parser.add_argument("--output", required=True, help="one row per window, Parquet")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    tables = []
    for perturbation, language in product(args.perturbations, args.languages):
        table, _ = artifacts.read_table(args.windows / perturbation / f"{language}.parquet", "perplexity")
        table.insert(0, "perturbation", perturbation)
        table.insert(1, "language", language)
        table.insert(2, "window", range(len(table)))
        tables.append(table)
    artifacts.write_table(args.output, "perplexity", pd.concat(tables, ignore_index=True))


if __name__ == "__main__":
    run(main)
