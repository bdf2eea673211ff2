"""Kills at random moments, from end to end, and what the moments are drawn from."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos import chaos
from chaos.chaos import KINDS, Round, plan
from chaos.comparison import compared, differences
from quiet import STEPS
from workflow.conftest import Project


def test_plans_cover_the_run_and_both_kinds() -> None:
    plans = [plan(random.Random(seed), None) for seed in range(200)]
    assert {len(kills) for kills in plans} == {3, 4, 5}
    assert all({kill.kind for kill in kills} == set(KINDS) for kills in plans)
    assert all(kills == sorted(kills, key=lambda kill: kill.finished) for kills in plans)
    assert {kill.finished for kills in plans for kill in kills} == set(range(STEPS - 1))
    assert {kill.at_file for kills in plans for kill in kills} == {True, False}
    assert plan(random.Random(7), 4) == plan(random.Random(7), 4) != plan(random.Random(8), 4)
    assert len(plan(random.Random(7), 1)) == 1
    due = [kill.finished for kill in plan(random.Random(7), 12)]
    assert len(set(due)) == 12


def run(rounds: int, quiet: Project, capsys: pytest.CaptureFixture[str], kills: int | None = None) -> None:
    """All bytes are the same, and the kills landed inside the runs."""
    options = ["--rounds", str(rounds), "--seed", "1", *(["--kills", str(kills)] if kills else [])]
    status = chaos.main(options, quiet)
    output = capsys.readouterr().out
    print(output)  # what happened, for whoever reads the log
    assert status == 0, output
    lines = re.findall(
        r"^round \d+: (\d+) kills .*, (\d+) missed, (\d+) restarts, (\d+) differing", output, re.MULTILINE
    )
    assert len(lines) == rounds, output
    assert [int(differing) for _, _, _, differing in lines] == [0] * rounds
    made = sum(int(made) for made, _, _, _ in lines)
    assert made >= (kills or 3) * 5 / 6 * rounds, output  # at least 3 are planned
    assert all(int(restarts) >= int(made) for made, _, restarts, _ in lines)
    counts = re.search(r"(\d+) jobs and (\d+) times Snakemake killed", output)
    assert counts is not None
    assert min(map(int, counts.groups())) >= (kills or 3) * rounds // 6, output
    assert sum(map(int, counts.groups())) == made


@pytest.mark.system
def test_twelve_kills(quiet: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """In one run, each at another stage."""
    run(1, quiet, capsys, kills=12)


@pytest.mark.slow
def test_twenty_rounds(quiet: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run(20, quiet, capsys)


class Pretended(Project):
    """A project with these results."""

    def __init__(self, files: dict[str, bytes], folder: Path = Path()) -> None:
        super().__init__(folder)
        self._files = files

    def files(self) -> dict[str, bytes]:
        return self._files


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ({"a": b"1", "b": b"2"}, []),
        ({"a": b"1", "b": b"3"}, ["b"]),
        ({"a": b"1"}, ["b"]),
        ({"a": b"1", "b": b"2", ".b.host.1.new.tmp": b""}, [".b.host.1.new.tmp"]),
    ],
)
def test_every_difference_is_found(found: dict[str, bytes], names: list[str]) -> None:
    assert differences(found, {"a": b"1", "b": b"2"}) == names


def test_the_page_is_compared_without_its_times() -> None:
    page = b'<p>2026-11-29 16:31 UTC 1</p>made 2026-11-29 16:31 UTC.<section id="timings">2\n</section><p>3</p>'
    assert compared(Pretended({"report/report.html": page})) == {"report/report.html": b"<p> 1</p>made .<p>3</p>"}
    assert compared(Pretended({"report/report.pdf": b"%PDF-1.7 2026"})) == {"report/report.pdf": b"%PDF-"}
    with pytest.raises(ValueError, match=r"report\.html has 0 times"):
        compared(Pretended({"report/report.html": b"changed"}))


@pytest.mark.parametrize(
    ("kills", "differing", "status"),
    [
        ([("job", "x"), ("main", "y")], [], 0),
        ([("job", "x"), ("main", "y")], ["a"], 1),
        ([("job", "x")], [], 1),  # no kill of Snakemake landed
        ([], [], 1),
    ],
)
def test_exit_status(
    kills: list[tuple[str, str]], differing: list[str], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def always(value: object) -> Callable[..., object]:
        return lambda *arguments: value

    monkeypatch.setattr(chaos, "fresh", always(Pretended({}, tmp_path)))
    monkeypatch.setattr(chaos, "play", lambda *arguments: Round(kills=list(kills)))
    monkeypatch.setattr(chaos, "differences", always(differing))
    assert chaos.main(["--rounds", "1"], Pretended({}, tmp_path)) == status
