"""What goes wrong on a cluster, hit while a job works: afterwards the results are those of an undisturbed run.

Where the script of the job is stopped for the blow (`freeze`), it is never continued: the job does not end by itself.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from cluster.conftest import RECORDING, ClusterProject, Running, without_recording
from cluster.slurm import Slurm, command, kill, wait_for
from workflow.conftest import Project

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

RULE = "record_activations"


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
