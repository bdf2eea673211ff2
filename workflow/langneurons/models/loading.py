"""Loading models, with messages that say what to do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from langneurons.models.devices import (
    MARGIN,
    check_gpus,
    check_memory,
    free_gpu_memory,
    is_out_of_memory,
    parameter_count,
)
from langneurons.models.folders import ModelError, without_place
from langneurons.models.hub import resolve, unloadable
from langneurons.models.layouts import UnknownArchitectureError, layout_of, supported_architecture

UNLOADABLE = (
    *(OSError, ValueError, RuntimeError, KeyError, TypeError, MemoryError, SafetensorError, pickle.UnpicklingError),
    *(ImportError, AttributeError),  # of the package of a quantization that is not installed, or is another version
)
"""What loaders raise where files are not as they should be."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_model(model: str, revision: str | None, dtype: str, gpus: int, attention: str | None = None) -> Any:
    """Load a causal language model for inference.

    Args:
        model: a folder, or a hub id.
        revision: commit, tag or branch of a hub id; None for a folder.
        dtype: float32, bfloat16 or float16.
        gpus: 0 for the CPU; else the model is placed on the first visible GPUs, several layers on each of them.
        attention: sdpa, eager or flash_attention_2; None is the family's own, or that of `transformers`.

    Raises:
        ModelError: no such folder or download, too few GPUs, too little memory, or an attention that it cannot run
            with.
        UnknownArchitectureError: before any weights are loaded.
    """
    folder, config = check_model(model, revision, dtype, gpus)
    architecture = supported_architecture(config.architectures)
    required = layout_of(architecture).attention
    if attention is not None:
        _check_attention(model, config, attention, required, dtype, gpus)
    with _explained(model, revision):
        result: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation=attention or required,
            output_loading_info=True,
            trust_remote_code=False,
            **_placement(gpus),
        )
        loaded, info = result
    _check_loaded(model, loaded, info, architecture)
    _check_placement(model, loaded, gpus)
    return loaded.eval()


def check_model(model: str, revision: str | None, dtype: str, gpus: int) -> tuple[str, Any]:
    """Check that a model can run here, before its weights are loaded.

    Returns:
        Its folder and its configuration.

    Raises:
        ModelError: no such folder or download, too few GPUs, a number format that they lack, or too little memory.
        UnknownArchitectureError: a family that is not supported.
    """
    folder = resolve(model, revision)
    check_gpus(model, gpus, dtype)
    with _explained(model, revision):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    supported_architecture(config.architectures)
    _check_size(model, revision, config, gpus, dtype)
    return folder, config


def check_weights(model: str, revision: str | None, folder: str, config: Any) -> None:
    """Check by their names that a folder holds all weights of a model, and no others; no weight is loaded.

    For engines whose own loader leaves weights out without a word, or leaves memory as it was where they are missing.

    Raises:
        ModelError: some are missing, or have no place in the model.
    """
    if getattr(config, "quantization_config", None) is not None:
        return  # other names and shapes, which its loader knows
    with _explained(model, revision):
        result: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, device_map="meta", output_loading_info=True, trust_remote_code=False
        )
        named, info = result
    _check_loaded(model, named, info, supported_architecture(config.architectures))


def _check_size(model: str, revision: str | None, config: Any, gpus: int, dtype: str) -> None:
    """Check that the weights fit into the memory."""
    if getattr(config, "quantization_config", None) is not None:
        return  # its weights are smaller than their number format says
    with _explained(model, revision):
        parameters = parameter_count(config)
    check_memory(model, parameters, gpus, dtype)


def _check_loaded(model: str, loaded: Any, info: dict[str, Any], architecture: str) -> None:
    """Check that all of the model was loaded, and as what its config says it is."""
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
    if left_out := without_place(
        info["unexpected_keys"]
    ):  # transformers leaves them out in silence, and gives other numbers
        raise ModelError(
            f"the model '{model}' has {len(left_out)} weights that its config.json has no place for: "
            f"{', '.join(left_out[:3])}. Without them it would be another model. Correct config.json (the number of "
            "layers, biases, quantization), or save the model again with save_pretrained."
        )


def _placement(gpus: int) -> dict[str, Any]:
    """Where `from_pretrained` puts the weights: into the memory of the machine, or at once onto GPUs."""
    if gpus < 2:
        return {"device_map": {"": 0}} if gpus else {}
    free = {gpu: int(size / (1 + MARGIN)) for gpu, size in enumerate(free_gpu_memory(gpus))}
    return {"device_map": "auto", "max_memory": free}


def _check_placement(model: str, loaded: Any, gpus: int) -> None:
    """Check that all weights are on GPUs: what does not fit would be read from the disk in every batch."""
    placed = getattr(loaded, "hf_device_map", {}) if gpus else {}
    elsewhere = [name for name, device in placed.items() if str(device) in ("cpu", "disk")]
    if elsewhere:
        raise ModelError(
            f"the model '{model}' cannot be spread over {gpus} GPU(s): there is no room for {len(elsewhere)} of its "
            f"{len(placed)} parts, such as {elsewhere[0]}. Use more GPUs ('gpus') or a narrower number format "
            "('dtype')."
        )


def _check_attention(model: str, config: Any, attention: str, required: str | None, dtype: str, gpus: int) -> None:
    """Check that a model runs with the attention that the config asks for.

    Raises:
        ModelError: the family is wrong with it, lacks it, or the machine does.
    """
    if required is not None and attention != required:
        reason = f"its family is computed as it was trained with {required} only"
    elif attention == "flash_attention_2" and (not gpus or dtype == "float32"):
        reason = "that runs on GPUs in bfloat16 or float16 only"
    else:
        try:
            parameter_count(config, attention)
            return
        except (ImportError, ValueError) as error:  # of an attention that transformers cannot run here
            reason = " ".join(str(error).split())[:300].rstrip(".")
    raise ModelError(
        f"the model '{model}' cannot run with 'attention: {attention}': {reason}. Leave the key 'attention' out, or "
        "choose another."
    )


@contextmanager
def _explained(model: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub and the loaders raise into one message."""
    try:
        yield
    except (UnknownArchitectureError, ModelError):
        raise
    except UNLOADABLE as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"the model '{model}' ran out of memory while it was loaded. Use a narrower number format ('dtype'), "
                "more GPUs ('gpus') or a machine with more memory."
            ) from None
        raise unloadable(model, revision, error) from None
