"""The page of the report as a tree that can be set for print: its sections, tables, pictures, and what it folds away.

What the page folds away goes into an appendix, and what only a screen can do is left out. How large the letters of a
table are is worked out here.
"""

from __future__ import annotations

import base64
import re
import textwrap
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lxml import etree, html

from langneurons.errors import UserError

Node = dict[str, Any]

LEFT_OUT = ("nav", "script", "style", "head", "header")
SCREEN_ONLY = "screen"
"""The class of what is left out."""
VERBATIM = ("pre", "blockquote")
"""Tags whose white space counts, like that of the class `prompt`."""
KEPT = ("href", "colspan")
"""Attributes that the template reads, beside classes."""
LONGEST_WORD, BREAK_EVERY = 30, 20
"""Words longer than this many characters may be broken after every so many."""
NARROWEST, WIDEST = 11, 26
"""Characters that a line of a heading may have in any case, and beyond which the text of a cell takes several lines."""
LETTER, WIDE_LETTER, INSET = 0.5, 1.0, 0.9
"""Widths in em: a little more than letters and digits take on average, Chinese ones, and the space around a text."""
UPRIGHT, ACROSS = 481.0, 728.0
"""Widths in points of what is set on a page (A4 with margins of 20 mm), upright and lying across."""
SIZE, LEGIBLE, SMALLEST = 8.0, 6.2, 5.5
"""Points of letters in tables: usually, upright at least, and at least."""
MOST_ROWS = 500
"""Rows of a table on paper: of a hundred languages the page has more than anybody prints, and than memory holds."""
TITLES = ("title", "place")
TEXTS = ("children", "caption", "head", "rows", *TITLES)
"""What has words, of a node."""
ZERO_WIDTH_SPACE = "\u200b"


class PrintError(UserError):
    """A page that cannot be set."""


@dataclass
class Document:
    """What is set: the body as `main`, what the page folds away as `appendix`, and the pictures by name."""

    title: str
    subtitle: str
    main: list[Node | str]
    appendix: list[Node]
    """Of `place, title, anchor, children`."""
    images: dict[str, bytes]


# -- the page as a tree ------------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """Turns elements into nodes, and puts aside what belongs elsewhere."""

    images: dict[str, bytes] = field(default_factory=dict)
    appendix: list[Node] = field(default_factory=list)
    section: str = ""
    part: str = ""

    def children(self, element: html.HtmlElement, verbatim: bool = False, folded: bool = False) -> list[Node | str]:
        result: list[Node | str] = list(_text(element.text, verbatim))
        for child in element:
            if isinstance(child.tag, str):
                result += self.nodes(child, verbatim, folded)
            result += _text(child.tail, verbatim)
        return result

    def nodes(self, element: html.HtmlElement, verbatim: bool, folded: bool) -> list[Node | str]:
        """What an element becomes, inside an unfolded part or inside one that the page folds away."""
        tag, classes = str(element.tag), (element.get("class") or "").split()
        if tag in LEFT_OUT or SCREEN_ONLY in classes:
            return []
        if tag == "details" and not folded:
            return [self.fold(element)]
        if tag == "img":
            return [self.image(element)]
        if tag in ("h2", "h3"):
            self.section = _plain(element) if tag == "h2" else self.section
            self.part = _plain(element) if tag == "h3" else ""
        part = self.part
        own = self.children(element, verbatim or tag in VERBATIM or "prompt" in classes, folded)
        self.part = part if tag == "div" else self.part  # a heading inside a division is about nothing after it
        if tag == "table":
            return list(_tables(own))
        kept = {name: element.get(name) for name in KEPT if element.get(name)}
        return [{"tag": tag, "classes": classes, **kept, "children": own}]

    def fold(self, element: html.HtmlElement) -> Node:
        """Put what the page folds away into the appendix; the reference that takes its place."""
        summary = element.find("summary")
        title = _plain(summary) if summary is not None else "Details"
        anchor = f"folded-{len(self.appendix) + 1}"
        if summary is not None:
            element.remove(summary)
        place = ": ".join(dict.fromkeys(part for part in (self.section, self.part) if part))
        entry: Node = {"place": place, "title": title, "anchor": anchor}
        self.appendix.append(entry)
        entry["children"] = self.children(element, folded=True)
        return {"tag": "folded", "title": title, "anchor": anchor}

    def image(self, element: html.HtmlElement) -> Node:
        name = f"figure-{len(self.images) + 1}.svg"
        kind, _, data = (element.get("src") or "").partition(",")
        if kind != "data:image/svg+xml;base64":
            raise PrintError(f"The page has a picture that is no SVG inside it ({kind[:60]}). Render the page again.")
        drawn = base64.b64decode(data).decode("utf-8")
        self.images[name] = re.sub(r"<style>@media.*?</style>", "", drawn, flags=re.DOTALL).encode("utf-8")
        width = re.search(r'<svg\b[^>]*?\swidth="([\d.]+)pt"', drawn)
        return {"tag": "img", "file": name, "alt": element.get("alt") or "", "width": float(width[1]) if width else 480}


def read(page: str) -> Document:
    """What the page shows, for print.

    Args:
        page: the HTML that `render.render` made.

    Raises:
        PrintError: it is not such a page.
    """
    try:
        root = html.document_fromstring(page, parser=html.HTMLParser(huge_tree=True))  # tables of many megabytes
    except (etree.ParserError, ValueError) as error:
        raise PrintError(f"The page cannot be read: {error}. Render it again.") from error
    heading, main = root.find(".//header/h1"), root.find(".//main")
    if heading is None or main is None:
        raise PrintError("The page has no title and no main part. Render it again.")
    subtitle = root.find(".//header/p")
    reader = _Reader()
    body = reader.children(main)
    return Document(
        _breakable(_plain(heading)),
        "" if subtitle is None else _breakable(_plain(subtitle)),
        body,
        reader.appendix,
        reader.images,
    )


def _plain(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def _text(text: str | None, verbatim: bool) -> Iterator[str]:
    if text:
        collapsed = text if verbatim else re.sub(r"[ \t\n\r\f]+", " ", text)
        yield _breakable(collapsed)


def _breakable(text: str) -> str:
    """With places where a line may break in words that might be wider than it."""
    return re.sub(
        rf"\S{{{LONGEST_WORD},}}",
        lambda word: ZERO_WIDTH_SPACE.join(
            word[0][start : start + BREAK_EVERY] for start in range(0, len(word[0]), BREAK_EVERY)
        ),
        text,
    )


# -- tables ------------------------------------------------------------------------------------------------------------


def _tables(own: list[Node | str]) -> Iterator[Node]:
    """A table as `caption, columns, wrapped, size, across, head, rows`; of one that no page can hold, several, each
    with the columns of labels.

    How large the letters are is worked out here: to have Typst measure tables takes as long as to set them.
    """
    parts = {child["tag"]: child for child in own if isinstance(child, dict)}
    caption = parts.get("caption", {"children": []})["children"]
    head = [_cells(row) for row in _rows(parts.get("thead"))]
    there = _rows(parts.get("tbody"))
    rows = [_cells(row) for row in there[:MOST_ROWS]]
    cut = [f" (the first {MOST_ROWS} of {len(there):,} rows; the HTML page has all)"] if len(there) > MOST_ROWS else []
    columns = max((sum(cell["colspan"] for cell in row) for row in head + rows), default=0)
    lengths = _lengths(rows, columns)
    head = [_folded(row, lengths) for row in head]
    widths = _widths(head, rows, columns)
    groups = _groups(widths, _labels(rows))
    for number, group in enumerate(groups, 1):
        kept = [[row[place] for place in group if place < len(row)] for row in rows]
        wrapped = {place for row in kept for place, cell in enumerate(row) if cell["wrap"]}
        width = sum(widths[place] for place in group)
        across = UPRIGHT / width < LEGIBLE if group else False
        which = [f" (part {number} of {len(groups)})"] if len(groups) > 1 else []
        yield {
            "tag": "table",
            "caption": [*caption, *which, *cut],
            "columns": len(group),
            "wrapped": sorted(wrapped),
            "size": max(SMALLEST, min(SIZE, (ACROSS if across else UPRIGHT) / width)) if group else SIZE,
            "across": across,
            "head": [_cut(row, group) for row in head],
            "rows": kept,
        }


def _labels(rows: list[list[Node]]) -> int:
    """How many columns at the left name the rows."""
    counts = [next((place for place, cell in enumerate(row) if cell["kind"] != "th"), len(row)) for row in rows]
    return min(counts, default=0)


def _groups(widths: list[float], labels: int) -> list[list[int]]:
    """Columns that go on a page together, each group after the columns of labels."""
    groups, used = [list(range(labels))], sum(widths[:labels])
    for place in range(labels, len(widths)):
        if used + widths[place] > ACROSS / SMALLEST and len(groups[-1]) > labels:
            groups.append(list(range(labels)))
            used = sum(widths[:labels])
        groups[-1].append(place)
        used += widths[place]
    return groups


def _cut(row: list[Node], group: list[int]) -> list[Node]:
    """The headings above some columns."""
    result, place = [], 0
    for cell in row:
        below = len(set(range(place, place + cell["colspan"])) & set(group))
        place += cell["colspan"]
        if below:
            result.append(cell | {"colspan": below})
    return result


def _lengths(rows: list[list[Node]], columns: int) -> list[int]:
    """The longest text of every column, in characters."""
    lengths = [0] * columns
    for row in rows:
        for place, cell in enumerate(row[:columns]):
            lengths[place] = max(lengths[place], sum(map(len, texts_in(cell["children"]))))
    return lengths


def _folded(row: list[Node], lengths: list[int]) -> list[Node]:
    """Headings in lines about as wide as what is below them, so that they do not widen their columns."""
    folded, place = [], 0
    for cell in row:
        below = lengths[place : place + cell["colspan"]]
        place += cell["colspan"]
        width = max(sum(below) + 2 * (len(below) - 1), NARROWEST)
        texts = cell["children"]
        if all(isinstance(text, str) for text in texts):
            lines = textwrap.wrap("".join(texts), width, break_long_words=False, break_on_hyphens=False)
            cell = cell | {"children": ["\n".join(lines)]}
        folded.append(cell)
    return folded


def _widths(head: list[list[Node]], rows: list[list[Node]], columns: int) -> list[float]:
    """About how wide every column is, in em."""
    widths = [0.0] * columns
    for row in [*head, *rows]:
        place = 0
        for cell in row:
            if cell["colspan"] == 1:
                text = "".join(texts_in(cell["children"]))
                longest = max((_width(line) for line in text.split("\n")), default=0.0)
                widths[place] = max(widths[place], min(longest, WIDEST * LETTER))
            place += cell["colspan"]
    return [width + INSET for width in widths]


def _width(line: str) -> float:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return wide * WIDE_LETTER + (len(line) - wide) * LETTER


def _rows(part: Node | None) -> list[Node]:
    return [child for child in (part or {"children": []})["children"] if isinstance(child, dict)]


def _cells(row: Node) -> list[Node]:
    cells = [child for child in row["children"] if isinstance(child, dict)]
    return [
        {
            "kind": cell["tag"],
            "colspan": int(cell.get("colspan", 1)),
            "text": "text" in cell["classes"],
            "own": "own" in cell["classes"],
            "rule": "rule" in cell["classes"],
            "wrap": "wrap" in cell["classes"],
            "warn": "warn" in cell["classes"],
            "children": cell["children"],
        }
        for cell in cells
    ]


# -- words ------------------------------------------------------------------------------------------------------------


def texts_in(node: Any) -> Iterator[str]:
    """All texts of a tree, in their order."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for child in node:
            yield from texts_in(child)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name in TEXTS:
                yield from texts_in(value)


def text_of(document: Document) -> str:
    """All text of a document."""
    return "\n".join([document.title, document.subtitle, *texts_in(document.main), *texts_in(list(document.appendix))])
