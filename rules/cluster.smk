"""
What jobs ask a cluster for. On one machine nobody limits these resources; nowhere do they rerun anything.
"""

import shutil
import subprocess

from langneurons import cost


@functools.cache
def request(model, stage):
    """Minutes and memory (MB) of a stage of one model, from its size and the config; without a model, of the largest."""
    if stage == "relevance":  # nothing is known of a model that scores answers
        return cost.Request(minutes=120, memory_mb=32_000)
    return or_workflow_error(cost.request, config, model, stage)


def site(name, **job):
    """What the cluster's profile says for a job under a name of its default-resources; None where it says nothing."""
    given = (workflow.resource_settings.default_resources or {}).get(name)
    return given and given.evaluate(**job).value


def cluster(stage, gpus=None, model=None):
    """
    What jobs ask a cluster for. Memory and time, and more of both at every attempt, since a job that had too little is tried
    again. Rules that can use GPUs say how many; with GPUs jobs go where the profile's `gpu_` keys say, without where all
    others go. Rules of one model name it; for others the wildcards do.
    """

    def needs(wildcards):
        return request((model or wildcards).get("model"), stage)

    def placed(key, of_gpus):
        """A resource that a job with GPUs takes from another key."""
        return lambda wildcards, **job: site(of_gpus if gpus(model or wildcards) else key, wildcards=wildcards, **job)

    def gres(wildcards, **job):
        """SLURM's words for the GPUs: `gpu` or `gpu:<type>` of the profile, and how many."""
        words = site("gpu_gres", wildcards=wildcards, **job)
        number = gpus(model or wildcards)
        return f"{words}:{number}" if words and number else None

    def gpu_type(wildcards, **job):
        """The type in these words. SLURM wants it in both places: --gres=gpu:a100:2 --gpus=a100:2."""
        return (gres(wildcards, **job) or "").removeprefix("gpu:").rpartition(":")[0] or None

    asked = {
        "mem_mb": lambda wildcards, attempt: needs(wildcards).memory_mb * attempt,
        "runtime": lambda wildcards, attempt: needs(wildcards).minutes * attempt,
    }
    if gpus is not None:
        asked["slurm_partition"] = placed("slurm_partition", "gpu_partition")
        asked["constraint"] = placed("constraint", "gpu_constraint")
        asked |= {"gres": gres, "gpu_model": gpu_type}
    return asked


def check_slurm():
    """Refuse to submit jobs where SLURM is not, or to partitions that it does not have. Dry runs need neither."""
    if workflow.executor_plugin.name != "slurm":
        return
    if not shutil.which("sbatch"):
        raise WorkflowError(
            "SLURM is not installed here: there is no sbatch on the PATH. Run on a login node of the cluster, or leave out "
            "--workflow-profile profiles/slurm."
        )
    asked = subprocess.run(["sinfo", "-h", "-o", "%R"], text=True, capture_output=True)
    if asked.returncode:
        raise WorkflowError(
            f"SLURM does not answer (sinfo: {asked.stderr.strip()}). Try again once `sinfo` works here."
        )
    there = sorted(set(asked.stdout.split()))
    for job in workflow.dag.needrun_jobs():
        chosen = job.resources.get("slurm_partition")
        for name in [] if job.is_local else str(chosen or "").split(","):
            if name and name not in there:
                key = "gpu_partition" if job.resources.get("gpu") else "slurm_partition"
                raise WorkflowError(
                    f"SLURM has no partition '{name}', which rule {job.rule.name} asks for. Set '{key}' in "
                    f"profiles/slurm/config.yaml to one of: {', '.join(there)}."
                )
