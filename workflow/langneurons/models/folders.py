"""Checks of a model's folder that need neither torch nor transformers, so that a dry run makes them too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from langneurons.errors import UserError
from langneurons.models.layouts import supported_architecture

ADAPTER = "adapter_config.json"
"""Beside it, weights are changes to those of another model."""
OLD_BUFFERS = re.compile(r"\.attn\.masked_bias$")
"""Constants that transformers used to save with models and does not need, and that no class of today lists."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tokenizer_config.json")


WEIGHT_SUFFIXES = (".safetensors", ".bin", ".model", ".json")
"""Files of a model that git-lfs may keep elsewhere."""
POINTER = b"version https://git-lfs"
"""What such a file then begins with."""


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


def check_folder(model: str) -> None:
    """Check that a folder holds a supported model and its tokenizer.

    Raises:
        ModelError: no such folder, an incomplete one, or one with an adapter.
        UnknownArchitectureError: a family that is not supported.
    """
    folder = Path(model)
    if folder.is_file():
        raise ModelError(
            f"the model '{model}' is a file, but must be a folder that transformers wrote, with config.json, weights "
            "and tokenizer. A single file of weights, such as .gguf, is of another program: get the model as such a "
            "folder, and name that in 'path'."
        )
    if not folder.is_dir():
        raise ModelError(
            f"the model folder '{model}' does not exist. Correct 'path' in the config's models section; a model of the "
            "hub is named in 'id', with source: hub."
        )
    check_no_adapter(model, (path.name for path in folder.iterdir()))
    if not (folder / "config.json").exists():
        raise ModelError(f"the model folder '{model}' has no config.json. Save the model into it with save_pretrained.")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ModelError(
            f"the model folder '{model}' has no tokenizer (looked for {', '.join(TOKENIZER_FILES)}). "
            f"Save it there as well: tokenizer.save_pretrained('{model}')."
        )
    for path in folder.iterdir():
        if path.suffix in WEIGHT_SUFFIXES and _begins_with(path, POINTER):
            raise ModelError(
                f"the model folder '{model}' has a pointer of git-lfs in place of the file {path.name}. Fetch the "
                "files themselves: git lfs pull"
            )
    supported_architecture(read_object(model, folder / "config.json").get("architectures"))


def read_object(model: str, path: Path) -> dict[str, Any]:
    """A JSON object among the files of a model.

    Raises:
        ModelError: it is not JSON, or something else than an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"the model '{model}' has a {path.name} that is not JSON ({error}). Get it again.") from None
    if not isinstance(found, dict):
        raise ModelError(f"the model '{model}' has a {path.name} that is not a JSON object. Get it again.")
    return found


def _begins_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as handle:
        return handle.read(len(start)) == start
