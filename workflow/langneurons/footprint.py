"""Memory and storage of an experiment, worked out before it runs. Standard library only.

What is worked out is the largest that a job holds at once. Arrays that are stored are counted exactly, everything else
roughly, and rather too high: docs/scaling.md says what each estimate leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from langneurons import config as experiment
from langneurons import variants, workload
from langneurons.sizes import BYTES, Size, size_of
from langneurons.variants import PERPLEXITY, Mapping

BASE = 4_000_000_000
"""Bytes of a process with Python, torch and CUDA's libraries, before any weights. An assumption."""
PROMPT_TOKENS = 256
"""Tokens of a prompt, as an upper bound. An assumption."""
TOKEN_BYTES = 4
"""UTF-8 bytes of text per token. An assumption, about what English takes."""
FILE_BYTES = 4_096
"""Bytes of a small Parquet file beside its numbers: header, names, checksum. An assumption."""
RECORD_BYTES = 500
"""Bytes of an answer beside its text: id, question, format and checksum. An assumption."""
OWNERS = 2
"""Languages that own a selected neuron, on average. An assumption."""


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Storage:
    """Bytes of the results of one model by kind, and of what is downloaded for it."""

    tokens: int
    recordings: int
    sentences: int
    neurons: int
    """Neuron tables and interventions."""
    perplexity: int
    answers: int
    """Answers, and the table in which they are measured."""
    model: int
    """Weights: of the hub in its cache, of a demo model in `results/`; none for a folder of one's own."""

    def total(self) -> int:
        """Bytes together."""
        return sum(getattr(self, field.name) for field in fields(self))


def recording_bytes(size: Size, sums: bool = True) -> int:
    """Bytes of the arrays of one language's recording.

    Args:
        size: of the model.
        sums: whether sums are recorded beside counts (`recording.sums`).

    Returns:
        Eight bytes for each number of `over_zero`, `half_over_zero`, `quarter_over_zero` (int64 `[layer, neuron]`), and
        with sums of `activation_sum`, `product_sum` (float64 `[layer, neuron]`) and `hidden_sum` (`[layer, width]`).
    """
    arrays = 5 if sums else 3
    return 8 * size.layers * (arrays * size.neurons + (size.width if sums else 0))


def weight_bytes(config: Mapping, model: str, size: Size) -> int:
    """Bytes of the weights in the number format of the config."""
    return size.weights() * BYTES[config["models"][model]["dtype"]]


def storage(config: Mapping, model: str) -> Storage:
    """Bytes of all results of a model that runs here, and of its weights.

    Raises:
        ConfigError: a model of the hub whose size is not known.
    """
    size = size_of(config, model)
    languages = len(config["run"]["languages"])
    neurons = size.layers * size.neurons
    tokens = {split: workload.whole_tokens(config, model, split) for split in experiment.SPLITS}
    owned = [round(row["top_rate"] * neurons) * OWNERS for row in variants.run_selections(config).values()]
    edits = len(variants.perturbations(config)) - 1
    read = len(variants.perturbations(config, PERPLEXITY))
    windows = sum(tokens[config["perplexity"]["split"]].values()) // experiment.window(config, model)
    answer = config["generation"]["max_new_tokens"] * TOKEN_BYTES + RECORD_BYTES
    own = config["models"][model]["source"] == "folder"
    return Storage(
        tokens=4 * sum(sum(amounts.values()) for amounts in tokens.values()),
        recordings=languages * recording_bytes(size, config["recording"]["sums"]),
        sentences=2 * languages * workload.sentences(config) * neurons,
        # Rows of language, layer, neuron, entropy, probability; and of layer, neuron, keep, fill for a language's own.
        neurons=36 * sum(owned) + edits * (FILE_BYTES + 32 * max(owned) // languages),
        perplexity=read * (16 * windows + FILE_BYTES * languages),
        answers=2 * workload.answers(config) * answer,
        model=0 if own else weight_bytes(config, model, size),
    )


# -- memory -----------------------------------------------------------------------------------------------------------


def gpu_memory(config: Mapping, model: str) -> int:
    """Bytes that a model's jobs take on each of its GPUs at least, with batches of the configured size.

    Weights, shared among the GPUs, and on top the largest of three: recording (its counts and sums, kept twice so that
    a batch can be taken back, and one layer's activations of a batch), perplexity (the logits of a batch, in the
    number format and in float32), and answers (keys and values of a batch of prompts). vLLM takes what is left of a GPU
    for keys and values, so that it always looks full; transformers halves batches that do not fit.

    Raises:
        ConfigError: a model of the hub whose size is not known.
    """
    settings, size = config["models"][model], size_of(config, model)
    gpus, number = max(settings["gpus"], 1), BYTES[settings["dtype"]]
    recorded = 2 * recording_bytes(size, config["recording"]["sums"]) // gpus + activation_bytes(config, model, size)
    logits = batch_tokens(config, model) * size.vocabulary * (number + 4)
    length = config["generation"]["max_new_tokens"] + PROMPT_TOKENS
    kept = 2 * size.layers * (size.key_value_width or size.width) * length * number
    answering = settings["generation_batch_size"] * kept // gpus
    return weight_bytes(config, model, size) // gpus + max(recorded, logits, answering)


def batch_tokens(config: Mapping, model: str) -> int:
    """Tokens of a batch of windows."""
    return int(config["models"][model]["batch_size"] * experiment.window(config, model))


def activation_bytes(config: Mapping, model: str, size: Size) -> int:
    """Bytes of one layer's activations of a batch: gate, up and product, and four vectors of the model's width."""
    numbers = 3 * size.neurons + 4 * size.width
    return batch_tokens(config, model) * numbers * BYTES[config["models"][model]["dtype"]]


def host_memory(config: Mapping, model: str, size: Size, stage: str) -> int:
    """Bytes of the machine's memory that a job holds which loads the model.

    Processes (one per GPU in vLLM), the weights while they are loaded (in training with gradients and two moments of
    the optimizer), the windows of its languages, of which reading keeps a copy to check, and for recording its arrays:
    of both quarters, of the half and of all. On the CPU also a batch's activations, and its logits with a copy in
    float32.

    Args:
        config: the validated config.
        model: one that runs here.
        size: its size.
        stage: recording, sentences, perplexity, answers or training.
    """
    settings = config["models"][model]
    processes = max(settings["gpus"], 1) if settings["engine"] == "vllm" else 1
    held = processes * BASE + weight_bytes(config, model, size) * (4 if stage == "training" else 1)
    if stage == "recording":
        held += 8 * max(workload.recorded_tokens(config, model).values())
        held += 4 * recording_bytes(size, config["recording"]["sums"])
    elif stage == "sentences":
        held += 8 * sum(workload.recorded_tokens(config, model).values())
        held += 2 * workload.sentences(config) * size.layers * size.neurons
    elif stage != "training":
        held += 8 * sum(workload.whole_tokens(config, model, config["perplexity"]["split"]).values())
    if not settings["gpus"]:
        held += activation_bytes(config, model, size)
        held += 0 if stage in ("recording", "sentences") else 8 * batch_tokens(config, model) * size.vocabulary
    return held


def identification_memory(config: Mapping, size: Size) -> int:
    """Bytes of a job that holds all recordings of a model: `identify_neurons`, `test_stability` and others.

    Beside the recordings, and sentences where a method compares them: the activation probabilities of all languages,
    float32 `[language, layer, neuron]`, and a sorted copy, shares and entropies in float64.
    """
    languages, neurons = len(config["run"]["languages"]), size.layers * size.neurons
    recordings = languages * recording_bytes(size, config["recording"]["sums"])
    means = 2 * languages * workload.sentences(config) * neurons
    return BASE + recordings + means + languages * neurons * (2 * 4 + 3 * 8)


def text_memory(config: Mapping) -> int:
    """Bytes of a job that holds all answers of a model, in three copies."""
    answer = config["generation"]["max_new_tokens"] * TOKEN_BYTES + RECORD_BYTES
    return BASE + 3 * workload.answers(config) * answer


def tokenizing_memory(config: Mapping, model: str) -> int:
    """Bytes of `tokenize_corpus` for the language with the most text: its tokens, in three copies, and local files,
    which are read as a whole."""
    window, held = experiment.window(config, model), 0
    for language in config["run"]["languages"]:
        tokens = sum(budget // window * window for budget in experiment.tokens(config, language).values())
        held = max(held, 3 * 4 * tokens + 3 * _local_bytes(config, language))
    return BASE + held


def _local_bytes(config: Mapping, language: str) -> int:
    """Bytes of the local files of a language; none for the embedded corpus, which is small, and for Wikipedia."""
    source = experiment.corpus(config, language)
    files = experiment.source_files(source, language) if source["source"] == "files" else []
    return sum(Path(path).stat().st_size for path in files)


# -- the table --------------------------------------------------------------------------------------------------------


def as_table(config: Mapping) -> list[str]:
    """Lines of a table: memory and storage in GB (1e9 bytes) of every model that runs here."""
    columns = ["tokens", "recordings", "sentences", "neurons", "perplexity", "answers", "model"]
    head = ["model", "per GPU", "host", *[name.replace("model", "weights") for name in columns], "storage"]
    rows = [head, ["---"] * len(head)]
    together = 0
    for name in config["run"]["models"]:
        if name not in experiment.own_models(config):
            continue
        settings, size, found = config["models"][name], size_of(config, name), storage(config, name)
        stages = ["recording", "perplexity", "answers"]
        host = max(host_memory(config, name, size, stage) for stage in stages)
        per_gpu = _shown(gpu_memory(config, name)) if settings["gpus"] else "–"
        cells = [_shown(getattr(found, column)) for column in columns]
        rows.append([name, per_gpu, _shown(host), *cells, _shown(found.total())])
        together += found.total()
    rows.append(["together", *[""] * (len(head) - 2), _shown(together)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _shown(number: int) -> str:
    """Gigabytes."""
    return "–" if not number else f"{number / 1e9:,.1f} GB" if number >= 5e7 else "< 0.1 GB"
