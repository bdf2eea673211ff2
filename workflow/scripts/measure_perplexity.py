"""Read held-out windows of every language under each perturbation, after proving that it takes effect."""

import argparse
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from langneurons import artifacts
from langneurons.arguments import from_json, perturbation_names
from langneurons.engines import load_engine
from langneurons.engines.proof import probe_windows
from langneurons.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=from_json, required=True, help="engine, model, revision and dtype, JSON")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="windows per batch")
    parser.add_argument("--interventions", nargs="*", default=[], help="intervention files; none measures the baseline")
    parser.add_argument("--tokens", nargs="+", required=True, help="packed windows, one file per language")
    parser.add_argument("--languages", nargs="+", required=True, help="of these files")
    parser.add_argument(
        "--output-manifest",
        type=Path,
        required=True,
        help="JSON; what it lists is written beside it, <perturbation>/<language>.parquet",
    )
    parser.add_argument("--output-effects", nargs="*", default=[], help="what was verified, per perturbation")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    languages = [artifacts.read_tokens(path).windows for path in args.tokens]
    interventions = [artifacts.read_intervention(path) for path in args.interventions]
    engine = load_engine(
        **args.model,
        gpus=args.gpus,
        threads=args.threads,
        batch_size=args.batch_size,
        window=languages[0].shape[1],
        interventions=interventions,
    )
    for path, effect, intervention in zip(args.interventions, args.output_effects, interventions, strict=True):
        proof = engine.verify(intervention, probe_windows(languages))
        print(f"verified {path}: {proof.edited_neurons} neurons in {len(proof.layers)} layers", file=sys.stderr)
        artifacts.write_document(effect, "effect", asdict(proof))
    written = []
    for name, intervention in zip(perturbation_names(args.interventions), interventions or [None], strict=True):
        with engine.perturbed(intervention) if intervention else nullcontext():
            for language, windows in zip(args.languages, languages, strict=True):
                loss = engine.token_nll(windows)
                table = pd.DataFrame({"nll_sum": loss.nll_sum, "tokens": loss.tokens})
                written.append(args.output_manifest.parent / name / f"{language}.parquet")
                artifacts.write_table(written[-1], "perplexity", table, {"engine": engine.description})
    artifacts.write_manifest(args.output_manifest, written)


if __name__ == "__main__":
    run(main)
