"""A clone in a folder of any name: its path has what shells, make and Snakemake's formatting read in their own way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.test_loading import tiny_tokenizer
from workflow.conftest import Project, copy_project, job_counts

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


def test_files_of_a_user_in_a_folder_with_braces(fresh: Project, tmp_path: Path) -> None:
    """Texts, questions, stop words, a model and a scorer: Snakemake would take {fine} for a wildcard."""
    place = tmp_path / "a {fine} place"
    for folder in ("model", "scorer"):
        (place / folder).mkdir(parents=True)
        (place / folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        tiny_tokenizer(eos_token="t0").save_pretrained(place / folder)
    for language in LANGUAGES:
        for kind in ("text", "questions", "words"):
            (place / f"{kind}.{language}.txt").write_text("".join(f"t{number}\n" for number in range(150)))

    def files(kind: str) -> dict[str, str]:
        return {language: str(place / f"{kind}.{language}.txt") for language in LANGUAGES}

    config = {
        "run": {"models": ["own"], "languages": LANGUAGES, "perturbations": ["deactivate"]},
        "models": {"own": {"source": "folder", "path": str(place / "model")}},
        "corpora": {"default": {"source": "files", "path": str(place / "text.{language}.txt"), "document": "line"}}
        | {"window": 4, "tokens": {"train": 64, "valid": 8, "test": 8}},
        "generation": {"prompts": files("questions")},
        "metrics": {"stop_words": files("words"), "relevance": {"kind": "judge", "path": str(place / "scorer")}},
    }
    project = Project(fresh.folder, config).warmed()
    output = project.run("-n", "-p")
    assert {"tokenize_corpus": 2, "generate_text_none": 1, "score_relevance": 1}.items() <= job_counts(output).items()
    tokens = "results/own/tokens/de.train.safetensors"
    project.run(tokens)
    assert project.stale(tokens) == {}
    with (place / "text.de.txt").open("a") as handle:
        handle.write("t1 t2\n")
    assert project.stale(tokens) == {"tokenize_corpus": 1}
