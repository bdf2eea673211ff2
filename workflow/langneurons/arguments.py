"""Arguments of the command lines that are longer than one may be."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def from_json(text: str) -> Any:
    """A JSON value, or the content of the file that is named behind an @.

    Raises:
        argparse.ArgumentTypeError: no JSON, or no such file.
    """
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, json.JSONDecodeError) as error:
        raise argparse.ArgumentTypeError(f"neither JSON nor @ and a file with JSON: {text[:100]} ({error})") from None
