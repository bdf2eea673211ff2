"""Language identifiers: what they find, what they refuse, and that they repeat themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from langneurons.errors import UserError
from langneurons.metrics.language import IDENTIFIERS, UNDETERMINED, identify, installed, knows, say_once

CORPUS = Path(__file__).parents[2] / "workflow" / "langneurons" / "demo" / "corpus"

TEXTS = {
    "en": "The old man walked slowly along the river and thought about his daughter.",
    "de": "Der alte Mann ging langsam am Fluss entlang und dachte an seine Tochter.",
    "tr": "Yaşlı adam nehir boyunca yavaşça yürüdü ve kızını düşündü.",
    "zh": "我喜欢吃苹果，因为它们很好吃。",
    "ja": "今日は天気がいいですね。",
    "th": "ฉันชอบกินข้าวผัดมากที่สุด",
    "he": "שלום עולם, מה שלומך היום?",
    "ar": "مرحبا بالعالم، كيف حالك اليوم؟",
}

every_identifier = pytest.mark.parametrize("identifier", list(IDENTIFIERS))


@every_identifier
@pytest.mark.parametrize("language", list(TEXTS))
def test_languages_are_identified(identifier: str, language: str) -> None:
    [(found, confidence)] = identify([TEXTS[language]], identifier)
    assert found == language
    assert 0.7 < confidence <= 1


@every_identifier
@pytest.mark.parametrize("text", ["", "   ", "\n", "1234 5678", "!?…", "🙂👩‍👩‍👧❤️", "½ ² _"])
def test_text_without_letters_is_undetermined(identifier: str, text: str) -> None:
    assert identify([text], identifier) == [(UNDETERMINED, 0.0)]


@every_identifier
def test_texts_without_letters_do_not_shift_the_others(identifier: str) -> None:
    found = identify(["", TEXTS["en"], "12", TEXTS["tr"], "🙂"], identifier)
    assert [language for language, _ in found] == [UNDETERMINED, "en", UNDETERMINED, "tr", UNDETERMINED]


@every_identifier
def test_no_texts(identifier: str) -> None:
    assert identify([], identifier) == []


@every_identifier
def test_one_letter_is_hardly_anything(identifier: str) -> None:
    assert all(confidence < 0.5 for _, confidence in identify(["I", "x", "q", "Z"], identifier))


@every_identifier
def test_a_very_long_text(identifier: str) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(CORPUS.glob("de/*.txt")))
    assert len(text) > 100_000
    assert identify([text], identifier) == [("de", 1.0)]


@every_identifier
def test_the_same_texts_give_the_same_numbers(identifier: str) -> None:
    """To the last digit: lingua's own probabilities differ from call to call, after about 15 digits."""
    texts = [text[:length] for text in TEXTS.values() for length in range(1, len(text))]
    assert identify(texts, identifier) == identify(texts, identifier)


@every_identifier
def test_probabilities_are_rounded(identifier: str) -> None:
    digits = IDENTIFIERS[identifier].digits
    assert all(
        round(value, digits) == value for _, value in identify([text[:9] for text in TEXTS.values()], identifier)
    )


def test_two_languages_equally_probable() -> None:
    """A text with nothing that the model has seen: every language is as probable."""
    assert identify(["the"], "py3langid") == [(UNDETERMINED, 0.0)]


def test_varieties_are_their_language() -> None:
    """py3langid tells Cantonese from Chinese, has Norwegian where lingua has Bokmål, and a class for no language."""
    codes = IDENTIFIERS["py3langid"].codes()
    assert {"zh", "ar", "he", "nb", "nn", "de"} <= codes
    assert not codes & {"yue", "wuu", "ary", "arz", "hbo", "no", "zxx", UNDETERMINED}
    [(cantonese, confidence)] = identify(["我喜欢吃苹果"], "py3langid")
    assert cantonese == "zh"
    assert confidence > 0.8  # the probabilities of both together; each alone is below 0.5
    assert identify(["Det er en norsk setning om været i dag."], "py3langid")[0][0] == "nb"


def test_text_in_no_language() -> None:
    """py3langid's class for it, with another probability than the rest."""
    ranking = IDENTIFIERS["py3langid"].rank(["xkcd qwrtp zzzz"])[0]
    assert ranking[0][0] == UNDETERMINED
    assert ranking[0][1] > ranking[1][1]
    assert identify(["xkcd qwrtp zzzz"], "py3langid") == [(UNDETERMINED, 0.0)]


@every_identifier
def test_known_languages(identifier: str) -> None:
    assert all(knows(language, identifier) for language in TEXTS)
    assert not any(knows(language, identifier) for language in ("xx", "", "zh_tw", UNDETERMINED))


def test_what_only_one_identifier_knows() -> None:
    assert knows("mi")
    assert not knows("mi", "py3langid")
    assert knows("gl", "py3langid")
    assert not knows("gl")


@every_identifier
def test_installed(identifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed(identifier)
    monkeypatch.setitem(sys.modules, IDENTIFIERS[identifier].package, None)
    assert not installed(identifier)


@pytest.mark.parametrize("ask", [lambda name: identify(["a"], name), lambda name: knows("en", name), installed])
def test_unknown_identifier(ask) -> None:
    with pytest.raises(UserError, match=r"metrics\.identifiers: 'cld9' is no language id.*from lingua, py3langid\."):
        ask("cld9")


@pytest.mark.parametrize("ask", [lambda name: identify(["a"], name), lambda name: knows("en", name)])
@pytest.mark.parametrize(("name", "pip"), [("lingua", "lingua-language-detector"), ("py3langid", "py3langid")])
def test_identifier_that_is_not_installed(ask, name: str, pip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"'{name}' is not installed\. Install it \(pip install {pip}\)"):
        ask(name)


def test_notes_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    say_once.cache_clear()
    for message in ("one", "two", "one"):
        say_once(message)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "note: one\nnote: two\n")
