"""The report for print: a PDF of what the page shows.

The page itself is the source, so that paper and screen never tell different things. Texts stay data all the way: no
character of theirs is ever read as markup.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import typst

from langneurons.report import fonts
from langneurons.report.page_tree import TITLES, ZERO_WIDTH_SPACE, Document, Node, PrintError, text_of

RUNNING_TITLE = 80
"""Characters of the title at the head of every page."""


# -- characters that no font has ---------------------------------------------------------------------------------------


def without(node: Any, missing: frozenset[str]) -> Any:
    """A tree in which words stand for characters without a glyph, run by run: in titles in brackets, else as nodes."""
    if isinstance(node, dict):
        return {
            name: _bracketed(value, missing) if name in TITLES else without(value, missing)
            for name, value in node.items()
        }
    if not isinstance(node, list):
        return node
    result: list[Any] = []
    for child in node:
        result += _marked(child, missing) if isinstance(child, str) else [without(child, missing)]
    return result


def _marked(text: str, missing: frozenset[str]) -> list[Node | str]:
    if not missing & set(text):
        return [text]
    pattern = "[" + "".join(re.escape(character) for character in sorted(missing)) + "]+"
    result: list[Node | str] = []
    for part in re.split(f"({pattern})", text):
        if part and part[0] in missing:
            counted = fonts.summarise(part, missing)
            result.append({"tag": "glyphless", "text": ", ".join(f"{number} × {script}" for script, number in counted)})
        elif part:
            result.append(part)
    return result


def _bracketed(title: str, missing: frozenset[str]) -> str:
    return "".join(part if isinstance(part, str) else f"[{part['text']}]" for part in _marked(title, missing))


# -- setting -----------------------------------------------------------------------------------------------------------


def typeset(document: Document, template: Path, chosen: fonts.Fonts) -> bytes:
    """The PDF of a document, with its fonts inside; the same byte for byte whenever the document and the fonts are.

    Args:
        document: what is set.
        template: what sets it, in Typst.
        chosen: fonts for the text of the document, and what they do not have.

    Raises:
        PrintError: the document cannot be set.
    """
    title = _bracketed(document.title, chosen.missing)
    content = {
        "title": title,
        "subtitle": _bracketed(document.subtitle, chosen.missing),
        "running": textwrap.shorten(title.replace(ZERO_WIDTH_SPACE, ""), RUNNING_TITLE, placeholder="…"),
        "main": without(document.main, chosen.missing),
        "appendix": without(document.appendix, chosen.missing),
        "missing": fonts.summarise(text_of(document), chosen.missing),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(template, folder / "report.typ")
        (folder / "report.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        for image, drawn in document.images.items():
            (folder / image).write_bytes(drawn)
        (folder / "fonts").mkdir()
        for number, path in enumerate(chosen.files):
            (folder / "fonts" / f"{number:04}-{path.name}").symlink_to(path.resolve())
        try:
            return typst.compile(
                folder / "report.typ",
                root=folder,
                font_paths=[folder / "fonts"],
                ignore_system_fonts=True,
                pdf_tags=False,  # they take seven times the space; for screen readers there is the page
            )
        except typst.TypstError as error:
            raise PrintError(f"The report cannot be set for print: {error.message}") from error
