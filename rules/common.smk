"""Validation of the config, and the few functions that rules share. No other rule file defines functions."""

import functools
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "workflow"))
shell.prefix(f"set -euo pipefail; export PYTHONPATH={shlex.quote(str(ROOT / 'workflow'))}; ")

from langneurons import config as experiment
from langneurons import variants
from langneurons.errors import UserError
from langneurons.validation import validate

try:
    config.update(validate(config))
except UserError as error:
    raise WorkflowError(str(error)) from None

MODELS = config["run"]["models"]
LANGUAGES = config["run"]["languages"]
PERTURBATIONS = variants.perturbations(config)
EDITS = [name for name in PERTURBATIONS if name != variants.BASELINE]
READ = variants.perturbations(config, variants.PERPLEXITY)
SELECTIONS = variants.run_selections(config)
RELEVANCE = config["metrics"]["relevance"] or {"gpus": 0, "threads": 1, "batch_size": 1}
CONTENTS = {model: experiment.contents(config, model) for model in config["models"]}


def check_gpus(models):
    """Refuse what needs more GPUs than the run has: snakemake would give its jobs fewer without a word."""
    wanted = {f"models.{model}.gpus": config["models"][model].get("gpus", 0) for model in models}
    wanted["metrics.relevance.gpus"] = RELEVANCE["gpus"]
    limit = workflow.global_resources.get("gpu").value
    for key, gpus in wanted.items():
        if limit is not None and gpus > limit:
            raise WorkflowError(
                f"config key '{key}' is {gpus}, but the run has {limit} GPU(s). Start it with --resources gpu={gpus}, or "
                "lower the key."
            )


check_gpus(MODELS)


def one_of(names):
    """A wildcard constraint."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


wildcard_constraints:
    model=one_of(config["models"]),
    language="[a-z][a-z0-9_]*",
    method="[a-z][a-z0-9.-]*",
    split=one_of(experiment.SPLITS),


# Models that run here, and models of which there are only the files that others published.
OWN = one_of(experiment.own_models(config))
PUBLISHED = one_of(experiment.published_models(config))


localrules:
    all,
    download_model,
    download_published,
    check_audit,


def answers_of(model):
    """The answers of a model, by perturbation, then language."""
    return expand(
        "results/{model}/generations/{perturbation}/{language}.jsonl",
        model=model,
        perturbation=CONTENTS[model]["answered"],
        language=LANGUAGES,
    )


def windows_of(model):
    """The scored windows of a model, by perturbation, then language."""
    return expand(
        "results/{model}/perplexity/{perturbation}/{language}.parquet",
        model=model,
        perturbation=CONTENTS[model]["read"],
        language=LANGUAGES,
    )


def combinations():
    """Every model x perturbation x language that the run measures."""
    return [file for model in MODELS for file in [*windows_of(model), *answers_of(model)]]


def metrics(model, *names):
    """What there is of a model's metrics, among these."""
    there = {"perplexity": CONTENTS[model]["read"], "text": CONTENTS[model]["answered"]}
    there["relevance"] = config["metrics"]["relevance"] and there["text"]
    there["effects"] = there["text"]
    there["stop_words"] = there["text"]
    there["stability"] = not CONTENTS[model]["published"]
    return [f"results/{model}/metrics/{name}.parquet" for name in names if there[name]]


def measurements(model):
    """What the tables show of a model: all of its measurements, or what its published files hold."""
    there = CONTENTS[model]
    files = expand("neurons/{method}.parquet", method=there["methods"])
    files += [] if there["published"] else [f"effects/{name}.json" for name in EDITS]
    return recordings(model) + metrics(model, "perplexity", "text") + [f"results/{model}/{file}" for file in files]


# -- code as input: an edited module makes the rules stale whose numbers it determines ---------------------------------


def relative(path):
    """A path of this repository, relative where snakemake runs in its root: a moved clone is not stale."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def script(name):
    """The command line of a rule."""
    return relative(ROOT / "workflow" / "scripts" / f"{name}.py")


def code(*modules):
    """Modules of the library, relative to it."""
    return [relative(ROOT / "workflow" / "langneurons" / module) for module in modules]


# What determines the numbers of every engine, and of each.
ENGINE_CODE = code(
    "corpus/sentences.py",
    "engines/base.py",
    "engines/completion.py",
    "engines/counting.py",
    "engines/counting_kernel.py",
    "engines/folding.py",
    "engines/hidden.py",
    "engines/proof.py",
    "interventions.py",
    "models/layouts.py",
    "models/loading.py",
    "neurons/counting.py",
    "neurons/sentences.py",
)
HF_CODE = code("engines/batching.py", "engines/hf.py", "engines/recording.py")
VLLM_CODE = code("engines/shards.py", "engines/vllm.py", "engines/vllm_worker.py")
ENGINES = {"hf": HF_CODE, "vllm": VLLM_CODE}
CORPUS_CODE = code("corpus/sources.py", "corpus/windows.py")
PUBLISHED_CODE = code("published/files.py")
TEXT_CODE = code(
    "metrics/text.py",
    "metrics/language.py",
    "metrics/words.py",
    "metrics/copying.py",
    "metrics/degeneration.py",
)


# -- what a job depends on and needs, by its wildcards ------------------------------------------------------------------


def model_files(wildcards):
    """The model's files: those of the demo model or folder; of a hub id the list of what was downloaded."""
    return or_workflow_error(experiment.model_files, config, wildcards.model)


def corpus_files(wildcards):
    """The local text files of a language."""
    source = experiment.corpus(config, wildcards.language)
    return or_workflow_error(experiment.source_files, source, wildcards.language)


def prompt_files():
    """The questions of every language. A language of published models alone has none."""
    return [path for language in LANGUAGES if (path := experiment.prompt_path(config, language))]


def training_files(wildcards):
    """The local text files of all languages that a demo model is trained on."""
    languages = config["models"][wildcards.model]["languages"]
    return [
        file
        for language in languages
        for file in or_workflow_error(experiment.source_files, experiment.corpus(config, language), language)
    ]


def or_workflow_error(function, *arguments):
    """Call a function of the library; a mistake in the config ends with its message."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None


@functools.cache
def published_files(model):
    """The files of a published model by name."""
    return or_workflow_error(experiment.published_files, config, model)


def published_file(model, name):
    """A file that others published, by its name."""
    if name not in published_files(model):
        raise WorkflowError(f"config key 'models.{model}': the published files hold no {name}.")
    return published_files(model)[name]


def published_path(model, name):
    """Where a file that others published is read: its own place, or where it is downloaded."""
    return published_file(model, name).path(model)


def published_checksum(model, name):
    """The checksum that the config gives for a published file; empty if none."""
    return published_file(model, name).sha256


def languages_of(model, method):
    """The languages of a selection, in order: those of the run, or of a published mask."""
    return CONTENTS[model]["mask_languages"] if method == experiment.PUBLISHED else LANGUAGES


def published_shape(model):
    """Options that name a published model's size, where the config gives it."""
    known = {key: config["models"][model].get(key) for key in ("layers", "neurons")}
    return " ".join(f"--{key} {value}" for key, value in known.items() if value is not None)


def recordings(model):
    """The recordings of a model, by language; none of a published one without them."""
    languages = LANGUAGES if CONTENTS[model]["recorded"] else []
    return expand("results/{model}/activations/{language}.safetensors", model=model, language=languages)


def sentences_of(model, selection):
    """The recorded sentences that a selection needs, by language; none for a method that needs only counts and sums."""
    needed = SELECTIONS[selection]["method"] in variants.SENTENCE_METHODS
    if needed and CONTENTS[model]["published"]:
        raise WorkflowError(
            f"config key 'identification.method': {SELECTIONS[selection]['method']} compares sentences, but of {model} there "
            "are only published recordings. Choose lape or lape-bonus."
        )
    languages = LANGUAGES if needed else []
    return expand("results/{model}/sentences/{language}.safetensors", model=model, language=languages)


def method_options(method):
    """Options of the one method that has them, so that changing them reruns no other."""
    settings = config["identification"]
    if method == "lape-bonus":
        return f"--bonus {settings['bonus']}"
    number = settings["neurons_per_language"]
    return "" if method == "lape" or number is None else f"--neurons-per-language {number}"


def engine_params(wildcards):
    """Which model runs, and how: what changes numbers, as sorted JSON."""
    return experiment.canonical(experiment.engine_settings(config, wildcards.model))


def measuring_params(wildcards):
    """The same for perplexity and answers."""
    return experiment.canonical(experiment.measuring_settings(config, wildcards.model))


def engine_code(wildcards):
    """The modules of a model's engine, beside those of all."""
    return ENGINES[config["models"][wildcards.model]["engine"]]


def engine_environment(wildcards):
    """The conda environment of a model's engine."""
    return f"../envs/{config['models'][wildcards.model]['engine']}.yaml"


def constant(value):
    """Sorted JSON as a parameter. A function, since snakemake would read braces in a string as wildcards."""
    return lambda wildcards: experiment.canonical(value)


def machine(key):
    """What a model's jobs need of the machine. As resources these values rerun nothing when they change."""
    return lambda wildcards: config["models"][wildcards.model][key]
