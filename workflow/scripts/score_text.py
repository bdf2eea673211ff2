"""Measure every generated text of one model: length, stop words, output language, sameness with the baseline."""

import argparse
import json
from itertools import product

import pandas as pd

from langneurons import artifacts
from langneurons.errors import run
from langneurons.metrics.text import measure_outputs, stop_words


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--perturbations", nargs="+", required=True)
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--generations", nargs="+", required=True, help="per perturbation, then language")
    parser.add_argument("--stop-words", type=json.loads, default={}, help="file or list by language, JSON")
    parser.add_argument("--output", required=True, help="one row per output, Parquet")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    tables = []
    for (perturbation, language), path in zip(
        product(args.perturbations, args.languages), args.generations, strict=True
    ):
        table = pd.DataFrame(artifacts.read_generations(path))
        table.insert(0, "perturbation", perturbation)
        table.insert(1, "language", language)
        tables.append(table)
    lists = {language: stop_words(language, args.stop_words.get(language)) for language in args.languages}
    artifacts.write_table(args.output, "text-metrics", measure_outputs(pd.concat(tables, ignore_index=True), lists))


if __name__ == "__main__":
    run(main)
