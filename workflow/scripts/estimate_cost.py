"""Print what an experiment costs on H200 GPUs: of every model and stage the jobs, and the GPU hours of each."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from langneurons import cost
from langneurons.errors import run
from langneurons.validation import validate

DEFAULT = Path(__file__).parents[2] / "config.yaml"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=cost.__doc__)
    parser.add_argument("--configfile", nargs="+", required=True, help="laid over config.yaml, as by snakemake")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="such as folder=path/to/the/files")
    parser.add_argument("--engine", choices=["hf", "vllm"], help="of all models, instead of those in the config")
    return parser.parse_args(argv)


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
    for path in [DEFAULT, *args.configfile]:
        lay_over(config, yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    lay_over(config, {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in args.config)})
    if args.engine:
        for name in config["run"]["models"]:
            config["models"][name]["engine"] = args.engine
    config = validate(config)
    print("\n".join(cost.as_table(config, cost.estimate(config))))


if __name__ == "__main__":
    run(main)
