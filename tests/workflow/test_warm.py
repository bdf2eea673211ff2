"""Processes that are forked are told from new ones by nothing but their speed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workflow import warm
from workflow.conftest import environment

TELL = """
import json, os, sys
import helper
torch = "torch" in sys.modules
told = [sys.argv, os.getcwd(), sys.path[:2], os.environ.get("TOLD"), helper.__file__, torch, sys.stdin.read(), __name__]
print(json.dumps(told))
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script beside a folder of modules, which is on the path."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "tell.py").write_text(TELL)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "helper.py").touch()
    return tmp_path


def told(python: str | Path, folder: Path, **variables: str) -> tuple[list[Any], int]:
    """What the script says of itself, and its status."""
    variables |= {"PYTHONPATH": str(folder / "library"), "TOLD": "x"}
    done = subprocess.run(
        [str(python), "scripts/tell.py", "a b", "--c"],
        cwd=folder, env=environment() | variables | warm.ONE_THREAD, input="words", text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    return json.loads(done.stdout), done.returncode


def test_a_script_sees_what_it_would_see(folder: Path) -> None:
    """All that a new Python tells it, but that torch is there."""
    (ours, status), (theirs, expected) = told(warm.python(), folder), told(sys.executable, folder)
    assert status == expected == 7
    torch = 5
    assert (ours.pop(torch), theirs.pop(torch)) == (True, False)
    assert ours == theirs


@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "0"}, {"PYTHONWARNINGS": "ignore"}])
def test_where_libraries_would_be_told_other_things_a_new_python_starts(
    folder: Path, variables: dict[str, str]
) -> None:
    ours, status = told(warm.python(), folder, **variables)
    assert (ours[5], status) == (False, 7)


def test_what_strikes_at_the_start_strikes(folder: Path) -> None:
    (folder / "library" / "sitecustomize.py").write_text("import os; os.environ['TOLD'] = 'struck'\n")
    ours, status = told(warm.python(), folder)
    assert (ours[3], status) == ("struck", 7)


def test_errors_are_said_and_counted(folder: Path) -> None:
    (folder / "scripts" / "tell.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    command = [str(warm.python()), "scripts/tell.py"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + 9, "")
    (folder / "scripts" / "tell.py").write_text("raise ValueError('bad')\n")
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\nValueError: bad\n" in done.stderr


def test_a_script_ends_with_its_caller(folder: Path) -> None:
    (folder / "scripts" / "tell.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    caller = subprocess.Popen(
        [str(warm.python()), "scripts/tell.py"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert caller.stdout is not None
    script = int(caller.stdout.readline())
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{script}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
