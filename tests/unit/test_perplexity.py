"""Perplexity and its ratio, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from langneurons.metrics.perplexity import summarise


def windows(rows: list[tuple[str, str, float, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["perturbation", "language", "nll_sum", "tokens"])


def test_perplexity_is_over_tokens_not_windows() -> None:
    """Windows of 10 and 30 tokens with means ln 2 and ln 4: the mean over tokens is (10 ln 2 + 30 ln 4) / 40."""
    rows = [("none", "en", 10 * np.log(2), 10), ("none", "en", 30 * np.log(4), 30)]
    table = summarise(windows(rows))
    assert table.loc[0, "perplexity"] == pytest.approx(2 ** (70 / 40), rel=1e-12)
    assert table.loc[0, ["windows", "tokens"]].tolist() == [2, 40]
    assert table.loc[0, "ratio"] == 1


def test_ratio_is_to_the_baseline_of_the_same_language() -> None:
    rows = [
        ("off", "en", np.log(6), 1),
        ("none", "en", np.log(3), 1),
        ("off", "de", np.log(10), 1),
        ("none", "de", np.log(8), 1),
    ]
    table = summarise(windows(rows)).set_index(["perturbation", "language"])
    assert table.loc[("off", "en"), "ratio"] == pytest.approx(2, rel=1e-12)
    assert table.loc[("off", "de"), "ratio"] == pytest.approx(1.25, rel=1e-12)
    assert table.loc[("none", "de"), "ratio"] == 1


def test_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    table = summarise(windows([("none", "tr", 127 * np.log(2500), 127)] * 5))
    assert table.loc[0, "perplexity"] == pytest.approx(2500, rel=1e-12)
