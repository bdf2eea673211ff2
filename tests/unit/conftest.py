"""What all unit tests share: reproducible property tests, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from langneurons.neurons.counting import ActivationCounts
from langneurons.published.activations import read_activations

# The same examples in every run, so that a change of code and not of luck turns a test red. No deadline: a busy machine
# is not a failure.
settings.register_profile("unit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")

REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))


@pytest.fixture(scope="session")
def llama() -> dict[str, ActivationCounts]:
    """The published recordings of LLaMA-2-7B, by language."""
    folder = REFERENCE / "activations"
    if not folder.is_dir():
        pytest.skip(f"no published recordings in {folder}; name their folder in LANGNEURONS_REFERENCE")
    return {
        language: read_activations(folder / f"activation.{language}.train.llama-7b") for language in ("en", "de", "tr")
    }
