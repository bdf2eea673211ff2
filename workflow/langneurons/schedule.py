"""How long jobs take on a number of GPUs, by simulating a greedy scheduler. Standard library only.

A job starts as soon as what it needs is done and enough GPUs are free; of several the first in the list, and one that
does not fit lets later ones pass. This is what Snakemake does, roughly: it, too, never leaves a GPU idle for a job to
come, but may choose another order.

With M GPUs, and jobs of at most g GPUs each, this takes at most `work / (M - g + 1) + critical path`
(Graham 1969 for g = 1): while a job waits, at least M - g + 1 GPUs are busy, and while none waits, the longest chain of
jobs that is left gets shorter.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langneurons.errors import UserError


@dataclass(frozen=True)
class Job:
    """One job."""

    name: str
    """Names it among all jobs."""
    rule: str
    """The rule of the workflow that makes it."""
    needs: tuple[str, ...] = ()
    """Names of the jobs that must be done before."""
    gpus: int = 0
    seconds: float = 0.0
    """Wall time; 0 for what is short beside the others."""


@dataclass(frozen=True)
class Timeline:
    """When jobs ran."""

    gpus: float
    """GPUs that there were; infinity for no limit."""
    starts: dict[str, float]
    """Seconds after the beginning at which each job started."""
    wall: float
    """Seconds until the last job ended."""
    gpu_wall: float
    """Seconds until the last job on GPUs ended."""
    busy: float
    """Share of the GPUs' time, until the last job on GPUs ended, in which jobs had them; 0 without a limit."""


def work(jobs: Iterable[Job]) -> float:
    """GPU seconds of all jobs together."""
    return sum(job.gpus * job.seconds for job in jobs)


def critical_path(jobs: Sequence[Job]) -> float:
    """Seconds of the longest chain of jobs of which each needs the one before: what no number of GPUs shortens.

    Raises:
        ValueError: a job needs one that is missing or comes later in the list.
    """
    ends: dict[str, float] = {}
    for job in jobs:
        ends[job.name] = job.seconds + max((_end(ends, job, need) for need in job.needs), default=0.0)
    return max(ends.values(), default=0.0)


def simulate(jobs: Sequence[Job], gpus: int | None = None) -> Timeline:
    """Run jobs on so many GPUs, and as many processors as they want.

    Args:
        jobs: in an order in which every job comes after what it needs; earlier ones go first.
        gpus: None for as many as are wanted.

    Raises:
        UserError: a job takes more GPUs than there are.
        ValueError: a job needs one that is missing or comes later in the list.
    """
    critical_path(jobs)  # refuses what cannot be ordered
    largest = max(jobs, key=lambda job: job.gpus, default=None)
    if gpus is not None and largest is not None and largest.gpus > gpus:
        raise UserError(
            f"{gpus} GPU(s) are too few: the job '{largest.name}' takes {largest.gpus} at once. Give at least "
            f"{largest.gpus}, or lower 'gpus' of the model in the config."
        )
    available = math.inf if gpus is None else float(gpus)
    starts = _starts(jobs, available)
    ends = {job.name: starts[job.name] + job.seconds for job in jobs}
    gpu_wall = max((ends[job.name] for job in jobs if job.gpus), default=0.0)
    capacity = available * gpu_wall
    busy = work(jobs) / capacity if 0 < capacity < math.inf else 0.0
    return Timeline(available, starts, max(ends.values(), default=0.0), gpu_wall, busy)


def _starts(jobs: Sequence[Job], free: float) -> dict[str, float]:
    """When each job starts, in seconds, by its name."""
    numbers = {job.name: number for number, job in enumerate(jobs)}
    unmet = [len(set(job.needs)) for job in jobs]
    followers: list[list[int]] = [[] for _ in jobs]
    for number, job in enumerate(jobs):
        for need in set(job.needs):
            followers[numbers[need]].append(number)
    ready = [number for number, count in enumerate(unmet) if not count]
    running: list[tuple[float, int]] = []
    starts: dict[str, float] = {}
    now = 0.0
    while ready or running:
        waiting = []
        for number in sorted(ready):
            job = jobs[number]
            if job.gpus > free:
                waiting.append(number)
                continue
            free -= job.gpus
            starts[job.name] = now
            heapq.heappush(running, (now + job.seconds, number))
        ready = waiting
        now = running[0][0]
        while running and running[0][0] == now:
            done = heapq.heappop(running)[1]
            free += jobs[done].gpus
            for number in followers[done]:
                unmet[number] -= 1
                if not unmet[number]:
                    ready.append(number)
    return starts


def _end(ends: dict[str, float], job: Job, need: str) -> float:
    if need not in ends:
        raise ValueError(f"the job '{job.name}' needs '{need}', which does not come before it")
    return ends[need]


# -- the table --------------------------------------------------------------------------------------------------------


def as_table(jobs: Sequence[Job], gpus: Iterable[int]) -> list[str]:
    """Lines of a table: wall time in hours and use of the GPUs, for each number of them.

    Raises:
        UserError: a job takes more GPUs than there are.
    """
    longest = critical_path(jobs)
    rows = [["GPUs", "wall time", "last GPU job ends", "GPUs busy until then", "at least"], ["---"] * 5]
    for number in gpus:
        timeline = simulate(jobs, number)
        least = max(longest, work(jobs) / number)
        hours = [f"{seconds / 3600:,.1f} h" for seconds in (timeline.wall, timeline.gpu_wall)]
        rows.append([str(number), *hours, f"{timeline.busy:.0%}", f"{least / 3600:,.1f} h"])
    rows.append(["no limit", f"{longest / 3600:,.1f} h", f"{simulate(jobs).gpu_wall / 3600:,.1f} h", "", ""])
    return [f"| {' | '.join(row)} |" for row in rows]
