"""Sweeps: lists in the config that stand for several variants, or several models.

Standard library only. Called once, on a config that has its defaults; everything after sees single values.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from langneurons.errors import ConfigError
from langneurons.variants import DEACTIVATE, RANDOM, RESIDUAL, Mapping, shown

SWEPT = ("method", "top_rate", "site", "edit", "scale")
"""Keys of a variant that may be lists, in the order in which their values become part of its name."""
INHERITED = (*SWEPT, "scale_by_model", "targets", "source_off", "layers")
"""Keys that a random control takes from the variant that it is a control of."""


def expand(config: Mapping) -> None:
    """Replace every sweep in the catalogues by what it stands for, and its name in the lists of the run, in place.

    Raises:
        ConfigError: a control of an unknown variant, keys that contradict each other, a name that is taken, or one that
            the run lists twice.
    """
    parts = _expand_models(config)
    catalogue = config["perturbations"]
    swept = {
        name: _combinations(name, {"family": name, **settings})
        for name, settings in catalogue.items()
        if settings["kind"] != RANDOM or settings["of"] is None
    }
    for name, settings in catalogue.items():
        if name not in swept:
            swept[name] = _controls(name, {"family": name, **settings}, swept, catalogue)
    expanded: Mapping = {}
    for name in catalogue:
        for variant, settings in swept[name].items():
            if variant in expanded or (variant != name and variant in catalogue):
                raise ConfigError(
                    f"config key 'perturbations.{name}': its sweep gives the variant '{variant}', a name that is "
                    "taken. Rename one of them."
                )
            expanded[variant] = settings
    for settings in expanded.values():
        _check_variant(settings)
        _by_model(settings, parts)
    config["run"]["perturbations"] = _replaced(config, "perturbations", {name: list(swept[name]) for name in swept})
    config["perturbations"] = expanded


def _combinations(name: str, settings: Mapping) -> dict[str, Mapping]:
    """The variants of a sweep by name: every combination of its lists, those of one value without a suffix."""
    settings = {
        "site": "activation",
        "base": DEACTIVATE if settings["kind"] == RANDOM else settings["kind"],
        **settings,
    }
    if settings.get("scale_by_model") and isinstance(settings["scale"], list) and len(settings["scale"]) > 1:
        raise ConfigError(
            f"config key 'perturbations.{name}.scale_by_model' cannot be used while 'scale' is a list to sweep. Leave "
            "out one of them."
        )
    choices = {
        key: settings[key] if isinstance(settings[key], list) else [settings[key]] for key in SWEPT if key in settings
    }
    result = {}
    for values in product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        suffixes = [_suffix(value) for key, value in chosen.items() if len(choices[key]) > 1]
        result["-".join([name, *suffixes])] = {**settings, **chosen}
    return result


def _suffix(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"minus-{shown(-value)}" if value < 0 else shown(value)


def _controls(
    name: str, settings: Mapping, swept: dict[str, dict[str, Mapping]], catalogue: Mapping
) -> dict[str, Mapping]:
    """A random control of every variant that another name stands for."""
    of, known = settings["of"], [variant for variant in catalogue if catalogue[variant]["kind"] != RANDOM]
    if of not in known:
        what = "is a random variant itself" if of in catalogue else "is no entry of 'perturbations'"
        raise ConfigError(
            f"config key 'perturbations.{name}.of' names '{of}', which {what}. "
            f"Variants with controls: {', '.join(known) or 'none'}."
        )
    own = [key for key in INHERITED if key in settings]
    if own:
        raise ConfigError(
            f"config key 'perturbations.{name}.{own[0]}': a control of '{of}' takes this from there. Leave it out, or "
            "leave out 'of'."
        )
    result = {}
    for variant, controlled in swept[of].items():
        taken = {key: controlled[key] for key in INHERITED if key in controlled}
        result[name + variant.removeprefix(of)] = {**settings, **taken, "of": variant, "base": controlled["kind"]}
    return result


def _check_variant(settings: Mapping) -> None:
    """Refuse scales that are no numbers, and keys that a variant's site cannot use, under the name in the config."""
    residual = settings["site"] == RESIDUAL
    refused = [
        (residual and bool(settings.get("source_off")), "source_off", "switches neurons off, and there are none"),
        (residual and settings.get("control") == "activity", "control", "matches neurons, and there are none"),
        (residual and settings.get("method") is not None, "method", "selects neurons, and there are none"),
        (residual and settings.get("top_rate") is not None, "top_rate", "selects neurons, and there are none"),
        (not residual and settings.get("layers") is not None, "layers", "is for the site residual only"),
    ]
    scales = [settings.get("scale", 0), *settings.get("scale_by_model", {}).values()]
    if not all(map(math.isfinite, scales)):
        raise ConfigError(f"config key 'perturbations.{settings['family']}.scale' is not finite. Write a number.")
    for wrong, key, reason in refused:
        if wrong and not (settings.get("of") and key in INHERITED):  # what is inherited is refused where it is written
            raise ConfigError(
                f"config key 'perturbations.{settings['family']}.{key}' {reason} at the site {settings['site']}."
            )


def _by_model(settings: Mapping, parts: dict[str, list[str]]) -> None:
    """Give what is set for a model to each of its training seeds, in place."""
    given = settings.get("scale_by_model")
    if not given:
        return
    known = {*parts, *(part for found in parts.values() for part in found)}
    for name in given:
        if name not in known and not settings.get("of"):  # what is inherited is refused where it is written
            raise ConfigError(
                f"config key 'perturbations.{settings['family']}.scale_by_model' names '{name}', which is no entry of "
                f"'models': {', '.join(parts)}."
            )
    seeds = {part: value for name, value in given.items() for part in parts.get(name, [])}
    settings["scale_by_model"] = seeds | {name: value for name, value in given.items() if name not in parts}


def _expand_models(config: Mapping) -> dict[str, list[str]]:
    """One model per training seed. Returns the models that each name of the catalogue stands for."""
    models: Mapping = {}
    parts: dict[str, list[str]] = {}
    for name, settings in config["models"].items():
        seeds = settings.get("training_seeds") or []
        named = {f"{name}-seed-{seed}": {**settings, "training_seeds": [seed]} for seed in seeds}
        chosen = named if len(seeds) > 1 else {name: settings}
        for model, entry in chosen.items():
            if model in models or (model != name and model in config["models"]):
                raise ConfigError(
                    f"config key 'models.{name}.training_seeds' gives the model '{model}', a name that is taken. "
                    "Rename one of them."
                )
            models[model] = entry
        parts[name] = list(chosen)
    config["run"]["models"] = _replaced(config, "models", parts)
    config["models"] = models
    return parts


def _replaced(config: Mapping, key: str, parts: dict[str, list[str]]) -> list[str]:
    """The names in a list of the run, each sweep replaced by its parts."""
    result = [part for name in config["run"][key] for part in parts.get(name, [name])]
    for part in result:
        if result.count(part) > 1:
            raise ConfigError(
                f"config key 'run.{key}' names '{part}' twice: by itself, and as a part of a sweep. Leave out one "
                "of them."
            )
    return result
