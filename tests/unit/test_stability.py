"""How many selected neurons other text, or less of it, gives again: worked out by hand."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts
from langneurons.neurons.counting import ActivationCounts, join_halves
from langneurons.neurons.stability import stability

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "test_stability.py"
COLUMNS = ["comparison", "language", "tokens", "neurons", "other_neurons", "shared", "jaccard", "expected"]


def part(tokens: int, others: int, **strong: int) -> ActivationCounts:
    """Counts of ten neurons, n0 to n9, in two layers of five: some by name, the others all alike."""
    over_zero = np.full(10, others)
    for name, count in strong.items():
        over_zero[int(name[1:])] = count
    zeros = np.zeros((2, 5))
    return ActivationCounts(over_zero.reshape(2, 5), zeros, zeros, tokens)


def recording(first: ActivationCounts, second: ActivationCounts, other: ActivationCounts) -> ActivationCounts:
    """Two quarters and the other half."""
    counts = join_halves(join_halves(first, second), other)
    counts.check()
    return counts


# Four of ten neurons are selected, and the bar is of rank 14 of 20, where only strong activity exceeds it. English: n0
# in all parts; n1 only in the second quarter, n4 in the first (barely), n6 in the other half. German: n2 and n7 always.
# All of English: n0 16 of 20, n1 and n6 6 each, the others 2. n1 and n6 tie; the first of them is the fourth neuron.
COUNTS = {
    "en": recording(part(5, 0, n0=4, n4=1), part(5, 1, n0=4, n1=5, n4=0), part(10, 1, n0=8, n6=5)),
    "de": recording(part(8, 0, n2=7, n7=7), part(12, 2, n2=9, n7=9), part(18, 2, n2=15, n7=15)),
}
TOP_RATE, PERCENTILE = 0.4, 0.7


def table(counts: dict[str, ActivationCounts] = COUNTS) -> pd.DataFrame:
    return stability(counts, TOP_RATE, PERCENTILE)


def test_all_comparisons_by_hand() -> None:
    expected = pd.DataFrame(
        [
            # {n0, n1} against {n0, n6}: one of three. By chance 2 * 2 / 10.
            ("halves", "en", 10, 2, 2, 1, 1 / 3, 0.4),
            ("halves", "de", 18, 2, 2, 2, 1.0, 0.4),
            # The first quarter has {n0, n4}, all text {n0, n1}.
            ("1/4", "en", 5, 2, 2, 1, 1 / 3, 0.4),
            ("1/4", "de", 8, 2, 2, 2, 1.0, 0.4),
            ("1/2", "en", 10, 2, 2, 2, 1.0, 0.4),
            ("1/2", "de", 20, 2, 2, 2, 1.0, 0.4),
        ],
        columns=COLUMNS,
    )
    pd.testing.assert_frame_equal(table(), expected)


def test_the_order_of_languages_is_that_of_the_recordings() -> None:
    turned = table(dict(reversed(COUNTS.items())))
    assert turned["language"].tolist() == ["de", "en"] * 3
    assert turned.loc[turned["language"] == "en", "jaccard"].tolist() == [1 / 3, 1 / 3, 1.0]


def test_sets_of_different_sizes() -> None:
    """In the other half English has three strong neurons and German one: 1 of 3 and 1 of 2 are shared."""
    counts = {
        "en": recording(part(5, 0, n0=4), part(5, 1, n0=4), part(10, 1, n0=8, n6=8, n9=8)),
        "de": recording(part(8, 0, n2=7, n7=7), part(12, 2, n2=9, n7=9), part(18, 2, n2=15)),
    }
    halves = table(counts).query("comparison == 'halves'").set_index("language")
    assert halves.loc["en", ["neurons", "other_neurons", "shared", "jaccard", "expected"]].tolist() == [
        1,
        3,
        1,
        1 / 3,
        0.3,
    ]
    assert halves.loc["de", ["neurons", "other_neurons", "shared", "jaccard", "expected"]].tolist() == [
        2,
        1,
        1,
        0.5,
        0.2,
    ]


def test_the_same_neuron_of_another_layer_is_another_neuron() -> None:
    """n1 and n6 are neuron 1 of either layer."""
    counts = {
        "en": recording(part(5, 0, n1=4), part(5, 1, n1=4), part(10, 1, n6=8)),
        "de": COUNTS["de"],
    }
    halves = table(counts).query("comparison == 'halves' and language == 'en'").iloc[0]
    assert (halves["neurons"], halves["other_neurons"], halves["shared"], halves["jaccard"]) == (1, 1, 0, 0.0)


def test_a_language_without_neurons_on_either_side_has_no_share() -> None:
    nothing = recording(part(5, 0), part(5, 0), part(10, 0))
    found = table({"en": nothing, "de": COUNTS["de"]})
    english = found[found["language"] == "en"]
    assert english[["neurons", "other_neurons", "shared", "expected"]].to_numpy().tolist() == [[0, 0, 0, 0]] * 3
    assert english["jaccard"].isna().all()
    assert found.loc[found["language"] == "de", "jaccard"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("language", ["en", "de"])
def test_comparisons_need_the_parts_of_every_language(language: str) -> None:
    counts = COUNTS[language]
    no_quarter = {**COUNTS, language: replace(counts, quarter_over_zero=None, quarter_tokens=0)}
    pd.testing.assert_frame_equal(
        table(no_quarter), table().query("comparison != '1/4'").reset_index(drop=True), check_exact=True
    )
    whole = ActivationCounts(counts.over_zero, None, None, counts.tokens)
    published = table({**COUNTS, language: whole})
    assert published.empty
    assert published.columns.tolist() == COLUMNS


def sizes(found: pd.DataFrame, comparison: str) -> list[list[int]]:
    """Neurons of either side and shared ones, of English, then German."""
    rows: list[list[int]] = found.query("comparison == @comparison")[
        ["neurons", "other_neurons", "shared"]
    ].values.tolist()
    return rows


def test_the_rate_is_used() -> None:
    """One neuron: in half of the text n0 and n2 tie (0.8 and 0.1), in all of it n2 is more specific (31 of 38 tokens
    against 0.1; n0 0.8 against 4 of 38)."""
    assert sizes(stability(COUNTS, 0.1, PERCENTILE), "1/2") == [[1, 0, 0], [0, 1, 0]]


def test_the_bar_is_used() -> None:
    """Of rank 16 of 20: in half of the text 0.1, less than n0, n1, n2 and n7; in all of it 0.3, that of n1 and n6."""
    assert sizes(stability(COUNTS, TOP_RATE, 0.8), "1/2") == [[2, 1, 1], [2, 2, 2]]


def test_the_script(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("stability_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for language, counts in COUNTS.items():
        artifacts.write_activations(tmp_path / f"{language}.safetensors", counts, {"language": language})
    output = tmp_path / "stability.parquet"
    script.main(
        [
            *("--activations", *(str(tmp_path / f"{language}.safetensors") for language in COUNTS)),
            *("--top-rate", str(TOP_RATE), "--activation-percentile", str(PERCENTILE), "--output", str(output)),
        ]
    )
    written, _ = artifacts.read_table(output, "stability")
    pd.testing.assert_frame_equal(written, table(), check_dtype=False)
