"""Score whether every generated text of one model still addresses its question."""

import argparse

import pandas as pd

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import run
from langneurons.models.relevance import score


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=from_json, required=True, help="the section metrics.relevance, JSON")
    parser.add_argument("--text", required=True, help="measured outputs of a model, Parquet")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="texts per batch")
    parser.add_argument("--output", required=True, help="one row per output: its relevance, Parquet")
    return parser.parse_args(argv)


def questions(texts: pd.DataFrame) -> list[str]:
    """What each output answers: the question where it is known, else the whole input of the model."""
    known = texts["question"].fillna(texts["input"]) if "question" in texts else texts["input"]
    return known.tolist()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    texts, _ = artifacts.read_table(args.text, "text-metrics")
    pairs = list(zip(questions(texts), texts["output"], strict=True))
    table = texts[["perturbation", "language", "id"]].copy()
    table["relevance"] = score(args.settings, pairs, args.gpus, args.threads, args.batch_size)
    artifacts.write_table(args.output, "relevance", table, {"settings": args.settings})


if __name__ == "__main__":
    run(main)
