"""End a run with an error if the audit found that the numbers of an own model cannot be true."""

import argparse
from collections import Counter

from langneurons import artifacts
from langneurons.errors import UserError, run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--published", nargs="*", default=[], help="models that others ran; these never fail the run")
    parser.add_argument("--audits", nargs="+", required=True, help="one per model")
    parser.add_argument("--report", required=True, help="the report, for the message")
    parser.add_argument("--output", required=True, help="how many findings of each severity there are, text")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    lines, fatal = [], []
    for model, path in zip(args.models, args.audits, strict=True):
        findings = artifacts.read_records(path, "audit")
        counts = Counter(finding["severity"] for finding in findings)
        lines.append(f"{model}: " + ", ".join(f"{number} {severity}" for severity, number in counts.items()))
        if model not in args.published:
            fatal += [f"{model}: {row['sentence']}" for row in findings if row["severity"] == "fatal"]
    if fatal:
        raise UserError(
            f"the audit found {len(fatal)} fatal fault(s); do not use these numbers. {' '.join(fatal)} "
            f"The report shows the whole audit: {args.report}"
        )
    artifacts.write_text(args.output, "".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    run(main)
