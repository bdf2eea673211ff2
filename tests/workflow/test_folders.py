"""A clone in a folder of any name: its path has what shells, make and Snakemake's formatting read in their own way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workflow.conftest import Project, copy_project

ANY_NAME = "it's a {fine} größe"
LANGUAGES = ["en", "de"]
CONFIG = {
    "run": {"models": ["theirs"], "languages": LANGUAGES, "perturbations": ["deactivate"]},
    "models": {
        "theirs": {
            "source": "published",
            "generations": {"none": "files/{language}.jsonl", "deactivate": "files/{language}.off.{target}.jsonl"},
        }
    },
}
"""Answers that others published: of these alone a job takes a second."""


@pytest.mark.full
def test_a_clone_in_a_folder_of_any_name(tmp_path: Path) -> None:
    project = Project(copy_project(tmp_path / ANY_NAME / "clone").folder, CONFIG)
    (project.folder / "files").mkdir()
    for language in LANGUAGES:
        for suffix in ("", *(f".off.{target}" for target in LANGUAGES)):
            rows = [{"input": f"Q: {language}\nA:", "output": f"an answer{suffix}"}]
            (project.folder / "files" / f"{language}{suffix}.jsonl").write_text(json.dumps(rows))
    target = "results/theirs/generations/deactivate-de/en.jsonl"
    assert project.stale(target) == {"import_generations_theirs": 1}
    project.run(target)
    answers = (project.folder / target).read_text(encoding="utf-8")
    assert "an answer.off.de" in answers
    assert project.stale(target) == {}  # nor is anything stale because of the name
