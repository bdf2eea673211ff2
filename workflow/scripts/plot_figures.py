"""Plot the figures of one model from the tables of the report, as SVG."""

import argparse
from pathlib import Path

from langneurons import artifacts
from langneurons.errors import run
from langneurons.report import figures, findings


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="whose rows are plotted")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = dict.fromkeys(name for drawing in figures.FIGURES.values() for name in drawing.tables)
    tables = {name: findings.read_csv(args.tables / f"{name}.csv") for name in names}
    own = {name: table[table["model"] == args.model] if "model" in table else table for name, table in tables.items()}
    for name, drawing in figures.FIGURES.items():
        shown = [own[table] for table in drawing.tables]
        artifacts.write_text(args.output / f"{name}.svg", figures.plot(shown, drawing.draw, args.languages))


if __name__ == "__main__":
    run(main)
