"""Turn one language's documents into packed windows of a model's tokens, one file per split."""

import argparse
import sys

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.config import SPLITS, source_files
from langneurons.corpus.sources import SPLIT_SEED, documents
from langneurons.corpus.windows import pack
from langneurons.errors import run
from langneurons.models.tokenizer import load_tokenizer
from langneurons.progress import progress


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


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    tokenizer = load_tokenizer(args.model["model"], args.model["revision"])
    texts = documents(args.source, source_files(args.source, args.language), args.seed)
    counted = progress(texts, f"tokenizing {args.language}", unit="document")
    packed = pack(counted, tokenizer, args.window, args.tokens, args.share, SPLIT_SEED, args.language)
    for split, path in zip(SPLITS, args.outputs, strict=True):
        windows = packed[split]
        windows.metadata.update(tokenizer=args.model, source=args.source)
        artifacts.write_tokens(path, windows)
        print(f"{split}: {windows.windows.size:,} tokens of {windows.metadata['documents']} documents", file=sys.stderr)


if __name__ == "__main__":
    run(main)
