"""Whether this Python can carry the environment. Says what is wrong, and ends with 1, before anything is installed.

    python3 envs/interpreter.py

It is run by whatever Python is there, so it keeps to what old ones can read.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys

SUPPORTED = ((3, 11), (3, 12), (3, 13))
"""Of these all pins have wheels: `make check-pins`."""
NEEDED = ("venv", "ensurepip")
"""Modules that make an environment. Debian and its kin keep them in a package of their own."""


def named(versions: tuple[tuple[int, int], ...]) -> str:
    """Versions in words: `3.11, 3.12 or 3.13`."""
    names = [f"{major}.{minor}" for major, minor in versions]
    return " or ".join([", ".join(names[:-1]), names[-1]])


def problem(version: tuple[int, int], executable: str, missing: list[str], environment: str | None) -> str | None:
    """What is wrong with a Python, and the remedy; None if nothing is.

    Args:
        version: major and minor.
        executable: where it is.
        missing: the needed modules that it has not got.
        environment: the folder of the environment that it belongs to, if it is there already.
    """
    name = f"{version[0]}.{version[1]}"
    if version not in SUPPORTED:
        said = (
            f"error: langneurons needs Python {named(SUPPORTED)}, for which all packages exist; {executable} is {name}."
        )
        if environment:
            return f"{said} Remove that environment, {environment}, and name another Python: {remedy()}"
        return f"{said} Name another one: {remedy()}"
    if missing and not environment:
        return (
            f"error: {executable} has no {' and no '.join(missing)}, which making an environment takes. On Debian and "
            f"Ubuntu: apt install python{name}-venv (or python3-venv)."
        )
    return None


def remedy() -> str:
    """A command with a Python that is there, or else with the newest that would do."""
    names = [f"python{major}.{minor}" for major, minor in reversed(SUPPORTED)]
    there = [name for name in names if shutil.which(name)]
    return f"make run PYTHON={(there or names)[0]}" + ("" if there else ", once it is installed.")


def main() -> None:
    """Look at the Python that runs this."""
    inside = sys.prefix if sys.prefix != sys.base_prefix else None
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    said = problem(sys.version_info[:2], sys.executable, missing, inside)
    if said:
        raise SystemExit(said)


if __name__ == "__main__":
    main()
