"""What the report says of the numbers: every exception is named."""

from __future__ import annotations

import math
from typing import Any

from langneurons.report import findings
from unit.report_cases import LANGUAGES, SUMMARY, all_tables, config_of, neurons, page_of, perplexity


def sentences_of(tables: findings.Tables, config: dict[str, Any] | None = None) -> str:
    config = config or config_of()
    return " ".join(findings.sentences("tiny", findings.compare(tables, config), tables, config))


def test_sentences_of_a_specific_effect() -> None:
    said = sentences_of(all_tables())
    assert "20 of the 400 feed-forward neurons (5.0%) were selected (lape): 12 (en) and 9 (de)." in said
    assert "Some belong to several languages." in said
    assert "by 1.500 (en) and 1.500 (de); that of any other language by at most 1.100." in said
    assert "by 1.040 on average and 1.060 at most (4 draws)." in said
    assert "rose more in the language itself than in every other one and than with every random draw." in said
    assert (
        "90.0% unperturbed, 25.0% with that language's neurons off and 80.0% with as many random neurons off." in said
    )


def test_a_larger_effect_elsewhere_is_said() -> None:
    said = sentences_of({"perplexity": perplexity(own=1.05, other=1.2), **neurons()})
    assert "with the neurons of en off, de changed more (1.200) than en itself (1.050)" in said
    assert "For every language" not in said


def test_a_draw_that_reaches_the_effect_is_said() -> None:
    tables = {"perplexity": perplexity(own=1.3, draws=(1.0, 1.3, 1.4)), **neurons()}
    said = sentences_of(tables)
    assert "for en, 2 of 3 random draws had at least the effect of its own neurons (up to 1.400 against 1.300)" in said
    assert findings.compare(tables, config_of())[0].verdict == "2 of 3 draws reach it"


def test_a_falling_perplexity_is_said() -> None:
    said = sentences_of({"perplexity": perplexity(own=0.9, other=0.8, draws=(0.7,)), **neurons()})
    assert "the perplexity of de did not rise (0.900)" in said


def test_a_language_without_neurons_is_said() -> None:
    tables = {"perplexity": perplexity(), **neurons(en=0)}
    assert "No neuron belongs to en, so nothing was switched off there." in sentences_of(tables)
    assert [row.verdict for row in findings.compare(tables, config_of())] == ["no neurons", "above both"]
    page, _ = page_of(tables=tables)
    assert "No neuron belongs to en" in page.text


def test_missing_ratios_are_not_called_an_effect() -> None:
    table = perplexity()
    table["ratio"] = math.nan
    tables = {"perplexity": table, **neurons()}
    assert "The perplexity with the neurons of en and de off was not measured." in sentences_of(tables)
    page, _ = page_of(tables=tables)
    assert page.row(SUMMARY, "tiny", "en") == ["12", "–", "–", "–", "–", "0", "not measured"]


def test_controls_are_of_the_same_number_of_neurons() -> None:
    variants = {"deactivate": {"kind": "deactivate"}, "random": {"kind": "random", "top_rate": 0.01}}
    config = config_of(perturbations=variants)
    row = findings.compare({"perplexity": perplexity(), **neurons()}, config)[0]
    assert row.draws == ()
    assert row.verdict == "no random control"


def test_without_any_edit() -> None:
    run = {"models": ["tiny"], "languages": LANGUAGES, "perturbations": []}
    page, _ = page_of(config=config_of(run=run), tables=all_tables())
    assert "No language's neurons were switched off" in page.text


def test_many_languages_are_not_listed_one_by_one() -> None:
    values = {"en": 5, "de": 1, "tr": 3, "fi": 4, "sw": 2}
    assert findings.listed(values, str) == "between 1 (de) and 5 (en), median 3 (tr)"
    del values["sw"]
    assert findings.listed(values, str) == "5 (en), 1 (de), 3 (tr) and 4 (fi)"
