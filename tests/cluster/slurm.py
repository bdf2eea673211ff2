"""A SLURM cluster of two nodes on this machine, for tests: started, asked, disturbed and ended. Needs root."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue"]
SYSTEM = Path("/etc/slurm")  # job steps drop SLURM's variables, so they find the configuration only here
NODES = ["n1", "n2"]

# Each node claims more than the machine has, so that both run jobs at once. Killing for memory is on: a job that was
# granted less than it takes fails. Finished jobs are not forgotten (by default after five minutes): tests ask for all.
CONFIGURATION = """
ClusterName=toy
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=1
GresTypes=gpu
MinJobAge=86400
KillWait=5
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=3
JobAcctGatherParams=OverMemoryKill,NoShared
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} Port={ports[1]} CPUs=4 RealMemory=64000 Gres=gpu:toy:2 Feature=large State=UNKNOWN
NodeName=n2 NodeHostname={host} Port={ports[2]} CPUs=4 RealMemory=64000 Gres=gpu:toy:2 Feature=large State=UNKNOWN
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=1-0 State=UP
PartitionName=gpu Nodes=n1,n2 MaxTime=1-0 State=UP
"""
GENERIC = "AutoDetect=off\n" + "".join(f"NodeName={node} Name=gpu Type=toy File={{root}}/gpu[0-1]\n" for node in NODES)


@dataclass
class Job:
    """A job as SLURM's controller describes it."""

    fields: dict[str, str]

    @property
    def number(self) -> str:
        return self.fields["JobId"]

    @property
    def rule(self) -> str:
        """The executor writes the rule, and its wildcards, into the comment. Here without the model in its name."""
        return self.fields.get("Comment", "").removeprefix("rule_").partition("_wildcards_")[0].partition("_of_")[0]

    @property
    def state(self) -> str:
        return self.fields["JobState"]

    @property
    def minutes(self) -> int:
        """Its time limit."""
        days, _, clock = self.fields["TimeLimit"].rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        assert seconds == 0
        return int(days or 0) * 1440 + hours * 60 + minutes

    @property
    def memory(self) -> int:
        """What it may take, in SLURM's megabytes."""
        number, unit = re.fullmatch(r"([\d.]+)([MG])", self.fields["MinMemoryNode"]).groups()
        return round(float(number) * {"M": 1, "G": 1024}[unit])


class Slurm:
    """The running cluster."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def jobs(self) -> list[Job]:
        """All jobs, finished ones included, in the order of their submission."""
        output = command("scontrol", "show", "job", "--oneliner")
        rows = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in output.splitlines() if line.startswith("JobId=")]
        return sorted((Job(row) for row in rows), key=lambda job: int(job.number))

    def jobs_in(self, folder: Path) -> list[Job]:
        """Those that run in a folder."""
        return [job for job in self.jobs() if job.fields["WorkDir"] == str(folder)]

    def unfinished(self) -> list[Job]:
        """Those that have processes."""
        return [job for job in self.jobs() if job.state in ("RUNNING", "COMPLETING")]

    def nodes(self) -> dict[str, str]:
        """The state of every node."""
        return dict(re.findall(r"(\S+) (\S+)", command("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %T")))

    def crash(self, node: str, job: Job) -> None:
        """What remains when a node loses power: nothing of its daemon and of its job; SLURM is told that it is down."""
        for pid in [int((self.root / f"slurmd.{node}.pid").read_text()), *processes_of(job.number)]:
            kill(pid)
        command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=crash")

    def boot(self, node: str) -> None:
        """Start a node's daemon, and wait until it takes jobs."""
        command("slurmd", "-N", node)
        resume = ["scontrol", "update", f"NodeName={node}", "State=RESUME"]
        subprocess.run(resume, capture_output=True, timeout=30, check=False)  # refused if it is back by itself
        wait_for(lambda: self.nodes()[node] in ("idle", "mixed"), f"node {node}", 30)


def command(*words: str) -> str:
    """Run a program to its end, and return what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> object:
    """Ask until something is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


def processes_of(job: str, word: str = "", below: Path = Path("/")) -> list[int]:
    """The processes of a job: SLURM's own for its steps, and all that have the job's number in their environment.

    With a word instead those that have it among the words of their command line, and work in this folder or below.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            there = (folder / "cwd").readlink().is_relative_to(below)
            inside = f"SLURM_JOB_ID={job}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        if (word in words and there) if word else inside or words[0].startswith(f"slurmstepd: [{job}."):
            found.append(int(folder.name))
    return found


def kill(pid: int) -> None:
    """End a process at once, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def missing() -> str:
    """Why no cluster can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    gone = [name for name in PROGRAMS if shutil.which(name) is None]
    if gone:
        return f"SLURM is not installed: {', '.join(gone)} (make test-cluster installs it)"
    if os.path.lexists(SYSTEM / "slurm.conf"):
        return f"this machine has a cluster of its own ({SYSTEM / 'slurm.conf'})"
    return ""


@contextmanager
def running(root: Path) -> Iterator[Slurm]:
    """Start the cluster, wait until both nodes take jobs, and leave nothing of it behind."""
    with ExitStack() as after:
        configure(root, after)
        key = root / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        names = {"key-file": key, "socket": root / "munge.socket", "pid-file": root / "munged.pid"}
        names |= {"log-file": root / "munged.log", "seed-file": root / "munge.seed"}
        after.callback(end, root)
        # --force: the folder belongs to root, not to munge
        command("munged", "--force", *(f"--{option}={path}" for option, path in names.items()))
        command("slurmctld")
        for node in NODES:
            command("slurmd", "-N", node)
        slurm = Slurm(root)
        wait_for(lambda: set(slurm.nodes().values()) == {"idle"}, "both nodes", 60)
        yield slurm


def configure(root: Path, after: ExitStack) -> None:
    """Write the configuration, and link it where all of SLURM looks for it."""
    (root / "state").mkdir()
    for number in range(2):
        os.mknod(root / f"gpu{number}", 0o20666, os.makedev(1, 3))  # SLURM wants a device file; this one is /dev/null
    texts = {"slurm.conf": CONFIGURATION, "gres.conf": GENERIC}
    filled = {"host": socket.gethostname().partition(".")[0], "root": root, "ports": free_ports(3)}
    SYSTEM.mkdir(exist_ok=True)
    for name, text in texts.items():
        (root / name).write_text(text.format(**filled))
        (SYSTEM / name).symlink_to(root / name)
        after.callback((SYSTEM / name).unlink)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def end(root: Path) -> None:
    """End what still runs: jobs first, then the daemons that wrote their process numbers into the folder."""
    slurm, left = Slurm(root), []
    with suppress(AssertionError, subprocess.TimeoutExpired):  # the controller may be gone already
        left = slurm.unfinished()
        command("scancel", "--user=root")
        wait_for(lambda: not slurm.unfinished(), "end of jobs", 15)
    for path in sorted(root.glob("*.pid")):
        kill(int(path.read_text()))
    for pid in [pid for job in left for pid in processes_of(job.number)]:  # a busy machine needs longer
        kill(pid)
