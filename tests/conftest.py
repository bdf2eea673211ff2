"""The order of the tests, and what a run left out: said at its end; where nothing may be left out, the run fails."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from left_out import VARIABLE, LeftOut, fatal

LONGEST = ("workflow", "engines")
"""Folders whose modules take long. They begin, so that no worker starts one when the others have finished."""

LEFT_OUT = pytest.StashKey[LeftOut]()


class Watch:
    """What notices skips in this run."""

    def __init__(self, config: pytest.Config) -> None:
        self.left_out = LeftOut(whole_files="not full" not in config.option.markexpr)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.left_out.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.left_out.note(report)


def pytest_configure(config: pytest.Config) -> None:
    watch = Watch(config)
    config.stash[LEFT_OUT] = watch.left_out
    config.pluginmanager.register(watch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = [*LONGEST, ""]

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return folders.index(folder if folder in LONGEST else "")

    items.sort(key=place)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    left_out = session.config.stash[LEFT_OUT]
    if left_out.places and fatal(os.environ) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    yield  # what others say comes first
    lines = config.stash[LEFT_OUT].lines()
    if lines:
        terminalreporter.section("left out" + f", which {VARIABLE} forbids" * fatal(os.environ))
        for line in lines:
            terminalreporter.line(line)
