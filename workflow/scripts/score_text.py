"""Measure every generated text of one model: length, words, output language, copying, degeneration, sameness."""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import run
from langneurons.metrics.text import IDENTIFIERS, measure_outputs, stop_words
from langneurons.metrics.words import stop_word_matrix


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--perturbations", nargs="+", required=True)
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--generations", type=Path, required=True, help="folder, by perturbation and language below")
    parser.add_argument("--stop-words", type=from_json, default={}, help="file or list by language, JSON")
    parser.add_argument("--identifiers", nargs="+", default=IDENTIFIERS, help="of the language; the first decides")
    parser.add_argument("--threshold", type=float, default=0.5, help="a less probable language is undetermined")
    parser.add_argument("--output", required=True, help="one row per output, Parquet")
    parser.add_argument("--output-matrix", required=True, help="stop words of every language, Parquet")
    return parser.parse_args(argv)


def read_answers(folder: Path, perturbations: list[str], languages: list[str]) -> pd.DataFrame:
    """One row per answer, with `perturbation` and `language`."""
    tables = []
    for perturbation, language in product(perturbations, languages):
        table = pd.DataFrame(artifacts.read_generations(folder / perturbation / f"{language}.jsonl"))
        table.insert(0, "perturbation", perturbation)
        table.insert(1, "language", language)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    outputs = read_answers(args.generations, args.perturbations, args.languages)
    lists = {language: stop_words(language, args.stop_words.get(language)) for language in args.languages}
    measured = measure_outputs(outputs, lists, args.identifiers, args.threshold)
    artifacts.write_table(args.output, "text-metrics", measured)
    artifacts.write_table(args.output_matrix, "stop-words", stop_word_matrix(measured, lists))


if __name__ == "__main__":
    run(main)
