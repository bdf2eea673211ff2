"""The undisturbed experiment, whose results those of every disturbed one must be."""

from __future__ import annotations

import pytest

from quiet import run_once
from workflow.conftest import Project


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    return run_once(tmp_path_factory, worker_id)
