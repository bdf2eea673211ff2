"""Numbers that others published, from reference.csv. Standard library only: a dry run validates names with it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from langneurons.errors import UserError

FILE = Path(__file__).with_name("reference.csv")

SOURCES = {
    "replication": (
        "Measured in a student replication with LLaMA-2-7B and mGPT on English, German and Turkish, which ran LAPE on "
        "one language at a time and whose edits of mGPT changed nothing."
    ),
    "joint": (
        "Recomputed from the recordings of that replication by LAPE over its three languages together; its entropies, "
        "in single precision, are given to six digits."
    ),
    "masks": "Counted in the neuron masks that were released with Tang et al. (2024).",
}
"""What was measured by whom."""


class PublishedNumber(NamedTuple):
    """One row of reference.csv."""

    reference: str
    """Name of the model."""
    source: str
    """A key of `SOURCES`."""
    quantity: str
    perturbation: str
    """Empty where the quantity is of the unedited model."""
    language: str
    """Of the prompts or of the neurons; empty where the quantity is of all together."""
    value: str
    """As printed."""

    @property
    def decimals(self) -> int:
        """Number of printed decimals."""
        return len(self.value.partition(".")[2])


def read() -> list[PublishedNumber]:
    """All published numbers, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [PublishedNumber(**row) for row in csv.DictReader(file)]


def references() -> list[str]:
    """Names of the models with published numbers."""
    return list(dict.fromkeys(number.reference for number in read()))


def numbers_of(reference: str) -> list[PublishedNumber]:
    """The published numbers of one model.

    Raises:
        UserError: no such reference.
    """
    found = [number for number in read() if number.reference == reference]
    if not found:
        raise UserError(
            f"there are no published numbers of '{reference}'; there are some of {', '.join(references())}."
        )
    return found
