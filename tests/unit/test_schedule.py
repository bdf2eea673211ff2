"""Simulated schedules: small cases by hand, and bounds that hold for every list of jobs."""

from __future__ import annotations

import random

import pytest

from langneurons.errors import UserError
from langneurons.schedule import Job, as_table, critical_path, simulate, work


def job(name: str, seconds: float, gpus: int = 1, *needs: str) -> Job:
    return Job(name, "rule", needs, gpus, seconds)


def random_jobs(seed: int, cpu_jobs: bool = False) -> list[Job]:
    """Up to 40 jobs of up to 4 GPUs (0 with `cpu_jobs`), each after up to three earlier ones."""
    generator = random.Random(seed)
    jobs: list[Job] = []
    for number in range(generator.randint(1, 40)):
        before = generator.sample(jobs, min(len(jobs), generator.randint(0, 3)))
        gpus = generator.choice([0, 1, 2, 4] if cpu_jobs else [1, 1, 2, 4])
        # Whole seconds, so that sums are exact.
        jobs.append(job(str(number), generator.randint(0, 9), gpus, *(one.name for one in before)))
    return jobs


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_independent_jobs() -> None:
    """Three jobs of 2 s on two GPUs: two at once, then one."""
    timeline = simulate([job("a", 2), job("b", 2), job("c", 2)], 2)
    assert timeline.starts == {"a": 0, "b": 0, "c": 2}
    assert (timeline.wall, timeline.gpu_wall, timeline.busy) == (4, 4, 6 / 8)


def test_a_large_job_lets_small_ones_pass() -> None:
    """While one GPU is busy, the job of two waits and the one behind it starts."""
    timeline = simulate([job("first", 3), job("large", 1, 2), job("small", 1)], 2)
    assert timeline.starts == {"first": 0, "large": 3, "small": 0}
    assert timeline.wall == 4


def test_earlier_jobs_go_first() -> None:
    assert simulate([job("b", 1), job("a", 5)], 1).starts == {"b": 0, "a": 1}


def test_jobs_wait_for_what_they_need() -> None:
    """A recording on the GPU, neurons on the CPU in no time, a measurement, and 5 s of scoring without a GPU."""
    chain = [job("record", 2), job("find", 0, 0, "record"), job("read", 3, 1, "find"), job("score", 5, 0, "read")]
    timeline = simulate(chain, 4)
    assert timeline.starts == {"record": 0, "find": 2, "read": 2, "score": 5}
    assert (timeline.wall, timeline.gpu_wall) == (10, 5)
    assert timeline.busy == 5 / (4 * 5)


def test_graham_s_anomaly() -> None:
    """The first job ends late because the list has the long one last: 2 - 1/M times the best, which would be 3."""
    timeline = simulate([job("a", 1), job("b", 1), job("c", 1), job("d", 1), job("e", 1), job("f", 1), job("g", 3)], 3)
    assert timeline.wall == 5
    assert timeline.wall == 3 * (2 - 1 / 3)


def test_nothing() -> None:
    timeline = simulate([], 8)
    assert (timeline.wall, timeline.busy, critical_path([])) == (0, 0, 0)


# -- for all ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("gpus", [4, 5, 16])
def test_bounds(seed: int, gpus: int) -> None:
    """Not below the work and the longest chain, and not above Graham's bound for jobs of up to `largest` GPUs."""
    jobs = random_jobs(seed)
    timeline, longest, total = simulate(jobs, gpus), critical_path(jobs), work(jobs)
    crowded = gpus - max(one.gpus for one in jobs) + 1
    assert timeline.wall >= max(longest, total / gpus) - 1e-9
    assert timeline.wall <= total / crowded + longest * (1 - 1 / crowded) + 1e-9
    assert timeline.busy <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(100))
def test_jobs_without_gpus(seed: int) -> None:
    """While one of them is all that runs, no GPU is busy: the longest chain counts in full."""
    jobs = random_jobs(seed, cpu_jobs=True)
    longest, total = critical_path(jobs), work(jobs)
    assert max(longest, total / 4) - 1e-9 <= simulate(jobs, 4).wall <= total + longest + 1e-9


@pytest.mark.parametrize("seed", range(100))
def test_without_limit_only_the_longest_chain_counts(seed: int) -> None:
    jobs = random_jobs(seed, cpu_jobs=True)
    assert simulate(jobs).wall == critical_path(jobs)
    assert simulate(jobs, sum(one.gpus for one in jobs) + 4).wall == critical_path(jobs)


@pytest.mark.parametrize("seed", range(100))
def test_every_schedule_is_possible(seed: int) -> None:
    """No job before what it needs, and never more GPUs than there are; the same again."""
    jobs = random_jobs(seed, cpu_jobs=True)
    starts = simulate(jobs, 4).starts
    ends = {one.name: starts[one.name] + one.seconds for one in jobs}
    assert all(starts[one.name] >= ends[need] for one in jobs for need in one.needs)
    for moment in starts.values():
        assert sum(one.gpus for one in jobs if starts[one.name] <= moment < ends[one.name]) <= 4
    assert simulate(jobs, 4).starts == starts


# -- mistakes, and the table ------------------------------------------------------------------------------------------


def test_too_few_gpus() -> None:
    with pytest.raises(
        UserError, match=r"^2 GPU\(s\) are too few: the job 'big' takes 4 at once\. Give at least 4, or"
    ):
        simulate([job("small", 1), job("big", 1, 4)], 2)


@pytest.mark.parametrize("jobs", [[job("a", 1, 1, "b"), job("b", 1)], [job("a", 1, 1, "missing")]])
def test_jobs_out_of_order(jobs: list[Job]) -> None:
    with pytest.raises(ValueError, match=r"the job 'a' needs '(b|missing)', which does not come before it"):
        simulate(jobs, 2)


def test_table() -> None:
    """Two jobs of an hour, then half an hour without a GPU."""
    jobs = [job("a", 3600), job("b", 3600), job("c", 1800, 0, "a", "b")]
    assert as_table(jobs, [1, 2])[2:] == [
        "| 1 | 2.5 h | 2.0 h | 100% | 2.0 h |",
        "| 2 | 1.5 h | 1.0 h | 100% | 1.5 h |",
        "| no limit | 1.5 h | 1.0 h |  |  |",
    ]
