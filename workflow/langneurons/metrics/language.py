"""Which language a text is in, offline, by the library lingua."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

UNDETERMINED = "undetermined"


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    # All of lingua's languages, not only those of the run: else every text would be forced into one of them.
    return LanguageDetectorBuilder.from_all_languages().build()


def identify(texts: Sequence[str]) -> list[tuple[str, float]]:
    """The most probable language of each text (ISO 639-1) and its probability.

    A text without letters is `undetermined`, with probability 0.
    """
    result = []
    for values in _detector().compute_language_confidence_values_in_parallel(list(texts)):
        best = values[0] if values and values[0].value > 0 else None
        certain = best is not None and (len(values) == 1 or values[0].value > values[1].value)
        if best is None or not certain:
            result.append((UNDETERMINED, 0.0))
        else:
            result.append((best.language.iso_code_639_1.name.lower(), float(best.value)))
    return result
