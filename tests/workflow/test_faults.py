"""Faults lose nothing: after each of them, and what docs/faults.md says to do, all results are those of a quiet run.

Every test works on a copy of the finished experiment, some of whose files it has made anew while the fault strikes.
Faults inside a job are made by a file `sitecustomize.py`, which Python runs at its start, in the copy's library folder:
the product knows nothing of it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.comparison import compared, differences
from chaos.processes import end_left_running, jobs, kill, processes
from langneurons import artifacts
from workflow.conftest import ROOT, Project, environment

MODEL = "results/tiny-gpt2"

# A file of every format and its job, of which few others are made.
TARGETS = {
    "safetensors": (f"{MODEL}/activations/en.safetensors", "record_activations"),
    "parquet": (f"{MODEL}/perturbations/random-en-1.parquet", "plan_perturbations"),
    "jsonl": (f"{MODEL}/generations/steer-en/de.jsonl", "generate_text"),
    "html": ("results/report/report.html", "render_report"),
    "folder": (f"{MODEL}/model/model.safetensors", "train_demo_model"),
}

KILL = """
import os, signal, sys
if sys.orig_argv[1:2] == ["workflow/scripts/{script}.py"]:
    real = os.fsync
    def fsync(descriptor):
        name = os.readlink(f"/proc/self/fd/{{descriptor}}")
        if {target!r} in name:  # written, but not yet renamed: cut it in the middle
            os.truncate(name, os.path.getsize(name) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)
    os.fsync = fsync
"""
FULL = """
import resource, sys
if sys.orig_argv[1:2] == ["workflow/scripts/{script}.py"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of its own."""
    return finished.copied(tmp_path / "langneurons")


@pytest.fixture
def shim(project: Project) -> Iterator[Callable[[str, str], None]]:
    """What installs a fault into the jobs with a script."""
    file = project.folder / "workflow" / "sitecustomize.py"
    yield lambda text, script, target="": file.write_text(text.format(script=script, target=target))
    file.unlink(missing_ok=True)


def remove_shim(project: Project) -> None:
    (project.folder / "workflow" / "sitecustomize.py").unlink()


def leftovers(project: Project) -> list[Path]:
    """Temporary files and folders."""
    return sorted((project.folder / "results").rglob("*.tmp"))


def same(project: Project, finished: Project) -> None:
    """All files are those of the undisturbed run, and there are no others."""
    assert differences(compared(project), compared(finished)) == []


# -- a job ends in the middle of writing ------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("name", TARGETS)
def test_job_killed_while_it_writes(name: str, project: Project, finished: Project, shim: Callable[..., None]) -> None:
    target, script = TARGETS[name]
    shim(KILL, script, Path(target).name)
    output = project.mistake("--force", target)
    assert f"{script}.py" in output
    assert len(leftovers(project)) == 1  # it was killed where it was meant to be
    assert not (project.folder / target).exists()
    remove_shim(project)
    project.run(target)  # of the same bytes: nothing that was made of it runs again
    project.run("results/report/audit.txt", "results/report/report.pdf")  # made of the page, whose times have changed
    assert leftovers(project) == []
    same(project, finished)
    assert project.stale() == {}


@pytest.mark.full
@pytest.mark.parametrize("name", ["parquet", "folder"])  # test_writing has each library
def test_disk_full_while_a_job_writes(
    name: str, project: Project, finished: Project, shim: Callable[..., None]
) -> None:
    """The system refuses to write on, in whatever library does it: one message, no traceback, no file."""
    target, script = TARGETS[name]
    shim(FULL, script)
    output = project.mistake("--force", target)
    messages = set(re.findall(r"^error: .*", output, re.MULTILINE))
    assert len(messages) == 1, output
    assert re.fullmatch(
        r"error: results/\S+: cannot be written \(File too large\)\. Raise the limit .*, and run again\. Nothing "
        r"half-written is left, and what was finished before is kept\.",
        messages.pop(),
    )
    assert "Traceback" not in output
    assert leftovers(project) == []
    assert not (project.folder / target).exists()
    remove_shim(project)
    project.run(target)
    same(project, finished)
    assert project.stale() == {}


# -- Snakemake ends ---------------------------------------------------------------------------------------------------


def start(project: Project, *arguments: str) -> subprocess.Popen:
    """Start Snakemake in a session of its own; return once a job runs."""
    project.stale()  # writes the config file
    with (project.folder / "run.log").open("w") as log:
        main = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "tiny.yaml", *arguments],
            cwd=project.folder, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while not jobs(main.pid):
        assert main.poll() is None, (project.folder / "run.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return main


def send(session: int, number: signal.Signals) -> None:
    """Send a signal to Snakemake and its jobs."""
    for process in processes(session):
        os.kill(process.number, number)


@pytest.mark.full
def test_snakemake_killed(project: Project, finished: Project) -> None:
    """It leaves its lock and its jobs; the documented steps end in the same results."""
    target, script = TARGETS["jsonl"]
    main = start(project, "--force", target)
    try:
        kill([main.pid])
        assert main.wait() == -9
        send(main.pid, signal.SIGSTOP)  # the job does not end before it is looked at
        output = project.mistake(target)  # before the documented steps
        assert "cannot be locked" in output
        assert "--unlock" in output
        assert "Traceback" not in output
    finally:
        assert end_left_running(main.pid) == [script]
    assert not (project.folder / target).exists()
    project.run("--unlock")
    assert project.stale(target) == {"generate_text_steer": 1}
    project.run(target)
    same(project, finished)
    assert project.stale() == {}


@pytest.mark.full
def test_two_runs_at_once(project: Project, finished: Project) -> None:
    """The second is refused clearly, and the first is not disturbed."""
    target, _ = TARGETS["jsonl"]
    main = start(project, "--force", target)
    try:
        send(main.pid, signal.SIGSTOP)  # it does not end before the second
        output = project.mistake(target)
        send(main.pid, signal.SIGCONT)
        assert "Directory cannot be locked" in output
        assert "no other Snakemake process" in output
        assert "Traceback" not in output
        assert main.wait(120) == 0, (project.folder / "run.log").read_text()
    finally:
        kill([main.pid])
        end_left_running(main.pid)
    same(project, finished)
    assert project.stale() == {}


# -- damaged files ----------------------------------------------------------------------------------------------------

DAMAGED = (
    f"{MODEL}/tokens/en.test.safetensors",
    f"{MODEL}/perplexity/none/de.parquet",
    f"{MODEL}/generations/deactivate-en/en.jsonl",
    f"{MODEL}/neurons/lape.json",
)


def verify(project: Project, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "workflow/scripts/verify_results.py", *options],
        cwd=project.folder, env={**environment(), "PYTHONPATH": "workflow"}, text=True, capture_output=True,
        check=False,
    )  # fmt: skip


def make_anew(project: Project, output: str) -> None:
    """Run the command that was printed, on the tiny experiment."""
    commands = [line for line in output.splitlines() if line.startswith("snakemake ")]
    assert len(commands) == 1
    project.run(*shlex.split(commands[0])[1:])


def flip_a_bit(path: Path) -> None:
    """Flip the first bit that changes what is read. Parquet has bytes, such as statistics, that nobody reads."""
    good = path.read_bytes()
    for place in range(len(good) // 2, len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            artifacts.verify(path)
        except artifacts.ArtifactError:
            return
    raise AssertionError(f"no bit of {path} matters")


@pytest.mark.full
@pytest.mark.parametrize(("damage", "delete"), [("truncated", True), ("bit flipped", False)])
def test_damaged_files_are_found_and_made_anew(damage: str, delete: bool, project: Project, finished: Project) -> None:
    intact = verify(project)
    assert (intact.returncode, intact.stderr) == (0, "")
    assert re.fullmatch(r"All \d{3} files are intact\.\n", intact.stdout)
    for name in DAMAGED:
        path = project.folder / name
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            flip_a_bit(path)
    done = verify(project, *["--delete"] * delete)
    assert done.returncode == 1
    found = re.findall(r"^(\S+): is damaged, or no file of this workflow \(.+\)$", done.stdout, re.MULTILINE)
    assert found == sorted(DAMAGED)
    assert [(project.folder / name).exists() for name in DAMAGED] == [not delete] * 4
    make_anew(project, done.stdout)
    same(project, finished)
    assert verify(project).returncode == 0
    assert project.stale() == {}


@pytest.mark.full
def test_damaged_file_ends_its_job_with_its_name(project: Project, finished: Project) -> None:
    """Nobody checked: the job that reads it does."""
    damaged = project.folder / DAMAGED[1]
    content = damaged.read_bytes()
    flip_a_bit(damaged)
    output = project.mistake("--force", f"{MODEL}/metrics/perplexity.parquet")
    assert f"error: {DAMAGED[1]}: the file is damaged" in output
    assert "Traceback" not in output
    damaged.write_bytes(content)
    project.run(f"{MODEL}/metrics/perplexity.parquet")
    same(project, finished)


# -- results of another version ---------------------------------------------------------------------------------------


@pytest.mark.full
def test_results_of_other_formats_are_refused_and_made_anew(
    project: Project, finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another version had written one kind of files: nothing is read, in a dry run neither, and the remedy of the
    message ends in the results of this version."""
    stamp = project.folder / "results" / "formats.json"
    this = stamp.read_text()
    content = json.loads(this)
    content["langneurons"] = "0.0.7"
    content["formats"] |= {"intervention": 7, "former": 1}
    for path in sorted((project.folder / MODEL / "perturbations").glob("*.parquet")):
        table, metadata = artifacts.read_table(path, "intervention")
        with monkeypatch.context() as patch:
            patch.setitem(artifacts.VERSIONS, "intervention", 7)
            artifacts.write_table(path, "intervention", table, metadata)
    stamp.write_text(json.dumps(content))
    before = project.files()
    for arguments in ((), ("-n",), ("results/tables/text.csv",)):
        output = project.mistake(*arguments)
        assert "results: langneurons 0.0.7 wrote these results." in output
        assert "formats of files differ (found -> expected): intervention: 7 -> 1. " in output
        assert "make verify DELETE=1" in output
        assert "Traceback" not in output
        assert project.files() == before
    done = verify(project, "--delete")
    assert done.returncode == 1
    assert done.stdout.count("has the format intervention-7, but this version of langneurons reads intervention-1") == 8
    assert "results/formats.json: names other formats" in done.stdout
    assert not stamp.exists()
    make_anew(project, done.stdout)
    assert stamp.read_text() == this
    same(project, finished)
    assert project.stale() == {}


@pytest.mark.full
def test_only_real_runs_stamp(project: Project, finished: Project) -> None:
    """Dry runs and jobs do not; a folder without the stamp gets one, with the bytes of all others."""
    stamp = project.folder / "results" / "formats.json"
    this = stamp.read_bytes()
    stamp.unlink()
    project.stale("--force", "results/report/audit.txt")
    project.run("--summary")
    assert not stamp.exists()
    project.run("--force", "results/report/audit.txt")
    assert stamp.read_bytes() == this
    same(project, finished)


@pytest.mark.full
def test_clean_removes_all_results(project: Project) -> None:
    (project.folder / MODEL / ".lape.json.elsewhere.4711.new.tmp").touch()
    subprocess.run(["make", "clean"], cwd=project.folder, check=True, capture_output=True)
    assert [path.name for path in (project.folder / "results").iterdir()] == ["README.md"]
    assert (ROOT / "results" / "README.md").exists()
