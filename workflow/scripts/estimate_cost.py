"""Print what an experiment costs on H200 GPUs: jobs and GPU hours, memory, storage, and wall time on several GPUs."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from langneurons import cost, footprint, graph, schedule
from langneurons.errors import run
from langneurons.validation import check_files, validate

DEFAULT = Path(__file__).parents[2] / "config.yaml"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog="What is assumed: docs/scaling.md")
    parser.add_argument("--configfile", nargs="+", required=True, help="laid over config.yaml, as by snakemake")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="such as folder=path/to/the/files")
    parser.add_argument("--engine", choices=["hf", "vllm"], help="of all models, instead of those in the config")
    parser.add_argument("--gpus", nargs="+", type=gpus, default=[8, 64], help="numbers of GPUs to work out the time on")
    return parser.parse_args(argv)


def gpus(text: str) -> int:
    """A number of GPUs, at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of GPUs")
    return int(text)


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Merge mappings, replace everything else, in place."""
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    config: dict[str, Any] = {}
    check_files([DEFAULT, *args.configfile])
    for path in [DEFAULT, *args.configfile]:
        lay_over(config, yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    lay_over(config, {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in args.config)})
    if args.engine:
        for name in config["run"]["models"]:
            config["models"][name]["engine"] = args.engine
    config = validate(config)
    jobs = graph.jobs(config)
    tables = {
        "Jobs × GPU hours of each, by model and stage": cost.as_table(config, cost.estimate(config)),
        "Jobs by rule": graph.as_table(jobs),
        "Memory and storage": footprint.as_table(config),
    }
    if any(job.gpus for job in jobs):  # else nothing would be left: the time of other jobs is not worked out
        tables["Wall time"] = schedule.as_table(jobs, args.gpus)
    print("\n\n".join("\n".join([f"{title}:", "", *lines]) for title, lines in tables.items()))


if __name__ == "__main__":
    run(main)
