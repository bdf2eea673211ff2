"""The experiment's configuration: validation, defaults and identifiers.

Imported by the Snakefile, so only the standard library, PyYAML and jsonschema may be imported here and in what this
imports: a dry run works without torch. The schema `workflow/schemas/config.schema.yaml` is the one source of types,
meanings and defaults.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from langneurons.corpus.prompts import read_prompts
from langneurons.errors import UserError
from langneurons.models.folders import check_folder

Mapping = dict[str, Any]

BASELINE = "none"
SPLITS = ("train", "valid", "test")
SCHEMA = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"
DEMO = Path(__file__).parent / "demo"
DEMO_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
TRAINING_KEYS = (
    "architecture",
    "vocabulary",
    "layers",
    "width",
    "heads",
    "neurons",
    "context",
    "training_tokens",
    "training_batch",
)
MACHINE_KEYS = ("gpus", "threads", "batch_size", "generation_batch_size")
MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")


class ConfigError(UserError):
    """A mistake in the configuration, in one sentence that names the key and the remedy."""


@dataclass(frozen=True)
class Perturbation:
    """One member of a perturbation family."""

    id: str
    """`<variant>-<language>` or `<variant>-<language>-<draw>`."""
    language: str
    """The language whose neurons (or as many random ones) are edited."""
    draw: int | None = None
    """The random draw, from 1."""


@dataclass(frozen=True)
class Job:
    """What one job of `measure_perplexity` or `generate_text` covers: a family or a part of it."""

    name: str
    variant: str
    members: tuple[str, ...]

    @property
    def identifier(self) -> str:
        """The name as part of a rule's name."""
        return self.name.replace("-", "_")

    @property
    def edits(self) -> tuple[str, ...]:
        """The members that edit neurons; none for the baseline."""
        return () if self.variant == BASELINE else self.members


# -- validation -------------------------------------------------------------------------------------------------------


def validate(config: Mapping) -> Mapping:
    """Return the configuration with all defaults filled in.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    _check_keys(config)
    config = json.loads(json.dumps(config))  # plain containers; a copy
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise ConfigError(_explain(errors[0]))
    config = _with_defaults(config, schema, schema)
    _cross_check(config)
    return config


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
            choices = ", ".join(str(choice) for choice in error.validator_value)
            return f"{where} is {error.instance!r}; choose one of: {choices}."
        case "type" if isinstance(error.instance, bool) and "string" in str(error.validator_value):
            return (
                f"{where} is {error.instance}: YAML reads an unquoted no, on, yes or off as a truth value. "
                f'Write it in quotes, such as "no".'
            )
        case "type":
            return f"{where} is {error.instance!r}, but must be of type {error.validator_value}{about}."
        case "pattern":
            return f"{where}: {error.instance!r} is not allowed{about}; it must match {error.validator_value}."
        case _:
            return f"{where}: {error.message}{about}."


def _cross_check(config: Mapping) -> None:
    """Check what a schema cannot: names that must exist elsewhere, and how many there are."""
    run = config["run"]
    for key, catalogue in (("models", config["models"]), ("perturbations", config["perturbations"])):
        for index, name in enumerate(run[key]):
            if name not in catalogue:
                raise ConfigError(
                    f"config key 'run.{key}[{index}]' names '{name}', which is no entry of '{key}'. "
                    f"Entries there: {', '.join(sorted(catalogue)) or 'none'}."
                )
    if len(run["languages"]) < 2:
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
        for language in [*run["languages"], *config["models"][name].get("languages", [])]:
            _check_language(config, language)
        model_files(config, name)
    ids = [member.id for variant in run["perturbations"] for member in members(config, variant)]
    for perturbation in ids:
        if ids.count(perturbation) > 1:
            raise ConfigError(
                f"config key 'perturbations': two variants give the perturbation '{perturbation}'. Rename one of them."
            )
    names = [job.name for job in jobs(config)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"config key 'perturbations': two variants give the job '{name}'. Rename one of them.")


def _check_language(config: Mapping, language: str) -> None:
    if corpus(config, language)["source"] == "embedded" and language not in embedded_languages():
        raise ConfigError(
            f"language '{language}' has no corpus: the embedded one holds {', '.join(embedded_languages())}. Name a "
            f"source in 'corpora.languages.{language}', such as {{source: files, path: \"texts/{language}/*.txt\"}}."
        )
    if language not in config["run"]["languages"]:
        return
    path = prompt_path(config, language)
    if path is None:
        raise ConfigError(
            f"language '{language}' has no prompts: name a text file with one question per line in "
            f"'generation.prompts.{language}'."
        )
    settings = config["generation"]
    read_prompts(path, language, settings["validation_prompts"], settings["split"])


# -- views ------------------------------------------------------------------------------------------------------------


def embedded_languages() -> list[str]:
    """Languages of the embedded corpus."""
    return sorted(folder.name for folder in (DEMO / "corpus").iterdir() if folder.is_dir())


def corpus(config: Mapping, language: str) -> Mapping:
    """The text source of a language, its `{language}` placeholder filled in."""
    corpora = config["corpora"]
    source = dict(corpora["languages"].get(language, corpora["default"]))
    if "path" in source:
        source["path"] = source["path"].replace("{language}", language)
    if source["source"] == "wikipedia":
        source["code"] = source["code"] or language
    return source


def source_files(source: Mapping, language: str) -> list[str]:
    """The local files of a text source, sorted; none for one of the hub.

    Raises:
        ConfigError: no file matches.
    """
    if source["source"] == "embedded":
        return sorted(_relative(path) for path in (DEMO / "corpus" / language).glob("*.txt"))
    if source["source"] == "wikipedia":
        return []
    files = sorted(str(path) for path in _glob(source["path"]) if path.is_file())
    if not files:
        raise ConfigError(
            f"config key 'corpora': the corpus of language '{language}' has no file: nothing matches "
            f"'{source['path']}'. Correct the path; it is relative to the folder in which snakemake runs."
        )
    return files


def model_location(config: Mapping, name: str) -> str:
    """Where a model is loaded from: its folder, or its hub id."""
    settings = config["models"][name]
    return {"demo": f"results/{name}/model", "folder": settings.get("path"), "hub": settings.get("id")}[
        settings["source"]
    ]


def model_files(config: Mapping, name: str) -> list[str]:
    """The files that a model's jobs depend on; none for a hub id, whose revision is part of the config.

    Raises:
        UserError: the folder is missing, incomplete or of an unknown architecture.
    """
    settings = config["models"][name]
    if settings["source"] == "demo":
        return [f"results/{name}/model/{file}" for file in DEMO_MODEL_FILES]
    if settings["source"] == "hub":
        return []
    check_folder(settings["path"])
    folder = Path(settings["path"])
    return sorted(str(path) for path in folder.iterdir() if path.suffix in MODEL_SUFFIXES)


def _glob(pattern: str) -> list[Path]:
    path = Path(pattern)
    return (
        list(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if path.anchor else list(Path().glob(pattern))
    )


def _relative(path: Path) -> str:
    """A path of this repository, relative to its root where snakemake runs there, so that a moved clone is not
    stale."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def prompt_path(config: Mapping, language: str) -> str | None:
    """The file with a language's questions; None where there is none."""
    named = config["generation"]["prompts"].get(language)
    embedded = DEMO / "prompts" / f"{language}.txt"
    return named or (_relative(embedded) if embedded.exists() else None)


def window(config: Mapping, model: str) -> int:
    """Tokens per window of a model."""
    return config["models"][model].get("window", config["corpora"]["window"])


def members(config: Mapping, variant: str) -> list[Perturbation]:
    """The perturbations of a variant, in the order of `run.languages`."""
    settings = config["perturbations"][variant]
    languages = config["run"]["languages"]
    if settings["kind"] == "random":
        draws = range(1, settings["draws"] + 1)
        return [
            Perturbation(f"{variant}-{language}-{draw}", language, draw) for language in languages for draw in draws
        ]
    return [Perturbation(f"{variant}-{language}", language) for language in languages]


def perturbations(config: Mapping) -> list[str]:
    """All perturbation ids of the run, the baseline first."""
    return [BASELINE] + [member.id for variant in config["run"]["perturbations"] for member in members(config, variant)]


def jobs(config: Mapping) -> list[Job]:
    """The jobs that measure the run's perturbations: one per family, or several with `perturbations_per_job`."""
    result = [Job(BASELINE, BASELINE, (BASELINE,))]
    for variant in config["run"]["perturbations"]:
        ids = tuple(member.id for member in members(config, variant))
        size = config["perturbations_per_job"] or len(ids)
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]
        for number, part in enumerate(parts, 1):
            name = variant if len(parts) == 1 else f"{variant}-part-{number}"
            result.append(Job(name, variant, part))
    return result


def selection(config: Mapping, variant: str) -> str:
    """Name of the neuron selection that a variant uses: the method, with the rate where it is the variant's own."""
    method = config["identification"]["method"]
    rate = config["perturbations"][variant].get("top_rate")
    return method if rate in (None, config["identification"]["top_rate"]) else f"{method}-top-{rate:g}"


def selections(config: Mapping) -> list[str]:
    """All neuron selections of the run, the default first."""
    names = [config["identification"]["method"]]
    names += [selection(config, variant) for variant in config["run"]["perturbations"]]
    return list(dict.fromkeys(names))


def selection_rate(config: Mapping, name: str) -> float:
    """The share of all neurons that a selection takes."""
    own = {selection(config, variant): variant for variant in config["run"]["perturbations"]}
    default = config["identification"]["top_rate"]
    return config["perturbations"][own[name]].get("top_rate", default) if name in own else default


def member_ids(config: Mapping, variant: str) -> list[str]:
    """The perturbation ids of a variant."""
    return [member.id for member in members(config, variant)]


def describe(config: Mapping, variant: str) -> list[Mapping]:
    """What each perturbation of a variant is, for the jobs that plan it and the tables that show it."""
    kind = config["perturbations"][variant]["kind"]
    return [{**asdict(member), "variant": variant, "kind": kind} for member in members(config, variant)]


def describe_all(config: Mapping) -> list[Mapping]:
    """What each perturbation of the run is, the baseline first."""
    baseline = {"id": BASELINE, "language": None, "draw": None, "variant": BASELINE, "kind": BASELINE}
    return [baseline] + [row for variant in config["run"]["perturbations"] for row in describe(config, variant)]


# -- what changes a job's numbers, and nothing else -------------------------------------------------------------------


def tokenizer_settings(config: Mapping, model: str) -> Mapping:
    """Where the tokenizer is loaded from."""
    return {"model": model_location(config, model), "revision": config["models"][model].get("revision")}


def engine_settings(config: Mapping, model: str) -> Mapping:
    """Which weights run, in which engine and number format."""
    settings = config["models"][model]
    return {**tokenizer_settings(config, model), "name": settings["engine"], "dtype": settings["dtype"]}


def training_settings(config: Mapping, model: str) -> Mapping:
    """Size and training of a demo model."""
    return {key: config["models"][model][key] for key in TRAINING_KEYS}


def training_sources(config: Mapping, model: str) -> Mapping:
    """The text source of each language that a demo model is trained on."""
    return {language: corpus(config, language) for language in config["models"][model]["languages"]}


def generation_settings(config: Mapping) -> Mapping:
    """How answers are generated; the files of the prompts are inputs of their own."""
    return {key: value for key, value in config["generation"].items() if key != "prompts"}


def reported(config: Mapping) -> Mapping:
    """The part of the config that this run's results depend on: what was chosen, without settings of the machine."""
    run = config["run"]
    models = {
        name: {key: value for key, value in config["models"][name].items() if key not in MACHINE_KEYS}
        for name in run["models"]
    }
    variants = {name: config["perturbations"][name] for name in run["perturbations"]}
    kept = {key: value for key, value in config.items() if key != "perturbations_per_job"}
    return {**kept, "models": models, "perturbations": variants}


def demo_models(config: Mapping) -> list[str]:
    """The models that are trained here."""
    return [name for name, settings in config["models"].items() if settings["source"] == "demo"]


def stop_word_files(config: Mapping) -> list[str]:
    """The stop-word lists that are files."""
    lists = [config["metrics"]["stop_words"].get(language) for language in config["run"]["languages"]]
    return [path for path in lists if path and Path(path).is_file()]


def canonical(value: Any) -> str:
    """Sorted JSON, so that reordering keys in the config reruns nothing."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
