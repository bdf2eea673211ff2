"""Facts about the embedded corpus and questions that everything else relies on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from langneurons import config
from langneurons.corpus.prompts import read_prompts
from langneurons.corpus.sources import documents, split_of

LANGUAGES = ("en", "de", "tr")
CORPUS = config.DEMO / "corpus"
every_language = pytest.mark.parametrize("language", LANGUAGES)


def files(language: str) -> list[Path]:
    return sorted((CORPUS / language).iterdir())


def paragraphs(language: str) -> list[str]:
    return [part.strip() for path in files(language) for part in path.read_text("utf-8").split("\n\n") if part.strip()]


def questions(language: str) -> list[str]:
    return [line[3:] for part in paragraphs(language) for line in part.splitlines() if line.startswith("Q: ")]


def prompts(language: str) -> list[str]:
    return [prompt.question for prompt in read_prompts(config.DEMO / "prompts" / f"{language}.txt", language, 0, "all")]


def test_the_languages() -> None:
    assert config.embedded_languages() == sorted(LANGUAGES)


@every_language
def test_enough_text(language: str) -> None:
    """At least 100 KB of real prose are needed for neurons to specialise; 150 leave room for two held-out splits."""
    assert sum(path.stat().st_size for path in files(language)) >= 150_000


def test_the_same_topics_in_every_language() -> None:
    keys = {
        language: {
            document.key for document in documents({"source": "embedded"}, [str(path) for path in files(language)], 0)
        }
        for language in LANGUAGES
    }
    assert keys["en"] == keys["de"] == keys["tr"]
    assert keys["en"] == {path.stem for path in files("en")}
    # So every language has the same topics in the same split, and every split has some.
    share = {"valid": 0.1, "test": 0.15}
    assert {split_of(key, 0, share) for key in keys["en"]} == {"train", "valid", "test"}


@every_language
def test_valid_utf8_in_normal_form_with_unix_line_ends(language: str) -> None:
    for path in [*files(language), config.DEMO / "prompts" / f"{language}.txt"]:
        text = path.read_bytes().decode("utf-8")
        assert unicodedata.is_normalized("NFC", text), path
        assert not re.search("[\r\ufeff\ufffd\x00-\x08\x0b-\x1f]", text), path
        assert path.suffix == ".txt"


@every_language
def test_questions_and_answers_are_well_formed(language: str) -> None:
    pairs = [
        part
        for path in files(language)
        if path.stem.startswith("qa-")
        for part in path.read_text("utf-8").split("\n\n")
    ]
    assert len(pairs) >= 100
    for pair in pairs:
        assert re.fullmatch(r"Q: \S[^\n]*[?.]\nA: \S[^\n]{20,}", pair.strip()), pair
    # And nowhere else, where half a pair could hide.
    markers = [line for part in paragraphs(language) for line in part.splitlines() if re.match("[QA]:", line)]
    assert len(markers) == 2 * len(pairs)


@every_language
def test_sixty_different_prompts(language: str) -> None:
    asked = prompts(language)
    assert len(asked) == len(set(asked)) == 60
    assert all(question.endswith("?") for question in asked)


@every_language
def test_no_prompt_is_asked_in_the_corpus(language: str) -> None:
    assert len(set(questions(language))) == len(questions(language)) >= 100
    assert not set(prompts(language)) & set(questions(language))
    text = "\n".join(paragraphs(language))
    assert [question for question in prompts(language) if question in text] == []


@every_language
def test_no_paragraph_is_repeated(language: str) -> None:
    """But closing formulas of letters, such as "Yours faithfully,"."""
    repeated = [part for part, number in Counter(paragraphs(language)).items() if number > 1]
    assert [part for part in repeated if len(part) > 40] == []
    assert len(repeated) <= 3


@every_language
def test_no_text_is_in_two_languages(language: str) -> None:
    others = {part for other in LANGUAGES if other != language for part in paragraphs(other)}
    assert not {part for part in paragraphs(language) if len(part) > 40} & others


@every_language
def test_the_text_is_in_its_language(language: str) -> None:
    """Each language's letters and most frequent words, which the others lack."""
    text = " ".join(paragraphs(language)).lower()
    words = Counter(re.findall(r"\w+", text))
    shares = {name: sum(words[word] for word in of) / words.total() for name, of in FREQUENT.items()}
    assert shares[language] > 0.05
    assert all(share < 0.01 for name, share in shares.items() if name != language)


FREQUENT = {"en": ("the", "of", "and", "to"), "de": ("der", "und", "das", "nicht"), "tr": ("bir", "ve", "bu", "için")}
