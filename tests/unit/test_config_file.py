"""The default config.yaml: valid, complete, and documented in place."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from langneurons import config as experiment
from langneurons import variants
from langneurons.validation import SCHEMA, validate

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "config.yaml").read_text(encoding="utf-8")


def schema_keys() -> set[str]:
    """Every key that a user can write, but for names of models, variants and languages."""
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key in node.get("properties", {}):
                found.add(key)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))
    return found


def test_every_key_is_documented_in_place() -> None:
    """Each key of the schema occurs in config.yaml, set or in a comment."""
    missing = {key for key in schema_keys() if not re.search(rf"\b{key}:", TEXT)}
    assert missing == set()


def test_written_values_are_the_defaults() -> None:
    """What config.yaml spells out is what a config that says nothing gets, so that neither misleads."""
    written = validate(yaml.safe_load(TEXT))
    bare = {
        "run": {"models": ["llama-demo", "gpt2-demo"], "languages": ["en", "de", "tr"]},
        "models": {
            "llama-demo": {"source": "demo", "architecture": "llama"},
            "gpt2-demo": {"source": "demo", "architecture": "gpt2"},
        },
    }
    silent = validate(bare)
    written["run"].pop("perturbations")
    silent["run"].pop("perturbations")
    # A scale for a model of config.yaml by name, which a config with other models lacks.
    for name in ("steer", "random-steer"):
        assert written["perturbations"][name].pop("scale_by_model") == {"llama-demo": 8}
        assert silent["perturbations"][name].pop("scale_by_model") == {}
    assert written == silent


def test_default_run() -> None:
    config = validate(yaml.safe_load(TEXT))
    assert config["run"]["languages"] == ["en", "de", "tr"]
    assert len(variants.perturbations(config)) == 1 + 3 * (1 + 3 + 3 + 1 + 3 + 1)
    assert experiment.selections(config, "gpt2-demo") == [
        *("lape", "lape-bonus", "mean-difference", "average-precision", "probe"),
        "lape-top-0.1",
    ]
