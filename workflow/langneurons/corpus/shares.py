"""How much of a text is text: what is counted among its tokens, as shares."""

from __future__ import annotations

from typing import Any

ODD = ("repeated_tokens", "unknown_tokens", "special_tokens", "empty_tokens")
"""What the metadata of windows counts: see `windows.pack` and `windows.odd_tokens`."""


def shares(metadata: dict[str, Any]) -> dict[str, float | None]:
    """Each of `ODD` as a share of the tokens; None where the metadata do not have it."""
    return {name: metadata[name] / metadata["tokens"] if name in metadata else None for name in ODD}
