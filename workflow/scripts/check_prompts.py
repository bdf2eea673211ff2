"""Tokenize every question for one model, and check that it fits its context together with the answer."""

import argparse
import sys
from pathlib import Path

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.corpus.prompts import read_prompts
from langneurons.engines.limits import Limits
from langneurons.errors import run
from langneurons.models.hub import resolve
from langneurons.models.tokenizer import load_tokenizer
from langneurons.sizes import read_limits


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=from_json, required=True, help="model and revision, JSON")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--prompts", nargs="+", required=True, help="question files, one per language")
    parser.add_argument(
        "--settings",
        type=from_json,
        required=True,
        help="template, split, validation_prompts and max_new_tokens of the config, JSON",
    )
    parser.add_argument("--output", required=True, help="tokens of each prompt by language and id, JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    settings = args.settings
    tokenizer = load_tokenizer(**args.model)
    limits = Limits(args.model["model"], *read_limits(Path(resolve(**args.model), "config.json")))
    lengths = {}
    for language, path in zip(args.languages, args.prompts, strict=True):
        prompts = read_prompts(path, language, settings["validation_prompts"], settings["split"])
        texts = [settings["template"].replace("{question}", prompt.question) for prompt in prompts]
        encoded = tokenizer(texts)["input_ids"]
        limits.check_prompts(encoded, settings["max_new_tokens"], [prompt.id for prompt in prompts])
        lengths[language] = {prompt.id: len(ids) for prompt, ids in zip(prompts, encoded, strict=True)}
        print(f"{language}: {len(prompts)} prompts of at most {max(map(len, encoded))} tokens", file=sys.stderr)
    artifacts.write_document(args.output, "prompts", {"context": limits.context, "tokens": lengths})


if __name__ == "__main__":
    run(main)
