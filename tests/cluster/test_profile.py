"""The profile without a cluster: dry runs, what is said where SLURM is missing, and what each job would ask for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from workflow.conftest import ROOT, Project, copy_project
from workflow.test_mistakes import message_of

PROFILE = ("--workflow-profile", "profiles/slurm")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy in which nothing has run, on a machine without SLURM: few programs are on its PATH."""
    folder = tmp_path_factory.mktemp("profile")
    programs = folder / "programs"
    programs.mkdir()
    for name in ("bash", "sh", "which", "uname"):
        (programs / name).symlink_to(shutil.which(name))
    copied = copy_project(folder / "langneurons")
    copied.environment["PATH"] = str(programs)
    return copied


@contextmanager
def pretended(project: Project, sinfo: str) -> Iterator[None]:
    """Programs in the place of SLURM's. Nothing can be submitted."""
    texts = {"sbatch": "exit 1", "squeue": "exit 1", "sinfo": sinfo}
    paths = [Path(project.environment["PATH"]) / name for name in texts]
    for path in paths:
        path.write_text(f"#!/bin/sh\n{texts[path.name]}\n")
        path.chmod(0o755)
    yield
    for path in paths:
        path.unlink()


def test_block_holds_all_that_is_adapted() -> None:
    """The keys that rules read stand in the profile; the limit of the default profile does not."""
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8")
    for key in ("slurm_partition", "gpu_partition", "slurm_account", "gpu_gres", "gpu_constraint"):
        assert f"{key}: " in text.split("# ---")[0], key
    profile = yaml.safe_load(text)
    assert profile["executor"] == "slurm"
    assert "resources" not in profile
    assert list(profile)[:2] == ["executor", "default-resources"]


def test_dry_run_needs_no_slurm(project: Project) -> None:
    assert sum(project.stale(*PROFILE).values()) == sum(project.stale().values()) > 40


def test_missing_slurm(project: Project) -> None:
    output = project.mistake(*PROFILE, "--slurm-status-command", "squeue")
    message = message_of(output)
    assert all(words in message for words in ("SLURM is not installed", "login node", "--workflow-profile")), message
    assert "Traceback" not in output
    assert not list((project.folder / "results").glob("tiny*"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("gpus", "partition", "key"), [(0, "cpu", "slurm_partition"), (1, "graphics", "gpu_partition")]
)
def test_partition_that_does_not_exist(project: Project, gpus: int, partition: str, key: str) -> None:
    """The one that jobs of this run would use is named, its key, and what there is."""
    overlay = {"models": {"tiny-llama": {"gpus": gpus}, "tiny-gpt2": {"gpus": gpus}}}
    profile = project.folder / "profiles" / "slurm" / "config.yaml"
    before = profile.read_text(encoding="utf-8")
    if gpus:
        profile.write_text(
            before.replace("slurm_partition: cpu", "slurm_partition: batch").replace(
                "gpu_partition: gpu", "gpu_partition: graphics"
            ),
            encoding="utf-8",
        )
    with pretended(project, "printf 'batch\\ngpu\\n'"):
        output = project.mistake(*PROFILE, config=overlay)
    profile.write_text(before, encoding="utf-8")
    message = message_of(output)
    assert all(words in message for words in (f"'{partition}'", f"'{key}'", "batch, gpu")), message
    assert "Traceback" not in output


@pytest.mark.full
def test_slurm_that_does_not_answer(project: Project) -> None:
    with pretended(project, "echo 'Unable to contact slurm controller' >&2; exit 1"):
        message = message_of(project.mistake(*PROFILE))
    assert "Unable to contact slurm controller" in message
