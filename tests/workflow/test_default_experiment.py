"""The default experiment itself, from scratch, twice: what the README promises of it. Takes about ten minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from workflow.conftest import copy_project, environment

pytestmark = pytest.mark.slow


def run_default(folder: Path) -> Path:
    """Run the default experiment in a copy of the project; return its tables."""
    project = copy_project(folder)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    done = subprocess.run(command, cwd=project.folder, env=environment(), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return project.folder / "results" / "tables"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_default(tmp_path_factory.mktemp("default") / "langneurons")


@pytest.mark.parametrize("model", ["llama-demo", "gpt2-demo"])
def test_own_language_suffers_most(tables: Path, model: str) -> None:
    """Switching a language's neurons off raises its own perplexity more than any other's, and than random draws do.

    For the GPT-2-style model more than every draw does, for the Llama-style one more than their mean.
    """
    ratios = pd.read_csv(tables / "perplexity.csv").query("model == @model")
    for language in ("en", "de", "tr"):
        off = ratios.query("variant == 'deactivate' and edited_language == @language").set_index("language")["ratio"]
        draws = ratios.query("variant == 'random' and edited_language == @language and language == @language")["ratio"]
        assert len(draws) == 3
        assert off[language] > off.drop(language).max()
        assert off[language] > (draws.max() if model == "gpt2-demo" else draws.mean())


def test_tables_are_the_same_bytes_in_a_second_run(tables: Path, tmp_path: Path) -> None:
    again = run_default(tmp_path / "langneurons")
    names = sorted(path.name for path in tables.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert len(names) == 17
    assert [name for name in names if (tables / name).read_bytes() != (again / name).read_bytes()] == []
