"""Plants small faults in copies of the project, one at a time, and tells which of them its tests notice.

    python tests/planted_faults.py --output faults.md
    python tests/planted_faults.py --only neurons wilson 3 --output faults.md
    python tests/planted_faults.py --before ../before --output before.md
    python tests/planted_faults.py --marks "not system and not cluster and not slow" --output with-full.md

Run by hand, before and after a change of the tests: what was noticed before must be noticed after. The faults are in
`planted_faults.yaml`. A fault is noticed if a test fails with it that passes without it. Where the tests that a fault
names do not notice it, those of its area are asked as well, before it counts as not noticed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CATALOGUE = Path(__file__).with_suffix(".yaml")
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
"""How pytest sums up what failed."""
NO_END = "no end"
NOTHING_RAN = 5
"""Exit code of pytest where no test was selected."""
OWN_TEST = "test_planted_faults.py"
"""Not copied: it would notice every fault, by its text."""
HEADER = "| # | fault | area | what | noticed | by | seconds |\n|---|---|---|---|---|---|---|\n"


class StaleFault(Exception):  # noqa: N818 (of the list, not of the tests)
    """A fault that does not fit the project any more."""


@dataclass(frozen=True)
class Fault:
    """One small change of one file."""

    number: int
    name: str
    area: str
    what: str
    file: str
    old: str
    new: str
    tests: list[str]
    """Paths, each with options of pytest behind it where only a part is meant."""
    wider: list[str]
    """Tests of the area."""

    def chosen(self, wanted: list[str]) -> bool:
        """Whether it is among these numbers, names and areas; of none, whether at all."""
        return not wanted or bool({str(self.number), self.name, self.area} & set(wanted))

    def changed(self, project: Path) -> str:
        """The file's text with the fault.

        Raises:
            StaleFault: the text that it changes is not there, or more than once.
        """
        path = project / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(self.old) != 1:
            where = f"is {text.count(self.old)} times in {self.file}" if text else f"should be in {self.file}"
            raise StaleFault(f"fault '{self.name}': its text {where}, not once. Correct {CATALOGUE.name}.")
        return text.replace(self.old, self.new)


def read_faults() -> list[Fault]:
    """The catalogue, numbered from 1."""
    content = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    faults = [
        Fault(number=number, wider=content["wider"][entry["area"]], **entry)
        for number, entry in enumerate(content["faults"], 1)
    ]
    if len({fault.name for fault in faults}) < len(faults):
        raise StaleFault(f"two faults of {CATALOGUE.name} have the same name. Rename one of them.")
    return faults


# -- copies ------------------------------------------------------------------------------------------------------------


@contextmanager
def copied(project: Path) -> Iterator[Path]:
    """A copy of what git would clone of a checkout, uncommitted changes included, in a repository of its own."""
    listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder) / "project"
        for name in filter(None, listed.split("\0")):
            if (project / name).is_file() and Path(name).name != OWN_TEST:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, copy / name)
        shared = project.resolve().parent / "shared"
        if shared.is_dir():
            (Path(folder) / "shared").symlink_to(shared)
        git(copy, "init", "--quiet")
        git(copy, "add", "--all")
        git(copy, "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "commit", "--quiet", "--message=copy")
        yield copy


def git(folder: Path, *arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], cwd=folder, text=True, capture_output=True, check=True).stdout


def write(path: Path, text: str) -> None:
    """Change a file of a copy, and forget what Python compiled of it: the size and the second may be the same."""
    path.write_text(text, encoding="utf-8")
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


# -- tests -------------------------------------------------------------------------------------------------------------


def ask(project: Path, arguments: list[str], timeout: float) -> str | None:
    """Run pytest on a copy until the first failure, and name the test that failed, if any did.

    Raises:
        RuntimeError: pytest could not run them.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
    command += [f"--basetemp={project.parent / 'tests'}", *arguments]
    process = subprocess.Popen(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"{NO_END} within {timeout:g} s"
    if process.returncode == NOTHING_RAN:
        print(f"  no test was selected by: {shlex.join(arguments)}", flush=True)
    if process.returncode in (0, NOTHING_RAN):
        return None
    found = FAILED.search(output)  # also a module that cannot be imported
    if found is None:
        raise RuntimeError(f"pytest ended with {process.returncode}:\n{output[-3000:]}")
    return found[1]


def there(project: Path, tests: list[str]) -> list[str]:
    """Arguments of pytest for the tests among these that a checkout has."""
    return [
        argument
        for test in tests
        if (project / test.split()[0].partition("::")[0]).exists()
        for argument in shlex.split(test)
    ]


def noticed(fault: Fault, project: Path, arguments: argparse.Namespace) -> str | None:
    """The first test that fails with the fault and, unless that is trusted, passes without it; None without one."""
    options = ["-m", arguments.marks] if arguments.marks else []
    path = project / fault.file
    right, wrong = path.read_text(encoding="utf-8"), fault.changed(project)
    for tests in rounds_of(fault, project, arguments):
        write(path, wrong)
        failed = ask(project, [*options, *tests], arguments.timeout) if tests else None
        if failed is None:
            continue
        write(path, right)
        if (
            not arguments.trust
            and not failed.startswith(NO_END)
            and ask(project, [*options, failed], arguments.timeout)
        ):
            raise RuntimeError(f"{failed} fails without the fault as well")
        return failed
    return None


def rounds_of(fault: Fault, project: Path, arguments: argparse.Namespace) -> list[list[str]]:
    """What pytest is asked, one after the other until the fault is noticed."""
    if arguments.all:
        return [["tests"]]
    if arguments.tests:
        return [shlex.split(arguments.tests)]
    own, wider = there(project, fault.tests), there(project, fault.wider)
    if not own:
        print(f"  the tests of '{fault.name}' are not in {project}: those of the area are asked alone", flush=True)
    return [own, wider] if not arguments.narrow else [own]


# -- command line ------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Plant faults and write the table. Returns 1 if one is not noticed, 2 if one does not fit the project any more."""
    arguments = parse_args(argv)
    project = (arguments.before or ROOT).resolve()
    try:
        faults = [fault for fault in read_faults() if fault.chosen(arguments.only)]
        for fault in faults:
            fault.changed(project)
    except StaleFault as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(faults)} faults fit {project}", flush=True)
    if arguments.check:
        return 0
    rows, missed = [], 0
    for done, fault in enumerate(faults, 1):
        print(f"[{done}/{len(faults)}] {fault.number} {fault.name}: {fault.what}", flush=True)
        start = time.monotonic()
        try:
            with copied(project) as copy:
                by = noticed(fault, copy, arguments)
            answer = "yes" if by else "no"
        except RuntimeError as error:
            print(error, file=sys.stderr)
            by, answer = "the tests could not be asked", "unknown"
        missed += answer != "yes"
        seconds = time.monotonic() - start
        print(f"  {answer}{f': {by}' if by else ''} ({seconds:.0f} s)", flush=True)
        what = fault.what.replace("|", "\\|")
        shown = f"`{by}`".replace("|", "\\|") if by else "–"
        rows.append(f"| {fault.number} | {fault.name} | {fault.area} | {what} | {answer} | {shown} | {seconds:.0f} |\n")
        arguments.output.write_text(HEADER + "".join(rows), encoding="utf-8")
    print(f"{len(faults) - missed} of {len(faults)} faults were noticed; the table is {arguments.output}")
    return 1 if missed else 0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="numbers, names or areas of faults")
    parser.add_argument("--tests", help="arguments of pytest, in place of the tests that faults name")
    parser.add_argument("--all", action="store_true", help="ask all tests of every fault")
    parser.add_argument("--narrow", action="store_true", help="do not ask the tests of the area as well")
    parser.add_argument("--trust", action="store_true", help="take it that every test passes without a fault")
    parser.add_argument("--marks", help="which tests count, as pytest's -m; by default the unmarked ones")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, in place of this one")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds after which tests count as hanging")
    parser.add_argument("--check", action="store_true", help="see only whether all faults fit the project")
    parser.add_argument("--output", type=Path, default=Path("planted_faults.md"), help="the table, in Markdown")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
