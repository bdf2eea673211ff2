"""Published recordings: `torch.save({"n": tokens, "over_zero": int32 [layer, neuron]})`.

Others name the tokens `total_tokens`, and count in int64; both are read, and the first is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from langneurons.neurons.counting import ActivationCounts
from langneurons.published.files import PublishedError, integer_array, kind, load, names, save

TOKENS = ("n", "total_tokens")
"""What the number of tokens is called."""
FORM = 'torch.save({"n": number of tokens, "over_zero": integer tensor [layer, neuron]}, path)'


def read_activations(path: str | Path) -> ActivationCounts:
    """Read published counts, int64 `[layer, neuron]`, without sums.

    Raises:
        PublishedError: no such file, another format, or impossible counts.
    """
    content = load(path, FORM)
    if not isinstance(content, Mapping):
        raise PublishedError(f"{path}: holds {kind(content)}, but activations are a mapping. Expected is {FORM}.")
    named = [key for key in TOKENS if key in content]
    missing = [] if named else [" or ".join(TOKENS)]
    missing += [] if "over_zero" in content else ["over_zero"]
    if missing:
        raise PublishedError(
            f"{path}: lacks {' and '.join(missing)}; the keys found are {names(content)}. Expected is {FORM}."
        )
    tokens, *others = (_token_number(path, key, content[key]) for key in named)
    if others and others[0] != tokens:
        raise PublishedError(
            f"{path}: n is {tokens}, but total_tokens is {others[0]}. Only one can be the number of tokens: remove the "
            "other."
        )
    over_zero = integer_array(path, "over_zero", content["over_zero"])
    _check_counts(path, over_zero, tokens)
    return ActivationCounts(over_zero.astype(np.int64), None, None, tokens)


def write_activations(path: str | Path, counts: ActivationCounts) -> None:
    """Write counts as they are published, int32 `[layer, neuron]`; sums are no part of the format.

    Raises:
        PublishedError: impossible counts, or counts beyond int32.
    """
    import torch

    _check_counts(path, counts.over_zero, counts.tokens)
    limit = np.iinfo(np.int32).max
    large = int((counts.over_zero > limit).sum())
    if large:
        raise PublishedError(
            f"{path}: {large} counts do not fit the int32 of the published format; the largest is "
            f"{counts.over_zero.max()}, the limit {limit}. Record on fewer tokens."
        )
    over_zero = torch.tensor(counts.over_zero.astype(np.int32))
    save(path, {"n": int(counts.tokens), "over_zero": over_zero})


def check_shape(path: str | Path, shape: tuple[int, ...], layers: int | None, neurons: int | None) -> None:
    """Check the shape `[layer, neuron]` of a file against the model's numbers, where they are known.

    Raises:
        PublishedError: another number of layers, or of neurons per layer.
    """
    expected = (shape[0] if layers is None else layers, shape[1] if neurons is None else neurons)
    if shape != expected:
        raise PublishedError(
            f"{path}: has {shape[0]} layers of {shape[1]} neurons, but {expected[0]} layers of {expected[1]} neurons "
            "are expected. Name the file of this model, or correct the numbers of layers and neurons."
        )


def _token_number(path: str | Path, name: str, value: object) -> int:
    """The number of tokens as an int: published as an int, or as a 0-dimensional integer tensor."""
    import torch

    if isinstance(value, torch.Tensor):
        array = integer_array(path, name, value)
        if array.ndim:
            raise PublishedError(f"{path}: {name} has the shape {list(array.shape)}, but must be one number of tokens.")
        value = int(array)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PublishedError(f"{path}: {name} is {kind(value)}, but must be the number of tokens, an int.")
    if not 1 <= value <= np.iinfo(np.int64).max:
        raise PublishedError(f"{path}: {name} is {value}, but must be the number of tokens: from 1, and within int64.")
    return value


def _check_counts(path: str | Path, over_zero: np.ndarray, tokens: int) -> None:
    """Raise PublishedError unless `over_zero` are counts `[layer, neuron]` over `tokens`."""
    if over_zero.ndim != 2 or not over_zero.size:
        raise PublishedError(
            f"{path}: over_zero has the shape {list(over_zero.shape)}, but must be [layer, neuron] with at least one "
            f"of each. Expected is {FORM}."
        )
    negative = int((over_zero < 0).sum())
    if negative:
        raise PublishedError(
            f"{path}: {negative} counts are negative, the lowest is {over_zero.min()}, as after an overflow. Record "
            "again with wider integers."
        )
    above = int((over_zero > tokens).sum())
    if above:
        raise PublishedError(
            f"{path}: {above} counts are above the {tokens} tokens; the largest is {over_zero.max()}. The two are not "
            "of one recording: correct the number of tokens, or record again."
        )
