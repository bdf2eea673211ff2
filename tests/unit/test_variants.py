"""Variants: their members, the jobs that measure them, the neurons they use, and what is passed on of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from langneurons import config as experiment
from langneurons import variants
from langneurons.errors import ConfigError
from langneurons.validation import validate
from langneurons.variants import ANSWERS, PERPLEXITY, Job, Perturbation

Mapping = dict[str, Any]

CATALOGUE: Mapping = {
    "off": {"kind": "deactivate"},
    "off-rate": {"kind": "deactivate", "top_rate": [0.01, 0.1], "measure": ["perplexity"]},
    "off-product": {"kind": "deactivate", "site": "product", "method": "probe"},
    "any": {"kind": "random", "draws": 2},
    "any-rate": {"kind": "random", "of": "off-rate", "draws": 1, "measure": ["perplexity"]},
    "any-active": {"kind": "random", "control": "activity", "nearest": 3, "draws": 1, "measure": ["perplexity"]},
    "on": {"kind": "steer", "scale": [1, -2], "targets": ["tr", "en"], "measure": ["answers"]},
    "any-on": {"kind": "random", "of": "on", "draws": 2, "measure": ["answers"]},
    "swap": {"kind": "steer", "source_off": True, "edit": "add", "method": "probe", "top_rate": 0.2},
    "shift": {"kind": "steer", "site": "residual", "layers": [3, 1], "scale": 0.5, "measure": ["answers"]},
    "any-shift": {"kind": "random", "of": "shift", "draws": 1, "measure": ["answers"]},
}


def checked(run: list[str] | None = None, catalogue: Mapping = CATALOGUE, **changes: Any) -> Mapping:
    """A valid config; all variants run unless `run` names some."""
    return validate(
        {
            "run": {
                "models": ["small"],
                "languages": changes.pop("languages", ["en", "de", "tr"]),
                "perturbations": list(catalogue) if run is None else run,
            },
            "models": {"small": {"source": "demo", "architecture": "llama"}},
            "perturbations": copy.deepcopy(catalogue),
            "identification": {"compare": ["lape-bonus"]},
            **changes,
        }
    )


# -- members -----------------------------------------------------------------------------------------------------------


def test_one_member_per_language_in_the_order_of_the_run() -> None:
    found = checked(languages=["tr", "en", "de"])
    assert variants.members(found, "off") == [
        Perturbation("off-tr", "tr"),
        Perturbation("off-en", "en"),
        Perturbation("off-de", "de"),
    ]


def test_draws_are_numbered_from_one_within_a_language() -> None:
    assert variants.members(checked(), "any") == [
        Perturbation(f"any-{language}-{draw}", language, draw=draw)
        for language in ("en", "de", "tr")
        for draw in (1, 2)
    ]


def test_only_targets_in_the_order_of_the_run() -> None:
    assert variants.member_ids(checked(), "on-minus-2") == ["on-minus-2-en", "on-minus-2-tr"]
    assert variants.member_ids(checked(), "any-on-1") == [
        "any-on-1-en-1",
        "any-on-1-en-2",
        "any-on-1-tr-1",
        "any-on-1-tr-2",
    ]


def test_pairs_of_a_source_and_another_target() -> None:
    assert variants.members(checked(), "swap") == [
        Perturbation("swap-en-de", "de", "en"),
        Perturbation("swap-en-tr", "tr", "en"),
        Perturbation("swap-de-en", "en", "de"),
        Perturbation("swap-de-tr", "tr", "de"),
        Perturbation("swap-tr-en", "en", "tr"),
        Perturbation("swap-tr-de", "de", "tr"),
    ]


def test_sources_are_all_languages_whatever_the_targets() -> None:
    catalogue = {
        "swap": {"kind": "steer", "source_off": True, "targets": ["de"]},
        "any": {"kind": "random", "of": "swap", "draws": 2},
    }
    found = checked(catalogue=catalogue)
    assert variants.member_ids(found, "swap") == ["swap-en-de", "swap-tr-de"]
    assert variants.members(found, "any") == [
        Perturbation("any-en-de-1", "de", "en", 1),
        Perturbation("any-en-de-2", "de", "en", 2),
        Perturbation("any-tr-de-1", "de", "tr", 1),
        Perturbation("any-tr-de-2", "de", "tr", 2),
    ]


def test_all_perturbations_of_the_run_and_those_that_are_measured() -> None:
    found = checked(["shift", "off", "off-rate"])
    read = ["off-en", "off-de", "off-tr"]
    rates = [f"off-rate-{rate}-{language}" for rate in ("0.01", "0.1") for language in ("en", "de", "tr")]
    shifts = ["shift-en", "shift-de", "shift-tr"]
    assert variants.perturbations(found) == ["none", *shifts, *read, *rates]
    assert variants.perturbations(found, PERPLEXITY) == ["none", *read, *rates]
    assert variants.perturbations(found, ANSWERS) == ["none", *shifts, *read]


def test_no_two_perturbations_have_one_id() -> None:
    ids = variants.perturbations(checked())
    assert len(ids) == len(set(ids)) == 1 + 3 + 6 + 3 + 6 + 6 + 3 + 4 + 8 + 6 + 3 + 3


def test_ids_that_clash_are_refused() -> None:
    """A source and a target of one variant read as a target of another."""
    catalogue = {"on": {"kind": "steer", "source_off": True}, "on-en": {"kind": "steer"}}
    with pytest.raises(ConfigError) as caught:
        checked(catalogue=catalogue)
    assert str(caught.value) == (
        "config key 'perturbations': two variants give the perturbation 'on-en-de'. Rename one of them."
    )


# -- what a perturbation is --------------------------------------------------------------------------------------------


def test_describe_all() -> None:
    found = checked(["swap", "any-on", "off"])
    described = variants.describe_all(found)
    assert [row["id"] for row in described] == variants.perturbations(found)
    by_id = {row["id"]: row for row in described}
    assert by_id["none"] == {
        **{"id": "none", "language": None, "source": None, "draw": None},
        **{"variant": "none", "kind": "none", "of": []},
    }
    assert by_id["swap-tr-de"] == {
        **{"id": "swap-tr-de", "language": "de", "source": "tr", "draw": None},
        **{"variant": "swap", "kind": "steer", "of": []},
    }
    assert by_id["any-on-minus-2-en-2"] == {
        **{"id": "any-on-minus-2-en-2", "language": "en", "source": None, "draw": 2},
        **{"variant": "any-on-minus-2", "kind": "random", "of": ["on-minus-2"]},
    }


def test_a_control_by_name_controls_that_variant_only() -> None:
    found = checked()
    assert variants.controlled(found, "any-rate-0.01") == ["off-rate-0.01"]
    assert variants.controlled(found, "any-on-1") == ["on-1"]
    assert variants.controlled(found, "any-shift") == ["shift"]


def test_a_control_without_a_name_controls_what_switches_the_same_neurons_off_in_the_same_way() -> None:
    catalogue = {
        "off": {"kind": "deactivate"},
        "same": {"kind": "deactivate", "method": "lape", "top_rate": 0.05},
        "other-rate": {"kind": "deactivate", "top_rate": 0.1},
        "other-method": {"kind": "deactivate", "method": "probe"},
        "other-site": {"kind": "deactivate", "site": "product"},
        "on": {"kind": "steer", "site": "activation"},
        "absent": {"kind": "deactivate"},
        "any": {"kind": "random"},
        "any-active": {"kind": "random", "control": "activity"},
        "any-product": {"kind": "random", "site": "product"},
        "any-rate": {"kind": "random", "top_rate": [0.1, 0.2]},
        "any-probe": {"kind": "random", "method": "probe"},
    }
    found = checked([name for name in catalogue if name != "absent"], catalogue)
    controls = {name: variants.controlled(found, name) for name in found["run"]["perturbations"]}
    assert {name: of for name, of in controls.items() if of} == {
        "any": ["off", "same"],
        "any-active": ["off", "same"],
        "any-product": ["other-site"],
        "any-rate-0.1": ["other-rate"],
        "any-probe": ["other-method"],
    }


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_a_sweep_is_one_family() -> None:
    assert variants.families(checked(["on", "any-rate", "off", "any-on"])) == {
        "on": ["on-1", "on-minus-2"],
        "any-rate": ["any-rate-0.01", "any-rate-0.1"],
        "off": ["off"],
        "any-on": ["any-on-1", "any-on-minus-2"],
    }


def test_a_family_of_which_a_part_runs() -> None:
    found = checked(["off-rate-0.1"])
    assert variants.families(found) == {"off-rate": ["off-rate-0.1"]}
    assert variants.jobs(found, PERPLEXITY)[1:] == [
        Job("off-rate", "off-rate", ("off-rate-0.1-en", "off-rate-0.1-de", "off-rate-0.1-tr"))
    ]


def test_jobs_by_what_is_measured() -> None:
    found = checked(["off", "off-rate", "on"])
    off = ("off-en", "off-de", "off-tr")
    rates = tuple(f"off-rate-{rate}-{language}" for rate in ("0.01", "0.1") for language in ("en", "de", "tr"))
    none = Job("none", "none", ("none",))
    assert variants.jobs(found, PERPLEXITY) == [none, Job("off", "off", off), Job("off-rate", "off-rate", rates)]
    assert variants.jobs(found, ANSWERS) == [
        none,
        Job("off", "off", off),
        Job("on", "on", ("on-1-en", "on-1-tr", "on-minus-2-en", "on-minus-2-tr")),
    ]


@pytest.mark.parametrize("measure", [PERPLEXITY, ANSWERS])
@pytest.mark.parametrize("size", [0, 1, 2, 4, 5, 100])
def test_jobs_cover_what_is_measured_once_and_are_no_larger_than_asked(measure: str, size: int) -> None:
    found = checked(perturbations_per_job=size)
    jobs = variants.jobs(found, measure)
    assert [member for job in jobs for member in job.members] == variants.perturbations(found, measure)
    assert len({job.name for job in jobs}) == len({job.identifier for job in jobs}) == len(jobs)
    assert all(len(job.members) <= (size or 100) for job in jobs)
    # A family is cut into as few jobs as possible, and a job never holds two families.
    for family, names in variants.families(found).items():
        ids = [name for variant in names for name in variants.member_ids(found, variant)]
        measured = [name for name in ids if name in variants.perturbations(found, measure)]
        parts = [job for job in jobs if job.family == family]
        assert len(parts) == (0 if not measured else -(-len(measured) // (size or 100)))
        assert [job.name for job in parts] == (
            [family] if len(parts) == 1 else [f"{family}-part-{number + 1}" for number in range(len(parts))]
        )


def test_a_job_crosses_the_variants_of_a_sweep() -> None:
    """A family is cut by the number of perturbations, not by variant."""
    jobs = variants.jobs(checked(["off-rate"], perturbations_per_job=4), PERPLEXITY)
    assert [job.members for job in jobs[1:]] == [
        ("off-rate-0.01-en", "off-rate-0.01-de", "off-rate-0.01-tr", "off-rate-0.1-en"),
        ("off-rate-0.1-de", "off-rate-0.1-tr"),
    ]


def test_the_edits_and_the_identifier_of_a_job() -> None:
    baseline, job = variants.jobs(checked(["off"]), PERPLEXITY)
    assert baseline.edits == ()
    assert job.edits == ("off-en", "off-de", "off-tr")
    assert Job("off-rate-part-2", "off-rate", ()).identifier == "off_rate_part_2"
    assert variants.identifier("lape-top-0.01") == "lape_top_0_01"


# -- neurons -----------------------------------------------------------------------------------------------------------


def test_names_of_selections() -> None:
    found = checked()
    names = {name: variants.selection(found, name) for name in found["perturbations"]}
    assert names == {
        **{"off": "lape", "off-rate-0.01": "lape-top-0.01", "off-rate-0.1": "lape-top-0.1", "off-product": "probe"},
        **{"any": "lape", "any-rate-0.01": "lape-top-0.01", "any-rate-0.1": "lape-top-0.1", "any-active": "lape"},
        **{"on-1": "lape", "on-minus-2": "lape", "any-on-1": "lape", "any-on-minus-2": "lape"},
        **{"swap": "probe-top-0.2", "shift": None, "any-shift": None},
    }


def test_selections_that_the_run_needs() -> None:
    """The default first, then what is compared, then what variants need, with the default rate where none is named."""
    found = checked()
    expected = {
        "lape": {"method": "lape", "top_rate": 0.05},
        "lape-bonus": {"method": "lape-bonus", "top_rate": 0.05},
        "lape-top-0.01": {"method": "lape", "top_rate": 0.01},
        "lape-top-0.1": {"method": "lape", "top_rate": 0.1},
        "probe": {"method": "probe", "top_rate": 0.05},
        "probe-top-0.2": {"method": "probe", "top_rate": 0.2},
    }
    assert variants.run_selections(found) == expected
    assert list(variants.run_selections(found)) == experiment.selections(found, "small") == list(expected)
    assert list(variants.run_selections(checked(["shift", "any"]))) == ["lape", "lape-bonus"]


def test_the_rate_of_the_run_is_no_rate_of_its_own() -> None:
    catalogue = {"off": {"kind": "deactivate", "top_rate": [0.05, 0.1]}}
    found = checked(catalogue=catalogue, identification={"top_rate": 0.1, "method": "probe", "compare": []})
    assert variants.run_selections(found) == {
        "probe": {"method": "probe", "top_rate": 0.1},
        "probe-top-0.05": {"method": "probe", "top_rate": 0.05},
    }


# -- plans -------------------------------------------------------------------------------------------------------------


def test_plans_say_how_each_member_edits() -> None:
    found = checked()
    rows = variants.plans(found, "any-on", "small")
    assert [row["id"] for row in rows] == [
        *("any-on-1-en-1", "any-on-1-en-2", "any-on-1-tr-1", "any-on-1-tr-2"),
        *("any-on-minus-2-en-1", "any-on-minus-2-en-2", "any-on-minus-2-tr-1", "any-on-minus-2-tr-2"),
    ]
    assert rows[-1] == {
        **{"id": "any-on-minus-2-tr-2", "language": "tr", "source": None, "draw": 2, "variant": "any-on-minus-2"},
        **{"kind": "random", "of": ["on-minus-2"], "base": "steer", "selection": "lape"},
        **{"site": "product", "edit": "set", "scale": -2, "layers": None, "control": "layer", "nearest": 5},
    }
    assert variants.plans(found, "off-rate", "small")[-1] == {
        **{"id": "off-rate-0.1-tr", "language": "tr", "source": None, "draw": None, "variant": "off-rate-0.1"},
        **{"kind": "deactivate", "of": [], "base": "deactivate", "selection": "lape-top-0.1"},
        **{"site": "activation", "scale": None},
    }
    shift = variants.plans(found, "shift", "small")[0]
    assert (shift["base"], shift["site"], shift["layers"], shift["scale"]) == ("steer", "residual", [3, 1], 0.5)
    assert shift["selection"] is None
    active = variants.plans(found, "any-active", "small")[0]
    assert (active["base"], active["control"], active["nearest"]) == ("deactivate", "activity", 3)


def two_models(scale_by_model: Mapping) -> Mapping:
    """A config of two models that are steered, with controls, and one of them with two seeds."""
    catalogue = {
        "on": {"kind": "steer", "scale": 2, "scale_by_model": scale_by_model},
        "any": {"kind": "random", "of": "on", "draws": 1},
        "off": {"kind": "deactivate"},
    }
    models = {name: {"source": "demo", "architecture": "llama"} for name in ("small", "big")}
    models["big"]["training_seeds"] = [0, 1]  # type: ignore[assignment]
    return checked(catalogue=catalogue, models=models)


def scales(found: Mapping, family: str) -> Mapping:
    """The scale of a family's plans by model."""
    return {
        model: {row["scale"] for row in variants.plans(found, family, model)} for model in [*found["models"], "other"]
    }


@pytest.mark.parametrize(
    ("given", "small", "first", "second"),
    [
        ({}, 2, 2, 2),
        ({"small": 6}, 6, 2, 2),
        ({"big": -0.5}, 2, -0.5, -0.5),  # all of its seeds
        ({"big-seed-1": 0}, 2, 2, 0),
        ({"big": 3, "big-seed-1": 4}, 2, 3, 4),
        ({"big-seed-1": 4, "big": 3}, 2, 3, 4),  # what is named more exactly wins, in either order
    ],
)
def test_a_scale_of_its_own_for_a_model(given: Mapping, small: float, first: float, second: float) -> None:
    """Its controls have it too; other models have that of the variant, and other variants have none."""
    found = two_models(given)
    expected = {"small": {small}, "big-seed-0": {first}, "big-seed-1": {second}, "other": {2}}
    assert scales(found, "on") == scales(found, "any") == expected
    assert scales(found, "off") == {model: {None} for model in expected}


def test_scales_by_model_in_the_settings() -> None:
    rows = {row["variant"]: row for row in variants.settings(two_models({"small": 6, "big": -0.5}))}
    for name in ("on", "any"):
        assert rows[name]["scale"] == 2
        assert sorted(rows[name]["scale_by_model"].split(", ")) == ["big-seed-0 -0.5", "big-seed-1 -0.5", "small 6"]
    assert rows["off"]["scale_by_model"] is None
    assert variants.settings(two_models({}))[0]["scale_by_model"] is None


def test_every_member_is_planned_once() -> None:
    found = checked()
    planned = [row["id"] for family in variants.families(found) for row in variants.plans(found, family, "small")]
    assert ["none", *planned] == variants.perturbations(found)


def test_selections_of_a_plan() -> None:
    found = checked()
    assert {family: variants.plan_selections(found, family) for family in variants.families(found)} == {
        **{"off": ["lape"], "off-rate": ["lape-top-0.01", "lape-top-0.1"], "off-product": ["probe"], "any": ["lape"]},
        **{"any-rate": ["lape-top-0.01", "lape-top-0.1"], "any-active": ["lape"], "on": ["lape"], "any-on": ["lape"]},
        **{"swap": ["probe-top-0.2"], "shift": [], "any-shift": []},
    }


def test_plans_that_need_recordings() -> None:
    """Means to steer to, also of random neurons; hidden states to shift; probabilities to match."""
    found = checked()
    needed = {family: variants.plan_needs_activations(found, family) for family in variants.families(found)}
    assert needed == {
        **dict.fromkeys(["off", "off-rate", "off-product", "any", "any-rate"], False),
        **dict.fromkeys(["any-active", "on", "any-on", "swap", "shift", "any-shift"], True),
    }


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_for_the_tables() -> None:
    rows = {row["variant"]: row for row in variants.settings(checked())}
    assert list(rows) == checked()["run"]["perturbations"]
    keys = ("family", "kind", "of", "method", "top_rate", "site", "edit", "scale", "layers", "control")
    expected: dict[str, tuple[Any, ...]] = {
        "off": ("off", "deactivate", None, "lape", 0.05, "activation", None, None, None, None),
        "off-rate-0.1": ("off-rate", "deactivate", None, "lape", 0.1, "activation", None, None, None, None),
        "off-product": ("off-product", "deactivate", None, "probe", 0.05, "product", None, None, None, None),
        "any": ("any", "random", "off", "lape", 0.05, "activation", None, None, None, "layer"),
        "any-rate-0.01": (
            *("any-rate", "random", "off-rate-0.01", "lape", 0.01, "activation", None, None, None, "layer"),
        ),
        "any-active": ("any-active", "random", "off", "lape", 0.05, "activation", None, None, None, "activity"),
        "on-minus-2": ("on", "steer", None, "lape", 0.05, "product", "set", -2, None, None),
        "any-on-1": ("any-on", "random", "on-1", "lape", 0.05, "product", "set", 1, None, "layer"),
        "swap": ("swap", "steer", None, "probe", 0.2, "product", "add", 1, None, None),
        # A shift is added, and selects no neurons.
        "shift": ("shift", "steer", None, None, None, "residual", "add", 0.5, "3, 1", None),
        "any-shift": ("any-shift", "random", "shift", None, None, "residual", "add", 0.5, "3, 1", "layer"),
    }
    assert {name: tuple(rows[name][key] for key in keys) for name in expected} == expected
    assert all(set(row) == {"variant", "scale_by_model", *keys} for row in rows.values())


def test_several_controlled_variants_in_one_cell() -> None:
    catalogue = {"a": {"kind": "deactivate"}, "b": {"kind": "deactivate"}, "any": {"kind": "random"}}
    assert [row["of"] for row in variants.settings(checked(catalogue=catalogue))] == [None, None, "a, b"]


# -- what is there of a model ------------------------------------------------------------------------------------------


def test_contents_of_an_own_model() -> None:
    found = checked(["off", "off-rate-0.1", "on-1"])
    there = experiment.contents(found, "small")
    assert there["read"] == variants.perturbations(found, PERPLEXITY)
    assert there["answered"] == variants.perturbations(found, ANSWERS)
    assert there["methods"] == ["lape", "lape-bonus", "lape-top-0.1"]
    assert (there["published"], there["recorded"]) == (False, True)
