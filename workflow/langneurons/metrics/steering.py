"""Whether steering succeeds: how many answers are in the target language."""

from __future__ import annotations

from typing import Any

import pandas as pd

from langneurons.metrics.language import knows
from langneurons.metrics.statistics import MINIMUM_SAMPLES, share_interval

Json = dict[str, Any]
ALL = "all"
"""Stands for all directions: every prompt language and every other language as target."""
COLUMNS = ["variant", "language", "target", "prompts", "draws", "share", "low", "high", "note"]


def success(text: pd.DataFrame, perturbations: list[Json]) -> pd.DataFrame:
    """Share of answers in the target language, for prompts in other languages.

    The unit is the prompt: its draws and, over all directions, its targets are averaged first, since answers to one
    prompt are not independent. The interval is Wilson's for so many prompts, which is cautious where answers were
    averaged.

    Args:
        text: one row per answer: `perturbation, language, id, output_language, identifier`.
        perturbations: `id, variant, kind, language` (the target), `source` (whose neurons are off as well: only
            prompts in that language count), `draw` of every perturbation, the baseline first.

    Returns:
        `variant, language` (of the prompts), `target, prompts, draws, share, low, high, note`: every direction, then
        all of them together (`all`). The baseline is there too: answers in a language that nothing steers to. Targets
        that the identifier does not know are left out.
    """
    if text.empty:
        return pd.DataFrame(columns=COLUMNS)
    about = pd.DataFrame(perturbations).set_index("id")
    identifier = str(text["identifier"].iloc[0])
    named = dict.fromkeys([*text["language"], *about["language"].dropna()])  # of prompts, then of targets without any
    languages = [name for name in named if knows(str(name), identifier)]
    parts = []
    for perturbation, answers in text.groupby("perturbation", sort=False):
        row = about.loc[perturbation]
        for target in languages if row["kind"] == "none" else [row["language"]]:
            if target in languages:
                hits = (answers["output_language"] == target).astype(float)
                part = answers[["language", "id"]].assign(variant=row["variant"], target=target, hit=hits)
                source = row.get("source")
                part = part[part["language"] == source] if pd.notna(source) else part
                parts.append(part[part["language"] != target])
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    single = pd.concat(parts, ignore_index=True)
    draws = about.groupby("variant")["draw"].nunique()
    rows = []
    for variant, group in single.groupby("variant", sort=False):
        number = int(draws.get(variant, 0))
        for (language, target), answers in group.groupby(["language", "target"], sort=False):
            rows.append({"language": language, "target": target, **_share(answers)})
        rows.append({"language": ALL, "target": ALL, **_share(group)})
        for row in rows:
            row.setdefault("variant", variant)
            row.setdefault("draws", number)
    return pd.DataFrame(rows, columns=COLUMNS)


def _share(answers: pd.DataFrame) -> Json:
    by_prompt = answers.groupby(["language", "id"])["hit"].mean()
    number, share = len(by_prompt), float(by_prompt.mean())
    if number < MINIMUM_SAMPLES:
        return {"prompts": number, "share": share, "note": f"fewer than {MINIMUM_SAMPLES} prompts: no interval"}
    low, high = share_interval(share * number, number)
    return {"prompts": number, "share": share, "low": low, "high": high}
