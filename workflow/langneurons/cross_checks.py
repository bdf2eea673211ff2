"""What a schema cannot check of a config: names that must exist elsewhere, how many there are, and files.

Imported by the Snakefile, so only the standard library may be imported here and in what this imports.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from langneurons.config import (
    contents,
    corpus,
    embedded_languages,
    model_files,
    own_models,
    prompt_path,
    selections,
    source_files,
    tokens,
    window,
)
from langneurons.corpus.prompts import read_prompts
from langneurons.errors import ConfigError
from langneurons.neurons.sharding import most, unit
from langneurons.publications import check_files
from langneurons.report.references import references
from langneurons.sizes import depth
from langneurons.variants import ANSWERS, BASELINE, PERPLEXITY, Mapping, describe_all, jobs, needing_sums, perturbations

NO_MODELS = ("logs", "timings", "tables", "figures", "report", "benchmarks")
"""Folders of a results folder that are no model's: what is in them is for people."""


def cross_check(config: Mapping, written: Mapping) -> None:
    """Check the config.

    Args:
        config: with all defaults, and all sweeps expanded.
        written: its section `run`, before sweeps were expanded.

    Raises:
        UserError: naming the key and the remedy.
    """
    _check_names(config, written)
    run = config["run"]
    compared = [name for name in run["models"] if config["identification"]["method"] in selections(config, name)]
    if len(run["languages"]) < 2 and compared:
        raise ConfigError(
            f"config key 'run.languages' names only '{run['languages'][0]}'. LAPE compares languages: with one "
            "language every neuron has entropy 0 and the selection would be arbitrary. Name at least two."
        )
    share = config["corpora"]["share"]
    if share["valid"] + share["test"] >= 1:
        raise ConfigError("config key 'corpora.share': valid and test together must leave something to train on.")
    for name in run["models"]:
        _check_model(config, name)
    for language in run["languages"] if any(contents(config, name)["answered"] for name in run["models"]) else []:
        _check_stop_words(language, config["metrics"]["stop_words"].get(language))
    _check_variants(config)
    _check_relevance(config["metrics"]["relevance"] or {})
    _check_fonts(config["report"]["fonts"])


def _check_names(config: Mapping, written: Mapping) -> None:
    """Check that the run chooses what there is, and that no name means something else."""
    run = config["run"]
    for key, catalogue in (("models", config["models"]), ("perturbations", config["perturbations"])):
        for name in run[key]:
            if name == BASELINE and key == "perturbations":
                raise ConfigError(
                    f"config key 'run.{key}[{written[key].index(name)}]' names the baseline '{BASELINE}', which always "
                    "runs. Leave it out."
                )
            if name not in catalogue:
                raise ConfigError(
                    f"config key 'run.{key}[{written[key].index(name)}]' names '{name}', which is no entry of '{key}'. "
                    f"Entries there: {', '.join(sorted(catalogue)) or 'none'}."
                )
    if BASELINE in config["perturbations"]:
        raise ConfigError(f"config key 'perturbations.{BASELINE}': this name is kept for the baseline. Choose another.")
    for name in config["models"]:
        if name in NO_MODELS:
            raise ConfigError(
                f"config key 'models.{name}': the folder results/{name} is kept for other files. Choose another name; "
                f"these are kept: {', '.join(NO_MODELS)}."
            )


def _check_stop_words(language: str, source: str | None) -> None:
    """Check that there is a list: a file, or one of the package, if that is installed where Snakemake runs."""
    if source and Path(source).is_file():
        return
    if source and "/" in source:
        raise ConfigError(
            f"config key 'metrics.stop_words.{language}': the file '{source}' does not exist. Correct the path, "
            "which is relative to the folder in which snakemake runs, or name the code of a list of stopwordsiso."
        )
    if importlib.util.find_spec("stopwordsiso") is None:
        return
    import stopwordsiso

    code = source or language
    if not stopwordsiso.has_lang(code):
        raise ConfigError(
            f"language '{language}' has no stop-word list: '{code}' is neither a file nor a list of stopwordsiso "
            f"({', '.join(sorted(stopwordsiso.langs()))}). Name a file with one word per line in "
            f"'metrics.stop_words.{language}'."
        )


def _check_variants(config: Mapping) -> None:
    """Check what variants need of the languages, the models and the recordings, and that their names differ."""
    run = config["run"]
    for variant in run["perturbations"]:
        settings = config["perturbations"][variant]
        owner = config["perturbations"][settings["of"]] if settings.get("of") else settings
        for target in settings.get("targets") or ():
            if target not in run["languages"]:
                raise ConfigError(
                    f"config key 'perturbations.{owner['family']}.targets' names '{target}', whose activations are not "
                    "recorded. Add it to 'run.languages'."
                )
        for model in own_models(config) if settings.get("layers") else []:
            layers = depth(config, model) if model in run["models"] else None
            if layers is not None and max(settings["layers"]) >= layers:
                raise ConfigError(
                    f"config key 'perturbations.{owner['family']}.layers' names layer {max(settings['layers'])}, but "
                    f"the model '{model}' has {layers} layers, the last of them {layers - 1}. Correct it, or leave it "
                    "out for the middle one."
                )
    if not config["recording"]["sums"] and (needing := needing_sums(config)) and own_models(config):
        raise ConfigError(
            "config key 'recording.sums' is false, but sums are needed by " + ", ".join(needing) + ". Leave these out "
            "of 'run.perturbations' and 'identification', or record sums."
        )
    for what, names in (
        ("perturbation", perturbations(config)),
        *(("job", [job.name for job in jobs(config, measure)]) for measure in (PERPLEXITY, ANSWERS)),
    ):
        for name, number in Counter(names).items():
            if number > 1:
                raise ConfigError(
                    f"config key 'perturbations': two variants give the {what} '{name}'. Rename one of them."
                )


def _check_relevance(settings: Mapping) -> None:
    """Check that the model that scores relevance is a folder or one of the hub, and which."""
    named = [key for key in ("path", "id") if key in settings]
    if settings and len(named) != 1:
        raise ConfigError(
            "config key 'metrics.relevance': name the model that scores, either as 'path', a local folder, or as 'id', "
            f"a repository of the hub, and not {'both' if named else 'neither'}."
        )
    if "path" in named and settings["revision"] is not None:
        raise ConfigError(
            "config key 'metrics.relevance.revision' belongs to a repository of the hub, but 'path' is a local folder. "
            "Name the repository in 'id', or leave 'revision' out."
        )


def _check_model(config: Mapping, name: str) -> None:
    """Check a model of the run: the text it runs on and its files, or the files that others published."""
    reference = config["models"][name].get("replicates")
    if reference is not None and reference not in references():
        raise ConfigError(
            f"config key 'models.{name}.replicates' is '{reference}', of which no published numbers are known here. "
            f"Known: {', '.join(references())}."
        )
    if name not in own_models(config):
        check_files(config, name, describe_all(config))
        return
    for language in [*config["run"]["languages"], *config["models"][name].get("languages", [])]:
        _check_language(config, language)
    _check_shards(config, name)
    model_files(config, name)


def _check_shards(config: Mapping, name: str) -> None:
    shards, settings = config["recording"]["shards"], config["models"][name]
    size = unit(settings["engine"], settings["batch_size"])
    for language in config["run"]["languages"] if shards > 1 else []:
        windows = tokens(config, language)[config["recording"]["split"]] // window(config, name)
        if shards > most(windows, size):
            raise ConfigError(
                f"config key 'recording.shards' is {shards}, but the {windows:,} windows of language '{language}' for "
                f"the model '{name}' can be shared by at most {most(windows, size)}: a shard has {size} or more, since "
                f"it ends where batches end. Lower it, or 'models.{name}.batch_size' (now {settings['batch_size']})."
            )


def _check_language(config: Mapping, language: str) -> None:
    if corpus(config, language)["source"] == "embedded" and language not in embedded_languages():
        raise ConfigError(
            f"language '{language}' has no corpus: the embedded one holds {', '.join(embedded_languages())}. Name a "
            f"source in 'corpora.languages.{language}', such as {{source: files, path: \"texts/{language}/*.txt\"}}."
        )
    source = corpus(config, language)
    if source["source"] == "wikipedia" and source["dataset"][0] not in "./~" and Path(source["dataset"]).exists():
        raise ConfigError(
            f"config key 'corpora': the dataset '{source['dataset']}' of language '{language}' is a folder here, and "
            f"may be one of the hub. Write ./{source['dataset']} for the folder, or rename it."
        )
    source_files(source, language)
    if language not in config["run"]["languages"]:
        return
    for split, value in config["corpora"]["tokens"].items():
        if isinstance(value, dict) and language not in value:
            raise ConfigError(
                f"config key 'corpora.tokens.{split}' names no number for language '{language}'. Give one for every "
                "language of the run, or one number for all."
            )
    path = prompt_path(config, language)
    if path is None:
        raise ConfigError(
            f"language '{language}' has no prompts: name a text file with one question per line in "
            f"'generation.prompts.{language}'."
        )
    settings = config["generation"]
    read_prompts(path, language, settings["validation_prompts"], settings["split"])


def _check_fonts(paths: Sequence[str]) -> None:
    """That the fonts of the PDF are there; whether they can be read is found out when it is made."""
    for place, path in enumerate(paths):
        if not Path(path).exists():
            raise ConfigError(
                f"config key 'report.fonts[{place}]': there is no {path}. Name a font file or a folder of such, or "
                "leave the key out: then fonts of the system are looked for."
            )
