"""Where each model family keeps its FFN, as data.

To add a family: add an entry to `LAYOUTS` under the name of its class in `transformers`, and its tiny configuration to
`tests/engines/families.py`. The tests then prove the entry: that what is counted is the FFN activation, and that
switching a neuron off equals removing it from the weights. Where vLLM has the family, `vllm` says where it keeps the
same, and a configuration in `tests/engines/vllm_models.py` has the engines compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from langneurons.errors import UserError


class UnknownArchitectureError(UserError):
    """A model whose FFN this version does not know."""


@dataclass(frozen=True)
class VllmLayout:
    """Paths of the same modules in vLLM's model of a family. All but `layers` are relative to one layer.

    vLLM computes gate and up in one projection and their activation and product in one kernel, and shares modules of
    activation functions between layers; so both are seen at the projections before and after them.
    """

    layers: str
    """The list of layers, relative to the model with its language-model head."""
    down: str
    """The down projection; its INPUT is the product (in plain FFNs the activation itself)."""
    gate_up: str | None = None
    """Gated FFNs: the projection whose output is gate and up, in this order."""
    function: str = "identity"
    """Gated FFNs: the activation function of the gate, by its name in `langneurons.engines.counting.FUNCTIONS`."""
    replaced: tuple[str, str] | None = None
    """An activation function that vLLM computes otherwise than `transformers`: where it is, and its right name."""


@dataclass(frozen=True)
class Layout:
    """Paths of one family's modules. All but `layers` are relative to one layer."""

    layers: str
    """The list of layers, relative to the model with its language-model head."""
    activation: str
    """The activation function; its OUTPUT is the activation that LAPE counts."""
    down: str
    """The down projection; its INPUT is the product (in plain FFNs the activation itself)."""
    up: str | None = None
    """Gated FFNs: the projection whose output is multiplied with the activation."""
    up_is_second_half: bool = False
    """The projection at `up` computes gate and up together, in this order."""
    attention: str | None = None
    """The attention of `transformers` that computes this family as it was trained, if that is not its default."""
    static_cache: bool = True
    """Whether `transformers` can generate with keys and values in memory of a fixed size. Where positions are biases of
    attention (alibi) it cannot: it fails, in some batches or in all."""
    vllm: VllmLayout | None = None
    """Where vLLM keeps them, if it has the family."""

    @property
    def gated(self) -> bool:
        """Whether activation and product differ."""
        return self.up is not None


_LLAMA = Layout(
    "model.layers",
    activation="mlp.act_fn",
    down="mlp.down_proj",
    up="mlp.up_proj",
    vllm=VllmLayout("model.layers", "mlp.down_proj", gate_up="mlp.gate_up_proj", function="silu"),
)
_GEMMA = replace(
    _LLAMA, vllm=VllmLayout("model.layers", "mlp.down_proj", gate_up="mlp.gate_up_proj", function="gelu_tanh")
)

_WIDE_IN_VLLM = VllmLayout("transformer.h", "mlp.dense_4h_to_h")

LAYOUTS: dict[str, Layout] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
    "Gemma2ForCausalLM": replace(_GEMMA, attention="eager"),  # sdpa drops attn_logit_softcapping without a word
    "Gemma3ForCausalLM": _GEMMA,
    "Phi3ForCausalLM": Layout(
        "model.layers",
        activation="mlp.activation_fn",
        down="mlp.down_proj",
        up="mlp.gate_up_proj",
        up_is_second_half=True,
        vllm=_LLAMA.vllm,
    ),
    "PhiForCausalLM": Layout(
        "model.layers", activation="mlp.activation_fn", down="mlp.fc2", vllm=VllmLayout("model.layers", "mlp.fc2")
    ),
    "GPT2LMHeadModel": Layout(
        "transformer.h",
        activation="mlp.act",
        down="mlp.c_proj",
        vllm=VllmLayout("transformer.h", "mlp.c_proj"),
    ),
    "BloomForCausalLM": Layout(
        "transformer.h",
        activation="mlp.gelu_impl",
        down="mlp.dense_4h_to_h",
        static_cache=False,
        # Bloom was trained with the approximation by tanh; vLLM computes the exact function.
        vllm=replace(_WIDE_IN_VLLM, replaced=("mlp.gelu_impl", "gelu_tanh")),
    ),
    "OPTForCausalLM": Layout(
        "model.decoder.layers",
        activation="activation_fn",
        down="fc2",
        vllm=VllmLayout("model.decoder.layers", "fc2"),
    ),
    "GPTNeoXForCausalLM": Layout(
        "gpt_neox.layers",
        activation="mlp.act",
        down="mlp.dense_4h_to_h",
        vllm=VllmLayout("model.layers", "mlp.dense_4h_to_h"),
    ),
    "FalconForCausalLM": Layout(
        "transformer.h",
        activation="mlp.act",
        down="mlp.dense_4h_to_h",
        static_cache=False,
        vllm=_WIDE_IN_VLLM,
    ),
}


def layout_of(architecture: str) -> Layout:
    """The layout of an architecture class.

    Raises:
        UnknownArchitectureError: listing the known ones and how to add one.
    """
    try:
        return LAYOUTS[architecture]
    except KeyError:
        raise UnknownArchitectureError(
            f"the architecture '{architecture}' is not supported. Known: {', '.join(sorted(LAYOUTS))}. To add "
            f"one, describe "
            "its FFN in a table entry in workflow/langneurons/models/layouts.py."
        ) from None


def vllm_layout_of(names: list[str] | None) -> VllmLayout:
    """Where vLLM keeps the FFN of a model, by the names in its config.json.

    Raises:
        UnknownArchitectureError: a family that is not supported, or not in vLLM.
    """
    name = supported_architecture(names)
    layout = LAYOUTS[name].vllm
    if layout is None:
        known = ", ".join(sorted(name for name, layout in LAYOUTS.items() if layout.vllm))
        raise UnknownArchitectureError(
            f"the architecture '{name}' is not supported with engine: vllm. Known there: {known}. Use engine: hf."
        )
    return layout


def supported_architecture(names: list[str] | str | None) -> str:
    """The architecture class named by a model's config.json, alone or in a list, once it is known to be supported.

    Raises:
        UnknownArchitectureError: none of the names is known, or there is none.
    """
    names = [names] if isinstance(names, str) else names
    for name in names or []:
        if name in LAYOUTS:
            return name
    if not names:
        raise UnknownArchitectureError(
            "the model's config.json names no architecture; is it a folder written by save_pretrained?"
        )
    layout_of(names[0])
    return names[0]
