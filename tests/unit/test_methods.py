"""All methods behind one interface: planted neurons, equal numbers, the same summary, and what each needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts
from langneurons.errors import UserError
from langneurons.neurons import lape
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.difference import mean_difference
from langneurons.neurons.methods import METHODS, largest, largest_and_smallest, select
from langneurons.neurons.sentences import SentenceMeans
from scripts import identify_neurons

ROOT = Path(__file__).parents[2]
LANGUAGES = ["tr", "de", "en"]
LAYERS, NEURONS, TOKENS, SENTENCES = 3, 40, 1000, 30
OWN = {"tr": (0, [1, 7, 30]), "de": (1, [0, 2, 39]), "en": (2, [5, 6, 7])}
"""Planted: layer and neurons that are active on the language alone."""
SILENT = {"tr": (2, [10, 12, 14]), "de": (0, [10, 12, 14]), "en": (1, [10, 12, 14])}
"""Planted: layer and neurons that are active on every other language."""
RATE, PERCENTILE = 9 / (LAYERS * NEURONS), 0.95
SCORED = [name for name, method in METHODS.items() if method.score]


def planted(sentences: int = SENTENCES) -> tuple[dict[str, ActivationCounts], dict[str, SentenceMeans]]:
    """All other neurons are equally often active on all languages."""
    generator = np.random.default_rng(0)
    counts, means = {}, {}
    for language in LANGUAGES:
        probability = np.full((LAYERS, NEURONS), 0.3)
        for name in LANGUAGES:
            probability[SILENT[name][0], SILENT[name][1]] = 0.0 if name == language else 0.5
            probability[OWN[name][0], OWN[name][1]] = 0.9 if name == language else 0.05
        over_zero = np.round(probability * TOKENS).astype(np.int64)
        counts[language] = ActivationCounts(over_zero, 2.0 * over_zero, 3.0 * over_zero, TOKENS)
        noise = generator.normal(0, 0.05, (sentences, LAYERS, NEURONS))
        means[language] = SentenceMeans(
            (probability + noise).astype(np.float16), np.full(sentences, 20, dtype=np.int64)
        )
    return counts, means


COUNTS, MEANS = planted()


def rows_of(table: pd.DataFrame, language: str) -> list[tuple[int, int]]:
    return list(table.loc[table["language"] == language, ["layer", "neuron"]].itertuples(index=False, name=None))


def places(planted_in: dict[str, tuple[int, list[int]]], language: str) -> list[tuple[int, int]]:
    layer, neurons = planted_in[language]
    return [(layer, neuron) for neuron in neurons]


def run(method: str, **more: Any) -> lape.Selection:
    return select(method, COUNTS, MEANS, RATE, PERCENTILE, **more)


# -- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in METHODS if name != "average-precision"])
def test_planted_neurons_are_found(method: str) -> None:
    table = run(method).table
    for language in LANGUAGES:
        assert rows_of(table, language) == places(OWN, language)


def test_planted_neurons_are_found_at_both_ends_of_average_precision() -> None:
    table = run("average-precision", neurons_per_language=6).table
    for language in LANGUAGES:
        assert rows_of(table, language) == sorted(places(OWN, language) + places(SILENT, language))
    assert table.loc[table["score"] > 0.5, "score"].tolist() == [1.0] * 9  # active on no sentence of the others


def test_an_odd_number_takes_one_more_from_the_top() -> None:
    table = run("average-precision").table  # 3 per language, as LAPE: two of the top, one of the bottom
    for language in LANGUAGES:
        assert len(set(rows_of(table, language)) & set(places(OWN, language))) == 2
        assert len(set(rows_of(table, language)) & set(places(SILENT, language))) == 1


@pytest.mark.parametrize("method", SCORED)
def test_as_many_per_language_as_lape(method: str) -> None:
    # LAPE with a low bar gives languages different numbers: neurons active at .3 belong to all of them.
    reference = select("lape", COUNTS, None, 0.2, 0.3).summary()["count_by_language"]
    uneven = dict(COUNTS) | {
        "de": ActivationCounts(COUNTS["de"].over_zero // 2, COUNTS["de"].activation_sum, None, TOKENS)
    }
    other = select("lape", uneven, None, 0.2, 0.3).summary()["count_by_language"]
    assert len(set(other.values())) > 1
    assert select(method, COUNTS, MEANS, 0.2, 0.3).summary()["count_by_language"] == reference
    assert select(method, uneven, MEANS, 0.2, 0.3).summary()["count_by_language"] == other


@pytest.mark.parametrize("method", SCORED)
@pytest.mark.parametrize("number", [1, 2, 17, LAYERS * NEURONS])
def test_a_number_of_ones_own(method: str, number: int) -> None:
    selection = run(method, neurons_per_language=number)
    assert selection.summary()["count_by_language"] == dict.fromkeys(LANGUAGES, number)
    assert not selection.table.duplicated(["language", "layer", "neuron"]).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [["en", "de", "tr"], ["de", "tr", "en"]])
def test_the_order_of_languages_only_orders_the_rows(method: str, order: list[str]) -> None:
    one = run(method)
    other = select(
        method, {name: COUNTS[name] for name in order}, {name: MEANS[name] for name in order}, RATE, PERCENTILE
    )
    assert list(dict.fromkeys(one.table["language"])) == LANGUAGES
    assert list(dict.fromkeys(other.table["language"])) == order
    keys = ["language", "layer", "neuron"]
    pd.testing.assert_frame_equal(
        one.table.sort_values(keys, ignore_index=True),
        other.table.sort_values(keys, ignore_index=True),
        check_exact=True,
    )
    assert one.accuracy_by_layer == other.accuracy_by_layer


def test_lape_and_its_bonus_are_lapes() -> None:
    pd.testing.assert_frame_equal(run("lape").table, lape.select(COUNTS, RATE, PERCENTILE).table, check_exact=True)
    with_bonus = lape.select(COUNTS, RATE, PERCENTILE, 0.7)
    pd.testing.assert_frame_equal(run("lape-bonus", bonus=0.7).table, with_bonus.table, check_exact=True)
    assert run("lape-bonus", bonus=0.7, neurons_per_language=1).summary() == with_bonus.summary()


# -- ties ------------------------------------------------------------------------------------------------------------


def test_largest_and_smallest_by_hand() -> None:
    scores = np.array([2.0, 5.0, 2.0, 5.0, 1.0, 1.0, 2.0])
    assert largest(scores, 3).tolist() == [1, 3, 0]
    assert largest_and_smallest(scores, 4).tolist() == [1, 3, 4, 5]
    assert largest_and_smallest(scores, 5).tolist() == [1, 3, 0, 4, 5]
    assert largest_and_smallest(scores, 1).tolist() == [1]
    assert largest_and_smallest(scores, 0).tolist() == []
    # Equal scores: the first ones are the top, and are not taken again as the bottom.
    assert largest_and_smallest(np.zeros(5), 4).tolist() == [0, 1, 2, 3]
    assert sorted(largest_and_smallest(scores, 7).tolist()) == list(range(7))


# -- the difference of means -----------------------------------------------------------------------------------------


def test_mean_difference_by_hand() -> None:
    def counts_of(sums: list[float], tokens: int) -> ActivationCounts:
        return ActivationCounts(np.zeros((1, 2), dtype=np.int64), np.array([sums]), None, tokens)

    # Means: x 1 and -1, y 2 and 0, z 3 and 4. Languages weigh equally whatever their tokens.
    found = mean_difference({"x": counts_of([10, -10], 10), "y": counts_of([2, 0], 1), "z": counts_of([300, 400], 100)})
    assert found["x"].tolist() == [[1 - 2.5, -1 - 2]]
    assert found["y"].tolist() == [[2 - 2, 0 - 1.5]]
    assert found["z"].tolist() == [[3 - 1.5, 4 + 0.5]]


# -- tables and summaries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_table(method: str) -> None:
    table = run(method).table
    expected = {"language": "str", "layer": "int64", "neuron": "int64", "entropy": "float64", "probability": "float32"}
    expected |= {} if method == "lape" else {"score": "float64"}
    assert {column: str(dtype) for column, dtype in table.dtypes.items()} == expected
    probability = np.stack([COUNTS[name].probability() for name in LANGUAGES])
    entropy = lape.activation_entropy(probability)
    for index, language in enumerate(LANGUAGES):
        own = table[table["language"] == language]
        assert (own["probability"] == probability[index][own["layer"], own["neuron"]]).all()
        assert (own["entropy"] == entropy[own["layer"], own["neuron"]]).all()


def test_scores_in_the_table_are_those_of_the_method() -> None:
    table, scores = run("mean-difference").table, mean_difference(COUNTS)
    for language in LANGUAGES:
        own = table[table["language"] == language]
        assert own["score"].tolist() == scores[language][own["layer"], own["neuron"]].tolist()
    # 2 per activation: 2 * .9 less 2 * .05.
    assert table["score"].to_numpy() == pytest.approx([1.7] * 9, abs=1e-12)


def test_a_neuron_that_is_never_active_has_no_entropy() -> None:
    over_zero = np.array([[5, 0]], dtype=np.int64)
    counts = {
        "x": ActivationCounts(over_zero, np.array([[9.0, -1.0]]), None, 10),
        "y": ActivationCounts(over_zero, np.array([[1.0, -1.0]]), None, 10),
    }
    selection = select("mean-difference", counts, None, 0.5, 0.5, neurons_per_language=2)
    entropies = selection.table["entropy"].to_numpy()
    assert entropies[[0, 2]] == pytest.approx(math.log(2), abs=1e-12)
    assert np.isnan(entropies[[1, 3]]).all()
    assert selection.summary()["entropy_min"] == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_summary_has_lapes_keys(method: str) -> None:
    summary, reference = run(method).summary(), run("lape").summary()
    assert set(summary) - set(reference) == ({"accuracy_by_layer"} if method == "probe" else set())
    assert set(reference) <= set(summary)
    assert summary["percentile_by_language"] == reference["percentile_by_language"]
    without = {key for key, value in summary.items() if value is None}
    assert without == ({"activation_bar", "candidates", "requested"} if method in SCORED else set())
    table = run(method).table
    assert summary["selected"] == len(table[["layer", "neuron"]].drop_duplicates())


def test_accuracy_by_layer() -> None:
    # Every layer has planted neurons of each kind, and the noise is small.
    assert run("probe").summary()["accuracy_by_layer"] == [1.0] * LAYERS


def test_registry() -> None:
    assert list(METHODS) == ["lape", "lape-bonus", "mean-difference", "average-precision", "probe"]
    assert all(name == method.name and method.title and method.source for name, method in METHODS.items())
    needs = {name: method.needs for name, method in METHODS.items()}
    assert needs["lape"] == needs["lape-bonus"] == "counts"
    assert needs["mean-difference"] == "sums"
    assert needs["average-precision"] == needs["probe"] == "sentences"


# -- what is refused -------------------------------------------------------------------------------------------------


def refusal(*arguments: Any, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        select(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def published(counts: ActivationCounts) -> ActivationCounts:
    return ActivationCounts(counts.over_zero, None, None, counts.tokens)


def test_published_recordings_have_no_sums() -> None:
    counts = COUNTS | {"de": published(COUNTS["de"]), "en": published(COUNTS["en"])}
    message = refusal("mean-difference", counts, MEANS, RATE, PERCENTILE)
    assert "'mean-difference' needs sums of activations, but the recordings of de, en have none" in message
    assert "(lape, lape-bonus)" in message


@pytest.mark.parametrize("method", ["lape", "lape-bonus", "average-precision", "probe"])
def test_other_methods_need_no_sums(method: str) -> None:
    counts = {language: published(one) for language, one in COUNTS.items()}
    pd.testing.assert_frame_equal(select(method, counts, MEANS, RATE, PERCENTILE).table, run(method).table)


@pytest.mark.parametrize("method", ["average-precision", "probe"])
@pytest.mark.parametrize(("there", "missing"), [(None, "tr, de, en"), (["de"], "tr, en"), (["tr", "en", "fr"], "de")])
def test_missing_sentences(method: str, there: list[str] | None, missing: str) -> None:
    sentences = None if there is None else {name: MEANS.get(name, MEANS["de"]) for name in there}
    message = refusal(method, COUNTS, sentences, RATE, PERCENTILE)
    assert f"'{method}' needs mean activations of sentences, but there are none of {missing}." in message
    assert "identification.method (lape, lape-bonus)" in message


@pytest.mark.parametrize("method", ["lape", "lape-bonus", "mean-difference"])
def test_other_methods_need_no_sentences(method: str) -> None:
    pd.testing.assert_frame_equal(select(method, COUNTS, None, RATE, PERCENTILE).table, run(method).table)


def test_sentences_of_another_model() -> None:
    other = MEANS | {"de": SentenceMeans(MEANS["de"].means[:, :, :-1], MEANS["de"].tokens)}
    message = refusal("probe", COUNTS, other, RATE, PERCENTILE)
    assert "do not belong to the model of the counts, whose shape [layer, neuron] is (3, 40)" in message
    assert "'de': (3, 39)" in message


@pytest.mark.parametrize("method", SCORED)
@pytest.mark.parametrize("number", [0, -1, LAYERS * NEURONS + 1])
def test_more_neurons_than_the_model_has(method: str, number: int) -> None:
    message = refusal(method, COUNTS, MEANS, RATE, PERCENTILE, neurons_per_language=number)
    assert f"identification.neurons_per_language is {number}, but the model has 120 neurons (3 layers of 40)" in message
    assert "from 1 to 120" in message


@pytest.mark.parametrize("bonus", [-0.1, math.nan, math.inf])
def test_an_impossible_bonus(bonus: float) -> None:
    assert f"identification.bonus is {bonus}" in refusal("lape-bonus", COUNTS, None, RATE, PERCENTILE, bonus=bonus)


def test_an_unknown_method() -> None:
    assert "identification.method is 'entropy', but the methods are lape, lape-bonus, mean-difference" in refusal(
        "entropy", COUNTS, None, RATE, PERCENTILE
    )


@pytest.mark.parametrize("method", METHODS)
def test_one_language_is_refused(method: str) -> None:
    assert "was given 1 (de)" in refusal(method, {"de": COUNTS["de"]}, {"de": MEANS["de"]}, RATE, PERCENTILE)


# -- means of sentences, and their files -----------------------------------------------------------------------------


def broken(**change: Any) -> SentenceMeans:
    """Two sentences of a model of one layer and three neurons, spoilt."""
    parts = {"means": np.ones((2, 1, 3), dtype=np.float32), "tokens": np.array([4, 1], dtype=np.int64)}
    return SentenceMeans(**(parts | change))


def with_value(value: float) -> np.ndarray:
    means = np.ones((2, 1, 3), dtype=np.float16)
    means[1, 0, 2] = value
    return means


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"means": np.ones((2, 3), dtype=np.float32)}, ["[sentence, layer, neuron]", "(2, 3)"]),
        ({"means": np.ones((2, 1, 3))}, ["float16 or float32", "float64"]),
        ({"tokens": np.array([4])}, ["means of 2 sentences", "(1,)"]),
        ({"means": np.ones((1, 1, 3), np.float32), "tokens": np.array([4])}, ["1 sentences", "at least two"]),
        ({"means": np.ones((0, 1, 3), np.float32), "tokens": np.zeros(0, np.int64)}, ["0 sentences", "at least two"]),
        ({"tokens": np.array([4, 0])}, ["a sentence has no token"]),
        ({"means": with_value(math.nan)}, ["NaN or infinite", "sentence 1, layer 0, neuron 2", "float32"]),
        ({"means": with_value(math.inf)}, ["NaN or infinite", "sentence 1, layer 0, neuron 2"]),
    ],
)
def test_impossible_means(change: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        broken(**change).check()
    assert all(part in str(caught.value) for part in parts)
    path = tmp_path / "de.safetensors"
    artifacts.write_sentences(path, broken(**change), {"language": "de"})
    with pytest.raises(artifacts.ArtifactError) as refused:
        artifacts.read_sentences(path)
    assert str(refused.value) == f"{path}: {caught.value}"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sentences_round_trip(dtype: type, tmp_path: Path) -> None:
    sentences = broken(means=np.random.default_rng(0).normal(size=(2, 1, 3)).astype(dtype))
    artifacts.write_sentences(tmp_path / "de.safetensors", sentences, {"language": "de"})
    found, metadata = artifacts.read_sentences(tmp_path / "de.safetensors")
    assert metadata == {"language": "de"}
    assert found.means.dtype == dtype
    assert (found.means == sentences.means).all()
    assert found.tokens.tolist() == [4, 1]
    with pytest.raises(artifacts.ArtifactError, match="sentences-1"):
        artifacts.read_activations(tmp_path / "de.safetensors")


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    for language in LANGUAGES:
        metadata = {"language": language}
        artifacts.write_activations(tmp_path / f"counts.{language}", COUNTS[language], metadata)
        artifacts.write_sentences(tmp_path / f"sentences.{language}", MEANS[language], metadata)
    return tmp_path


def identify(folder: Path, *more: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    inputs = ["--activations", *(f"{folder}/counts.{language}" for language in LANGUAGES)]
    rates = ["--top-rate", str(RATE), "--activation-percentile", str(PERCENTILE)]
    outputs = ["--output-neurons", f"{folder}/n.parquet", "--output-summary", f"{folder}/n.json"]
    identify_neurons.main([*inputs, *rates, *outputs, *more])
    table, metadata = artifacts.read_table(folder / "n.parquet", "neurons")
    assert metadata == artifacts.read_document(folder / "n.json", "selection")
    return table, metadata


def sentence_files(folder: Path) -> list[str]:
    return ["--sentences", *(f"{folder}/sentences.{language}" for language in LANGUAGES)]


DEFAULTS = {"bonus": 0.2, "neurons_per_language": None}


@pytest.mark.parametrize("method", METHODS)
def test_identify_neurons(method: str, recorded: Path) -> None:
    table, summary = identify(recorded, "--method", method, *sentence_files(recorded))
    pd.testing.assert_frame_equal(table, run(method).table, check_exact=True)
    settings = {
        "method": method,
        "top_rate": RATE,
        "activation_percentile": PERCENTILE,
        **{name: DEFAULTS[name] for name in METHODS[method].settings},
    }
    assert summary == run(method).summary() | settings | {"layers": LAYERS, "neurons_per_layer": NEURONS}


def test_identify_neurons_with_settings(recorded: Path) -> None:
    by_default = identify(recorded)
    assert by_default[1]["method"] == "lape"
    table, summary = identify(recorded, "--method", "lape-bonus", "--bonus", "0.25")
    assert summary["bonus"] == 0.25
    assert table["score"].tolist() == run("lape-bonus", bonus=0.25).table["score"].tolist()
    table, summary = identify(recorded, "--method", "mean-difference", "--neurons-per-language", "5")
    assert summary["neurons_per_language"] == 5
    assert summary["count_by_language"] == dict.fromkeys(LANGUAGES, 5)


def test_identify_neurons_refuses_a_language_twice(recorded: Path) -> None:
    twice = [f"{recorded}/sentences.de", f"{recorded}/sentences.de"]
    with pytest.raises(UserError, match=r"two recordings are of the same language: .*sentences\.de, .*sentences\.de"):
        identify(recorded, "--method", "probe", "--sentences", *twice)


def test_methods_without_sentences_do_not_read_their_files(recorded: Path) -> None:
    table, _ = identify(recorded, "--method", "lape", "--sentences", f"{recorded}/missing")
    assert len(table) == 9
