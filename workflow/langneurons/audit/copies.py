"""The check that files are not copies of each other, and that recordings and answers hold something."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from langneurons.audit.evidence import NOTE, PASSED, WARNING, Evidence, Found

MOST = 0.5
"""Answers of which this share is empty, or begins with its prompt, are not what the tables take them for."""


def check_copies(evidence: Evidence) -> Found:
    """Whether two recordings or two perturbations are the same, or one of them holds nothing."""
    found = [*_recordings(evidence), *_answers(evidence)]
    yield from found
    if not evidence.recordings and evidence.text is None:
        yield NOTE, "", "There are no recordings and no answers to compare with each other."
    elif not found:
        yield PASSED, "", "No recording and no set of answers is empty, or a copy of another one."


def _recordings(evidence: Evidence) -> Found:
    for language, counts in evidence.recordings.items():
        if not counts.over_zero.any():
            yield WARNING, language, f"No neuron is ever active on {language}: its recording holds nothing but zeros."
    for one, other in combinations(evidence.recordings, 2):
        first, second = evidence.recordings[one].over_zero, evidence.recordings[other].over_zero
        if first.any() and np.array_equal(first, second):
            yield WARNING, f"{one}, {other}", f"The recordings of {one} and {other} are the same: one file, twice?"


def _answers(evidence: Evidence) -> Found:
    if evidence.text is None:
        return
    for (perturbation, language), answers in evidence.text.groupby(["perturbation", "language"], sort=False):
        cell = f"{perturbation}/{language}"
        empty = float((answers["output"].str.strip() == "").mean())
        pairs = zip(answers["output"], answers["input"], strict=True)
        prefixed = float(np.mean([output.startswith(prompt) for output, prompt in pairs if prompt] or [False]))
        if empty >= MOST:
            yield WARNING, cell, f"{empty:.0%} of the answers in {language} under {perturbation} are empty."
        if prefixed >= MOST:
            yield (
                WARNING,
                cell,
                f"{prefixed:.0%} of the answers in {language} under {perturbation} begin with their prompt, which is "
                "then counted as part of the answer.",
            )
    edited = [row["id"] for row in evidence.perturbations if row["kind"] not in ("none", "random")]
    outputs = {name: _outputs(evidence.text, name) for name in edited}
    for one, other in combinations(edited, 2):
        if outputs[one] and outputs[one] == outputs[other] and outputs[one] != _outputs(evidence.text, "none"):
            yield WARNING, f"{one}, {other}", f"All answers under {one} and {other} are the same: one file, twice?"


def _outputs(text: pd.DataFrame, perturbation: str) -> list[tuple[str, str, str]]:
    own = text[text["perturbation"] == perturbation]
    return sorted(zip(own["language"], own["id"], own["output"], strict=True))
