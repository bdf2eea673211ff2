"""Models of the hub, on a hub of our own: what is fetched of them, once, and that loading never asks the network."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers

from engines.common import PROBE, logits
from engines.families import FAMILIES
from engines.test_loading import tiny_tokenizer
from hub_server import COMMIT, Hub, Repository, running
from langneurons import artifacts
from langneurons.engines import load_engine
from langneurons.models.hub import resolve
from langneurons.models.loading import ModelError, load_model
from langneurons.models.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
MODEL = "tiny/llama"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SMALL = ["config.json", "generation_config.json", "model.safetensors.index.json"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
CODE = """
import runpy, sys
{before}
sys.argv = {arguments!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in two parts, as save_pretrained writes it."""
    path = tmp_path_factory.mktemp("saved") / "llama"
    FAMILIES["llama"].build().save_pretrained(path, max_shard_size="100KB")
    tiny_tokenizer(eos_token="t0", pad_token="t0").save_pretrained(path)
    return path


@dataclass
class Machine:
    """A machine with a cache of its own, and the hub that it reaches."""

    hub: Hub
    cache: Path
    output: Path

    def start(self, model: str = MODEL, revision: str = "main", before: str = "", **settings: str) -> subprocess.Popen:
        """Start the rule's command line; `before` is Python code that runs first."""
        script = str(ROOT / "workflow" / "scripts" / "download_model.py")
        arguments = [script, "--model", model, "--revision", revision, "--output", str(self.output)]
        environment = self.hub.environment(self.cache) | {"PYTHONPATH": str(ROOT / "workflow")} | settings
        code = CODE.format(before=before, arguments=arguments)
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)

    def download(self, *arguments: str, **options: str) -> dict[str, Any]:
        """Download to the end; the document that was written."""
        process = self.start(*arguments, **options)
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, error
        return artifacts.read_document(self.output, "download")

    def refused(self, *arguments: str, **options: str) -> str:
        """Try to download something that cannot be; the one message."""
        process = self.start(*arguments, **options)
        lines = process.communicate(timeout=300)[1].strip().splitlines()
        assert process.returncode == 1
        assert not self.output.exists()
        assert lines[-1].startswith("error: "), lines
        assert not any("Traceback" in line for line in lines)
        return lines[-1]


@pytest.fixture
def machine(tmp_path: Path, folder: Path) -> Iterator[Machine]:
    with running(Hub({MODEL: Repository.of(folder)})) as hub:
        yield Machine(hub, tmp_path / "cache", tmp_path / "results" / "download.json")


@pytest.fixture
def offline(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process uses the machine's cache, and may not use the network. Both are read once, at the import."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(machine.cache / "hub"))


# -- what is downloaded -----------------------------------------------------------------------------------------------


def test_document(machine: Machine, folder: Path) -> None:
    document = machine.download(MODEL, "v1")
    assert (document["id"], document["revision"], document["commit"]) == (MODEL, "v1", COMMIT)
    assert [file["name"] for file in document["files"]] == sorted([*SMALL, *TOKENIZER, *SHARDS])
    assert all(file["bytes"] == (folder / file["name"]).stat().st_size for file in document["files"])
    assert str(machine.cache) not in machine.output.read_text()  # results do not depend on where the cache is


def test_a_second_run_fetches_nothing(machine: Machine) -> None:
    first = machine.download()
    machine.hub.requests.clear()
    assert machine.download() == first
    assert machine.hub.requests == [f"GET /api/models/{MODEL}/revision/main"]  # does it name the same commit still?
    machine.hub.requests.clear()
    assert machine.download(MODEL, COMMIT) == first | {"revision": COMMIT}
    assert machine.hub.requests == []


def test_only_what_is_loaded_is_fetched(machine: Machine) -> None:
    """Of weights in several formats one: safetensors, by their index."""
    files = machine.hub.repositories[MODEL].files
    names = ["original/consolidated.00.pth", "original/tokenizer.model", "onnx/model.onnx", "consolidated.safetensors"]
    names += ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "model.gguf"]
    names += ["model.fp16.safetensors", "model-00001-of-00009.safetensors", "tf_model.h5", "flax_model.msgpack"]
    names += ["README.md", "LICENSE.txt", "modeling_llama.py", "training_args.bin"]
    machine.hub.repositories[MODEL].files = dict.fromkeys(names, b"x" * 1000) | files
    document = machine.download()
    assert [file["name"] for file in document["files"]] == sorted([*SMALL, *TOKENIZER, *SHARDS])
    assert machine.hub.fetched() == SHARDS
    assert not [request for request in machine.hub.requests for name in names if request.endswith(f"/{name}")]


def test_a_single_file_goes_before_an_index(machine: Machine) -> None:
    """As transformers looks for them."""
    machine.hub.repositories[MODEL].files["model.safetensors"] = b"x" * 1000
    machine.download()
    assert machine.hub.fetched() == ["model.safetensors"]


def test_files_of_tokenizers(machine: Machine) -> None:
    files = machine.hub.repositories[MODEL].files
    names = ["tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"]
    names += ["chat_template.jinja"]
    files |= dict.fromkeys(names, b"{}")
    chosen = {file["name"] for file in machine.download()["files"]}
    assert chosen == {*SMALL, *TOKENIZER, *SHARDS, *names}


def test_one_bar_shows_the_progress(machine: Machine, folder: Path) -> None:
    process = machine.start()
    shown = process.communicate(timeout=300)[1].replace("\r", "\n").splitlines()
    total = sum((folder / name).stat().st_size for name in (*SMALL, *TOKENIZER, *SHARDS)) / 1e9
    pin = "main today; pin it as 'revision' in the config"
    assert shown[0] == f"{MODEL}, commit {COMMIT} ({pin}): 7 files, {total:.2f} GB"
    assert all(line.startswith("download:") for line in shown[1:] if line.strip())
    assert "100%" in shown[-1]


# -- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_loading_offline_gives_the_model_of_the_folder(machine: Machine, folder: Path, revision: str) -> None:
    machine.download(MODEL, revision)
    machine.hub.requests.clear()
    expected = logits(load_model(str(folder), None, "float32", 0))
    assert torch.equal(logits(load_model(MODEL, revision, "float32", 0)), expected)
    text = "t7 t150 t3"
    assert load_tokenizer(MODEL, revision)(text)["input_ids"] == load_tokenizer(str(folder))(text)["input_ids"]
    counts = load_engine("hf", model=MODEL, revision=revision).record(PROBE)
    assert np.array_equal(counts.over_zero, load_engine("hf", model=str(folder)).record(PROBE).over_zero)
    assert machine.hub.requests == []


@pytest.mark.usefixtures("offline")
def test_weights_without_safetensors(machine: Machine, folder: Path) -> None:
    """Older models have pickles only; torch reads nothing but tensors from them."""
    files = machine.hub.repositories[MODEL].files
    for name in (*SHARDS, "model.safetensors.index.json"):
        del files[name]
    saved = machine.cache.parent / "pytorch_model.bin"
    torch.save(FAMILIES["llama"].build().state_dict(), saved)
    files |= {"pytorch_model.bin": saved.read_bytes(), "tf_model.h5": b"x"}
    document = machine.download()
    assert machine.hub.fetched() == ["pytorch_model.bin"]
    assert {file["name"] for file in document["files"]} == {"pytorch_model.bin", *SMALL[:2], *TOKENIZER}
    expected = logits(load_model(str(folder), None, "float32", 0))
    assert torch.equal(logits(load_model(MODEL, "main", "float32", 0)), expected)


def test_a_folder_is_its_own_place(folder: Path) -> None:
    assert resolve(str(folder)) == str(folder)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("loader", [resolve, load_tokenizer, partial(load_model, dtype="float32", gpus=0)])
def test_a_model_that_was_not_downloaded(machine: Machine, loader: Callable[[str, str], Any]) -> None:
    with pytest.raises(ModelError) as caught:
        loader(MODEL, "main")
    message = str(caught.value)
    assert f"revision main of the model '{MODEL}' is not in the hub's cache {machine.cache}/hub." in message
    assert "snakemake --force results/<model>/download.json" in message
    assert all(word in message for word in ("HF_HOME", "source: folder"))
    assert machine.hub.requests == []


@pytest.mark.usefixtures("offline")
def test_a_cache_that_lost_a_file(machine: Machine, tmp_path: Path) -> None:
    machine.download()
    for missing in (SHARDS[1], "tokenizer.json", "model.safetensors.index.json"):
        file = Path(resolve(MODEL, "main"), missing)
        kept = file.rename(tmp_path / "kept")  # a link of the cache to what it holds
        with pytest.raises(
            ModelError, match=r"revision main of the model .* is not complete in the hub's cache .*--force"
        ):
            resolve(MODEL, "main")
        kept.rename(file)


@pytest.mark.usefixtures("offline")
def test_a_folder_of_the_same_name_is_not_taken_for_it(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured is what the metadata name: a revision of the hub, or the folder."""
    machine.download()
    monkeypatch.chdir(tmp_path)
    own = FAMILIES["llama"].build()
    with torch.no_grad():
        own.lm_head.weight.mul_(2)
    own.save_pretrained(tmp_path / MODEL)
    load_tokenizer(MODEL, "main").save_pretrained(tmp_path / MODEL)
    of_hub, of_folder = (logits(load_model(MODEL, revision, "float32", 0)) for revision in ("main", None))
    assert torch.equal(2 * of_hub, of_folder)


@pytest.mark.usefixtures("offline")
def test_another_revision_was_downloaded(machine: Machine) -> None:
    machine.download()
    with pytest.raises(ModelError, match=rf"revision {'f' * 40} of the model .* is not in the hub's cache"):
        resolve(MODEL, "f" * 40)
    with pytest.raises(ModelError, match=r"revision v1 of the model .* is not in the hub's cache"):
        resolve(MODEL, "v1")


# -- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_a_lost_connection_is_taken_up_where_it_broke(machine: Machine, folder: Path) -> None:
    """The library writes ten megabytes at a time; here a thousand bytes."""
    machine.hub.cuts = {SHARDS[1]: 3000}
    machine.download(before="from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 1000")
    assert machine.hub.fetched() == [SHARDS[0], SHARDS[1], f"{SHARDS[1]} bytes=3000-"]
    assert Path(resolve(MODEL, "main"), SHARDS[1]).read_bytes() == (folder / SHARDS[1]).read_bytes()


@pytest.mark.usefixtures("offline")
def test_a_killed_download_leaves_no_output_and_continues(machine: Machine, folder: Path) -> None:
    """The file that was cut starts anew; the others are not fetched again."""
    machine.hub.stalled = {SHARDS[1]}
    process = machine.start()
    complete = machine.cache / "hub" / "models--tiny--llama" / "snapshots" / COMMIT / SHARDS[0]
    deadline = time.monotonic() + 300
    while not (complete.exists() and SHARDS[1] in machine.hub.fetched()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not machine.output.exists()
    with pytest.raises(ModelError, match="not complete"):
        resolve(MODEL, "main")
    machine.hub.stalled.clear()
    machine.hub.requests.clear()
    machine.download()
    assert machine.hub.fetched() == [SHARDS[1]]
    assert Path(resolve(MODEL, "main"), SHARDS[1]).read_bytes() == (folder / SHARDS[1]).read_bytes()


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_gated(machine: Machine) -> None:
    machine.hub.repositories[MODEL].gated = True
    for revision in ("main", COMMIT):
        message = machine.refused(MODEL, revision)
        assert f"'{MODEL}' is gated" in message
        assert f"http://127.0.0.1:{machine.hub.port}/{MODEL}; once it is granted" in message
        assert message.endswith("hf auth login")
    assert machine.hub.fetched() == []


@pytest.mark.parametrize(
    ("model", "revision", "words"),
    [
        ("nobody/nothing", "main", ["the hub has no model 'nobody/nothing'", "Correct 'id'", "hf auth login"]),
        (MODEL, "v2", [f"'{MODEL}' has no revision 'v2'", "Correct 'revision'", f"{MODEL}/commits/main"]),
        (MODEL, "f" * 40, [f"'{MODEL}' has no revision '{'f' * 40}'", "Correct 'revision'"]),
        ("a b", "main", ["'a b' is no hub id", "name/model", "Correct 'id'"]),
    ],
)
def test_unknown(machine: Machine, model: str, revision: str, words: list[str]) -> None:
    message = machine.refused(model, revision)
    assert all(word in message for word in words), message


def test_an_unknown_architecture_is_refused_before_its_weights(machine: Machine) -> None:
    config = transformers.MambaConfig(architectures=["MambaForCausalLM"]).to_json_string(use_diff=False)
    machine.hub.repositories[MODEL].files["config.json"] = config.encode()
    message = machine.refused()
    assert "'MambaForCausalLM' is not supported. Known: BloomForCausalLM" in message
    assert machine.hub.fetched() == []
    assert all(request.endswith(("config.json", COMMIT, "main")) for request in machine.hub.requests)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (SHARDS + SMALL[2:], "has no weights (model.safetensors or pytorch_model.bin)"),
        (TOKENIZER, "has no tokenizer (tokenizer.json, "),
        (["config.json"], "has no config.json"),
        (SHARDS[1:], f"lacks {SHARDS[1]}, which its model.safetensors.index.json names"),
    ],
)
def test_no_model_of_transformers(machine: Machine, lost: list[str], words: str) -> None:
    for name in lost:
        del machine.hub.repositories[MODEL].files[name]
    assert f"'{MODEL}' {words}" in machine.refused()
    assert machine.hub.fetched() == []


def test_no_network(machine: Machine) -> None:
    port = machine.hub.port
    with running(Hub()) as other:  # a port on which nothing answers any more
        machine.hub.port = other.port
    message = machine.refused()
    assert f"no connection to http://127.0.0.1:{machine.hub.port} ([Errno 111] Connection refused)" in message
    assert "source: folder" in message
    machine.hub.port = port
    assert "HF_HUB_OFFLINE forbids it. Unset it" in machine.refused(HF_HUB_OFFLINE="1")


def test_too_little_space(machine: Machine) -> None:
    """Said before the weights are fetched."""
    free = "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(free=100_000)"
    message = machine.refused(before=free)
    assert f"'{MODEL}' needs 0.0 GB more, but in the hub's cache {machine.cache}/hub 0.0 GB are free" in message
    assert message.endswith("HF_HOME.")
    assert machine.hub.fetched() == []


def test_a_full_disk(machine: Machine) -> None:
    full = "import errno, huggingface_hub.file_download as f\ndef get(*a, **o): raise OSError(errno.ENOSPC, 'full')\n"
    message = machine.refused(before=full + "f.http_get = get")
    assert f"the disk of the hub's cache {machine.cache}/hub is full. Make room there" in message
    assert "running again continues" in message
