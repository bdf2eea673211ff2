"""The cost of experiments: FLOPs by hand, speeds as they were measured, memory and storage, what a batch system is
asked for, and the tables of the README and of docs/scaling.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stopwordsiso
import yaml

from langneurons import artifacts, footprint, graph
from langneurons.cost import (
    PEAK,
    SPEEDS,
    Request,
    as_table,
    estimate,
    job_seconds,
    request,
    total,
)
from langneurons.errors import ConfigError
from langneurons.neurons.counting import ActivationCounts
from langneurons.sizes import SIZES, Size, read_size, size_of
from langneurons.validation import validate

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "workflow" / "experiments"
LLAMA = SIZES["meta-llama/Llama-2-7b-hf"]


def config(**settings: Any) -> dict[str, Any]:
    """LLaMA-2-7B on 4 windows of 1,024 tokens of two languages; its questions are the 60 embedded ones."""
    model = {"source": "hub", "id": "meta-llama/Llama-2-7b-hf", "generation_batch_size": 50} | settings
    return validate(
        {
            "run": {"models": ["big"], "languages": ["en", "de"], "perturbations": ["off", "on"]},
            "models": {"big": model},
            "corpora": {"window": 1024, "tokens": {"train": {"en": 4096, "de": 3000}, "test": 2048}},
            "identification": {"compare": []},
            "perturbations": {
                "off": {"kind": "deactivate"},
                "on": {"kind": "steer", "site": "product", "measure": ["answers"]},
            },
            "generation": {"split": "all", "max_new_tokens": 100},
        }
    )


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 6.7384e9),
        ("meta-llama/Llama-2-13b-hf", 13.0159e9),
        ("meta-llama/Llama-2-70b-hf", 68.9767e9),
        ("mistralai/Mistral-7B-v0.1", 7.2417e9),
        ("bigscience/bloom-7b1", 7.0690e9),
        ("facebook/opt-6.7b", 6.6585e9),
        ("microsoft/phi-2", 2.7797e9),
        ("ai-forever/mGPT", 1.4176e9),
    ],
)
def test_sizes_give_the_numbers_of_parameters(model: str, parameters: float) -> None:
    """Biases, norms and learned positions are left out, up to 0.4 % (mGPT's positions)."""
    assert SIZES[model].weights() == pytest.approx(parameters, rel=4e-3)


def test_flops_by_hand() -> None:
    """32 layers of four matrices of 4096 x 4096 and three of 4096 x 11008; attention looks back over 1,024 tokens."""
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert LLAMA.block_weights() == weights == 6_476_005_376
    assert LLAMA.forward(2048, head=False) == 2 * weights + 2 * 32 * 2048 * 4096
    assert LLAMA.forward(2048, head=True) - LLAMA.forward(2048, head=False) == 2 * 4096 * 32000
    assert SIZES["mistralai/Mistral-7B-v0.1"].block_weights() == 32 * (2 * 4096 * (4096 + 1024) + 3 * 4096 * 14336)


@pytest.mark.parametrize(("tokens", "share"), [(35_500, 0.607), (34_100, 0.584), (35_000, 0.599), (32_600, 0.558)])
def test_shares_of_the_peak_follow_from_measured_tokens_per_second(tokens: int, share: float) -> None:
    """The measurements that the speeds come from were converted by the same formula; tokens/s are rounded to 100."""
    assert tokens * LLAMA.forward(2048, head=False) / PEAK["bfloat16"] == pytest.approx(share, abs=0.0015)


def test_size_of_a_folder(tmp_path: Path) -> None:
    given = {"architectures": ["MistralForCausalLM"], "num_hidden_layers": 32, "hidden_size": 4096}
    given |= {"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000}
    (tmp_path / "config.json").write_text(json.dumps(given | {"tie_word_embeddings": False}))
    size = read_size(tmp_path / "config.json")
    assert size.weights() == SIZES["mistralai/Mistral-7B-v0.1"].weights()
    assert size.forward(4096, head=True) == SIZES["mistralai/Mistral-7B-v0.1"].forward(4096, head=True)


@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"])
def test_a_size_that_is_left_to_the_default_of_a_class(tmp_path: Path, name: str) -> None:
    """transformers knows it, and the model runs; only what it takes cannot be told."""
    given = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 99}
    given |= {"num_attention_heads": 4, "intermediate_size": 64}
    read_size_of = tmp_path / "config.json"
    read_size_of.write_text(json.dumps(given))
    assert read_size(read_size_of).layers == 2
    read_size_of.write_text(json.dumps({key: value for key, value in given.items() if key != name}))
    with pytest.raises(
        ConfigError, match=rf"config\.json does not say its \w+ \(.*{name}.*to the default of its class"
    ):
        read_size(read_size_of)


def test_an_unknown_model_of_the_hub() -> None:
    with pytest.raises(ConfigError, match=r"'models\.big\.id': the size of 'x/y' is not known here\. Add it to SIZES"):
        estimate(config(id="x/y"))


def test_size_of_a_demo_model() -> None:
    demo = validate(
        {
            "run": {"models": ["small"], "languages": ["en", "de"]},
            "models": {"small": {"source": "demo", "architecture": "gpt2"}},
        }
    )
    assert size_of(demo, "small").weights() == 4 * (4 * 128**2 + 2 * 128 * 512) + 2000 * 128
    assert estimate(demo) == {}  # on the CPU


# -- an experiment ----------------------------------------------------------------------------------------------------


def test_cost_by_hand() -> None:
    """4 + 2 windows recorded; none, off-en, off-de read on 2 + 2 windows; 120 questions in three batches."""
    found = estimate(config())["big"]
    peak, speed = 789e12, SPEEDS["hf", False]
    recorded = 6 * 1024 * LLAMA.forward(1024, head=False) / (peak * 0.599)
    read = 3 * 4 * 1024 * LLAMA.forward(1024, head=True) / (peak * 0.607)
    answered = 5 * 3 * 100 * 210 / speed.tokens
    assert [found[stage].jobs for stage in ("recording", "sentences", "perplexity", "answers")] == [2, 0, 2, 3]
    assert found["recording"].hours * 3600 == pytest.approx(recorded + 2 * 10)
    assert found["sentences"].hours == 0
    assert found["perplexity"].hours * 3600 == pytest.approx(read + 2 * 10)
    assert found["answers"].hours * 3600 == pytest.approx(answered + 3 * 10)


def test_larger_models_take_longer_steps_and_smaller_ones_the_same() -> None:
    def answering(model: str) -> float:
        return estimate(config(id=model))["big"]["answers"].hours * 3600 - 3 * 10

    small = answering("meta-llama/Llama-2-7b-hf")
    ratio = SIZES["meta-llama/Llama-2-70b-hf"].weights() / LLAMA.weights()
    assert answering("meta-llama/Llama-2-70b-hf") == pytest.approx(small * ratio)
    assert answering("microsoft/phi-2") == pytest.approx(small)


@pytest.mark.parametrize(("engine", "waiting"), [("hf", 4), ("vllm", 1)])
def test_several_gpus(engine: str, waiting: int) -> None:
    """Layers on several GPUs run one after the other; vLLM shares every layer."""
    model = {"id": "meta-llama/Llama-2-70b-hf", "engine": engine}
    one, four = (estimate(config(**model, gpus=gpus))["big"]["recording"] for gpus in (1, 4))
    start = SPEEDS[engine, False].start
    assert four.hours * 3600 - 2 * 4 * start == pytest.approx(waiting * (one.hours * 3600 - 2 * start))


def test_edits_that_need_hooks_run_without_compilation() -> None:
    checked = config()
    compiled = estimate(checked)["big"]["answers"].hours
    checked["perturbations"]["on"]["site"] = "activation"
    eager = estimate(checked)["big"]["answers"].hours
    assert (eager * 3600 - 30) / (compiled * 3600 - 30) == pytest.approx(10_700 / 1_545)


def test_times_of_jobs() -> None:
    """Each language by its tokens; a family by its members. Two shards take half as long each, and start each."""
    checked = config(engine="vllm", gpus=2)
    found = job_seconds(checked, "big")
    start = SPEEDS["vllm", False].start
    recording = found["recording"]
    assert list(recording) == [("en", 1), ("de", 1)]
    assert recording["en", 1] - start == pytest.approx(2 * (recording["de", 1] - start))  # 4 windows, and 2
    assert found["perplexity"]["off", 1] - start == pytest.approx(2 * (found["perplexity"]["none", 1] - start))
    hours = estimate(checked)["big"]["recording"].hours
    assert hours * 3600 == pytest.approx(2 * sum(recording.values()))
    checked["recording"]["shards"] = 2
    sharded = job_seconds(checked, "big")["recording"]
    assert list(sharded) == [("en", 1), ("en", 2), ("de", 1), ("de", 2)]
    assert sharded["en", 2] - start == pytest.approx((recording["en", 1] - start) / 2)
    assert estimate(checked)["big"]["recording"].jobs == 4


def test_table() -> None:
    checked = config()
    lines = as_table(checked, estimate(checked))
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *("model", "weights", "recording", "sentences", "perplexity", "answers", "GPU hours"),
    ]
    assert lines[2].startswith("| big (hf, 1 GPU) | 13 GB | 2 × 0.00 h | – | 2 × 0.00 h | 3 × 0.01 h |")
    assert lines[3].endswith(f"| {total(estimate(checked)['big'].values()):.1f} |")


# -- the jobs and what they wait for ----------------------------------------------------------------------------------


def test_jobs_and_what_they_need() -> None:
    found = {job.name: job for job in graph.jobs(config())}
    assert found["record_activations of big, de"].needs == ("tokenize_corpus of big, de",)
    assert found["identify_neurons of big, lape"].needs == (
        "record_activations of big, en",
        "record_activations of big, de",
    )
    assert found["plan_off of big"].needs == ("identify_neurons of big, lape",)  # to switch off needs no means
    assert set(found["plan_on of big"].needs) > {"identify_neurons of big, lape", "record_activations of big, en"}
    tokens = ("tokenize_corpus of big, en", "tokenize_corpus of big, de")
    assert found["measure_perplexity_none of big"].needs == tokens
    assert found["generate_text_on of big"].needs == (*tokens, "check_prompts of big", "plan_on of big")
    gpus = {job.rule for job in found.values() if job.gpus}
    assert gpus == {
        "record_activations",
        *("measure_perplexity_none", "measure_perplexity_off"),
        *("generate_text_none", "generate_text_off", "generate_text_on"),
    }


def test_jobs_of_shards() -> None:
    """The shards take the GPUs; the job that adds them up takes none."""
    checked = config()
    checked["recording"]["shards"] = 3
    found = graph.jobs(checked)
    assert graph.counts(found)["record_shard"] == 6
    assert graph.counts(found)["record_activations"] == 2
    adding = next(job for job in found if job.name == "record_activations of big, en")
    assert adding.gpus == adding.seconds == 0
    assert {f"record_shard of big, en {number}" for number in (1, 2, 3)} < set(adding.needs)


def test_table_of_rules() -> None:
    """Rules of families together; 2 tokenized, 2 recorded, 2 + 3 measured."""
    lines = graph.as_table(graph.jobs(config()))
    assert "| measure_perplexity_… | 2 |" in lines
    assert "| generate_text_… | 3 |" in lines
    assert lines[-1] == f"| together | {len(graph.jobs(config()))} |"


# -- memory and storage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sums", [True, False])
def test_recordings_take_little_more_than_their_arrays(tmp_path: Path, sums: bool) -> None:
    """A recording of 4 layers as it is written. Beside its arrays it has a header and four numbers."""
    size = Size(4, width=128, neurons=512, vocabulary=2500)
    counts = np.ones((4, 512), dtype=np.int64)
    added = {"activation_sum": counts.astype(float), "product_sum": counts.astype(float)} if sums else {}
    hidden = {"hidden_sum": np.zeros((4, 128))} if sums else {}
    recorded = ActivationCounts(
        **({"activation_sum": None, "product_sum": None} | added | hidden),
        over_zero=2 * counts,
        tokens=4,
        half_over_zero=counts,
        half_tokens=2,
        quarter_over_zero=counts,
        quarter_tokens=1,
    )
    artifacts.write_activations(tmp_path / "en.safetensors", recorded, {"language": "en"})
    arrays = [getattr(recorded, name) for name in recorded.__dataclass_fields__]
    expected = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    assert footprint.recording_bytes(size, sums) == expected
    assert expected < (tmp_path / "en.safetensors").stat().st_size <= 1.1 * expected


def test_storage_by_hand() -> None:
    """Of LLaMA-2-7B with two languages, 1 % of the neurons, 3 perturbations read and 5 answered."""
    checked = config()
    checked["identification"]["top_rate"] = 0.01
    found = footprint.storage(checked, "big")
    neurons = 32 * 11008
    assert found.tokens == 4 * (6 * 1024 + 2 * 5 * 1024 + 2 * 2 * 1024)  # train; valid 6,000: 5 windows; test
    assert found.recordings == 2 * 8 * 32 * (5 * 11008 + 4096)
    assert found.sentences == 0
    assert found.neurons == 36 * round(0.01 * neurons) * 2 + 4 * (4096 + 32 * round(0.01 * neurons))
    assert found.perplexity == 3 * (16 * 4 + 2 * 4096)
    assert found.answers == 2 * 5 * 120 * (100 * 4 + 500)
    assert found.model == 2 * LLAMA.weights()
    assert found.total() == sum(
        [found.tokens, found.recordings, found.neurons, found.perplexity, found.answers, found.model]
    )


def test_tokens_are_stored_as_estimated(tmp_path: Path) -> None:
    from langneurons.corpus.windows import TokenWindows

    artifacts.write_tokens(tmp_path / "en", TokenWindows(np.zeros((100, 1024), dtype=np.uint32), {"language": "en"}))
    assert 4 * 102_400 < (tmp_path / "en").stat().st_size < 1.01 * 4 * 102_400


def test_gpu_memory_by_hand() -> None:
    """Recording counts is less than the logits of a batch, and these less than keys and values of 50 prompts."""
    checked = config(batch_size=2)
    kept = 50 * 2 * 32 * 4096 * (100 + 256) * 2
    logits = 2 * 1024 * 32000 * (2 + 4)
    assert kept > logits
    assert footprint.gpu_memory(checked, "big") == 2 * LLAMA.weights() + kept
    checked["models"]["big"] |= {"gpus": 2, "generation_batch_size": 1, "batch_size": 4}
    assert footprint.gpu_memory(checked, "big") == LLAMA.weights() + 2 * logits


def test_memory_of_identification_covers_what_was_measured() -> None:
    """Files to Parquet took 3.0 GB for LLaMA-2-70B with 21 languages (README), of arrays without a quarter's counts and
    hidden states."""
    checked = config()
    checked["run"]["languages"] = [f"l{number}" for number in range(21)]
    found = footprint.identification_memory(checked, SIZES["meta-llama/Llama-2-70b-hf"])
    assert 3.0e9 < found < 3 * 3.0e9


# -- what a batch system is asked for ---------------------------------------------------------------------------------


def test_requests_by_hand() -> None:
    """Four times the estimate, and 13.5 GB of weights at 200 MB/s; a process, weights, windows, arrays."""
    checked = config(engine="vllm")
    checked["corpora"]["tokens"] = dict.fromkeys(("train", "valid", "test"), 100_000_000)
    recorded = 100_000_000 // 1024 * 1024
    forward = LLAMA.forward(1024, head=False)
    start, weights = SPEEDS["vllm", False].start, 2 * LLAMA.weights()
    seconds = 4 * (start + recorded * forward / (789e12 * 0.69)) + weights / 200e6
    memory = 4e9 + weights + 8 * recorded + 4 * 8 * 32 * (5 * 11008 + 4096)
    assert request(checked, "big", "recording") == Request(-int(-seconds // 60), -int(-memory // 1e6))
    assert seconds / 60 > 30
    head = LLAMA.forward(1024, head=True)
    reading = (
        4 * (start + 2 * 2 * recorded * head / (789e12 * 0.76)) + weights / 200e6
    )  # off-en and off-de, 2 languages
    assert request(checked, "big", "perplexity").minutes == -int(-reading // 60)
    checked["recording"]["shards"] = 4
    sharded = 4 * (start + recorded / 4 * forward / (789e12 * 0.69)) + weights / 200e6
    assert request(checked, "big", "recording").minutes == -int(-sharded // 60)


def test_requests_of_short_jobs() -> None:
    """Half an hour is the shortest time that is asked for."""
    checked = config()
    assert {stage: request(checked, "big", stage).minutes for stage in ("recording", "answers", "neurons")} == {
        "recording": 30,
        "answers": 30,
        "neurons": 30,
    }


def test_requests_of_the_processors() -> None:
    """Tokens: the test split, 15 % of the documents, decides how much is read; 20,000 per second, four times as long.
    Neurons: two recordings, and 32 bytes per probability."""
    checked = config()
    checked["corpora"]["tokens"] = {"train": 1024, "valid": 1024, "test": 1_024_000 * 15}
    assert request(checked, "big", "tokens").minutes == -int(-4 * 1_024_000 * 15 / 0.15 / 20_000 // 60)
    assert request(checked, "big", "tokens").memory_mb == 4000 + -int(-12 * (2048 + 1_024_000 * 15) // 1e6)
    held = 2 * 8 * 32 * (5 * 11008 + 4096) + 2 * 32 * 11008 * 32
    assert request(checked, "big", "neurons").memory_mb == 4000 + -int(-held // 1e6)


def test_requests_of_models_on_the_cpu() -> None:
    """One thread of 20 GFLOP/s takes 4 x 51 s for a million tokens of training: less than half an hour, until there are
    a hundred times as many. On the CPU the activations of a batch are in the machine's memory."""
    given = {"source": "demo", "architecture": "gpt2", "training_tokens": 100_000_000}
    demo = validate({"run": {"models": ["small"], "languages": ["en", "de"]}, "models": {"small": given}})
    size = size_of(demo, "small")
    seconds = 4 * 3 * 100_000_000 * size.forward(128, head=True) / 20e9 + 4 * size.weights() / 200e6
    assert request(demo, "small", "training").minutes == -int(-seconds // 60)
    batch = 16 * 128 * (3 * 512 + 4 * 128) * 4
    held = 4e9 + 4 * size.weights() + 8 * (56_000 // 128 * 128) + 4 * 8 * 4 * (5 * 512 + 128) + batch
    assert request(demo, "small", "recording").memory_mb == -int(-held // 1e6)


@pytest.mark.parametrize(("gpus", "stand_in"), [(0, "13b"), (1, "13b"), (4, "70b")])
def test_requests_of_models_of_unknown_size(gpus: int, stand_in: str) -> None:
    """As much as a larger model of the same number of GPUs."""
    unknown, known = (config(id=name, gpus=gpus) for name in ("x/y", f"meta-llama/Llama-2-{stand_in}-hf"))
    for stage in ("recording", "perplexity", "answers", "tokens", "neurons", "analysis"):
        assert request(unknown, "big", stage) == request(known, "big", stage)


def test_requests_over_all_models() -> None:
    checked = config()
    checked["models"]["bigger"] = {**checked["models"]["big"], "id": "meta-llama/Llama-2-13b-hf"}
    checked["run"]["models"] = ["big", "bigger"]
    assert request(checked, None, "neurons") == request(checked, "bigger", "neurons")


def test_requests_of_published_models() -> None:
    """Layers and neurons as the config has them, or many."""
    checked = config()
    checked["models"]["theirs"] = {"source": "published", "layers": 32, "neurons": 11008}
    checked["models"]["unknown"] = {"source": "published"}
    mine, theirs, unknown = (request(checked, name, "neurons").memory_mb for name in ("big", "theirs", "unknown"))
    assert mine < theirs < mine + 10 < unknown  # of another width


def test_requests_of_an_unknown_stage() -> None:
    with pytest.raises(ConfigError, match="no stage is called 'cooking'"):
        request(config(), "big", "cooking")


# -- the command, and what the README and docs/scaling.md show --------------------------------------------------------


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy questions in each language of the experiments, and stop words where the experiments name a file."""
    folder = tmp_path_factory.mktemp("folder")
    for experiment in ("paper", "hundred-languages"):
        given = yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8"))
        paths = [*given["generation"]["prompts"].values(), *given.get("metrics", {}).get("stop_words", {}).values()]
        for path in paths:
            file = Path(path.format(folder=folder))
            file.parent.mkdir(exist_ok=True)
            file.write_text("?\n" * 70)
    return folder


def printed(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / "estimate_cost.py"), *arguments]
    environment = {"PYTHONPATH": str(ROOT / "workflow")}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


def tables(output: str) -> dict[str, str]:
    """The tables of the command by their first column."""
    found = re.findall(r"^\|.*?\n(?!\|)", output, re.MULTILINE | re.DOTALL)
    return {table.split("|")[1].strip() + " " + table.split("|")[2].strip(): table for table in found}


@pytest.mark.parametrize(
    ("experiment", "engine", "hours"),
    [
        ("llama2-mgpt", None, "3.9"),
        ("llama2-mgpt", "hf", "3.9"),
        ("llama2-mgpt", "vllm", "3.6"),
        ("paper", None, "122.5"),
        ("paper", "hf", "392.0"),
    ],
)
def test_experiments(questions: Path, experiment: str, engine: str | None, hours: str) -> None:
    file = f"workflow/experiments/{experiment}.yaml"
    chosen = ["--engine", engine] if engine else []
    done = printed("--configfile", file, *chosen, "--config", f"folder={questions}")
    assert done.returncode == 0, done.stderr
    table = tables(done.stdout)["model weights"]
    assert table.splitlines()[-1] == f"| together |  |  |  |  |  | {hours} |"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if engine is None:
        assert table in readme
    elif experiment == "paper":
        assert f"with transformers the paper takes {float(hours):.0f} GPU hours" in readme


SCENARIOS = {
    "paper": ["paper.yaml"],
    "hundred-languages": ["paper.yaml", "hundred-languages.yaml"],
}
"""The experiments of docs/scaling.md."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_documented_scaling(questions: Path, scenario: str) -> None:
    """All tables of the page are the command's output."""
    files = [f"workflow/experiments/{name}" for name in SCENARIOS[scenario]]
    done = printed("--configfile", *files, "--config", f"folder={questions}", "--gpus", "8", "64")
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    found = tables(done.stdout)
    assert list(found) == ["model weights", "rule jobs", "model per GPU", "GPUs wall time"]
    for name, table in found.items():
        assert table in page, name


def test_documented_scaling_with_the_paper_s_text(questions: Path, tmp_path: Path) -> None:
    """The overlay that the page shows, laid over the hundred languages."""
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    overlay = re.search(r"```yaml\n(corpora:.*?)```", page, re.DOTALL)
    assert overlay is not None
    (tmp_path / "text.yaml").write_text(overlay[1])
    files = [f"workflow/experiments/{name}" for name in SCENARIOS["hundred-languages"]]
    done = printed("--configfile", *files, str(tmp_path / "text.yaml"), "--config", f"folder={questions}")
    found = tables(done.stdout)
    assert found["model weights"] in page
    assert found["GPUs wall time"] in page


def test_hundred_languages(questions: Path) -> None:
    """A hundred, each with questions, and stop words wherever the package has no list of its own."""
    given = yaml.safe_load((EXPERIMENTS / "hundred-languages.yaml").read_text(encoding="utf-8"))
    languages = given["run"]["languages"]
    assert len(set(languages)) == len(languages) == 100
    assert given["generation"]["prompts"] == {name: f"{{folder}}/questions/{name}.txt" for name in languages}
    assert set(given["metrics"]["stop_words"]) == {name for name in languages if not stopwordsiso.has_lang(name)}
    assert given["corpora"]["languages"]["zh_yue"]["code"] == "zh-yue"
    paper = yaml.safe_load((EXPERIMENTS / "paper.yaml").read_text(encoding="utf-8"))["corpora"]["default"]
    assert {**paper, "code": "zh-yue"} == given["corpora"]["languages"]["zh_yue"]


def test_command_without_questions() -> None:
    done = printed("--configfile", "workflow/experiments/paper.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: config key 'generation.prompts.en': the path '{folder}/questions/en.txt' needs"
    )


def test_command_with_too_few_gpus(questions: Path) -> None:
    done = printed(
        "--configfile", "workflow/experiments/paper.yaml", "--config", f"folder={questions}", "--gpus", "8", "2"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "error: 2 GPU(s) are too few: the job 'record_activations of llama-2-70b, en' takes 4"
    )


def test_command_without_gpus() -> None:
    """Models on the CPU: no GPU hours, and no wall time."""
    done = printed("--configfile", "config.yaml")
    assert done.returncode == 0, done.stderr
    found = tables(done.stdout)
    assert found["model weights"].splitlines()[-1].endswith("| 0.0 |")
    assert list(found) == ["model weights", "rule jobs", "model per GPU"]
