"""What two runs must have in common: every byte below results/ but logs and timings. For tests only."""

from __future__ import annotations

import re

from workflow.conftest import Project

PAGE, PRINTED = "report/report.html", "report/report.pdf"
TIMES = re.compile(rb'<section id="timings">.*?</section>|\d{4}-\d\d-\d\d \d\d:\d\d UTC', re.DOTALL)
"""Where the report's page says how long jobs took, and (at its head and at its foot) when it was made."""


def compared(project: Project) -> dict[str, bytes]:
    """All files but logs and timings, and the page without its times, which print, made of nothing but it, has too."""
    files = project.files()
    if PRINTED in files:
        files[PRINTED] = files[PRINTED][:5]
    if PAGE in files:
        page, found = TIMES.subn(b"", files[PAGE])
        if found != 3:
            raise ValueError(f"{PAGE} has {found} times, not 3: its templates have changed, and so must this pattern")
        files[PAGE] = page
    return files


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Files that differ, are missing, or should not be there, such as temporary ones."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
