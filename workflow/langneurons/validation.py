"""Validation of the config: one message that names the key, what was expected and what to do.

Imported by the Snakefile, so only the standard library, PyYAML and jsonschema may be imported here and in what this
imports. The schema `workflow/schemas/config.schema.yaml` is the one source of types, meanings and defaults.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from langneurons import sweeps
from langneurons.config import (
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
from langneurons.variants import ANSWERS, BASELINE, PERPLEXITY, Mapping, describe_all, jobs, needing_sums, perturbations

YAML_TYPES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
"""What the types of JSON schemas are called in YAML."""
SCHEMA = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"


def validate(config: Mapping) -> Mapping:
    """Return the configuration with all defaults filled in and all sweeps expanded.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    schema: Any = _validator().schema  # jsonschema allows a truth value, too
    _check_keys(config)
    config = json.loads(json.dumps(config))  # plain containers; a copy
    errors = sorted(_validator().iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise ConfigError(_explain(errors[0]))
    config = _with_defaults(config, schema, schema)
    _fill_folder(config)
    written = copy.deepcopy(config["run"])
    sweeps.expand(config)
    _cross_check(config, written)
    _check_fonts(config["report"]["fonts"])
    return config


@cache
def _validator() -> jsonschema.Draft202012Validator:
    """Of the schema, which is read once, and by libyaml if PyYAML has it: that takes a tenth of the time."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return jsonschema.Draft202012Validator(yaml.load(SCHEMA.read_text(encoding="utf-8"), loader))


def _fill_folder(config: Mapping) -> None:
    """Replace {folder} in all paths of the config, in place.

    Raises:
        ConfigError: a path of the run uses it, but the config names no folder.
    """

    def filled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: filled(below, f"{key}.{name}") for name, below in value.items()}
        if not isinstance(value, str) or "{folder}" not in value:
            return value
        if config["folder"] is None:
            raise ConfigError(
                f"config key '{key}': the path '{value}' needs the key 'folder'. Set it in the config or on the "
                "command line: --config folder=path/to/the/files"
            )
        return value.replace("{folder}", config["folder"].rstrip("/") or "/")

    chosen = [name for name in config["run"]["models"] if name in config["models"]]
    config["models"] |= {name: filled(config["models"][name], f"models.{name}") for name in chosen}
    config["corpora"] = filled(config["corpora"], "corpora")
    config["generation"]["prompts"] = filled(config["generation"]["prompts"], "generation.prompts")
    config["metrics"] = filled(config["metrics"], "metrics")
    config["report"]["fonts"] = [filled(path, "report.fonts") for path in config["report"]["fonts"]]


def _check_fonts(paths: Sequence[str]) -> None:
    """That the fonts of the PDF are there; whether they can be read is found out when it is made."""
    for place, path in enumerate(paths):
        if not Path(path).exists():
            raise ConfigError(
                f"config key 'report.fonts[{place}]': there is no {path}. Name a font file or a folder of such, or "
                "leave the key out: then fonts of the system are looked for."
            )


def _check_keys(value: Any, path: str = "") -> None:
    """Refuse keys that are no strings, which JSON would quietly turn into strings."""
    if isinstance(value, list):
        for index, below in enumerate(value):
            _check_keys(below, f"{path}{index}.")
    elif isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                raise ConfigError(
                    f"config key '{path}{key}' is no text: YAML reads an unquoted no, on, yes, off or number as "
                    'something else. Write the key in quotes, such as "no".'
                )
            _check_keys(below, f"{path}{key}.")


def _with_defaults(value: Any, schema: Mapping, root: Mapping) -> Any:
    """Fill in the defaults of a JSON schema, also behind references and conditions."""
    for part in _applying(value, schema, root):
        if not isinstance(value, dict):
            continue
        properties = part.get("properties", {})
        for key, below in properties.items():
            if key not in value and "default" in _resolve(below, root):
                value[key] = copy.deepcopy(_resolve(below, root)["default"])
            if key in value:
                value[key] = _with_defaults(value[key], below, root)
        below = part.get("additionalProperties")
        if isinstance(below, dict):
            for key in value.keys() - properties.keys():
                value[key] = _with_defaults(value[key], below, root)
    return value


def _resolve(schema: Mapping, root: Mapping) -> Mapping:
    """The schema with its `$ref` replaced; keys beside the reference win."""
    if "$ref" not in schema:
        return schema
    target = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _applying(value: Any, schema: Mapping, root: Mapping) -> Iterator[Mapping]:
    """The schemas that hold for a value: the fulfilled conditions first, since they are more specific."""
    schema = _resolve(schema, root)
    for condition in schema.get("allOf", []):
        if jsonschema.Draft202012Validator(condition["if"]).is_valid(value):
            yield from _applying(value, condition["then"], root)
    yield schema


def _explain(error: Any) -> str:
    """One sentence for one `jsonschema.ValidationError`."""
    path = [str(part) for part in error.absolute_path]
    key = ".".join(path)
    where = f"config key '{key}'" if key else "the config"
    about = f" ({error.schema['description'].rstrip('.')})" if "description" in error.schema else ""
    match error.validator:
        case "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            extra = sorted(set(error.instance) - set(known))[0]
            close = difflib.get_close_matches(extra, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            return f"config key '{'.'.join([*path, extra])}' is unknown.{hint} Known keys here: {', '.join(known)}."
        case "required":
            missing = sorted(set(error.validator_value) - set(error.instance))[0]
            return f"config key '{'.'.join([*path, missing])}' is missing."
        case "enum":
            choices = ", ".join("null" if choice is None else str(choice) for choice in error.validator_value)
            return f"{where} is {error.instance!r}; choose one of: {choices}."
        case "type" if isinstance(error.instance, bool) and "string" in str(error.validator_value):
            return (
                f"{where} is {error.instance}: YAML reads an unquoted no, on, yes or off as a truth value. "
                f'Write it in quotes, such as "no".'
            )
        case "type":
            wanted = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
            names = " or ".join(YAML_TYPES[name] for name in wanted)
            return f"{where} is {error.instance!r}, but must be {names}{about}."
        case "pattern":
            return f"{where}: {error.instance!r} is not allowed{about}; it must match {error.validator_value}."
        case _:
            return f"{where}: {error.message}{about}."


def _cross_check(config: Mapping, written: Mapping) -> None:
    """Check what a schema cannot: names that must exist elsewhere, and how many there are. `written` is the run before
    its sweeps were expanded."""
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
    compared = [name for name in run["models"] if config["identification"]["method"] in selections(config, name)]
    if len(run["languages"]) < 2 and compared:
        raise ConfigError(
            f"config key 'run.languages' names only '{run['languages'][0]}'. LAPE compares languages: with one "
            "language every neuron has entropy 0 and the selection would be arbitrary. Name at least two."
        )
    if BASELINE in config["perturbations"]:
        raise ConfigError(f"config key 'perturbations.{BASELINE}': this name is kept for the baseline. Choose another.")
    share = config["corpora"]["share"]
    if share["valid"] + share["test"] >= 1:
        raise ConfigError("config key 'corpora.share': valid and test together must leave something to train on.")
    for name in run["models"]:
        _check_model(config, name)
    for language in run["languages"]:
        words = config["metrics"]["stop_words"].get(language, "")
        if "/" in words and not Path(words).is_file():
            raise ConfigError(
                f"config key 'metrics.stop_words.{language}': the file '{words}' does not exist. Correct the path, "
                "which is relative to the folder in which snakemake runs, or name the code of a list of stopwordsiso."
            )
    for variant in run["perturbations"]:
        settings = config["perturbations"][variant]
        owner = config["perturbations"][settings["of"]] if settings.get("of") else settings
        for target in settings.get("targets") or ():
            if target not in run["languages"]:
                raise ConfigError(
                    f"config key 'perturbations.{owner['family']}.targets' names '{target}', whose activations are not "
                    "recorded. Add it to 'run.languages'."
                )
    if not config["recording"]["sums"] and (needing := needing_sums(config)) and own_models(config):
        raise ConfigError(
            "config key 'recording.sums' is false, but sums are needed by " + ", ".join(needing) + ". Leave these out "
            "of 'run.perturbations' and 'identification', or record sums."
        )
    ids = perturbations(config)
    for perturbation in ids:
        if ids.count(perturbation) > 1:
            raise ConfigError(
                f"config key 'perturbations': two variants give the perturbation '{perturbation}'. Rename one of them."
            )
    for measure in (PERPLEXITY, ANSWERS):
        names = [job.name for job in jobs(config, measure)]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"config key 'perturbations': two variants give the job '{name}'. Rename one of them."
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
    source_files(corpus(config, language), language)
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
