"""A real file system without space; test_faults.py of the workflow has jobs that may not write on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from chaos.comparison import compared, differences
from quiet import MODEL, copied
from workflow.conftest import Project


@pytest.mark.system
def test_disk_full(quiet: Project, tmp_path: Path) -> None:
    """No space is left for a recording; space is freed; the run continues. Mounting needs root."""
    project = copied(quiet, tmp_path / "langneurons")
    results = project.folder / "results"
    kept = tmp_path / "kept"
    results.rename(kept)
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(results)], check=True)
    try:
        shutil.copytree(kept, results, dirs_exist_ok=True)
        path = f"results/{MODEL}/activations/en.safetensors"
        target = project.folder / path
        target.unlink()
        filler = results / "logs" / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(results).free))
        output = project.mistake(path)
        assert f"error: {path}: cannot be written (No space left on device). Free space on that disk" in output
        assert "Traceback" not in output
        assert list(results.rglob("*.tmp")) == []
        assert not target.exists()
        filler.unlink()
        project.run(path)
        assert differences(compared(project), compared(quiet)) == []
        assert project.stale() == {}
    finally:
        subprocess.run(["umount", str(results)], check=True)
