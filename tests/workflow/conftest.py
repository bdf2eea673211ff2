"""A copy of the project with a tiny experiment, run once, on which the workflow is tested."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from workflow import warm

ROOT = Path(__file__).parents[2]

TINY_MODEL = {
    "source": "demo",
    "vocabulary": 400,
    "layers": 2,
    "width": 32,
    "heads": 1,  # of 32 dimensions, the fewest that vLLM computes on CPUs
    "neurons": 96,
    "context": 64,
    "training_tokens": 60_000,
    "batch_size": 32,  # of which shards have at least four
}
TINY = {
    "run": {
        "models": ["tiny-llama", "tiny-gpt2"],
        "languages": ["en", "de"],
        "perturbations": ["deactivate", "random", "steer"],
    },
    "models": {
        "tiny-llama": {**TINY_MODEL, "architecture": "llama", "languages": ["en", "de"]},
        "tiny-gpt2": {**TINY_MODEL, "architecture": "gpt2", "languages": ["en", "de"]},
    },
    "corpora": {"window": 32, "tokens": {"train": 4000, "valid": 320, "test": 640}},
    "identification": {"compare": ["mean-difference"]},
    "perturbations": {
        "random": {"draws": 2},
        "steer": {"kind": "steer", "top_rate": 0.05, "scale": 8, "measure": ["answers"]},
    },
    "generation": {"max_new_tokens": 6, "validation_prompts": 55, "template": "{question}"},
}

READ_PAGE = ("results/report/report.html", "results/report/audit.txt")
"""Targets of tests that look at tables and the page: whatever the run is, neither a PDF nor a notebook."""
PAGE = {"render_report": 1, "print_report": 1, "check_audit": 1}
"""What shows the config."""
AGGREGATES = {"make_tables": 1, "plot_figures": 2, "execute_notebook": 1, **PAGE}


@dataclass
class Project:
    """A copy of the project in a folder of its own."""

    folder: Path
    config: dict = field(default_factory=lambda: TINY)
    environment: dict[str, str] = field(default_factory=lambda: environment())
    python: Path = Path(sys.executable)
    """What snakemake runs in. What its jobs run in, the environment says."""

    def warmed(self) -> Project:
        """The same, in processes that are forked."""
        return replace(self, python=warm.python(), environment=environment(warm.python()))

    def copied(self, folder: Path) -> Project:
        """Another copy in this state."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    def snakemake(self, *arguments: str, config: dict | None = None) -> subprocess.CompletedProcess:
        """Run snakemake on the tiny experiment, with an overlay of the config."""
        files = [self.folder / "tiny.yaml"]
        files[0].write_text(yaml.safe_dump(self.config))
        if config is not None:
            files.append(self.folder / "overlay.yaml")
            files[1].write_text(yaml.safe_dump(config, allow_unicode=True))
        return self.plain(*arguments, "--configfile", *map(str, files))

    def plain(self, *arguments: str, timeout: int = 3000) -> subprocess.CompletedProcess:
        """Run snakemake with nothing but these arguments."""
        command = [str(self.python), "-m", "snakemake", "--cores", "2", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=timeout, check=False
        )

    def run(self, *arguments: str, config: dict | None = None) -> str:
        """Run to the end; fail with the output otherwise."""
        done = self.snakemake(*arguments, config=config)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def stale(self, *arguments: str, config: dict | None = None) -> dict[str, int]:
        """Number of jobs per rule that would run, without `all`."""
        output = self.run("-n", *arguments, config=config)
        return job_counts(output)

    def mistake(self, *arguments: str, config: dict | None = None) -> str:
        """Run something that must fail; return what it printed."""
        done = self.snakemake(*arguments, config=config)
        assert done.returncode != 0, "the mistake was not noticed\n" + done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[str, bytes]:
        """Content of all results but logs and timings."""
        results = self.folder / "results"
        kept = [path for path in sorted(results.rglob("*")) if path.is_file()]
        return {
            str(path.relative_to(results)): path.read_bytes()
            for path in kept
            if path.relative_to(results).parts[0] not in ("logs", "timings")
        }


def environment(python: Path = Path(sys.executable)) -> dict[str, str]:
    """This Python and the programs of this environment first, and never the network."""
    path = os.pathsep.join([str(python.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "random"}


def job_counts(output: str) -> dict[str, int]:
    """The table of jobs that snakemake prints; a stage's rules of single models together."""
    table = re.search(r"^Job stats:\n(.*?)\n\n", output, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^(\w+)\s+(\d+)$", table[1], re.MULTILINE) if table else []
    counts: Counter[str] = Counter()
    for rule, count in rows:
        counts[re.sub(r"_of_\w+$", "", rule)] += int(count)
    return {rule: count for rule, count in counts.items() if rule not in ("total", "all")}


def copy_project(folder: Path) -> Project:
    """Copy what git would clone, uncommitted changes included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        source, target = ROOT / name, folder / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return Project(folder)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy in which nothing has run."""
    return copy_project(tmp_path_factory.mktemp("fresh") / "langneurons").warmed()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A copy in which the tiny experiment has run. Tests must leave it finished.

    The experiment runs once, whichever worker comes first; each worker gets a copy of the outcome.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished" / "done").exists():
            copy_project(shared / "finished" / "langneurons").warmed().run()
            (shared / "finished" / "done").touch()
    done = Project(shared / "finished" / "langneurons").warmed()
    return done.copied(tmp_path_factory.mktemp("finished") / "langneurons")
