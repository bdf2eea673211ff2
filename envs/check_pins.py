"""Whether the pins can be installed: on every supported Python and platform, from wheels, with all that they require.

    make check-pins

pip is asked of every pin which wheel it would take, without dependencies and without installing. What the wheels
require is then compared with the pins, by the markers of each platform: what no pin meets or names would be resolved
anew on another machine. Of torch the wheel alone is looked for: its build (CPU or CUDA) is chosen by the user, and
brings its own packages. A registry is needed; without one this is said, and the status is 3.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parent))
import interpreter

HERE = Path(__file__).parent
PIP = "pip==26.3"
"""Older ones download whole wheels to read their metadata."""
NO_REGISTRY = 3
"""Exit status where nothing answers."""
WITH_ITS_OWN = "torch"
"""Brings packages that are not pinned."""
AT_ONCE = 6
"""Processes of pip, which mostly wait for the registry."""
FROM_SOURCE = {"connection-pool"}
"""Pure Python of which there is no wheel: pip builds one, without a compiler."""


@dataclass(frozen=True)
class Platform:
    """A kind of machine: what pip calls it, and what markers say of it."""

    name: str
    tags: tuple[str, ...]
    markers: dict[str, str]


def linux(machine: str) -> Platform:
    """Any Linux with glibc 2.28, of 2018."""
    tags = tuple(f"manylinux_2_{minor}_{machine}" for minor in (28, 27, 26, 24, 17, 12, 5))
    markers = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine, "os_name": "posix"}
    return Platform(f"Linux {machine}", (*tags, f"manylinux2014_{machine}"), markers)


PLATFORMS = (
    linux("x86_64"),
    linux("aarch64"),
    Platform(
        "macOS arm64",
        tuple(f"macosx_{major}_0_{kind}" for major in (14, 13, 12, 11) for kind in ("arm64", "universal2"))
        + tuple(f"macosx_10_{minor}_universal2" for minor in range(16, 8, -1)),
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
    ),
)


@dataclass(frozen=True)
class Found:
    """What pip would take of a package."""

    version: Version
    pure: bool
    """A wheel for every Python and platform."""
    requires: tuple[Requirement, ...]


# -- the pins ----------------------------------------------------------------------------------------------------------


def pins(*names: str) -> dict[str, str]:
    """Exact versions by name, of files in this folder."""
    lines = [line for name in names for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
    found = [re.match(r"^([A-Za-z0-9_.-]+)==([^\s#]+)", line) for line in lines]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def direct() -> list[str]:
    """What is asked for by name, with its dependencies."""
    return list(pins("requirements.txt", "requirements-dev.txt"))


def every() -> dict[str, str]:
    """All pins of the environment that the tests need, torch and the plugins of SLURM too."""
    return pins("constraints.txt", "requirements.txt", "requirements-dev.txt", "requirements-slurm.txt")


# -- what pip finds ----------------------------------------------------------------------------------------------------


def ask(pip: Path, platform: Platform, python: tuple[int, int], wanted: dict[str, str]) -> dict[str, Found] | str:
    """What pip would take of these pins; or what it says if one cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--no-input"),
            *("--use-feature", "fast-deps", "--report", str(report), "--target", str(Path(folder) / "nothing")),
            *("--python-version", f"{python[0]}.{python[1]}", "--implementation", "cp", "--only-binary", ":all:"),
            *(part for tag in platform.tags for part in ("--platform", tag)),
            *(part for name in sorted(FROM_SOURCE) for part in ("--no-binary", name)),
            *(f"{name}=={version}" for name, version in wanted.items()),
        ]
        done = subprocess.run(command, env=environment(pip), text=True, capture_output=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return " ".join(errors) or done.stderr.strip()[-1000:]
        return dict(read(json.loads(report.read_text(encoding="utf-8"))))


def environment(pip: Path) -> dict[str, str]:
    """This environment, with another pip."""
    return {**os.environ, "PYTHONPATH": str(pip), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def read(report: dict[str, Any]) -> Iterator[tuple[str, Found]]:
    """The packages of pip's report."""
    for item in report["install"]:
        about, file = item["metadata"], item["download_info"]["url"]
        name = canonicalize_name(about["name"])
        pure = file.endswith("-none-any.whl") or name in FROM_SOURCE
        yield name, Found(Version(about["version"]), pure, tuple(map(Requirement, about.get("requires_dist", []))))


# -- what they require -------------------------------------------------------------------------------------------------


def markers(platform: Platform, python: tuple[int, int]) -> dict[str, str]:
    """What a marker is compared with."""
    version = f"{python[0]}.{python[1]}"
    of_python = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_version": f"{version}.0",
    }
    of_kind = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    return {**platform.markers, **of_python, **of_kind, "platform_release": "", "platform_version": ""}


def unmet(found: dict[str, Found], asked: Iterable[str], about: dict[str, str]) -> list[str]:
    """Requirements that these packages, and what they require, have of others, and that none of them meets."""
    problems: list[str] = []
    waiting: list[tuple[str, str]] = [(name, "") for name in asked]  # with the extra that is asked for
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = place = waiting.pop()
        if place in seen or name not in found:
            continue
        seen.add(place)
        for needed in found[name].requires:
            if needed.marker and not needed.marker.evaluate({**about, "extra": extra}):
                continue
            other = canonicalize_name(needed.name)
            if other not in found:
                problems += [] if name == WITH_ITS_OWN else [f"{name} requires {needed}, which no pin names"]
            elif not needed.specifier.contains(found[other].version, prereleases=True):
                problems.append(f"{name} requires {needed}, and the pin is {found[other].version}")
            waiting += [(other, chosen) for chosen in ("", *needed.extras)]
    return sorted(problems)


# -- all of it ---------------------------------------------------------------------------------------------------------


def check(pip: Path) -> list[str]:
    """Every problem on every platform; nothing if the pins can be installed everywhere."""
    pairs = [(platform, python) for platform in PLATFORMS for python in interpreter.SUPPORTED]
    wanted = list(every().items())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = [dict(wanted[part::AT_ONCE]) for part in range(AT_ONCE)]
        first: dict[str, Found] = {}
        for answer in pool.map(lambda part: ask(pip, *pairs[0], part), parts):
            if isinstance(answer, str):
                return [f"{label(*pairs[0])}: {answer}"]
            first |= answer
        pure = {name: one for name, one in first.items() if one.pure}
        others = {name: version for name, version in wanted if name not in pure}
        answers = [first, *pool.map(lambda pair: ask(pip, *pair, others), pairs[1:])]
    problems = []
    for pair, answer in zip(pairs, answers, strict=True):
        said = [answer] if isinstance(answer, str) else unmet(pure | answer, direct(), markers(*pair))
        problems += [f"{label(*pair)}: {one}" for one in said]
        print(f"{label(*pair)}: {'cannot be installed' if said else 'every pin can be installed'}", flush=True)
    return problems


def label(platform: Platform, python: tuple[int, int]) -> str:
    """A platform and a Python in words."""
    return f"Python {python[0]}.{python[1]}, {platform.name}"


def main() -> int:
    """Fetch pip, ask it, and print what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--target", folder, PIP]
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            print("No package registry answers, so the pins were not checked.")
            return NO_REGISTRY
        problems = check(Path(folder))
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
