"""Execute the notebook of the report: it loads the tables and redraws the main figures."""

import argparse
import os
from pathlib import Path

import nbformat

from langneurons import writing
from langneurons.errors import run
from langneurons.report import notebook


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the notebook in jupytext's percent format")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--output", type=Path, required=True, help="the notebook with its outputs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    folder = args.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {
        "TABLES": Path(os.path.relpath(args.tables, folder)).as_posix(),
        "MODELS": args.models,
        "LANGUAGES": args.languages,
        "COLOURS": notebook.colours(args.languages),
    }
    empty = notebook.build(args.source.read_text(encoding="utf-8"), parameters)
    writing.write_text(args.output, nbformat.writes(notebook.execute(empty, folder)) + "\n")


if __name__ == "__main__":
    run(main)
