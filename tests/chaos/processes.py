"""Processes of a run as Linux shows them in /proc: which jobs run, and how they are ended. For tests only."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

SCRIPT = re.compile(r"\bworkflow/scripts/(\w+)\.py")


@dataclass(frozen=True)
class Process:
    """A process: its number, its parent's, its session, and its command line."""

    number: int
    parent: int
    session: int
    command: str


@dataclass(frozen=True)
class Job:
    """A running job of the workflow: the shell that Snakemake started, and the name of the script in it."""

    shell: int
    name: str


def processes(session: int) -> list[Process]:
    """All processes of a session that have not ended. A session outlives the process that it is named after."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            state, parent, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if int(of) == session and state not in "ZX":
            found.append(Process(int(folder.name), int(parent), int(of), command))
    return found


def jobs(main: int) -> list[Job]:
    """The jobs that Snakemake, the process `main` and head of its session, runs now."""
    found = []
    for process in processes(main):
        script = SCRIPT.search(process.command)
        if process.parent == main and script:
            found.append(Job(process.number, script[1]))
    return found


def family(number: int, session: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for process in processes(session):
        children.setdefault(process.parent, []).append(process.number)
    members = [number]
    for member in members:
        members += children.get(member, [])
    return members


def kill(numbers: list[int]) -> list[int]:
    """End processes without mercy; the numbers of those that were still there."""
    killed = []
    for number in numbers:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.append(number)
    return killed


def end_left_running(session: int) -> list[str]:
    """End what a killed Snakemake has left running, as docs/faults.md says; the scripts' names."""
    names = {script[1] for process in processes(session) if (script := SCRIPT.search(process.command))}
    deadline = time.monotonic() + 20
    while left := [process.number for process in processes(session)]:
        kill(left)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} do not end")
        time.sleep(0.05)
    return sorted(names)
