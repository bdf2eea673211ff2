"""Loading models and tokenizers, with messages that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from langneurons.models.folders import ModelError, check_folder, is_hub_id
from langneurons.models.layouts import UnknownArchitectureError, layout_of, supported_architecture

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_tokenizer(model: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a folder or hub id, padding on the left.

    Raises:
        ModelError: no such folder, no tokenizer in it, or an unreachable hub id.
    """
    if not is_hub_id(model):
        check_folder(model)
    with _explained(model):
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision, padding_side="left")
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_model(model: str, revision: str | None, dtype: str, gpus: int) -> Any:
    """Load a causal language model for inference.

    Args:
        model: a folder, or a hub id.
        revision: commit or tag of a hub repository.
        dtype: float32, bfloat16 or float16.
        gpus: 0 for the CPU; else the model is placed on the visible GPU.

    Raises:
        ModelError: no such model, or no GPU.
        UnknownArchitectureError: before any weights are loaded.
    """
    if not is_hub_id(model):
        check_folder(model)
    if gpus and not torch.cuda.is_available():
        raise ModelError(
            f"the model '{model}' asks for {gpus} GPU(s), but PyTorch sees none. Set 'gpus: 0' to run on the CPU."
        )
    with _explained(model):
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
    architecture = supported_architecture(config.architectures)
    with _explained(model):
        result: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=getattr(torch, dtype),
            attn_implementation=layout_of(architecture).attention,
            output_loading_info=True,
        )
        loaded, info = result
    if type(loaded).__name__ != architecture:
        raise ModelError(
            f"the model '{model}' was loaded as {type(loaded).__name__}, but its config says {architecture}."
        )
    if info["missing_keys"]:  # transformers fills them with random numbers
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(
            f"the model '{model}' lacks {len(info['missing_keys'])} of its weights: {missing}. "
            "Download or save it again."
        )
    return loaded.to("cuda" if gpus else "cpu").eval()


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn what the hub and the loaders raise into one message."""
    try:
        yield
    except (UnknownArchitectureError, ModelError):
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        remedy = (
            "Check the files in the folder."
            if Path(model).exists()
            else "If it is gated, ask for access on its page and log in with: hf auth login. Without network, "
            "download it elsewhere and use it as a folder: {source: folder, path: …}."
        )
        raise ModelError(f"the model '{model}' cannot be loaded: {reason} {remedy}") from None
