"""The scripts that record: which windows make a quarter and half of the text, and which file is which language's."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from langneurons import artifacts
from langneurons.corpus.sentences import Sentence
from langneurons.corpus.windows import TokenWindows
from langneurons.errors import CorpusError
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
MODEL = {"name": "hf", "model": "here", "revision": None, "dtype": "float32"}
NEURONS = 12


class FakeEngine:
    """Neuron n is active on the first position of window n only, so that counts tell which windows were recorded."""

    def __init__(self) -> None:
        self.description = {"architecture": "Fake"}

    def record(self, windows: np.ndarray, sums: bool) -> ActivationCounts:
        assert sums
        over_zero = np.zeros((1, NEURONS), dtype=np.int64)
        over_zero[0, windows[:, 0]] = 1
        sums = over_zero.astype(np.float64)
        return ActivationCounts(over_zero, sums, -sums, windows.size, hidden_sum=3 * sums)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join("." if token == 11 else " word" for token in ids)

    def sentence_means(self, windows: np.ndarray, sentences: Sequence[Sentence]) -> SentenceMeans:
        first = [float(windows[sentence.window, sentence.start]) for sentence in sentences]
        means = np.array(first, dtype=np.float16)[:, None, None]
        return SentenceMeans(means, np.array([sentence.tokens for sentence in sentences]))


def script(name: str, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script whose engine is the fake one."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load_engine", lambda **options: engine)
    return module


# Windows of each: a quarter, half, and all of the text.
SPLITS: dict[int, tuple[set[int] | None, set[int] | None]] = {
    1: (None, None),
    2: (None, {0}),
    3: ({0}, {0, 2}),
    4: ({0}, {0, 2}),
    5: ({0, 4}, {0, 2, 4}),
    8: ({0, 4}, {0, 2, 4, 6}),
    11: ({0, 4, 8}, {0, 2, 4, 6, 8, 10}),
}


@pytest.mark.parametrize("number", SPLITS)
def test_every_other_window_is_a_half_and_every_fourth_a_quarter(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = np.repeat(np.arange(number, dtype=np.uint32)[:, None], 5, axis=1)
    artifacts.write_tokens(tmp_path / "tokens", TokenWindows(windows, {"language": "de", "split": "train"}))
    record = script("record_activations", FakeEngine(), monkeypatch)
    output = tmp_path / "de.safetensors"
    record.main(["--model", json.dumps(MODEL), "--tokens", str(tmp_path / "tokens"), "--output", str(output)])
    counts, metadata = artifacts.read_activations(output)

    def seen(over_zero: np.ndarray | None) -> set[int] | None:
        return None if over_zero is None else set(np.flatnonzero(over_zero[0]).tolist())

    quarter, half = SPLITS[number]
    assert seen(counts.over_zero) == set(range(number))
    assert (seen(counts.quarter_over_zero), seen(counts.half_over_zero)) == (quarter, half)
    assert counts.tokens == 5 * number
    assert counts.half_tokens == 5 * len(half or ())
    assert counts.quarter_tokens == 5 * len(quarter or ())
    assert counts.activation_sum is not None
    assert counts.activation_sum.sum() == number
    assert counts.product_sum is not None
    assert counts.product_sum.sum() == -number
    assert counts.hidden_sum is not None
    assert counts.hidden_sum.sum() == 3 * number
    assert (metadata["language"], metadata["architecture"], metadata["model"]) == ("de", "Fake", "here")
    assert metadata["text"] == {"language": "de", "split": "train"}


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_add_up_to_the_whole_file(shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, metadata included."""
    windows = np.repeat(np.arange(NEURONS, dtype=np.uint32)[:, None], 5, axis=1)
    artifacts.write_tokens(tmp_path / "tokens", TokenWindows(windows, {"language": "de", "split": "train"}))
    record = script("record_activations", FakeEngine(), monkeypatch)
    common = ["--model", json.dumps(MODEL), "--batch-size", "1", "--tokens", str(tmp_path / "tokens")]
    record.main([*common, "--output", str(tmp_path / "whole")])
    parts = [str(tmp_path / f"shard-{shard}") for shard in range(1, shards + 1)]
    for shard, part in enumerate(parts, 1):
        record.main([*common, "--shard", str(shard), str(shards), "--output", part])
    seen = [set(np.flatnonzero(artifacts.read_activations(part)[0].over_zero[0]).tolist()) for part in parts]
    assert all(seen)
    assert set.union(*seen) == set(range(NEURONS))
    record.main([*common, "--shards", *parts, "--output", str(tmp_path / "joined")])
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


def write_windows(path: Path, language: str, *lengths: int) -> None:
    """One window of sentences of these lengths, whose first token is the length; 11 ends a sentence."""
    tokens = [token for length in lengths for token in [length, *[0] * (length - 2), 11]]
    about = {"language": language, "separator": None}
    artifacts.write_tokens(path, TokenWindows(np.array([tokens], dtype=np.uint32), about))


def test_sentences_of_every_language_go_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_windows(tmp_path / "a", "de", 5, 6, 7, 8)
    write_windows(tmp_path / "b", "en", 5, 9, 10)
    engine = FakeEngine()
    record = script("record_sentences", engine, monkeypatch)
    outputs = [tmp_path / "german", tmp_path / "english"]
    record.main(
        [
            *("--model", json.dumps(MODEL), "--sentences", "2"),
            *("--tokens", str(tmp_path / "a"), str(tmp_path / "b"), "--outputs", *map(str, outputs)),
        ]
    )
    german, about_german = artifacts.read_sentences(outputs[0])
    english, about_english = artifacts.read_sentences(outputs[1])
    # The first sentence of a window may have begun before it.
    assert (german.means[:, 0, 0].tolist(), german.tokens.tolist()) == ([6, 7], [6, 7])
    assert (english.means[:, 0, 0].tolist(), english.tokens.tolist()) == ([9, 10], [9, 10])
    assert (about_german["language"], about_english["language"]) == ("de", "en")


def test_too_few_sentences_name_the_language_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_windows(tmp_path / "a", "de", 5, 6, 7)
    record = script("record_sentences", FakeEngine(), monkeypatch)
    with pytest.raises(CorpusError, match=r"language 'de' holds 2 whole sentences, .* asks for 3\."):
        record.main(
            [
                *("--model", json.dumps(MODEL), "--sentences", "3"),
                *("--tokens", str(tmp_path / "a"), "--outputs", str(tmp_path / "german")),
            ]
        )
    assert not (tmp_path / "german").exists()
