"""Fonts of the PDF: what the bundled ones have, and what is looked for elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from langneurons.errors import ConfigError
from langneurons.report import fonts
from unit.printed import font_file

TURKISH = "çğıöşüÇĞİÖŞÜâîû"
VIETNAMESE = (
    "àáảãạăằắẳẵặâầấẩẫậèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵđ"
    "ÀÁẢÃẠĂẰẮẲẴẶÂẦẤẨẪẬÈÉẺẼẸÊỀẾỂỄỆÌÍỈĨỊÒÓỎÕỌÔỒỐỔỖỘƠỜỚỞỠỢÙÚỦŨỤƯỪỨỬỮỰỲÝỶỸỴĐ"
)


def test_bundled_fonts_have_turkish_and_vietnamese() -> None:
    assert len(set(VIETNAMESE)) == 2 * 67
    chosen = fonts.choose(TURKISH + VIETNAMESE, others=())
    assert chosen == fonts.Fonts(tuple(fonts.bundled()), frozenset())
    assert {path.name for path in chosen.files} >= {"DejaVuSans.ttf", "DejaVuSans-Bold.ttf"}


def test_fonts_are_looked_for_only_where_letters_are_missing(tmp_path: Path) -> None:
    few, most = font_file(tmp_path / "A.ttf", "漢"), font_file(tmp_path / "B.ttf", "漢字か")
    rest, unused = font_file(tmp_path / "C.ttf", "か가"), font_file(tmp_path / "D.ttf", "字")
    others = [few, most, rest, unused]
    assert fonts.choose("abc", others=others).files == tuple(fonts.bundled())
    chosen = fonts.choose("abc漢字か가\u4e00", others=others)
    assert chosen.files == (*fonts.bundled(), most, rest)
    assert chosen.missing == {"\u4e00"}
    assert fonts.choose("漢", others=[]).missing == {"漢"}


def test_named_fonts_come_first(tmp_path: Path) -> None:
    own = font_file(tmp_path / "Own.ttf", "a漢")
    chosen = fonts.choose("a漢", [own], others=[font_file(tmp_path / "Other.ttf", "漢")])
    assert chosen == fonts.Fonts((own, *fonts.bundled()), frozenset())


def test_a_font_of_last_resort_is_none(tmp_path: Path) -> None:
    """matplotlib brings one that has a box for every character there is."""
    last = font_file(tmp_path / "LastResortHE-Regular.ttf", "漢")
    assert fonts.choose("漢", others=[last]).missing == {"漢"}


def test_characters_that_leave_no_trace_need_no_glyph() -> None:
    assert fonts.printed("a\u00a0\n\t\u200b\u200f\ufe0f\U000e0101 b") == {"a", "b"}


def test_missing_characters_are_counted_by_script() -> None:
    text = "漢字漢 かな カ 한 abc 😀"
    missing = frozenset("漢字かなカ한😀")
    assert fonts.summarise(text, missing) == [("Chinese", 3), ("Japanese", 3), ("Korean", 1), ("symbols", 1)]
    assert fonts.summarise("abc", missing) == []


def test_named_files_and_folders(tmp_path: Path) -> None:
    one = font_file(tmp_path / "one.ttf", "漢")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    two = font_file(tmp_path / "folder" / "below" / "two.ttf", "字")
    (tmp_path / "folder" / "readme.txt").write_text("no font")
    assert fonts.named([str(one), str(tmp_path / "folder")]) == [one, two]


def test_what_is_no_font_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"\0\1\0\0 no font")
    with pytest.raises(
        ConfigError, match=r"^config key 'report.fonts\[0\]': the folder .*empty has no font that can be read"
    ):
        fonts.named([str(tmp_path / "empty")])
    with pytest.raises(ConfigError, match=r"^config key 'report.fonts\[1\]': .*broken.ttf is no font that can be read"):
        fonts.named([str(font_file(tmp_path / "one.ttf", "a")), str(broken)])
    assert fonts.coverage(tmp_path / "gone.ttc") == frozenset()
