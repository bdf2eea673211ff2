"""Bad input ends with one clear message and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.numpy
import torch

from workflow.conftest import Project


@pytest.fixture
def overlay(finished: Project) -> Iterator[dict]:
    """Two models from folders beside the finished ones; their results are removed afterwards."""
    model = finished.folder / "results" / "tiny-gpt2" / "model"
    copied = finished.folder / "models" / "copied"
    shutil.copytree(model, copied)
    yield {
        "run": {"models": ["copied"]},
        "models": {"copied": {"source": "folder", "path": "models/copied"}},
    }
    shutil.rmtree(finished.folder / "models")
    shutil.rmtree(finished.folder / "results" / "copied", ignore_errors=True)


def message_of(output: str) -> str:
    """The one message, whether snakemake or a script gave it."""
    lines = output.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("error: "):
            return line
        if line.startswith("WorkflowError"):
            return lines[index + 1].strip()
    raise AssertionError("no message in:\n" + output)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [  # of what the library refuses one is enough (tests/unit/test_config.py has all), of what the rules do each
        ({"identification": {"top_rat": 0.1}}, ["identification.top_rat", "Did you mean 'top_rate'"]),
        (  # snakemake would give its jobs the one GPU of the profile
            {"models": {"tiny-gpt2": {"gpus": 2}}},
            ["models.tiny-gpt2.gpus", "is 2", "has 1 GPU", "--resources gpu=2"],
        ),
    ],
)
def test_before_any_job(finished: Project, mistake: dict, words: list[str]) -> None:
    """What the config alone shows is said before anything runs, in a dry run too."""
    before = finished.files()
    output = finished.mistake("-n", config=mistake)
    message = message_of(output)
    assert all(word in message for word in words), message
    assert "Traceback" not in output
    assert finished.files() == before


def test_misspelt_key_on_the_command_line(finished: Project) -> None:
    output = finished.mistake("-n", "--config", "sed=3")
    assert "Did you mean 'seed'" in message_of(output)


def expect(project: Project, overlay: dict, *words: str, target: str = "all") -> None:
    """Run, and expect one message with these words, no traceback and no outputs of the failed job."""
    output = project.mistake(target, config=overlay)
    message = message_of(output)
    assert all(word in message for word in words), message
    assert "Traceback" not in output
    assert not list((project.folder / "results").rglob("*.tmp"))


def test_folder_without_tokenizer(finished: Project, overlay: dict) -> None:
    for path in (finished.folder / "models" / "copied").glob("tokenizer*"):
        path.unlink()
    expect(finished, overlay, "models/copied", "has no tokenizer", "save_pretrained")


def test_unsupported_architecture(finished: Project, overlay: dict) -> None:
    path = finished.folder / "models" / "copied" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["MambaForCausalLM"]}))
    expect(finished, overlay, "MambaForCausalLM", "GPT2LMHeadModel", "layouts.py")


def test_unreachable_hub_id(finished: Project) -> None:
    overlay = {
        "run": {"models": ["remote"]},
        "models": {"remote": {"source": "hub", "id": "nobody/nothing", "gpus": 0}},
    }
    expect(finished, overlay, "nobody/nothing", "HF_HUB_OFFLINE forbids it", "source: folder")
    assert not list((finished.folder / "results" / "remote").rglob("*"))


def test_text_that_is_not_utf8(finished: Project, overlay: dict) -> None:
    text = finished.folder / "latin.txt"
    text.write_bytes("Grüße aus München. ".encode("latin-1") * 2000)
    overlay["corpora"] = {"languages": {"de": {"source": "files", "path": "latin.txt"}}}
    expect(finished, overlay, "latin.txt", "not UTF-8", "iconv", target="results/copied/activations/de.safetensors")
    assert not (finished.folder / "results" / "copied" / "tokens").exists() or not list(
        (finished.folder / "results" / "copied" / "tokens").glob("de.*")
    )


def test_too_small_corpus(finished: Project, overlay: dict) -> None:
    overlay["corpora"] = {"tokens": {"train": 10_000_000}}
    expect(
        finished,
        overlay,
        "too small",
        "10,000,000",
        "corpora.tokens",
        target="results/copied/tokens/de.train.safetensors",
    )


def test_nan_in_activations(finished: Project, overlay: dict) -> None:
    path = finished.folder / "models" / "copied" / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    name = next(name for name in sorted(weights) if name.endswith("h.1.mlp.c_fc.bias"))
    weights[name][7] = float("nan")
    safetensors.numpy.save_file(weights, path, {"format": "pt"})
    expect(finished, overlay, "NaN", "layer 1, neuron 7", target="results/copied/activations/de.safetensors")
    assert not (finished.folder / "results" / "copied" / "activations" / "de.safetensors").exists()


def test_truncated_file_between_jobs(finished: Project) -> None:
    path = finished.folder / "results" / "tiny-gpt2" / "activations" / "de.safetensors"
    neurons = finished.folder / "results" / "tiny-gpt2" / "neurons" / "lape.parquet"
    before, kept = path.read_bytes(), neurons.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    try:
        expect(
            finished,
            {},
            "activations/de.safetensors",
            "damaged",
            "run again",
            target=str(neurons.relative_to(finished.folder)),
        )
    finally:
        path.write_bytes(before)
        finished.run("results/tiny-gpt2/neurons/lape.parquet")
    assert neurons.read_bytes() == kept


def test_missing_gpu(finished: Project, overlay: dict) -> None:
    if torch.cuda.is_available():
        pytest.fail("this test is for machines without a GPU; deselect it here")
    overlay["models"]["copied"]["gpus"] = 1
    expect(finished, overlay, "PyTorch sees none", "gpus: 0", target="results/copied/activations/de.safetensors")


def test_paths_are_plain(finished: Project) -> None:
    """No path of this machine in any result but logs: a results folder can be moved and published."""
    for name, content in finished.files().items():
        assert str(finished.folder).encode() not in content, name
    assert Path(finished.folder).is_absolute()
