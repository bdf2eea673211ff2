"""Progress bars that read well on a terminal and in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(items: Iterable[Any] | None, description: str, total: int | None = None, unit: str = "it") -> Any:
    """Show progress over items: a moving bar on a terminal; elsewhere now and then, if it takes long.

    None for items is a bar of `total` that the caller updates.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        mininterval=0.2 if terminal else 5,
        delay=0 if terminal else 3,
        file=sys.stderr,
    )
