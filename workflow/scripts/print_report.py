"""Set the report for print: a PDF of what the page shows, with its fonts inside."""

import argparse
import sys
from pathlib import Path

from langneurons.errors import run
from langneurons.report import fonts, page_tree, typesetting
from langneurons.writing import atomic


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="the report's HTML page")
    parser.add_argument("--template", type=Path, required=True, help="how it looks, in Typst")
    parser.add_argument("--fonts", nargs="*", default=[], help="font files or folders, used before all others")
    parser.add_argument("--output", type=Path, required=True, help="the PDF")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    document = page_tree.read(args.page.read_text(encoding="utf-8"))
    text = page_tree.text_of(document)
    chosen = fonts.choose(fonts.printed(text), fonts.named(args.fonts))
    for script, number in fonts.summarise(text, chosen.missing):
        remedy = "Install a font that has them, or name one with the key report.fonts."
        print(f"No font here has {number} characters of the PDF ({script}). {remedy}", file=sys.stderr)
    with atomic(args.output) as temporary:
        temporary.write_bytes(typesetting.typeset(document, args.template, chosen))


if __name__ == "__main__":
    run(main)
