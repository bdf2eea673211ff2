"""Audit the results of one model: look for what makes its numbers untrustworthy."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.audit.checks import audit
from langneurons.audit.evidence import PASSED, read_evidence
from langneurons.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the model's folder")
    parser.add_argument("--contents", type=from_json, required=True, help="what there is of the model, JSON")
    parser.add_argument("--perturbations", type=from_json, required=True, help="id, variant, kind, language, JSON")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--identification", type=from_json, required=True, help="that section of the config, JSON")
    parser.add_argument("--output", required=True, help="every check and what it found, JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    evidence = read_evidence(args.results, args.contents, args.perturbations, args.languages, args.identification)
    findings = audit(evidence)
    artifacts.write_records(args.output, "audit", [asdict(finding) for finding in findings])
    for finding in findings:
        if finding.severity != PASSED:
            print(f"{finding.severity}: {finding.cell or finding.check}: {finding.sentence}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
