"""The script that checks questions: each is counted, and one that is too long is named before weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langneurons import artifacts
from langneurons.demo.training import DemoModel, build_model, train_tokenizer
from langneurons.engines.base import EngineError
from scripts import check_prompts

CONTEXT = 64


def test_questions_are_counted_and_one_that_is_too_long_is_named(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["What is this? Was ist das?"], 300)
    build_model(DemoModel("gpt2", 300, 1, 16, 2, 32, CONTEXT, 64, 4), tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "en.txt").write_text("What is this?\nWhat was this?\nIs this it?\n")
    (tmp_path / "de.txt").write_text("Was ist das?\nWas war das?\n")
    settings = {"template": "Q: {question}", "split": "test", "validation_prompts": 1, "max_new_tokens": 8}

    def check(new_tokens: int) -> dict[str, dict[str, int]]:
        check_prompts.main(
            [
                *("--model", json.dumps({"model": str(tmp_path / "model"), "revision": None})),
                *("--languages", "en", "de", "--prompts", str(tmp_path / "en.txt"), str(tmp_path / "de.txt")),
                *("--settings", json.dumps(settings | {"max_new_tokens": new_tokens})),
                *("--output", str(tmp_path / "prompts.json")),
            ]
        )
        document = artifacts.read_document(tmp_path / "prompts.json", "prompts")
        assert document["context"] == CONTEXT
        found: dict[str, dict[str, int]] = document["tokens"]
        return found

    def tokens(question: str) -> int:
        return len(tokenizer(f"Q: {question}")["input_ids"])

    assert check(8) == {
        "en": {"en-002": tokens("What was this?"), "en-003": tokens("Is this it?")},
        "de": {"de-002": tokens("Was war das?")},
    }
    (tmp_path / "prompts.json").unlink()
    with (tmp_path / "de.txt").open("a") as handle:
        handle.write("Was war das, was ist das, was war das, was ist das?\n")
    room = CONTEXT - tokens("Was war das, was ist das, was war das, was ist das?")
    with pytest.raises(EngineError, match=rf"the longest prompt, de-003, .*context of {CONTEXT} .* to {room} or less"):
        check(room + 1)
    assert not (tmp_path / "prompts.json").exists()
    check(room)
