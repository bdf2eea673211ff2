"""Figures of tables with numbers that are none: drawn with a dash, a symbol or words for them, or a notice why not."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from langneurons.report import figures
from unit import test_figures
from unit.bad_tables import NO_NUMBER, complete, drawn, metrics, saved, with_value
from unit.report_cases import convergence

PAIRS = [(name, table) for name, drawing in figures.FIGURES.items() for table in drawing.tables if metrics(table)]
NO_RATIO = "No perplexity ratio of this is known."
NO_SHARE = "How many answers are in the language that they were steered to is not known."
RATE = "Which share of the neurons was switched off is not known."


def numbers_of(table: str) -> list[str]:
    """The columns that may be without numbers: of settings the rate alone."""
    return ["top_rate"] if table in ("thresholds", "variants") else metrics(table)


@pytest.mark.parametrize(("name", "table"), PAIRS)
def test_no_figure_fails(name: str, table: str) -> None:
    """Without any number in one row, and in all rows; none is written as Python would."""
    for where in ("one", "all"):
        texts = drawn(name, **{table: with_value(table, numbers_of(table), where=where)})
        assert texts, where
        assert not [text for text in texts if NO_NUMBER.search(text)], where


@pytest.mark.full
@pytest.mark.parametrize(("name", "table"), PAIRS)
def test_no_figure_fails_for_any_column(name: str, table: str) -> None:
    """The same for every column alone, saved: which number is missing makes no difference."""
    for chosen in [numbers_of(table), *([column] for column in numbers_of(table))]:
        texts = saved(name, **{table: with_value(table, chosen)})
        assert texts, chosen
        assert not [text for text in texts if NO_NUMBER.search(text)], chosen


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_without_any_number_can_be_saved(name: str) -> None:
    """Numbers that are none reach the layout and the file: no table of the figure has any."""
    tables = {table: with_value(table, numbers_of(table)) for table in figures.FIGURES[name].tables if metrics(table)}
    texts = saved(name, **tables)
    assert texts
    assert not [text for text in texts if NO_NUMBER.search(text)]


@pytest.mark.parametrize(
    ("name", "table", "column", "one", "every"),
    [
        ("layer_profile", "neurons_by_layer", "neurons", "not known", "How many neurons there are is not known."),
        ("neuron_overlap", "overlaps", "shared", "–", "–"),
        ("neuron_overlap", "overlaps", "neurons", "–", "–"),
        ("method_overlap", "convergence", "jaccard", "–", "–"),
        ("method_overlap", "convergence", "expected", "chance –", "chance –"),
        ("language_effects", "differences", "difference", "not measured", NO_RATIO),
        ("language_effects", "effects", "edited_neurons", "neurons of en (–)", "neurons of de (–)"),
        ("rate_curve", "perplexity", "ratio", "–", NO_RATIO),
        ("rate_curve", "effects", "edited_neurons", "en: – neurons", "de: – neurons"),
        ("rate_curve", "variants", "top_rate", "1%", RATE),
        ("perplexity_ratio", "perplexity", "ratio", "–", "–"),
        ("perplexity_spread", "perplexity", "ratio", "not measured: en", NO_RATIO),
        ("steering_success", "steering", "share", "–", NO_SHARE),
        ("output_languages", "output_languages", "share", "–", "–"),
    ],
)
def test_what_is_not_known_is_said(name: str, table: str, column: str, one: str, every: str) -> None:
    before = drawn(name)
    some = drawn(name, **{table: with_value(table, [column], where="one")})
    assert one in some
    assert one not in before or name == "rate_curve"  # whose axis has the rates that are left
    assert every in drawn(name, **{table: with_value(table, [column])})
    assert every not in before


@pytest.mark.parametrize(
    ("name", "table", "column", "text"),
    [
        ("language_effects", "differences", "difference", "∞"),
        ("rate_curve", "perplexity", "ratio", "∞"),
        ("perplexity_ratio", "perplexity", "ratio", "∞"),
        ("perplexity_spread", "perplexity", "ratio", "∞: en"),
    ],
)
def test_infinite_numbers(name: str, table: str, column: str, text: str) -> None:
    texts = drawn(name, **{table: with_value(table, [column], math.inf, "one")})
    assert text in texts
    assert not [text for text in texts if NO_NUMBER.search(text)]
    every = drawn(name, **{table: with_value(table, [column], math.inf)})
    assert {"∞", NO_RATIO} & set(every)


def test_infinite_draws() -> None:
    table = complete()["perplexity"]
    table = table.assign(ratio=table["ratio"].where(table["variant"] != "random", math.inf))
    assert "max ∞" not in drawn("perplexity_ratio")
    assert "∞" in drawn("perplexity_ratio", perplexity=table)
    effects = complete()["differences"]
    effects = effects.assign(difference=effects["difference"].where(effects["variant"] != "random", 1000.0))
    assert "∞" in drawn("language_effects", differences=effects)


def test_an_interval_without_a_bound_is_not_drawn() -> None:
    """And an interval that rounding turned around is drawn without length."""
    table = complete()["steering"]
    figure = figures.steering_success(table.assign(low=math.nan), complete()["variants"], ["en", "de"])
    (lengths,) = {tuple(map(len, line.get_segments())) for line in figure.axes[0].collections[:1]}
    reach = [segment[:, 1] for line in figure.axes[0].collections[:1] for segment in line.get_segments()]
    assert lengths
    assert all(low == high for low, high in reach)
    turned = table.assign(low=table["share"] + 1e-17, high=table["share"])
    assert "en → de" in drawn("steering_success", steering=turned)


# -- languages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "table", "text"),
    [
        ("layer_profile", "neurons_by_layer", "not compared"),
        ("method_overlap", "convergence", "not compared"),
        ("language_effects", "differences", "not measured"),
        ("perplexity_ratio", "perplexity", "–"),
        ("perplexity_spread", "perplexity", "not measured: de"),
        ("rate_curve", "perplexity", "–"),
        ("output_languages", "output_languages", "–"),
    ],
)
def test_an_empty_language(name: str, table: str, text: str) -> None:
    full = complete()[table]
    texts = drawn(name, **{table: full[full["language"] != "de"]})
    assert text in texts
    assert text not in drawn(name)
    assert [words for words in texts if "de" in words.replace(":", " ").split()]  # it keeps its panel or its row


def test_layers_of_a_language_without_numbers() -> None:
    """Of one method and few layers, grouped bars: a dash for each, not a bar of no height."""
    table = test_figures.by_layer(["en"], 3)
    figure = figures.layer_profile(table, test_figures.thresholds("lape"), ["en", "de"])
    texts = [text.get_text() for text in figure.subfigs[0].axes[0].texts]
    assert texts == ["0", "1", "2", "", "", "", "–", "–", "–"]
    many = test_figures.by_layer(["en"], 40)
    panels = figures.layer_profile(many, test_figures.thresholds("lape"), ["en", "de"]).subfigs[0].axes
    assert [axes.get_title() for axes in panels] == ["en: 780 neurons", "de: not known how many neurons"]


def test_overlaps_of_a_language_that_is_missing() -> None:
    table = test_figures.overlaps(["en", "de"])
    figure = figures.neuron_overlap(table, ["en", "de", "tr"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["10", "5", "–", "5", "20", "–", "–", "–", "–"]


def test_methods_that_share_no_language_with_the_run() -> None:
    figure = figures.method_overlap(convergence(languages=["tr"]), ["en", "de"])
    assert [text.get_text() for axes in figure.axes[:2] for text in axes.texts] == ["not compared"] * 2


def test_one_share_that_is_not_known_is_no_zero() -> None:
    table = complete()["output_languages"]
    unknown = table["perturbation"] == "deactivate-en"
    shares, _ = figures.language_shares(table.assign(share=table["share"].mask(unknown)), ["en", "de"])
    assert shares.loc[("deactivate-en", "en")].isna().any()
    assert shares.loc[("deactivate-de", "en")].tolist() == [1.0, 0.0]


# -- no neurons --------------------------------------------------------------------------------------------------------


def test_no_neuron_was_selected() -> None:
    table = complete()["neurons_by_layer"].assign(neurons=0)
    assert drawn("layer_profile", neurons_by_layer=table) == ["No neuron was selected."]
    empty = complete()["overlaps"].assign(neurons=0, other_neurons=0, shared=0, jaccard=math.nan)
    assert drawn("neuron_overlap", overlaps=empty).count("0") >= 4
    none = complete()["convergence"].assign(neurons=0, other_neurons=0, shared=0, jaccard=math.nan, expected=0.0)
    assert "–" in drawn("method_overlap", convergence=none)
    edits = complete()["effects"].assign(edited_neurons=0)
    assert "neurons of de (0)" in drawn("language_effects", effects=edits)
    assert "en: 0 neurons" in drawn("rate_curve", effects=edits)


def test_no_neuron_of_one_language_was_selected() -> None:
    table = complete()["neurons_by_layer"]
    texts = drawn(
        "layer_profile", neurons_by_layer=table.assign(neurons=table["neurons"].mask(table["language"] == "de", 0))
    )
    assert texts.count("0") > drawn("layer_profile").count("0")
    assert not [text for text in texts if NO_NUMBER.search(text)]


@pytest.mark.parametrize("name", figures.FIGURES)
def test_tables_without_columns_and_without_rows(name: str) -> None:
    """One after the other, and all of them: a figure, or a notice that is a sentence."""
    tables = figures.FIGURES[name].tables
    for table in tables:
        for changed in (pd.DataFrame(), complete()[table].iloc[:0]):
            assert drawn(name, **{table: changed})
    (notice,) = drawn(name, **dict.fromkeys(tables, pd.DataFrame()))
    assert notice.endswith(".")
