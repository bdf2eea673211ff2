"""The part of the vLLM engine that runs inside its workers, one per GPU, and sees the model's modules.

Every method is called on all workers by `LLM.collective_rpc`. With tensor parallelism each worker has an equal slice of
the neurons of every layer, in the order of its rank; hidden states and FFN outputs are whole on each.

A worker class of our own, rather than `worker_extension_cls`, since down projections need a bias before vLLM compiles
the model: an extension comes last in the order of methods and cannot add to `load_model`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import vllm.model_executor.layers.utils as vllm_layers
from torch import nn
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size, get_tp_group
from vllm.model_executor.layers.linear import RowParallelLinear
from vllm.platforms import current_platform

from langneurons.engines.base import EngineError
from langneurons.engines.counting import FUNCTIONS, Accumulator, AllRecorded
from langneurons.engines.folding import added_to_bias, kept_columns, projected_fill, scale_columns
from langneurons.engines.shards import Shard
from langneurons.models.layouts import VllmLayout, vllm_layout_of

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker

Edit = dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""By layer: entries (int64), keep and fill (float64)."""


class NeuronWorker(PlatformWorker):
    """A worker that can record, edit and show the FFNs of its model."""

    def load_model(self, *args: Any, **options: Any) -> None:
        """Load, set activation functions right, and give every down projection a bias: a fill is added there, and
        graphs must know it."""
        if current_platform.is_cpu():  # eager is eager: vLLM compiles some of its own functions all the same
            eager = self.vllm_config.model_config.enforce_eager
            torch.compiler.set_stance("force_eager" if eager else "default")
        with plain_projections():
            super().load_model(*args, **options)
        self.edits = ExitStack()
        self.watching = ExitStack()
        if self.ffn_layout.replaced is not None:
            path, function = self.ffn_layout.replaced
            for block in self.ffn_blocks:
                block.set_submodule(path, Function(function))
        for layer in range(self.ffn_layers):
            down = self._down(layer)
            if getattr(down, "bias", None) is None:
                bias = torch.zeros(down.weight.shape[0], dtype=down.weight.dtype, device=down.weight.device)
                down.bias = nn.Parameter(bias, requires_grad=False)

    # -- where things are ---------------------------------------------------------------------------------------------

    @property
    def ffn_layout(self) -> VllmLayout:
        """Where this family keeps its FFN."""
        return vllm_layout_of(self.vllm_config.model_config.hf_config.architectures)

    @property
    def ffn_blocks(self) -> nn.ModuleList:
        """The layers."""
        blocks = self.get_model().get_submodule(self.ffn_layout.layers)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def ffn_layers(self) -> int:
        """Their number."""
        return len(self.ffn_blocks)

    def _down(self, layer: int) -> Any:
        return self.ffn_blocks[layer].get_submodule(self.ffn_layout.down)

    def _gate_up(self, layer: int) -> nn.Module | None:
        """The projection of gate and up together; None in plain FFNs."""
        path = self.ffn_layout.gate_up
        return None if path is None else self.ffn_blocks[layer].get_submodule(path)

    def _shard(self) -> Shard:
        neurons = self._down(0).weight.shape[1]
        return Shard(get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size(), neurons)

    def is_gated(self) -> bool:
        """Whether activation and product differ."""
        return self.ffn_layout.gate_up is not None

    def ffn_shape(self) -> tuple[int, int, int]:
        """Layers, neurons per layer over all workers, and dimensions of the hidden state."""
        shard = self._shard()
        return self.ffn_layers, shard.size * shard.of, self._down(0).weight.shape[0]

    # -- hooks --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _python(self) -> Iterator[None]:
        """Run the model's Python within the block, instead of its compiled graph, so that hooks are called."""
        compiled: list[Any] = [module for module in self.get_model().modules() if hasattr(module, "do_not_compile")]
        before = [module.do_not_compile for module in compiled]
        for module in compiled:
            module.do_not_compile = True
        try:
            yield
        finally:
            for module, value in zip(compiled, before, strict=True):
                module.do_not_compile = value

    def stop_watching(self) -> None:
        """Remove the hooks of recording and of captures."""
        self.watching.close()

    def _watch(self, layer: int, see: Callable[[torch.Tensor | None, torch.Tensor], None], prepend: bool) -> None:
        """Call `see` with gate and up together (None in plain FFNs) and the product `[token, neuron]`."""
        gates: list[torch.Tensor] = []

        def product(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            see(gates.pop() if gates else None, inputs[0].flatten(0, -2))

        if (gate_up := self._gate_up(layer)) is not None:
            self.watching.callback(gate_up.register_forward_hook(partial(_keep_output, gates)).remove)
        self.watching.callback(self._down(layer).register_forward_pre_hook(product, prepend=prepend).remove)

    # -- recording ----------------------------------------------------------------------------------------------------

    def start_recording(self, sums: bool) -> None:
        """Count from now on, in the model's Python. For counts alone a forward pass ends at the last activation, or
        at its gate."""
        neurons, width = self._shard().size, self._down(0).weight.shape[0]
        self.accumulator = Accumulator((self.ffn_layers, neurons), width, gated=self.is_gated(), sums=sums)
        self.watching.enter_context(self._python())
        if not sums:
            self.watching.enter_context(self._ended_early())
        for layer, block in enumerate(self.ffn_blocks):
            if sums:
                self._watch(layer, partial(self._add, layer), prepend=False)
                self.watching.callback(block.register_forward_hook(partial(self._hidden, layer)).remove)
            elif (gate_up := self._gate_up(layer)) is not None:
                self.watching.callback(gate_up.register_forward_hook(partial(self._count_gated, layer)).remove)
            else:
                self._watch(layer, partial(self._count_plain, layer), prepend=False)

    @contextmanager
    def _ended_early(self) -> Iterator[None]:
        """Take `AllRecorded` for the end of a forward pass; the hidden state that vLLM expects after it is all zero."""
        model = self.get_model()
        whole = model.forward

        def forward(*inputs: Any, **options: Any) -> torch.Tensor:
            try:
                return whole(*inputs, **options)
            except AllRecorded as ended:
                return ended.args[0]

        model.forward = forward
        try:
            yield
        finally:
            del model.forward

    def _add(self, layer: int, gate_up: torch.Tensor | None, product: torch.Tensor) -> None:
        if gate_up is None:
            self.accumulator.add_activation(layer, product)
        else:
            self.accumulator.add_activation(layer, _gate(gate_up), self.ffn_layout.function, product)

    def _count_plain(self, layer: int, gate_up: None, activation: torch.Tensor) -> None:
        self.accumulator.add_activation(layer, activation)
        self._end_after(layer, activation)

    def _count_gated(self, layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        gate = _gate(_first(output))
        self.accumulator.add_activation(layer, gate, self.ffn_layout.function)
        self._end_after(layer, gate)

    def _end_after(self, layer: int, counted: torch.Tensor) -> None:
        if layer == self.ffn_layers - 1:
            raise AllRecorded(counted.new_zeros(len(counted), self._down(layer).weight.shape[0]))

    def _hidden(self, layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        self.accumulator.add_hidden(layer, *(part.flatten(0, -2) for part in hidden_parts(output)))

    def end_batch(self, tokens: int) -> None:
        """Check that exactly these tokens were counted since the last call."""
        self.accumulator.end_batch(tokens)

    def recorded(self) -> dict[str, np.ndarray]:
        """The counts and sums of this worker's neurons; hooks are removed."""
        self.stop_watching()
        return self.accumulator.arrays()

    # -- means over sentences -----------------------------------------------------------------------------------------

    def start_sentences(self, weights: np.ndarray) -> None:
        """Add up activations by weights, float32 `[sentence, row]`, over the rows that the model is about to read."""
        matrix = torch.from_numpy(weights)
        self.sentence_means = torch.zeros(len(weights), self.ffn_layers, self._shard().size)
        self.seen_ids: list[torch.Tensor] = []
        self.watching.enter_context(self._python())
        hook = self.get_model().register_forward_pre_hook(self._ids, with_kwargs=True)
        self.watching.callback(hook.remove)
        for layer in range(self.ffn_layers):
            rows = [0]
            self._watch(layer, partial(self._add_sentences, layer, rows, matrix), prepend=False)

    def _ids(self, module: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        self.seen_ids.append((options["input_ids"] if "input_ids" in options else inputs[0]).cpu().clone())

    def _add_sentences(
        self, layer: int, rows: list[int], weights: torch.Tensor, gate_up: torch.Tensor | None, product: torch.Tensor
    ) -> None:
        activation = product
        if gate_up is not None:
            activation = FUNCTIONS[self.ffn_layout.function](_gate(gate_up))
        part = weights[:, rows[0] : rows[0] + len(activation)].to(activation.device)
        if part.shape[1] != len(activation):
            raise EngineError("vLLM read more tokens than it was sent")
        self.sentence_means[:, layer] += (part @ activation.float()).cpu()
        rows[0] += len(activation)

    def sentences(self) -> tuple[np.ndarray, np.ndarray]:
        """Means, float32 `[sentence, layer, neuron]`, and the token ids that the model read, in order."""
        self.stop_watching()
        return self.sentence_means.numpy(), torch.cat(self.seen_ids).numpy()

    # -- editing ------------------------------------------------------------------------------------------------------

    def fold(self, edit: Edit) -> None:
        """Edit the input of the down projections by their weights."""
        shard = self._shard()
        for layer, (neurons, keep, fill) in edit.items():
            down, (mine, local) = self._down(layer), shard.split(neurons)
            self.edits.enter_context(kept_columns(down.weight, local))
            if fill.any():
                added = projected_fill(down.weight, local, fill[mine]).cpu()
                if shard.of > 1:  # the first worker alone adds its bias
                    torch.distributed.all_reduce(added, group=get_tp_group().cpu_group)
                self.edits.enter_context(added_to_bias(down, added.to(down.weight.device), down.weight.dtype))
            scale_columns(down.weight, local, keep[mine])

    def edit_activation(self, edit: Edit) -> None:
        """Edit the activation of gated FFNs by hooks: the product of edited neurons is computed again."""
        for layer, (neurons, keep, fill) in edit.items():
            mine, local = self._shard().split(neurons)
            down = self._down(layer)
            gates: list[torch.Tensor] = []
            change = partial(
                self._edited_product,
                torch.from_numpy(local).to(down.weight.device),
                torch.from_numpy(keep[mine]).to(down.weight),
                torch.from_numpy(fill[mine]).to(down.weight),
                gates,
            )
            gate_up = self._gate_up(layer)
            assert gate_up is not None
            self.edits.callback(gate_up.register_forward_hook(partial(_keep_output, gates)).remove)
            self.edits.callback(down.register_forward_pre_hook(change).remove)

    def _edited_product(
        self,
        neurons: torch.Tensor,
        keep: torch.Tensor,
        fill: torch.Tensor,
        gates: list[torch.Tensor],
        module: nn.Module,
        inputs: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, ...]:
        gate, up = (half[..., neurons] for half in gates.pop().chunk(2, dim=-1))
        product = inputs[0].clone()
        product[..., neurons] = (FUNCTIONS[self.ffn_layout.function](gate) * keep + fill) * up
        return product, *inputs[1:]

    def shift(self, edit: Edit) -> None:
        """Add to the hidden state after layers, by hooks."""
        for layer, (dimensions, _, fill) in edit.items():
            weight = self._down(layer).weight
            added = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
            added[torch.from_numpy(dimensions)] = torch.from_numpy(fill).to(added)
            hook = partial(_shifted, added)
            self.edits.callback(self.ffn_blocks[layer].register_forward_hook(hook).remove)

    def restore(self) -> None:
        """Undo all edits, bit for bit."""
        self.edits.close()

    # -- the proof of an edit -----------------------------------------------------------------------------------------

    def start_capture(self, layers: list[int]) -> None:
        """Keep FFN vectors of these layers on the next batch, before any edit, and FFN outputs after it."""
        self.captured: dict[int, dict[str, torch.Tensor]] = {layer: {} for layer in layers}
        self.watching.enter_context(self._python())
        for layer in layers:
            self._watch(layer, partial(self._capture, layer), prepend=True)
            hook = partial(self._capture_output, layer)
            self.watching.callback(self._down(layer).register_forward_hook(hook).remove)

    def _capture(self, layer: int, gate_up: torch.Tensor | None, product: torch.Tensor) -> None:
        parts = {"product": product}
        if gate_up is not None:
            gate, up = gate_up.flatten(0, -2).chunk(2, dim=-1)
            parts |= {"activation": FUNCTIONS[self.ffn_layout.function](gate), "up": up}
        self._append(layer, parts)

    def _capture_output(self, layer: int, module: Any, inputs: Any, output: Any) -> None:
        value, apart = output if isinstance(output, tuple) else (output, None)
        if apart is not None:  # the bias is added later, once all workers' parts are
            value = value + apart / self._shard().of
        self._append(layer, {"output": value.flatten(0, -2)})

    def _append(self, layer: int, parts: dict[str, torch.Tensor]) -> None:
        kept = self.captured[layer]
        for name, part in parts.items():
            copy = part.detach().cpu().clone()
            kept[name] = torch.cat([kept[name], copy]) if name in kept else copy

    def capture(self, layer: int) -> tuple[dict[str, torch.Tensor], bool]:
        """What was kept of a layer, `[token, …]`, and whether the output is only this worker's part of the sum; hooks
        stay until `stop_watching`."""
        whole = self._shard().of == 1 or self._down(layer).reduce_results
        return self.captured[layer], not whole

    def down_weight(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The weight of a layer's down projection, `[d_model, neuron]`, of this worker's neurons, and its bias."""
        down = self._down(layer)
        return down.weight.detach().cpu(), down.bias.detach().cpu()

    def start_hidden_capture(self) -> None:
        """Keep the part of the hidden state that shifts are added to: as layers return it before any edit, and as the
        next layer receives it."""
        self.returned: dict[int, torch.Tensor] = {}
        self.received: dict[int, torch.Tensor] = {}
        self.watching.enter_context(self._python())
        last = self.ffn_layers - 1
        for layer, block in enumerate(self.ffn_blocks):
            keep = partial(_keep_hidden, layer, self.returned)
            self.watching.callback(block.register_forward_hook(keep, prepend=True).remove)
            if layer:
                receive = partial(_keep_input, layer - 1, self.received, inspect.signature(block.forward))
                self.watching.callback(block.register_forward_pre_hook(receive, with_kwargs=True).remove)
        keep = partial(_keep_hidden, last, self.received)
        self.watching.callback(self.ffn_blocks[last].register_forward_hook(keep).remove)

    def hidden_capture(self) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """What layers returned and what was received, by layer; hooks are removed."""
        self.stop_watching()
        return self.returned, self.received


class Function(nn.Module):
    """An activation function by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.compute = FUNCTIONS[name]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The function of each value."""
        return self.compute(values)


@contextmanager
def plain_projections() -> Iterator[None]:
    """Keep the weights of row-parallel projections as they are: on CPUs vLLM packs them away into its own kernels,
    where no edit would reach them."""
    packed = vllm_layers.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if isinstance(layer, RowParallelLinear):
            layer.cpu_linear = nn.functional.linear
        else:
            packed(layer, remove_weight)

    vllm_layers.dispatch_cpu_unquantized_gemm = dispatch
    try:
        yield
    finally:
        vllm_layers.dispatch_cpu_unquantized_gemm = packed


def hidden_parts(output: Any) -> tuple[torch.Tensor, ...]:
    """What a layer returned of the hidden state: the state, or the FFN's output and the residual that is yet to add."""
    return tuple(part for part in output if part is not None) if isinstance(output, tuple) else (output,)


def _shifted(added: torch.Tensor, module: nn.Module, inputs: Any, output: Any) -> Any:
    return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added


def _first(output: Any) -> torch.Tensor:
    """The output of a projection, which may have its bias apart."""
    return output[0] if isinstance(output, tuple) else output


def _gate(gate_up: torch.Tensor) -> torch.Tensor:
    """Gates `[token, neuron]` of gate and up together."""
    return gate_up.flatten(0, -2).chunk(2, dim=-1)[0]


def _keep_output(store: list[torch.Tensor], module: nn.Module, inputs: Any, output: Any) -> None:
    store.append(_first(output))


def _keep_hidden(layer: int, store: dict[int, torch.Tensor], module: nn.Module, inputs: Any, output: Any) -> None:
    store[layer] = hidden_parts(output)[0].detach().cpu().clone()


def _keep_input(
    layer: int,
    store: dict[int, torch.Tensor],
    signature: inspect.Signature,
    module: nn.Module,
    inputs: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    store[layer] = signature.bind(*inputs, **options).arguments["hidden_states"].detach().cpu().clone()
