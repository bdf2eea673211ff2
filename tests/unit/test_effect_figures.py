"""Figures of effects, steering and methods: the drawn values, readable for few and many languages and variants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from langneurons.report import effect_figures, figures, looks, neuron_figures, steering_figures
from unit.report_cases import (
    CATALOGUE,
    LANGUAGES,
    convergence,
    differences,
    perplexity,
    steering,
    variant_settings,
    with_controls_by_activity,
)

SEVEN = ["en", "zh", "fr", "es", "vi", "id", "ja"]
THRESHOLDS = pd.DataFrame({"method": ["lape", "lape-top-0.1"], "top_rate": [0.05, 0.1]})
EDITS = pd.DataFrame(
    {"perturbation": ["deactivate-en", "deactivate-de", "deactivate-rate-0.1-en"], "edited_neurons": [1200, 9, 2400]}
)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def ticks_of(axes: Axes, axis: str = "y") -> list[str]:
    return [label.get_text() for label in (axes.get_yticklabels() if axis == "y" else axes.get_xticklabels())]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def dots(axes: Axes) -> list[tuple[float, float]]:
    """Places of all scattered dots, rounded."""
    groups = [group for group in axes.collections if isinstance(group, PathCollection)]
    places = [place for group in groups for place in np.asarray(group.get_offsets())]
    return [(round(float(x), 4), round(float(y), 4)) for x, y in places]


def controlled() -> pd.DataFrame:
    return differences(with_controls_by_activity(perplexity(), 1.2, 1.3))


# -- effects with intervals --------------------------------------------------------------------------------------------


def drawn_effects(table: pd.DataFrame, languages: Sequence[str] = LANGUAGES) -> Figure:
    return effect_figures.language_effects(table, variant_settings(), THRESHOLDS, EDITS, languages)


def test_effects_are_ratios_of_the_own_language_of_others_and_of_both_controls() -> None:
    figure = drawn_effects(controlled())
    english = figure.axes[0]
    labels = ["read its text", "read other texts", "random, same layers (2)", "random, as active (2)"]
    assert ticks_of(english) == labels
    assert english.get_title() == "neurons of en (1,200)"
    # The own ratio, that of de, each draw and their mean.
    assert dots(english) == [(1.5, 0), (1.1, 1), (1.02, 2), (1.06, 2), (1.04, 2), (1.2, 3), (1.3, 3), (1.25, 3)]
    assert english.get_xscale() == "log"


def test_effects_have_their_intervals() -> None:
    lines = {tuple(np.round(line.get_xdata(), 3)) for line in drawn_effects(controlled()).axes[0].lines}
    assert (round(1.5 * math.exp(-0.1), 3), round(1.5 * math.exp(0.1), 3)) in lines
    assert (round(1.1 * math.exp(-0.1), 3), round(1.1 * math.exp(0.1), 3)) in lines
    few = controlled().assign(low=math.nan, high=math.nan)
    assert len(drawn_effects(few).axes[0].lines) == 1  # the line at 1
    assert len(dots(drawn_effects(few).axes[0])) == 8


def test_effects_of_other_rates_and_measures_are_left_out() -> None:
    other = controlled().assign(variant="deactivate-rate-0.1", difference=3.0)
    assert dots(drawn_effects(pd.concat([controlled(), other])).axes[0]) == dots(drawn_effects(controlled()).axes[0])


def test_effects_without_controls() -> None:
    table = controlled()
    figure = drawn_effects(table[table["kind"] == "deactivate"])
    assert ticks_of(figure.axes[0]) == ["read its text", "read other texts"]
    assert "one draw" not in legend_of(figure)


def test_an_effect_that_was_not_measured_is_said() -> None:
    table = controlled()
    table = table[~((table["perturbation"] == "deactivate-de") & (table["language"] == "de"))]
    assert texts(drawn_effects(table)) == ["not measured"]


def test_effects_of_seven_languages_stand_in_two_columns() -> None:
    table = controlled()
    parts = [
        table.assign(
            edited_language=own, language=table["language"].map({"en": own, "de": "fr" if own == "en" else "en"})
        )
        for own in SEVEN
    ]
    figure = drawn_effects(pd.concat(parts)[lambda rows: rows["perturbation"].str.contains("-en")], SEVEN)
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 7
    assert figure.get_size_inches()[0] < 10
    assert figure.get_size_inches()[1] < 9


def test_without_perplexity_there_is_a_notice() -> None:
    table = controlled()
    answers_only = drawn_effects(table[table["measure"] == "prompt_language"])
    assert answers_only.texts[0].get_text() == looks.NOTHING_READ
    assert drawn_effects(table[table["kind"] == "random"]).texts[0].get_text() == looks.NOTHING_EDITED


# -- how the effect grows ----------------------------------------------------------------------------------------------


def rated() -> pd.DataFrame:
    """At 10 % the logarithm of every ratio is twice that at 5 %, and one draw more."""
    table = perplexity()
    twice = table[table["kind"] != "none"].assign(ratio=table["ratio"] ** 2)
    names = {"deactivate": "deactivate-rate-0.1", "random": "random-rate-0.1"}
    return pd.concat([table, twice.assign(variant=twice["variant"].map(names))])


def curves(table: pd.DataFrame, languages: Sequence[str] = LANGUAGES) -> Figure:
    return effect_figures.rate_curve(table, variant_settings(), THRESHOLDS, EDITS, languages)


def test_curves_of_the_own_language_and_the_largest_other() -> None:
    english = curves(rated()).axes[0]
    drawn = [(list(line.get_xdata()), [round(float(value), 4) for value in line.get_ydata()]) for line in english.lines]
    rates = [0.05, 0.1]
    assert (rates, [1.5, 2.25]) in drawn
    assert (rates, [1.1, 1.21]) in drawn
    assert (rates, [1.04, round((1.02**2 + 1.06**2) / 2, 4)]) in drawn  # mean of the draws
    assert ticks_of(english, "x") == ["5%", "10%"]
    assert english.get_title() == "en: 1,200, 2,400 neurons"


def test_band_of_the_draws_reaches_from_the_smallest_to_the_largest() -> None:
    (band,) = curves(rated()).axes[0].collections
    corners = {tuple(np.round(corner, 4)) for corner in band.get_paths()[0].vertices}
    assert {(0.05, 1.02), (0.05, 1.06), (0.1, round(1.02**2, 4)), (0.1, round(1.06**2, 4))} <= corners


def test_curves_without_draws_at_one_rate() -> None:
    table = rated()
    english = curves(table[table["variant"] != "random-rate-0.1"]).axes[0]
    assert any(list(line.get_xdata()) == [0.05] for line in english.lines)


def test_one_rate_alone_is_said() -> None:
    figure = curves(perplexity())
    assert not figure.axes
    assert "Only one share of the neurons was switched off: 0.05 of all (lape)." in figure.texts[0].get_text()


def test_curves_are_of_one_method_and_site() -> None:
    others = {"probed": {"kind": "deactivate", "method": "probe", "top_rate": 0.1}}
    table = perplexity()
    probed = table[table["variant"] == "deactivate"].assign(variant="probed")
    figure = effect_figures.rate_curve(
        pd.concat([table, probed]), variant_settings(**others), THRESHOLDS, EDITS, LANGUAGES
    )
    assert "Only one share" in figure.texts[0].get_text()


def test_many_rates_are_labelled_where_there_is_room() -> None:
    table, rates = perplexity(), [0.01, 0.02, 0.03, 0.07, 0.1, 0.13]
    off = table[table["variant"] == "deactivate"]
    sweep = {"fine": {"kind": "deactivate", "top_rate": rates}}
    parts = [table, *(off.assign(variant=f"fine-{rate:g}") for rate in rates)]
    figure = effect_figures.rate_curve(pd.concat(parts), variant_settings(**sweep), THRESHOLDS, EDITS, LANGUAGES)
    labels = [label for label in ticks_of(figure.axes[0], "x") if label]
    assert labels[0] == "1%"
    assert len(labels) < len(rates) + 1


# -- steering ----------------------------------------------------------------------------------------------------------


def test_steering_beside_its_control_and_the_baseline() -> None:
    figure = steering_figures.steering_success(steering(), variant_settings(), LANGUAGES)
    (axes,) = figure.axes
    heights = [round(bar.get_height(), 4) for bar in axes.patches if isinstance(bar, Rectangle)]
    assert heights == [5.0] * 3 + [60.0] * 3 + [10.0] * 3  # all together, en to de, de to en
    assert ticks_of(axes, "x") == ["all 2\ntogether", "en → de", "de → en"]
    assert legend_of(figure) == ["not perturbed", "steer", "random-steer"]
    (first, *_) = [bar for bar in axes.containers if hasattr(bar, "has_yerr") and bar.has_yerr]
    ends = first.lines[2][0].get_segments()
    assert [round(float(end), 4) for end in ends[0][:, 1]] == [1.0, 9.0]


def test_shares_without_an_interval_are_drawn_without() -> None:
    figure = steering_figures.steering_success(
        steering().assign(low=math.nan, high=math.nan), variant_settings(), LANGUAGES
    )
    lengths = {
        float(np.ptp(segment[:, 1]))
        for bars in figure.axes[0].containers
        if hasattr(bars, "has_yerr") and bars.has_yerr
        for segment in bars.lines[2][0].get_segments()
    }
    assert lengths == {0.0}


def test_only_the_directions_that_were_steered_are_drawn() -> None:
    """The unperturbed answers are counted over all directions, which is then said."""
    table = steering()
    table = table[(table["variant"] == "none") | (table["target"] != "en")]
    figure = steering_figures.steering_success(table, variant_settings(), LANGUAGES)
    assert ticks_of(figure.axes[0], "x") == ["all 1\ntogether", "en → de"]
    assert legend_of(figure)[0] == "not perturbed (of all directions)"


def test_switching_off_is_no_steering() -> None:
    shares = {"none": 0.05, "deactivate": 0.5, "random": 0.2}
    figure = steering_figures.steering_success(steering(shares), variant_settings(), LANGUAGES)
    assert figure.texts[0].get_text() == steering_figures.NOTHING_STEERED


def test_many_languages_get_all_directions_together_and_heat_maps() -> None:
    shares = {"none": 0.02, "steer": 0.6, "random-steer": 0.1, "steer-residual": 0.9}
    figure = steering_figures.steering_success(steering(shares, SEVEN), variant_settings(), SEVEN)
    bars, baseline, best = figure.axes[:3]
    assert ticks_of(bars) == ["not perturbed", "steer", "steer-residual"]
    assert legend_of(figure) == ["neurons steered", "residual stream shifted", "its random control"]
    assert baseline.get_title() == "not perturbed"
    assert best.get_title() == "steer-residual, the best of 2"
    assert [text.get_text() for text in best.texts] == ["90"] * 42
    assert [text.get_text() for text in baseline.texts] == ["2"] * 42


def test_of_very_many_variants_the_best_are_drawn() -> None:
    scales = [float(number) for number in range(1, 72)]
    sweep = {"many": {"kind": "steer", "scale": scales}}
    shares = {f"many-{scale:g}": scale / 100 for scale in scales}
    figure = steering_figures.steering_success(steering(shares), variant_settings(**sweep), LANGUAGES)
    assert len(ticks_of(figure.axes[0])) == steering_figures.MAX_ROWS
    assert ticks_of(figure.axes[0])[0] == "many-12"
    assert "the 60 best of 71 variants" in figure.axes[0].get_xlabel()


# -- methods -----------------------------------------------------------------------------------------------------------


def test_overlap_of_methods_beside_chance() -> None:
    figure = neuron_figures.method_overlap(convergence(["lape", "probe", "mean-difference"]), LANGUAGES)
    english = figure.axes[0]
    # 4 shared of 16 in either; by chance 0.25 of the 19.75 that 12 and 8 neurons then are.
    assert [text.get_text() for text in english.texts] == ["25", "chance 1.3"] * 3
    assert ticks_of(english, "x") == ["lape", "probe"]
    assert ticks_of(english) == ["probe", "mean-difference"]
    assert [axes.get_title() for axes in figure.axes[:2]] == LANGUAGES


def test_overlap_of_methods_leaves_single_layers_out() -> None:
    table = convergence()
    table.loc[table["layer"] == 0, "jaccard"] = 1.0
    assert "100" not in texts(neuron_figures.method_overlap(table, LANGUAGES))


def test_empty_sets_have_no_overlap() -> None:
    table = convergence().assign(neurons=0, other_neurons=0, shared=0, jaccard=math.nan, expected=0.0)
    assert texts(neuron_figures.method_overlap(table, LANGUAGES)) == ["–", ""] * 2
    assert figures.plot([table], neuron_figures.method_overlap, LANGUAGES)


def test_one_method_alone_is_said() -> None:
    figure = neuron_figures.method_overlap(convergence().iloc[:0], LANGUAGES)
    assert "Only one method found neurons" in figure.texts[0].get_text()


# -- both ends of what a run can be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("languages", [["en", "de"], SEVEN], ids=["two", "seven"])
def test_figures_fit_the_page(languages: list[str]) -> None:
    """No figure is wider than the page's column of text and figures."""
    every = [name for name in CATALOGUE if "steer" in name]
    shares = steering(dict.fromkeys(["none", *every], 0.5), languages)
    methods = ["lape", "lape-bonus", "mean-difference", "average-precision", "probe"]
    drawn = [
        steering_figures.steering_success(shares, variant_settings(), languages),
        neuron_figures.method_overlap(convergence(methods, languages), languages),
    ]
    for figure in drawn:
        assert figure.get_size_inches()[0] <= 9.8
