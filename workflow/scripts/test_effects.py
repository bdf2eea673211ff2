"""Compare every perturbation of one model with the baseline and with its random controls."""

import argparse

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import UserError, run
from langneurons.metrics import statistics
from langneurons.metrics.effects import effects_of, with_relevance


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--perplexity", help="one row per window, Parquet")
    parser.add_argument("--text", help="one row per answer, Parquet")
    parser.add_argument("--relevance", help="relevance of every answer, Parquet")
    parser.add_argument(
        *("--perturbations",),
        type=from_json,
        required=True,
        help="id, variant, kind, language, source, draw, of, JSON",
    )
    parser.add_argument("--seed", type=int, required=True, help="of the resamples")
    parser.add_argument("--output", required=True, help="one row per effect, Parquet")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.relevance and not args.text:
        raise UserError("--relevance belongs to answers: give --text as well.")
    perplexity = artifacts.read_table(args.perplexity, "perplexity")[0] if args.perplexity else None
    text = artifacts.read_table(args.text, "text-metrics")[0] if args.text else None
    if text is not None and args.relevance:
        text = with_relevance(text, artifacts.read_table(args.relevance, "relevance")[0])
    method = {"seed": args.seed, "confidence": statistics.CONFIDENCE, "resamples": statistics.RESAMPLES}
    artifacts.write_table(args.output, "effects", effects_of(perplexity, text, args.perturbations, args.seed), method)


if __name__ == "__main__":
    run(main)
