"""Question files."""

from __future__ import annotations

from pathlib import Path

import pytest

from langneurons.corpus.prompts import Prompt, read_prompts
from langneurons.errors import CorpusError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tr.txt"
    path.write_text("Bir?\n\n  İki? \n\t\nÜç?\nDört?", encoding="utf-8")
    return path


def test_ids_splits_and_stripped_questions(path: Path) -> None:
    assert read_prompts(path, "tr", 1, "all") == [
        Prompt("tr-001", "valid", "Bir?"),
        Prompt("tr-002", "test", "İki?"),
        Prompt("tr-003", "test", "Üç?"),
        Prompt("tr-004", "test", "Dört?"),
    ]


def test_one_split_keeps_the_ids(path: Path) -> None:
    assert [prompt.id for prompt in read_prompts(path, "tr", 3, "valid")] == ["tr-001", "tr-002", "tr-003"]
    assert [prompt.id for prompt in read_prompts(path, "tr", 3, "test")] == ["tr-004"]
    assert [prompt.id for prompt in read_prompts(path, "tr", 0, "test")] == ["tr-001", "tr-002", "tr-003", "tr-004"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_bytes("\ufeffOne?\r\nTwo?\r\n".encode())
    assert [prompt.question for prompt in read_prompts(path, "en", 0, "all")] == ["One?", "Two?"]


@pytest.mark.parametrize(("validation", "split"), [(4, "test"), (9, "test"), (0, "valid")])
def test_no_question_in_the_split(path: Path, validation: int, split: str) -> None:
    with pytest.raises(CorpusError) as caught:
        read_prompts(path, "tr", validation, split)
    message = str(caught.value)
    assert message.startswith(f"{path}: language 'tr' has no prompts of split '{split}'")
    assert "4 questions" in message
    assert "generation.validation_prompts" in message


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_a_file_without_questions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "en.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"en\.txt: language 'en' has no prompts .*\(0 questions in the file.*one per line"
    ):
        read_prompts(path, "en", 0, "all")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "de.txt"
    path.write_bytes("Warum fällt Regen?".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"de\.txt \(the prompts of language 'de'\): not UTF-8 \(byte 7 is 0xe4\)"):
        read_prompts(path, "de", 0, "all")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"xx\.txt \(the prompts of language 'xx'\): cannot be read \(No such file"):
        read_prompts(tmp_path / "xx.txt", "xx", 0, "all")
