"""Reading and writing files of other projects: checksums, tensors without pickled code, and words for what is wrong."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from langneurons import artifacts
from langneurons.errors import UserError

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
"""Types of tensors that hold counts or indices."""
REFUSED = re.compile(r"GLOBAL\s+(\w+(?:\.\w+)+)\s|TorchScript|Trying to|Can only (?:build|create)|must be imported")
"""How torch words that a file is intact, but holds more than tensors and plain containers."""

AGAIN = "if this workflow downloaded it, delete it here and run again."


class PublishedError(UserError):
    """A file of another project that cannot be used, with its path and the remedy."""


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal text.

    Raises:
        PublishedError: the file cannot be read.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def check_sha256(path: str | Path, expected: str) -> None:
    """Check a file's sha256; an empty expectation checks nothing.

    Raises:
        PublishedError: the file has another one, or cannot be read.
    """
    if expected and (found := file_sha256(path)) != expected.lower():
        raise PublishedError(
            f"{path}: has the sha256 {found}, but {expected.lower()} is expected. The file is damaged or not the one "
            "that was meant: get it again, or correct 'sha256' in the config."
        )


def read_bytes(path: str | Path) -> bytes:
    """A file's content, or one message that it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise PublishedError(f"{path}: the file does not exist. Correct the path.") from None
    except OSError as error:
        raise PublishedError(f"{path}: the file cannot be read ({error.strerror}). Correct the path.") from None


def load(path: str | Path, form: str) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers alone."""
    import torch

    content = io.BytesIO(read_bytes(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below says it in one message
            return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make torch raise nearly anything
        refused = REFUSED.search(str(error))
        detail = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
        reason = ": ".join([type(error).__name__, *detail[:1]])[:200]
    if refused:
        wanted = f" (it wants {refused[1]})" if refused[1] else ""
        raise PublishedError(
            f"{path}: holds more than tensors and plain containers{wanted}, which could run code when loaded, and so "
            f"is refused. If you trust its author, ask for a file made by {form}."
        )
    start = content.getvalue()[:40].lstrip().lower()
    if start.startswith((b"<", b"version https://git-lfs")):
        what = "a web page" if start.startswith(b"<") else "a pointer of git-lfs"
        raise PublishedError(f"{path}: is {what}, not the file itself. Get the file's own address; {AGAIN}")
    raise PublishedError(
        f"{path}: is no file of torch.save, or is truncated or damaged ({reason}). Get it again; {AGAIN} "
        f"Expected is {form}."
    )


def save(path: str | Path, content: Any) -> None:
    """Write with `torch.save`; the same content gives the same bytes."""
    import torch

    buffer = io.BytesIO()  # given a path, torch writes the temporary name into the file, and a full disk has no message
    torch.save(content, buffer)
    with artifacts.atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def integer_array(path: str | Path, name: str, value: object) -> np.ndarray:
    """A tensor of integers as an array of its own type and shape."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise PublishedError(f"{path}: {name} is {kind(value)}, but must be a tensor of integers.")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in INTEGERS:
        hint = " A boolean mask becomes indices by mask.nonzero().flatten()." if dtype == "bool" else ""
        raise PublishedError(f"{path}: {name} is a tensor of {dtype}, but must be a tensor of integers.{hint}")
    if value.layout == torch.strided and value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise PublishedError(
            f"{path}: {name} claims {value.numel():,} values, but the file holds fewer: a view that repeats them. Save "
            "a copy of the tensor, such as tensor.clone()."
        )
    try:
        return value.numpy()
    except (RuntimeError, TypeError) as error:  # sparse tensors, and those without values
        reason = str(error).splitlines()[0][:200]
        raise PublishedError(f"{path}: {name} is no dense tensor with values ({reason}). Save it as one.") from None


def kind(value: object) -> str:
    """What a value is, for messages: its type, and its value where it is short."""
    if isinstance(value, bool | int | float) or value is None:
        return f"{type(value).__name__} ({str(value)[:40]})" if value is not None else "nothing (null)"
    return f"a {type(value).__name__}"


def names(values: Any, limit: int = 10) -> str:
    """Values for messages, the first few of them."""
    names = [str(value)[:80] for value in values]
    return (", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")) or "none"
