"""What the report says of the numbers: every exception is named."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from langneurons.report import choices, findings
from unit.report_cases import (
    LANGUAGES,
    SUMMARY,
    all_tables,
    config_of,
    config_of_kinds,
    neurons,
    page_of,
    perplexity,
    steering,
    variant_settings,
    with_controls_by_activity,
)


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
    assert findings.compare(tables, config_of())[0].verdict == "2 of 3 random draws reach it"


def test_a_control_by_activity_that_reaches_the_effect_is_said() -> None:
    """Above the random draws of the same layers, but not above those that are as active."""
    table = with_controls_by_activity(perplexity(own=1.3), 1.2, 1.35)
    tables, config = {"perplexity": table, **neurons()}, config_of_kinds()
    said = sentences_of(tables, config)
    assert "As many that are about as active multiplied it by 1.275 on average and 1.350 at most (4 draws)." in said
    assert "for en, 1 of 2 random draws as active had at least the effect of its own neurons (up to 1.350" in said
    row = findings.compare(tables, config)[0]
    assert (row.draws, row.active) == ((1.02, 1.06), (1.2, 1.35))
    assert row.verdict == "1 of 2 random draws as active reach it"
    page, _ = page_of(tables=tables, config=config)
    assert page.row(SUMMARY, "tiny", "en")[3:] == ["1.040", "1.060 (2)", "1.275", "1.350 (2)", row.verdict]


def test_an_effect_above_both_controls() -> None:
    table = with_controls_by_activity(perplexity(own=1.5), 1.2, 1.35)
    assert findings.compare({"perplexity": table, **neurons()}, config_of_kinds())[0].verdict == "above all"


def test_other_rates_are_compared_but_not_in_the_summary() -> None:
    table = perplexity()
    rate = table[table["variant"] == "deactivate"].assign(variant="deactivate-rate-0.1", ratio=2.5)
    rate["perturbation"] = rate["perturbation"].str.replace("deactivate", "deactivate-rate-0.1")
    tables, config = {"perplexity": pd.concat([table, rate]), **neurons()}, config_of_kinds()
    assert "2.500" not in sentences_of(tables, config)
    page, _ = page_of(tables=tables, config=config)
    assert [row[1] for row in page.tables[SUMMARY][2:]] == LANGUAGES
    other = page.row("Perplexity with a language's neurons off, other variants", "tiny", "deactivate-rate-0.1", "en")
    assert other[1] == "2.500"


def test_a_variant_that_measures_answers_alone_is_not_called_unmeasured() -> None:
    config = config_of_kinds(spoken={"kind": "deactivate", "measure": ["answers"]})
    tables = {"perplexity": perplexity(), **neurons()}
    assert "spoken" not in {row.variant for row in findings.compare(tables, config)}


def test_steering_is_summed_up() -> None:
    shares = {"none": 0.05, "steer": 0.6, "random-steer": 0.1, "steer-residual": 0.9}
    said = sentences_of(all_tables() | {"steering": steering(shares)}, config_of_kinds())
    assert (
        "when steered to it: 60.0% with steer, 90.0% with steer-residual and 10.0% with random neurons (random-steer), "
        "against 5.0% unperturbed."
    ) in said


def test_other_selections_are_left_to_their_sections() -> None:
    tables = all_tables()
    other = tables["thresholds"].assign(method="probe", selected=1234)
    assert "1,234" not in sentences_of(tables | {"thresholds": pd.concat([tables["thresholds"], other])})


# -- which variants are shown ----------------------------------------------------------------------------------------


DEFAULT = ("lape", 0.05)


def test_default_method_and_rate_are_those_of_the_first_selection() -> None:
    table = pd.DataFrame({"method": ["published", "lape", "probe"], "top_rate": [math.nan, 0.05, 0.1]})
    assert choices.default_of(table) == DEFAULT
    assert choices.default_of(table.iloc[:1]) is None
    assert choices.default_of(pd.DataFrame()) is None


def test_variants_at_the_default_rate() -> None:
    table = variant_settings(
        probed={"kind": "deactivate", "method": "probe"}, product={"kind": "deactivate", "site": "product"}
    )
    assert choices.deactivating(table, DEFAULT) == ["deactivate", "product"]
    assert choices.deactivating(table, ("lape", 0.1)) == ["deactivate-rate-0.1"]
    assert choices.deactivating(table, ("lape", 0.3)) == ["deactivate", "product"]  # those of the first variant
    assert choices.deactivating(table, None) == ["deactivate", "product"]
    assert choices.deactivating(pd.DataFrame(), DEFAULT) == []


def test_controls_of_a_variant() -> None:
    table = variant_settings()
    assert choices.controls(table, ["deactivate"]) == ["random", "random-active"]
    assert choices.controls(table, ["deactivate"], "layer") == ["random"]
    assert choices.controls(table, ["deactivate-rate-0.1", "steer"]) == ["random-rate-0.1", "random-steer"]
    assert choices.controls(table, ["steer-residual"]) == []


def test_of_many_steering_variants_the_best_are_shown() -> None:
    table = variant_settings(sweep={"kind": "steer", "scale": [1, 2, 3]})
    shares = {"steer": 0.1, "steer-residual": 0.2, "sweep-1": 0.3, "sweep-2": 0.9, "sweep-3": 0.8}
    success = steering(shares)
    assert choices.steering(table, success, most=9) == list(shares)
    # The best of neurons, the only shift, and the next best; in the order of the run.
    assert choices.steering(table, success, most=3) == ["steer-residual", "sweep-2", "sweep-3"]
    assert choices.steering(table, success, most=1) == ["sweep-2"]
    assert len(choices.steering(table, pd.DataFrame(), most=2)) == 2


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
    assert page.row(SUMMARY, "tiny", "en") == ["12", "–", "–", "–", "– (0)", "not measured"]


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
