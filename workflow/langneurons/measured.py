"""The files that jobs measure into, the manifest of each job, and which of them Snakemake follows.

Every model x perturbation x language is a file of its own. The manifest of a job lists its files with their checksums.
Of a large run Snakemake follows the manifests alone: it spends about a millisecond on every file, and a hundred
languages make 120,000 files per model.

Imported by the Snakefile, so only the standard library may be imported here and in what this imports.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from langneurons import config as experiment
from langneurons import variants
from langneurons.variants import ANSWERS, PERPLEXITY, Job, Mapping

MANY = 50_000
"""The most files that Snakemake follows by itself: about a minute of its time."""
FOLDERS = {PERPLEXITY: "perplexity", ANSWERS: "generations"}
SUFFIXES = {PERPLEXITY: "parquet", ANSWERS: "jsonl"}
AUTO, JOBS = "auto", "jobs"
"""Values of the config key `follow`; the third is `files`."""


class Measurements:
    """The measurements of a run, by what is measured: perplexity or answers."""

    def __init__(self, config: Mapping) -> None:
        self.config = config
        self.languages = config["run"]["languages"]
        self.own = [model for model in config["run"]["models"] if model in experiment.own_models(config)]
        contents = {model: experiment.contents(config, model) for model in config["models"]}
        self._perturbations = {
            model: {PERPLEXITY: there["read"], ANSWERS: there["answered"]} for model, there in contents.items()
        }
        number = sum(len(names) for model in config["run"]["models"] for names in self._perturbations[model].values())
        self.follows_jobs: bool = config["follow"] == JOBS or (
            config["follow"] == AUTO and number * len(self.languages) > MANY
        )
        """Whether Snakemake follows the manifests of jobs, and not every file."""

    def files(self, model: str, measure: str, perturbations: Iterable[str] | None = None) -> list[str]:
        """The files of a model, of all perturbations or of these, by perturbation, then language."""
        names = self._perturbations[model][measure] if perturbations is None else perturbations
        suffix = SUFFIXES[measure]
        return [f"{folder(model, measure)}/{name}/{code}.{suffix}" for name in names for code in self.languages]

    def outputs(self, model: str, measure: str, job: Job) -> list[str]:
        """The files that Snakemake knows as outputs of a job, beside its manifest: all, or those to be made anew."""
        return self.missing(model, measure, job) if self.follows_jobs else self.files(model, measure, job.members)

    def inputs(self, model: str, measure: str) -> list[str]:
        """What a job that reads all files of a model depends on: these, or the manifests of the jobs that make them."""
        if not self.follows_jobs or model not in self.own:
            return self.files(model, measure)
        return [manifest(model, measure, job) for job in variants.jobs(self.config, measure)]

    def wanted(self) -> list[str]:
        """What a run is to make: every file, or the manifest of every job, and what is missing of finished ones."""
        made = [
            file
            for model in self.config["run"]["models"]
            for measure in FOLDERS
            for file in self.inputs(model, measure)
        ]
        return made + [
            file
            for model in self.own
            for measure in FOLDERS
            for job in (variants.jobs(self.config, measure) if self.follows_jobs else [])
            for file in self.missing(model, measure, job)
        ]

    def missing(self, model: str, measure: str, job: Job) -> list[str]:
        """The files of a finished job, one whose manifest is there, that are not: someone deleted them."""
        if not Path(manifest(model, measure, job)).exists():
            return []
        found: list[str] = []
        for name in job.members:
            # One look into each folder, not one at every file, at which network file systems are slow.
            files = self.files(model, measure, [name])
            place = Path(files[0]).parent
            there = {path.name for path in place.iterdir()} if place.is_dir() else set()
            found += [path for path in files if Path(path).name not in there]
        return found


def folder(model: str, measure: str) -> str:
    """Where a model's files are, each in the folder of its perturbation."""
    return f"results/{model}/{FOLDERS[measure]}"


def manifest(model: str, measure: str, job: Job) -> str:
    """The manifest of a job."""
    return f"{folder(model, measure)}/{job.name}.json"
