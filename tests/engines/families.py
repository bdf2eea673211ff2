"""Tiny random models of every supported family, and their FFN worked out by hand.

Nothing here uses `langneurons`: names of weights and formulas are written out again, so that a wrong entry in
`langneurons.models.layouts` cannot agree with itself. To add a family, add its configuration to `FAMILIES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from engines.rounding import Computed, gelu_exact, gelu_tanh, relu, silu

VOCABULARY, WIDTH, NEURONS, LAYERS, HEADS, CONTEXT = 200, 32, 80, 3, 4, 128
SEED = 7


@dataclass(frozen=True)
class Family:
    """One family: how to build a tiny model, and where its raw weights are."""

    architecture: str
    config: Callable[[], Any]
    layer: str
    """Prefix of a layer's weights, with {} for its number."""
    into: str
    """The projection into the FFN, relative to the layer; its input is the FFN's input. Gated: that of the gate."""
    down: str
    function: Callable[[torch.Tensor], torch.Tensor]
    up: str | None = None
    """Gated FFNs: the projection that is multiplied with the activation; equal to `into` where both are one matrix."""
    attention: str | None = None
    """The attention that computes the family right, where the default of transformers does not."""
    input_by_output: bool = False
    """Weights are stored as [input, output] (GPT-2)."""

    @property
    def gated(self) -> bool:
        """Whether activation and product differ."""
        return self.up is not None

    def build(self) -> Any:
        """A random model in float32. Weights are large enough that activations have both signs and matter."""
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = transformers.AutoModelForCausalLM.from_config(self.config(), attn_implementation=self.attention)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim >= 2:
                        parameter.normal_(0, 1.5 / math.sqrt(WIDTH))
                    else:  # biases, and the weights of norms around their 0 or 1
                        parameter.add_(0.2 * torch.randn_like(parameter))
        assert type(model).__name__ == self.architecture
        return model.float().eval()

    def module(self, model: Any, layer: int, name: str) -> nn.Module:
        """A module of one layer."""
        found: nn.Module = model.get_submodule(f"{self.layer.format(layer)}.{name}")
        return found

    def weight(self, model: Any, layer: int, name: str) -> torch.Tensor:
        """The raw weight as a float64 matrix [output, input]."""
        raw = model.state_dict()[f"{self.layer.format(layer)}.{name}.weight"].double()
        return raw.T if self.input_by_output else raw

    def bias(self, model: Any, layer: int, name: str) -> torch.Tensor | float:
        """The raw bias in float64, or 0."""
        found = model.state_dict().get(f"{self.layer.format(layer)}.{name}.bias")
        return 0.0 if found is None else found.double()

    def _project(self, model: Any, layer: int, name: str, vector: Computed) -> Computed:
        return vector.projected(self.weight(model, layer, name), self.bias(model, layer, name))

    def before_activation(self, model: Any, layer: int, ffn_input: torch.Tensor) -> Computed:
        """The argument of the activation function, [token, neuron]."""
        return self._project(model, layer, self.into, Computed.given(ffn_input)).part(slice(neurons_of(self)))

    def activation(self, model: Any, layer: int, ffn_input: torch.Tensor) -> Computed:
        """The output of the activation function, [token, neuron]."""
        return self.before_activation(model, layer, ffn_input).through(self.function)

    def times_up(self, model: Any, layer: int, ffn_input: torch.Tensor, activation: Computed) -> Computed:
        """What the down projection reads, [token, neuron]: in gated FFNs the product of the activation with `up`."""
        if self.up is None:
            return activation
        up = self._project(model, layer, self.up, Computed.given(ffn_input)).part(slice(-neurons_of(self), None))
        return activation.times(up)

    def output(self, model: Any, layer: int, product: Computed) -> Computed:
        """The output of the down projection, [token, width]."""
        return self._project(model, layer, self.down, product)

    @contextmanager
    def captured(self, model: Any) -> Iterator[tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]]:
        """Per layer, all FFN inputs and FFN outputs that pass while the block runs, [token, width]."""
        inputs: dict[int, torch.Tensor] = {}
        outputs: dict[int, torch.Tensor] = {}

        def keep(store: dict[int, torch.Tensor], layer: int, value: torch.Tensor) -> None:
            flat = value.detach().flatten(0, -2).clone()
            store[layer] = torch.cat([store[layer], flat]) if layer in store else flat

        hooks = []
        for layer in range(LAYERS):
            hooks += [
                self.module(model, layer, self.into).register_forward_pre_hook(
                    lambda module, args, layer=layer: keep(inputs, layer, args[0])
                ),
                self.module(model, layer, self.down).register_forward_hook(
                    lambda module, args, output, layer=layer: keep(outputs, layer, output)
                ),
            ]
        try:
            yield inputs, outputs
        finally:
            for hook in hooks:
                hook.remove()

    def without_neurons(self, model: Any, layers: np.ndarray, neurons: np.ndarray) -> None:
        """Remove neurons from the weights, in place: zero their columns of the down projection."""
        with torch.no_grad():
            for layer, neuron in zip(layers.tolist(), neurons.tolist(), strict=True):
                raw = self.module(model, layer, self.down).get_parameter("weight")
                (raw[neuron] if self.input_by_output else raw[:, neuron]).zero_()


def neurons_of(family: Family) -> int:
    """FFN width: Bloom has no choice but four times the width."""
    return 4 * WIDTH if family.architecture == "BloomForCausalLM" else NEURONS


_TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_SIZES = {
    **_TOKENS,
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_HEAD = {"head_dim": WIDTH // HEADS}
_GEMMA = {**_GROUPED, **_HEAD, "query_pre_attn_scalar": WIDTH // HEADS, "sliding_window": 16}


def _gated(
    architecture: str, config: Callable[[], Any], function: Callable[[torch.Tensor], torch.Tensor] = silu
) -> Family:
    names = {"into": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    return Family(architecture, config, "model.layers.{}", function=function, **names)


def _opt(before: bool) -> Family:
    config = {key: value for key, value in _SIZES.items() if key != "intermediate_size"}
    return Family(
        "OPTForCausalLM",
        lambda: transformers.OPTConfig(
            **config, ffn_dim=NEURONS, word_embed_proj_dim=WIDTH, do_layer_norm_before=before, dropout=0.0
        ),
        "model.decoder.layers.{}",
        into="fc1",
        down="fc2",
        function=relu,
    )


def _wide(
    architecture: str, layer: str, config: Callable[[], Any], function: Callable[[torch.Tensor], torch.Tensor]
) -> Family:
    return Family(architecture, config, layer, into="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h", function=function)


def _falcon(**variant: Any) -> Family:
    config = {key: value for key, value in _SIZES.items() if key != "intermediate_size"}
    return _wide(
        "FalconForCausalLM",
        "transformer.h.{}",
        lambda: transformers.FalconConfig(**config, ffn_hidden_size=NEURONS, **variant),
        gelu_exact,
    )


FAMILIES: dict[str, Family] = {
    "llama": _gated("LlamaForCausalLM", lambda: transformers.LlamaConfig(**_GROUPED)),
    "llama-with-biases": _gated("LlamaForCausalLM", lambda: transformers.LlamaConfig(**_GROUPED, mlp_bias=True)),
    "mistral": _gated("MistralForCausalLM", lambda: transformers.MistralConfig(**_GROUPED, sliding_window=16)),
    "qwen2": _gated("Qwen2ForCausalLM", lambda: transformers.Qwen2Config(**_GROUPED)),
    "qwen3": _gated("Qwen3ForCausalLM", lambda: transformers.Qwen3Config(**_GROUPED, **_HEAD)),
    # Softcapped at 2, attention differs much from the uncapped that scaled_dot_product_attention computes.
    "gemma2": replace(
        _gated("Gemma2ForCausalLM", lambda: transformers.Gemma2Config(**_GEMMA, attn_logit_softcapping=2.0), gelu_tanh),
        attention="eager",
    ),
    "gemma3": _gated("Gemma3ForCausalLM", lambda: transformers.Gemma3TextConfig(**_GEMMA), gelu_tanh),
    "phi3": Family(
        "Phi3ForCausalLM",
        lambda: transformers.Phi3Config(**_GROUPED),
        "model.layers.{}",
        into="mlp.gate_up_proj",
        up="mlp.gate_up_proj",
        down="mlp.down_proj",
        function=silu,
    ),
    "phi": Family(
        "PhiForCausalLM",
        lambda: transformers.PhiConfig(**_SIZES),
        "model.layers.{}",
        into="mlp.fc1",
        down="mlp.fc2",
        function=gelu_tanh,
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        lambda: transformers.GPT2Config(
            **_TOKENS, n_embd=WIDTH, n_inner=NEURONS, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT
        ),
        "transformer.h.{}",
        into="mlp.c_fc",
        down="mlp.c_proj",
        function=gelu_tanh,
        input_by_output=True,
    ),
    "bloom": _wide(
        "BloomForCausalLM",
        "transformer.h.{}",
        lambda: transformers.BloomConfig(**_TOKENS, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS),
        gelu_tanh,
    ),
    "opt-norm-before": _opt(before=True),
    "opt-norm-after": _opt(before=False),
    "gpt-neox": _wide(
        "GPTNeoXForCausalLM", "gpt_neox.layers.{}", lambda: transformers.GPTNeoXConfig(**_SIZES), gelu_exact
    ),
    "falcon": _falcon(),
    "falcon-with-alibi": _falcon(alibi=True, bias=True, parallel_attn=False, multi_query=False),
    "falcon-new-decoder": _falcon(new_decoder_architecture=True, num_kv_heads=2),
}
KINDS = ["llama", "llama-with-biases", "phi3", "gpt2", "opt-norm-after", "falcon"]
"""One family for each way of keeping an FFN: gated, gated with biases, gate and up in one matrix, transposed weights, a
norm after the FFN, and attention beside it. What does not see the family itself is tested on these."""
