"""What reruns after a change, and what does not. Counts are jobs per rule, from dry runs on a finished experiment."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow.conftest import AGGREGATES, PAGE, TINY, Project, copy_project, environment

SCORES = {"score_perplexity": 2, "score_text": 2, "test_effects": 2, "audit_results": 2}
JOINT = {
    "identify_neurons": 4,  # LAPE and one other method, of each model
    "plan_deactivate": 2,
    "plan_random": 2,
    "plan_steer": 2,
    "measure_perplexity_deactivate": 2,
    "measure_perplexity_random": 2,
    "generate_text_deactivate": 2,
    "generate_text_random": 2,
    "generate_text_steer": 2,
    "test_stability": 2,
    **SCORES,
    **AGGREGATES,
}
"""What follows from the recordings, but for the baseline."""


def test_second_run_does_nothing(finished: Project) -> None:
    """Nor in a new Python, in which sets have another order."""
    assert Project(finished.folder).stale() == {}
    assert "Nothing to be done" in finished.run()


def test_touching_files_does_nothing(finished: Project) -> None:
    """Code, text and files between jobs, all newer than what was made of them, but of the same content."""
    made_last = {"results/report/report.html"} | {f"results/tables/{name}.csv" for name in ("text", "perplexity")}
    touched = 0
    for path in sorted(finished.folder.rglob("*")):
        name = str(path.relative_to(finished.folder))
        if path.is_file() and not name.startswith((".snakemake", ".git")) and name not in made_last:
            os.utime(path)
            touched += 1
    assert touched > 300
    assert finished.stale() == {}


def test_tuning_and_unused_entries_and_shards_rerun_nothing(finished: Project) -> None:
    tuned = {"batch_size": 8, "generation_batch_size": 3, "threads": 2}
    overlay = {
        "models": {"tiny-llama": tuned, "tiny-gpt2": tuned, "unused": {"source": "demo", "architecture": "gpt2"}},
        "perturbations": {"unused": {"kind": "random", "draws": 9}},
        "recording": {"shards": 2},
    }
    assert finished.stale(config=overlay) == {}


def test_less_text_of_one_language_reruns_that_language(finished: Project) -> None:
    targets = [f"results/tiny-gpt2/activations/{language}.safetensors" for language in ("en", "de")]
    tokens = {"en": 4000, "de": 4000}
    assert finished.stale(*targets, config={"corpora": {"tokens": {"train": tokens}}}) == {}
    overlay = {"corpora": {"tokens": {"train": tokens | {"de": 3200}}}}
    assert finished.stale(*targets, config=overlay) == {"tokenize_corpus": 1, "record_activations": 1}


def test_key_order_reruns_nothing(finished: Project) -> None:
    project = copy.copy(finished)
    project.config = {key: TINY[key] for key in reversed(TINY)}
    model = TINY["models"]["tiny-llama"]
    project.config["models"] = {**TINY["models"], "tiny-llama": {key: model[key] for key in reversed(model)}}
    assert project.stale() == {}


def test_new_language_from_local_text(finished: Project) -> None:
    """Only the new language is tokenized and recorded; what is joint is redone; no model is trained."""
    write_language(finished.folder)
    overlay = {
        "run": {"languages": ["en", "de", "xx"]},
        "corpora": {"languages": {"xx": {"source": "files", "path": "texts/xx/*.txt"}}},
        "generation": {"prompts": {"xx": "texts/xx.questions"}},
        "metrics": {"stop_words": {"xx": "de"}},
    }
    assert finished.stale(config=overlay) == {
        "tokenize_corpus": 2,
        "check_prompts": 2,
        "record_activations": 2,
        "measure_perplexity_none": 2,
        "generate_text_none": 2,
        **JOINT,
    }


def test_new_model(finished: Project) -> None:
    """All of the new model, nothing of the others, and the tables over all."""
    overlay = {
        "run": {"models": ["tiny-llama", "tiny-gpt2", "third"]},
        "models": {"third": TINY["models"]["tiny-gpt2"]},
    }
    assert finished.stale(config=overlay) == {
        **{rule: number // 2 for rule, number in JOINT.items()},
        "train_demo_model": 1,
        "tokenize_corpus": 2,
        "check_prompts": 1,
        "record_activations": 2,
        "measure_perplexity_none": 1,
        "generate_text_none": 1,
        **AGGREGATES,
        "plot_figures": 3,
    }


def test_removed_model(finished: Project) -> None:
    assert finished.stale(config={"run": {"models": ["tiny-gpt2"]}}) == {**AGGREGATES, "plot_figures": 1}


def test_new_variant_of_the_same_selection(finished: Project) -> None:
    overlay = {
        "run": {"perturbations": ["deactivate", "random", "steer", "product"]},
        "perturbations": {"product": {"kind": "deactivate", "site": "product"}},
    }
    assert finished.stale(config=overlay) == {
        "plan_product": 2,
        "measure_perplexity_product": 2,
        "generate_text_product": 2,
        **SCORES,
        **AGGREGATES,
    }


def test_new_variant_with_its_own_rate(finished: Project) -> None:
    overlay = {
        "run": {"perturbations": ["deactivate", "random", "steer", "more"]},
        "perturbations": {"more": {"kind": "deactivate", "top_rate": 0.1}},
    }
    assert finished.stale(config=overlay) == {
        "identify_neurons": 2,
        "plan_more": 2,
        "measure_perplexity_more": 2,
        "generate_text_more": 2,
        **SCORES,
        **AGGREGATES,
    }


def test_lape_threshold(finished: Project) -> None:
    """Everything after the recordings, but not the baseline."""
    assert finished.stale(config={"identification": {"activation_percentile": 0.9}}) == JOINT


def test_scale_of_steering(finished: Project) -> None:
    """Only the steering itself, and what is made of all answers."""
    scores = {rule: number for rule, number in SCORES.items() if rule != "score_perplexity"}
    stale = {"plan_steer": 2, "generate_text_steer": 2, **scores, **AGGREGATES}
    assert finished.stale(config={"perturbations": {"steer": {"scale": 3}}}) == stale
    one = {"perturbations": {"steer": {"scale_by_model": {"tiny-gpt2": 3}}}}
    single = dict.fromkeys(("plan_steer", "generate_text_steer", *scores), 1)
    assert finished.stale(config=one) == {**single, **AGGREGATES}


def test_new_method(finished: Project) -> None:
    """A method that needs sentences records them, once per model; nothing is measured again."""
    overlay = {"identification": {"compare": ["mean-difference", "probe"], "sentences": 10}}
    stale = {"record_sentences": 2, "identify_neurons": 2, "audit_results": 2, **AGGREGATES}
    assert finished.stale(config=overlay) == stale
    assert finished.stale(config={"identification": {"bonus": 0.4}}) == PAGE  # no method of the run has it


def test_generation_setting(finished: Project) -> None:
    assert finished.stale(config={"generation": {"repetition_penalty": 1.2}}) == {
        "generate_text_none": 2,
        "generate_text_deactivate": 2,
        "generate_text_random": 2,
        "generate_text_steer": 2,
        "score_text": 2,
        "test_effects": 2,
        "audit_results": 2,
        **AGGREGATES,
    }


def test_relevance_and_seeds_are_off_by_default(finished: Project) -> None:
    """A model that judges answers is asked about every model's, and nothing is generated again; seeds are models."""
    judge = {"metrics": {"relevance": {"kind": "judge", "path": "results/tiny-gpt2/model"}}}
    assert finished.stale(config=judge) == {"score_relevance": 2, "test_effects": 2, **AGGREGATES}
    seeds = {"run": {"models": ["tiny-gpt2"]}, "models": {"tiny-gpt2": {"training_seeds": [1, 2, 3]}}}
    stale = finished.stale(config=seeds)
    assert stale["train_demo_model"] == stale["record_activations"] / 2 == stale["audit_results"] == 3


def test_report_setting(finished: Project) -> None:
    assert finished.stale(config={"report": {"title": "Another title"}}) == PAGE


def test_fonts_of_the_pdf(finished: Project) -> None:
    """A setting of the machine: the page does not show it."""
    (finished.folder / "fonts").mkdir()
    assert finished.stale(config={"report": {"fonts": ["fonts"]}}) == {"print_report": 1}


def test_other_format_of_one_model(finished: Project) -> None:
    """The number format of one model reruns what that model measured, and no tokenizing."""
    assert finished.stale(config={"models": {"tiny-llama": {"dtype": "bfloat16"}}}) == {
        **{rule: number // 2 for rule, number in JOINT.items()},
        "record_activations": 2,
        "measure_perplexity_none": 1,
        "generate_text_none": 1,
        **AGGREGATES,
    }


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("metrics/text.py", {"score_text": 2, "test_effects": 2, "audit_results": 2, **AGGREGATES}),
        pytest.param("metrics/statistics.py", {"test_effects": 2, **AGGREGATES}, marks=pytest.mark.full),
        ("neurons/controls.py", {"plan_random", "measure_perplexity_random", "generate_text_random"}),
        pytest.param("report/render.py", PAGE, marks=pytest.mark.full),
        ("report/typesetting.py", {"print_report": 1}),
        pytest.param("report/looks.py", {"plot_figures": 2, "execute_notebook": 1, **PAGE}, marks=pytest.mark.full),
    ],
)
def test_edited_module(finished: Project, module: str, rules: dict | set) -> None:
    """A module that determines a rule's numbers makes that rule stale, and what follows. One early, one in the middle
    and one at the end show it; that every rule lists its modules, test_workflow.py compares with the imports."""
    path = finished.folder / "workflow" / "langneurons" / module
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n# edited\n")
        stale = finished.stale()
    finally:
        path.write_bytes(before)
    if isinstance(rules, dict):
        assert stale == rules
    else:
        assert rules <= set(stale)
        assert not {"record_activations", "identify_neurons", "measure_perplexity_none", "generate_text_none"} & set(
            stale
        )


def test_one_combination_is_a_target(finished: Project) -> None:
    target = "results/tiny-gpt2/generations/deactivate-de/en.jsonl"
    (finished.folder / target).rename(finished.folder / "kept.jsonl")
    try:
        assert finished.stale(target) == {"generate_text_deactivate": 1}
    finally:
        (finished.folder / "kept.jsonl").rename(finished.folder / target)


@pytest.mark.full
def test_interrupted_run_continues(tmp_path: Path) -> None:
    """Kill the run without mercy once a model is trained; the next run keeps the model and finishes."""
    project = copy_project(tmp_path / "langneurons").warmed()
    run = {**TINY["run"], "models": ["tiny-gpt2"], "perturbations": ["deactivate"]}
    project.config = {**TINY, "run": run, "identification": {"compare": []}}
    project.stale()  # writes the config file
    model = project.folder / "results" / "tiny-gpt2" / "model" / "model.safetensors"
    tokens = project.folder / "results" / "tiny-gpt2" / "tokens" / "en.train.safetensors"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "tiny.yaml"]
    process = subprocess.Popen(
        command, cwd=project.folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.time() + 120
        while not tokens.exists():
            assert time.time() < deadline, "the run did not reach the tokens"
            assert process.poll() is None, "the run ended before it was interrupted"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    trained = model.stat().st_mtime_ns
    project.run("--unlock")
    project.run()
    assert model.stat().st_mtime_ns == trained
    assert project.stale() == {}
    assert (project.folder / "results" / "report" / "report.html").stat().st_size > 10_000


def write_language(folder: Path) -> None:
    """A language that is German under another code, from local files."""
    texts = folder / "texts" / "xx"
    texts.mkdir(parents=True, exist_ok=True)
    for path in sorted((folder / "workflow/langneurons/demo/corpus/de").glob("*.txt")):
        (texts / path.name).write_bytes(path.read_bytes())
    questions = (folder / "workflow/langneurons/demo/prompts/de.txt").read_text()
    (folder / "texts" / "xx.questions").write_text(questions)
