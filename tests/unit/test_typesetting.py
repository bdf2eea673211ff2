"""The report for print: all that the page shows, numbered, within the paper, in letters that are there."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from langneurons.report import fonts, page_tree, typesetting
from unit.printed import NO_LETTER, Printed, empty_boxes, font_file, page_with, printed
from unit.report_cases import HOSTILE, all_tables, answers, config_of, full_page, hostile_page, page_of
from unit.test_fonts import TURKISH, VIETNAMESE


@pytest.fixture(scope="module")
def full() -> Printed:
    return printed(full_page()[1])


@pytest.fixture(scope="module")
def hostile() -> Printed:
    return printed(hostile_page()[1])


# -- content ---------------------------------------------------------------------------------------------------------


def test_tables_and_figures_of_the_page_are_numbered(full: Printed) -> None:
    page, html = full_page()
    captions = [caption for caption in page.tables if caption]
    numbers = [int(number) for number in re.findall(r"Table (\d+)\. ", full.text)]
    assert len(captions) == len(numbers) > 15
    assert sorted(numbers) == list(range(1, len(captions) + 1))
    for caption in captions:
        assert re.search(rf"Table \d+\. {re.escape(caption.rstrip('+'))}", full.text), caption
    figures = re.findall(r"Figure (\d+)\. ", full.text)
    assert len(figures) == html.count("<figure>") == 4
    assert [int(number) for number in figures] == [1, 2, 3, 4]


def test_numbers_stand_in_their_rows(full: Printed) -> None:
    assert "tiny en 12 1.500 1.100 (de) 1.040 1.060 (2) above both" in full.text
    assert "en 100.0 300.0 900.0 600.0 1,200.0" in full.text
    assert "deactivate-en 12 2 3e-07 0.5 1.5" in full.text


def test_what_the_page_folds_away_is_an_appendix_with_page_numbers(full: Printed) -> None:
    found = re.search(r"→ Every edit, page (\d+)", full.text)
    assert found is not None
    assert re.search(r"A\.\d+ How it was made sure that every edit took effect: tiny: Every edit", full.text)
    assert "Edits of tiny" in full.pages[int(found[1]) - 1]
    assert "The configuration of this run, defaults filled in" in full.text


def test_the_appendix_names_the_part_that_it_was_folded_in() -> None:
    folded = "<details><summary>{}</summary><p>x</p></details>".format
    columns = f"<div class='columns'><div><h3>one</h3>{folded('a')}</div><div><h3>two</h3></div></div>"
    body = f"<section><h2>First</h2>{columns}{folded('b')}<h3>three</h3>{folded('c')}</section><section><h2>Second</h2>"
    document = page_tree.read(page_with(f"{body}{folded('d')}</section>"))
    assert [(part["place"], part["title"]) for part in document.appendix] == [
        ("First: one", "a"),
        ("First", "b"),
        ("First: three", "c"),
        ("Second", "d"),
    ]


def test_sections_come_in_the_order_of_the_page(full: Printed) -> None:
    names = ["At a glance", "Answers", "Summary", "What was run", "Neurons", "Methods", "Firmness", "Perplexity"]
    assert full.pages[0].startswith("Language-specific neurons")
    assert "At a glance" in full.pages[0]
    assert "Contents" in full.pages[1]
    top = [(title, page) for level, title, page in full.bookmarks() if level == 0]
    numbered = [f"{number} {name}" for number, name in enumerate(names, 1)]
    assert [title for title, _ in top][: len(names)] == numbered
    assert top[-1][0] == "A What the page folds away"
    assert [page for _, page in top] == sorted(page for _, page in top)
    assert all(title in full.pages[page] for title, page in top)


def test_paper_leaves_out_what_only_a_screen_can_do() -> None:
    texts = answers()
    page, html = page_of(tables=all_tables(), texts={"tiny": texts}, config=config_of(report={"examples": 4}))
    assert "On paper there are 3 of each language" in page.text
    paper = printed(html)
    assert "question en-3?" in paper.text
    assert "question en-4?" not in paper.text
    assert "question en-4?" in page.text
    assert "On paper there are 3 of each language" in paper.text
    assert "Skip" not in paper.text
    assert "script" not in paper.text.lower().replace("description", "")


def test_the_same_page_gives_the_same_bytes() -> None:
    document = page_tree.read(full_page()[1])
    chosen = fonts.choose(fonts.printed(page_tree.text_of(document)), others=())
    template = Path(__file__).parents[2] / "report" / "templates" / "print.typ"
    assert typesetting.typeset(document, template, chosen) == typesetting.typeset(document, template, chosen)


# -- letters ---------------------------------------------------------------------------------------------------------


def test_fonts_are_inside(full: Printed) -> None:
    found = full.fonts()
    assert found
    assert all(found.values()), found
    assert any("LibertinusSerif" in name for name in found)


def test_turkish_and_vietnamese_letters_are_drawn() -> None:
    words = " ".join([*TURKISH, *VIETNAMESE])
    paper = printed(page_with(f"<p>{words}</p><table><tbody><tr><td>{words}</td></tr></tbody></table><h2>{words}</h2>"))
    assert words in paper.text
    assert {letter.text for letter in paper.letters()} >= set(TURKISH + VIETNAMESE)
    assert not empty_boxes(paper)


def test_every_letter_of_the_report_is_drawn(full: Printed, hostile: Printed) -> None:
    assert not empty_boxes(full)
    assert not empty_boxes(hostile)


def test_empty_boxes_would_be_seen() -> None:
    """Had nobody replaced letters without a glyph, the test above would find them."""
    ignored = fonts.Fonts(tuple(fonts.bundled()), frozenset())
    assert empty_boxes(printed(page_with("<p>abc 漢字 ế</p>"), ignored)) == {NO_LETTER, "字"}


def test_letters_that_no_font_has_are_said_to_be_missing() -> None:
    paper = printed(page_with("<section><h2>Words</h2></section><section><p>abc 漢字かな def</p></section>"))
    assert "Some characters are not shown. No font here has them: 2 of Chinese, 2 of Japanese." in paper.text
    assert "report.fonts" in paper.text
    assert "abc 2 × Chinese, 2 × Japanese def" in paper.text
    assert not {"漢", "字", "か", "な"} & set(paper.text)
    assert not empty_boxes(paper)


def test_titles_say_so_too() -> None:
    body = "<section></section><section><h2>語 x</h2><details><summary>国 y</summary><p>z</p></details></section>"
    paper = printed(page_with(body).replace("<h1>Title", "<h1>漢字 Title"))
    assert "[2 × Chinese] Title" in paper.text
    assert "A.1 [1 × Chinese] x: [1 × Chinese] y" in paper.text
    assert not empty_boxes(paper)


def test_a_named_font_draws_them(tmp_path: Path) -> None:
    chosen = fonts.choose(fonts.printed("abc漢字"), [font_file(tmp_path / "Own.ttf", "漢字")], others=())
    paper = printed(page_with("<p>abc 漢字</p>"), chosen)
    assert "漢字" in paper.text
    assert "not shown" not in paper.text
    assert not empty_boxes(paper)
    assert all(paper.fonts().values())
    assert any("Own" in name for name in paper.fonts())


# -- hostile text ----------------------------------------------------------------------------------------------------


def test_text_is_never_markup() -> None:
    words = '#panic("x") *bold* _it_ $x^2$ @ref &lt;label&gt; = head #read("report.json") \\u{41} // no /* no */ `raw`'
    first, second = f"<section><h2>{words}</h2><p>{words}</p></section>", f"<section><pre>{words}</pre></section>"
    paper = printed(page_with(first + second))
    assert paper.text.count('#panic("x") *bold* _it_ $x^2$ @ref <label> = head #read("report.json") \\u{41}') >= 3
    assert paper.text.count("// no /* no */ `raw`") >= 3


def test_nothing_leaves_the_paper(full: Printed, hostile: Printed) -> None:
    """5000 letters without a space, in the title, in questions, answers and notes."""
    assert "<script>alert(1)</script>" in hostile.text
    assert HOSTILE.endswith("w" * 5000)
    for document in (full, hostile):
        widths = document.widths()
        outside = [
            (letter.page + 1, letter.text)
            for letter in document.letters(distinct=False)
            if not 20 < letter.left <= letter.right < widths[letter.page] - 20
        ]
        assert not outside[:10]


def test_white_space_of_answers_is_kept() -> None:
    document = page_tree.read(page_with("<p>a \n  b</p><blockquote>a\n  b</blockquote>"))
    assert [node["children"] for node in document.main if isinstance(node, dict)] == [["a b"], ["a\n  b"]]


# -- tables ----------------------------------------------------------------------------------------------------------


def wide_table(columns: int, name: str = "value") -> str:
    head = "".join(f"<th>{name} {number}</th>" for number in range(columns))
    rows = "".join(
        f'<tr><th scope="row">row {row}</th>'
        + "".join(f"<td>{row}.{number:03}</td>" for number in range(columns))
        + "</tr>"
        for row in range(3)
    )
    groups = f'<tr><th></th><th colspan="{columns}" class="rule">all of them</th></tr>'
    return (
        f'<section><div class="table"><table><caption><span>Wide</span></caption><thead>{groups}<tr><th>rows</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def tables_in(page: str) -> list[page_tree.Node]:
    def found(node: object) -> list[page_tree.Node]:
        if isinstance(node, list):
            return [table for child in node for table in found(child)]
        if isinstance(node, dict):
            return [node] if node["tag"] == "table" else found(node["children"])
        return []

    return found(page_tree.read(page).main)


def test_a_table_that_no_page_holds_is_cut_and_keeps_its_labels() -> None:
    parts = tables_in(page_with(wide_table(100)))
    assert len(parts) > 1
    body = [[cell["children"] for cell in part["rows"][1]] for part in parts]
    assert all(cells[0] == ["row 1"] for cells in body)
    assert [cell for cells in body for cell in cells[1:]] == [[f"1.{number:03}"] for number in range(100)]
    assert all([cell["colspan"] for cell in part["head"][0]] == [1, part["columns"] - 1] for part in parts)
    assert parts[1]["caption"][-1] == f" (part 2 of {len(parts)})"
    paper = printed(page_with("<section></section>" + wide_table(100)))
    assert f"Table {len(parts)}. Wide (part {len(parts)} of {len(parts)})" in paper.text
    widths = paper.widths()
    assert max(widths) > min(widths)  # some pages lie across
    assert all(letter.right < widths[letter.page] for letter in paper.letters(distinct=False))


def test_a_table_that_nobody_prints_is_cut_and_says_so() -> None:
    rows = "".join(f"<tr><th>row {number}</th><td>{number}</td></tr>" for number in range(1234))
    (table,) = tables_in(page_with(f"<table><caption>Long</caption><tbody>{rows}</tbody></table>"))
    assert [cell["children"] for cell in table["rows"][-1]] == [["row 499"], ["499"]]
    assert "".join(table["caption"]) == "Long (the first 500 of 1,234 rows; the HTML page has all)"


def test_a_narrow_table_stays_upright() -> None:
    paper = printed(page_with("<section></section>" + wide_table(5)))
    assert len(set(paper.widths())) == 1
    assert "Table 1. Wide" in paper.text
    assert "part 1" not in paper.text


# -- what cannot be set ----------------------------------------------------------------------------------------------


def test_other_pages_are_refused() -> None:
    with pytest.raises(page_tree.PrintError, match=r"The page has no title and no main part. Render it again."):
        page_tree.read("<html><body><p>something else</p></body></html>")
    with pytest.raises(page_tree.PrintError, match="cannot be read"):
        page_tree.read("")
    picture = base64.b64encode(b"png").decode()
    with pytest.raises(page_tree.PrintError, match=r"no SVG inside it \(data:image/png;base64\)"):
        page_tree.read(page_with(f'<figure><div><img src="data:image/png;base64,{picture}"></div></figure>'))


def test_a_broken_picture_is_one_message() -> None:
    picture = base64.b64encode(b"<svg width='10pt'").decode()
    figure = f'<figure><div><img src="data:image/svg+xml;base64,{picture}"></div></figure>'
    page = page_with(f"<section></section><section>{figure}</section>")
    with pytest.raises(page_tree.PrintError, match=r"^The report cannot be set for print: failed to parse SVG"):
        printed(page)


def test_the_script_writes_the_pdf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scripts import print_report

    page, out = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(page_with("<p>abc \U000e0fff \u0378</p>"), encoding="utf-8")
    template = Path(__file__).parents[2] / "report" / "templates" / "print.typ"
    print_report.main(["--page", str(page), "--template", str(template), "--fonts", "--output", str(out)])
    assert out.read_bytes().startswith(b"%PDF-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.pdf"]
    assert "No font here has 2 characters of the PDF (Unnamed)" in capsys.readouterr().err
