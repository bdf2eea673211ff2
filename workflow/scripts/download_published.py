"""Download a published file, continuing an interrupted download, and check it."""

import argparse

from langneurons.download import download
from langneurons.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="http or https address")
    parser.add_argument("--sha256", default="", help="checksum that the file must have; empty: any")
    parser.add_argument("--output", required=True, help="the file, as published")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    download(args.url, args.output, args.sha256 or None)


if __name__ == "__main__":
    run(main)
