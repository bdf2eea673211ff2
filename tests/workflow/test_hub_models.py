"""Models of the hub in the workflow: one job downloads, all others run without network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hub_server import COMMIT, Hub, Repository, running
from langneurons import artifacts
from workflow.conftest import Project, environment
from workflow.test_mistakes import message_of

pytestmark = pytest.mark.full

CONFIG = {
    "run": {"models": ["remote"]},
    "models": {"remote": {"source": "hub", "id": "tiny/gpt2", "revision": "v1", "gpus": 0, "dtype": "float32"}},
}
DOWNLOAD = "results/remote/download.json"
RECORDING = "results/remote/activations/de.safetensors"


STALE = {"download_model": 1, "tokenize_corpus": 1, "record_activations": 1}


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished experiment, in which a model of a hub was downloaded; the hub is gone since."""
    folder = tmp_path_factory.mktemp("hub")
    project = finished.copied(folder / "langneurons")
    hub = Hub({"tiny/gpt2": Repository.of(finished.folder / "results" / "tiny-gpt2" / "model")})
    with running(hub):
        project.environment = environment() | hub.environment(folder / "cache")
        assert project.stale(RECORDING, config=CONFIG) == STALE
        assert hub.requests == []  # a dry run asks nothing
        project.run(DOWNLOAD, config=CONFIG)
        assert hub.fetched() == ["model.safetensors"]
    return project


def test_jobs_run_without_network(project: Project) -> None:
    document = artifacts.read_document(project.folder / DOWNLOAD, "download")
    assert (document["id"], document["revision"], document["commit"]) == ("tiny/gpt2", "v1", COMMIT)
    project.run(RECORDING, config=CONFIG)
    mine, metadata = artifacts.read_activations(project.folder / RECORDING)
    theirs, _ = artifacts.read_activations(project.folder / "results/tiny-gpt2/activations/de.safetensors")
    assert np.array_equal(mine.over_zero, theirs.over_zero)
    assert (metadata["model"], metadata["revision"]) == ("tiny/gpt2", "v1")
    model = CONFIG["models"]["remote"]
    assert project.stale(RECORDING, config=CONFIG | {"models": {"remote": model | {"batch_size": 3}}}) == {}
    assert project.stale(RECORDING, config=CONFIG | {"models": {"remote": model | {"revision": "main"}}}) == STALE


def test_a_lost_cache_is_said(project: Project) -> None:
    cache = Path(project.environment["HF_HOME"])
    cache.rename(cache.with_name("moved"))
    output = project.mistake("--forcerun", "tokenize_corpus", "--until", "tokenize_corpus", RECORDING, config=CONFIG)
    cache.with_name("moved").rename(cache)
    message = message_of(output)
    words = ["'tiny/gpt2'", "revision v1 of", "is not in the hub's cache", "results/<model>/download.json", "HF_HOME"]
    assert all(word in message for word in words), message
    assert "Traceback" not in output
