"""Versions of the formats of files between jobs, and the stamp of a results folder that says which of them wrote it.

Imported by the Snakefile, so only the standard library may be imported here and in what this imports.
"""

from __future__ import annotations

import json
from pathlib import Path

from langneurons import __version__
from langneurons.errors import UserError
from langneurons.writing import write_text

VERSIONS = {
    "tokens": 1,
    "prompts": 1,
    "activations": 3,
    "sentences": 1,
    "neurons": 1,
    "selection": 1,
    "intervention": 1,
    "perplexity": 1,
    "generations": 1,
    "manifest": 1,
    "effect": 1,
    "effects": 1,
    "text-metrics": 2,
    "stop-words": 1,
    "relevance": 1,
    "stability": 1,
    "audit": 1,
    "download": 1,
}
"""Format version by kind of file. Another version is refused."""

STAMP = "formats.json"
"""The stamp's name in the results folder."""

VERIFY = "make verify"
DELETE = "make verify DELETE=1"
"""What checks all files of a results folder, and what deletes those that cannot be used."""


class FormatsError(UserError):
    """Results of another version of the formats."""


def check(folder: str | Path) -> None:
    """Refuse a results folder that another version of the formats wrote. One without a stamp may be used.

    Kinds that only one of the two versions knows are no difference: none of their files is ever read.

    Raises:
        FormatsError: a kind has another version, or the stamp cannot be read.
    """
    stamp = Path(folder) / STAMP
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        writer, found = str(content["langneurons"]), dict(content["formats"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatsError(
            f"{stamp}: cannot be read ({type(error).__name__}: {str(error)[:200]}). Delete it, check the other files "
            f"with '{VERIFY}', and run again; it is written anew."
        ) from None
    differing = [
        f"{kind}: {found[kind]} -> {version}"
        for kind, version in sorted(VERSIONS.items())
        if found.get(kind, version) != version
    ]
    if differing:
        raise FormatsError(
            f"{Path(folder)}: langneurons {writer} wrote these results. This is {__version__}, and formats of files "
            f"differ (found -> expected): {', '.join(differing)}. Continue with the version that wrote them; or keep "
            f"the folder under another name and run again; or let '{DELETE}' delete the files of these formats and "
            f"{stamp}, and print the command that makes them anew."
        )


def is_usable(folder: str | Path) -> bool:
    """Whether `check` accepts a results folder."""
    try:
        check(folder)
    except FormatsError:
        return False
    return True


def stamp(folder: str | Path) -> None:
    """Note in a results folder which formats it holds. The same formats give the same bytes: there is no time in it."""
    content = {"langneurons": __version__, "formats": VERSIONS}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    path = Path(folder) / STAMP
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
