"""Check every file between jobs by its checksum, and name those that are damaged or of another format.

Tables, figures, the report and the weights of demo models have no checksum.

Example:
    export PYTHONPATH=workflow
    python workflow/scripts/verify_results.py --delete
"""

import argparse
import shlex
import sys
from pathlib import Path

from langneurons import artifacts, formats
from langneurons.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder to check (default: results)")
    parser.add_argument("--delete", action="store_true", help="delete what cannot be used")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    number, faults = artifacts.verify_all(args.results)
    targets = sorted({str(artifacts.target_of(path)) for path in faults})  # before any is deleted
    for path, fault in faults.items():
        print(f"{path}: {fault.reason}")
        if args.delete:
            path.unlink()
    stamp = args.results / formats.STAMP
    if not formats.is_usable(args.results):
        print(f"{stamp}: names other formats than this version of langneurons has, or is damaged")
        if args.delete:
            stamp.unlink()
    elif not faults:
        print(f"All {number} files are intact.")
        return
    print(f"{len(faults)} of {number} files cannot be used{' and are deleted' * args.delete}.", file=sys.stderr)
    if faults:
        print("This makes them anew; add --configfile and --config as in the run that made them:\n")
        print(shlex.join(["snakemake", "--cores", "all", "--resources", "gpu=1", "--force", *targets]))
        print("\nThen run as usual: what depends on a file whose content has changed is redone, and nothing else.")
    sys.exit(1)


if __name__ == "__main__":
    run(main)
