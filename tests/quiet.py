"""The smallest experiment with every stage, run undisturbed, for the tests that disturb a copy of it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from workflow.conftest import TINY, Project, copy_project

MODEL = "tiny-gpt2"
SMALLEST = {
    **TINY,
    "run": {"models": [MODEL], "languages": ["en", "de"], "perturbations": ["deactivate"]},
    # Two threads and batches of 8 windows: what clusters are asked for, and enough batches for a recording to be cut.
    "models": {MODEL: {**TINY["models"][MODEL], "training_tokens": 20_000, "threads": 2, "batch_size": 8}},
    # A model trained so little has neurons that fire at every token: under a higher bar none would be selected.
    "identification": {"compare": [], "activation_percentile": 0.7},
    "perturbations": {},
}
"""One model, one perturbation, one method: every stage, as small as it gets."""

STEPS = 23
"""Jobs of its run, but for `all`."""


def fresh(sources: Path, folder: Path) -> Project:
    """A copy of the sources in a folder, without its results, with this experiment."""
    shutil.copytree(sources, folder, ignore=shutil.ignore_patterns("results", ".snakemake"))
    (folder / "results").mkdir()
    shutil.copy2(sources / "results" / "README.md", folder / "results")
    return Project(folder, copy.deepcopy(SMALLEST))


def copied(project: Project, folder: Path) -> Project:
    """A copy of a project, with its results."""
    shutil.copytree(project.folder, folder)
    return Project(folder, copy.deepcopy(project.config), project.environment)


def complete(project: Project) -> None:
    """Run the experiment, however slow the machine is."""
    (project.folder / "tiny.yaml").write_text(yaml.safe_dump(project.config))
    done = project.plain("--configfile", "tiny.yaml", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def run_once(factory: pytest.TempPathFactory, worker: str) -> Project:
    """The finished experiment. It runs once, whichever worker comes first; each worker gets a copy of the outcome."""
    shared = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    project = Project(shared / "quiet" / "langneurons", copy.deepcopy(SMALLEST))
    with FileLock(shared / "quiet.lock"):
        if not (shared / "quiet" / "done").exists():
            copy_project(project.folder)
            complete(project)
            (shared / "quiet" / "done").touch()
    return copied(project, factory.mktemp("quiet") / "langneurons")
