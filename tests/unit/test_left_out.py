"""What a run of the tests leaves out is said at its end, and fails it where nothing may be left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import left_out

TESTS = Path(left_out.__file__).parent

PART = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_data(number):
    pytest.skip("no data here")

@pytest.mark.xfail(reason="known")
def test_known():
    assert False

def test_sound():
    pass
"""
WHOLE = 'import pytest\npytest.importorskip("no_such_library", reason="a library is not installed")\n'


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """The tests of the folder with the rules of this project's, whatever this process was started with: the exit
    status, and the lines that were printed."""
    own = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", left_out.VARIABLE)
    kept = {name: value for name, value in os.environ.items() if name not in own}
    kept |= {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others' plugins start slowly
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env=kept | environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, [line for line in done.stdout.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tests of which two, and one whole file, are left out."""
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = full\n")
    (tmp_path / "test_part.py").write_text(PART)
    (tmp_path / "test_whole.py").write_text(WHOLE)
    return tmp_path


LINES = ["a library is not installed: all of test_whole.py", "no data here: 2 tests of test_part.py"]


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n", "2"]])
def test_what_is_left_out_is_said_at_the_end(folder: Path, workers: list[str]) -> None:
    status, printed = run(folder, *workers, CI="true")  # which every service sets, for every fork
    assert status == 0, printed
    *_, title, first, second, total = printed
    assert title.strip("= ") == "left out"
    assert [first, second] == LINES
    assert "1 passed" in total


def test_where_nothing_may_be_left_out_the_run_fails(folder: Path) -> None:
    status, printed = run(folder, **{left_out.VARIABLE: "1"})
    assert status == pytest.ExitCode.TESTS_FAILED
    *_, title, first, second, _ = printed
    assert title.strip("= ") == f"left out, which {left_out.VARIABLE} forbids"
    assert [first, second] == LINES


@pytest.mark.parametrize(("asked_for", "status"), [("not full", 0), ("full or test_sound", 1)])
def test_files_are_missed_where_their_tests_are_asked_for(folder: Path, asked_for: str, status: int) -> None:
    (folder / "test_part.py").write_text("import pytest\n\n@pytest.mark.test_sound\ndef test_sound():\n    pass\n")
    found, printed = run(folder, "-m", asked_for, **{left_out.VARIABLE: "1"})
    assert found == status, printed
    assert (LINES[0] in printed) == bool(status)


def test_long_folders_begin_and_nothing_left_out_is_not_mentioned(folder: Path) -> None:
    for name in ("engines", "other", "workflow"):
        (folder / name).mkdir()
        (folder / name / f"test_{name}.py").write_text("def test_it():\n    pass\n")
    status, printed = run(folder, "--verbose", "-k", "test_it", "--ignore=test_whole.py", **{left_out.VARIABLE: "1"})
    assert status == 0, printed
    assert [line.partition("/")[0] for line in printed if "PASSED" in line] == ["workflow", "engines", "other"]
    assert not [line for line in printed if "left out" in line]
