"""The experiment's identifiers, and typed views of its config: what runs, on which text, and what each job depends on.

Imported by the Snakefile, so only the standard library may be imported here and in what this imports: a dry run works
without torch. Every function takes a config that `langneurons.validation.validate` returned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langneurons import publications, variants
from langneurons.errors import ConfigError
from langneurons.models.folders import check_folder
from langneurons.publications import PublishedFile
from langneurons.variants import ANSWERS, PERPLEXITY, Mapping

PUBLISHED = "published"
"""The source of models that others ran, and the name of the selection that is their neuron mask."""
SPLITS = ("train", "valid", "test")
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


# -- views ------------------------------------------------------------------------------------------------------------


def published_models(config: Mapping) -> list[str]:
    """The models of the catalogue of which only files of others are known."""
    return [name for name, settings in config["models"].items() if settings["source"] == PUBLISHED]


def own_models(config: Mapping) -> list[str]:
    """The models of the catalogue that run here."""
    return [name for name in config["models"] if name not in published_models(config)]


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
    if not files and Path(source["path"]).is_dir():
        raise ConfigError(
            f"config key 'corpora': the corpus of language '{language}' is the folder '{source['path']}'. Name its "
            f"files, such as {source['path'].rstrip('/')}/*.txt"
        )
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
    """The files that a model's jobs depend on; for a hub id what was downloaded, since its files are in the cache.

    Raises:
        UserError: the folder is missing, incomplete or of an unknown architecture.
    """
    settings = config["models"][name]
    if settings["source"] == "demo":
        return [f"results/{name}/model/{file}" for file in DEMO_MODEL_FILES]
    if settings["source"] == "hub":
        return [f"results/{name}/download.json"]
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


def tokens(config: Mapping, language: str) -> dict[str, int]:
    """The tokens of a language that are used, by split."""
    budgets = config["corpora"]["tokens"]
    return {split: value[language] if isinstance(value, dict) else value for split, value in budgets.items()}


def window(config: Mapping, model: str) -> int:
    """Tokens per window of a model."""
    return config["models"][model].get("window", config["corpora"]["window"])


def selections(config: Mapping, model: str) -> list[str]:
    """The neuron selections of a model, the default first: of a published one what its files allow."""
    if model in own_models(config):
        return list(variants.run_selections(config))
    settings = config["models"][model]
    return [config["identification"]["method"]] * ("activations" in settings) + [PUBLISHED] * ("masks" in settings)


def contents(config: Mapping, model: str) -> Mapping:
    """What there is of a model in this run: everything of an own one, of a published one what its files hold."""
    own = model in own_models(config)
    settings = config["models"][model]
    described = variants.describe_all(config)
    published = [row["id"] for row in described if row["variant"] in settings.get("generations", {})]
    return {
        "published": not own,
        "recorded": own or "activations" in settings,
        "methods": selections(config, model),
        "mask_languages": settings.get("masks", {}).get("languages", []),
        "read": variants.perturbations(config, PERPLEXITY) if own else [],
        "answered": variants.perturbations(config, ANSWERS) if own else published,
    }


def answers(config: Mapping, model: str) -> dict[tuple[str, str], PublishedFile]:
    """The published generations of a model, by perturbation and language of the prompts."""
    return publications.generation_files(config, model, variants.describe_all(config))


def published_files(config: Mapping, model: str) -> dict[str, PublishedFile]:
    """A published model's files by name, such as `masks` or `activations/de`."""
    mask = publications.mask_file(config, model)
    files = [*publications.activation_files(config, model).values(), *answers(config, model).values()]
    return {file.name: file for file in [*files, *([mask] if mask else [])]}


# -- what changes a job's numbers, and nothing else -------------------------------------------------------------------


def tokenizer_settings(config: Mapping, model: str) -> Mapping:
    """Where the tokenizer is loaded from."""
    return {"model": model_location(config, model), "revision": config["models"][model].get("revision")}


def engine_settings(config: Mapping, model: str) -> Mapping:
    """Which weights run, in which engine and number format, and with which attention if the config names one."""
    settings = config["models"][model]
    attention = {} if settings["attention"] is None else {"attention": settings["attention"]}
    return {**tokenizer_settings(config, model), "name": settings["engine"], "dtype": settings["dtype"], **attention}


def measuring_settings(config: Mapping, model: str) -> Mapping:
    """The same for perplexity and answers, and whether without compilation, where the engine compiles; recording never
    does."""
    settings = config["models"][model]
    compiles = settings["engine"] == "vllm" or settings["gpus"]
    return engine_settings(config, model) | ({"eager": runs_eagerly(config, model)} if compiles else {})


def runs_eagerly(config: Mapping, model: str) -> bool:
    """Whether a model runs without compilation: as its config says, else on CPUs, and where an edit of the run needs
    hooks. The baseline runs as its perturbations do, since compilation changes how numbers are rounded."""
    settings = config["models"][model]
    if settings["eager"] is not None:
        return bool(settings["eager"])
    return not settings["gpus"] or variants.needs_hooks(config)


def training_settings(config: Mapping, model: str) -> Mapping:
    """Size and training of a demo model."""
    return {key: config["models"][model][key] for key in TRAINING_KEYS}


def training_seed(config: Mapping, model: str) -> int:
    """The seed of a demo model's training: its own, or the run's."""
    return int((config["models"][model]["training_seeds"] or [config["seed"]])[0])


def training_sources(config: Mapping, model: str) -> Mapping:
    """The text source of each language that a demo model is trained on."""
    return {language: corpus(config, language) for language in config["models"][model]["languages"]}


def generation_settings(config: Mapping) -> Mapping:
    """How answers are generated; the files of the prompts are inputs of their own."""
    return {key: value for key, value in config["generation"].items() if key != "prompts"}


def prompt_settings(config: Mapping) -> Mapping:
    """What decides which questions are asked, and how long they are with their answers."""
    return {key: config["generation"][key] for key in ("template", "split", "validation_prompts", "max_new_tokens")}


def reported(config: Mapping) -> Mapping:
    """The part of the config that this run's results depend on: what was chosen, without settings of the machine."""
    run = config["run"]
    models = {
        name: {
            key: publications.without_secrets(value)
            for key, value in config["models"][name].items()
            if key not in MACHINE_KEYS
        }
        for name in run["models"]
    }
    variants = {name: config["perturbations"][name] for name in run["perturbations"]}
    unused = {"perturbations_per_job", "follow"}
    if not set(run["models"]) & set(own_models(config)):
        unused |= {"seed", "corpora", "recording", "perplexity", "generation"}  # no model runs
    kept = {key: value for key, value in config.items() if key not in unused}
    kept["report"] = {key: value for key, value in config["report"].items() if key != "fonts"}
    if "recording" in kept:
        kept["recording"] = {key: value for key, value in kept["recording"].items() if key != "shards"}
    return {**kept, "models": models, "perturbations": variants}


def relevance_settings(config: Mapping) -> Mapping:
    """What scores the relevance of answers, without settings of the machine; empty if nothing does."""
    settings = config["metrics"]["relevance"] or {}
    return {key: value for key, value in settings.items() if key not in MACHINE_KEYS}


def relevance_files(config: Mapping) -> list[str]:
    """The files of a local model that scores relevance; none for a hub id."""
    folder = Path((config["metrics"]["relevance"] or {}).get("path", ""))
    if not folder.is_dir() or folder == Path():
        return []
    return sorted(str(path) for path in folder.rglob("*") if path.suffix in MODEL_SUFFIXES)


def demo_models(config: Mapping) -> list[str]:
    """The models that are trained here."""
    return [name for name, settings in config["models"].items() if settings["source"] == "demo"]


def hub_models(config: Mapping) -> list[str]:
    """The models that are downloaded from the hub."""
    return [name for name, settings in config["models"].items() if settings["source"] == "hub"]


def stop_word_files(config: Mapping) -> list[str]:
    """The stop-word lists that are files."""
    lists = [config["metrics"]["stop_words"].get(language) for language in config["run"]["languages"]]
    return [path for path in lists if path and Path(path).is_file()]


def canonical(value: Any) -> str:
    """Sorted JSON, so that reordering keys in the config reruns nothing."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
