"""How the page writes numbers and untrusted text. A missing number is a dash."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from markupsafe import Markup


def _number(value: Any, form: str, scale: float = 1) -> str:
    return "–" if value is None or pd.isna(value) else format(value * scale, form)


def fixed1(value: Any) -> str:
    """One decimal."""
    return _number(value, ",.1f")


def fixed2(value: Any) -> str:
    """Two decimals."""
    return _number(value, ",.2f")


def fixed3(value: Any) -> str:
    """Three decimals."""
    return _number(value, ",.3f")


def percent(value: Any) -> str:
    """A share in percent."""
    text = _number(value, ".1f", 100)
    return text if text == "–" else f"{text}%"


def integer(value: Any) -> str:
    """A whole number."""
    return _number(value, ",.0f")


def seconds(value: Any) -> str:
    """A duration."""
    if value is None or pd.isna(value):
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def printed(value: Any, decimals: int) -> str:
    """As many decimals as were printed."""
    return _number(value, f",.{int(decimals)}f")


def signed(value: Any, decimals: int) -> str:
    """A difference, with its sign."""
    return _number(value, f"+,.{int(decimals)}f").replace("-", "−")


def optional(value: Any) -> str:
    """A text that may be missing."""
    return "" if value is None or pd.isna(value) else str(value)


def small(value: Any) -> str:
    """Two significant digits."""
    return _number(value, ".2g")


def significant(value: Any) -> str:
    """Four significant digits; of whole numbers all digits."""
    if value is None or pd.isna(value):
        return "–"
    whole = math.isfinite(value) and float(value).is_integer() and abs(value) < 1e15
    text = format(value, ",.0f" if whole else ".4g" if abs(value) < 10_000 else ",.0f")
    return text.replace("inf", "∞").replace("-", "−")


def visible(text: str) -> str:
    """Text whose control characters, which HTML forbids, are shown as symbols; line ends and tabs stay."""
    return "".join(_symbol(character) for character in text)


def shown(value: Any) -> Any:
    """What the template prints of a value, before escaping."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _symbol(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20 or code == 0x7F:
        return chr(0x2421 if code == 0x7F else 0x2400 + code)
    return "\N{REPLACEMENT CHARACTER}" if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 else character


FILTERS = {
    function.__name__: function
    for function in (fixed1, fixed2, fixed3, percent, integer, seconds, small, significant, printed, signed, optional)
}
"""The filters of the template by name."""
