"""Download a model of the hub into the hub's cache, where all other jobs read it."""

import argparse

from langneurons import artifacts
from langneurons.errors import run
from langneurons.models.hub import download


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id, such as ai-forever/mGPT")
    parser.add_argument("--revision", default="main", help="commit, tag or branch")
    parser.add_argument("--output", required=True, help="what was downloaded: commit, files and their sizes, JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    artifacts.write_document(args.output, "download", download(args.model, args.revision))


if __name__ == "__main__":
    run(main)
