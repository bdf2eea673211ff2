"""The whole experiment on a cluster: what SLURM was asked for, what is left, and the same results as on one machine."""

from __future__ import annotations

import re

import pytest
import yaml
from snakemake.utils import update_config

from cluster.conftest import ClusterProject, configuration
from cluster.slurm import Job, Slurm
from langneurons import cost
from langneurons.validation import validate
from quiet import MODEL
from workflow.conftest import ROOT, Project

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

ON_GPUS = ("record_shard", "measure_perplexity", "generate_text")
"""Rules that run the model, and their variants."""
ON_THREADS = (*ON_GPUS, "record_activations", "train_demo_model")
"""Rules that use as many cores as the config gives a model."""
STAGES = {
    "train_demo_model": "training",
    "tokenize_corpus": "tokens",
    "record_shard": "recording",
    "identify_neurons": "neurons",
    "measure_perplexity_deactivate": "perplexity",
    "generate_text_none": "answers",
    "score_text": "analysis",
    "make_tables": "analysis",
}
"""What is worked out of the jobs of some rules."""


@pytest.fixture(scope="module")
def jobs(cluster: Slurm, distributed: ClusterProject) -> list[Job]:
    return cluster.jobs_in(distributed.folder)


def untimed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The report without when it was made and how long stages took; print, made of it, has both as well."""
    page = files["report/report.html"].decode()
    page, dates = re.subn(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page)
    page, tables = re.subn(r'<section id="timings">.*?</section>', "", page, flags=re.DOTALL)
    assert (dates, tables) == (2, 1)
    return {**files, "report/report.html": page.encode(), "report/report.pdf": files["report/report.pdf"][:5]}


def test_results_are_those_of_one_machine(local: Project, distributed: ClusterProject) -> None:
    """Byte for byte: all files below results/ but logs and timings. There, recordings were made in one piece."""
    expected, found = untimed(local.files()), untimed(distributed.files())
    assert len(expected) > 50
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_every_job_ran_once_on_the_cluster(local: Project, jobs: list[Job]) -> None:
    """Each stage as often as on one machine, but for two shards per language, and the check at the end, run here."""
    timings = list((local.folder / "results" / "timings").rglob("*.tsv"))
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert len(jobs) == len(timings) + 4 - 1
    assert {job.fields["BatchHost"] for job in jobs} == {"n1", "n2"}


def test_what_slurm_was_asked_for(jobs: list[Job]) -> None:
    """Partition, GPUs, features, cores and account of every job."""
    claiming = [job for job in jobs if job.rule.startswith(ON_GPUS)]
    assert {job.rule for job in claiming} >= {
        "record_shard",
        "measure_perplexity_none",
        "measure_perplexity_deactivate",
        "generate_text_deactivate",
    }
    for job in jobs:
        fields = job.fields
        assert fields["Account"] == "ours"
        if job in claiming:
            assert (fields["Partition"], fields["Features"]) == ("gpu", "large")
            assert (fields["TresPerJob"], fields["TresPerNode"]) == ("gres:gpu:toy:1", "gres:gpu:toy:1")
        else:
            assert (fields["Partition"], fields["Features"]) == ("cpu", "(null)")
            assert not {"TresPerJob", "TresPerNode"} & fields.keys()
        assert fields["CPUs/Task"] == ("2" if job.rule.startswith(ON_THREADS) else "1"), job.rule


def test_memory_and_time_are_what_is_worked_out(jobs: list[Job]) -> None:
    """By langneurons.cost. SLURM's megabytes are larger than ours: a job gets no less than it asks for."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(config, configuration())
    config = validate(config)
    for rule, stage in STAGES.items():
        asked = cost.request(config, MODEL, stage)
        found = {(job.minutes, job.memory) for job in jobs if job.rule == rule}
        assert found == {(asked.minutes, asked.memory_mb)}, rule


def test_logs_are_kept(distributed: ClusterProject, jobs: list[Job]) -> None:
    """SLURM's log of every job, and the log of every rule."""
    logs = distributed.folder / "results" / "logs"
    kept = {path.stem for path in (logs / "slurm").rglob("*.log")}
    assert kept == {job.number for job in jobs}
    assert (logs / "train_demo_model" / f"{MODEL}.log").stat().st_size > 0


def test_second_run_does_nothing(distributed: ClusterProject) -> None:
    """Neither on the cluster nor on one machine: profiles rerun nothing."""
    assert "Nothing to be done" in distributed.run()
    here = Project(distributed.folder, distributed.config, distributed.environment)
    assert here.stale() == {}
