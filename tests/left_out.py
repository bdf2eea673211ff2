"""What a run of the tests left out for want of something on this machine, and whether it may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

VARIABLE = "LANGNEURONS_NO_SKIPS"
"""Where this is set to anything, as `.ci/run` does, a run that left something out fails."""

ALLOWED: dict[str, str] = {}
"""Part of the reason of a skip that is allowed everywhere, and when it will not be needed any more. None at present."""


def fatal(environment: Mapping[str, str]) -> bool:
    """Whether nothing may be left out."""
    return bool(environment.get(VARIABLE))


@dataclass
class LeftOut:
    """Skipped tests and files by reason."""

    whole_files: bool
    """Whether files count that are skipped as a whole: they need what `make test-full` installs, for its tests."""
    places: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names of tests and files. Both processes of a parallel run tell of the same file."""

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Take note of a test that was skipped, or of a file; others are none of our business."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        if isinstance(report, pytest.CollectReport) and not self.whole_files:
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED):
            self.places[reason.removeprefix("Skipped: ")].add(report.nodeid)

    def lines(self) -> list[str]:
        """A line for each reason, with what it keeps from running."""
        return [f"{reason}: {described(self.places[reason])}" for reason in sorted(self.places)]


def described(places: set[str]) -> str:
    """Files, and numbers of tests of the others: `all of a.py, 2 tests of b.py`."""
    tests: dict[str, int] = {}
    for place in sorted(places):
        name, _, test = place.partition("::")
        tests[name] = tests.get(name, 0) + bool(test)
    return ", ".join(
        f"{number} test{'s' * (number > 1)} of {name}" if number else f"all of {name}" for name, number in tests.items()
    )
