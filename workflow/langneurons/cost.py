"""What an experiment costs on GPUs: its jobs, and GPU hours from FLOPs and measured speeds. Standard library only.

A forward pass takes 2 N + 2 layers context width FLOPs per token (Kaplan et al. 2020, section 2.1): two per weight of
the blocks, N, and what attention adds, which looks back over half a window on average. The language-model head, which
recording leaves out, adds 2 width vocabulary. Answers take as many steps as they may have tokens, so that their time is
an upper bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from langneurons import config as experiment
from langneurons import variants
from langneurons.corpus.prompts import read_prompts
from langneurons.errors import ConfigError
from langneurons.models.layouts import LAYOUTS, supported_architecture
from langneurons.variants import ANSWERS, PERPLEXITY, Mapping

# -- speeds -----------------------------------------------------------------------------------------------------------

PEAK = {"bfloat16": 789e12, "float16": 789e12, "float32": 67e12}
"""FLOP/s of one H200: measured in matrix products in bfloat16; in float32 by NVIDIA's data sheet."""
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
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

# -- sizes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """The size of a model."""

    layers: int
    width: int
    neurons: int
    """Per layer."""
    vocabulary: int
    gated: bool = False
    tied: bool = True
    """Embedding and language-model head are the same weights."""
    heads_width: int | None = None
    """Width of all heads of attention together, where it is not the model's."""
    key_value_width: int | None = None
    """The same of keys and values, where these have fewer heads."""

    def block_weights(self) -> int:
        """Weights of all blocks, without biases and norms."""
        heads = self.heads_width or self.width
        attention = 2 * self.width * (heads + (self.key_value_width or heads))
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.neurons)

    def weights(self) -> int:
        """All weights, without biases, norms and positions."""
        return self.block_weights() + (1 if self.tied else 2) * self.vocabulary * self.width

    def forward(self, context: int, head: bool) -> int:
        """FLOPs per token of reading a window of `context` tokens."""
        attention = 2 * self.layers * context * (self.heads_width or self.width)
        return 2 * self.block_weights() + attention + (2 * self.width * self.vocabulary if head else 0)


SIZES = {
    "meta-llama/Llama-2-7b-hf": Size(32, 4096, 11008, 32000, gated=True, tied=False),
    "meta-llama/Llama-2-13b-hf": Size(40, 5120, 13824, 32000, gated=True, tied=False),
    "meta-llama/Llama-2-70b-hf": Size(80, 8192, 28672, 32000, gated=True, tied=False, key_value_width=1024),
    "mistralai/Mistral-7B-v0.1": Size(32, 4096, 14336, 32000, gated=True, tied=False, key_value_width=1024),
    "bigscience/bloom-7b1": Size(30, 4096, 16384, 250880),
    "facebook/opt-6.7b": Size(32, 4096, 16384, 50272),
    "microsoft/phi-2": Size(32, 2560, 10240, 51200, tied=False),
    "ai-forever/mGPT": Size(24, 2048, 8192, 100000),
}
"""Sizes of models of the hub, by their config.json."""
NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd", "n_embed"),
    "neurons": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "heads": ("num_attention_heads", "n_head"),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads"),
}
"""What sizes are called in the config.json of the families."""


def size_of(config: Mapping, name: str) -> Size:
    """The size of a model.

    Raises:
        ConfigError: a model of the hub whose size is not known here.
    """
    settings = config["models"][name]
    if settings["source"] == "demo":
        sizes = {key: settings[key] for key in ("layers", "width", "neurons", "vocabulary")}
        return Size(**sizes, gated=settings["architecture"] == "llama")
    if settings["source"] == "folder":
        return read_size(Path(settings["path"], "config.json"))
    if settings["id"] not in SIZES:
        raise ConfigError(
            f"config key 'models.{name}.id': the size of '{settings['id']}' is not known here. Add it to SIZES in "
            "workflow/langneurons/cost.py."
        )
    return SIZES[settings["id"]]


def read_size(path: Path) -> Size:
    """The size that a config.json of transformers gives."""
    given: Mapping = json.loads(path.read_text(encoding="utf-8"))
    found: Mapping = {
        what: next((given[name] for name in names if given.get(name)), None) for what, names in NAMES.items()
    }
    head = given.get("head_dim") or found["width"] // found["heads"]
    one = given.get("multi_query") and not given.get("new_decoder_architecture")  # Falcon's
    return Size(
        found["layers"],
        found["width"],
        found["neurons"] or 4 * found["width"],
        given["vocab_size"],
        gated=LAYOUTS[supported_architecture(given.get("architectures"))].gated,
        tied=given.get("tie_word_embeddings", True),
        heads_width=found["heads"] * head,
        key_value_width=(1 if one else found["key_value_heads"] or found["heads"]) * head,
    )


# -- an experiment ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one stage of one model costs."""

    jobs: int
    hours: float
    """GPU hours."""


def estimate(config: Mapping) -> dict[str, dict[str, Cost]]:
    """The cost of every model of the run that runs on GPUs, by stage; loading weights from the disk is left out.

    On several GPUs vLLM shares every layer between them; transformers computes on one after the other, while the others
    wait.
    """
    chosen = [name for name in config["run"]["models"] if name in experiment.own_models(config)]
    return {name: _stages(config, name) for name in chosen if config["models"][name]["gpus"]}


def _stages(config: Mapping, name: str) -> dict[str, Cost]:
    settings, size = config["models"][name], size_of(config, name)
    eager = experiment.runs_eagerly(config, name)
    speed = SPEEDS[settings["engine"], eager]
    window = experiment.window(config, name)
    waiting = settings["gpus"] if settings["engine"] == "hf" else 1

    def cost(jobs: int, seconds: float) -> Cost:
        started = jobs * speed.start * settings["gpus"] if jobs else 0
        return Cost(jobs, (seconds * waiting + started) / 3600)

    def reading(tokens: int, share: float, head: bool) -> float:
        return tokens * size.forward(window, head) / (PEAK[settings["dtype"]] * share)

    languages = config["run"]["languages"]
    read = len(variants.perturbations(config, PERPLEXITY)) * _tokens(config, config["perplexity"]["split"], window)
    needed = [row["method"] in variants.SENTENCE_METHODS for row in variants.run_selections(config).values()]
    sentences = min(
        len(languages) * config["identification"]["sentences"] * window,  # each in a window of its own
        _tokens(config, config["recording"]["split"], window),
    )
    return {
        "recording": cost(
            len(languages), reading(_tokens(config, config["recording"]["split"], window), speed.record, head=False)
        ),
        "sentences": cost(int(any(needed)), reading(sentences * any(needed), speed.record, head=False)),
        "perplexity": cost(len(variants.jobs(config, PERPLEXITY)), reading(read, speed.read, head=True)),
        "answers": cost(len(variants.jobs(config, ANSWERS)), _steps(config, name) * _step(size, speed)),
    }


def _tokens(config: Mapping, split: str, window: int) -> int:
    """Tokens of all languages in whole windows."""
    budgets = [experiment.tokens(config, language)[split] for language in config["run"]["languages"]]
    return sum(budget // window * window for budget in budgets)


def _steps(config: Mapping, name: str) -> int:
    """Steps of generation of all batches and perturbations, were every answer as long as it may be."""
    settings = config["generation"]
    prompts = sum(
        len(read_prompts(path, language, settings["validation_prompts"], settings["split"]))
        for language in config["run"]["languages"]
        if (path := experiment.prompt_path(config, language))
    )
    batches = ceil(prompts / config["models"][name]["generation_batch_size"])
    return len(variants.perturbations(config, ANSWERS)) * batches * settings["max_new_tokens"]


def _step(size: Size, speed: Speed) -> float:
    """Seconds per step: as measured, or longer for more weights. Smaller models are hardly faster."""
    return MEASURED_PROMPTS / speed.tokens * max(1.0, size.weights() / SIZES[MEASURED_MODEL].weights())


def as_table(config: Mapping, costs: dict[str, dict[str, Cost]]) -> list[str]:
    """Lines of a table: jobs x GPU hours of each, by model and stage."""
    stages = ["recording", "sentences", "perplexity", "answers"]
    rows = [["model", "weights", *stages, "GPU hours"], ["---"] * (len(stages) + 3)]
    for name, found in costs.items():
        settings = config["models"][name]
        size = size_of(config, name).weights() * BYTES[settings["dtype"]] / 1e9
        cells = [f"{found[stage].jobs} × {_hours(found[stage])}" if found[stage].jobs else "–" for stage in stages]
        gpus = f"{settings['engine']}, {settings['gpus']} GPU" + "s" * (settings["gpus"] > 1)
        rows.append([f"{name} ({gpus})", f"{size:,.0f} GB", *cells, f"{total(found.values()):,.1f}"])
    every = total(cost for found in costs.values() for cost in found.values())
    rows.append(["together", "", *[""] * len(stages), f"{every:,.1f}"])
    return [f"| {' | '.join(row)} |" for row in rows]


def total(costs: Iterable[Cost]) -> float:
    """GPU hours together."""
    return sum(cost.hours for cost in costs)


def _hours(cost: Cost) -> str:
    """GPU hours of one job."""
    return f"{cost.hours / cost.jobs:,.2f} h"
