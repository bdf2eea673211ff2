"""Loading tokenizers, with messages that say what to do. Jobs that only tokenize never wait for torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from langneurons.models.folders import ModelError, foreign_code, read_object
from langneurons.models.hub import resolve, unloadable

PROBE = "A text, 文 1."
"""What every tokenizer makes some tokens of."""
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names, of different versions, of the class that reads tokenizer.json as it stands."""


def load_tokenizer(model: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a folder or hub id, padding on the left.

    Raises:
        ModelError: no such folder, no tokenizer in it, one that brings its own code, makes nothing of text or ends
            every text, or a hub id that was not downloaded.
    """
    folder = resolve(model, revision)
    try:
        loader = _class_of(model, Path(folder))
        tokenizer = loader.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unloadable(model, revision, error) from None
    _check_tokens(model, tokenizer)
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def settings_of(model: str, folder: Path) -> dict[str, Any]:
    """What a folder's tokenizer_config.json says; nothing where there is none."""
    path = folder / "tokenizer_config.json"
    return read_object(model, path) if path.is_file() else {}


def _check_tokens(model: str, tokenizer: Any) -> None:
    """Check on a few letters that there is a vocabulary, and that a prompt does not end its text."""
    alone = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if not alone:
        raise ModelError(
            f"the tokenizer of the model '{model}' makes no tokens of text: its folder lacks the vocabulary, such as "
            "tokenizer.json or tokenizer.model. Copy the whole tokenizer there, or save it with save_pretrained."
        )
    end = tokenizer.eos_token_id
    if end is not None and tokenizer(PROBE)["input_ids"][-1] == end != alone[-1]:
        raise ModelError(
            f"the tokenizer of the model '{model}' puts its end token {tokenizer.eos_token} behind every text, so that "
            "an answer would begin a new one. Set add_eos_token to false in tokenizer_config.json; if it is part of "
            "the post_processor in tokenizer.json, remove it there."
        )


def _class_of(model: str, folder: Path) -> Any:
    """What reads a folder's tokenizer: `AutoTokenizer`, or what that would choose, without the model classes that it
    imports."""
    settings = settings_of(model, folder)
    if "auto_map" in settings:  # also where transformers has a class: it need not make the same tokens
        raise foreign_code(model, "tokenizer_config.json")
    generic = settings.get("tokenizer_class") in GENERIC_CLASSES and (folder / "tokenizer.json").is_file()
    return transformers.PreTrainedTokenizerFast if generic else transformers.AutoTokenizer
