"""Kill jobs and Snakemake at random moments, restart by the documented steps, and compare every byte with a clean run.

    python tests/chaos/chaos.py --rounds 3 --seed 0

Each round takes a fresh copy of the project and runs a small experiment of one model. At moments drawn from the seed
it kills (SIGKILL) either a running job with its children, or Snakemake's main process, which leaves its jobs running.
Then it does what docs/faults.md says: after a killed job, run again; after a killed Snakemake, end what was left
running, `snakemake --unlock`, run again. Once the run completes, all files below results/ but logs and timings must be
those of a clean run, byte for byte. The seed fixes which kills are made and when they are due; which job they hit
depends on the speed of the machine.

Prints every round's kills by kind and job, restarts and differing files, and all counts at the end. Exit status 1 if a
file differs, a run fails without being killed, or a kind of kill never hit.
"""

from __future__ import annotations

import argparse
import copy
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.comparison import compared, differences
from chaos.processes import end_left_running, family, jobs, kill
from quiet import SMALLEST, STEPS, fresh
from workflow.conftest import Project, copy_project

KINDS = ("job", "main")
UNCOMPARED = ("logs", "timings")
LONGEST = 900
"""Seconds that a run may take between two kills."""


class ChaosError(Exception):
    """A run that failed or hung without being killed."""


@dataclass(frozen=True)
class Kill:
    """A kill to be made."""

    kind: str
    finished: int
    """Due when so many jobs have finished."""
    delay: float
    """Seconds later; the rest of a job's writing is a matter of luck, so that half of all kills come ..."""
    at_file: bool
    """... when the next file appears instead, while its job writes others, or Snakemake takes note of it."""


@dataclass
class Round:
    """What happened in a round."""

    kills: list[tuple[str, str]] = field(default_factory=list)
    """Kind, and the jobs that were hit."""
    missed: int = 0
    restarts: int = 0
    differing: list[str] = field(default_factory=list)
    seconds: float = 0

    def __str__(self) -> str:
        hits = "; ".join(f"{kind} during {names}" for kind, names in self.kills)
        return (
            f"{len(self.kills)} kills ({hits}), {self.missed} missed, {self.restarts} restarts, {len(self.differing)} "
            f"differing files {self.differing or ''}, {self.seconds:.0f} s"
        )


def plan(draw: random.Random, number: int | None) -> list[Kill]:
    """The kills of a round, in the order in which they are due; both kinds if there are two or more."""
    number = number or draw.randint(3, 5)
    kinds = [*KINDS, *draw.choices(KINDS, k=number)][:number]
    draw.shuffle(kinds)
    due = sorted(draw.sample(range(STEPS - 1), number))  # apart, so that many stages are hit
    return [
        Kill(kind, finished, draw.uniform(0, 4), draw.random() < 0.5) for kind, finished in zip(kinds, due, strict=True)
    ]


@contextmanager
def started(project: Project) -> Iterator[subprocess.Popen]:
    """Snakemake, in a session of its own, by which its jobs are found after its death. Ended with the block."""
    with (project.folder / "chaos.log").open("a") as log:
        main = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "4", "--configfile", "tiny.yaml"],
            cwd=project.folder,
            env=project.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield main
    finally:
        end_left_running(main.pid)
        main.wait()


def files(project: Project, timings: bool = False) -> set[Path]:
    """Timings or results that are there now. Another look may be needed, since folders disappear meanwhile."""
    results = project.folder / "results"
    folders = [results / "timings"] if timings else [path for path in results.iterdir() if path.name not in UNCOMPARED]
    while True:
        try:
            return {path for folder in folders for path in folder.rglob("*") if path.is_file()}
        except FileNotFoundError:
            continue


def wait_for(moment: Kill, project: Project, main: subprocess.Popen) -> bool:
    """Wait until a kill is due; False if the run ended before."""
    deadline = time.monotonic() + LONGEST
    known: set[Path] | None = None
    due = None
    while main.poll() is None:
        if time.monotonic() > deadline:
            raise ChaosError(f"the run hangs: see {project.folder / 'chaos.log'}")
        if due is None and len(files(project, timings=True)) >= moment.finished and jobs(main.pid):
            due = time.monotonic() + moment.delay
            known = files(project) if moment.at_file else None
        elif due is not None and known is not None:
            if files(project) - known or time.monotonic() > due + 10:
                return True
            time.sleep(0.001)  # writing takes milliseconds
            continue
        elif due is not None and time.monotonic() >= due:
            return True
        time.sleep(0.01)
    return False


def strike(moment: Kill, main: subprocess.Popen, draw: random.Random) -> str:
    """Make a kill, and what the documentation says afterwards but for the restart; the jobs that it hit, if any."""
    running = jobs(main.pid)
    while not running and main.poll() is None:  # between two jobs
        time.sleep(0.005)
        running = jobs(main.pid)
    names = "+".join(sorted(job.name for job in running))
    if moment.kind == "main":
        hit = bool(kill([main.pid])) and main.wait(LONGEST) == -9
        time.sleep(draw.uniform(0, 2))  # what was left running goes on writing
        end_left_running(main.pid)
        return names or "no job" if hit else ""
    if not running:
        return ""
    job = draw.choice(running)
    hit = bool(kill(family(job.shell, main.pid)))
    status = main.wait(LONGEST)  # it waits for the other job
    return job.name if hit and status != 0 else ""


def play(project: Project, moments: list[Kill], draw: random.Random) -> Round:
    """Run the experiment to its end, with these kills."""
    (project.folder / "tiny.yaml").write_text(yaml.safe_dump(project.config))
    outcome = Round()
    began = time.monotonic()
    for moment in moments:
        with started(project) as main:
            if not wait_for(moment, project, main):
                break
            if hit := strike(moment, main, draw):
                outcome.kills.append((moment.kind, hit))
        outcome.restarts += 1
        if moment.kind == "main":
            done = project.snakemake("--unlock")
            if done.returncode:
                raise ChaosError(done.stdout + done.stderr)
    with started(project) as main:
        if main.wait(LONGEST) != 0:
            log = (project.folder / "chaos.log").read_text()
            raise ChaosError(f"the run failed without being killed: {log[-4000:]}")
    outcome.missed = len(moments) - len(outcome.kills)
    outcome.seconds = time.monotonic() - began
    return outcome


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kills", type=int, choices=range(1, STEPS), metavar="N", help="kills of each round (default: 3 to 5)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, quiet: Project | None = None) -> int:
    """Run all rounds; the exit status. A clean run that is there already need not be repeated."""
    args = parse_args(argv)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        if quiet is None:
            began = time.monotonic()
            # Rounds copy it and not the project: someone may be editing that meanwhile.
            quiet = Project(copy_project(Path(folder) / "clean").folder, copy.deepcopy(SMALLEST))
            play(quiet, [], random.Random())
            print(f"clean run: {time.monotonic() - began:.0f} s", flush=True)
        clean = compared(quiet)
        for number in range(1, args.rounds + 1):
            draw = random.Random(f"{args.seed} {number}")
            project = fresh(quiet.folder, Path(folder) / f"round-{number}")
            try:
                outcome = play(project, plan(draw, args.kills), draw)
            except ChaosError as error:
                print(f"round {number}: {error}", flush=True)
                return 1
            outcome.differing = differences(compared(project), clean)
            print(f"round {number}: {outcome}", flush=True)
            counts.update(kind for kind, _ in outcome.kills)
            counts.update(missed=outcome.missed, restarts=outcome.restarts, differing=len(outcome.differing))
            if not outcome.differing:
                shutil.rmtree(project.folder)
    print(
        f"{args.rounds} rounds, seed {args.seed}: {counts['job']} jobs and {counts['main']} times Snakemake killed, "
        f"{counts['missed']} kills missed, {counts['restarts']} restarts, {counts['differing']} differing files"
    )
    return int(counts["differing"] > 0 or not all(counts[kind] for kind in KINDS))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # by way of what ends its runs
    sys.exit(main())
