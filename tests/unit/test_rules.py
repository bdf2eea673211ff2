"""Every rule is written the same way: a docstring, a message, a log, a benchmark, an environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "rules"


def blocks() -> dict[str, str]:
    """The text of every rule, by file and number."""
    found = {}
    for path in sorted(RULES.glob("*.smk")):
        parts = re.split(r"\n(?= *(?:use )?rule(?: \w+)*:\n)", path.read_text(encoding="utf-8"))[1:]
        found |= {f"{path.stem}-{number}": part for number, part in enumerate(parts, 1)}
    return found


def test_all_stages_are_there() -> None:
    assert len(blocks()) == 28


@pytest.mark.parametrize("name", blocks())
def test_rule_is_complete(name: str) -> None:
    lines = [line.strip() for line in blocks()[name].splitlines()]
    directives = ["input:", "output:", "log:", "benchmark:", "message:"]
    if not lines[0].startswith("use rule"):  # which takes these from another rule
        assert lines[1] == '"""'  # the docstring comes first
        directives += ["conda:", "shell:"]
    for directive in directives:
        assert lines.count(directive) == 1, directive
    assert not {"run:", "script:"} & set(lines)  # rules call command lines that people can call as well


@pytest.mark.parametrize("path", sorted(RULES.glob("*.smk")), ids=lambda path: path.stem)
def test_file_opens_with_its_purpose(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""')
    if path.stem not in ("common", "cluster"):
        head = text.split('"""')[1]
        assert "REQUIRED INPUTS:" in head
        assert "OUTPUTS:" in head
        assert "\ndef " not in text
