"""Where each model family keeps its FFN, as data.

To add a family: add an entry to `LAYOUTS` under the name of its class in `transformers`, and its tiny configuration to
`tests/engines/families.py`. The tests then prove the entry: that what is counted is the FFN activation, and that switching
a neuron off equals removing it from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from langneurons.errors import UserError


class UnknownArchitecture(UserError):
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
_NEOX = {"activation": "mlp.act", "down": "mlp.dense_4h_to_h"}

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
    "GPTNeoXForCausalLM": Layout("gpt_neox.layers", **_NEOX),
    "FalconForCausalLM": Layout("transformer.h", **_NEOX),
}


def layout_of(architecture: str) -> Layout:
    """The layout of an architecture class.

    Raises:
        UnknownArchitecture: listing the known ones and how to add one.
    """
    try:
        return LAYOUTS[architecture]
    except KeyError:
        raise UnknownArchitecture(
            f"the architecture '{architecture}' is not supported. Known: {', '.join(sorted(LAYOUTS))}. To add one, describe "
            "its FFN in a table entry in workflow/langneurons/models/layouts.py."
        ) from None
