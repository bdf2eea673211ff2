"""Validation of the config: one message that names the key, what was expected and what to do.

Imported by the Snakefile, so only the standard library, PyYAML and jsonschema may be imported here and in what this
imports. The schema `workflow/schemas/config.schema.yaml` is the one source of types, meanings and defaults.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from langneurons import sweeps
from langneurons.cross_checks import cross_check
from langneurons.errors import ConfigError
from langneurons.variants import Mapping

YAML_TYPES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
"""What the types of JSON schemas are called in YAML."""
SCHEMA = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"


def validate(config: Mapping) -> Mapping:
    """Return the configuration with all defaults filled in and all sweeps expanded.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    schema: Any = _validator().schema  # jsonschema allows a truth value, too
    _check_keys(config)
    config = json.loads(json.dumps(config))  # plain containers; a copy
    errors = sorted(_validator().iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise ConfigError(_explain(errors[0]))
    config = _whole_numbers(_with_defaults(config, schema, schema), schema, schema)
    _fill_folder(config)
    written = copy.deepcopy(config["run"])
    sweeps.expand(config)
    cross_check(config, written)
    return config


@cache
def _validator() -> jsonschema.Draft202012Validator:
    """Of the schema, which is read once, and by libyaml if PyYAML has it: that takes a tenth of the time."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return jsonschema.Draft202012Validator(yaml.load(SCHEMA.read_text(encoding="utf-8"), loader))


def _fill_folder(config: Mapping) -> None:
    """Replace {folder}, and a leading ~ for the home folder, in all paths of the config, in place.

    Raises:
        ConfigError: a path of the run uses it, but the config names no folder.
    """

    def filled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: filled(below, f"{key}.{name}") for name, below in value.items()}
        if not isinstance(value, str):
            return value
        if "{folder}" not in value:
            return _at_home(value)
        if config["folder"] is None:
            raise ConfigError(
                f"config key '{key}': the path '{value}' needs the key 'folder'. Set it in the config or on the "
                "command line: --config folder=path/to/the/files"
            )
        return value.replace("{folder}", _at_home(config["folder"]).rstrip("/") or "/")

    chosen = [name for name in config["run"]["models"] if name in config["models"]]
    config["models"] |= {name: filled(config["models"][name], f"models.{name}") for name in chosen}
    config["corpora"] = filled(config["corpora"], "corpora")
    config["generation"]["prompts"] = filled(config["generation"]["prompts"], "generation.prompts")
    config["metrics"] = filled(config["metrics"], "metrics")
    config["report"]["fonts"] = [filled(path, "report.fonts") for path in config["report"]["fonts"]]


def _at_home(path: str) -> str:
    """A path with the home folder in place of a leading ~."""
    return str(Path(path).expanduser()) if path.startswith("~/") else path


def check_files(paths: Sequence[str | Path]) -> None:
    """Check the files of a config for keys that come twice, of which YAML would keep the last without a word.

    Raises:
        ConfigError: naming the file, the key and its lines. Files that are no YAML are left to others.
    """
    for path in paths:
        try:
            root = yaml.compose(Path(path).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        _check_repeated(path, root, "")


def _check_repeated(path: str | Path, node: Any, above: str) -> None:
    """Check all mappings of a YAML node; `above` is its key, with a dot behind it."""
    if isinstance(node, yaml.SequenceNode):
        for below in node.value:
            _check_repeated(path, below, above)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for name, below in node.value:
        key, line = str(name.value), name.start_mark.line + 1
        if key in lines:
            raise ConfigError(
                f"{path}: the config key '{above}{key}' is there twice, in lines {lines[key]} and {line}, and only the "
                "last would count. Remove one."
            )
        lines[key] = line
        _check_repeated(path, below, f"{above}{key}.")


def _check_keys(value: Any, path: str = "") -> None:
    """Refuse keys that are no strings, which JSON would quietly turn into strings."""
    if isinstance(value, list):
        for index, below in enumerate(value):
            _check_keys(below, f"{path}{index}.")
    elif isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                raise ConfigError(
                    f"config key '{path}{key}' is no text: YAML reads an unquoted no, on, yes, off or number as "
                    'something else. Write the key in quotes, such as "no".'
                )
            _check_keys(below, f"{path}{key}.")


def _with_defaults(value: Any, schema: Mapping, root: Mapping) -> Any:
    """Fill in the defaults of a JSON schema, also behind references and conditions."""
    for part in _applying(value, schema, root):
        if not isinstance(value, dict):
            continue
        properties = part.get("properties", {})
        for key, below in properties.items():
            if key not in value and "default" in _resolve(below, root):
                value[key] = copy.deepcopy(_resolve(below, root)["default"])
            if key in value:
                value[key] = _with_defaults(value[key], below, root)
        below = part.get("additionalProperties")
        if isinstance(below, dict):
            for key in value.keys() - properties.keys():
                value[key] = _with_defaults(value[key], below, root)
    return value


def _whole_numbers(value: Any, schema: Mapping, root: Mapping) -> Any:
    """Turn numbers such as 4.096e+3 into the integers that they are, where the schema wants integers."""
    for part in _applying(value, schema, root):
        types = part.get("type", ())
        if isinstance(value, float) and "integer" in types and "number" not in types:
            return int(value)
        if isinstance(value, list) and "items" in part:
            value = [_whole_numbers(below, part["items"], root) for below in value]
        if isinstance(value, dict):
            known, others = part.get("properties", {}), part.get("additionalProperties")
            for key, below in value.items():
                found = known.get(key, others)
                if isinstance(found, dict):
                    value[key] = _whole_numbers(below, found, root)
    return value


def _resolve(schema: Mapping, root: Mapping) -> Mapping:
    """The schema with its `$ref` replaced; keys beside the reference win."""
    if "$ref" not in schema:
        return schema
    target = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _applying(value: Any, schema: Mapping, root: Mapping) -> Iterator[Mapping]:
    """The schemas that hold for a value: the fulfilled conditions first, since they are more specific."""
    schema = _resolve(schema, root)
    for condition in schema.get("allOf", []):
        if jsonschema.Draft202012Validator(condition["if"]).is_valid(value):
            yield from _applying(value, condition["then"], root)
    yield schema


def _explain(error: Any) -> str:
    """One sentence for one `jsonschema.ValidationError`."""
    path = [str(part) for part in error.absolute_path]
    key = ".".join(path)
    where = f"config key '{key}'" if key else "the config"
    about = f" ({error.schema['description'].rstrip('.')})" if "description" in error.schema else ""
    match error.validator:
        case "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            extra = sorted(set(error.instance) - set(known))[0]
            close = difflib.get_close_matches(extra, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            return f"config key '{'.'.join([*path, extra])}' is unknown.{hint} Known keys here: {', '.join(known)}."
        case "required":
            missing = sorted(set(error.validator_value) - set(error.instance))[0]
            return f"config key '{'.'.join([*path, missing])}' is missing."
        case "enum":
            choices = ", ".join("null" if choice is None else str(choice) for choice in error.validator_value)
            return f"{where} is {error.instance!r}; choose one of: {choices}."
        case "type" if isinstance(error.instance, bool) and "string" in str(error.validator_value):
            return (
                f"{where} is {error.instance}: YAML reads an unquoted no, on, yes or off as a truth value. "
                f'Write it in quotes, such as "no".'
            )
        case "type":
            wanted = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
            names = " or ".join(YAML_TYPES[name] for name in wanted)
            return f"{where} is {error.instance!r}, but must be {names}{about}."
        case "pattern":
            return f"{where}: {error.instance!r} is not allowed{about}; it must match {error.validator_value}."
        case _:
            return f"{where}: {error.message}{about}."
