"""Perplexity from the negative log-likelihood of windows."""

from __future__ import annotations

import numpy as np
import pandas as pd


def summarise(windows: pd.DataFrame) -> pd.DataFrame:
    """Perplexity per perturbation and language, and its ratio to the baseline.

    Args:
        windows: one row per window: `perturbation, language, nll_sum, tokens`; the perturbation `none` is the baseline.

    Returns:
        `perturbation, language, windows, tokens, perplexity, ratio`, in the order of appearance. Perplexity is
        `exp(sum of nll / number of scored tokens)` over all windows of a language.
    """
    groups = windows.groupby(["perturbation", "language"], sort=False)
    table = groups.agg(windows=("tokens", "size"), tokens=("tokens", "sum"), nll=("nll_sum", "sum")).reset_index()
    mean = table["nll"] / table["tokens"]
    table["perplexity"] = np.exp(mean)
    baseline = mean[table["perturbation"] == "none"].set_axis(table.loc[table["perturbation"] == "none", "language"])
    table["ratio"] = np.exp(mean - table["language"].map(baseline))
    return table.drop(columns="nll")
