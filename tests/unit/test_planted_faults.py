"""The planted faults fit the project, and the script tells which of them tests notice."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
import yaml

import planted_faults
from planted_faults import ROOT, StaleFault, main, read_faults

SUM = "def total(values):\n    return sum(values)\n"
TEST = "from sums import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n    assert total([]) == 0\n"


def fault(name: str, new: str, old: str = "sum(values)") -> dict:
    return {
        **{"name": name, "area": "sums", "what": f"it is {new}", "file": "sums.py"},
        **{"old": old, "new": new, "tests": ["test_sums.py"]},
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one function and one test, with two faults, of which the test notices the first."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take ten times as long as these tests
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "sums.py").write_text(SUM)
    (folder / "test_sums.py").write_text(TEST)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    write_catalogue(
        tmp_path, monkeypatch, [fault("largest", "max(values, default=0)"), fault("list", "sum([*values])")]
    )
    return folder


def write_catalogue(folder: Path, monkeypatch: pytest.MonkeyPatch, faults: list[dict]) -> None:
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump({"wider": {"sums": ["test_sums.py"]}, "faults": faults}))
    monkeypatch.setattr(planted_faults, "CATALOGUE", path)


def test_every_fault_fits_the_project() -> None:
    faults = read_faults()
    assert len(faults) >= 40
    for one in faults:
        changed = one.changed(ROOT)
        assert changed != (ROOT / one.file).read_text(encoding="utf-8")
        if one.file.endswith(".py"):
            ast.parse(changed)  # a mistake in what it does, not in how it is written
        for test in [*one.tests, *one.wider]:
            assert (ROOT / test.split()[0].partition("::")[0]).exists(), f"{one.name}: there is no {test}"


def test_what_is_noticed(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.md"
    assert main(["--before", str(project), "--output", str(table)]) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.read_text().splitlines()[2:]]
    assert [row[1:6] for row in rows] == [
        ["largest", "sums", "it is max(values, default=0)", "yes", "`test_sums.py::test_total`"],
        ["list", "sums", "it is sum([*values])", "no", "–"],
    ]
    assert "1 of 2 faults were noticed" in capsys.readouterr().out
    assert (project / "sums.py").read_text() == SUM
    assert main(["--before", str(project), "--output", str(table), "--only", "largest", "--narrow"]) == 0


def test_a_test_that_fails_by_itself_notices_nothing(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "test_sums.py").write_text(TEST.replace("== 3", "== 4"))
    arguments = ["--before", str(project), "--output", str(tmp_path / "table.md"), "--only", "1"]
    assert main(arguments) == 1
    assert "test_total fails without the fault as well" in capsys.readouterr().err
    assert main([*arguments, "--trust"]) == 0


def test_a_fault_whose_text_is_gone_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_catalogue(tmp_path, monkeypatch, [fault("gone", "max(values)", "fsum(values)")])
    assert main(["--before", str(project), "--check"]) == 2
    assert "fault 'gone': its text is 0 times in sums.py, not once" in capsys.readouterr().err
    write_catalogue(tmp_path, monkeypatch, [fault("twice", "max(values)"), fault("twice", "min(values)")])
    with pytest.raises(StaleFault, match="have the same name"):
        read_faults()
