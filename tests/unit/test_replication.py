"""Published numbers as printed, ours beside them, and what the published files themselves give."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from langneurons.errors import UserError
from langneurons.metrics.text import summarise
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.lape import activation_entropy, select
from langneurons.report import agreement, findings, references, replication

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", ROOT.parent / "shared" / "reference"))
LANGUAGES = ["en", "de", "tr"]
PERTURBATIONS = ["none", "deactivate-en", "deactivate-de", "deactivate-tr"]
MASKS = ["llama-2-7b", "llama-2-13b", "llama-2-70b", "bloom-7b1", "opt-6.7b", "mistral-7b", "phi-2"]


# -- the file --------------------------------------------------------------------------------------------------------


def printed() -> dict[tuple[str, str, str, str, str], str]:
    return {tuple(number[:-1]): number.value for number in references.read()}


def test_names() -> None:
    assert references.references() == ["llama-2-7b", "mgpt", *MASKS[1:]]
    assert {number.source for number in references.read()} == set(references.SOURCES)


def test_names_are_read_without_pandas() -> None:
    code = "import sys; from langneurons.report import references; references.references(); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True, check=True
    )
    assert not {"pandas", "numpy", "torch"} & set(run.stdout.split())


def test_number_of_rows() -> None:
    rows = Counter(number[:3] for number in references.read())
    expected = {}
    for name in ("llama-2-7b", "mgpt"):
        expected |= {(name, "replication", "mean_characters"): 12, (name, "replication", "stop_word_ratio"): 12}
        expected |= {(name, "replication", "percentile"): 3, (name, "replication", "selected"): 1}
    for quantity, count in (("activation_bar", 1), ("neurons", 3), ("entropy_min", 1), ("entropy_max", 1)):
        expected[("llama-2-7b", "joint", quantity)] = count
    for name in MASKS:
        languages = 7 if name in ("llama-2-7b", "llama-2-13b") else 6
        expected |= {(name, "masks", "neurons"): languages}
        expected |= {(name, "masks", "distinct"): 1, (name, "masks", "layers"): 1}
    assert rows == expected


def test_every_combination_is_there_once() -> None:
    numbers = references.read()
    assert len({number[:-1] for number in numbers}) == len(numbers)
    for name in ("llama-2-7b", "mgpt"):
        for quantity in ("mean_characters", "stop_word_ratio"):
            own = [number for number in numbers if (number.reference, number.quantity) == (name, quantity)]
            combinations = {(number.perturbation, number.language) for number in own}
            assert combinations == {(edit, language) for edit in PERTURBATIONS for language in LANGUAGES}
    for name in MASKS:
        own = [number for number in numbers if number[:3] == (name, "masks", "neurons")]
        japanese = ["ja"] if name in ("llama-2-7b", "llama-2-13b") else []
        assert [number.language for number in own] == ["en", "zh", "fr", "es", "vi", "id", *japanese]
        assert {number.perturbation for number in own} == {""}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("llama-2-7b", "replication", "mean_characters", "none", "en"), "780.600"),
        (("llama-2-7b", "replication", "mean_characters", "deactivate-de", "en"), "1345.214"),
        (("llama-2-7b", "replication", "mean_characters", "deactivate-tr", "de"), "833.957"),
        (("llama-2-7b", "replication", "mean_characters", "deactivate-en", "tr"), "536.686"),
        (("llama-2-7b", "replication", "stop_word_ratio", "deactivate-en", "en"), "0.390"),
        (("llama-2-7b", "replication", "stop_word_ratio", "deactivate-tr", "tr"), "0.003"),
        (("llama-2-7b", "replication", "percentile", "", "de"), "0.6435436010"),
        (("llama-2-7b", "replication", "selected", "", ""), "3523"),
        (("llama-2-7b", "joint", "activation_bar", "", ""), "0.6512024"),
        (("llama-2-7b", "joint", "neurons", "", "de"), "1186"),
        (("llama-2-7b", "joint", "entropy_min", "", ""), "0.041636"),
        (("llama-2-7b", "joint", "entropy_max", "", ""), "0.957964"),
        (("llama-2-7b", "masks", "neurons", "", "ja"), "582"),
        (("llama-2-70b", "masks", "distinct", "", ""), "22938"),
        (("bloom-7b1", "masks", "layers", "", ""), "30"),
        (("phi-2", "masks", "neurons", "", "id"), "764"),
        (("mgpt", "replication", "percentile", "", "tr"), "0.7775343657"),
        (("mgpt", "replication", "selected", "", ""), "1966"),
    ],
)
def test_printed_digits(key: tuple[str, str, str, str, str], value: str) -> None:
    assert printed()[key] == value


def test_mgpt_is_the_same_under_every_perturbation() -> None:
    values = printed()
    for language, characters, ratio in (
        ("en", "953.471", "0.366"),
        ("de", "874.357", "0.396"),
        ("tr", "1007.143", "0.112"),
    ):
        for edit in PERTURBATIONS:
            assert values["mgpt", "replication", "mean_characters", edit, language] == characters
            assert values["mgpt", "replication", "stop_word_ratio", edit, language] == ratio


def test_decimals() -> None:
    decimals = {(number.source, number.quantity): number.decimals for number in references.read()}
    assert decimals == {
        ("replication", "mean_characters"): 3,
        ("replication", "stop_word_ratio"): 3,
        ("replication", "percentile"): 10,
        ("replication", "selected"): 0,
        ("joint", "activation_bar"): 7,
        ("joint", "neurons"): 0,
        ("joint", "entropy_min"): 6,
        ("joint", "entropy_max"): 6,
        ("masks", "neurons"): 0,
        ("masks", "distinct"): 0,
        ("masks", "layers"): 0,
    }
    assert set(decimals) == set(replication.PLACES)


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "decimals", "expected"),
    [
        (780.6, 780.600, 3, True),
        (780.6004, 780.600, 3, True),
        (780.601, 780.600, 3, False),
        (780.599, 780.600, 3, False),
        # Half-way between two printable numbers: either is right; a little further, only one.
        (780.6005, 780.600, 3, True),
        (780.6005, 780.601, 3, True),
        (780.60051, 780.600, 3, False),
        (0.0025, 0.002, 3, True),
        (0.0025, 0.003, 3, True),
        (1.0005, 1.0, 3, True),
        (1.0005, 1.001, 3, True),
        # The same from a sum whose rounding error, two units in the last place, is on the far side of half-way.
        (780.6005000000002, 780.600, 3, True),
        (780.6004999999998, 780.601, 3, True),
        # A float32 printed with more digits than it has.
        (float(np.float32(0.5280590057)), 0.5280590057, 10, True),
        (float(np.nextafter(np.float32(0.5280590057), np.float32(1))), 0.5280590057, 10, False),
        (3523.0, 3523.0, 0, True),
        (3522.0, 3523.0, 0, False),
        (math.inf, 3523.0, 0, False),
    ],
)
def test_agreement(ours: float, theirs: float, decimals: int, expected: bool) -> None:
    assert replication.agrees(ours, theirs, decimals) is expected


# -- comparison of tables made by hand -------------------------------------------------------------------------------


def tables_of(reference: str = "llama-2-7b") -> findings.Tables:
    """Tables of the model `ours` with exactly the published numbers, and of another model with zeros."""
    values = {key[1:]: float(value) for key, value in printed().items() if key[0] == reference}

    def value(*key: str) -> float:
        return values.get(key, math.nan)

    text = [
        {
            "perturbation": edit,
            "language": language,
            "mean_characters": value("replication", "mean_characters", edit, language),
            "stop_word_ratio": value("replication", "stop_word_ratio", edit, language),
        }
        for edit in PERTURBATIONS
        for language in LANGUAGES
    ]
    thresholds = [
        {"method": "lape", "selected": value("replication", "selected", "", ""), "layers": 32}
        | {name: value("joint", name, "", "") for name in ("activation_bar", "entropy_min", "entropy_max")},
        {
            "method": "published",
            "selected": value("masks", "distinct", "", ""),
            "layers": value("masks", "layers", "", ""),
        },
    ]
    neurons = [
        {
            "method": "lape",
            "language": language,
            "neurons": value("joint", "neurons", "", language),
            "percentile": value("replication", "percentile", "", language),
        }
        for language in LANGUAGES
    ]
    neurons += [
        {"method": "published", "language": language, "neurons": value("masks", "neurons", "", language)}
        for language in ("en", "zh", "fr", "es", "vi", "id", "ja")
    ]
    tables = {"text": pd.DataFrame(text), "thresholds": pd.DataFrame(thresholds), "neurons": pd.DataFrame(neurons)}
    result = {}
    for name, table in tables.items():
        zeros = table.assign(**dict.fromkeys(table.select_dtypes("number"), 0.0))
        result[name] = pd.concat([zeros.assign(model="other"), table.assign(model="ours")], ignore_index=True)
    return result


def row_of(comparison: pd.DataFrame, *key: str) -> pd.Series:
    columns = ["source", "quantity", "perturbation", "language"]
    return comparison.set_index(columns).loc[key]


@pytest.mark.parametrize("reference", ["llama-2-7b", "mgpt", "llama-2-70b", "phi-2"])
def test_published_numbers_agree_with_themselves(reference: str) -> None:
    comparison = replication.compare(reference, tables_of(reference), "ours")
    assert list(comparison) == [
        *("source", "quantity", "perturbation", "language", "theirs", "ours", "difference", "decimals", "agrees")
    ]
    numbers = references.numbers_of(reference)
    assert len(comparison) == len(numbers)
    assert comparison["theirs"].tolist() == [float(number.value) for number in numbers]
    assert comparison["decimals"].tolist() == [number.decimals for number in numbers]
    assert (comparison["difference"] == 0).all()
    assert comparison["agrees"].dtype == "boolean"
    assert comparison["agrees"].all()
    assert not comparison["agrees"].isna().any()


def test_the_last_digit_counts() -> None:
    tables = tables_of()
    text = tables["text"].set_index(["model", "perturbation", "language"])
    text.loc[("ours", "none", "en"), "mean_characters"] = 780.601
    text.loc[("ours", "none", "de"), "mean_characters"] = 1327.3005
    tables["text"] = text.reset_index()
    comparison = replication.compare("llama-2-7b", tables, "ours")
    row = row_of(comparison, "replication", "mean_characters", "none", "en")
    assert (row["theirs"], row["ours"], row["agrees"]) == (780.6, 780.601, False)
    assert row["difference"] == pytest.approx(0.001, abs=1e-12)  # rounding of a difference of two numbers near 1000
    assert row_of(comparison, "replication", "mean_characters", "none", "de")["agrees"]
    assert (~comparison["agrees"]).sum() == 1


def test_a_number_is_taken_from_its_method() -> None:
    """Ours differ by method, so that a mixed-up row would show."""
    tables = tables_of()
    tables["thresholds"] = pd.DataFrame(
        [
            {"model": "ours", "method": "published", "selected": 5, "layers": 6, "activation_bar": 0.7},
            {"model": "ours", "method": "lape", "selected": 8, "layers": 9, "activation_bar": 0.1},
        ]
    )
    tables["neurons"]["neurons"] = np.arange(len(tables["neurons"]))
    comparison = replication.compare("llama-2-7b", tables, "ours")
    assert row_of(comparison, "replication", "selected", "", "")["ours"] == 8
    assert row_of(comparison, "joint", "activation_bar", "", "")["ours"] == 0.1
    assert row_of(comparison, "masks", "distinct", "", "")["ours"] == 5
    assert row_of(comparison, "masks", "layers", "", "")["ours"] == 6
    # Ten rows of the other model come first; of ours, en de tr by lape, then en … ja as published.
    assert row_of(comparison, "joint", "neurons", "", "en")["ours"] == 10
    assert row_of(comparison, "masks", "neurons", "", "en")["ours"] == 13


@pytest.mark.parametrize("tables", [{}, dict.fromkeys(("text", "thresholds", "neurons"), pd.DataFrame())])
def test_without_tables(tables: findings.Tables) -> None:
    comparison = replication.compare("llama-2-7b", tables, "ours")
    assert len(comparison) == 43
    assert comparison[["ours", "difference", "agrees"]].isna().all(axis=None)
    assert not comparison["theirs"].isna().any()


def test_of_a_model_that_was_not_run() -> None:
    assert replication.compare("llama-2-7b", tables_of(), "absent")["ours"].isna().all()


def test_a_missing_table() -> None:
    tables = tables_of()
    del tables["text"]
    comparison = replication.compare("llama-2-7b", tables, "ours")
    text = comparison["quantity"].isin(["mean_characters", "stop_word_ratio"])
    assert comparison[text]["agrees"].isna().all()
    assert comparison[~text]["agrees"].all()


@pytest.mark.parametrize("value", [None, math.nan, pd.NA, "", "unknown"])
def test_a_missing_value(value: object) -> None:
    tables = tables_of()
    thresholds = tables["thresholds"].astype({"entropy_min": object})
    thresholds["entropy_min"] = [value] * len(thresholds)
    comparison = replication.compare("llama-2-7b", tables | {"thresholds": thresholds}, "ours")
    assert comparison[comparison["agrees"].isna()]["quantity"].tolist() == ["entropy_min"]


def test_missing_rows_and_columns() -> None:
    tables = tables_of()
    tables["text"] = tables["text"].query("perturbation != 'deactivate-tr'")
    tables["neurons"] = tables["neurons"].drop(columns="percentile")
    tables["thresholds"] = tables["thresholds"].query("method == 'lape'").drop(columns="entropy_max")
    comparison = replication.compare("llama-2-7b", tables, "ours")
    missing = comparison[comparison["ours"].isna()]
    assert Counter(missing["quantity"]) == {
        "mean_characters": 3,
        "stop_word_ratio": 3,
        "percentile": 3,
        "entropy_max": 1,
        "distinct": 1,
        "layers": 1,
    }
    assert missing["agrees"].isna().all()
    assert comparison[comparison["ours"].notna()]["agrees"].all()


@pytest.mark.parametrize("languages", [["en", "de"], ["en", "de", "tr", "fr"]])
def test_joint_numbers_are_of_three_languages(languages: list[str]) -> None:
    """With other languages the bar and the entropies are others; percentiles and the size of the selection are not."""
    tables = tables_of()
    neurons = tables["neurons"]
    french = pd.DataFrame([{"model": "ours", "method": "lape", "language": "fr", "neurons": 1.0, "percentile": 0.5}])
    neurons = pd.concat([neurons, french], ignore_index=True)
    tables["neurons"] = neurons[(neurons["method"] != "lape") | neurons["language"].isin(languages)]
    comparison = replication.compare("llama-2-7b", tables, "ours")
    assert comparison[comparison["source"] == "joint"]["ours"].isna().all()
    kept = comparison[(comparison["source"] == "replication") & comparison["language"].isin(["", *languages])]
    assert kept["agrees"].all()
    assert row_of(comparison, "replication", "selected", "", "")["agrees"]
    assert pd.isna(row_of(comparison, "replication", "percentile", "", "tr")["agrees"]) == ("tr" not in languages)


def test_unknown_reference() -> None:
    with pytest.raises(UserError, match=r"no published numbers of 'gpt-5'.* llama-2-7b, mgpt, .*phi-2\.$"):
        replication.compare("gpt-5", {}, "ours")


# -- sentences -------------------------------------------------------------------------------------------------------


def test_summary_of_agreement() -> None:
    summary = agreement.summarise(replication.compare("llama-2-7b", tables_of(), "ours"))
    assert [(part["source"], part["family"], part["rows"], part["compared"], part["agreeing"]) for part in summary] == [
        ("replication", "text", 24, 24, 24),
        ("replication", "percentiles", 3, 3, 3),
        ("replication", "size", 1, 1, 1),
        ("joint", "selection", 6, 6, 6),
        ("masks", "selection", 9, 9, 9),
    ]
    sentences = [part["sentence"] for part in summary]
    assert sentences[0] == "24 of 24 rows of length and stop-word ratio agree to the printed digits."
    assert sentences[1] == "3 of 3 rows of the percentiles of the activation probability agree to the printed digits."
    assert sentences[2] == "1 of 1 row of the number of selected neurons agrees to the printed digits."


def disagreeing(edits: int) -> pd.DataFrame:
    """So many perturbations differ by one character, and Turkish prompts were not answered."""
    tables = tables_of()
    text = tables["text"][tables["text"]["language"] != "tr"]
    wrong = text["perturbation"].isin(PERTURBATIONS[:edits])
    tables["text"] = text.assign(mean_characters=text["mean_characters"] + wrong)
    return replication.compare("llama-2-7b", tables, "ours")


def test_exceptions_are_named() -> None:
    assert agreement.summarise(disagreeing(1))[0]["sentence"] == (
        "14 of 16 rows of length and stop-word ratio agree to the printed digits; not mean_characters none en (ours "
        "781.600, theirs 780.600) and mean_characters none de (ours 1328.300, theirs 1327.300); 8 more cannot be "
        "compared, as this run has no such number."
    )


def test_many_exceptions_are_counted() -> None:
    assert agreement.summarise(disagreeing(3))[0]["sentence"] == (
        "10 of 16 rows of length and stop-word ratio agree to the printed digits; 8 more cannot be compared, as this "
        "run has no such number."
    )


def test_summary_of_nothing() -> None:
    summary = agreement.summarise(replication.compare("mgpt", {}, "ours"))
    assert [(part["rows"], part["compared"], part["agreeing"]) for part in summary] == [
        (24, 0, 0),
        (3, 0, 0),
        (1, 0, 0),
    ]
    assert summary[2]["sentence"] == (
        "0 of 1 row of the number of selected neurons can be compared: this run has no such number."
    )
    assert agreement.summarise(pd.DataFrame()) == []


@pytest.mark.parametrize("comparison", [disagreeing(1), replication.compare("mgpt", {}, "ours")], ids=["some", "none"])
def test_summary_of_a_csv_file(comparison: pd.DataFrame, tmp_path: Path) -> None:
    comparison.to_csv(tmp_path / "replication.csv", index=False)
    read = findings.read_csv(tmp_path / "replication.csv")
    assert agreement.summarise(read) == agreement.summarise(comparison)


# -- the published files ---------------------------------------------------------------------------------------------


def test_published_answers_give_the_published_table(published_answers: pd.DataFrame) -> None:
    table = summarise(published_answers, LANGUAGES).assign(model="llama")
    comparison = replication.compare("llama-2-7b", {"text": table}, "llama")
    text = comparison[comparison["quantity"].isin(["mean_characters", "stop_word_ratio"])]
    assert len(text) == 24
    assert text["agrees"].all()
    assert not text["agrees"].isna().any()
    assert (text["difference"].abs() <= 0.0005).all()
    assert agreement.summarise(comparison)[0]["agreeing"] == 24


def test_published_recordings_give_the_published_numbers(llama: dict[str, ActivationCounts]) -> None:
    """The joint entropies are known to six digits, since the published code computes them in float32."""
    summary = select(llama, top_rate=0.01, activation_percentile=0.95).summary()
    neurons = [
        {
            "language": language,
            "neurons": summary["count_by_language"][language],
            "percentile": summary["percentile_by_language"][language],
        }
        for language in LANGUAGES
    ]
    tables = {
        "thresholds": pd.DataFrame([summary]).assign(model="llama", method="lape", layers=32),
        "neurons": pd.DataFrame(neurons).assign(model="llama", method="lape"),
    }
    comparison = replication.compare("llama-2-7b", tables, "llama")
    percentiles = comparison[comparison["quantity"] == "percentile"]
    assert len(percentiles) == 3
    assert percentiles["agrees"].all()
    assert (percentiles["difference"].abs() <= 1e-9).all()
    selected = row_of(comparison, "replication", "selected", "", "")
    assert (selected["ours"], selected["agrees"]) == (3523, True)
    joint = comparison[comparison["source"] == "joint"]
    assert len(joint) == 6
    assert joint["agrees"].all()
    assert agreement.summarise(comparison)[3]["sentence"] == (
        "6 of 6 rows of the selection of neurons agree to the printed digits."
    )


def test_joint_entropies_were_printed_from_single_precision(llama: dict[str, ActivationCounts]) -> None:
    """Why only six digits are compared: in float32, as in the published code, the seventh is another."""
    table = select(llama, top_rate=0.01, activation_percentile=0.95).table
    at = table["layer"].to_numpy(), table["neuron"].to_numpy()
    probability = np.stack([counts.probability() for counts in llama.values()])[:, *at]
    share = torch.tensor(probability / probability.sum(axis=0))
    single = -(share * torch.where(share > 0, share.log(), 0)).sum(dim=0)
    assert single.dtype == torch.float32
    assert replication.agrees(single.min().item(), 0.0416363, 7)
    # Half a unit of the printed digit and one step of float32, as another CPU may round the sum of three the other way.
    assert abs(single.max().item() - 0.9579644) <= 0.5e-7 + np.spacing(np.float32(0.95))
    double = activation_entropy(probability[:, :, None])
    assert not replication.agrees(double.min(), 0.0416363, 7)
    assert not replication.agrees(double.max(), 0.9579644, 7)
