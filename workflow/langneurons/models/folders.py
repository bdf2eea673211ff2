"""Checks of a model's folder that need neither torch nor transformers, so that a dry run makes them too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from langneurons.errors import UserError
from langneurons.models.layouts import supported_architecture

ADAPTER = "adapter_config.json"
"""Beside it, weights are changes to those of another model."""
OLD_BUFFERS = re.compile(r"\.attn\.masked_bias$")
"""Constants that transformers used to save with models and does not need, and that no class of today lists."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tokenizer_config.json")


class ModelError(UserError):
    """A model that cannot be used, with its name and the remedy."""


def foreign_code(model: str, file: str) -> ModelError:
    """What to say of a model, or its tokenizer, that is made by a program beside its weights."""
    return ModelError(
        f"the model '{model}' brings code of its own (the auto_map of its {file}), and code of others is never run "
        "here. Use a copy that transformers reads by itself."
    )


def without_place(unexpected: Iterable[str]) -> list[str]:
    """Weights that transformers left out because the model's config has no place for them, sorted."""
    return sorted(name for name in unexpected if not OLD_BUFFERS.search(name))


def check_no_adapter(model: str, files: Iterable[str]) -> None:
    """Refuse an adapter, such as a LoRA: transformers would load the model below it and leave it out, or need another
    package."""
    if ADAPTER in files:
        raise ModelError(
            f"the model '{model}' holds an adapter ({ADAPTER}), which would be left out. Merge it into its model, and "
            "use that: peft.AutoPeftModelForCausalLM.from_pretrained(…).merge_and_unload().save_pretrained(…)"
        )


def is_hub_id(model: str) -> bool:
    """Whether this names a repository of the hub: no such folder here, and it does not look like a path."""
    return not Path(model).exists() and not model.startswith(("/", ".", "~")) and model.count("/") <= 1


def check_folder(model: str) -> None:
    """Check that a folder holds a supported model and its tokenizer.

    Raises:
        ModelError: no such folder, an incomplete one, or one with an adapter.
        UnknownArchitectureError: a family that is not supported.
    """
    folder = Path(model)
    if not folder.is_dir():
        raise ModelError(f"the model folder '{model}' does not exist. Correct 'path' in the config's models section.")
    check_no_adapter(model, (path.name for path in folder.iterdir()))
    if not (folder / "config.json").exists():
        raise ModelError(f"the model folder '{model}' has no config.json. Save the model into it with save_pretrained.")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ModelError(
            f"the model folder '{model}' has no tokenizer (looked for {', '.join(TOKENIZER_FILES)}). "
            f"Save it there as well: tokenizer.save_pretrained('{model}')."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"the model folder '{model}' has a config.json that is not JSON ({error}).") from None
    supported_architecture(config.get("architectures"))
