"""Sizes of models, and what a forward pass takes, by their configuration. Standard library only.

A forward pass takes 2 N + 2 layers context width FLOPs per token (Kaplan et al. 2020, section 2.1): two per weight of
the blocks, N, and what attention adds, which looks back over half a window on average. The language-model head, which
recording leaves out, adds 2 width vocabulary.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from langneurons.errors import ConfigError
from langneurons.models.layouts import LAYOUTS, supported_architecture
from langneurons.variants import Mapping

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of a number, by its format."""


@dataclass(frozen=True)
class Size:
    """The size of a model."""

    layers: int
    width: int
    neurons: int
    """Per layer."""
    vocabulary: int
    gated: bool = False
    tied: bool = True
    """Embedding and language-model head are the same weights."""
    heads_width: int | None = None
    """Width of all heads of attention together, where it is not the model's."""
    key_value_width: int | None = None
    """The same of keys and values, where these have fewer heads."""

    def block_weights(self) -> int:
        """Weights of all blocks, without biases and norms."""
        heads = self.heads_width or self.width
        attention = 2 * self.width * (heads + (self.key_value_width or heads))
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.neurons)

    def weights(self) -> int:
        """All weights, without biases, norms and positions."""
        return self.block_weights() + (1 if self.tied else 2) * self.vocabulary * self.width

    def forward(self, context: int, head: bool) -> int:
        """FLOPs per token of reading a window of `context` tokens."""
        attention = 2 * self.layers * context * (self.heads_width or self.width)
        return 2 * self.block_weights() + attention + (2 * self.width * self.vocabulary if head else 0)


SIZES = {
    "meta-llama/Llama-2-7b-hf": Size(32, 4096, 11008, 32000, gated=True, tied=False),
    "meta-llama/Llama-2-13b-hf": Size(40, 5120, 13824, 32000, gated=True, tied=False),
    "meta-llama/Llama-2-70b-hf": Size(80, 8192, 28672, 32000, gated=True, tied=False, key_value_width=1024),
    "mistralai/Mistral-7B-v0.1": Size(32, 4096, 14336, 32000, gated=True, tied=False, key_value_width=1024),
    "bigscience/bloom-7b1": Size(30, 4096, 16384, 250880),
    "facebook/opt-6.7b": Size(32, 4096, 16384, 50272),
    "microsoft/phi-2": Size(32, 2560, 10240, 51200, tied=False),
    "ai-forever/mGPT": Size(24, 2048, 8192, 100000),
}
"""Sizes of models of the hub, by their config.json."""
NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd", "n_embed"),
    "neurons": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "heads": ("num_attention_heads", "n_head"),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads"),
}
"""What sizes are called in the config.json of the families."""
CONTEXT = ("max_position_embeddings", "n_positions")
"""What the most tokens at a time are called there. Positions that are biases of attention (alibi) have no limit."""


def size_of(config: Mapping, name: str) -> Size:
    """The size of a model.

    Raises:
        ConfigError: a model of the hub whose size is not known here.
    """
    settings = config["models"][name]
    if settings["source"] == "demo":
        sizes = {key: settings[key] for key in ("layers", "width", "neurons", "vocabulary")}
        return Size(**sizes, gated=settings["architecture"] == "llama")
    if settings["source"] == "folder":
        return read_size(Path(settings["path"], "config.json"))
    if settings["id"] not in SIZES:
        raise ConfigError(
            f"config key 'models.{name}.id': the size of '{settings['id']}' is not known here. Add it to SIZES in "
            "workflow/langneurons/sizes.py."
        )
    return SIZES[settings["id"]]


def depth(config: Mapping, name: str) -> int | None:
    """The number of layers of a model, where it is known before anything runs."""
    settings = config["models"][name]
    if settings["source"] == "folder":
        path = Path(settings["path"], "config.json")
        return _found(json.loads(path.read_text(encoding="utf-8")))["layers"]
    if settings["source"] == "demo":
        return int(settings["layers"])
    return SIZES[settings["id"]].layers if settings.get("id") in SIZES else None


def read_size(path: Path) -> Size:
    """The size that a config.json of transformers gives.

    Raises:
        ConfigError: it leaves a size to the default of its class, which nothing here knows.
    """
    given: Mapping = json.loads(path.read_text(encoding="utf-8"))
    found = _found(given)
    found["vocabulary"] = given.get("vocab_size")
    for what in ("layers", "width", "heads", "vocabulary"):
        if found[what] is None:
            names = " or ".join(NAMES.get(what, ("vocab_size",)))
            raise ConfigError(
                f"{path} does not say its {what} ({names}), but leaves it to the default of its class, so that time "
                "and memory cannot be told. Write it there."
            )
    head = given.get("head_dim") or found["width"] // found["heads"]
    one = given.get("multi_query") and not given.get("new_decoder_architecture")  # Falcon's
    return Size(
        found["layers"],
        found["width"],
        found["neurons"] or 4 * found["width"],
        found["vocabulary"],
        gated=LAYOUTS[supported_architecture(given.get("architectures"))].gated,
        tied=given.get("tie_word_embeddings", True),
        heads_width=found["heads"] * head,
        key_value_width=(1 if one else found["key_value_heads"] or found["heads"]) * head,
    )


def read_limits(path: Path) -> tuple[int, int | None]:
    """The entries of the embedding and the most tokens at a time that a config.json names.

    Without a library that would import torch: what is left to the default of a class counts as unlimited here, and is
    checked once the model is loaded (`langneurons.engines.limits`).
    """
    given: Mapping = json.loads(path.read_text(encoding="utf-8"))
    text = given.get("text_config") or given
    context = next((text[name] for name in CONTEXT if text.get(name)), None)
    return text.get("vocab_size") or sys.maxsize, context


def _found(given: Mapping) -> Mapping:
    """The sizes in a config.json by what they are; None for those that it does not name."""
    return {what: next((given[name] for name in names if given.get(name)), None) for what, names in NAMES.items()}
