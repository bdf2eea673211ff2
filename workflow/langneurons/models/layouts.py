"""Where each model family keeps its FFN, as data.

To add a family: add an entry to `LAYOUTS` under the name of its class in `transformers`, and its tiny configuration to
`tests/engines/families.py`. The tests then prove the entry: that what is counted is the FFN activation, and that
switching a neuron off equals removing it from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from langneurons.errors import UserError


class UnknownArchitectureError(UserError):
    """A model whose FFN this version does not know."""


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

    @property
    def gated(self) -> bool:
        """Whether activation and product differ."""
        return self.up is not None


_LLAMA = Layout("model.layers", activation="mlp.act_fn", down="mlp.down_proj", up="mlp.up_proj")
_NEOX = Layout("gpt_neox.layers", activation="mlp.act", down="mlp.dense_4h_to_h")

LAYOUTS: dict[str, Layout] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
    "Gemma2ForCausalLM": replace(_LLAMA, attention="eager"),  # sdpa drops attn_logit_softcapping without a word
    "Gemma3ForCausalLM": _LLAMA,
    "Phi3ForCausalLM": Layout(
        "model.layers",
        activation="mlp.activation_fn",
        down="mlp.down_proj",
        up="mlp.gate_up_proj",
        up_is_second_half=True,
    ),
    "PhiForCausalLM": Layout("model.layers", activation="mlp.activation_fn", down="mlp.fc2"),
    "GPT2LMHeadModel": Layout("transformer.h", activation="mlp.act", down="mlp.c_proj"),
    "BloomForCausalLM": Layout("transformer.h", activation="mlp.gelu_impl", down="mlp.dense_4h_to_h"),
    "OPTForCausalLM": Layout("model.decoder.layers", activation="activation_fn", down="fc2"),
    "GPTNeoXForCausalLM": _NEOX,
    "FalconForCausalLM": replace(_NEOX, layers="transformer.h"),
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


def supported_architecture(names: list[str] | None) -> str:
    """The architecture class named by a model's config.json, once it is known to be supported.

    Raises:
        UnknownArchitectureError: none of the names is known, or there is none.
    """
    for name in names or []:
        if name in LAYOUTS:
            return name
    if not names:
        raise UnknownArchitectureError(
            "the model's config.json names no architecture; is it a folder written by save_pretrained?"
        )
    layout_of(names[0])
    return names[0]
