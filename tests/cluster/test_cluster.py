"""The whole experiment on a cluster: what SLURM was asked for, what is left, and the same results as on one machine.

Then what goes wrong there, hit while a job works: afterwards the results are those of an undisturbed run. Where the
script of a job is stopped for the blow (`freeze`), it is never continued: the job does not end by itself.

One file, since there is one cluster: `--dist loadfile` keeps its tests together.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest
import yaml
from snakemake.utils import update_config

from cluster.conftest import RECORDING, ClusterProject, Running, configuration, without_recording
from cluster.slurm import Job, Slurm, command, kill, wait_for
from langneurons import cost
from langneurons.validation import validate
from quiet import MODEL
from workflow.conftest import ROOT, Project

pytestmark = pytest.mark.cluster

RULE = "record_activations"
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
    summary = json.loads(expected[f"{MODEL}/neurons/lape.json"])
    assert all(summary["count_by_language"].values()), "no neuron was perturbed"
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


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hung(
    cluster: Slurm, local: Project, pretended: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ClusterProject, Running]]:
    """A run whose job hangs, with a time limit of one minute for every attempt. Other tests go on meanwhile."""
    project = without_recording(local, tmp_path_factory.mktemp("hung"), pretended, gpus=2)
    run = project.start(RECORDING, "--set-resources", f"{RULE}:runtime=attempt")
    project.freeze(cluster, RULE)
    yield project, run
    kill(run.process.pid)


def expect_undisturbed(project: ClusterProject, local: Project) -> None:
    """Every file is as on one machine. A job that ended while it wrote may leave a temporary one beside them."""
    found = {name: content for name, content in project.files().items() if not name.endswith(".tmp")}
    expected = local.files()
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.usefixtures("hung")  # from here on, for the test of the time limit
def test_cancelled_job_is_tried_again(cluster: Slurm, unrecorded: ClusterProject, local: Project) -> None:
    """With more of everything, since snakemake cannot know why it ended. The model claims no GPU."""
    run = unrecorded.start(RECORDING)
    job = unrecorded.freeze(cluster, RULE)
    command("scancel", job.number)
    output = run.finish()
    assert f"SLURM-job '{job.number}' failed, SLURM status is: 'CANCELLED'" in output
    first, second = cluster.jobs_in(unrecorded.folder)
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    assert (second.memory, second.minutes) == (2 * first.memory, 2 * first.minutes)
    for job in (first, second):
        assert (job.rule, job.fields["Partition"]) == (RULE, "cpu")
        assert "TresPerJob" not in job.fields
    expect_undisturbed(unrecorded, local)


def test_interrupted_snakemake(cluster: Slurm, unrecorded: ClusterProject, local: Project) -> None:
    """Ctrl-C: it cancels its jobs and unlocks the folder."""
    run = unrecorded.start(RECORDING)
    unrecorded.freeze(cluster, RULE)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) != 0
    wait_for(lambda: cluster.jobs_in(unrecorded.folder)[0].state == "CANCELLED", "the end of the job")
    unrecorded.run(RECORDING)
    assert [job.state for job in cluster.jobs_in(unrecorded.folder)] == ["CANCELLED", "COMPLETED"]
    expect_undisturbed(unrecorded, local)


def test_killed_snakemake(cluster: Slurm, unrecorded: ClusterProject, local: Project) -> None:
    """The steps of docs/slurm.md: cancel what is left, wait until it has gone, unlock, start again."""
    run = unrecorded.start(RECORDING)
    job = unrecorded.freeze(cluster, RULE)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert [left.state for left in cluster.jobs_in(unrecorded.folder)] == ["RUNNING"]
    assert "--unlock" in unrecorded.mistake(RECORDING)
    logs = sorted((unrecorded.folder / ".snakemake" / "log").glob("*.log"))
    run_id = re.findall(r"SLURM run ID: (langneurons_\S+)", "".join(path.read_text() for path in logs))[-1]
    assert command("squeue", "-h", "--name", run_id, "-o", "%A").split() == [job.number]
    command("scancel", "--name", run_id)
    wait_for(lambda: not command("squeue", "-h", "--name", run_id), "end of the jobs that were left")
    unrecorded.run("--unlock")
    unrecorded.run(RECORDING)
    assert [job.state for job in cluster.jobs_in(unrecorded.folder)] == ["CANCELLED", "COMPLETED"]
    expect_undisturbed(unrecorded, local)


def test_time_limit_grows(cluster: Slurm, hung: tuple[ClusterProject, Running], local: Project) -> None:
    """A job that hangs is ended at its limit of one minute, and tried again with two. The model claims two GPUs."""
    project, run = hung
    output = run.finish()
    first, second = cluster.jobs_in(project.folder)
    assert f"SLURM-job '{first.number}' failed, SLURM status is: 'TIMEOUT'" in output
    assert [(job.state, job.minutes) for job in (first, second)] == [("TIMEOUT", 1), ("COMPLETED", 2)]
    for job in (first, second):
        assert (job.fields["Partition"], job.fields["TresPerJob"]) == ("gpu", "gres:gpu:2")
    expect_undisturbed(project, local)


def test_node_that_goes_down_and_comes_back(cluster: Slurm, unrecorded: ClusterProject, local: Project) -> None:
    """SLURM starts its job again on the other node; snakemake waits for it."""
    run = unrecorded.start(RECORDING)
    job = unrecorded.freeze(cluster, RULE)
    node = job.fields["BatchHost"]
    cluster.crash(node, job)
    assert cluster.nodes()[node].startswith("down")
    # SLURM holds a job that it takes back for two minutes; here somebody lets it go at once.
    wait_for(lambda: [again for again in cluster.jobs_in(unrecorded.folder) if again.state == "PENDING"], "requeueing")
    command("scontrol", "update", f"JobId={job.number}", "StartTime=now")
    run.finish()
    cluster.boot(node)
    (again,) = cluster.jobs_in(unrecorded.folder)
    assert (again.number, again.state, again.fields["Restarts"]) == (job.number, "COMPLETED", "1")
    assert again.fields["BatchHost"] != node
    assert cluster.nodes()[node] == "idle"
    expect_undisturbed(unrecorded, local)
