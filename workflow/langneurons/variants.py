"""Perturbation variants: their members and ids, the neurons they use, and the jobs that measure them.

Standard library only, like `langneurons.config`. A variant here edits in one way: `langneurons.sweeps` has made one of
every combination of a sweep.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Mapping = dict[str, Any]

BASELINE = "none"
RANDOM, STEER, DEACTIVATE = "random", "steer", "deactivate"
PRODUCT, RESIDUAL = "product", "residual"
PERPLEXITY, ANSWERS = "perplexity", "answers"
"""What is measured under a variant."""
SENTENCE_METHODS = ("average-precision", "probe")
"""Methods that compare sentences; the others need only what is recorded of all tokens."""
SUM_METHODS = ("mean-difference",)
"""Methods that need the sums of activations; the others need counts or sentences."""


@dataclass(frozen=True)
class Perturbation:
    """One member of a variant."""

    id: str
    """`<variant>-<language>`, `<variant>-<source>-<language>`, for random variants with `-<draw>` behind."""
    language: str
    """The language whose neurons (or as many random ones) are switched off, or on."""
    source: str | None = None
    """The language whose neurons are switched off as well."""
    draw: int | None = None
    """The random draw, from 1."""


@dataclass(frozen=True)
class Job:
    """What one job of `measure_perplexity` or `generate_text` covers: a family or a part of it."""

    name: str
    family: str
    members: tuple[str, ...]

    @property
    def identifier(self) -> str:
        """The name as part of a rule's name."""
        return identifier(self.name)

    @property
    def edits(self) -> tuple[str, ...]:
        """The members that edit neurons; none for the baseline."""
        return () if self.family == BASELINE else self.members


def identifier(name: str) -> str:
    """A name of the config as part of a rule's name."""
    return name.replace("-", "_").replace(".", "_")


def shown(number: float) -> str:
    """A number as part of a name: six digits, or all where six are another number."""
    short = f"{number:g}"
    return short if float(short) == number else str(number)


# -- members -----------------------------------------------------------------------------------------------------------


def members(config: Mapping, variant: str) -> list[Perturbation]:
    """The perturbations of a variant, in the order of `run.languages`."""
    settings = config["perturbations"][variant]
    languages = config["run"]["languages"]
    targets = [language for language in languages if language in (settings.get("targets") or languages)]
    sources: list[str | None] = list(languages) if settings.get("source_off") else [None]
    pairs = [(source, target) for source in sources for target in targets if source != target]
    draws = range(1, settings["draws"] + 1) if settings["kind"] == RANDOM else [None]
    result = []
    for source, target in pairs:
        for draw in draws:
            parts = [variant, source, target, None if draw is None else str(draw)]
            name = "-".join(part for part in parts if part is not None)
            result.append(Perturbation(name, target, source, draw))
    return result


def member_ids(config: Mapping, variant: str) -> list[str]:
    """The perturbation ids of a variant."""
    return [member.id for member in members(config, variant)]


def perturbations(config: Mapping, measure: str | None = None) -> list[str]:
    """All perturbation ids of the run, the baseline first; only those under which something is measured."""
    return [BASELINE] + [
        member.id
        for variant in config["run"]["perturbations"]
        if measure is None or measure in config["perturbations"][variant]["measure"]
        for member in members(config, variant)
    ]


def of_kind(config: Mapping, kind: str, measure: str) -> list[str]:
    """The variants of the run that are of a kind, and under which something is measured."""
    settings = config["perturbations"]
    names = config["run"]["perturbations"]
    return [name for name in names if settings[name]["kind"] == kind and measure in settings[name]["measure"]]


def describe(config: Mapping, variant: str) -> list[Mapping]:
    """What each perturbation of a variant is, for the jobs that measure it and the tables that show it."""
    settings = config["perturbations"][variant]
    shared = {
        "variant": variant,
        "kind": settings["kind"],
        "of": controlled(config, variant),
    }
    return [{**asdict(member), **shared} for member in members(config, variant)]


def describe_all(config: Mapping) -> list[Mapping]:
    """What each perturbation of the run is, the baseline first."""
    nobody = {"language": None, "source": None, "draw": None}
    baseline: Mapping = {"id": BASELINE, **nobody, "variant": BASELINE, "kind": BASELINE, "of": []}
    return [baseline] + [row for variant in config["run"]["perturbations"] for row in describe(config, variant)]


def controlled(config: Mapping, variant: str) -> list[str]:
    """The variants that a random variant is a control of: those that edit as many neurons in the same way."""
    settings = config["perturbations"][variant]
    if settings["kind"] != RANDOM:
        return []
    if settings["of"] is not None:
        return [settings["of"]]
    return [
        name
        for name in config["run"]["perturbations"]
        for other in [config["perturbations"][name]]
        if other["kind"] == DEACTIVATE
        and other["site"] == settings["site"]
        and selection(config, name) == selection(config, variant)
    ]


def needs_hooks(config: Mapping) -> bool:
    """Whether an edit of the run may be none of the model's weights: of the activation by more than a factor, or of the
    hidden state."""
    chosen = [config["perturbations"][name] for name in config["run"]["perturbations"]]
    return any(
        variant["site"] == RESIDUAL
        or (variant["site"] != PRODUCT and (variant.get("base") or variant["kind"]) == STEER)
        for variant in chosen
    )


def settings(config: Mapping) -> list[Mapping]:
    """The settings of every variant of the run, for the tables."""
    keys = ("family", "kind", "of", "site", "edit", "scale", "layers", "control")
    identification = config["identification"]
    rows = []
    for name in config["run"]["perturbations"]:
        variant = config["perturbations"][name]
        row: Mapping = {"variant": name, **{key: variant.get(key) for key in keys}, "method": None, "top_rate": None}
        row["of"] = ", ".join(controlled(config, name)) or None
        given = variant.get("scale_by_model") or {}
        row["scale_by_model"] = ", ".join(f"{model} {value:g}" for model, value in given.items()) or None
        row["layers"] = None if variant.get("layers") is None else ", ".join(map(str, variant["layers"]))
        if variant["site"] == RESIDUAL:
            row["edit"] = "add"  # a shift, whatever the config says of neurons
        else:
            row["method"] = variant.get("method") or identification["method"]
            row["top_rate"] = variant.get("top_rate") or identification["top_rate"]
        rows.append(row)
    return rows


# -- families and jobs -------------------------------------------------------------------------------------------------


def families(config: Mapping) -> dict[str, list[str]]:
    """The variants of the run by the name under which the config has them; a sweep is one family."""
    result: dict[str, list[str]] = {}
    for variant in config["run"]["perturbations"]:
        result.setdefault(config["perturbations"][variant]["family"], []).append(variant)
    return result


def jobs(config: Mapping, measure: str) -> list[Job]:
    """The jobs that measure the run's perturbations: one per family, or several with `perturbations_per_job`."""
    result = [Job(BASELINE, BASELINE, (BASELINE,))]
    measured = set(perturbations(config, measure))
    for family, variants in families(config).items():
        ids = [name for variant in variants for name in member_ids(config, variant) if name in measured]
        size = config["perturbations_per_job"] or max(len(ids), 1)
        parts = [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
        for number, part in enumerate(parts, 1):
            result.append(Job(family if len(parts) == 1 else f"{family}-part-{number}", family, part))
    return result


# -- the neurons that variants use -------------------------------------------------------------------------------------


def selection(config: Mapping, variant: str) -> str | None:
    """Name of the neuron selection that a variant uses: the method, with the rate where it is the variant's own.

    None for a shift of the residual stream.
    """
    settings = config["perturbations"][variant]
    if settings["site"] == RESIDUAL:
        return None
    identification = config["identification"]
    method = settings.get("method") or identification["method"]
    rate = settings.get("top_rate")
    return str(method) if rate in (None, identification["top_rate"]) else f"{method}-top-{shown(rate)}"


def run_selections(config: Mapping) -> dict[str, Mapping]:
    """All neuron selections that the run's own models need, by name, the default first: `method` and `top_rate`."""
    identification = config["identification"]
    default = identification["top_rate"]
    result = {
        method: {"method": method, "top_rate": default}
        for method in [identification["method"], *identification["compare"]]
    }
    for variant in config["run"]["perturbations"]:
        name, settings = selection(config, variant), config["perturbations"][variant]
        if name is not None:
            method = settings.get("method") or identification["method"]
            result.setdefault(name, {"method": method, "top_rate": settings.get("top_rate") or default})
    return result


def scale(settings: Mapping, model: str) -> float | None:
    """The multiple of the mean that a variant steers a model with; None for one that does not steer."""
    result: float | None = settings.get("scale_by_model", {}).get(model, settings.get("scale"))
    return result


def plans(config: Mapping, family: str, model: str) -> list[Mapping]:
    """How each perturbation of a family edits a model, for the job that plans it."""
    keys = ("base", "site", "edit", "layers", "control", "nearest")
    rows = []
    for variant in families(config)[family]:
        settings = config["perturbations"][variant]
        how = {key: settings[key] for key in keys if key in settings} | {"selection": selection(config, variant)}
        how["scale"] = scale(settings, model)
        rows += [{**row, **how} for row in describe(config, variant)]
    return rows


def plan_selections(config: Mapping, family: str) -> list[str]:
    """The neuron selections that a family needs."""
    names = [selection(config, variant) for variant in families(config)[family]]
    return list(dict.fromkeys(name for name in names if name is not None))


def needing_sums(config: Mapping) -> list[str]:
    """The keys of the config by which the run needs sums of activations."""
    steered = [config["perturbations"][name] for name in config["run"]["perturbations"]]
    keys = [f"perturbations.{row['family']}" for row in steered if row["kind"] == STEER]
    methods = [row["method"] for row in run_selections(config).values()]
    return list(dict.fromkeys(keys)) + [f"identification: {name}" for name in methods if name in SUM_METHODS]


def plan_needs_activations(config: Mapping, family: str) -> bool:
    """Whether a family needs what was recorded: means to steer to, or probabilities to match."""
    rows = [config["perturbations"][variant] for variant in families(config)[family]]
    return any(row.get("base", row["kind"]) == STEER or row.get("control") == "activity" for row in rows)
