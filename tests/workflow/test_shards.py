"""Recording in several jobs: the same files, and what reruns when the number of jobs changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from langneurons import artifacts
from workflow.conftest import TINY, TINY_MODEL, Project

pytestmark = pytest.mark.full

MODELS, LANGUAGES = TINY["run"]["models"], TINY["run"]["languages"]
RECORDINGS = [f"results/{model}/activations/{language}.safetensors" for model in MODELS for language in LANGUAGES]
SMALL = {"models": {model: {"batch_size": 8} for model in MODELS}}
"""125 windows in batches of 8: shards end after 32 windows, so that there can be three."""


def sharded(shards: int, **more: dict) -> dict:
    return {**SMALL, "recording": {"shards": shards}, **more}


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment of its own, whose recordings were made in batches of 8."""
    copied = finished.copied(tmp_path_factory.mktemp("shards") / "langneurons")
    copied.run(*RECORDINGS, "--forcerun", "record_activations", config=SMALL)
    return copied


def recordings(project: Project) -> dict[str, bytes]:
    return {name: (project.folder / name).read_bytes() for name in RECORDINGS}


def test_shards_give_the_same_files(project: Project) -> None:
    """Byte for byte, and nothing is left of the shards: three, of which the last is shorter."""
    shards = 3
    whole = recordings(project)
    for name in RECORDINGS:
        (project.folder / name).unlink()
    jobs = project.stale(*RECORDINGS, config=sharded(shards))
    assert jobs == {"record_shard": len(RECORDINGS) * shards, "record_activations": len(RECORDINGS)}
    project.run(*RECORDINGS, config=sharded(shards))
    assert recordings(project) == whole
    for model in MODELS:
        files = [path for path in Path(project.folder, "results", model, "activations").rglob("*") if path.is_file()]
        assert len(files) == len(LANGUAGES)


def test_a_recording_takes_hardly_more_room_than_its_arrays(project: Project) -> None:
    """At most a tenth, from shards as well: of a wider model, as the header takes 1.4 KB, whatever the model."""
    wide = {**TINY_MODEL, "architecture": "gpt2", "languages": ["en", "de"], "neurons": 320, "training_tokens": 2000}
    name = "results/wide/activations/en.safetensors"
    models = {"wide": {**wide, "batch_size": 8}}
    project.run(name, config={"run": {"models": ["wide"]}, "models": models, "recording": {"shards": 2}})
    arrays, _ = artifacts.read_arrays(project.folder / name, "activations")
    size = sum(np.asarray(array).nbytes for array in arrays.values())
    assert size > 8 * 2 * 5 * 320  # the counts of all, a half and a quarter, and two sums, of two layers
    assert (project.folder / name).stat().st_size <= 1.1 * size
    shutil.rmtree(project.folder / "results" / "wide")


def test_another_number_of_shards_reruns_no_finished_recording(project: Project) -> None:
    assert project.stale(*RECORDINGS, config=sharded(2)) == {}
    assert project.stale(*RECORDINGS, config=sharded(1)) == {}


def test_more_text_is_recorded_with_the_new_number(project: Project) -> None:
    jobs = project.stale(*RECORDINGS, config=sharded(3, corpora={"tokens": {"train": 3900}}))
    assert jobs == {"tokenize_corpus": 4, "record_shard": 12, "record_activations": 4}


def test_shards_cut_for_different_batch_sizes(project: Project) -> None:
    """One of two shards was made in batches of 8, the other in batches of 4: windows would be counted twice."""
    name = RECORDINGS[0]
    shards = [name.replace("activations/en", f"activations/shards/en.{number}-of-2") for number in (1, 2)]
    original = (project.folder / name).read_bytes()
    (project.folder / name).unlink()
    project.run(shards[0], "--notemp", config=sharded(2))
    other = {**sharded(2), "models": {MODELS[0]: {"batch_size": 4}, MODELS[1]: {"batch_size": 8}}}
    message = project.mistake(name, config=other)
    assert "the shard begins with window 48, but window 32 comes next" in message
    assert "Delete the folder of the shards, and run again." in message
    assert not (project.folder / name).exists()
    shutil.rmtree((project.folder / name).parent / "shards")
    project.run(name, config=sharded(2))
    assert (project.folder / name).read_bytes() == original


def test_more_shards_than_windows(finished: Project) -> None:
    message = finished.mistake("-n", config=sharded(4))
    assert (
        "config key 'recording.shards' is 4, but the 125 windows of language 'en' for the model 'tiny-llama' can be "
        "shared by at most 3" in message
    )
