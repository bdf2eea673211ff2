"""Loading tokenizers, with messages that say what to do. Jobs that only tokenize never wait for torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from langneurons.models.hub import resolve, unloadable

GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names, of different versions, of the class that reads tokenizer.json as it stands."""


def load_tokenizer(model: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a folder or hub id, padding on the left.

    Raises:
        ModelError: no such folder, no tokenizer in it, or a hub id that was not downloaded.
    """
    folder = resolve(model, revision)
    try:
        tokenizer = _class_of(Path(folder)).from_pretrained(folder, padding_side="left")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unloadable(model, error) from None
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _class_of(folder: Path) -> Any:
    """What reads a folder's tokenizer: `AutoTokenizer`, or what that would choose, without the model classes that it
    imports."""
    config = folder / "tokenizer_config.json"
    if (folder / "tokenizer.json").is_file() and config.is_file():
        named = json.loads(config.read_text(encoding="utf-8"))
        if named.get("tokenizer_class") in GENERIC_CLASSES and "auto_map" not in named:
            return transformers.PreTrainedTokenizerFast
    return transformers.AutoTokenizer
