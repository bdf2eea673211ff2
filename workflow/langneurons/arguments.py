"""What several command lines make of their arguments."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langneurons.variants import BASELINE


def from_json(text: str) -> Any:
    """A JSON value, or the content of the file that is named behind an @.

    Raises:
        argparse.ArgumentTypeError: no JSON, or no such file.
    """
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, json.JSONDecodeError) as error:
        raise argparse.ArgumentTypeError(f"neither JSON nor @ and a file with JSON: {text[:100]} ({error})") from None


def perturbation_names(interventions: Sequence[str]) -> list[str]:
    """The perturbations of a job, which its files of interventions are named after; without any, the baseline."""
    return [Path(path).name.removesuffix(".parquet") for path in interventions] or [BASELINE]
