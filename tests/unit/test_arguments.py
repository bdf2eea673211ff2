"""JSON arguments, given or in a file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from langneurons.arguments import from_json


def test_given_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "value.json").write_text('{"ö": [1, null]}', encoding="utf-8")
    assert from_json('{"ö": [1, null]}') == from_json(f"@{tmp_path / 'value.json'}") == {"ö": [1, None]}


@pytest.mark.parametrize(("text", "reason"), [("{", "neither JSON nor"), ("@missing.json", "No such file")])
def test_neither(text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        from_json(text)
