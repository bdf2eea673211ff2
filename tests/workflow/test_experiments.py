"""The experiments with real models: what would run, worked out without network."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

from hub_server import Hub, running
from workflow.conftest import ROOT, Project, copy_project, environment, job_counts
from workflow.test_mistakes import message_of

EXPERIMENTS = Path("workflow") / "experiments"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy in which nothing has run, with questions for the paper's languages."""
    project = copy_project(tmp_path / "langneurons").warmed()
    folder = tmp_path / "folder" / "questions"
    folder.mkdir(parents=True)
    for language in ("en", "zh", "fr", "es", "vi", "id", "ja"):
        (folder / f"{language}.txt").write_text("?\n" * 70)
    return project


def planned(project: Project, experiment: str, *arguments: str) -> tuple[dict[str, int], str]:
    """Jobs per rule of an experiment's dry run, and what was printed; nothing is asked of the network."""
    file = str(EXPERIMENTS / f"{experiment}.yaml")
    with running(Hub()) as hub:
        project.environment = environment() | hub.environment(project.folder / "cache")
        done = project.plain("-n", "--printshellcmds", "--configfile", file, *arguments)
        assert hub.requests == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (project.folder / "cache").exists()
    return job_counts(done.stdout + done.stderr), done.stdout + done.stderr


def test_replication(project: Project) -> None:
    jobs, output = planned(project, "llama2-mgpt")
    variants = ("none", "deactivate", "random", "random_active", "steer_mean", "random_steer_mean")
    assert (
        jobs
        == {
            "download_model": 2,
            "tokenize_corpus": 6,
            "check_prompts": 2,
            "record_activations": 6,
            "record_sentences": 2,
            "identify_neurons": 10,  # LAPE and four other methods
            **{f"plan_{variant}": 2 for variant in variants[1:]},
            **{f"measure_perplexity_{variant}": 2 for variant in variants[:4]},
            **{f"generate_text_{variant}": 2 for variant in variants if variant != "random_active"},
            "score_perplexity": 2,
            "score_text": 2,
            "test_effects": 2,
            "test_stability": 2,
            "audit_results": 2,
            "make_tables": 1,
            "plot_figures": 2,
            "render_report": 1,
            "print_report": 1,
            "execute_notebook": 1,
            "check_audit": 1,
        }
    )
    windows = re.findall(r"--window (\d+)", output)
    assert windows == ["2048"] * 6
    assert output.count("HF_HUB_OFFLINE=1 python") == 6 + 2 + 8 + 10  # every job that runs a model
    assert set(re.findall(r'"model": "([^"]+)", "name": "(\w+)", "revision": "([^"]+)"', output)) == {
        ("meta-llama/Llama-2-7b-hf", "vllm", "01c7f73d771dfac7d292323805ebc428287df4f9"),
        ("ai-forever/mGPT", "hf", "cb99dd42d3486c2ed9c14f92ed22e9bc7bbc6ac4"),
    }
    eager = set(re.findall(r'"eager": (\w+)', output)) - {"null"}  # null: as the config says
    assert eager == {"false"}  # no edit needs hooks, so graphs stay on


@pytest.mark.full
def test_replication_with_its_own_amounts_of_text(project: Project) -> None:
    """The option that stands in the file as a comment."""
    text = (ROOT / EXPERIMENTS / "llama2-mgpt.yaml").read_text()
    tokens = re.search(r"^  # (tokens: .*)$", text, re.MULTILINE)
    assert tokens is not None
    overlay = {"corpora": yaml.safe_load(tokens[1])}
    (project.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    _, output = planned(project, "llama2-mgpt", "overlay.yaml")
    budgets = re.findall(r"--language (\w+).*?--tokens '\{\"test\": 1048576, \"train\": (\d+)", output, re.DOTALL)
    assert sorted(set(budgets)) == [("de", "4242334"), ("en", "6287540"), ("tr", "4876973")]
    assert len(budgets) == 6


@pytest.mark.full
def test_paper(project: Project) -> None:
    folder = project.folder.parent / "folder"
    jobs, output = planned(project, "paper", "--resources", "gpu=4", "--config", f"folder={folder}")
    assert jobs == {
        "download_model": 7,
        "tokenize_corpus": 49,
        "check_prompts": 7,
        "record_activations": 49,
        "identify_neurons": 7,
        **{f"plan_{variant}": 7 for variant in ("deactivate", "random", "steer_mean", "random_steer_mean")},
        **{f"measure_perplexity_{variant}": 7 for variant in ("none", "deactivate", "random")},
        **{
            f"generate_text_{variant}": 7
            for variant in ("none", "deactivate", "random", "steer_mean", "random_steer_mean")
        },
        "score_perplexity": 7,
        "score_text": 7,
        "test_effects": 7,
        "test_stability": 7,
        "audit_results": 7,
        "make_tables": 1,
        "plot_figures": 7,
        "render_report": 1,
        "print_report": 1,
        "execute_notebook": 1,
        "check_audit": 1,
    }
    assert sorted(re.findall(r"--window (\d+)", output)) == sorted(["4096"] * 28 + ["2048"] * 21)
    assert set(re.findall(r"--gpus (\d)", output)) == {"1", "4"}
    revisions = re.findall(r"--revision (\S+)", output)
    assert len(revisions) == 7
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in revisions)


@pytest.mark.full
def test_paper_without_questions(project: Project) -> None:
    file = str(EXPERIMENTS / "paper.yaml")
    done = project.plain("-n", "--configfile", file)
    message = message_of(done.stdout + done.stderr)
    assert "generation.prompts.en" in message
    assert "--config folder=path/to/the/files" in message
    (project.folder.parent / "folder" / "questions" / "vi.txt").unlink()
    done = project.plain("-n", "--configfile", file, "--config", f"folder={project.folder.parent / 'folder'}")
    message = message_of(done.stdout + done.stderr)
    assert "folder/questions/vi.txt (the prompts of language 'vi'): cannot be read (No such file or" in message


def test_long_parameters_are_put_into_files(project: Project) -> None:
    """120 draws of random neurons are described by more text than one argument of a command should have."""
    overlay = {"run": {"perturbations": ["deactivate", "random"]}, "perturbations": {"random": {"draws": 60}}}
    output = project.run("-n", "--printshellcmds", config=overlay)
    files = set(re.findall(r"--perturbations @(\S+)", output))
    assert len(files) == 1
    name = files.pop()
    text = (project.folder / name).read_text(encoding="utf-8")
    assert Path(name).stem == hashlib.sha256(text.encode()).hexdigest()
    assert len(json.loads(text)) == 1 + 2 + 2 * 60
    commands = re.findall(r"python workflow/scripts/.*?\| tee", output, re.DOTALL)
    assert len(commands) > 40
    assert max(map(len, commands)) < 100_000  # Linux allows 131,072 characters
