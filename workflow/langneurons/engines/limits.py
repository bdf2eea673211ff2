"""What a model can read: the tokens that its embedding has, and as many of them as its context holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langneurons.engines.base import EngineError


@dataclass(frozen=True)
class Limits:
    """The limits of one model, checked before it reads anything: what is beyond them would end in the middle of a
    forward pass, or be read as if nothing were wrong."""

    model: str
    vocabulary: int
    """Rows of the embedding."""
    context: int | None
    """Most tokens at a time; None where the model's config names no limit."""

    @classmethod
    def of(cls, model: str, vocabulary: int, config: Any) -> Limits:
        """The limits of a model with this configuration of `transformers`."""
        text = config.get_text_config()
        return cls(model, vocabulary, getattr(text, "max_position_embeddings", None))

    def check_tokenizer(self, tokenizer: Any, ends: Sequence[int]) -> None:
        """Check the tokens that end an answer. What may be right is only said: a tokenizer with more entries than the
        model, which some models have (text that has such a token is refused), and an ordinary token as an end.

        Raises:
            EngineError: a token that ends answers and that the model does not have.
        """
        self._check_ids(ends, "the tokens that end an answer (generation_config.json, config.json or the tokenizer)")
        for token in ends if tokenizer is not None else ():
            if token not in tokenizer.all_special_ids and token not in tokenizer.added_tokens_decoder:
                print(
                    f"note: the model '{self.model}' ends its answers at the token {token}, which is not a special one "
                    f"but the text {tokenizer.decode([token])!r}: every answer is cut where it writes that. If this is "
                    "wrong, correct eos_token_id in generation_config.json or config.json.",
                    file=sys.stderr,
                )
        entries = 0 if tokenizer is None else len(tokenizer)
        if entries > self.vocabulary:
            print(
                f"note: the tokenizer of the model '{self.model}' has {entries:,} entries, but the model only "
                f"{self.vocabulary:,}. Text with one of the others is refused.",
                file=sys.stderr,
            )

    def check_windows(self, windows: np.ndarray) -> None:
        """Check windows of tokens, `[window, position]`.

        Raises:
            EngineError: a token that the model does not have, or windows longer than its context.
        """
        self._check_ids(windows, "the windows")
        length = windows.shape[1]
        if self.context and length > self.context:
            raise EngineError(
                f"the windows have {length} tokens, but the context of the model '{self.model}' is {self.context}. "
                f"Lower 'corpora.window', or 'window' of the model, to at most {self.context}."
            )

    def check_prompts(self, prompts: Sequence[Sequence[int]], new_tokens: int, names: Sequence[str] = ()) -> None:
        """Check that prompts and their answers fit.

        Args:
            prompts: the tokens of each.
            new_tokens: of the longest answer.
            names: of the prompts, for messages, such as en-021.

        Raises:
            EngineError: a token that the model does not have, or a prompt too long for the context with its answer.
        """
        self._check_ids([token for prompt in prompts for token in prompt], "the prompts")
        longest = max(range(len(prompts)), key=lambda index: len(prompts[index]), default=None)
        if longest is None or not self.context or len(prompts[longest]) + new_tokens <= self.context:
            return
        room = self.context - len(prompts[longest])
        which = f", {names[longest]}," if names else ""
        remedy = (
            f"Lower generation.max_new_tokens to {room} or less."
            if room > 0
            else "Shorten that question, or 'generation.template'."
        )
        raise EngineError(
            f"the longest prompt{which} has {len(prompts[longest])} tokens; with generation.max_new_tokens = "
            f"{new_tokens} it exceeds the context of {self.context} of the model '{self.model}'. {remedy}"
        )

    def _check_ids(self, ids: Any, where: str) -> None:
        highest = int(np.max(ids, initial=0)) if len(ids) else 0
        if highest >= self.vocabulary:
            raise EngineError(
                f"{where} have the token {highest}, but the model '{self.model}' knows only those below "
                f"{self.vocabulary}. Use the tokenizer that belongs to it."
            )
