"""The cost of experiments: FLOPs by hand, speeds as they were measured, and the tables of the README."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langneurons.cost import PEAK, SIZES, SPEEDS, as_table, estimate, read_size, size_of, total
from langneurons.errors import ConfigError
from langneurons.validation import validate

ROOT = Path(__file__).parents[2]
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
    assert size_of(demo, "small").weights() == 4 * (4 * 128**2 + 2 * 128 * 512) + 2500 * 128
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


def test_table() -> None:
    checked = config()
    lines = as_table(checked, estimate(checked))
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *("model", "weights", "recording", "sentences", "perplexity", "answers", "GPU hours"),
    ]
    assert lines[2].startswith("| big (hf, 1 GPU) | 13 GB | 2 × 0.00 h | – | 2 × 0.00 h | 3 × 0.01 h |")
    assert lines[3].endswith(f"| {total(estimate(checked)['big'].values()):.1f} |")


# -- the command, and what the README shows ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy questions in each of the paper's languages."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "questions").mkdir()
    for language in ("en", "zh", "fr", "es", "vi", "id", "ja"):
        (folder / "questions" / f"{language}.txt").write_text("?\n" * 70)
    return folder


def printed(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / "estimate_cost.py"), *arguments]
    environment = {"PYTHONPATH": str(ROOT / "workflow")}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


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
    assert done.stdout.splitlines()[-1] == f"| together |  |  |  |  |  | {hours} |"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if engine is None:
        assert done.stdout in readme
    elif experiment == "paper":
        assert f"with transformers the paper takes {float(hours):.0f} GPU hours" in readme


def test_command_without_questions() -> None:
    done = printed("--configfile", "workflow/experiments/paper.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: config key 'generation.prompts.en': the path '{folder}/questions/en.txt' needs"
    )
