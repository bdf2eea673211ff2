"""Two GPUs that are pretended: their tensors are on the CPU, but say that they are elsewhere and refuse to mix.

Run as a script (`python -m engines.pretended`), since it changes torch for the whole process, it spreads tiny models of
all families over the two with accelerate, as transformers does with `device_map="auto"`, and asserts that the engine
computes the same bits as on one device. What real GPUs would refuse, this refuses: an operation on tensors of two
devices, or of one and the CPU.
"""

from __future__ import annotations

import sys
from typing import Any

import accelerate
import numpy as np
import tokenizers
import torch
import transformers
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from engines.families import FAMILIES, LAYERS, VOCABULARY, Family
from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import Sampling
from langneurons.engines.hf import HfEngine
from langneurons.interventions import Intervention, affine, deactivate

GPU = "pretended"
COPIES = ("aten::_to_copy", "aten::copy_", "aten::to")


class Pretended(torch.Tensor):
    """A tensor on the CPU that says it is on another device."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor, device: torch.device) -> Any:
        layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        with torch.inference_mode(False):  # what is wrapped in inference mode cannot be changed in place
            made = torch.Tensor._make_wrapper_subclass(cls, raw.size(), device=device, **layout)
        made.raw = raw
        return made

    def data_ptr(self) -> int:
        """By which accelerate recognises weights that are used twice."""
        return self.raw.data_ptr()

    def tolist(self) -> Any:
        """Refused for subclasses of tensors."""
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Devices(TorchDispatchMode):
    """Lets tensors be made on the pretended GPUs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute on the CPU what is asked of one device; the result is on that, or on the one that is asked for."""
    leaves = pytree.tree_leaves((args, kwargs))
    wrapped = [leaf for leaf in leaves if isinstance(leaf, Pretended)]
    devices = {leaf.device for leaf in wrapped}
    # As on GPUs, single numbers may come from the CPU.
    on_cpu = [leaf for leaf in leaves if type(leaf) in (torch.Tensor, nn.Parameter) and leaf.ndim]
    name, copies = func._schema.name, func._schema.name in COPIES
    if not copies and (len(devices) > 1 or (devices and on_cpu)):
        raise RuntimeError(f"{name} mixes {sorted(map(str, devices))} and {len(on_cpu)} tensors of the CPU")
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    target = next(iter(devices), torch.device("cpu"))
    if name == "aten::copy_":
        target = args[0].device
    elif named.get("device") is not None:
        target = torch.device(named["device"])
    inputs = {id(leaf.raw): leaf for leaf in wrapped}
    raw_args, raw_kwargs = pytree.tree_map(_unwrapped, (args, kwargs))

    def result(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        same = inputs.get(id(value))
        if same is not None and same.device == target:
            return same  # changed in place
        value = value.clone() if copies and (same is not None or id(value) in map(id, on_cpu)) else value
        return value if target.type == "cpu" else Pretended(value, target)

    return pytree.tree_map(result, func(*raw_args, **raw_kwargs))


def _unwrapped(value: Any) -> Any:
    if isinstance(value, Pretended):
        return value.raw
    return torch.device("cpu") if isinstance(value, torch.device) else value


def register() -> Any:
    """Tell torch of the device, and how memory is had there; what is returned must be kept."""
    _setup_privateuseone_for_python_backend(GPU)
    library = torch.library.Library("aten", "IMPL")

    def empty(size: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> torch.Tensor:
        return Pretended(torch.empty(size, dtype=dtype), device)

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> torch.Tensor:
        return Pretended(torch.empty_strided(size, stride, dtype=dtype), device)

    def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        _unwrapped(target).copy_(_unwrapped(source))
        return target

    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    return library


def spread(model: Any, family: Family) -> None:
    """Put the first layers on one GPU and the others on the second, by the map that accelerate makes for them."""
    sizes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    devices: dict[str, torch.device] = {}
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):  # the first one for which the layers do not all end up together
        limits = {0: int(share * sizes), 1: 2 * sizes}
        found = accelerate.infer_auto_device_map(model, limits, model._no_split_modules, clean_result=False)
        devices = {name: torch.device(GPU, number) for name, number in found.items()}
        if len({devices.get(family.layer.format(layer)) for layer in range(LAYERS)}) == 2:
            break
    moved: dict[int, nn.Parameter] = {}
    for name, device in devices.items():
        place(model.get_submodule(name), device, moved)
    accelerate.dispatch_model(model, devices, torch.device(GPU, 0), skip_keys=model._skip_keys_device_placement)


def place(module: nn.Module, device: torch.device, moved: dict[int, nn.Parameter]) -> None:
    """Move a module; weights that are used twice are moved once."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and not isinstance(weight, Pretended):
                if id(weight) not in moved:
                    moved[id(weight)] = nn.Parameter(Pretended(weight.detach(), device), requires_grad=False)
                part._parameters[name] = moved[id(weight)]
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, Pretended):
                part._buffers[name] = Pretended(buffer, device)


# -- what is compared -------------------------------------------------------------------------------------------------

WINDOWS = np.random.default_rng(0).integers(0, VOCABULARY, (3, 10)).astype(np.uint32)
SENTENCES = [Sentence(window, 2, 9) for window in (0, 2)]
PROMPTS = ["t5", "t17 t4 t9 t3", "t8 t6 t2 t1"]  # the first two are a batch with padding, the third is one without
NEURONS = np.tile(np.arange(20), LAYERS)
LAYER = np.repeat(np.arange(LAYERS), 20)


def interventions() -> dict[str, Intervention]:
    """Every kind of edit, in all layers."""
    fill = np.random.default_rng(1).normal(size=LAYERS * 20)
    found = {f"off-{site}": deactivate(LAYER, NEURONS, site) for site in ("activation", "product")}
    for site in ("activation", "product", "residual"):
        found[f"set-{site}"] = affine(LAYER, NEURONS, 0.0, fill, site)
    return found


def results(engine: HfEngine) -> dict[str, Any]:
    """All that an engine measures, by name, as arrays and texts."""
    counts = engine.record(WINDOWS)
    found: dict[str, Any] = {
        name: getattr(counts, name) for name in ("over_zero", "activation_sum", "product_sum", "hidden_sum")
    }
    found["sentences"] = engine.sentence_means(WINDOWS, SENTENCES).means
    found["nll"] = engine.token_nll(WINDOWS).nll_sum
    found["answers"] = engine.generate(PROMPTS, Sampling(3, repetition_penalty=1.3))
    for name, intervention in interventions().items():
        found[f"proof of {name}"] = engine.verify(intervention, WINDOWS)
        with engine.perturbed(intervention):
            found[f"nll of {name}"] = engine.token_nll(WINDOWS).nll_sum
            found[f"answers of {name}"] = engine.generate(PROMPTS[:2], Sampling(2))
    return found


def tokenizer() -> Any:
    """The words t0 to t199."""
    words = {f"t{token}": token for token in range(VOCABULARY)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="t0", pad_token="t0", padding_side="left"
    )


def compare(name: str, on_cpu: HfEngine, on_one: Any, on_two: Any) -> None:
    """Compare a model on two devices with the same on one bit for bit, and that with the CPU to rounding."""
    with Devices():
        place(on_one, torch.device(GPU, 0), {})
        expected = results(HfEngine(on_one, tokenizer(), 2, 2))
        spread(on_two, FAMILIES[name])
        engine = HfEngine(on_two, tokenizer(), 2, 2)
        devices = [str(next(layer.parameters()).device) for layer in engine.layers]
        assert sorted(set(devices)) == [f"{GPU}:0", f"{GPU}:1"], devices
        assert engine.device == torch.device(GPU, 0)
        found = results(engine)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        equal = np.array_equal(found[key], value) if isinstance(value, np.ndarray) else found[key] == value
        assert equal, f"{name}: {key} differs on two devices"
    # Attention may run another kernel there; nine tokens of a random model differ by far more where it is wrong.
    np.testing.assert_allclose(expected["nll"], on_cpu.token_nll(WINDOWS).nll_sum, rtol=1e-4)
    print(f"{name}: {len(expected)} results are equal on {devices}")


def main() -> None:
    """Compare all families, or those named on the command line."""
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(FAMILIES)
    engines = {name: HfEngine(FAMILIES[name].build(), tokenizer(), 2, 2) for name in names}
    # Made before torch knows of the device, for which it would want random numbers.
    models = {name: (FAMILIES[name].build(), FAMILIES[name].build()) for name in names}
    library = register()
    for name in names:
        compare(name, engines[name], *models[name])
    del library


if __name__ == "__main__":
    main()
