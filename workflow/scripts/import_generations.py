"""Take over published answers, after checking that every perturbation answers the same inputs."""

import argparse

from langneurons import artifacts
from langneurons.arguments import from_json
from langneurons.errors import run
from langneurons.published import files, generations
from langneurons.published.files import PublishedError

EXAMPLE = (
    "example: PYTHONPATH=workflow python workflow/scripts/import_generations.py "
    "--perturbations none deactivate-en --languages en de "
    "--inputs en.jsonl de.jsonl en.perturb.en.jsonl de.perturb.en.jsonl "
    "--outputs none/en.jsonl none/de.jsonl deactivate-en/en.jsonl deactivate-en/de.jsonl"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--perturbations", nargs="+", required=True, help="the baseline is none")
    parser.add_argument("--languages", nargs="+", required=True, help="of the prompts")
    parser.add_argument("--inputs", nargs="+", required=True, help="published answers, per perturbation, then language")
    parser.add_argument(
        "--sha256", type=from_json, default=[], help="expected checksums in the order of the inputs, JSON"
    )
    parser.add_argument("--outputs", nargs="+", required=True, help="in the order of the inputs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    expected = len(args.perturbations) * len(args.languages)
    if not len(args.inputs) == len(args.outputs) == expected or len(args.sha256) not in (0, expected):
        raise PublishedError(
            f"{len(args.inputs)} inputs and {len(args.outputs)} outputs for {len(args.perturbations)} perturbations "
            f"({', '.join(args.perturbations)}) in {len(args.languages)} languages ({', '.join(args.languages)}): "
            f"{expected} of each are needed, per perturbation, then language."
        )
    for path, expected_sha256 in zip(args.inputs, args.sha256 or [""] * expected, strict=True):
        files.check_sha256(path, expected_sha256)
    width = len(args.languages)
    answers = [
        generations.read_generations(path, args.languages[index % width]) for index, path in enumerate(args.inputs)
    ]
    for index, path in enumerate(args.inputs):
        generations.check_same_inputs(args.inputs[index % width], answers[index % width], path, answers[index])
    for path, records in zip(args.outputs, answers, strict=True):
        artifacts.write_records(path, "generations", records)


if __name__ == "__main__":
    run(main)
