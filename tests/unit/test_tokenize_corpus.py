"""The script that tokenizes: splits are the corpus's own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from langneurons import artifacts, config
from langneurons.corpus.sources import SPLIT_SEED, documents, split_of
from langneurons.demo.training import DemoModel, build_model, train_tokenizer

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "tokenize_corpus.py"
SHARE = {"valid": 0.1, "test": 0.15}


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_do_not_depend_on_the_seed(tmp_path: Path, seed: int) -> None:
    """Nine tenths of the test split can be had with any seed; a split by seed 1 would have six tenths of its text."""
    found = list(documents({"source": "embedded"}, config.source_files({"source": "embedded"}, "en"), seed))
    held_out = {
        document.key: document.text for document in found if split_of(document.key, SPLIT_SEED, SHARE) == "test"
    }
    moved = [document.text for document in found if split_of(document.key, 1, SHARE) == "test"]
    assert sum(map(len, moved)) < 0.7 * sum(map(len, held_out.values()))

    tokenizer = train_tokenizer(list(held_out.values()), 300)
    build_model(DemoModel("gpt2", 300, 1, 16, 2, 32, 16, 64, 4), tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tokens = sum(len(ids) for ids in tokenizer(list(held_out.values()))["input_ids"])
    outputs = [tmp_path / f"{split}.safetensors" for split in config.SPLITS]

    spec = importlib.util.spec_from_file_location("tokenize_corpus", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(
        [
            *("--model", json.dumps({"model": str(tmp_path / "model"), "revision": None}), "--language", "en"),
            *("--source", json.dumps({"source": "embedded"}), "--window", "64", "--share", json.dumps(SHARE)),
            *("--tokens", json.dumps({"train": 640, "valid": 640, "test": tokens * 9 // 10}), "--seed", str(seed)),
            *("--outputs", *map(str, outputs)),
        ]
    )
    windows = artifacts.read_tokens(outputs[2])
    assert windows.windows.size == tokens * 9 // 10 // 64 * 64
    assert windows.metadata["documents"] <= len(held_out)
