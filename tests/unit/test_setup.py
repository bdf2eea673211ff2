"""Setting up: which Pythons are refused and what is said, and recipes that work in a folder of any name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "envs"))

import check_pins  # noqa: E402
import interpreter  # noqa: E402

ANY_NAME = 'it\'s a {fine} größe & "more"'
"""A folder's name with what shells, make and formatted text read in their own way."""


# -- interpreters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_a_python_with_all_packages_is_taken(version: tuple[int, int]) -> None:
    assert interpreter.problem(version, "/usr/bin/python3", [], None) is None


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (4, 0)])
def test_another_python_is_refused_with_those_that_work(version: tuple[int, int]) -> None:
    said = interpreter.problem(version, "/usr/bin/python3", [], None)
    assert said is not None
    assert "3.11, 3.12 or 3.13" in said
    assert f"/usr/bin/python3 is {version[0]}.{version[1]}" in said
    assert re.search(r"make run PYTHON=python3\.1[123]", said)


def test_an_environment_of_such_a_python_is_to_be_removed() -> None:
    said = interpreter.problem((3, 14), "/x/.venv/bin/python", [], "/x/.venv")
    assert said is not None
    assert "Remove that environment, /x/.venv" in said


def test_a_python_without_venv_is_named_with_its_package() -> None:
    said = interpreter.problem((3, 12), "/usr/bin/python3", ["ensurepip"], None)
    assert said is not None
    assert "has no ensurepip" in said
    assert "apt install python3.12-venv" in said
    # An environment that is there needs no other.
    assert interpreter.problem((3, 12), "/x/.venv/bin/python", ["ensurepip"], "/x/.venv") is None


def test_a_python_that_is_there_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreter.remedy() == "make run PYTHON=python3.13, once it is installed."
    (tmp_path / "python3.11").touch(mode=0o755)
    assert interpreter.remedy() == "make run PYTHON=python3.11"


def test_the_readme_names_these_versions() -> None:
    assert f"Python {interpreter.named(interpreter.SUPPORTED)}" in (ROOT / "README.md").read_text(encoding="utf-8")


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What setting up reads, in a folder of any name."""
    folder = tmp_path / ANY_NAME / "clone"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "envs", folder / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def program(path: Path, log: Path, then: str = "") -> None:
    """A program that notes its name and arguments, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{{ echo "= {path.name}"; printf "%s\\n" "$@"; }} >> "$NOTES"\n{then}')
    path.chmod(0o755)


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment | variables, text=True, capture_output=True, check=False
    )


BUILDS = """
case "$2 $3" in
  venv*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
  "pip wheel") while [ "$1" != --wheel-dir ]; do shift; done; touch "$2/built.whl";;
esac
"""
"""What a program does that stands for a Python, which makes environments and wheels."""


def test_make_run_in_a_folder_of_any_name(clone: Path) -> None:
    """Every recipe on the way, with programs that only note how they were called."""
    notes = clone / "notes"
    for name in ("python", "snakemake"):
        program(clone / ".venv" / "bin" / name, notes)
    program(clone / "base" / "python3", notes, BUILDS)
    done = make(clone, "run", "PYTHON=base/python3", NOTES=str(notes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"The report: {clone}/results/report/report.html" in done.stdout
    calls = [call.split("\n") for call in notes.read_text().split("= ")[1:]]
    # The one pin without a wheel is built by another Python, since the path of this one has braces.
    assert [call[0] for call in calls] == ["python"] * 2 + ["python3"] * 2 + ["python"] * 3 + ["snakemake"]
    assert calls[0][1:2] == ["envs/interpreter.py"]
    assert [call[1:3] for call in calls[2:4]] == [["-m", "venv"], ["-m", "pip"]]
    assert "connection_pool" in calls[3]
    assert [call[1:4] for call in (calls[1], *calls[4:7])] == [["-m", "pip", "install"]] * 4
    assert calls[4][-2].endswith("/built.whl")
    assert not Path(calls[4][-2]).exists()
    assert (clone / ".venv" / ".installed").is_file()


def test_nothing_is_installed_with_a_python_that_is_refused(clone: Path) -> None:
    """The first thing that it is asked ends it."""
    notes = clone / "notes"
    program(clone / "old" / "python3", notes, "exit 1\n")
    done = make(clone, "run", "PYTHON=old/python3", NOTES=str(notes))
    assert done.returncode != 0
    assert notes.read_text() == "= python3\nenvs/interpreter.py\n"
    assert not (clone / ".venv").exists()


def test_a_python_that_is_not_there_is_said(clone: Path) -> None:
    done = make(clone, "run", "PYTHON=python3.99")
    assert done.returncode != 0
    assert "there is no python3.99 here" in done.stdout + done.stderr


# -- pins --------------------------------------------------------------------------------------------------------------


def found(version: str, *requires: str) -> check_pins.Found:
    return check_pins.Found(Version(version), True, tuple(map(Requirement, requires)))


ABOUT = check_pins.markers(check_pins.PLATFORMS[0], (3, 12))


def test_requirements_that_no_pin_meets() -> None:
    packages = {"a": found("1.0", "b>=2", "c[extra]<3"), "b": found("1.9"), "c": found("2.0", "d; extra == 'extra'")}
    assert check_pins.unmet(packages, ["a"], ABOUT) == [
        "a requires b>=2, and the pin is 1.9",
        'c requires d; extra == "extra", which no pin names',
    ]


def test_requirements_of_other_platforms_and_extras_do_not_count() -> None:
    packages = {
        "a": found("1.0", "b; sys_platform == 'win32'", "c; python_version < '3.12'", "d; extra == 'tests'", "e"),
        "e": found("2.0rc1"),
        "unused": found("1.0", "nothing"),
    }
    assert check_pins.unmet(packages, ["a"], ABOUT) == []
    older = check_pins.markers(check_pins.PLATFORMS[0], (3, 11))
    assert check_pins.unmet(packages, ["a"], older) == ['a requires c; python_version < "3.12", which no pin names']


def test_torch_brings_its_own_packages_but_pins_hold() -> None:
    packages = {"torch": found("2.0", "cuda-toolkit==13", "sympy>=2"), "sympy": found("1.14")}
    assert check_pins.unmet(packages, ["torch"], ABOUT) == ["torch requires sympy>=2, and the pin is 1.14"]


def test_every_pin_is_looked_for() -> None:
    every = check_pins.every()
    assert {*check_pins.direct(), "torch", "snakemake-executor-plugin-slurm"} <= every.keys()
    assert len(every) > 100
    assert every["numpy"] == check_pins.pins("requirements.txt")["numpy"]


def test_every_platform_is_asked_of_what_is_not_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` is a wheel for every platform; `b` has none on one of them, and on another requires what nobody pins."""
    asked = []

    def answer(
        pip: Path, platform: check_pins.Platform, python: tuple[int, int], wanted: dict[str, str]
    ) -> dict[str, check_pins.Found] | str:
        asked.append((platform.name, python, sorted(wanted)))
        if platform.name == "macOS arm64" and python != (3, 11):
            return "ERROR: No matching distribution found for b==2.0"
        about = {
            "a": found("1.0", "b"),
            "b": found("2.0", "c; platform_machine == 'arm64'"),
        }
        return {name: replace(about[name], pure=name == "a") for name in wanted}

    monkeypatch.setattr(check_pins, "ask", answer)
    monkeypatch.setattr(check_pins, "every", lambda: {"a": "1.0", "b": "2.0"})
    monkeypatch.setattr(check_pins, "direct", lambda: ["a"])
    problems = check_pins.check(Path("pip"))
    assert problems == [
        'Python 3.11, macOS arm64: b requires c; platform_machine == "arm64", which no pin names',
        "Python 3.12, macOS arm64: ERROR: No matching distribution found for b==2.0",
        "Python 3.13, macOS arm64: ERROR: No matching distribution found for b==2.0",
    ]
    first, others = asked[: check_pins.AT_ONCE], asked[check_pins.AT_ONCE :]
    assert sorted(name for _, _, names in first for name in names) == ["a", "b"]
    assert {names for _, _, (names,) in others} == {"b"}
    assert len(others) == 3 * 3 - 1


@pytest.mark.full
def test_the_pins_can_be_installed_on_every_platform() -> None:
    """Asks the registry; where none answers, nothing was set up from it either."""
    command = [sys.executable, str(ROOT / "envs" / "check_pins.py")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode == check_pins.NO_REGISTRY:
        pytest.skip("no package registry answers: the pins cannot be checked")
    assert done.returncode == 0, done.stdout + done.stderr
