"""Which language a text is in, by identifiers that work offline."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from langneurons.errors import UserError

UNDETERMINED = "undetermined"

Ranking = list[tuple[str, float]]
"""Languages and their probabilities, most probable first; at least two."""


@dataclass(frozen=True)
class Identifier:
    """A library that tells the language of a text."""

    package: str
    """What is imported."""
    distribution: str
    """What pip installs."""
    digits: int
    """Digits kept of a probability. The last ones vary with the order of summation, or with the processor."""
    rank: Callable[[list[str]], list[Ranking]]
    """The ranking of each text; every text has a letter."""
    codes: Callable[[], frozenset[str]]
    """All languages that a ranking can have first."""


def identify(texts: Sequence[str], identifier: str = "lingua") -> list[tuple[str, float]]:
    """The most probable language of each text (ISO 639-1, or ISO 639-3 where there is none) and its probability.

    A text without letters, or with two languages equally probable, is `undetermined`, with probability 0.

    Raises:
        UserError: an identifier that is not known or not installed.
    """
    chosen = _installed(identifier)
    lettered = [any(map(str.isalpha, text)) for text in texts]
    rankings = iter(chosen.rank([text for text, letters in zip(texts, lettered, strict=True) if letters]))
    return [_decide(next(rankings), chosen.digits) if letters else (UNDETERMINED, 0.0) for letters in lettered]


def knows(language: str, identifier: str = "lingua") -> bool:
    """Whether a language code is one that `identify` can return.

    Raises:
        UserError: an identifier that is not known or not installed.
    """
    return language in _installed(identifier).codes()


def installed(identifier: str) -> bool:
    """Whether the library of an identifier is there.

    Raises:
        UserError: an identifier that is not known.
    """
    return find_spec(_named(identifier).package) is not None


@cache
def say_once(message: str) -> None:
    """Print a note to stderr, the first time only."""
    print(f"note: {message}", file=sys.stderr)


def _named(identifier: str) -> Identifier:
    if identifier not in IDENTIFIERS:
        raise UserError(
            f"metrics.identifiers: '{identifier}' is no language identifier. Choose from {', '.join(IDENTIFIERS)}."
        )
    return IDENTIFIERS[identifier]


def _installed(identifier: str) -> Identifier:
    if not installed(identifier):
        raise UserError(
            f"metrics.identifiers: the language identifier '{identifier}' is not installed. Install it (pip install "
            f"{IDENTIFIERS[identifier].distribution}), or take it out of the list."
        )
    return IDENTIFIERS[identifier]


def _decide(ranking: Ranking, digits: int) -> tuple[str, float]:
    (code, first), (_, second) = [(name, round(value, digits)) for name, value in ranking[:2]]
    return (code, first) if first > second and code != UNDETERMINED else (UNDETERMINED, 0.0)


# -- lingua -----------------------------------------------------------------------------------------------------------


@cache
def _lingua() -> Any:
    from lingua import LanguageDetectorBuilder

    # All of lingua's languages, not only those of the run: else every text would be forced into one of them.
    return LanguageDetectorBuilder.from_all_languages().build()


def _rank_by_lingua(texts: list[str]) -> list[Ranking]:
    return [
        [(value.language.iso_code_639_1.name.lower(), float(value.value)) for value in values[:2]]
        for values in _lingua().compute_language_confidence_values_in_parallel(texts)
    ]


@cache
def _codes_of_lingua() -> frozenset[str]:
    from lingua import Language

    return frozenset(language.iso_code_639_1.name.lower() for language in Language.all())


# -- py3langid --------------------------------------------------------------------------------------------------------

_FOLDED = {"arz": "ar", "ary": "ar", "hbo": "he", "no": "nb", "wuu": "zh", "yue": "zh", "zxx": UNDETERMINED}
"""What py3langid tells apart, or names otherwise, and lingua does not; zxx is text in no language."""


@cache
def _py3langid() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _rank_by_py3langid(texts: list[str]) -> list[Ranking]:
    rankings = []
    for text in texts:
        total: dict[str, float] = {}
        for label, probability in _py3langid().rank(text):
            code = _FOLDED.get(label, label)
            total[code] = total.get(code, 0.0) + probability
        rankings.append(sorted(total.items(), key=lambda entry: -entry[1])[:2])
    return rankings


@cache
def _codes_of_py3langid() -> frozenset[str]:
    return frozenset(_FOLDED.get(label, label) for label in _py3langid().labels) - {UNDETERMINED}


IDENTIFIERS = {
    "lingua": Identifier("lingua", "lingua-language-detector", 6, _rank_by_lingua, _codes_of_lingua),
    "py3langid": Identifier("py3langid", "py3langid", 4, _rank_by_py3langid, _codes_of_py3langid),
}
"""Language identifiers by name. To add one: a function that ranks, one that lists its codes, and a line here."""
