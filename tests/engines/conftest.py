"""Two small trained models: text that they write is neither random nor a single repeated token."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import langneurons.demo
from langneurons.demo.training import DemoModel, build_model, train, train_tokenizer
from langneurons.engines.hf import HfEngine

CORPUS = Path(langneurons.demo.__file__).parent / "corpus"
WINDOW, STEPS, BATCH = 64, 100, 16


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    """One, as `HfEngine.load` does, since the number of threads changes how sums are rounded; or what OMP_NUM_THREADS
    says, to see that the tests hold with it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    """A slice of the embedded corpus."""
    return {
        language: [path.read_text(encoding="utf-8") for path in sorted((CORPUS / language).glob("*.txt"))[:30]]
        for language in ("en", "de")
    }


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def trained(request: pytest.FixtureRequest, texts: dict[str, list[str]]) -> HfEngine:
    """A trained engine; a test that changes it restores it.

    In float64: greedy text of two computations that differ in rounding (with padding and cache, without) then only
    differs where two tokens tie within the float32 in which tokens are chosen.
    """
    demo = DemoModel(request.param, 600, 2, 64, 4, 96, 160, STEPS * BATCH * WINDOW, BATCH)
    tokenizer = train_tokenizer([text for one in texts.values() for text in one], demo.vocabulary)
    windows = {}
    for language, one in texts.items():
        ids = np.concatenate([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in one])
        windows[language] = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW).astype(np.uint32)
    torch.manual_seed(0)
    model = build_model(demo, tokenizer)
    train(model, windows, demo, seed=0)
    model.set_attn_implementation("sdpa")  # training's own computes weights in float32, whatever the format
    return HfEngine(model.double(), tokenizer, batch_size=4, generation_batch_size=8)


@pytest.fixture(scope="session")
def windows(trained: HfEngine, texts: dict[str, list[str]]) -> np.ndarray:
    """Windows for the trained model, uint32 [7, 48]."""
    ids = trained.tokenizer("\n".join(texts["de"][:3] + texts["en"][:3]))["input_ids"]
    return np.array(ids[: 7 * 48], dtype=np.uint32).reshape(7, 48)
