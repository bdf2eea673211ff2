"""How the page writes numbers, enumerations and untrusted text. A missing number is a dash, an infinite one ∞."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that HTML forbids."""
FEW = 4
"""So many values are listed one by one in a sentence."""


def _number(value: Any, form: str, scale: float = 1) -> str:
    return "–" if value is None or pd.isna(value) else format(value * scale, form).replace("inf", "∞")


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
    if value is None or pd.isna(value) or math.isinf(value):
        return _number(value, "")
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def printed(value: Any, decimals: Any) -> str:
    """As many decimals as were printed; four significant digits where that is not known."""
    return significant(value) if not math.isfinite(decimals) else _number(value, f",.{int(decimals)}f")


def signed(value: Any, decimals: int) -> str:
    """A difference, with its sign."""
    return _number(value, f"+,.{int(decimals)}f").replace("-", "−")


def optional(value: Any) -> str:
    """A text that may be missing."""
    return "" if value is None or pd.isna(value) else str(value)


def ratio(value: float) -> str:
    """A ratio with the digits that its size deserves."""
    return _number(value, ".3f" if value < 10 else ",.1f")


def share(value: float, decimals: int = 1) -> str:
    """A share in a sentence, in percent."""
    return "not known" if pd.isna(value) else _number(value, f".{decimals}%")


def ratio_interval(row: Any) -> str:
    """The ratio of perplexities of a difference in nats, with its interval."""
    with np.errstate(over="ignore"):  # what is too large for a number is shown as infinite
        value, low, high = (ratio(float(np.exp(row[key]))) for key in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]" if bounded(row) else value


def share_interval(row: Any) -> str:
    """A share in percent, with its interval."""
    value = share(row["share"], 0)
    return f"{value} [{share(row['low'], 0)}, {share(row['high'], 0)}]" if bounded(row) else value


def points(row: Any) -> str:
    """A difference of shares in percentage points, with its interval."""
    if pd.isna(row["difference"]):
        return "by how much is not known"
    value, low, high = (_number(row[key], "+.0f", 100) for key in ("difference", "low", "high"))
    return (f"{value} points [{low}, {high}]" if bounded(row) else f"{value} points").replace("-", "−")


def bounded(row: Any) -> bool:
    """Whether a number has an interval: both of its bounds."""
    return not (pd.isna(row["low"]) or pd.isna(row["high"]))


def listed(values: dict[str, Any], form: Callable[[Any], str]) -> str:
    """Values with their languages; of many, the smallest, the median and the largest, and those that are not known."""
    known = {language: value for language, value in values.items() if not pd.isna(value)}
    if len(values) <= FEW or not known:
        return join([f"{form(value)} ({language})" for language, value in values.items()])
    ranked = sorted(known, key=lambda language: known[language])
    low, middle, high = (ranked[place] for place in (0, (len(ranked) - 1) // 2, -1))
    text = (
        f"between {form(values[low])} ({low}) and {form(values[high])} ({high}), median {form(values[middle])} "
        f"({middle})"
    )
    unknown = [language for language in values if language not in known]
    return f"{text}, not known for {join(unknown)}" if unknown else text


def join(parts: Sequence[str]) -> str:
    """An enumeration."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


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
    return CONTROLS.sub(lambda found: _symbol(found[0]), text)


def shown(value: Any) -> Any:
    """What the template prints of a value, before escaping."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _symbol(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return chr(0x2421 if code == 0x7F else 0x2400 + code)
    return "\N{REPLACEMENT CHARACTER}"


FILTERS = {
    function.__name__: function
    for function in (fixed1, fixed2, fixed3, percent, integer, seconds, small, significant, printed, signed, optional)
}
"""The filters of the template by name."""
