"""Tables: what is made of partial results, of two selections, and of models that others ran."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts
from langneurons.neurons.counting import ActivationCounts
from langneurons.report import tables
from langneurons.report.tables import ModelResults

BASELINE = {"id": "none", "variant": "none", "kind": "none", "language": None, "source": None, "draw": None}


def selection(
    rows: list[tuple[str, int, int]], neurons_per_layer: int | None = 10, top_rate: float | None = None
) -> tuple[pd.DataFrame, dict]:
    """Neurons as (language, layer, neuron) of a model with 2 layers."""
    table = pd.DataFrame(rows, columns=["language", "layer", "neuron"]).assign(entropy=math.nan, probability=math.nan)
    unknown = dict.fromkeys(
        ("top_rate", "activation_percentile", "activation_bar", "candidates", "requested", "entropy_min", "entropy_max")
    )
    return table, unknown | {
        "top_rate": top_rate,
        "selected": len(table[["layer", "neuron"]].drop_duplicates()),
        "percentile_by_language": {"en": 0.25},
        "layers": 2,
        "neurons_per_layer": neurons_per_layer,
    }


MASK = [("en", 0, 1), ("en", 0, 2), ("zh", 0, 2), ("zh", 1, 2), ("zh", 1, 3)]
LAPE = [("en", 0, 1), ("de", 0, 2), ("de", 0, 9)]


def made(**models: ModelResults) -> dict[str, pd.DataFrame]:
    effects = tables.read_effects(Path(), [], [BASELINE])
    return tables.make_tables(models, effects, [BASELINE], [], ["en", "de"])


def test_mask_alone() -> None:
    result = made(theirs=ModelResults(neurons={"published": selection(MASK)}, languages={"published": ["en", "zh"]}))
    neurons = result["neurons"]
    assert neurons[["model", "method", "language", "neurons", "share_of_neurons"]].values.tolist() == [
        ["theirs", "published", "en", 2, 0.1],
        ["theirs", "published", "zh", 3, 0.15],
    ]
    assert neurons["mean_entropy"].isna().all()
    assert neurons["percentile"].tolist()[0] == 0.25
    assert math.isnan(neurons["percentile"].tolist()[1])
    assert result["neurons_by_layer"]["neurons"].tolist() == [2, 0, 1, 2]
    thresholds = result["thresholds"].iloc[0]
    assert (thresholds["selected"], thresholds["layers"], thresholds["neurons_per_layer"]) == (4, 2, 10)
    assert pd.isna(thresholds["activation_bar"])
    assert pd.isna(thresholds["requested"])


def test_mask_of_a_model_of_unknown_size() -> None:
    results = ModelResults(neurons={"published": selection(MASK, None)}, languages={"published": ["en", "zh"]})
    result = made(theirs=results)
    assert result["neurons"]["share_of_neurons"].isna().all()
    assert result["overlaps"]["expected"].isna().all()
    assert pd.isna(result["thresholds"]["neurons_per_layer"].iloc[0])


def test_overlaps_within_a_selection_and_between_selections_of_a_language() -> None:
    neurons = {"lape": selection(LAPE), "published": selection(MASK, None)}
    languages = {"lape": ["en", "de"], "published": ["en", "zh"]}
    overlaps = made(theirs=ModelResults(neurons=neurons, languages=languages))["overlaps"]
    found = {
        (row.method, row.language, row.other_method, row.other_language): (row.shared, row.jaccard, row.expected)
        for row in overlaps.itertuples()
    }
    # The mask does not tell the model's size; where LAPE does, chance is known: 20 neurons.
    nan = pytest.approx(math.nan, nan_ok=True)
    assert found == {
        ("lape", "en", "lape", "de"): (0, 0.0, 1 * 2 / 20),
        ("lape", "en", "published", "en"): (1, 1 / 2, 1 * 2 / 20),
        ("published", "en", "published", "zh"): (1, 1 / 4, nan),
    }


def test_empty_sets_have_no_jaccard() -> None:
    results = ModelResults(neurons={"lape": selection([])}, languages={"lape": ["en", "de"]})
    overlaps = made(theirs=results)["overlaps"]
    assert overlaps["shared"].tolist() == [0]
    assert math.isnan(overlaps["jaccard"].iloc[0])


def test_tables_without_rows_keep_their_columns() -> None:
    result = made(theirs=ModelResults())
    assert result.keys() == tables.COLUMNS.keys()
    for name, table in result.items():
        assert table.empty
        assert list(table.columns)[: len(tables.COLUMNS[name])] == tables.COLUMNS[name]


def test_models_with_different_contents() -> None:
    windows = pd.DataFrame({"perturbation": ["none"], "language": ["en"], "nll_sum": [2.0], "tokens": [2]})
    result = made(ours=ModelResults(perplexity=windows), theirs=ModelResults())
    assert result["perplexity"][["model", "language", "perplexity", "variant"]].values.tolist() == [
        ["ours", "en", pytest.approx(math.e), "none"]
    ]


def test_audit_and_replication_are_tables_too() -> None:
    finding = {"check": "padding", "severity": "note", "cell": "", "sentence": "A sentence."}
    results = ModelResults(
        neurons={"published": selection(MASK)},
        languages={"published": ["en", "zh"]},
        audit=[finding],
        replicates="phi-2",
    )
    result = made(theirs=results)
    assert result["audit"].values.tolist() == [["theirs", "padding", "note", "", "A sentence."]]
    replication = result["replication"]
    assert list(replication) == tables.COLUMNS["replication"]
    assert set(replication["reference"]) == {"phi-2"}
    row = replication.set_index(["quantity", "language"]).loc[("neurons", "en")]
    assert (row["theirs"], row["ours"], row["agrees"]) == (52, 2, False)


PERTURBATIONS = [
    BASELINE,
    {
        "id": "deactivate-en",
        "variant": "deactivate",
        "kind": "deactivate",
        "language": "en",
        "source": None,
        "draw": None,
    },
    {"id": "pair-en-de", "variant": "pair", "kind": "steer", "language": "de", "source": "en", "draw": None},
    {"id": "random-en-1", "variant": "random", "kind": "random", "language": "en", "source": None, "draw": 1},
]


def test_effects_are_described_by_their_perturbation() -> None:
    rows = [
        {"perturbation": row["id"], "language": "en", "measure": "perplexity", "against": "none", "difference": 0.5}
        for row in PERTURBATIONS[1:]
    ]
    results = ModelResults(differences=pd.DataFrame(rows))
    effects = tables.read_effects(Path(), [], PERTURBATIONS)
    made = tables.make_tables({"m": results}, effects, PERTURBATIONS, [], ["en", "de"])["differences"]
    described = made[["model", "perturbation", "variant", "kind", "edited_language", "source_language", "draw"]]
    assert described.astype(object).fillna("").values.tolist() == [
        ["m", "deactivate-en", "deactivate", "deactivate", "en", "", ""],
        ["m", "pair-en-de", "pair", "steer", "de", "en", ""],
        ["m", "random-en-1", "random", "random", "en", "", 1],
    ]


def test_settings_of_variants_are_a_table() -> None:
    row = {"variant": "deactivate", "kind": "deactivate", "method": "lape", "top_rate": 0.05}
    effects = tables.read_effects(Path(), [], [BASELINE])
    table = tables.make_tables({}, effects, [BASELINE], [row], ["en", "de"])["variants"]
    assert list(table) == tables.COLUMNS["variants"]
    assert table[list(row)].values.tolist() == [list(row.values())]


def test_methods_are_compared_at_the_default_rate() -> None:
    """Not with another rate, and not with a mask, whose overlaps are in a table of their own."""
    neurons = {
        "lape": selection(LAPE, top_rate=0.05),
        "probe": selection([("en", 0, 1), ("en", 1, 9)], top_rate=0.05),
        "lape-top-0.1": selection(LAPE, top_rate=0.1),
        "published": selection(MASK, None),
    }
    languages = {name: ["en", "de"] for name in neurons}
    table = made(m=ModelResults(neurons=neurons, languages=languages))["convergence"]
    assert set(zip(table["method"], table["other_method"], strict=True)) == {("lape", "probe")}
    whole = table[table["layer"].isna()].set_index("language")
    assert whole.loc["en", ["neurons", "other_neurons", "shared"]].tolist() == [1, 2, 1]
    assert whole.loc["en", "jaccard"] == 0.5
    assert whole.loc["en", "expected"] == 1 * 2 / 20


def test_one_method_alone_converges_with_nothing() -> None:
    neurons = {"lape": selection(LAPE, top_rate=0.05)}
    assert made(m=ModelResults(neurons=neurons, languages={"lape": ["en", "de"]}))["convergence"].empty


def test_published_recording_without_metadata_of_a_run(tmp_path: Path) -> None:
    counts = ActivationCounts(np.ones((2, 10), dtype=np.int64), None, None, 7)
    metadata = {"language": "en", "source": "published", "file": "act.en"}
    artifacts.write_activations(tmp_path / "activations" / "en.safetensors", counts, metadata)
    artifacts.write_records(tmp_path / "audit.json", "audit", [{"check": "padding"}])
    contents = {
        "published": True,
        "recorded": True,
        "methods": [],
        "mask_languages": [],
        "read": [],
        "answered": [],
        "replicates": None,
    }
    results = tables.read_model(tmp_path, contents, ["en"])
    table = made(theirs=results)["recordings"]
    assert table[["model", "language", "tokens", "file"]].values.tolist() == [["theirs", "en", 7, "act.en"]]
    assert table[["split", "documents", "window", "dtype"]].isna().all(axis=None)
