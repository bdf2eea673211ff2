"""Which fonts a document needs: those that come along, those that the config names, and those of the system.

Typst carries Libertinus Serif and DejaVu Sans Mono, matplotlib DejaVu Sans: Latin letters with all their marks, so
those of Turkish and Vietnamese, Greek, Cyrillic, Arabic and more. For what these do not have, Chinese and Japanese
above all, fonts are looked for, as few as possible. What no font has is replaced by words that say so, never by boxes.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import typst
from fontTools.ttLib import TTFont, TTLibError

from langneurons.errors import ConfigError

WITHOUT_GLYPH = ("Cc", "Cf", "Zs", "Zl", "Zp")
"""Categories of characters that leave no trace on paper."""
SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
"""They choose a variant of the character before them, and have no glyph of their own."""
LAST_RESORT = "lastresort"
"""A font whose glyphs say only of which kind a character is; matplotlib has it."""
FAMILIES = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}
"""What scripts are called, by the first word of their characters' names; others by that word."""


@dataclass(frozen=True)
class Fonts:
    """The fonts of a document."""

    files: tuple[Path, ...]
    missing: frozenset[str]
    """Characters that none of them has."""


def bundled() -> list[Path]:
    """The files of DejaVu Sans that come with matplotlib."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return sorted(path for path in folder.glob("DejaVuSans*.ttf") if "Display" not in path.name)


def system() -> list[Path]:
    """Font files of this system, by name."""
    found = typst.Fonts(include_system_fonts=True, include_embedded_fonts=False).fonts()
    return sorted({Path(font.path) for font in found if font.path}, key=lambda path: (path.name, str(path)))


def named(paths: Sequence[str]) -> list[Path]:
    """The font files that the config names, of folders all.

    Args:
        paths: of files or folders, the key report.fonts.

    Raises:
        ConfigError: no font in a folder, or a file that is no font.
    """
    found: list[Path] = []
    for place, name in enumerate(paths):
        path, key = Path(name), f"config key 'report.fonts[{place}]'"
        if path.is_dir():
            files = _readable(path)
            if not files:
                raise ConfigError(f"{key}: the folder {name} has no font that can be read (.ttf, .otf, .ttc).")
            found += files
            continue
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / path.name).symlink_to(path.resolve())
            if not _readable(Path(folder)):
                raise ConfigError(f"{key}: {name} is no font that can be read. Name another file (.ttf, .otf, .ttc).")
        found.append(path)
    return found


def _readable(folder: Path) -> list[Path]:
    """The font files of a folder that can be set."""
    found = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[folder]).fonts()
    return sorted({Path(font.path) for font in found if font.path})


def coverage(path: Path) -> frozenset[int]:
    """The code points that a font, of a collection the first, has glyphs for; none if the file cannot be read."""
    try:
        with TTFont(str(path), fontNumber=0, lazy=True) as font:
            return frozenset(font.getBestCmap() or {})
    except (TTLibError, OSError, KeyError, AssertionError, ValueError):
        return frozenset()


def printed(text: str) -> set[str]:
    """The characters of a text that need a glyph."""
    return {
        character
        for character in set(text)
        if unicodedata.category(character) not in WITHOUT_GLYPH and ord(character) not in SELECTORS
    }


def choose(characters: Iterable[str], own: Sequence[Path] = (), others: Iterable[Path] | None = None) -> Fonts:
    """Fonts that have all of some characters, as far as there are such.

    Args:
        characters: that are to be printed.
        own: font files that are used in any case, before all others.
        others: font files to choose from where these and the bundled ones do not suffice; None: those of the system,
            which are read only then. One that has all that is missing is taken; without such a one, first that with
            most of it.
    """
    files, missing = [*own, *bundled()], set(characters)
    for path in files:
        missing = _without(missing, coverage(path))
    if missing:
        found = _enough(missing, sorted(system() if others is None else others, key=_rank))
        for path, covered in found:
            files.append(path)
            missing = _without(missing, covered)
    return Fonts(tuple(files), frozenset(missing))


def _rank(path: Path) -> tuple[bool, bool, str, str]:
    """Upright fonts of normal weight first, and of them those without serifs, which small print is best read in."""
    name = path.name.lower()
    return "regular" not in name, "sans" not in name, path.name, str(path)


def _enough(missing: set[str], paths: Sequence[Path]) -> list[tuple[Path, frozenset[int]]]:
    """Font files, with what they cover, that together have as many of some characters as all of them have."""
    candidates: list[tuple[Path, frozenset[int]]] = []
    for path in paths:
        if LAST_RESORT not in path.name.lower():
            candidates.append((path, coverage(path)))
            if not _without(missing, candidates[-1][1]):
                return candidates[-1:]
    chosen = []
    while missing and candidates:
        best = min(candidates, key=lambda candidate: len(_without(missing, candidate[1])))
        left = _without(missing, best[1])
        if left == missing:
            break
        chosen.append(best)
        missing = left
    return chosen


def _without(characters: set[str], covered: frozenset[int]) -> set[str]:
    return {character for character in characters if ord(character) not in covered}


def script(character: str) -> str:
    """What the script of a character is called, roughly."""
    if unicodedata.category(character).startswith("S"):
        return "symbols"
    first = unicodedata.name(character, "unnamed").split("-")[0].split(" ")[0]
    return FAMILIES.get(first, first.capitalize())


def summarise(text: str, missing: frozenset[str]) -> list[tuple[str, int]]:
    """Of the characters of a text without a glyph: how many of each script, the most frequent first."""
    return Counter(script(character) for character in text if character in missing).most_common()
