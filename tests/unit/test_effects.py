"""Effects by hand: what is compared with what, which samples count, and how often null effects are called."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from langneurons import artifacts
from langneurons.errors import UserError
from langneurons.metrics import effects, perplexity, statistics
from langneurons.metrics.effects import COLUMNS, effects_of, with_relevance
from scripts import test_effects as script

SAME = 1e-9
"""Relative difference of numbers that differ only in the order of their sums."""
Json = dict[str, Any]


def member(variant: str, language: str, draw: int | None = None, source: str | None = None, **more: Any) -> Json:
    """One perturbation as `config.describe_all` describes it."""
    name = "-".join(str(part) for part in (variant, source, language, draw) if part is not None)
    kind = more.pop("kind", "deactivate" if draw is None else "random")
    return {"id": name, "variant": variant, "kind": kind, "language": language, "source": source, "draw": draw, **more}


NONE = {"id": "none", "variant": "none", "kind": "none", "language": None, "source": None, "draw": None, "of": []}
OFF = member("off", "de")
DRAWS = [member("random", "de", draw, of=["off"]) for draw in (1, 2)]


def windows(values: dict[tuple[str, str], list[float]], tokens: int = 10) -> pd.DataFrame:
    """Windows of mean negative log-likelihoods by perturbation and language."""
    rows = [
        {"perturbation": name, "language": language, "window": window, "nll_sum": value * tokens, "tokens": tokens}
        for (name, language), numbers in values.items()
        for window, value in enumerate(numbers)
    ]
    return pd.DataFrame(rows)


def answers(values: dict[tuple[str, str], Any], column: str = "characters") -> pd.DataFrame:
    """Answers with one column by perturbation and language of the prompts."""
    rows = [
        {"perturbation": name, "language": language, "id": f"{language}-{number:02}", column: value}
        for (name, language), numbers in values.items()
        for number, value in enumerate(numbers)
    ]
    return pd.DataFrame(rows).assign(**{"identifier": "lingua"} if column == "output_language" else {})


def rows_of(table: pd.DataFrame, **chosen: str) -> pd.DataFrame:
    for name, value in chosen.items():
        table = table[table[name] == value]
    return table


def row_of(table: pd.DataFrame, **chosen: str) -> pd.Series:
    rows = rows_of(table, **chosen)
    assert len(rows) == 1
    return rows.iloc[0]


# -- what is compared --------------------------------------------------------------------------------------------------


def test_perplexity_against_the_baseline_by_hand() -> None:
    """Differences 1, 1, 1, -1: 10 of 16 sign flips have an absolute sum of 2 or more."""
    table = windows({("none", "en"): [2, 3, 4, 5], ("off-de", "en"): [3, 4, 5, 4]})
    row = row_of(effects_of(table, None, [NONE, OFF], seed=0))
    expected = {"perturbation": "off-de", "language": "en", "measure": "perplexity", "unit": "windows"}
    expected |= {"against": "none", "draws": 0, "samples": 4, "reference": 3.5, "value": 4.0, "difference": 0.5}
    assert row[list(expected)].to_dict() == expected
    assert row["p_value"] == row["q_value"] == 10 / 16
    ratio = row_of(perplexity.summarise(table), perturbation="off-de")["ratio"]
    assert math.exp(row["difference"]) == pytest.approx(ratio, rel=SAME)


def test_columns_and_order() -> None:
    table = windows({(name, language): [1] * 12 for name in ("none", "off-de") for language in ("tr", "en")})
    text = answers({(name, "en"): [1] * 12 for name in ("none", "off-de")})
    result = effects_of(table, text, [NONE, OFF], seed=0)
    assert result.columns.tolist() == COLUMNS
    assert result[["language", "measure"]].to_numpy().tolist() == [
        ["tr", "perplexity"],
        ["en", "perplexity"],
        ["en", "characters"],
    ]


def test_reference_is_the_mean_over_the_draws_of_the_same_languages() -> None:
    """Draws of another language, of another source and of a control of another variant are not in it."""
    steer = member("steer", "de", source="tr", kind="steer")
    perturbations = [
        *(NONE, OFF, *DRAWS, steer),
        member("random", "en", 1, of=["off"]),
        member("other", "de", 1, of=["elsewhere"]),
        *(member("random-steer", "de", draw, source="tr", of=["steer"]) for draw in (1, 2, 3)),
        member("random-steer", "de", 1, source="en", of=["steer"]),
    ]
    values = {(row["id"], "en"): [float(2**position)] * 12 for position, row in enumerate(perturbations)}
    result = effects_of(windows(values), None, perturbations, seed=0)
    row = row_of(result, perturbation="off-de", against="random")
    assert row[["draws", "reference", "value", "difference"]].tolist() == [2, (4 + 8) / 2, 2, -4]
    assert set(rows_of(result, perturbation="off-de")["against"]) == {"none", "random"}
    row = row_of(result, perturbation="steer-tr-de", against="random-steer")
    assert row[["draws", "reference"]].tolist() == pytest.approx([3, (128 + 256 + 512) / 3], rel=SAME)


def test_random_perturbations_are_compared_with_the_baseline_only() -> None:
    """Even one that is said to be a control of itself."""
    draws = [{**row, "of": ["off", "random"]} for row in DRAWS]
    values = {(row["id"], "en"): [1.0] * 12 for row in (NONE, *DRAWS)}
    result = effects_of(windows(values), None, [NONE, *draws], seed=0)
    assert result["perturbation"].tolist() == ["random-de-1", "random-de-2"]
    assert set(result["against"]) == {"none"}


def test_a_variant_may_have_several_controls() -> None:
    nearest = [member("nearest", "de", 1, of=["off"])]
    values = {(row["id"], "en"): [1.0] * 12 for row in (NONE, OFF, *DRAWS, *nearest)}
    result = effects_of(windows(values), None, [NONE, OFF, *DRAWS, *nearest], seed=0)
    assert rows_of(result, perturbation="off-de")[["against", "draws"]].to_numpy().tolist() == [
        ["none", 0],
        ["random", 2],
        ["nearest", 1],
    ]


def test_what_was_not_measured_has_no_row() -> None:
    """No draws, no answers in German, no baseline."""
    described = [NONE, OFF, *DRAWS]
    text = answers({("none", "en"): [1] * 12, ("none", "de"): [1] * 12, ("off-de", "en"): [1] * 12})
    result = effects_of(None, text, described, seed=0)
    assert result[["language", "against"]].to_numpy().tolist() == [["en", "none"]]
    assert effects_of(None, text[text["perturbation"] != "none"], described, seed=0).empty
    nothing = effects_of(None, None, described, seed=0)
    assert nothing.columns.tolist() == COLUMNS
    assert nothing.empty


# -- measures ----------------------------------------------------------------------------------------------------------


def test_languages_of_answers() -> None:
    """12 German prompts, the Turkish neurons off: the baseline answers in German; then 6 times in Turkish, 3 in
    English, 2 in French, and one language is undetermined."""
    off = member("off", "tr")
    found = ["tr"] * 6 + ["en"] * 3 + ["fr"] * 2 + ["undetermined"]
    text = answers({("none", "de"): ["de"] * 12, ("off-tr", "de"): found}, "output_language")
    result = effects_of(None, text, [NONE, off], seed=0).set_index("measure")
    assert result["value"].to_dict() == {"prompt_language": 0, "target_language": 6 / 12, "english": 3 / 12}
    assert result["reference"].to_dict() == {"prompt_language": 1, "target_language": 0, "english": 0}
    assert result["samples"].tolist() == [12, 12, 12]


@pytest.mark.parametrize(
    ("prompt", "edited", "measures"),
    [
        ("de", "de", ["prompt_language", "english"]),
        ("en", "de", ["prompt_language", "target_language"]),
        ("de", "en", ["prompt_language", "target_language"]),
        ("en", "en", ["prompt_language"]),
        ("xx", "de", ["target_language", "english"]),
    ],
)
def test_measures_of_language_that_have_a_meaning(prompt: str, edited: str, measures: list[str]) -> None:
    """No identifier knows a language xx, so that no answer could be in it."""
    off = member("off", edited)
    text = answers({(row["id"], prompt): ["tr"] * 12 for row in (NONE, off)}, "output_language")
    assert effects_of(None, text, [NONE, off], seed=0)["measure"].tolist() == measures


def test_control_is_measured_in_the_edited_language() -> None:
    """Half of the answers of two draws are in German, whose neurons the perturbation edits; all of its own are."""
    found = {"none": ["en"] * 12, "off-de": ["de"] * 12, "random-de-1": ["de"] * 12, "random-de-2": ["en"] * 12}
    text = answers({(name, "en"): languages for name, languages in found.items()}, "output_language")
    row = row_of(effects_of(None, text, [NONE, OFF, *DRAWS], seed=0), measure="target_language", against="random")
    assert row[["reference", "value"]].tolist() == [0.5, 1]


def test_a_missing_answer_is_in_no_language() -> None:
    text = answers({("none", "de"): ["de"] * 12, ("off-de", "de"): ["de"] * 12}, "output_language")
    row = row_of(effects_of(None, text.drop(index=5), [NONE, OFF], seed=0), measure="prompt_language")
    assert row[["samples", "reference", "value"]].tolist() == [11, 1, 1]
    assert row["note"] == "1 of 12 prompts dropped: no pair of values"


@pytest.mark.filterwarnings("error")
def test_share_of_stop_words_drops_empty_answers_pairwise() -> None:
    """Two empty answers on different sides, of 13."""
    text = answers({("none", "en"): [4.0] * 13, ("off-de", "en"): [4.0] * 13}, "words")
    text["stop_words"] = np.where(text["perturbation"] == "none", 1, 2)
    text.loc[[3, 13], ["words", "stop_words"]] = 0
    row = row_of(effects_of(None, text, [NONE, OFF], seed=0), measure="stop_words")
    assert row[["samples", "reference", "value", "difference"]].tolist() == [11, 0.25, 0.5, 0.25]
    assert row["note"] == "2 of 13 prompts dropped: no pair of values"


def test_a_draw_without_a_value_is_left_out_of_the_mean() -> None:
    """Of 12 prompts the first has the value of one draw only, the second of none."""
    nan = math.nan
    values = {"none": [0] * 12, "off-de": [9] * 12, "random-de-1": [nan, nan, *[1] * 10]}
    values["random-de-2"] = [7, nan, *[3] * 10]
    text = answers({(name, "en"): numbers for name, numbers in values.items()}, "relevance")
    row = row_of(effects_of(None, text, [NONE, OFF, *DRAWS], seed=0), against="random")
    assert row[["draws", "samples"]].tolist() == [2, 11]
    assert row["reference"] == pytest.approx((7 + 10 * 2) / 11, rel=SAME)
    assert row["difference"] == pytest.approx(9 - (7 + 10 * 2) / 11, rel=SAME)
    assert row["note"] == "1 of 12 prompts dropped: no pair of values"


@pytest.mark.parametrize(
    "measure", ["characters", "copies", "loops", "repeated_ngrams", "distinct_2", "compression_ratio", "relevance"]
)
def test_numbers_of_answers_are_compared_as_they_are(measure: str) -> None:
    text = answers({("none", "en"): [0] * 12, ("off-de", "en"): [1] * 9 + [0] * 3}, measure)
    row = row_of(effects_of(None, text, [NONE, OFF], seed=0))
    assert row[["measure", "unit", "reference", "value"]].tolist() == [measure, "prompts", 0, 0.75]


def test_truth_values_with_gaps_are_numbers() -> None:
    """As Parquet gives them back."""
    text = answers({("none", "en"): [None] + [False] * 11, ("off-de", "en"): [True] * 12}, "loops")
    row = row_of(effects_of(None, text, [NONE, OFF], seed=0))
    assert row[["samples", "reference", "value"]].tolist() == [11, 0, 1]


def test_answers_get_their_relevance() -> None:
    text = answers({("none", "en"): [1, 2], ("off-de", "en"): [3, 4]})
    relevance = answers({("off-de", "en"): [0.1, 0.2], ("none", "en"): [0.3]}, "relevance")
    np.testing.assert_equal(with_relevance(text, relevance)["relevance"].tolist(), [0.3, math.nan, 0.1, 0.2])
    with pytest.raises(UserError, match="there twice"):
        with_relevance(text, pd.concat([relevance, relevance]))


# -- pairs, intervals, tests -------------------------------------------------------------------------------------------


def test_pairs_are_of_the_same_window() -> None:
    """The rows are shuffled; window 3 of the baseline and window 12 of the perturbation are missing."""
    generator = np.random.default_rng(1)
    baseline, change = generator.normal(5, 2, 30), generator.normal(0.1, 0.05, 30)
    table = windows({("none", "en"): baseline.tolist(), ("off-de", "en"): (baseline + change).tolist()})
    table = table.drop(index=[3, 30 + 12]).sample(frac=1, random_state=0)
    row = row_of(effects_of(table, None, [NONE, OFF], seed=0))
    kept = np.delete(change, [3, 12])
    assert row["samples"] == 28
    assert row["difference"] == pytest.approx(kept.mean(), rel=SAME)
    assert row["note"] == "2 of 30 windows dropped: no pair of values"
    low, high = statistics.mean_interval(kept[None], seed=0)
    assert row[["low", "high"]].tolist() == pytest.approx([low[0], high[0]], rel=SAME)
    assert row["p_value"] == statistics.sign_flip_test(kept[None], seed=0)[0]


def test_several_draws_are_tested_by_exchange() -> None:
    """One draw by sign flips, which are exact for 12 windows."""
    numbers = np.random.default_rng(2).normal(1, 0.1, size=(12, 3))
    values = dict(zip(["off-de", "random-de-1", "random-de-2"], numbers.T.tolist(), strict=True))
    table = windows({(name, "en"): row for name, row in values.items()}, tokens=1)
    result = row_of(effects_of(table, None, [OFF, *DRAWS], seed=0))
    assert result["p_value"] == statistics.exchange_test(numbers[None], seed=0)[0]
    result = row_of(effects_of(table[:24], None, [OFF, *DRAWS], seed=0))
    assert result["p_value"] == statistics.sign_flip_test((numbers[:, 0] - numbers[:, 1])[None], seed=0)[0]


@pytest.mark.parametrize(("samples", "refused"), [(9, True), (10, False)])
def test_few_prompts_have_no_interval(samples: int, refused: bool) -> None:
    """The test stays: all differences on one side give 2 / 2**n."""
    text = answers({("none", "en"): range(samples), ("off-de", "en"): range(1, samples + 1)})
    row = row_of(effects_of(None, text, [NONE, OFF], seed=0))
    assert row[["low", "high"]].isna().tolist() == [refused, refused]
    assert row["note"] == ("fewer than 10 prompts: no interval" if refused else "")
    assert row["p_value"] == 2 / 2**samples


@pytest.mark.filterwarnings("error")
def test_prompts_without_any_pair_have_no_numbers() -> None:
    text = answers({("none", "en"): [math.nan] * 12, ("off-de", "en"): [1.0] * 12}, "relevance")
    row = row_of(effects_of(None, text, [NONE, OFF], seed=0))
    assert row["samples"] == 0
    assert row[["reference", "value", "difference", "low", "high", "p_value", "q_value"]].isna().all()
    assert row["note"] == "12 of 12 prompts dropped: no pair of values; fewer than 10 prompts: no interval"


def test_unchanged_answers_have_no_effect() -> None:
    """0.1 is no sum of powers of two; the mean over three draws must not make a difference of it."""
    draws = [*DRAWS, member("random", "de", 3, of=["off"])]
    text = answers({(row["id"], "en"): [0.1] * 12 for row in (NONE, OFF, *draws)}, "relevance")
    result = effects_of(None, text, [NONE, OFF, *draws], seed=0)
    assert (result[["difference", "low", "high"]] == 0).all(axis=None)
    assert (result[["p_value", "q_value"]] == 1).all(axis=None)


# -- many cells --------------------------------------------------------------------------------------------------------

LANGUAGES = ["en", "de", "tr", "fr"]
EVERYTHING = [NONE, *(member("off", language) for language in LANGUAGES)] + [
    member("random", language, draw, of=["off"]) for language in LANGUAGES for draw in (1, 2, 3)
]


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Windows and answers of all perturbations in all languages, without effects."""
    generator = np.random.default_rng(3)
    names = [(row["id"], language) for row in EVERYTHING for language in LANGUAGES]
    text = answers({name: generator.choice(LANGUAGES, 25) for name in names}, "output_language")
    text["characters"] = generator.integers(0, 400, len(text))
    text["loops"] = generator.random(len(text)) < 0.1
    return windows({name: generator.normal(3, 0.2, 20).tolist() for name in names}), text


def test_q_values_are_over_a_variant_a_measure_and_a_reference(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = effects_of(*tables, EVERYTHING, seed=0)
    families = 0
    for _, rows in result.groupby([result["perturbation"].str.split("-").str[0], "measure", "against"]):
        expected = stats.false_discovery_control(rows["p_value"], method="bh")
        np.testing.assert_allclose(rows["q_value"], expected, rtol=SAME)
        families += 1
    assert families == 3 * 6  # the two variants against none, and off against random; six measures


def test_a_cell_does_not_depend_on_the_others(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Without two languages and the draws of German, in another order of rows: only q-values change."""
    fewer = [row for row in EVERYTHING if not row["id"].startswith("random-de")]
    kept = [
        part[part["language"].isin(["de", "tr"]) & ~part["perturbation"].str.startswith("random-de")] for part in tables
    ]
    result = effects_of(*(part.sample(frac=1, random_state=1) for part in kept), fewer, seed=0)
    keys, numbers = COLUMNS[:6], ["samples", "reference", "value", "difference", "low", "high", "p_value"]
    everything = effects_of(*tables, EVERYTHING, seed=0).set_index(keys)
    result = result.set_index(keys)
    assert len(result) > 50
    np.testing.assert_allclose(result[numbers], everything.loc[result.index, numbers], rtol=SAME, atol=1e-15)


def test_the_seed_decides_the_resamples(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    first, again, other = (effects_of(*tables, EVERYTHING, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    continuous = first["measure"] == "perplexity"
    assert (first["low"] != other["low"])[continuous].all()


def simulated(effect: float, cells: int) -> pd.DataFrame:
    """One perturbation and five draws in as many languages as cells: independent noise of 0.1 nats, 20 windows."""
    draws = [member("random", "de", draw, of=["off"]) for draw in range(1, 6)]
    perturbations = [NONE, OFF, *draws]
    shape = (len(perturbations), cells, 20)
    values = np.random.default_rng(4).normal(3, 0.1, size=shape)
    values[1] += effect
    where = np.indices(shape).reshape(3, -1)
    table = pd.DataFrame({"nll_sum": values.ravel() * 100, "tokens": 100, "window": where[2]})
    table["perturbation"] = np.array([row["id"] for row in perturbations])[where[0]]
    table["language"] = np.char.add("language-", where[1].astype(str))
    return rows_of(effects_of(table, None, perturbations, seed=0), perturbation="off-de")


def test_null_effects_are_called_null() -> None:
    """5 % of 1,000 cells, within four standard errors of the cells and of the resamples, which all cells share.

    The table is one family without an effect: with a probability of 95 % nothing in it is called.
    """
    result = simulated(0, 1000)
    tolerance = 4 * math.sqrt(0.05 * 0.95 * (1 / 1000 + 1 / statistics.RESAMPLES))
    for against in ("none", "random"):
        rows = rows_of(result, against=against)
        assert len(rows) == 1000
        assert (rows["p_value"] <= 0.05).mean() == pytest.approx(0.05, abs=tolerance)
        assert ((rows["low"] > 0) | (rows["high"] < 0)).mean() == pytest.approx(0.05, abs=tolerance)
        assert (rows["q_value"] <= 0.05).sum() <= 1


def test_known_effects_are_found() -> None:
    """0.15 nats, of which the noise of a difference leaves a standard error of 0.1 sqrt(2 / 20) = 0.03.

    Such a cell is missed at 0.05 with a probability of 0.2 %; after Benjamini and Hochberg, where nearly all are true,
    the bar is about the same. The mean over 200 cells is off by at most four of its own standard errors.
    """
    result = simulated(0.15, 200)
    for against, variance in (("none", 2), ("random", 1 + 1 / 5)):
        rows = rows_of(result, against=against)
        assert (rows["q_value"] <= 0.05).mean() > 0.97
        error = 0.1 * math.sqrt(variance / 20 / 200)
        assert rows["difference"].mean() == pytest.approx(0.15, abs=4 * error)


# -- mistakes, and the script ------------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    table = windows({("none", "en"): [1, 2], ("off-de", "en"): [1, 2]})
    with pytest.raises(UserError, match="table of windows has no column window"):
        effects_of(table.drop(columns="window"), None, [NONE, OFF], seed=0)
    with pytest.raises(UserError, match="'off-de' was measured, but it is not among those described"):
        effects_of(table, None, [NONE], seed=0)
    with pytest.raises(UserError, match="window 1 of language 'en' is there twice for perturbation 'none'"):
        effects_of(pd.concat([table, table[1:2]]), None, [NONE, OFF], seed=0)


def test_script_writes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(artifacts.VERSIONS, "relevance", 1)
    table = windows({("none", "en"): [1.0] * 12, ("off-de", "en"): [2.0] * 12})
    text = answers({("none", "en"): [1] * 12, ("off-de", "en"): [2] * 12})
    relevance = answers({("none", "en"): [0.9] * 12, ("off-de", "en"): [0.1] * 12}, "relevance")
    paths = {}
    for name, kind, content in (
        ("perplexity", "perplexity", table),
        ("text", "text-metrics", text),
        ("relevance", "relevance", relevance),
    ):
        paths[name] = str(tmp_path / f"{name}.parquet")
        artifacts.write_table(paths[name], kind, content)
    output = str(tmp_path / "effects.parquet")
    shared = ["--perturbations", json.dumps([NONE, OFF]), "--seed", "3", "--output", output]
    script.main([*(part for name, path in paths.items() for part in (f"--{name}", path)), *shared])
    result, metadata = artifacts.read_table(output, "effects")
    assert metadata == {"seed": 3, "confidence": 0.95, "resamples": 9999}
    assert result["measure"].tolist() == ["perplexity", "characters", "relevance"]
    expected = effects_of(table, with_relevance(text, relevance), [NONE, OFF], seed=3)
    pd.testing.assert_frame_equal(result, expected, check_dtype=False)
    script.main(["--text", paths["text"], *shared])
    assert artifacts.read_table(output, "effects")[0]["measure"].tolist() == ["characters"]
    script.main(shared)
    assert artifacts.read_table(output, "effects")[0].columns.tolist() == COLUMNS
    with pytest.raises(UserError, match="give --text as well"):
        script.main(["--relevance", paths["relevance"], *shared])


def test_measures_are_named_once() -> None:
    names = [measure.name for measure in effects.MEASURES]
    assert len(set(names)) == len(names)
    assert {measure.unit for measure in effects.MEASURES} == {"windows", "prompts"}
