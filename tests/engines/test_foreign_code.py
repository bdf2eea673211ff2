"""Code that a model's folder brings never runs, whatever its files ask for, and nobody is asked whether it may."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.families import FAMILIES
from engines.test_loading import tiny_tokenizer
from langneurons.engines.hf import HfEngine
from langneurons.models.loading import ModelError, load_model
from langneurons.models.relevance import RelevanceError, score
from langneurons.models.tokenizer import load_tokenizer

BAIT = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Path({trace!r}).touch()


class Config(LlamaConfig):
    model_type = "bait"


class Model(LlamaForCausalLM):
    config_class = Config


class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Llama with a module beside it that leaves a trace when it runs. Whoever asks is told yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    folder = tmp_path / "bait"
    FAMILIES["llama"].build().save_pretrained(folder)
    tiny_tokenizer(eos_token="t0").save_pretrained(folder)
    (folder / "bait.py").write_text(BAIT.format(trace=str(tmp_path / "ran")))
    return folder


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def foreign_model(folder: Path) -> None:
    """A family that transformers does not know, under the name of one that is supported."""
    classes = {"AutoConfig": "bait.Config", "AutoModelForCausalLM": "bait.Model"}
    change(folder / "config.json", model_type="bait", auto_map=classes)


def foreign_tokenizer(folder: Path) -> None:
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "bait.Tokenizer"]})


LOADERS: dict[str, Callable[[Path], Any]] = {
    "model": lambda folder: load_model(str(folder), None, "float32", 0),
    "tokenizer": lambda folder: load_tokenizer(str(folder)),
    "engine": lambda folder: HfEngine.load(str(folder)),
}


@pytest.mark.parametrize(
    ("spoil", "loader", "file"),
    [
        (foreign_model, "model", "config.json"),
        (foreign_model, "engine", "config.json"),
        (foreign_tokenizer, "tokenizer", "tokenizer_config.json"),
        (foreign_tokenizer, "engine", "tokenizer_config.json"),
    ],
)
def test_foreign_code_is_refused(folder: Path, spoil: Callable[[Path], None], loader: str, file: str) -> None:
    LOADERS[loader](folder)
    spoil(folder)
    with pytest.raises(ModelError, match=rf"bait' brings code of its own \(the auto_map of its {file}\)"):
        LOADERS[loader](folder)
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("spoil", [foreign_model, foreign_tokenizer])
def test_a_scorer_with_foreign_code_is_refused(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    settings = {"kind": "judge", "path": str(folder), "template": "{question} {answer}", "accept": "t1", "reject": "t2"}
    with pytest.raises(RelevanceError, match="bait' brings code of its own"):
        score(settings, [("t3", "t4")])
    assert not (folder.parent / "ran").exists()


def test_a_family_of_transformers_keeps_its_own_code(folder: Path) -> None:
    """Folders of early days name a module, though transformers has had the family for long."""
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "bait.Model"})
    assert type(load_model(str(folder), None, "float32", 0)).__module__.startswith("transformers.")
    assert not (folder.parent / "ran").exists()
