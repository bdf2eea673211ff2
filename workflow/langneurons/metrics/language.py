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

    A text without letters, or with two languages equally probable, is `undetermined`, with probability 0.
    """
    result = []
    for values in _detector().compute_language_confidence_values_in_parallel(list(texts)):
        # Rounded, since the last digits vary from run to run.
        first, second = ([round(float(value.value), 6) for value in values] + [0.0, 0.0])[:2]
        code = values[0].language.iso_code_639_1.name.lower() if first > second else UNDETERMINED
        result.append((code, first if first > second else 0.0))
    return result


@cache
def knows(language: str) -> bool:
    """Whether a language code is one that `identify` can return."""
    from lingua import Language

    return language in {one.iso_code_639_1.name.lower() for one in Language.all()}
