"""The files that a published model is made of: recordings, neuron masks and generations of others, by path or URL.

Imported by the Snakefile, so only the standard library may be imported here and in what this imports.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langneurons.errors import UserError

Mapping = dict[str, Any]

PLACEHOLDERS = {"activations": {"language"}, "baseline": {"language"}, "edited": {"language", "target"}, "masks": set()}
"""What a pattern must contain, so that no two languages or perturbations are read from one file."""


class PublicationError(UserError):
    """A published model that the config does not describe well."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published model."""

    name: str
    """Its place below `results/<model>/published/` if it is downloaded."""
    location: str
    """Path or URL."""
    sha256: str
    """Expected checksum; empty if none was given."""

    @property
    def remote(self) -> bool:
        """Whether it has to be downloaded."""
        return self.location.lower().startswith(("http://", "https://"))

    def path(self, model: str) -> str:
        """Where jobs read it."""
        return f"results/{model}/published/{self.name}" if self.remote else self.location


def activation_files(config: Mapping, model: str) -> dict[str, PublishedFile]:
    """The recording of each language of the run; none if the model has no recordings."""
    entry = config["models"][model].get("activations")
    if entry is None:
        return {}
    key = f"models.{model}.activations"
    return {
        language: _file(key, entry, f"activations/{language}", "activations", {"language": language})
        for language in config["run"]["languages"]
    }


def mask_file(config: Mapping, model: str) -> PublishedFile | None:
    """The file of neuron masks."""
    entry = config["models"][model].get("masks")
    return None if entry is None else _file(f"models.{model}.masks", entry, "masks", "masks", {})


def generation_files(config: Mapping, model: str, described: list[Mapping]) -> dict[tuple[str, str], PublishedFile]:
    """The generations by perturbation and language of the prompts, for the variants that the model has.

    Args:
        config: the validated config.
        model: a published model.
        described: `id, variant, language, draw` of the perturbations of the run, the baseline first.
    """
    entries = config["models"][model].get("generations", {})
    files = {}
    for member in described:
        if member["variant"] not in entries:
            continue
        kind = "edited" if member["language"] else "baseline"
        for language in config["run"]["languages"]:
            values = {"language": language} | ({"target": member["language"]} if member["language"] else {})
            values |= {} if member["draw"] is None else {"draw": str(member["draw"])}
            key = f"models.{model}.generations.{member['variant']}"
            name = f"generations/{member['id']}/{language}"
            files[member["id"], language] = _file(key, entries[member["variant"]], name, kind, values)
    return files


def _file(key: str, entry: str | Mapping, name: str, kind: str, values: dict[str, str]) -> PublishedFile:
    """One file of a pattern, its placeholders filled in."""
    pattern = entry if isinstance(entry, str) else entry["path"]
    _check_placeholders(key, pattern, PLACEHOLDERS[kind], values)
    location = pattern.format(**values)
    if "://" in location and not location.lower().startswith(("http://", "https://")):
        raise PublicationError(f"config key '{key}': '{location}' is neither a path nor an http(s) address.")
    return PublishedFile(name, location, _checksum(key, entry, location, varies=bool(values)))


def _check_placeholders(key: str, pattern: str, needed: set[str], values: dict[str, str]) -> None:
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None}
    except ValueError as error:
        raise PublicationError(f"config key '{key}': '{pattern}' is no pattern ({error}).") from None
    needed = needed | ({"draw"} & values.keys())
    allowed = ", ".join(f"{{{field}}}" for field in values) or "none"
    if found - values.keys():
        raise PublicationError(
            f"config key '{key}': '{pattern}' has the unknown placeholder {{{min(found - values.keys())}}}. "
            f"Known here: {allowed}."
        )
    if needed - found:
        raise PublicationError(
            f"config key '{key}': '{pattern}' lacks {{{min(needed - found)}}}; without it one file would be read for "
            f"all. Placeholders here: {allowed}."
        )


def _checksum(key: str, entry: str | Mapping, location: str, varies: bool) -> str:
    """The expected checksum of a file: the one of a single file, or by the file's name."""
    given = entry.get("sha256", "") if isinstance(entry, dict) else ""
    if isinstance(given, dict):
        name = location.rpartition("/")[2]
        for known in (location, name, name.partition("?")[0]):
            if known in given:
                return str(given[known])
        raise PublicationError(
            f"config key '{key}.sha256' has no checksum of '{name}'; its keys are {', '.join(given) or 'none'}. Name "
            "the checksum of every file, by the file's name."
        )
    if given and varies:
        raise PublicationError(
            f"config key '{key}.sha256' is one checksum, but the pattern stands for several files. Give a mapping from "
            "the file's name to its checksum."
        )
    return str(given)


def without_secrets(value: Any) -> Any:
    """Addresses in a part of the config without user names, passwords and queries, which may hold tokens."""
    if isinstance(value, dict):
        return {name: without_secrets(below) for name, below in value.items()}
    if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
        scheme, _, rest = value.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
    return value


def check_files(config: Mapping, model: str, described: list[Mapping]) -> None:
    """Check that a published model of the run is described well, and that its local files exist.

    Raises:
        PublicationError: naming the key, and the file that is missing.
    """
    settings = config["models"][model]
    mask = mask_file(config, model)
    generations = generation_files(config, model, described)
    files = [*activation_files(config, model).values(), *([mask] if mask else []), *generations.values()]
    if not files:
        raise PublicationError(
            f"config key 'models.{model}': a published model needs 'activations', 'masks', or 'generations' of the "
            "baseline 'none' or of a variant in 'run.perturbations'."
        )
    known = {"none", *config["perturbations"]}
    for variant in settings.get("generations", {}):
        if variant not in known:
            raise PublicationError(
                f"config key 'models.{model}.generations.{variant}' is no variant of the section 'perturbations'. "
                f"Known: {', '.join(sorted(known))}."
            )
    for file in files:
        if not file.remote and not Path(file.location).is_file():
            raise PublicationError(
                f"config key 'models.{model}': the file '{file.location}' does not exist (wanted for {file.name}). "
                "Correct the path, which is relative to the folder in which snakemake runs, or take the pattern out of "
                "the config."
            )
