"""Render the report: one self-contained HTML page."""

import argparse
import json
from pathlib import Path

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import run
from langneurons.report import render


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=from_json, required=True, help="the configuration, defaults filled in, JSON")
    parser.add_argument(
        "--results", type=Path, required=True, help="the folder with tables, figures and one folder per model"
    )
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--style", type=Path, required=True, help="style sheet, put into the page")
    parser.add_argument("--script", type=Path, required=True, help="what sorts and filters tables, put into the page")
    parser.add_argument("--output", type=Path, required=True, help="the page")
    parser.add_argument("--output-config", type=Path, required=True, help="the configuration as JSON, keys sorted")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    inputs = render.read(args.results, args.config)
    style, script = (path.read_text(encoding="utf-8") for path in (args.style, args.script))
    artifacts.write_text(args.output, render.render(inputs, args.template, style, script))
    text = json.dumps(args.config, indent=2, sort_keys=True, ensure_ascii=False)
    artifacts.write_text(args.output_config, f"{text}\n")


if __name__ == "__main__":
    run(main)
