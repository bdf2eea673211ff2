"""The report in a real browser, from disk. Needs Debian's chromium and chromium-driver."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from quiet import run_once
from unit.comparison_cases import page_of, run_of
from unit.report_cases import hostile_page
from workflow.conftest import TINY

pytestmark = pytest.mark.system

READABLE = 4.5
"""The contrast that WCAG 2.2 asks of text (success criterion 1.4.3)."""

CONTRASTS = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
for (let node = texts.nextNode(); node; node = texts.nextNode()) {
  const element = node.parentElement;
  if (!node.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
  const [a, b] = [numbers(getComputedStyle(element).color), behind(element)].map(luminance);
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.tagName, node.data.trim().slice(0, 40)]);
}
return found;
"""
ROWS = "return [...arguments[0].tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.innerText)"
TABLE = """
return [...document.querySelectorAll(".table > table")].find((table) => table.caption.innerText.includes(arguments[0]))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The page of the undisturbed experiment after more perturbations, so that it has examples and tables to filter."""
    project = run_once(tmp_path_factory, worker_id)
    project.config["run"]["perturbations"] = TINY["run"]["perturbations"]
    project.config["perturbations"] = TINY["perturbations"]
    page = "results/report/report.html"
    project.run(page)
    return project.folder / page


def open_page(browser: webdriver.Chrome, page: Path, width: int = 1280, dark: bool = False) -> None:
    """Open a file in a window of this width, with every folded part unfolded."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get_log("browser")  # what came before
    browser.get_log("performance")
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((part) => (part.open = true))")


def console(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: webdriver.Chrome) -> list[str]:
    """The addresses that the page asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [message["params"]["request"]["url"] for message in sent]


def test_it_opens_from_disk_without_network(browser: webdriver.Chrome, report: Path) -> None:
    """Nothing is logged, and nothing but the file itself is asked for."""
    open_page(browser, report)
    assert len(browser.find_elements("css selector", "main > section")) >= 8
    assert console(browser) == []
    asked = requests(browser)
    assert asked[0] == report.as_uri()
    assert [address for address in asked[1:] if not address.startswith("data:image/svg+xml;base64,")] == []
    broken = "return [...document.images].filter((image) => !image.naturalWidth).map((image) => image.alt)"
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    assert browser.execute_script(broken) == []


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_its_window(browser: webdriver.Chrome, report: Path, width: int) -> None:
    """Wide tables and figures scroll in their own box; the page itself never does sideways, and no text sticks out."""
    open_page(browser, report, width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    outside = """
    return [...document.querySelectorAll("h1, h2, h3, h4, h5, p, li, dd, dt, figcaption, summary, label, .prompt")]
      .filter((e) => e.checkVisibility() && !e.closest(".table") && e.getBoundingClientRect().right > innerWidth + 0.5)
      .map((e) => e.innerText.slice(0, 60))
    """
    assert browser.execute_script(outside) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast(browser: webdriver.Chrome, report: Path, dark: bool) -> None:
    open_page(browser, report, dark=dark)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 254)")
    found = browser.execute_script(CONTRASTS)
    assert len(found) > 500
    assert [text for text in found if text[0] < READABLE] == []


@pytest.mark.parametrize(
    ("caption", "heading", "number", "count"),
    [
        ("Perplexity of tiny-gpt2", "en", "cells[1]", 7),  # none, two deactivated, four draws
        ("as a multiple of the unperturbed", "in itself", "querySelector('.own')", 2),  # numbers with their intervals
    ],
)
def test_tables_are_sorted_by_numbers(
    browser: webdriver.Chrome, report: Path, caption: str, heading: str, number: str, count: int
) -> None:
    """By the keyboard as well: largest first, smallest first, as before."""
    open_page(browser, report)
    table = browser.execute_script(TABLE, caption)
    button = table.find_element("xpath", f".//thead/tr[last()]/th[normalize-space()='{heading}']/button")
    column = f"return [...arguments[0].tBodies[0].rows].map((row) => parseFloat(row.{number}.innerText))"
    before = browser.execute_script(column, table)
    assert len(before) == count
    header = button.find_element("xpath", "..")
    for order, state in ((sorted(before, reverse=True), "descending"), (sorted(before), "ascending"), (before, None)):
        button.send_keys(Keys.ENTER)
        assert browser.execute_script(column, table) == order
        assert header.get_attribute("aria-sort") == state
    assert console(browser) == []


def test_tables_are_sorted_by_words(browser: webdriver.Chrome, report: Path) -> None:
    """From A, then from Z."""
    open_page(browser, report)
    table = browser.execute_script(TABLE, "Perplexity of tiny-gpt2")
    button = table.find_element("xpath", ".//thead/tr[last()]/th[normalize-space()='perturbation']/button")
    names = sorted(row.split("\t")[0] for row in browser.execute_script(ROWS, table))
    for order in (names, names[::-1]):
        button.click()
        assert [row.split("\t")[0] for row in browser.execute_script(ROWS, table)] == order
    assert console(browser) == []


def test_the_tables_of_a_comparison_are_sorted_and_filtered(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """By the same script, which finds neither examples nor data there."""
    page = tmp_path / "comparison.html"
    page.write_text(page_of(run_of(), run_of("b", 1.9))[1])
    open_page(browser, page)
    table = browser.execute_script(TABLE, "Numbers by table and verdict")
    rows = browser.execute_script(ROWS, table)
    button = table.find_element("xpath", ".//thead/tr[last()]/th[normalize-space()='table']/button")
    button.send_keys(Keys.ENTER)
    assert browser.execute_script(ROWS, table) == sorted(rows) != rows
    field = browser.execute_script("return arguments[0].closest('.table').previousElementSibling", table)
    field.find_element("css selector", "input").send_keys("steering")
    assert [row.split("\t")[0] for row in browser.execute_script(ROWS, table)] == ["steering"]
    assert console(browser) == []


def test_tables_are_filtered(browser: webdriver.Chrome, report: Path) -> None:
    """Rows that hold all words stay, whatever their case and order."""
    open_page(browser, report)
    table = browser.execute_script(TABLE, "Perplexity of tiny-gpt2")
    rows = browser.execute_script(ROWS, table)
    assert len(rows) == 7  # too few to filter
    table = next(
        found
        for found in browser.find_elements("css selector", ".table > table")
        if len(browser.execute_script(ROWS, found)) >= 8
    )
    label = table.find_element("xpath", "../preceding-sibling::label[1]")
    field = label.find_element("tag name", "input")
    rows = browser.execute_script(ROWS, table)
    first, second = rows[0].split("\t")[0], rows[0].split("\t")[1]
    field.send_keys(f"{second.upper()} {first}")
    left = browser.execute_script(ROWS, table)
    assert left == [row for row in rows if first.lower() in row.lower() and second.lower() in row.lower()]
    assert 0 < len(left) < len(rows)
    assert label.find_element("tag name", "output").text == f"{len(left)} of {len(rows)}"
    field.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert browser.execute_script(ROWS, table) == rows


def test_examples_are_browsed_by_prompt(browser: webdriver.Chrome, report: Path) -> None:
    """One prompt at a time, with all of its answers; by list and by buttons, and round from the last to the first."""
    open_page(browser, report)
    group = browser.find_element("css selector", ".examples")
    examples = group.find_elements("css selector", ".example")
    choice = group.find_element("tag name", "select")
    assert len(examples) == len(choice.find_elements("tag name", "option")) > 4
    back, onward = group.find_elements("css selector", ".browse button")

    def shown() -> list[int]:
        return [number for number, example in enumerate(examples) if example.is_displayed()]

    assert shown() == [0]
    assert len(examples[0].find_elements("css selector", ".answer")) == 4  # none, off, its control, steered
    onward.click()
    assert shown() == [1]
    assert choice.get_property("selectedIndex") == 1
    back.click()
    back.click()
    assert shown() == [len(examples) - 1]
    choice.send_keys(Keys.HOME)
    assert shown() == [0]
    assert console(browser) == []


def test_data_of_a_figure_is_one_click_away(browser: webdriver.Chrome, report: Path, tmp_path: Path) -> None:
    open_page(browser, report)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    link = browser.find_element("css selector", 'a[data-table="perplexity"]')
    browser.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", link)
    saved = tmp_path / "perplexity.csv"
    WebDriverWait(browser, 20).until(lambda _: saved.exists() and saved.stat().st_size)
    assert saved.read_bytes() == (report.parents[1] / "tables" / "perplexity.csv").read_bytes()


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_answers_do_no_harm(browser: webdriver.Chrome, tmp_path: Path, width: int) -> None:
    """Markup, words of 5,000 letters, right-to-left text, control characters: shown, not run, and within the page."""
    page = tmp_path / "hostile.html"
    page.write_text(hostile_page()[1], encoding="utf-8")
    open_page(browser, page, width)
    assert console(browser) == []
    assert requests(browser) == [page.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert "<script>alert(1)</script>" in browser.find_element("tag name", "main").text


def test_no_other_script_runs(browser: webdriver.Chrome, report: Path, tmp_path: Path) -> None:
    """Even where one were in the page: its policy forbids it."""
    page = tmp_path / "report.html"
    code = base64.b64encode(b"document.title = 'other'").decode("ascii")
    added = f"<script>document.title = 'other'</script><script src='data:text/javascript;base64,{code}'></script>"
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", f"{added}</body>"), encoding="utf-8")
    open_page(browser, page)
    assert browser.title != "other"
    assert len([message for message in console(browser) if "Content Security Policy" in message]) == 2
