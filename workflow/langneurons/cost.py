"""What an experiment costs, from FLOPs and measured speeds: its jobs, GPU hours, and what to ask of a batch system.

How many FLOPs a forward pass takes is in `langneurons.sizes`. Answers take as many steps as they may have tokens, so
that their time is an upper bound. Imported by the Snakefile, so only the standard library may be imported here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from langneurons import config as experiment
from langneurons import footprint, variants, workload
from langneurons.errors import ConfigError
from langneurons.sizes import BYTES, SIZES, Size, size_of
from langneurons.variants import ANSWERS, PERPLEXITY, Mapping

# -- speeds -----------------------------------------------------------------------------------------------------------

PEAK = {"bfloat16": 789e12, "float16": 789e12, "float32": 67e12}
"""FLOP/s of one H200: measured in matrix products in bfloat16; in float32 by NVIDIA's data sheet."""
MEASURED_PROMPTS = 210
"""Prompts that were answered at a time when the speed of generation was measured."""
MEASURED_MODEL = "meta-llama/Llama-2-7b-hf"
"""The shape of the model that all speeds were measured with, in bfloat16 and windows of 2,048 tokens."""


@dataclass(frozen=True)
class Speed:
    """How fast an engine is on one H200."""

    record: float
    """Share of the peak while recording."""
    read: float
    """Share of the peak while reading without recording."""
    tokens: float
    """Tokens of answers per second, of all prompts together."""
    start: float
    """Seconds until the engine runs."""


SPEEDS = {
    ("hf", True): Speed(record=0.599, read=0.607, tokens=1_545, start=10),
    ("hf", False): Speed(record=0.599, read=0.607, tokens=10_700, start=10),
    ("vllm", True): Speed(record=0.69, read=0.75, tokens=9_900, start=7),
    ("vllm", False): Speed(record=0.69, read=0.76, tokens=10_990, start=59),
}
"""By engine, and whether it runs without compilation."""

SCORING = 37e-6
"""Seconds per token in which `score_text` measures an answer: 19 ms for 1,800 characters of English, here 512 tokens,
by two identifiers on one core of an AMD EPYC (family 25)."""
TESTING = 0.8e-3
"""Seconds in which `test_effects` compares one prompt or window under one perturbation, on the same core: 2.1 s for 12
perturbations of 3 languages with 70 prompts each. Windows took 0.3 ms."""
SELECTING = 9 / (21 * 80 * 28_672)
"""Seconds per activation probability in which `identify_neurons` selects: 9 s for LLaMA-2-70B with 21 languages."""

CPU_SPEED = 20e9
"""FLOP/s of one thread. The slowest of two demo shapes and two engines made 49e9 in float32, on two cores of that
processor."""
CPU_STEP = 0.02
"""Seconds that every step of generation takes on CPUs, apart from FLOPs. An assumption."""
TOKENIZING = 20_000
"""Tokens per second that `tokenize_corpus` makes of a corpus that is streamed. An assumption."""


@dataclass(frozen=True)
class Rates:
    """How fast the jobs of one model are, on all of their GPUs or threads together."""

    record: float
    """FLOP/s while recording."""
    read: float
    """FLOP/s while reading without recording."""
    step: float
    """Seconds until every prompt of a batch has one token more."""
    start: float
    """Seconds until the engine runs."""


def rates(config: Mapping, name: str, size: Size) -> Rates:
    """How fast the jobs of a model are.

    On several GPUs vLLM shares every layer between them; transformers computes on one after the other, while the others
    wait.
    """
    settings = config["models"][name]
    speed = SPEEDS[settings["engine"], experiment.runs_eagerly(config, name)]
    if not settings["gpus"]:
        flops = CPU_SPEED * settings["threads"]
        batch = settings["generation_batch_size"]
        step = CPU_STEP + batch * size.forward(experiment.window(config, name), head=True) / flops
        return Rates(flops, flops, step, speed.start)
    together = settings["gpus"] if settings["engine"] == "vllm" else 1
    peak = PEAK[settings["dtype"]] * together
    return Rates(peak * speed.record, peak * speed.read, _step(size, speed) / together, speed.start)


def _step(size: Size, speed: Speed) -> float:
    """Seconds per step on one GPU: as measured, or longer for more weights. Smaller models are hardly faster."""
    return MEASURED_PROMPTS / speed.tokens * max(1.0, size.weights() / SIZES[MEASURED_MODEL].weights())


# -- an experiment ----------------------------------------------------------------------------------------------------

STAGES = ("recording", "sentences", "perplexity", "answers")
"""The stages whose jobs load a model that is measured."""


@dataclass(frozen=True)
class Cost:
    """What one stage of one model costs."""

    jobs: int
    hours: float
    """GPU hours."""


def job_seconds(config: Mapping, name: str, size: Size | None = None) -> dict[str, dict[tuple[str, int], float]]:
    """Seconds of wall time of every job that runs a model, by stage; loading weights from the disk is left out.

    Args:
        config: the validated config.
        name: a model that runs here.
        size: its size, if that is not to be looked up.

    Returns:
        By stage of `STAGES`: by language and shard (recording, from 1), `all` (sentences), or name of the family's job.

    Raises:
        ConfigError: a model of the hub whose size is not known.
    """
    size = size or size_of(config, name)
    speed, shards = rates(config, name, size), workload.shards(config)
    window = experiment.window(config, name)
    forward, with_head = size.forward(window, head=False), size.forward(window, head=True)
    recorded = workload.recorded_tokens(config, name)
    sentences = workload.sentences(config) * window  # each in a window of its own
    read = sum(workload.whole_tokens(config, name, config["perplexity"]["split"]).values())
    batches = ceil(workload.prompts(config) / config["models"][name]["generation_batch_size"])
    steps = batches * config["generation"]["max_new_tokens"]
    found: dict[str, dict[tuple[str, int], float]] = {
        "recording": {
            (language, shard): tokens / shards * forward / speed.record
            for language, tokens in recorded.items()
            for shard in range(1, shards + 1)
        },
        "sentences": {},
        "perplexity": {
            (job.name, 1): len(job.members) * read * with_head / speed.read for job in variants.jobs(config, PERPLEXITY)
        },
        "answers": {(job.name, 1): len(job.members) * steps * speed.step for job in variants.jobs(config, ANSWERS)},
    }
    if sentences:
        tokens = min(len(recorded) * sentences, sum(recorded.values()))
        found["sentences"]["all", 1] = tokens * forward / speed.record
    return {stage: {key: speed.start + seconds for key, seconds in jobs.items()} for stage, jobs in found.items()}


def estimate(config: Mapping) -> dict[str, dict[str, Cost]]:
    """The cost of every model of the run that runs on GPUs, by stage; loading weights from the disk is left out.

    Raises:
        ConfigError: a model of the hub whose size is not known.
    """
    chosen = [name for name in config["run"]["models"] if name in experiment.own_models(config)]
    return {
        name: {
            stage: Cost(len(jobs), gpus * sum(jobs.values()) / 3600)
            for stage, jobs in job_seconds(config, name).items()
        }
        for name in chosen
        if (gpus := config["models"][name]["gpus"])
    }


def scoring_seconds(config: Mapping) -> float:
    """Seconds of `score_text` of one model, on one core."""
    return workload.answers(config) * config["generation"]["max_new_tokens"] * SCORING


def testing_seconds(config: Mapping, name: str) -> float:
    """Seconds of `test_effects` of one model that runs here, on one core."""
    tokens = sum(workload.whole_tokens(config, name, config["perplexity"]["split"]).values())
    windows = tokens // experiment.window(config, name) * len(variants.perturbations(config, PERPLEXITY))
    return (workload.answers(config) + windows) * TESTING


def as_table(config: Mapping, costs: dict[str, dict[str, Cost]]) -> list[str]:
    """Lines of a table: jobs x GPU hours of each, by model and stage."""
    rows = [["model", "weights", *STAGES, "GPU hours"], ["---"] * (len(STAGES) + 3)]
    for name, found in costs.items():
        settings = config["models"][name]
        size = size_of(config, name).weights() * BYTES[settings["dtype"]] / 1e9
        cells = [f"{found[stage].jobs} × {_hours(found[stage])}" if found[stage].jobs else "–" for stage in STAGES]
        gpus = f"{settings['engine']}, {settings['gpus']} GPU" + "s" * (settings["gpus"] > 1)
        rows.append([f"{name} ({gpus})", f"{size:,.0f} GB", *cells, f"{total(found.values()):,.1f}"])
    every = total(cost for found in costs.values() for cost in found.values())
    rows.append(["together", "", *[""] * len(STAGES), f"{every:,.1f}"])
    return [f"| {' | '.join(row)} |" for row in rows]


def total(costs: Iterable[Cost]) -> float:
    """GPU hours together."""
    return sum(cost.hours for cost in costs)


def _hours(cost: Cost) -> str:
    """GPU hours of one job."""
    return f"{cost.hours / cost.jobs:,.2f} h"


# -- what to ask of a batch system ------------------------------------------------------------------------------------

SAFETY = 4
"""Times as long as is worked out: an older GPU or processor, other work on the machine."""
MINUTES = 30
"""Shortest time that is asked for, in minutes."""
READING = 200e6
"""Bytes per second at which weights come from a file system that many nodes share. An assumption."""
UNKNOWN = {1: SIZES["meta-llama/Llama-2-13b-hf"], 2: SIZES["meta-llama/Llama-2-70b-hf"]}
"""Sizes that stand for those that are not known: of models on one GPU or none, and on several."""


@dataclass(frozen=True)
class Request:
    """What a job asks of a batch system."""

    minutes: int
    memory_mb: int
    """Memory of the machine, 1e6 bytes; that of GPUs comes with them."""


def request(config: Mapping, model: str | None, stage: str) -> Request:
    """Time and memory of the largest job of a stage. Rules multiply both by the number of the attempt.

    Minutes are `SAFETY` times the estimate, and reading the weights; `MINUTES` at least. For a model whose size is not
    known, one stands in that is as large as is common for so many GPUs.

    Args:
        config: the validated config.
        model: its name; None for the model that needs the most, of jobs over all models.
        stage: `recording` (of a language, or of a shard of it), `sentences`, `perplexity`, `answers`, `training`,
            `tokens` (`tokenize_corpus`), `neurons` (`identify_neurons`), or `analysis` (every other job on the CPU).

    Raises:
        ConfigError: there is no such stage.
    """
    if model is None:
        asked = [request(config, name, stage) for name in config["run"]["models"]]
        return Request(max(one.minutes for one in asked), max(one.memory_mb for one in asked))
    size = _size_or_stand_in(config, model)
    if stage in (*STAGES, "training"):
        jobs = {("", 1): _training_seconds(config, model, size)}
        if stage != "training":
            jobs = job_seconds(config, model, size)[stage]
        loading = footprint.weight_bytes(config, model, size) / READING
        seconds = SAFETY * max(jobs.values(), default=0.0) + loading
        memory = footprint.host_memory(config, model, size, stage)
    elif stage == "tokens":
        seconds, memory = SAFETY * _tokenizing_seconds(config, model), footprint.tokenizing_memory(config, model)
    elif stage == "neurons":
        seconds, memory = SAFETY * _selecting_seconds(config, size), footprint.identification_memory(config, size)
    elif stage == "analysis":
        own = model in experiment.own_models(config)
        testing = testing_seconds(config, model) if own else workload.answers(config) * TESTING
        # One of these jobs selects from parts of the text, five times.
        seconds = SAFETY * max(scoring_seconds(config), testing, 5 * _selecting_seconds(config, size))
        memory = max(footprint.identification_memory(config, size), footprint.text_memory(config))
    else:
        raise ConfigError(f"no stage is called '{stage}', of which time and memory could be asked for.")
    return Request(max(MINUTES, ceil(seconds / 60)), ceil(memory / 1e6))


def _size_or_stand_in(config: Mapping, model: str) -> Size:
    """A model's size, or a common one. Of published models only layers and neurons count, where the config has them."""
    settings = config["models"][model]
    if settings["source"] == experiment.PUBLISHED:
        common = UNKNOWN[2]
        return Size(settings.get("layers") or common.layers, common.width, settings.get("neurons") or common.neurons, 0)
    try:
        return size_of(config, model)
    except (ConfigError, OSError):
        return UNKNOWN[min(max(settings["gpus"], 1), 2)]


def _training_seconds(config: Mapping, model: str, size: Size) -> float:
    """Seconds of training: three times a forward pass, in which gradients take two thirds."""
    settings = config["models"][model]
    if settings["source"] != "demo":
        return 0.0
    return 3 * settings["training_tokens"] * size.forward(settings["context"], head=True) / _threads_speed(settings)


def _threads_speed(settings: Mapping) -> float:
    """FLOP/s of a model's threads."""
    return float(CPU_SPEED * settings["threads"])


def _tokenizing_seconds(config: Mapping, model: str) -> float:
    """Seconds of `tokenize_corpus` of the language with the most text: it reads until the smallest split is full."""
    share = config["corpora"]["share"]
    shares = {**share, "train": 1 - sum(share.values())}
    needed = [
        amount / shares[split]
        for split in experiment.SPLITS
        for amount in workload.whole_tokens(config, model, split).values()
    ]
    return max(needed) / TOKENIZING


def _selecting_seconds(config: Mapping, size: Size) -> float:
    """Seconds of `identify_neurons`; methods that compare sentences are taken to need as long per number."""
    numbers = len(config["run"]["languages"]) * size.layers * size.neurons
    return numbers * (1 + workload.sentences(config)) * SELECTING
