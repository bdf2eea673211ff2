"""Whether a model can run on this machine, asked before its weights are loaded, and whether it ran out of memory since.

Nothing here depends on an engine: a model is its name, its number of parameters and its number format.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from langneurons.models.folders import ModelError

MARGIN = 0.05
"""Memory beside the weights that is asked for, as a share of them: buffers and the first small batch. Larger batches
are halved where they do not fit, so that no more has to be known here."""

BFLOAT16_CAPABILITY = (8, 0)
"""The first compute capability of CUDA devices that computes in bfloat16; older ones imitate it slowly, if at all."""

OUT_OF_MEMORY = (
    "not enough memory",  # DefaultCPUAllocator
    "can't allocate memory",  # DefaultCPUAllocator on other systems
    "out of memory",  # CUDA's own calls, outside PyTorch's allocator
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)
"""What a RuntimeError that is none of PyTorch's OutOfMemoryError says where an allocation failed."""


# -- GPUs -------------------------------------------------------------------------------------------------------------


def check_gpus(model: str, gpus: int, dtype: str) -> None:
    """Check that there are as many GPUs as the config asks for, and that they compute in its number format.

    Raises:
        ModelError: too few GPUs, or none that computes in this number format.
    """
    if not gpus:
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < gpus:
        raise ModelError(
            f"the model '{model}' asks for {gpus} GPU(s), but PyTorch sees {seen or 'none'}{_hidden()}. Set 'gpus: "
            f"{seen}' {'or make more of them visible' if seen else 'to run on the CPU'}{_other_build()}."
        )
    for gpu in range(gpus if dtype == "bfloat16" else 0):
        capability = torch.cuda.get_device_capability(gpu)
        if capability < BFLOAT16_CAPABILITY:
            raise ModelError(
                f"the model '{model}' asks for bfloat16, which GPU {gpu} ({torch.cuda.get_device_name(gpu)}, compute "
                f"capability {_version(capability)}) lacks; it takes {_version(BFLOAT16_CAPABILITY)}. Set 'dtype: "
                "float16' or 'dtype: float32'."
            )


def free_gpu_memory(gpus: int) -> list[int]:
    """Bytes that are free on each of the GPUs that a model takes: the first visible ones."""
    return [torch.cuda.mem_get_info(gpu)[0] for gpu in range(gpus)]


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')"


def _other_build() -> str:
    built = torch.backends.cuda.is_built()
    return "" if built else ", or install a build of PyTorch for GPUs (make setup TORCH_INDEX=…)"


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


# -- memory -----------------------------------------------------------------------------------------------------------


def parameter_count(config: Any, attention: str | None = None) -> int:
    """The exact number of parameters of a causal model, without its memory; a weight that is used twice counts once.

    Args:
        config: a configuration of `transformers`.
        attention: of `transformers`; it changes no number, but a family that lacks it is refused.

    Raises:
        ValueError, ImportError: the family lacks this attention, or its package is not installed.
    """
    config = copy.deepcopy(config)  # from_config writes the attention into it
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, trust_remote_code=False
        )
    return sum(parameter.numel() for parameter in model.parameters())


def check_memory(model: str, parameters: int, gpus: int, dtype: str) -> None:
    """Check that the weights, with a margin, fit into what is free on the GPUs asked for, or in the machine.

    Raises:
        ModelError: with what is needed, what is free, and what to change.
    """
    free = sum(free_gpu_memory(gpus)) if gpus else available_memory()
    needed = parameters * getattr(torch, dtype).itemsize * (1 + MARGIN)
    if free is None or needed <= free:
        return
    where = f"the {gpus} GPU(s) that it asks for have {_size(free)} free" if gpus else f"{_size(free)} are available"
    remedies = ["'dtype: bfloat16' or 'dtype: float16'"] if dtype == "float32" else []
    remedies += ["more GPUs ('gpus')", "a machine with more memory"]
    raise ModelError(
        f"the model '{model}' needs {_size(needed)} of memory ({parameters:,} parameters in {dtype}, and {MARGIN:.0%} "
        f"more), but {where}. Use {', '.join(remedies[:-1])} or {remedies[-1]}."
    )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still get, by the system and by the limits of its control groups, as batch systems
    set them; None where neither is known."""
    return min([*_machine_memory(root), *_group_memory(root)], default=None)


def _machine_memory(root: Path) -> Iterator[int]:
    """MemAvailable of Linux: what is free, and what caches give back."""
    available = _numbers(root / "proc" / "meminfo").get("MemAvailable:")
    if available is not None:
        yield available * 1024


def _group_memory(root: Path) -> Iterator[int]:
    """What is left of the limit of each control group above this process, of version 2 or 1."""
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        groups = root / "sys" / "fs" / "cgroup"
        if controllers == "":
            yield from _left(groups, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _left(groups / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _left(top: Path, path: str, limit_name: str, usage_name: str, prefix: str) -> Iterator[int]:
    """Limit minus usage of a group and of those above it. Cached files count as used, but are given back when needed.

    A container sees its own group as the topmost one, whatever its path is called.
    """
    group = top / path.lstrip("/")
    for folder in [group, *group.parents]:
        limit, usage = _text(folder / limit_name).strip(), _text(folder / usage_name).strip()
        if limit.isdigit() and usage.isdigit():  # not "max", and not missing
            cached = _numbers(folder / "memory.stat")
            reclaimable = sum(cached.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            yield max(int(limit) - int(usage) + reclaimable, 0)
        if folder == top:
            break


def _numbers(path: Path) -> dict[str, int]:
    """The first two words of each line, as name and number."""
    rows = [line.split() for line in _text(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    """A file's text; empty where there is none to read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _size(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that an allocation failed, on a GPU or in the machine's memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
