"""The jobs that costs are worked out from are those that Snakemake would run, rule by rule."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub_server import Hub, running
from langneurons import graph
from langneurons.validation import validate
from workflow.conftest import ROOT, TINY, TINY_MODEL, Project, copy_project, environment, job_counts

EXPERIMENTS = Path("workflow") / "experiments"

VARIED = {
    "run": {
        "models": ["tiny-llama", "theirs"],
        "perturbations": ["deactivate", "random", "pair", "diffmean", "scales"],
    },
    "models": {
        "tiny-llama": {**TINY_MODEL, "architecture": "llama", "training_seeds": [0, 1], "batch_size": 8},
        "theirs": {
            "source": "published",
            "activations": "files/{language}.pt",
            "masks": {"path": "https://example.org/masks.pth", "languages": ["en", "zh"]},
            "generations": {
                "none": "https://example.org/{language}.jsonl",
                "deactivate": "https://example.org/{language}.{target}.jsonl",
            },
        },
    },
    "recording": {"shards": 3},
    "perturbations_per_job": 3,
    "identification": {"compare": ["probe"]},
    "perturbations": {
        "pair": {"kind": "steer", "source_off": True, "measure": ["answers"]},
        "diffmean": {"kind": "steer", "site": "residual", "measure": ["perplexity"]},
        "scales": {"kind": "steer", "scale": [1, 2], "method": "probe", "top_rate": 0.1},
    },
    "metrics": {"relevance": {"kind": "embedding", "path": "org/scorer"}},
}
"""What the tiny experiment has not: shards, parts of families, sweeps, seeds, sentences, relevance, files of others."""


def laid_over(*parts: dict[str, Any]) -> dict[str, Any]:
    """The default config with others laid over it, as the command does it, validated."""
    path = ROOT / "workflow" / "scripts" / "estimate_cost.py"
    spec = importlib.util.spec_from_file_location("estimate_cost", path)
    assert spec is not None
    assert spec.loader is not None
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    for part in parts:
        command.lay_over(config, copy.deepcopy(part))  # else a later part would change an earlier one
    return validate(config)


def counted(config: dict[str, Any]) -> dict[str, int]:
    """Jobs by rule as they are worked out; snakemake's last rule, `all`, is left out, as in what is compared."""
    found = graph.counts(graph.jobs(config))
    assert found.pop("all") == 1
    return found


def test_small_experiment(fresh: Project) -> None:
    assert counted(laid_over(TINY)) == fresh.stale()


@pytest.mark.full
def test_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_project(tmp_path / "langneurons").warmed()
    (project.folder / "files").mkdir()
    for language in ("en", "de"):
        (project.folder / "files" / f"{language}.pt").touch()
    planned = project.stale(config=VARIED)
    assert planned["record_shard"] == 2 * 2 * 3
    assert planned["download_published"] == 1 + 2 + 4
    monkeypatch.chdir(project.folder)
    assert counted(laid_over(TINY, VARIED)) == planned


FEWER = {"run": {"languages": ["en", "de", "cy", "zh", "zh_yue"]}}
"""Of a hundred languages snakemake has 120,000 files to look at, which takes longer than a test may."""


@pytest.mark.full
@pytest.mark.parametrize(
    ("files", "overlay"), [(["paper.yaml"], {}), (["paper.yaml", "hundred-languages.yaml"], FEWER)]
)
def test_experiments(tmp_path: Path, files: list[str], overlay: dict[str, Any]) -> None:
    """Without network, and with questions and stop words of every language."""
    project = copy_project(tmp_path / "langneurons").warmed()
    folder = tmp_path / "folder"
    parts = [yaml.safe_load((ROOT / EXPERIMENTS / file).read_text(encoding="utf-8")) for file in files]
    for part in parts:
        for path in [*part["generation"]["prompts"].values(), *part.get("metrics", {}).get("stop_words", {}).values()]:
            file = Path(path.format(folder=folder))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("?\n" * 70)
    (project.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    names = [*(str(EXPERIMENTS / file) for file in files), "overlay.yaml"]
    with running(Hub()) as hub:
        project.environment = environment() | hub.environment(project.folder / "cache")
        done = project.plain("-n", "--resources", "gpu=4", "--configfile", *names, "--config", f"folder={folder}")
        assert hub.requests == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert counted(laid_over(*parts, overlay, {"folder": str(folder)})) == job_counts(done.stdout + done.stderr)
