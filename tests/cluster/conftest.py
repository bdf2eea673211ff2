"""The tiny experiment, run once on one machine and once on a cluster of two nodes."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster import slurm
from cluster.slurm import Job, Slurm, wait_for
from quiet import MODEL, SMALLEST, complete, copied, run_once
from workflow.conftest import Project, copy_project

RECORDING = f"results/{MODEL}/activations/en.safetensors"


def configuration() -> dict:
    """The smallest experiment, whose model claims a GPU: its results are those without."""
    config = copy.deepcopy(SMALLEST)
    config["models"][MODEL]["gpus"] = 1
    return config


@dataclass
class ClusterProject(Project):
    """A copy of the project that runs on the cluster, through its profile."""

    def command(self, *arguments: str) -> list[str]:
        """Snakemake with the profile as it is. Only the status is asked for sooner."""
        impatient = [sys.executable, "-P", "tests/cluster/impatient.py"]
        return [*impatient, "--workflow-profile", "profiles/slurm", *arguments]

    def plain(self, *arguments: str, timeout: int = 600) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> Running:
        """Start a run in the background."""
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(self.config))
        printed = self.folder / "printed.txt"
        with printed.open("w") as file:
            process = subprocess.Popen(
                self.command(*arguments, "--configfile", "tiny.yaml"),
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Python would ignore Ctrl-C where its parent does, as background commands of a shell do.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        return Running(process, printed)

    def freeze(self, cluster: Slurm, rule: str) -> Job:
        """Stop the script of a rule as soon as it runs, so that its job can be disturbed while it works."""

        def running() -> tuple[Job, list[int]] | None:
            jobs = [job for job in cluster.jobs_in(self.folder) if job.rule == rule and job.state == "RUNNING"]
            script = f"workflow/scripts/{rule}.py"
            scripts = [pid for job in jobs for pid in slurm.processes_of(job.number, script, self.folder)]
            return (jobs[0], scripts) if scripts else None

        job, scripts = wait_for(running, f"a running job of {rule}", 300)
        for pid in scripts:
            os.kill(pid, signal.SIGSTOP)
        return job


@dataclass
class Running:
    """A run in the background."""

    process: subprocess.Popen
    printed: Path

    def finish(self, seconds: float = 240) -> str:
        """Wait for its end; fail with the output if it failed."""
        try:
            code = self.process.wait(seconds)
        finally:
            slurm.kill(self.process.pid)
        output = self.printed.read_text()
        assert code == 0, output
        return output


@pytest.fixture(scope="session")
def cluster() -> Iterator[Slurm]:
    """The running cluster; where none can be started the tests are skipped."""
    if reason := slurm.missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: the path of munge's socket has at most 107 characters
    root.chmod(0o755)
    try:
        with slurm.running(root) as started:
            yield started
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for a machine whose GPUs are device files without a device.

    SLURM hands them out, but scripts must not look for them: a `python` first on the PATH tells them of none.
    """
    folder = tmp_path_factory.mktemp("programs")
    (folder / "python").write_text(
        "#!/usr/bin/env bash\n"
        "words=()\n"
        'while (($#)); do words+=("$1"); [[ $1 == --gpus ]] && { words+=(0); shift; }; shift; done\n'
        f'exec {sys.executable} "${{words[@]}}"\n'
    )
    (folder / "python").chmod(0o755)
    environment = Project(folder).environment
    return {**environment, "PATH": f"{folder}{os.pathsep}{environment['PATH']}"}


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The experiment, run on this machine with the default profile, undisturbed."""
    return run_once(tmp_path_factory, worker_id)


@pytest.fixture
def unrecorded(local: Project, tmp_path: Path, pretended: dict[str, str], cluster: Slurm) -> ClusterProject:
    """A copy of the finished experiment without one recording. It goes on on the cluster; its model claims no GPU."""
    return without_recording(local, tmp_path, pretended, gpus=0)


def without_recording(local: Project, folder: Path, environment: dict[str, str], gpus: int) -> ClusterProject:
    """Copy the finished experiment, and remove one recording."""
    project = ClusterProject(copied(local, folder / "langneurons").folder, configuration(), environment)
    (project.folder / RECORDING).unlink()
    project.config["models"][MODEL]["gpus"] = gpus
    return project


@pytest.fixture(scope="session")
def distributed(tmp_path_factory: pytest.TempPathFactory, pretended: dict[str, str], cluster: Slurm) -> ClusterProject:
    """The experiment on the cluster: account, GPUs and feature are named in the profile's block, recordings are cut."""
    folder = copy_project(tmp_path_factory.mktemp("distributed") / "langneurons").folder
    project = ClusterProject(folder, configuration() | {"recording": {"shards": 2}}, pretended)
    profile = project.folder / "profiles" / "slurm" / "config.yaml"
    text = profile.read_text(encoding="utf-8")
    for key, old, new in [
        ("slurm_account", "my-account", "ours"),
        ("gpu_gres", "gpu:a100", "gpu:toy"),
        ("gpu_constraint", "a100_80gb", "large"),
    ]:
        assert text.count(f"# {key}: {old}") == 1
        text = text.replace(f"# {key}: {old}", f"{key}: {new}")
    profile.write_text(text, encoding="utf-8")
    complete(project)
    return project
