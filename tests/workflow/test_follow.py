"""Following jobs instead of files, as very large runs do: the same results, and nothing that is missed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from chaos.comparison import compared, differences
from workflow.conftest import TINY, Project, environment

pytestmark = pytest.mark.full

JOBS = {"follow": "jobs"}
MODEL = "tiny-gpt2"
MEASURING = ("measure_perplexity", "generate_text")


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment of its own, of which jobs are followed."""
    copied = finished.copied(tmp_path_factory.mktemp("follow") / "langneurons")
    jobs = copied.stale(config=JOBS)
    assert not [rule for rule in jobs if rule.startswith(MEASURING)]
    assert jobs["score_perplexity"] == jobs["score_text"] == 2  # they depend on other files now
    copied.run(config=JOBS)
    assert copied.stale(config=JOBS) == {}
    return copied


def same(project: Project, finished: Project) -> None:
    assert differences(compared(finished), compared(project)) == []


def test_the_results_are_the_same(project: Project, finished: Project) -> None:
    """Also when one model is measured anew."""
    same(project, finished)
    for name in ("perplexity", "generations"):
        shutil.rmtree(project.folder / "results" / MODEL / name)
    jobs = project.stale(config=JOBS)
    assert {rule: jobs[rule] for rule in jobs if rule.startswith(MEASURING)} == {
        **{f"measure_perplexity_{name}": 1 for name in ("none", "deactivate", "random")},
        **{f"generate_text_{name}": 1 for name in ("none", *TINY["run"]["perturbations"])},
    }
    project.run(config=JOBS)
    same(project, finished)
    assert project.stale(config=JOBS) == {}


def test_deleted_files_are_made_anew(project: Project, finished: Project) -> None:
    """A file, and a folder of files."""
    shutil.rmtree(project.folder / "results" / MODEL / "perplexity/none")
    (project.folder / "results" / MODEL / "generations/deactivate-en/de.jsonl").unlink()
    stale = project.stale(config=JOBS)
    assert stale["measure_perplexity_none"] == stale["generate_text_deactivate"] == 1
    project.run(config=JOBS)
    same(project, finished)
    assert project.stale(config=JOBS) == {}


def test_a_single_file_can_be_asked_for(project: Project) -> None:
    """By following files, or where it is missing."""
    target = f"results/{MODEL}/generations/none/en.jsonl"
    assert project.stale(target, config={"follow": "files"}) == {}
    path = project.folder / target
    content = path.read_bytes()
    path.unlink()
    assert project.stale(target, config=JOBS) == {"generate_text_none": 1}
    project.run(target, config=JOBS)
    assert path.read_bytes() == content
    project.run(config=JOBS)


def test_damaged_files_are_made_anew(project: Project, finished: Project) -> None:
    """By the command that `verify_results` prints. It does not depend on whether they were deleted (test_faults.py)."""
    damaged = f"results/{MODEL}/perplexity/random-de-2/en.parquet"
    path = project.folder / damaged
    path.write_bytes(path.read_bytes()[:100])
    done = subprocess.run(
        [sys.executable, "workflow/scripts/verify_results.py"],
        cwd=project.folder, env={**environment(), "PYTHONPATH": "workflow"}, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{damaged}: is damaged" in done.stdout
    assert path.exists()
    command = f"snakemake --cores all --resources gpu=1 --force results/{MODEL}/perplexity/random.json"
    assert command in done.stdout.splitlines()
    project.run(*command.split()[1:], config=JOBS)
    project.run(config=JOBS)
    same(project, finished)
    assert project.stale(config=JOBS) == {}
