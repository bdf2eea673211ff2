"""What every engine can do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from langneurons.corpus.sentences import Sentence
from langneurons.errors import UserError
from langneurons.interventions import Intervention
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans

NOT_FINITE = "the model's {} are NaN or infinite. Use a wider number format (dtype), or check its weights."
"""What every engine says where numbers that must be finite are not."""


class EngineError(UserError):
    """The engine cannot do what was asked, or found that it did not do it."""


@dataclass(frozen=True)
class Sampling:
    """How text is generated."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative scores of tokens in the prompt or the answer; padding does not count."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    seed: int = 0
    """Only for a temperature above 0. Every prompt has a stream of random numbers of its own (see `streams`)."""


@dataclass(frozen=True)
class Completion:
    """One generated text."""

    text: str
    """Without the prompt and the stop string, stripped of white space at both ends."""
    tokens: int
    """Generated tokens, those of the stop string included."""
    finish_reason: str
    """stop (end-of-text token or stop string) or length."""


@dataclass(frozen=True)
class WindowLoss:
    """Negative log-likelihood of windows."""

    nll_sum: np.ndarray
    """float64 `[window]`, in nats, summed over scored tokens."""
    tokens: np.ndarray
    """int64 `[window]`: scored tokens; the first of a window has no context and is not scored."""


@dataclass(frozen=True)
class EffectProof:
    """What was verified about an intervention on a probe batch, before its first output."""

    edited_neurons: int
    layers: list[dict[str, float]] = field(default_factory=list)
    """Per edited layer: `layer`, and relative to the scale of the single outputs `error` (largest difference between
    the FFN output and its independent computation), `change` (largest difference by the edit), `tolerance`."""
    unedited_layers_equal: bool = True
    """FFN outputs before the first edited layer are bit-equal to the baseline's."""
    logits_change: float = 0.0
    """Largest absolute difference of the logits to the baseline's."""
    note: str = ""


class Engine(Protocol):
    """A loaded model."""

    shape: tuple[int, int]
    """Layers and FFN neurons per layer."""
    width: int
    """Dimensions of the hidden state."""
    description: dict[str, str]
    """Architecture, number format, device and versions, for the metadata of what it measures."""

    def record(self, windows: np.ndarray, sums: bool = True) -> ActivationCounts:
        """Count activations on windows, uint32 `[window, position]`; without `sums` nothing else."""
        ...

    def sentence_means(self, windows: np.ndarray, sentences: Sequence[Sentence]) -> SentenceMeans:
        """Mean activation of every neuron over each sentence of these windows."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        ...

    def perturbed(self, intervention: Intervention) -> AbstractContextManager[None]:
        """Edit the model within the block; it is restored exactly, also after an error."""
        ...

    def token_nll(self, windows: np.ndarray) -> WindowLoss:
        """Score the tokens of windows, uint32 `[window, position]`."""
        ...

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Completion]:
        """Continue prompts."""
        ...

    def verify(self, intervention: Intervention, probe: np.ndarray) -> EffectProof:
        """Prove on probe windows that `perturbed` does what the intervention says.

        Raises:
            EngineError: it does not.
        """
        ...
