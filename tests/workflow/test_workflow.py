"""The workflow as a whole: it parses without torch, lints clean, runs to the end, and gives the same numbers again."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts
from langneurons.engines import ENGINES
from langneurons.published.masks import read_masks
from unit.printed import Printed, empty_boxes
from workflow.conftest import ROOT, Project, copy_project, environment

LIBRARY = ROOT / "workflow" / "langneurons"
PLUMBING = {"__init__.py", "arguments.py", "artifacts.py", "config.py", "cross_checks.py", "devices.py", "download.py"}
PLUMBING |= {
    "errors.py",
    "folders.py",
    "formats.py",
    "hub.py",
    "progress.py",
    "publications.py",
    "sweeps.py",
    "validation.py",
}
PLUMBING |= {"variants.py", "writing.py"}
"""Modules that decide no numbers: reading, writing, downloading, validating, reporting progress."""
DEFAULT_JOBS = 80


def test_dry_run_without_torch(fresh: Project, tmp_path: Path) -> None:
    """Importing any heavy library fails here, and the dry run of the default experiment works all the same. The plugin
    for SLURM imports pandas, so for that only what the rules import of ours is tried."""
    heavy = ("torch", "transformers", "datasets", "scipy", "matplotlib")
    for name in (*heavy, "pandas", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not in a dry run')\n")
    rules = "\n".join((ROOT / "rules" / name).read_text() for name in ("common.smk", "cluster.smk"))
    ours = "; ".join(re.findall(r"^from langneurons[^\n]*", rules, re.MULTILINE))
    assert "validate" in ours
    path = os.pathsep.join([str(tmp_path), str(ROOT / "workflow")])
    subprocess.run([sys.executable, "-c", ours], env={**os.environ, "PYTHONPATH": path}, check=True)
    for name in ("pandas", "numpy"):
        (tmp_path / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--cores", "2"],
        cwd=fresh.folder, env={**environment(), "PYTHONPATH": str(tmp_path)}, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    total = re.search(r"^total\s+(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    assert total is not None
    assert int(total[1]) == DEFAULT_JOBS


def test_every_combination_is_a_target(fresh: Project) -> None:
    """Model x perturbation x language: 2 x (1 + 2 + 4) x 2, each a perplexity and a generation file; under steering,
    2 x 2 x 2 generations."""
    done = fresh.snakemake("-n", "--summary")
    files = {line.split("\t")[0] for line in done.stdout.splitlines()}
    perturbations = [
        "none",
        "deactivate-en",
        "deactivate-de",
        "random-en-1",
        "random-en-2",
        "random-de-1",
        "random-de-2",
    ]
    expected = {
        f"results/{model}/{kind}/{perturbation}/{language}.{suffix}"
        for model in ("tiny-llama", "tiny-gpt2")
        for perturbation in perturbations
        for language in ("en", "de")
        for kind, suffix in (("perplexity", "parquet"), ("generations", "jsonl"))
    }
    expected |= {
        f"results/{model}/generations/steer-{target}/{language}.jsonl"
        for model in ("tiny-llama", "tiny-gpt2")
        for target in ("en", "de")
        for language in ("en", "de")
    }
    assert len(expected) == 64
    assert expected <= files


def test_gpu_resources(fresh: Project) -> None:
    """Jobs that run the model ask for its GPUs; a model on the CPU asks for none."""
    overlay = {"models": {"tiny-llama": {"gpus": 2}}}
    output = fresh.run("-n", "--printshellcmds", "--resources", "gpu=2", config=overlay)
    commands = re.findall(r"^ *(?:HF_HUB_OFFLINE=1 )?python .*?2>&1", output, re.MULTILINE | re.DOTALL)
    gpus = {
        model: [
            int(number) for command in commands if model in command for number in re.findall(r"--gpus (\d)", command)
        ]
        for model in ("tiny-llama", "tiny-gpt2")
    }
    # 2 recordings, 3 families of perplexity and 4 of generation; the number is the job's resource `gpu`
    assert gpus == {"tiny-llama": [2] * 9, "tiny-gpt2": [0] * 9}


def test_lint(fresh: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"],
        cwd=fresh.folder, env=environment(), text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good condition" in done.stdout + done.stderr


def test_run_leaves_every_table(finished: Project) -> None:
    tables = finished.folder / "results" / "tables"
    perplexity = pd.read_csv(tables / "perplexity.csv")
    assert len(perplexity) == 2 * 7 * 2
    assert (perplexity.loc[perplexity["perturbation"] == "none", "ratio"] == 1).all()
    assert perplexity["tokens"].unique().tolist() == [20 * 31]  # 640 tokens are 20 windows of 32; the first is unscored
    text = pd.read_csv(tables / "text.csv")
    assert text["outputs"].unique().tolist() == [5]  # 60 questions, the first 55 for validation
    assert text["mean_tokens"].max() <= 6
    neurons = pd.read_csv(tables / "neurons.csv")
    thresholds = pd.read_csv(tables / "thresholds.csv")
    assert thresholds["method"].tolist() == ["lape", "mean-difference"] * 2
    lape = thresholds[thresholds["method"] == "lape"]
    assert lape["requested"].tolist() == [10, 10]  # 5 % of 2 x 96, rounded half to even
    assert lape["selected"].between(1, 10).all()
    owned = neurons.pivot_table(index=["model", "language"], columns="method", values="neurons")
    assert (owned["lape"] == owned["mean-difference"]).all()  # methods are compared at equal numbers
    assert (owned["lape"].groupby("model").sum() >= lape.set_index("model")["selected"].sort_index()).all()


def test_perplexity_table_recomputed(finished: Project) -> None:
    """The table follows from the windows' files by the definition alone."""
    table = pd.read_csv(finished.folder / "results/tables/perplexity.csv").set_index(
        ["model", "perturbation", "language"]
    )
    for model, perturbation, language in [("tiny-llama", "none", "en"), ("tiny-gpt2", "random-de-2", "de")]:
        windows, _ = artifacts.read_table(
            finished.folder / f"results/{model}/perplexity/{perturbation}/{language}.parquet", "perplexity"
        )
        expected = np.exp(windows["nll_sum"].sum() / windows["tokens"].sum())
        assert table.loc[(model, perturbation, language), "perplexity"] == pytest.approx(expected, rel=1e-9)


def test_recordings_keep_the_counts_of_half_of_the_windows(finished: Project) -> None:
    """4000 tokens are 125 windows of 32: 63 of even and 62 of odd number."""
    counts, _ = artifacts.read_activations(finished.folder / "results/tiny-llama/activations/en.safetensors")
    assert counts.tokens == 125 * 32
    halves = counts.halves()
    assert halves is not None
    assert [half.tokens for half in halves] == [63 * 32, 62 * 32]
    assert np.array_equal(halves[0].over_zero + halves[1].over_zero, counts.over_zero)
    shares = [half.probability().mean() for half in halves]
    assert shares[0] == pytest.approx(shares[1], rel=0.05)  # the same language, other sentences


def test_own_results_pass_the_audit(finished: Project) -> None:
    """No edit of the finished experiment is without effect, and no number is impossible."""
    audit = pd.read_csv(finished.folder / "results/tables/audit.csv")
    assert (audit["severity"] != "fatal").all()
    passed = audit[audit["severity"] == "passed"].groupby("model")["check"].agg(set)
    for model in ("tiny-llama", "tiny-gpt2"):
        assert {"joint-identification", "padding", "counts", "log-likelihoods", "token-budgets", "files"} <= passed[
            model
        ]
    lines = (finished.folder / "results/report/audit.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["tiny-llama", "tiny-gpt2"]


def test_exported_neurons(finished: Project) -> None:
    """Asked for by name, the neurons become a mask in the published format, and a table."""
    finished.run("results/tiny-gpt2/neurons/lape.pth", "results/tiny-gpt2/neurons/lape.csv")
    folder = finished.folder / "results/tiny-gpt2/neurons"
    table, _ = artifacts.read_table(folder / "lape.parquet", "neurons")
    mask = read_masks(folder / "lape.pth", ["en", "de"], 2, 96).table
    key = ["language", "layer", "neuron"]
    assert mask[key].values.tolist() == table[key].values.tolist()
    assert pd.read_csv(folder / "lape.csv")[key].values.tolist() == table[key].values.tolist()


def test_interventions_match_the_selection(finished: Project) -> None:
    folder = finished.folder / "results" / "tiny-gpt2"
    selected, _ = artifacts.read_table(folder / "neurons" / "lape.parquet", "neurons")
    for language in ("en", "de"):
        own = selected[selected["language"] == language]
        off = artifacts.read_intervention(folder / "perturbations" / f"deactivate-{language}.parquet")
        assert set(zip(off.table["layer"], off.table["neuron"], strict=True)) == set(
            zip(own["layer"], own["neuron"], strict=True)
        )
        for draw in (1, 2):
            random = artifacts.read_intervention(folder / "perturbations" / f"random-{language}-{draw}.parquet").table
            assert random["layer"].value_counts().to_dict() == own["layer"].value_counts().to_dict()
            every = set(zip(selected["layer"], selected["neuron"], strict=True))
            assert not every & set(zip(random["layer"], random["neuron"], strict=True))


def test_every_edit_was_proved(finished: Project) -> None:
    effects = pd.read_csv(finished.folder / "results/tables/effects.csv")
    assert len(effects) == 2 * 8  # those of steering from the job that answers
    edited = effects[effects["edited_neurons"] > 0]
    assert len(edited) >= 6
    assert (edited["largest_error"] < 1e-4 * edited["largest_change"]).all()
    assert (edited["logits_change"] > 0).all()


@pytest.mark.full
def test_same_seed_gives_the_same_bytes(finished: Project, tmp_path: Path) -> None:
    """All that one model measured is byte-identical in a second run from scratch, weights and texts included.

    Every job starts a Python of its own here, with hashes of its own, as outside of the tests.
    """
    again = copy_project(tmp_path / "langneurons")
    targets = [f"results/tiny-gpt2/metrics/{metric}.parquet" for metric in ("perplexity", "text")]
    again.run(*targets)
    first, second = finished.files(), again.files()
    assert len(second) > 50
    assert "tiny-gpt2/model/model.safetensors" in second
    assert [name for name in second if first[name] != second[name]] == []


def test_snakemake_report(finished: Project, tmp_path: Path) -> None:
    """Every table, every figure and the report itself, each in a category, with labels and a caption."""
    target = tmp_path / "report.zip"
    finished.run("--report", str(target))
    with zipfile.ZipFile(target) as packed:
        page = packed.read("report/report.html").decode()
        inside = set(packed.namelist())
    shown, categories = (embedded(page, name) for name in ("results", "categories"))
    results = finished.folder / "results"
    wanted = [*results.glob("tables/*.csv"), *results.glob("figures/*/*.svg")]
    wanted += [results / "report" / name for name in ("report.html", "report.pdf", "analysis.ipynb")]
    assert len(wanted) == 17 + 2 * 9 + 3
    assert set(shown) == {str(path.relative_to(finished.folder)) for path in wanted}
    for path, about in shown.items():
        words = re.sub(r"<[^>]+>", "", about["caption"])
        assert len(words) > 60, path
        assert "{{" not in words, path
        assert all(about["labels"].values()), path
        assert f"report/{about['data_uri']}" in inside, path
    kinds = {category: sorted(parts) for category, parts in categories.items()}
    assert kinds == {"Report": ["Other"], "Tables": ["Other"], "Figures": ["tiny-gpt2", "tiny-llama"]}
    labels = [tuple(about["labels"].items()) for about in shown.values()]
    assert len(set(labels)) == len(labels)


def embedded(page: str, name: str) -> Any:
    """A value that Snakemake's report carries as JSON."""
    _, _, rest = page.partition(f'<script id="{name}">')
    return json.JSONDecoder().raw_decode(rest[rest.index("{") :])[0]


def test_print_and_notebook_of_a_run(finished: Project) -> None:
    report = finished.folder / "results" / "report"
    paper = Printed((report / "report.pdf").read_bytes())
    figures = len(list((finished.folder / "results" / "figures").glob("*/*.svg")))
    assert f"Figure {figures}. " in paper.text
    assert "Perplexity of tiny-llama" in paper.text
    assert all(paper.fonts().values())
    assert not empty_boxes(paper)
    notebook = nbformat.read(report / "analysis.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) >= 8


def test_rules_name_the_code_that_determines_their_numbers() -> None:
    """What a rule's script imports of the library, at any depth, is an input of the rule, or plumbing."""
    scripts = {path.stem for path in (ROOT / "workflow" / "scripts").glob("*.py")}
    scripts -= {"compare_results", "estimate_cost", "verify_results"}  # no rule's
    rules = {name: rule_inputs(name) for name in sorted(scripts)}
    assert len(rules) >= 11
    for script, listed in rules.items():
        reached = imports(ROOT / "workflow" / "scripts" / f"{script}.py")
        missing = {module for module in reached if Path(module).name not in PLUMBING} - listed
        assert not missing, f"rule of {script}: add to its code: {sorted(missing)}"


def rule_inputs(script: str) -> set[str]:
    """The modules that the rule with this script lists as code."""
    for path in (ROOT / "rules").glob("*.smk"):
        for block in re.split(r"\n(?=    rule|rule )", path.read_text()):
            if f'script("{script}")' in block:
                names = re.findall(r'"([\w/]+\.py)"', block)
                common = (ROOT / "rules" / "common.smk").read_text()
                groups = re.findall(r"[A-Z]+_CODE", block) + ["HF_CODE", "VLLM_CODE"] * ("engine_code" in block)
                for group in groups:
                    body = re.search(rf"{group} = code\((.*?)\)\n", common, re.DOTALL)
                    assert body is not None
                    names += re.findall(r'"([\w/]+\.py)"', body[1])
                return set(names)
    raise AssertionError(f"no rule has the script {script}")


def imports(path: Path) -> set[str]:
    """Modules of the library that a file imports, directly or through others, relative to the library."""
    seen: set[str] = set()
    queue = [path]
    while queue:
        for node in ast.walk(ast.parse(queue.pop().read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("langneurons"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if "langneurons.engines" in names:  # engines are loaded on demand, by name
                names += [engine.partition(":")[0] for engine in ENGINES.values()]
            if "langneurons.engines.shards" in names:  # vLLM's workers are, too
                names.append("langneurons.engines.vllm_worker")
            for name in names:
                file = LIBRARY.parent / (str(name).replace(".", "/") + ".py")
                relative = str(file.relative_to(LIBRARY)) if file.is_file() and file.is_relative_to(LIBRARY) else ""
                if relative and relative not in seen:
                    seen.add(relative)
                    if file.name not in PLUMBING:  # what plumbing reads and writes are containers
                        queue.append(file)
    return seen
