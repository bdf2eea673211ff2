"""Turn one language's documents into packed windows of a model's tokens, one file per split."""

import argparse
import sys
from typing import Any

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.config import SPLITS, source_files
from langneurons.corpus.sources import SPLIT_SEED, documents
from langneurons.corpus.windows import odd_tokens, pack
from langneurons.errors import run
from langneurons.models.tokenizer import load_tokenizer
from langneurons.progress import progress

SHARES = {
    "repeated_tokens": "repeat a text that came before",
    "unknown_tokens": "stand for text that the tokenizer does not know",
    "special_tokens": "are special tokens",
    "empty_tokens": "have no text",
}
"""What is said of tokens, where there are some."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=from_json, required=True, help="model and revision, JSON")
    parser.add_argument("--language", required=True)
    parser.add_argument("--source", type=from_json, required=True, help="the language's text source, JSON")
    parser.add_argument("--window", type=int, required=True, help="tokens per window")
    parser.add_argument("--tokens", type=from_json, required=True, help="token budget by split, JSON")
    parser.add_argument("--share", type=from_json, required=True, help="share of documents for valid and test, JSON")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--outputs", nargs=len(SPLITS), required=True, help=f"files for {', '.join(SPLITS)}")
    return parser.parse_args(argv)


def described(metadata: dict[str, Any]) -> str:
    """What the windows of a split are made of."""
    parts = [f"{metadata['tokens']:,} tokens of {metadata['documents']} documents"]
    for name, what in SHARES.items():
        if metadata[name]:
            parts.append(f"{metadata[name] / metadata['tokens']:.1%} {what}")
    return ", ".join(parts)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    tokenizer = load_tokenizer(args.model["model"], args.model["revision"])
    texts = documents(args.source, source_files(args.source, args.language), args.seed)
    counted = progress(texts, f"tokenizing {args.language}", unit="document")
    packed = pack(counted, tokenizer, args.window, args.tokens, args.share, SPLIT_SEED, args.language)
    for split, path in zip(SPLITS, args.outputs, strict=True):
        windows = packed[split]
        windows.metadata.update(tokenizer=args.model, source=args.source, **odd_tokens(windows.windows, tokenizer))
        artifacts.write_tokens(path, windows)
        print(f"{split}: {described(windows.metadata)}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
