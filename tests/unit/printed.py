"""Reading a PDF as a reader sees it: its words, where its letters are, and which of them are empty boxes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as raw
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from langneurons.report import fonts, page_tree, typesetting

ROOT = Path(__file__).parents[2]
PRINT = ROOT / "report" / "templates" / "print.typ"
SCALE = 4
"""Pixels per point when letters are looked at."""
SAME = 0.24
"""Difference of two pictures up to which they are of the same shape. Of boxes in all sizes of the report at most 0.19
was measured, of Latin, Vietnamese and Chinese letters at least 0.29."""
WITHOUT_GLYPH = "\u3400"
"""A Chinese character, which no bundled font has."""

NO_LETTER = "\ue000"
"""What is read where a PDF does not say which letter a glyph is, as for the first empty box."""


@dataclass(frozen=True)
class Letter:
    page: int
    text: str
    left: float
    right: float
    picture: np.ndarray
    """Grey values, 0 black to 1 white."""


class Printed:
    """A PDF."""

    def __init__(self, content: bytes) -> None:
        self._document = pdfium.PdfDocument(content)
        self.pages = [page.get_textpage().get_text_range() for page in self._document]
        self.text = " ".join(" ".join(self.pages).replace("\u200b", "").replace("\ufffe", "").split())

    def widths(self) -> list[float]:
        return [page.get_width() for page in self._document]

    def bookmarks(self) -> list[tuple[int, str, int]]:
        """Level, title and page, both counted from 0."""
        return [(mark.level, mark.get_title(), mark.get_dest().get_index()) for mark in self._document.get_toc()]

    def letters(self, distinct: bool = True) -> Iterator[Letter]:
        """Letters with their pictures, of each the first, or all without pictures."""
        seen: set[str] = set()
        for number, page in enumerate(self._document):
            words = page.get_textpage()
            drawn: np.ndarray | None = None
            for place in range(words.count_chars()):
                text = words.get_text_range(place, 1) or NO_LETTER
                if not text.strip() or not fonts.printed(text) or (distinct and text in seen):
                    continue
                seen.add(text)
                left, bottom, right, top = words.get_charbox(place)
                if drawn is None and distinct:
                    drawn = np.asarray(page.render(scale=SCALE).to_pil().convert("L")) / 255
                picture = np.ones((1, 1))
                if drawn is not None:
                    height = page.get_height()
                    rows = slice(int((height - top) * SCALE), int(np.ceil((height - bottom) * SCALE)) + 1)
                    picture = drawn[rows, slice(int(left * SCALE), int(np.ceil(right * SCALE)) + 1)]
                yield Letter(number, text, left, right, picture)

    def fonts(self) -> dict[str, bool]:
        """The fonts of the letters: whether the PDF has them inside."""
        found = {}
        for page in self._document:
            for thing in page.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT], max_depth=8):
                font = raw.FPDFTextObj_GetFont(thing)
                size = raw.FPDFFont_GetBaseFontName(font, None, 0)
                name = ctypes.create_string_buffer(size)
                raw.FPDFFont_GetBaseFontName(font, name, size)
                found[name.value.decode()] = raw.FPDFFont_GetIsEmbedded(font) == 1
        return found


def page_with(body: str) -> str:
    """A page of the report with nothing but this."""
    return f"<html><body><header><h1>Title</h1><p>about</p></header><main>{body}</main></body></html>"


def printed(page: str, chosen: fonts.Fonts | None = None) -> Printed:
    """A page of the report, for print; with the bundled fonts unless others are given."""
    document = page_tree.read(page)
    known = chosen or fonts.choose(fonts.printed(page_tree.text_of(document)), others=())
    return Printed(typesetting.typeset(document, PRINT, known))


def empty_boxes(document: Printed) -> set[str]:
    """The letters of which nothing is to be seen but the box that stands for a missing glyph, or nothing at all."""
    boxed = printed(page_with(f"<p>{WITHOUT_GLYPH}</p>"), fonts.Fonts(tuple(fonts.bundled()), frozenset()))
    box = next(letter.picture for letter in boxed.letters() if letter.text == NO_LETTER)
    return {letter.text for letter in document.letters() if unlike(letter.picture, box) < SAME}


def unlike(picture: np.ndarray, box: np.ndarray) -> float:
    """The mean difference of two pictures, each cut to its ink and as large as the second; 0 without any ink."""
    shape, other = _inked(picture), _inked(box)
    if not shape.size:
        return 0.0
    scaled = Image.fromarray((255 * shape).astype("uint8")).resize(other.shape[::-1])
    return float(np.abs(np.asarray(scaled) / 255 - other).mean())


def _inked(picture: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(picture < 0.6)
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] if len(rows) else picture[:0]


def font_file(path: Path, characters: str) -> Path:
    """A font that draws a triangle for each of these characters."""
    names = [".notdef", *(f"letter{number}" for number in range(len(characters)))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in zip(characters, names[1:], strict=True)})
    builder.setupGlyf({name: _triangle(number) for number, name in enumerate(names)})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    name = {"familyName": path.stem, "styleName": "Regular", "fullName": path.stem, "psName": path.stem}
    builder.setupNameTable(name)
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return path


def _triangle(number: int) -> object:
    """A glyph, another one for each number."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    pen.lineTo((900, 0))
    pen.lineTo((500, 800 - 10 * number))
    pen.closePath()
    return pen.glyph()
