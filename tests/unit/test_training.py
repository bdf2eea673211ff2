"""The training of demo models: balance, schedule, reproducibility."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from langneurons.demo.muon import Muon, orthogonalised
from langneurons.demo.training import (
    FINAL_RATE,
    DemoModel,
    _batches,
    _optimizers,
    _rate,
    build_model,
    train,
    train_tokenizer,
)

DEMO = DemoModel("gpt2", 300, 1, 16, 2, 32, 16, 16 * 4 * 12, 4)
TEXTS = [
    "Ein kleiner Text über Brot und Salz. ",
    "A short text about bread and salt. ",
    "Ekmek ve tuz üzerine bir yazı. ",
] * 40


def test_batches_hold_equal_shares_of_every_language() -> None:
    """Window i of language k is filled with 1000 k + i; an epoch takes as many of each language as the smallest has."""
    windows = {
        name: np.arange(1000 * index, 1000 * index + size, dtype=np.uint32)[:, None].repeat(4, axis=1)
        for index, (name, size) in enumerate({"en": 9, "de": 6, "tr": 7}.items())
    }
    seen = np.concatenate(list(_batches(windows, size=6, steps=3, seed=1)))[:, 0]  # 18 windows: one epoch
    assert np.bincount(seen // 1000).tolist() == [6, 6, 6]
    assert len(set(seen.tolist())) == 18
    again = np.concatenate(list(_batches(windows, size=6, steps=3, seed=1)))[:, 0]
    other = np.concatenate(list(_batches(windows, size=6, steps=3, seed=2)))[:, 0]
    assert (seen == again).all()
    assert (seen != other).any()


def test_learning_rate_schedule() -> None:
    """100 steps: 5 of warm-up to 1, then a cosine that ends at the final share."""
    assert [_rate(step, 100) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert _rate(5, 100) == 1.0
    assert _rate(100, 100) == pytest.approx(FINAL_RATE)
    middle = _rate(5 + 95 // 2, 100)
    assert abs(middle - (1 + FINAL_RATE) / 2) < 0.01  # half-way, up to half a step


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_parameter_is_trained_once(architecture: str) -> None:
    demo = DemoModel(architecture, 300, 2, 16, 2, 32, 16, 64, 4)
    model = build_model(demo, train_tokenizer(TEXTS, 300))
    groups = [group["params"] for optimizer in _optimizers(model) for group in optimizer.param_groups]
    trained = [id(parameter) for group in groups for parameter in group]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(parameter) for parameter in model.parameters()}
    matrices = _optimizers(model)[0].param_groups[0]["params"]
    per_layer = {"llama": 7, "gpt2": 4}[architecture]  # q, k, v, o, gate, up, down; or c_attn, c_proj, c_fc, c_proj
    assert len(matrices) == 2 * per_layer


def test_same_seed_same_weights() -> None:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(TEXTS, 300)
    ids = tokenizer(" ".join(TEXTS))["input_ids"]
    windows = {"xx": np.array(ids[: len(ids) // 16 * 16], dtype=np.uint32).reshape(-1, 16)}
    weights, losses = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = build_model(DEMO, tokenizer)
        losses.append(train(model, windows, DEMO, seed))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert losses[0] == losses[1]
    assert not torch.equal(weights[0], weights[2])
    assert losses[0] < np.log(300)  # below a uniform guess


def test_tokenizer_is_lossless_and_has_one_special_token() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    text = "Çöğüş – naïve 漢字\n\nQ: why?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == 300
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]


# -- Muon --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape: tuple[int, int]) -> None:
    """And all singular values come near 1: between 0.65 and 1.25, where five iterations take those above 0.01."""
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=torch.Generator().manual_seed(0)))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=torch.Generator().manual_seed(1)))
    values = torch.linspace(0.05, 1, min(shape))
    found = left.T @ orthogonalised(left @ torch.diag(values) @ right.T) @ right
    assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-4)
    assert 0.65 < found.diagonal().min() < found.diagonal().max() < 1.25


@pytest.mark.parametrize("shape", [(12, 48), (48, 12)])
def test_muon_steps_as_pytorchs(shape: tuple[int, int]) -> None:
    """Up to the rounding of bfloat16, in which PyTorch's iterates: 2^-8 per operation, of which there are 15."""
    start = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    found = []
    for optimizer in (Muon, torch.optim.Muon):
        parameter = torch.nn.Parameter(start.clone())
        stepper = optimizer([parameter], lr=0.1, momentum=0.9, weight_decay=0.2)
        for step in range(3):
            parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(10 + step))
            stepper.step()
        found.append(parameter.detach() - start)
    ours, theirs = found
    assert (ours - theirs).norm() < 15 * 2**-8 * theirs.norm()
    assert theirs.norm() > 0.5
