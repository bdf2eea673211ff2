"""Validation of the config, and the few functions that rules share. Of the other rule files only cluster.smk has functions."""

import contextlib
import functools
import hashlib
import os
import re
import shlex
import sys
from itertools import product
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile, contains_wildcard
from snakemake.iocontainers import Wildcards

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "workflow"))
# Snakemake formats the prefix as well: braces in the clone's path would be read as variables.
LIBRARY = shlex.quote(str(ROOT / "workflow")).replace("{", "{{").replace("}", "}}")
shell.prefix(f"set -euo pipefail; export PYTHONPATH={LIBRARY}; exec < /dev/null; ")  # no job may ask questions

from langneurons import config as experiment
from langneurons import formats, measured, variants
from langneurons.errors import UserError
from langneurons.validation import check_files, validate
from langneurons.writing import write_text

try:
    check_files(workflow.configfiles)
    config.update(validate(config))
    formats.check("results")
except UserError as error:
    raise WorkflowError(str(error)) from None

MODELS = config["run"]["models"]
LANGUAGES = config["run"]["languages"]
PERTURBATIONS = variants.perturbations(config)
EDITS = [name for name in PERTURBATIONS if name != variants.BASELINE]
READ = variants.perturbations(config, variants.PERPLEXITY)
SELECTIONS = variants.run_selections(config)
RELEVANCE = config["metrics"]["relevance"] or {"gpus": 0, "threads": 1, "batch_size": 1}
LONGEST_PARAMETER = 16_000  # characters; Linux allows 131,072 for a whole command
CONTENTS = {model: experiment.contents(config, model) for model in config["models"]}
MEASUREMENTS = measured.Measurements(config)


def escape_braces():
    """
    Double the braces in the clone's path where Snakemake formats it, as in the path of a rule's conda environment. It would
    else read them as wildcards.
    """
    for one in workflow.rules:
        path = one.basedir.get_path_or_uri(secret_free=True)
        one.basedir = type(one.basedir)(path.replace("{", "{{").replace("}", "}}"))


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


def own_models():
    """
    The run's own models, each as wildcards of its own: rules that make many files are written for one model. Snakemake finds
    the rule of a file by what comes before its first wildcard, and would else compare every file with all of them.
    """
    return [Wildcards(fromdict={"model": model}) for model in MODELS if model in experiment.own_models(config)]


localrules:
    all,
    download_model,
    download_published,
    check_audit,


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
    "engines/limits.py",
    "engines/proof.py",
    "engines/streams.py",
    "interventions.py",
    "models/layouts.py",
    "models/loading.py",
    "models/tokenizer.py",
    "neurons/counting.py",
    "neurons/sentences.py",
    "neurons/sharding.py",
)
HF_CODE = code("engines/batching.py", "engines/hf.py", "engines/recording.py")
VLLM_CODE = code("engines/shards.py", "engines/vllm.py", "engines/vllm_worker.py")
ENGINES = {"hf": HF_CODE, "vllm": VLLM_CODE}
CORPUS_CODE = code("corpus/shares.py", "corpus/sources.py", "corpus/textfiles.py", "corpus/windows.py")
PUBLISHED_CODE = code("published/files.py")
TEXT_CODE = code(
    "corpus/textfiles.py",
    "metrics/text.py",
    "metrics/language.py",
    "metrics/words.py",
    "metrics/copying.py",
    "metrics/degeneration.py",
)


# -- what a job depends on and needs, by its wildcards ------------------------------------------------------------------


def without_braces(paths):
    """
    Paths as snakemake can have them as inputs: it reads {name} in a path as a wildcard, also where a function returns it. A
    folder with such a name, or a file, gets a link without.
    """
    return [linked(path) if contains_wildcard(path) else path for path in paths]


def linked(path):
    """The path of a file through a link to its folder, or if its own name has braces to itself, with the file's time."""
    target = Path(path).absolute()
    target, rest = (target, ()) if contains_wildcard(target.name) else (target.parent, (target.name,))
    suffix = "" if rest else target.suffix
    link = Path(".snakemake", "langneurons", f"{hashlib.sha256(str(target).encode()).hexdigest()}{suffix}")
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another job was faster
            link.symlink_to(target)
            time = target.stat().st_mtime_ns
            os.utime(link, ns=(time, time), follow_symlinks=False)
    return str(link.joinpath(*rest))


def model_files(wildcards):
    """The model's files: those of the demo model or folder; of a hub id the list of what was downloaded."""
    return without_braces(or_workflow_error(experiment.model_files, config, wildcards.model))


def corpus_files(wildcards):
    """The local text files of a language."""
    source = experiment.corpus(config, wildcards.language)
    return without_braces(or_workflow_error(experiment.source_files, source, wildcards.language))


@functools.cache
def tokens_of(model, split):
    """The windows of a model, by language."""
    return expand("results/{model}/tokens/{language}.{split}.safetensors", model=model, language=LANGUAGES, split=split)


@functools.cache
def prompt_files():
    """The questions of every language. A language of published models alone has none."""
    return without_braces(path for language in LANGUAGES if (path := experiment.prompt_path(config, language)))


def training_files(wildcards):
    """The local text files of all languages that a demo model is trained on."""
    languages = config["models"][wildcards.model]["languages"]
    return without_braces(
        file
        for language in languages
        for file in or_workflow_error(experiment.source_files, experiment.corpus(config, language), language)
    )


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
    return without_braces([published_file(model, name).path(model)])[0]


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


def finished(path):
    """What snakemake noted of the job that made a file; None if it is not there, or nothing was noted."""
    return workflow.persistence.metadata(IOFile(path)) if Path(path).exists() else None


def shards_of(wildcards):
    """
    The shards of a recording; none if one job records all of it. A finished recording keeps the number that it was made
    with, so that changing `recording.shards` reruns nothing; one that is made anew for another model or amount of text does
    not.
    """
    folder = f"results/{wildcards.model}/activations"
    number = config["recording"]["shards"]
    wanted = [f"{folder}/shards/{wildcards.language}.{shard}-of-{number}.safetensors" for shard in range(1, number + 1)]
    split = config["recording"]["split"]
    tokens = finished(f"results/{wildcards.model}/tokens/{wildcards.language}.{split}.safetensors")
    recording = finished(f"{folder}/{wildcards.language}.safetensors")
    budgets = experiment.canonical(experiment.tokens(config, wildcards.language))
    if recording and tokens and repr(engine_params(wildcards)) in recording.params and repr(budgets) in tokens.params:
        return [path for path in recording.input if path.startswith(f"{folder}/shards/")]
    return wanted if number > 1 else []


def recording_gpus(wildcards):
    """GPUs of a job that records; adding up shards needs none."""
    adds_up = not hasattr(wildcards, "shard") and shards_of(wildcards)
    return 0 if adds_up else config["models"][wildcards.model]["gpus"]


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


def engine_code(wildcards):
    """The modules of a model's engine, beside those of all."""
    return ENGINES[config["models"][wildcards.model]["engine"]]


def engine_environment(wildcards):
    """The conda environment of a model's engine."""
    return f"../envs/{config['models'][wildcards.model]['engine']}.yaml"


def constant(value):
    """
    Sorted JSON as a parameter. A function, since snakemake would read braces in a string as wildcards. What would not fit into
    a command line, as with a hundred languages, is put into a file whose name follows from its content.
    """
    text = experiment.canonical(value)
    if len(text) > LONGEST_PARAMETER:
        path = Path(".snakemake", "langneurons", f"{hashlib.sha256(text.encode()).hexdigest()}.json")
        if not path.exists():
            write_text(path, text)
        text = f"@{path}"
    return lambda wildcards: text


def machine(key):
    """What a model's jobs need of the machine. As resources these values rerun nothing when they change."""
    return lambda wildcards: config["models"][wildcards.model][key]
