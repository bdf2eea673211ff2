"""What the time of `make run` is made of. Whoever makes the default experiment do more raises a number here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from langneurons import graph, variants, workload
from langneurons.validation import validate
from langneurons.variants import Mapping

CONFIG = Path(__file__).parents[2] / "config.yaml"

LOADING = ("train_demo_model", "record_activations", "record_sentences", "measure_perplexity", "generate_text")
"""Beginnings of the rules whose jobs load a model: each takes seconds before it does anything."""


@pytest.fixture(scope="module")
def config() -> Mapping:
    return validate(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))


def test_jobs_and_processes_that_load_a_model(config: Mapping) -> None:
    found = Counter(
        next((stem for stem in (*LOADING, "plan", "score") if rule.startswith(stem)), rule)
        for rule in (job.rule for job in graph.jobs(config))
    )
    loading = {stem: found.pop(stem) for stem in LOADING}
    assert loading == {
        "train_demo_model": 2,
        "record_activations": 6,
        "record_sentences": 2,
        "measure_perplexity": 8,
        "generate_text": 12,
    }
    assert found.total() <= 50


def test_tokens_trained_recorded_and_read(config: Mapping) -> None:
    models = config["run"]["models"]
    trained = sum(config["models"][model]["training_tokens"] for model in models)
    recorded = sum(sum(workload.recorded_tokens(config, model).values()) for model in models)
    held_out = sum(
        sum(workload.whole_tokens(config, model, config["perplexity"]["split"]).values()) for model in models
    )
    read = held_out * len(variants.perturbations(config, variants.PERPLEXITY))
    assert 0 < trained <= 800_000
    assert 0 < recorded <= 340_000
    assert 0 < read <= 800_000


def test_answers_and_their_tokens(config: Mapping) -> None:
    answers = len(config["run"]["models"]) * workload.answers(config)
    assert 0 < answers <= 10_500
    assert answers * config["generation"]["max_new_tokens"] <= 500_000
