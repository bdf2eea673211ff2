"""Figures: the drawn values, one look per language, and SVG that repeats byte for byte."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from langneurons.report import choices, figures, findings, looks, neuron_figures
from langneurons.report.shares import language_shares
from unit.report_cases import convergence, differences, steering, variant_settings

LANGUAGES = ["en", "de"]
TWELVE = ["en", "de", "tr", "zh", "fr", "es", "vi", "id", "ja", "ar", "fi", "sw"]


def members(languages: Sequence[str], draws: int = 2) -> list[dict[str, object]]:
    """The baseline, one deactivation per language, and random draws."""
    none = {"perturbation": "none", "variant": "none", "kind": "none", "edited_language": np.nan, "draw": np.nan}
    rows = [none]
    for kind, language, draw in product(("deactivate", "random"), languages, range(1, draws + 1)):
        name = f"{kind}-{language}" + (f"-{draw}" if kind == "random" else "")
        row = {"perturbation": name, "variant": kind, "kind": kind, "edited_language": language}
        rows += [row | {"draw": float(draw) if kind == "random" else np.nan}] if kind == "random" or draw == 1 else []
    return rows


def perplexity(languages: Sequence[str] = LANGUAGES) -> pd.DataFrame:
    """Own language 1.5, another 1.1; random draws 1.02 and 1.06; the baseline 1."""
    rows = []
    for member, language in product(members(languages), languages):
        edited = 1.5 if member["edited_language"] == language else 1.1
        drawn = 0.98 + 0.04 * float(member["draw"])  # type: ignore[arg-type]
        ratio = {"none": 1.0, "deactivate": edited, "random": drawn}[str(member["kind"])]
        rows.append(member | {"model": "m", "language": language, "perplexity": 20 * ratio, "ratio": ratio})
    return pd.DataFrame(rows)


def by_layer(languages: Sequence[str], layers: int, methods: Sequence[str] = ("lape",)) -> pd.DataFrame:
    """`layer + place of the language` neurons everywhere; a second method has 100 more."""
    rows = [
        {"model": "m", "method": method, "language": language, "layer": layer, "neurons": layer + place + 100 * extra}
        for extra, method in enumerate(methods)
        for place, language in enumerate(languages)
        for layer in range(layers)
    ]
    return pd.DataFrame(rows)


def answers(languages: Sequence[str] = LANGUAGES) -> pd.DataFrame:
    """Unperturbed all in the prompt's language; edited 70 % in it, 20 % Latin, 10 % undetermined; random by draw."""
    rows = []
    for member, language in product(members(languages), languages):
        shares = {
            "none": {language: 1.0},
            "deactivate": {language: 0.7, "la": 0.2, "undetermined": 0.1},
            "random": {language: 1.0 if member["draw"] == 1 else 0.5, "la": 0.0 if member["draw"] == 1 else 0.5},
        }[str(member["kind"])]
        rows += [
            member | {"model": "m", "language": language, "output_language": name, "share": share}
            for name, share in shares.items()
        ]
    return pd.DataFrame(rows)


def overlaps(languages: Sequence[str], methods: Sequence[str] = ("lape",)) -> pd.DataFrame:
    """Each language has 10 neurons more than the one before; all pairs share 5. Methods share 3 of every language."""
    sizes = {language: 10 * number for number, language in enumerate(languages, 1)}
    rows = [
        {"method": method, "language": one, "other_method": method, "other_language": other}
        | {"neurons": sizes[one], "other_neurons": sizes[other], "shared": 5}
        for method in methods
        for one, other in combinations(languages, 2)
    ]
    rows += [
        {"method": one, "language": language, "other_method": other, "other_language": language}
        | {"neurons": sizes[language], "other_neurons": sizes[language], "shared": 3}
        for one, other in combinations(methods, 2)
        for language in languages
    ]
    table = pd.DataFrame(rows)
    return table.assign(
        model="m", jaccard=table["shared"] / (table["neurons"] + table["other_neurons"] - table["shared"])
    )


def thresholds(*methods: str) -> pd.DataFrame:
    """All at the default rate."""
    return pd.DataFrame({"model": "m", "method": methods, "top_rate": 0.05})


TABLES = {
    "neurons_by_layer": lambda names: by_layer(names, 4),
    "thresholds": lambda names: thresholds("lape"),
    "variants": lambda names: variant_settings(),
    "effects": lambda names: pd.DataFrame({"perturbation": [f"deactivate-{name}" for name in names]}).assign(
        edited_neurons=range(len(names))
    ),
    "overlaps": overlaps,
    "convergence": lambda names: convergence(languages=names),
    "perplexity": perplexity,
    "differences": lambda names: differences(perplexity(names)),
    "steering": lambda names: steering(languages=names),
    "output_languages": answers,
}


def tables_of(name: str, languages: Sequence[str]) -> list[pd.DataFrame]:
    return [TABLES[table](languages) for table in figures.FIGURES[name].tables]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# -- SVG -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("languages", [LANGUAGES, pytest.param(TWELVE, marks=pytest.mark.full)], ids=["two", "twelve"])
def test_svg_is_reproducible_and_self_contained(name: str, languages: list[str]) -> None:
    draw = figures.FIGURES[name].draw
    first, second = (figures.plot(tables_of(name, languages), draw, languages) for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<dc:date>" not in first
    # Text is outlines: no font is needed. References stay inside the file.
    assert not root.findall(".//{http://www.w3.org/2000/svg}text")
    references = [value for element in root.iter() for key, value in element.items() if key.endswith("href")]
    assert references
    assert all(value.startswith("#") for value in references)


@pytest.mark.parametrize("name", [name for name in figures.FIGURES if name != "rate_curve"])
def test_figures_of_twelve_languages_are_drawn(name: str) -> None:
    """A figure, not a notice, as of a curve of one rate. Saved they are in the thorough tests, which takes longer."""
    figure = figures.FIGURES[name].draw(*tables_of(name, TWELVE), TWELVE)
    assert figure.axes or figure.subfigs


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figure_without_rows_says_so(name: str) -> None:
    draw, tables = figures.FIGURES[name].draw, tables_of(name, LANGUAGES)
    assert ElementTree.fromstring(figures.plot([pd.DataFrame()] * len(tables), draw, LANGUAGES)) is not None
    shown = draw(*(table.iloc[:0] for table in tables), LANGUAGES)
    assert len(shown.texts) == 1
    assert not shown.axes


def test_style_does_not_leak() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.plot([perplexity()], figures.perplexity_ratio, LANGUAGES)
    assert dict(mpl.rcParams) == before


# -- looks -----------------------------------------------------------------------------------------------------------


def test_languages_look_different() -> None:
    names = [f"l{index}" for index in range(24)]
    drawn = {(looks.look(name, names).colour, looks.look(name, names).hatch) for name in names}
    assert len(drawn) == 24
    assert looks.look("l3", names) == looks.look("l3", names[:5])
    assert not {looks.look(name, names).colour for name in names} & set(looks.GREYS.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (123456.0, "1e+05"), (math.nan, "–"), (math.inf, "∞")],
)
def test_number(value: float, text: str) -> None:
    assert looks.number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0.99, 1.14), (1.0, 1.05), (0.5, 30.0), (1.0, 4e5)])
def test_ticks_are_few_and_hold_one(low: float, high: float) -> None:
    ticks = looks.ticks(low, high)
    assert 1.0 in ticks
    assert 2 <= len(ticks) <= 10
    assert ticks == sorted(ticks)


def test_text_contrasts_with_its_background() -> None:
    assert looks.readable_on((1.0, 1.0, 1.0)) == "#111111"
    assert looks.readable_on((0.1, 0.0, 0.0)) == "#ffffff"


# -- layers ----------------------------------------------------------------------------------------------------------


def test_layer_profile_draws_the_first_method() -> None:
    table, rates = by_layer(LANGUAGES, 3, ["lape", "lape-top-0.1"]), thresholds("lape")
    figure = figures.layer_profile(table, rates, LANGUAGES)
    heights = [bar.get_height() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert heights == [0, 1, 2, 1, 2, 3]
    assert [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()] == LANGUAGES
    assert len(figure.subfigs) == 1


def test_layer_profile_draws_a_published_mask_too_with_its_own_languages() -> None:
    own, mask = by_layer(LANGUAGES, 3), by_layer(["en", "zh"], 3).assign(method="published")
    figure = figures.layer_profile(pd.concat([own, mask]), thresholds("lape"), LANGUAGES)
    named = [[text.get_text() for text in part.legends[0].get_texts()] for part in figure.subfigs]
    assert named == [["en", "de"], ["en", "zh"]]
    colours = [
        {handle.get_facecolor() for handle in part.legends[0].legend_handles[:1]} for part in figure.subfigs
    ]  # en looks the same in both
    assert colours[0] == colours[1]


def test_overlap_shows_shared_and_own_neurons() -> None:
    figure = figures.neuron_overlap(overlaps(["en", "de", "tr"]), ["en", "de", "tr"])
    assert texts(figure) == ["10", "5", "5", "5", "20", "5", "5", "5", "30"]
    (mesh,) = figure.axes[0].collections
    shares = np.ma.filled(mesh.get_array(), np.nan).reshape(3, 3)
    assert shares[0, 1] == pytest.approx(100 * 5 / 25)  # 10 + 20 - 5 in either
    assert shares[2, 1] == shares[1, 2] == pytest.approx(100 * 5 / 45)
    assert np.isnan(np.diag(shares)).all()


def test_overlap_leaves_out_other_rates_but_not_a_mask() -> None:
    figure = figures.neuron_overlap(overlaps(LANGUAGES, ["lape", "lape-top-0.01"]), LANGUAGES)
    assert [axes.get_title() for axes in figure.axes[:-1]] == ["lape"]
    figure = figures.neuron_overlap(overlaps(LANGUAGES, ["lape", "published"]), LANGUAGES)
    assert [axes.get_title() for axes in figure.axes[:-1]] == ["lape", "published"]


def test_overlap_of_a_mask_with_other_languages_than_the_run() -> None:
    figure = figures.neuron_overlap(overlaps(["en", "zh", "ja"], ["published"]), ["en", "de"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["en", "zh", "ja"]


def test_overlap_of_very_many_languages_has_no_numbers() -> None:
    many = [f"x{number}" for number in range(neuron_figures.MAX_LABELLED + 1)]
    assert texts(figures.neuron_overlap(overlaps(many), many)) == []


@pytest.mark.parametrize("languages", [LANGUAGES, TWELVE], ids=["two", "twelve"])
def test_layer_profile_of_several_methods_has_a_panel_per_method_and_language(languages: list[str]) -> None:
    """Of few languages these are the columns, of many the rows; methods of another rate are left out."""
    methods = ["lape", "probe", "lape-top-0.1"]
    rates = thresholds("lape", "probe", "lape-top-0.1")
    rates.loc[2, "top_rate"] = 0.1
    figure = figures.layer_profile(by_layer(languages, 3, methods), rates, languages)
    shape = (2, 2) if languages == LANGUAGES else (12, 2)
    assert len(figure.axes) == shape[0] * shape[1]
    second = figure.axes[1 if languages == LANGUAGES else 2]  # lape, de: 1, 2 and 3 neurons
    heights = [bar.get_height() for bar in second.patches if isinstance(bar, Rectangle)]
    assert heights == pytest.approx([100 / 6, 200 / 6, 300 / 6])
    assert [text.get_text() for text in second.texts] == ["6"]
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert names == (["lape", "probe"] if languages == LANGUAGES else languages)


def test_layer_profile_of_several_methods_beside_a_mask_of_other_languages() -> None:
    table = pd.concat([by_layer(LANGUAGES, 3, ["lape", "probe"]), by_layer(["zh"], 3).assign(method="published")])
    figure = figures.layer_profile(table, thresholds("lape", "probe", "published"), LANGUAGES)
    assert len(figure.axes) == 3 * 3
    assert texts(figure).count("not compared") == 2 + 2  # zh by lape and probe; en and de by the mask


def test_many_layers_get_a_panel_per_language_in_percent() -> None:
    figure = figures.layer_profile(by_layer(TWELVE, 80), thresholds("lape"), TWELVE)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 12
    assert panels[0].get_title(loc="left") + panels[0].get_title() == "en: 3,160 neurons"
    for axes in panels:
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)  # type: ignore[attr-defined]


def test_a_language_without_neurons_has_an_empty_panel() -> None:
    table = by_layer(TWELVE, 80)
    table.loc[table["language"] == "de", "neurons"] = 0
    figure = figures.layer_profile(table, thresholds("lape"), TWELVE)
    assert {bar.get_height() for bar in figure.axes[1].patches} == {0.0}  # type: ignore[attr-defined]


def test_no_neuron_at_all() -> None:
    table = by_layer(LANGUAGES, 3).assign(neurons=0)
    assert figures.layer_profile(table, thresholds("lape"), LANGUAGES).texts[0].get_text() == "No neuron was selected."


# -- perplexity ------------------------------------------------------------------------------------------------------


def test_heat_maps_print_ratios_and_the_largest_draw() -> None:
    figure = figures.perplexity_ratio(perplexity(), LANGUAGES)
    edits, controls = figure.axes[0], figure.axes[1]
    assert [text.get_text() for text in edits.texts] == ["1.50", "1.10", "1.10", "1.50"]
    # Mean of the draws 1.02 and 1.06, and the larger of them.
    assert [text.get_text() for text in controls.texts] == ["1.04", "max 1.06"] * 4
    assert edits.collections[0].norm.vmax == controls.collections[0].norm.vmax  # type: ignore[attr-defined]
    assert edits.yaxis_inverted()


def perplexity_of_kinds() -> pd.DataFrame:
    """Deactivation and its control at two rates, and a control by activity."""
    table = perplexity()
    others = [
        table[table["variant"] == variant].assign(variant=name)
        for variant, name in (
            ("deactivate", "deactivate-rate-0.1"),
            ("random", "random-rate-0.1"),
            ("random", "random-active"),
        )
    ]
    return pd.concat([table, *others])


@pytest.mark.parametrize("name", ["perplexity_ratio", "perplexity_spread"])
def test_only_the_default_rate_and_its_control_by_layer_are_shown(name: str) -> None:
    draw = figures.FIGURES[name].draw
    few, many = (
        draw(table, variant_settings(), thresholds("lape"), LANGUAGES)
        for table in (perplexity(), perplexity_of_kinds())
    )
    assert len(few.axes) == len(many.axes)
    assert texts(few) == texts(many)
    labels = [[label.get_text() for label in figure.axes[0].get_yticklabels()] for figure in (few, many)]
    assert labels[0] == labels[1]


def test_without_settings_every_variant_is_shown() -> None:
    draw = figures.FIGURES["perplexity_ratio"].draw
    figure = draw(perplexity_of_kinds(), pd.DataFrame(), pd.DataFrame(), LANGUAGES)
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes[:-1] if axes.get_visible()]
    assert {title.partition(":")[0] for title in titles} >= {"deactivate", "deactivate-rate-0.1", "random-rate-0.1"}


def test_rows_are_edited_languages_and_columns_languages_read() -> None:
    table = perplexity()
    table.loc[(table["perturbation"] == "deactivate-en") & (table["language"] == "de"), "ratio"] = 1.33
    axes = figures.perplexity_ratio(table, LANGUAGES).axes[0]
    place = next(text.get_position() for text in axes.texts if text.get_text() == "1.33")
    assert place == (1.5, 0.5)  # column de, row en
    assert [label.get_text() for label in axes.get_xticklabels()] == LANGUAGES


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_heat_map_of_a_ratio_that_is_no_number(value: float) -> None:
    table = perplexity()
    table.loc[table["perturbation"] == "deactivate-en", "ratio"] = value
    figure = figures.perplexity_ratio(table, LANGUAGES)
    assert texts(figure)[:2] == [looks.number(value)] * 2
    assert figures.plot([table], figures.perplexity_ratio, LANGUAGES)
    assert figures.plot([table], figures.perplexity_spread, LANGUAGES)


def test_heat_maps_without_a_control() -> None:
    table = perplexity()
    figure = figures.perplexity_ratio(table[table["kind"] != "random"], LANGUAGES)
    assert texts(figure) == ["1.50", "1.10", "1.10", "1.50"]


def test_spread_draws_every_ratio_once() -> None:
    table = perplexity()
    axes = figures.perplexity_spread(table, LANGUAGES).axes[0]
    dots = [group for group in axes.collections if isinstance(group, PathCollection)]
    drawn = sorted(float(place[0]) for group in dots for place in np.asarray(group.get_offsets()))
    assert drawn == pytest.approx(sorted(table.loc[table["kind"] != "none", "ratio"]))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["deactivate · en", "random · en", "deactivate · de", "random · de"]


# -- languages of the answers ----------------------------------------------------------------------------------------


def test_language_shares() -> None:
    shares, names = language_shares(answers(), LANGUAGES)
    assert names == ["en", "de", "other", "undetermined"]
    labels = list(dict.fromkeys(shares.index.get_level_values("label")))
    assert labels == ["not perturbed", "deactivate-en", "deactivate-de", "random (mean)"]
    assert shares.loc[("deactivate-en", "de")].tolist() == [0.0, 0.7, 0.2, 0.1]
    # Of four draws (two per language), two are all in the prompt's language and two half.
    assert shares.loc[("random (mean)", "en")].tolist() == [0.75, 0.0, 0.25, 0.0]


def steered_answers(languages: Sequence[str]) -> pd.DataFrame:
    """With steering, a second rate, and steering that switches the source off: that of the prompt's language counts."""
    table = answers(languages).assign(source_language=None)
    new = []
    for source, variant in (("deactivate", "steer"), ("random", "random-steer"), ("deactivate", "deactivate-rate-0.1")):
        rows = table[table["variant"] == source].assign(variant=variant)
        rows["perturbation"] = rows["perturbation"].str.replace(source, variant)
        new.append(rows.assign(kind=rows["kind"] if source == "random" or "rate" in variant else "steer"))
    return pd.concat([table, *new])


def test_output_languages_shows_steering_and_its_control() -> None:
    draw = figures.FIGURES["output_languages"].draw
    figure = draw(steered_answers(LANGUAGES), variant_settings(), thresholds("lape"), steering(), LANGUAGES)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    edits = [f"{name}-{language}" for name in ("deactivate", "steer") for language in LANGUAGES]
    assert labels == ["not perturbed", *edits, "random (mean)", "random-steer (mean)"]


def test_shares_with_the_source_off_are_those_of_its_own_prompts() -> None:
    variants = variant_settings(pair={"kind": "steer", "source_off": True})
    rows = [
        {"perturbation": f"pair-{source}-{target}", "variant": "pair", "kind": "steer", "edited_language": target}
        | {"source_language": source, "language": prompts, "output_language": target, "share": 1.0}
        for source, target in (("en", "de"), ("de", "en"))
        for prompts in LANGUAGES
    ]
    kept = choices.answered(pd.DataFrame(rows), variants, ("lape", 0.05), steering(), 10)
    shares, _ = language_shares(kept, LANGUAGES)
    assert list(shares.index) == [("pair-en", "de"), ("pair-de", "en")]


def test_stacked_bars_add_up() -> None:
    figure = figures.output_languages(answers(), LANGUAGES)
    for axes in figure.axes:
        ends: dict[float, float] = {}
        for bar in axes.patches:
            assert isinstance(bar, Rectangle)
            ends[bar.get_y()] = ends.get(bar.get_y(), 0.0) + bar.get_width()
        assert list(ends.values()) == pytest.approx([100.0] * 4)
    assert "70" in texts(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["en", "de", "other", "undetermined"]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_codes_that_look_like_missing_values_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("model,language,edited_language,ratio\nnull,nan,,1.5\n", encoding="utf-8")
    row = findings.read_csv(path).iloc[0]
    assert (row["model"], row["language"], row["ratio"]) == ("null", "nan", 1.5)
    assert pd.isna(row["edited_language"])


def test_an_empty_file_is_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n", encoding="utf-8")
    assert findings.read_csv(path).empty


def test_the_script_writes_every_figure(tmp_path: Path) -> None:
    from scripts import plot_figures

    for name, make in TABLES.items():
        make(LANGUAGES).to_csv(tmp_path / f"{name}.csv", index=False)
    out = tmp_path / "figures"
    plot_figures.main(["--model", "m", "--languages", *LANGUAGES, "--tables", str(tmp_path), "--output", str(out)])
    assert sorted(path.stem for path in out.iterdir()) == sorted(figures.FIGURES)
    assert all(re.search(r"</svg>\s*$", path.read_text(encoding="utf-8")) for path in out.iterdir())
