"""Generated tokens as text: the same end for every engine."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import transformers

from langneurons.engines.base import Completion


def end_tokens(generation_config: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text: those of the model's generation config, else the tokenizer's."""
    end = generation_config.eos_token_id
    if end is None:
        end = getattr(tokenizer, "eos_token_id", None)
    return [end] if isinstance(end, int) else list(end or [])


def generation_config_of(folder: str, config: Any) -> Any:
    """The generation config of a model's folder; without one, what its config says."""
    try:
        return transformers.GenerationConfig.from_pretrained(folder)
    except OSError:
        return transformers.GenerationConfig.from_model_config(config)


def completion(
    ids: Sequence[int], ends: Sequence[int], stop: tuple[str, ...], decode: Callable[[Sequence[int]], str]
) -> Completion:
    """Cut generated tokens at the end-of-text token, then their text before the first stop string."""
    found = [index for index, token in enumerate(ids) if token in ends]
    kept = ids[: found[0]] if found else ids
    text = decode(kept)
    stops = [position for string in stop if (position := text.find(string)) >= 0]
    if stops:
        return Completion(text[: min(stops)].strip(), _tokens_until_stop(kept, stop, decode), "stop")
    return Completion(text.strip(), len(kept) + bool(found), "stop" if found else "length")


def _tokens_until_stop(ids: Sequence[int], stop: tuple[str, ...], decode: Callable[[Sequence[int]], str]) -> int:
    """Generated tokens up to the one that completed a stop string; what follows is padding."""

    def stopped(length: int) -> bool:
        text = decode(ids[:length])
        return any(string in text for string in stop)

    return 1 + bisect_left(range(1, len(ids)), True, key=stopped)
