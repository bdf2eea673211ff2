"""What all unit tests share: reproducible property tests, and no network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

from langneurons.metrics.text import measure_outputs, stop_words
from langneurons.neurons.counting import ActivationCounts
from langneurons.published.activations import read_activations

# The same examples in every run, so that a change of code and not of luck turns a test red. No deadline: a busy machine
# is not a failure.
settings.register_profile("unit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")

LANGUAGES = ["en", "de", "tr"]
REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))


@pytest.fixture(scope="session")
def llama() -> dict[str, ActivationCounts]:
    """The published recordings of LLaMA-2-7B, by language."""
    folder = REFERENCE / "activations"
    if not folder.is_dir():
        pytest.skip(f"no published recordings in {folder}; name their folder in LANGNEURONS_REFERENCE")
    return {language: read_activations(folder / f"activation.{language}.train.llama-7b") for language in LANGUAGES}


@pytest.fixture(scope="session")
def published_answers() -> pd.DataFrame:
    """The published answers of LLaMA-2-7B, measured with the published stop words."""
    folder = REFERENCE / "generations" / "Llama-2-7b-hf"
    if not folder.is_dir():
        pytest.skip(f"no published generations in {folder}; name their folder in LANGNEURONS_REFERENCE")
    names = {"en": "english", "de": "german", "tr": "turkish"}
    lists = {language: stop_words(language, str(REFERENCE / "stopwords" / name)) for language, name in names.items()}
    rows = []
    for language in LANGUAGES:
        for edit in ("none", *LANGUAGES):
            suffix, name = ("", edit) if edit == "none" else (f".perturb.{edit}.train.llama-7b", f"deactivate-{edit}")
            entries = json.loads((folder / f"{language}{suffix}.jsonl").read_text(encoding="utf-8"))
            about = {"perturbation": name, "language": language, "output_tokens": None}
            rows += [about | {"id": f"{language}-{n}", "output": entry["output"]} for n, entry in enumerate(entries)]
    return measure_outputs(pd.DataFrame(rows), lists)
