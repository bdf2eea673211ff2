"""What is said before weights are loaded that cannot run here, and what counts as running out of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engines.families import FAMILIES
from langneurons.models import devices
from langneurons.models.devices import (
    available_memory,
    check_gpus,
    check_memory,
    is_out_of_memory,
    parameter_count,
)
from langneurons.models.folders import ModelError

GIB = 2**30


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two GPUs as PyTorch describes them; a test changes the list."""
    found: list[dict[str, Any]] = [
        {"name": "NVIDIA A100", "capability": (8, 0), "free": 40 * GIB},
        {"name": "NVIDIA H100", "capability": (9, 0), "free": 10 * GIB},
    ]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(found))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: found[gpu]["name"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: found[gpu]["capability"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (found[gpu]["free"], 80 * GIB))
    return found


def message(function: Any, *arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        function(*arguments)
    return str(caught.value)


# -- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_enough_gpus(gpus: list[dict[str, Any]], number: int, dtype: str) -> None:
    check_gpus("mine", number, dtype)


def test_the_cpu_is_asked_nothing(gpus: list[dict[str, Any]]) -> None:
    gpus.clear()
    check_gpus("mine", 0, "bfloat16")


def test_no_gpu(gpus: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.clear()
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert message(check_gpus, "mine", 1, "float32") == (
        "the model 'mine' asks for 1 GPU(s), but PyTorch sees none. Set 'gpus: 0' to run on the CPU."
    )
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert message(check_gpus, "mine", 1, "float32").endswith(
        "Set 'gpus: 0' to run on the CPU, or install a build of PyTorch for GPUs (make setup TORCH_INDEX=…)."
    )


def test_fewer_gpus_than_asked_for(gpus: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert message(check_gpus, "mine", 4, "float32") == (
        "the model 'mine' asks for 4 GPU(s), but PyTorch sees 2 (CUDA_VISIBLE_DEVICES is '0,3'). Set 'gpus: 2' or make "
        "more of them visible."
    )


def test_a_gpu_without_bfloat16(gpus: list[dict[str, Any]]) -> None:
    """A T4 beside an A100: only a model that would run on it too is refused."""
    gpus[1] |= {"name": "Tesla T4", "capability": (7, 5)}
    check_gpus("mine", 1, "bfloat16")
    check_gpus("mine", 2, "float16")
    check_gpus("mine", 2, "float32")
    assert message(check_gpus, "mine", 2, "bfloat16") == (
        "the model 'mine' asks for bfloat16, which GPU 1 (Tesla T4, compute capability 7.5) lacks; it takes 8.0. Set "
        "'dtype: float16' or 'dtype: float32'."
    )


# -- the number of parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_of_every_family(name: str) -> None:
    """Of real models; GPT-2, BLOOM, Falcon and others use the embedding twice."""
    family = FAMILIES[name]
    assert parameter_count(family.config()) == sum(weight.numel() for weight in family.build().parameters())


LLAMA = {"vocab_size": 32000, "intermediate_size": 11008}


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (transformers.LlamaConfig(**LLAMA), 6_738_415_616),
        (
            transformers.LlamaConfig(
                vocab_size=32000,
                hidden_size=8192,
                intermediate_size=28672,
                num_hidden_layers=80,
                num_attention_heads=64,
                num_key_value_heads=8,
            ),
            68_976_648_192,
        ),
        (transformers.GPT2Config(), 124_439_808),
    ],
    ids=["Llama 2 7B", "Llama 2 70B", "GPT-2"],
)
def test_published_numbers_of_parameters(config: Any, published: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that the models' authors report; no weights are made, so that it takes neither time nor memory."""
    register, devices = torch.nn.Module.register_parameter, set()

    def noted(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        devices.update([] if parameter is None else [parameter.device.type])
        register(module, name, parameter)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", noted)
    assert parameter_count(config) == published
    assert devices == {"meta"}


def test_counting_leaves_the_config_as_it_was() -> None:
    config = FAMILIES["gemma2"].config()
    before = config.to_dict()
    parameter_count(config, "eager")
    assert config.to_dict() == before
    assert config._attn_implementation is None


def test_an_attention_that_the_machine_lacks_is_an_error() -> None:
    with pytest.raises((ImportError, ValueError), match="FlashAttention2"):
        parameter_count(FAMILIES["llama"].config(), "flash_attention_2")


# -- memory -----------------------------------------------------------------------------------------------------------

# 7B parameters in two bytes are 13.04 GiB, with the margin of 5% 13.69.
SEVEN = 7_000_000_000


@pytest.mark.parametrize(
    ("free", "number", "dtype", "enough"),
    [
        ([13.7], 1, "bfloat16", True),
        ([13.6], 1, "bfloat16", False),
        ([13.6, 0.2], 1, "float16", False),  # one GPU is asked for, the second is not its own
        ([13.6, 0.2], 2, "float16", True),
        ([13.7, 13.6], 2, "float32", False),
        ([13.7, 13.7], 2, "float32", True),
    ],
)
def test_memory_of_gpus(gpus: list[dict[str, Any]], free: list[float], number: int, dtype: str, enough: bool) -> None:
    for gpu, size in zip(gpus, free, strict=False):
        gpu["free"] = int(size * GIB)
    if enough:
        check_memory("mine", SEVEN, number, dtype)
    else:
        assert "GiB of memory" in message(check_memory, "mine", SEVEN, number, dtype)


def test_message_about_the_memory_of_gpus(gpus: list[dict[str, Any]]) -> None:
    assert message(check_memory, "mine", 68_976_648_192, 2, "bfloat16") == (
        "the model 'mine' needs 134.9 GiB of memory (68,976,648,192 parameters in bfloat16, and 5% more), but the 2 "
        "GPU(s) that it asks for have 50.0 GiB free. Use more GPUs ('gpus') or a machine with more memory."
    )


def test_message_about_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_memory", lambda: 16 * GIB)
    check_memory("mine", SEVEN, 0, "float16")
    assert message(check_memory, "mine", SEVEN, 0, "float32") == (
        "the model 'mine' needs 27.4 GiB of memory (7,000,000,000 parameters in float32, and 5% more), but 16.0 GiB "
        "are available. Use 'dtype: bfloat16' or 'dtype: float16', more GPUs ('gpus') or a machine with more memory."
    )


def test_where_nothing_is_known_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_memory(tmp_path) is None
    monkeypatch.setattr(devices, "available_memory", lambda: None)
    check_memory("mine", 10**15, 0, "float32")


def test_this_machine_has_some_memory() -> None:
    available = available_memory()
    assert available is not None
    assert 100 * 2**20 < available < 2**50


def write(root: Path, **files: str) -> Path:
    """Files by their path, in which __ stands for / and _ for itself."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = (
    "MemTotal:       65536000 kB\nMemFree:         1024000 kB\nMemAvailable:   32768000 kB\nHugePages_Total:       0\n"
)
MACHINE = 32768000 * 1024


def test_available_memory_of_a_machine(tmp_path: Path) -> None:
    assert available_memory(write(tmp_path, proc__meminfo=MEMINFO)) == MACHINE


def group(root: Path, folder: str, limit: str, usage: int, version: int = 2) -> None:
    """A control group with 3 MiB of cached files."""
    names = {2: ("memory.max", "memory.current", ""), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")}
    limit_name, usage_name, prefix = names[version]
    path = root / "sys" / "fs" / "cgroup" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / limit_name).write_text(f"{limit}\n")
    (path / usage_name).write_text(f"{usage}\n")
    (path / "memory.stat").write_text(
        f"anon 5\nfile 7\n{prefix}inactive_file {2**20}\n{prefix}active_file {2 * 2**20}\nhierarchical 12\n"
    )


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    """As SLURM sets them: at the job, above the step in which the process runs."""
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/slurm/job_7/step_0\n")
    group(tmp_path, "slurm/job_7/step_0", "max", 2 * GIB)
    assert available_memory(tmp_path) == MACHINE
    group(tmp_path, "slurm/job_7", str(8 * GIB), 3 * GIB)
    assert available_memory(tmp_path) == 5 * GIB + 3 * 2**20
    group(tmp_path, "slurm", str(100 * GIB), 50 * GIB)
    assert available_memory(tmp_path) == 5 * GIB + 3 * 2**20
    group(tmp_path, "slurm/job_7/step_0", str(4 * GIB), 5 * GIB)
    assert available_memory(tmp_path) == 0


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    """Unlimited is a very large number there."""
    groups = "12:cpu,cpuacct:/slurm/job_7\n4:memory,hugetlb:/slurm/job_7\n1:name=systemd:/x\n0::/\n"
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup=groups)
    group(tmp_path, "memory/slurm/job_7", "9223372036854771712", 2 * GIB, version=1)
    assert available_memory(tmp_path) == MACHINE
    group(tmp_path, "memory/slurm/job_7", str(6 * GIB), 2 * GIB, version=1)
    assert available_memory(tmp_path) == 4 * GIB + 3 * 2**20


@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../../elsewhere"])
def test_a_container_sees_its_group_as_the_topmost(tmp_path: Path, path: str) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup=f"0::{path}\n")
    group(tmp_path, "", str(2 * GIB), GIB)
    assert available_memory(tmp_path) == GIB + 3 * 2**20


def test_a_limit_without_the_systems_own_number(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/\n")
    group(tmp_path, "", str(2 * GIB), GIB)
    assert available_memory(tmp_path) == GIB + 3 * 2**20


# -- out of memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("Unable to allocate 8.00 PiB for an array"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
    ids=str,
)
def test_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_a_real_failure_to_allocate_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**52)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("out of memory"),
        ModelError("the model ran out of memory"),
    ],
    ids=str,
)
def test_other_errors_are_not_about_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
