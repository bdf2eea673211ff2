"""How much text the jobs of an experiment read and write. Standard library only."""

from __future__ import annotations

from langneurons import config as experiment
from langneurons import variants
from langneurons.corpus.prompts import read_prompts
from langneurons.variants import ANSWERS, Mapping


def whole_tokens(config: Mapping, model: str, split: str) -> dict[str, int]:
    """Tokens of a split by language of the run: those of whole windows."""
    window = experiment.window(config, model)
    return {
        language: experiment.tokens(config, language)[split] // window * window
        for language in config["run"]["languages"]
    }


def recorded_tokens(config: Mapping, model: str) -> dict[str, int]:
    """Tokens whose activations are recorded, by language."""
    return whole_tokens(config, model, config["recording"]["split"])


def shards(config: Mapping) -> int:
    """Jobs among which the recording of one language is split."""
    return int(config["recording"].get("shards", 1))


def sentences(config: Mapping) -> int:
    """Sentences of each language that are recorded; 0 if no method of the run compares sentences."""
    methods = [selection["method"] for selection in variants.run_selections(config).values()]
    needed = any(method in variants.SENTENCE_METHODS for method in methods)
    return int(config["identification"]["sentences"]) if needed else 0


def prompts(config: Mapping) -> int:
    """Prompts of all languages that are answered under each perturbation."""
    settings = config["generation"]
    return sum(
        len(read_prompts(path, language, settings["validation_prompts"], settings["split"]))
        for language in config["run"]["languages"]
        if (path := experiment.prompt_path(config, language))
    )


def answers(config: Mapping) -> int:
    """Answers of one model under all perturbations of the run."""
    return prompts(config) * len(variants.perturbations(config, ANSWERS))
