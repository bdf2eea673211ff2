"""The report in a real browser, from disk: it loads without an error and fits its window. Needs Debian's Chromium."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from workflow.conftest import Project

pytestmark = pytest.mark.system

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
]  # fmt: skip


def browse(page: Path, width: int, profile: Path) -> tuple[str, str]:
    """The page's document after loading, and what the browser logged."""
    command = [
        "chromium",
        *QUIET,
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def test_report_loads_without_console_messages(finished: Project, tmp_path: Path) -> None:
    page = finished.folder / "results" / "report" / "report.html"
    document, log = browse(page, 1280, tmp_path / "profile")
    assert "</html>" in document
    assert document.count("<section") >= 8
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []


@pytest.mark.parametrize("width", [500, 1280])
def test_report_fits_its_window(finished: Project, tmp_path: Path, width: int) -> None:
    """Wide tables and figures scroll in their own box; the page itself never does sideways."""
    page = (finished.folder / "results" / "report" / "report.html").read_text(encoding="utf-8")
    page, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert policies == 1  # the page forbids scripts; the copy allows the one that measures
    measure = "const root = document.documentElement; root.dataset.measured = [innerWidth, root.scrollWidth];"
    copy = tmp_path / "report.html"
    copy.write_text(page.replace("</body>", f"<script>{measure}</script></body>"), encoding="utf-8")
    document, _ = browse(copy, width, tmp_path / "profile")
    measured = re.search(r'data-measured="(\d+),(\d+)"', document)
    assert measured is not None
    inner, needed = int(measured[1]), int(measured[2])
    assert abs(inner - width) <= 20
    assert needed <= inner
