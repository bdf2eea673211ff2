"""Compare two results folders: which settings differ, which numbers moved, and whether by more than their uncertainty.

Writes comparison.html (one self-contained page), comparison.csv (every number of both runs) and neuron_sets.csv (how
far they select the same neurons).

Example:
    export PYTHONPATH=workflow
    python workflow/scripts/compare_results.py results-before results
"""

import argparse
from pathlib import Path

from langneurons import artifacts
from langneurons.errors import UserError, run
from langneurons.report import comparison, comparison_page, runs
from langneurons.report.render import ROOT

TEMPLATE = ROOT / "report" / "templates" / "comparison.html.j2"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, help="a results folder, such as the run before")
    parser.add_argument("b", type=Path, help="another one, of the same models")
    parser.add_argument("--output", type=Path, help="folder for what is written (default: comparison, in the second)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.a.is_dir() and args.b.is_dir() and args.a.samefile(args.b):
        raise UserError(
            f"{args.a} and {args.b} are the same folder. Copy the results of the first run before the second: "
            "cp -r results results-before"
        )
    a, b = runs.read(args.a), runs.read(args.b)
    rows, neurons = comparison.compare(a, b), comparison.neuron_sets(a, b)
    output = args.output or args.b / "comparison"
    for name, table in {"comparison": rows, "neuron_sets": neurons}.items():
        text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        artifacts.write_text(output / f"{name}.csv", text)
    artifacts.write_text(output / "comparison.html", comparison_page.render(a, b, rows, neurons, TEMPLATE))
    print(comparison_page.summary(a, b, rows, neurons))
    print(f"\nThe page: {(output / 'comparison.html').resolve()}")


if __name__ == "__main__":
    run(main)
