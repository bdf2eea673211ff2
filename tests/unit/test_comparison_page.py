"""The page of two runs side by side: what it shows, and hostile text."""

from __future__ import annotations

import base64
import hashlib
import math

import numpy as np
import pandas as pd

from langneurons.report import comparison, comparison_page, figures
from unit.comparison_cases import NEURONS, page_of, run_of
from unit.report_cases import SCRIPT, config_of

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[31m'


def test_the_page_shows_values_intervals_and_verdicts() -> None:
    a = run_of(neurons={("tiny", "lape"): NEURONS})
    b = run_of("b", 1.9, config=config_of(seed=7), neurons={("tiny", "lape"): NEURONS.iloc[1:]})
    page, html = page_of(a, b)
    own = "Perplexity of its own text with a language's neurons off, as a multiple of the unperturbed model's"
    shown = ["deactivate-de · de", "perplexity: ratio", "1.5[1.357, 1.658]", "1.9[1.719, 2.1]", "× 1.267", "moved"]
    assert shown in [row[1:] for row in page.tables[own]]
    assert page.row("Keys of the configuration that differ", "seed") == ["0", "7"]
    assert page.row("Language-specific neurons that both runs select", "tiny", "lape", "en")[:4] == [
        "3",
        "2",
        "2",
        "0.667",
    ]
    assert page.row("Numbers by table and verdict", "perplexity")[:3] == ["2", "0", "2"]
    assert "data:image/svg+xml" in html
    assert all(
        value.startswith(("#", "data:")) for _, at in page.tags for key, value in at.items() if key in ("src", "href")
    )


def test_the_page_of_equal_runs_says_so() -> None:
    page, _ = page_of(run_of(), run_of("b"))
    for sentence in ("Nothing moved", "The configurations are equal.", "Both runs have the same rows."):
        assert sentence in page.text
    assert "Numbers that moved" not in page.tables


def test_the_page_without_config_and_with_missing_values() -> None:
    a, b = run_of(config=None), run_of("b")
    b.tables["text"] = b.tables["text"].assign(mean_characters=math.nan)
    page, _ = page_of(a, b)
    assert "A does not hold a config.json" in page.text
    row = page.row("Numbers that are missing (NaN) in one of the runs", "tiny", "none · en")
    assert row == ["text: mean_characters", "100", "–", "–"]


def test_hostile_text_is_escaped() -> None:
    a, b = run_of(), run_of(HOSTILE, config=config_of() | {HOSTILE: HOSTILE})
    for name in ("perplexity", "differences"):
        b.tables[name] = b.tables[name].assign(perturbation=lambda table: table["perturbation"] + HOSTILE)
    b.tables["recordings"] = b.tables["recordings"].assign(device=HOSTILE)
    page, html = page_of(a, b)
    assert "alert(1)" in page.text
    assert [tag for tag, _ in page.tags].count("script") == html.count("<script") == 1  # the page's own
    assert not [at for _, at in page.tags if "onerror" in at]
    assert "\x1b" not in html
    assert "{{ 7 * 7 }}" in page.text
    told = comparison_page.summary(a, b, comparison.compare(a, b), comparison.neuron_sets(a, b))
    assert "\x1b" not in told


def test_its_tables_are_sorted_by_the_script_of_the_report_and_no_other_may_run() -> None:
    """The policy names the checksum of exactly what stands between the tags, and allows nothing else."""
    page, html = page_of(run_of(), run_of("b", 1.9))
    code = html.partition("<script>")[2].partition("</script>")[0]
    assert code == f"\n{SCRIPT}"
    digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
    policy = [at["content"] for tag, at in page.tags if at.get("http-equiv") == "Content-Security-Policy"]
    allowed = f"script-src 'sha256-{digest}'"
    assert policy == [f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {allowed}"]
    classes = {name for _, at in page.tags for name in (at.get("class") or "").split()}
    assert "table" in classes  # what the script looks for first; of the rest there is nothing here
    assert not classes & {"examples", "example"}
    assert not [at for _, at in page.tags if "data-table" in at or at.get("id", "").startswith("data-")]


def test_the_figure_has_a_pair_of_dots_per_language_and_is_limited() -> None:
    a, b = run_of("a", 1.5), run_of("b", 1.9)
    ratios = comparison_page.own_ratios(comparison.compare(a, b), b)
    assert ratios["language"].tolist() == ["en", "de"]
    assert (ratios["verdict"] == "moved").all()
    drawn = comparison_page.ratio_figure(ratios, ["en", "de"])
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["en, moved", "de, moved"]
    places = [float(dots.get_offsets()[0][0]) for dots in drawn.axes[0].collections]
    assert places == [1.5, 1.9, 1.5, 1.9]
    many = pd.concat([ratios.iloc[:1]] * 100, ignore_index=True).assign(distance=np.arange(100.0))
    assert len(comparison_page.ratio_figure(many, ["en", "de"]).axes[0].collections) == 2 * comparison_page.LINES
    assert figures.plot([ratios], comparison_page.ratio_figure, ["en", "de"]).count("<svg") == 1
