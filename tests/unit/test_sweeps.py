"""Sweeps in the config: which variants and models a list stands for, and messages on mistakes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from langneurons import config, variants
from langneurons.errors import ConfigError
from langneurons.validation import validate

Mapping = dict[str, Any]

SMALL = {"source": "demo", "architecture": "llama"}


def checked(perturbations: Mapping, run: list[str] | None = None, **changes: Any) -> Mapping:
    """A valid config with this catalogue of variants, all of which run unless `run` names some."""
    return validate(written(perturbations, run, **changes))


def written(perturbations: Mapping, run: list[str] | None = None, **changes: Any) -> Mapping:
    chosen = {"perturbations": list(perturbations) if run is None else run}
    return {
        "run": {"models": ["small"], "languages": ["en", "de", "tr"], **chosen},
        "models": {"small": SMALL},
        "perturbations": copy.deepcopy(perturbations),
        **changes,
    }


def message(perturbations: Mapping, run: list[str] | None = None, **changes: Any) -> str:
    """The message on this catalogue of variants."""
    with pytest.raises(ConfigError) as caught:
        checked(perturbations, run, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def catalogue(perturbations: Mapping) -> Mapping:
    """The variants that a catalogue stands for."""
    found: Mapping = checked(perturbations)["perturbations"]
    return found


# -- what a list stands for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "values", "names"),
    [
        ("deactivate", "method", ["lape", "probe"], ["v-lape", "v-probe"]),
        ("deactivate", "top_rate", [0.01, 0.125, 0.1], ["v-0.01", "v-0.125", "v-0.1"]),
        ("deactivate", "site", ["product", "activation"], ["v-product", "v-activation"]),
        ("steer", "site", ["product", "residual"], ["v-product", "v-residual"]),
        ("steer", "edit", ["add", "set"], ["v-add", "v-set"]),
        ("steer", "scale", [-2, -0.5, 0, 1, 1.5], ["v-minus-2", "v-minus-0.5", "v-0", "v-1", "v-1.5"]),
        ("random", "top_rate", [0.01, 0.1], ["v-0.01", "v-0.1"]),
        ("random", "site", ["product", "activation"], ["v-product", "v-activation"]),
        ("random", "method", ["lape", "probe"], ["v-lape", "v-probe"]),
    ],
)
def test_each_value_of_a_list_is_a_variant(kind: str, key: str, values: list[Any], names: list[str]) -> None:
    """In the order of the list, named by the value; nothing else differs between them."""
    single = catalogue({"v": {"kind": kind, key: values[0]}})["v"]
    found = catalogue({"v": {"kind": kind, key: values}})
    assert list(found) == names
    assert [variant[key] for variant in found.values()] == values
    for variant in found.values():
        assert {**variant, key: values[0]} == single


@pytest.mark.parametrize(
    ("key", "value"), [("method", "probe"), ("top_rate", 0.1), ("site", "product"), ("edit", "add"), ("scale", -3)]
)
@pytest.mark.parametrize("in_a_list", [False, True])
def test_a_single_value_gets_no_suffix(key: str, value: Any, in_a_list: bool) -> None:
    found = catalogue({"v": {"kind": "steer", key: [value] if in_a_list else value}})
    assert list(found) == ["v"]
    assert found["v"][key] == value


def test_lists_combine_in_the_order_of_the_keys_not_of_the_config() -> None:
    """method, top_rate, site, edit, scale; the last varies fastest. A list of one value leaves no trace."""
    found = catalogue(
        {
            "v": {
                "kind": "steer",
                "scale": [1, -1],
                "edit": ["set"],
                "site": ["product", "activation"],
                "method": ["probe", "lape"],
            }
        }
    )
    assert list(found) == [
        *("v-probe-product-1", "v-probe-product-minus-1", "v-probe-activation-1", "v-probe-activation-minus-1"),
        *("v-lape-product-1", "v-lape-product-minus-1", "v-lape-activation-1", "v-lape-activation-minus-1"),
    ]
    chosen = found["v-lape-product-minus-1"]
    assert [chosen[key] for key in ("method", "site", "edit", "scale")] == ["lape", "product", "set", -1]
    assert "top_rate" not in chosen


def test_all_five_lists_combine() -> None:
    found = catalogue(
        {
            "v": {
                "kind": "steer",
                **{"method": ["lape", "probe"], "top_rate": [0.1, 0.2], "site": ["activation", "product"]},
                **{"edit": ["set", "add"], "scale": [1, 2]},
            }
        }
    )
    assert len(found) == 2**5
    assert next(iter(found)) == "v-lape-0.1-activation-set-1"
    assert list(found)[-1] == "v-probe-0.2-product-add-2"


def test_numbers_that_agree_in_six_digits_are_still_two_variants() -> None:
    found = catalogue({"v": {"kind": "steer", "scale": [1.00000001, 1, -1.00000001, 1e-05, -1e-05]}})
    assert list(found) == ["v-1.00000001", "v-1", "v-minus-1.00000001", "v-1e-05", "v-minus-1e-05"]
    rates = checked({"v": {"kind": "deactivate", "top_rate": [0.02, 0.020000001]}}, identification={"compare": []})
    selections = variants.run_selections(rates)
    assert {name: one["top_rate"] for name, one in selections.items()} == {
        "lape": 0.05,
        "lape-top-0.02": 0.02,
        "lape-top-0.020000001": 0.020000001,
    }


def test_a_variant_knows_its_family_and_what_it_does() -> None:
    found = catalogue(
        {
            "off": {"kind": "deactivate", "top_rate": [0.1, 0.2]},
            "on": {"kind": "steer"},
            "any": {"kind": "random"},
            "any-off": {"kind": "random", "of": "off"},
            "any-on": {"kind": "random", "of": "on"},
        }
    )
    assert {name: (one["family"], one["kind"], one["base"], one["site"]) for name, one in found.items()} == {
        "off-0.1": ("off", "deactivate", "deactivate", "activation"),
        "off-0.2": ("off", "deactivate", "deactivate", "activation"),
        "on": ("on", "steer", "steer", "product"),
        "any": ("any", "random", "deactivate", "activation"),
        "any-off-0.1": ("any-off", "random", "deactivate", "activation"),
        "any-off-0.2": ("any-off", "random", "deactivate", "activation"),
        "any-on": ("any-on", "random", "steer", "product"),
    }


def test_the_users_mapping_is_not_changed() -> None:
    given = written({"v": {"kind": "steer", "scale": [1, 2], "targets": ["en"]}})
    before = copy.deepcopy(given)
    validate(given)
    assert given == before


# -- controls ----------------------------------------------------------------------------------------------------------


def test_a_control_expands_along_and_inherits() -> None:
    sweep = {
        "kind": "steer",
        **{"method": "probe", "top_rate": 0.1, "site": "activation", "edit": "add", "scale": [-1, 2]},
        **{"targets": ["de"], "source_off": True},
    }
    found = catalogue({"on": sweep, "any": {"kind": "random", "of": "on", "draws": 3, "measure": ["answers"]}})
    assert list(found) == ["on-minus-1", "on-2", "any-minus-1", "any-2"]
    for name, scale in (("minus-1", -1), ("2", 2)):
        control, controlled = found[f"any-{name}"], found[f"on-{name}"]
        assert (control["kind"], control["of"], control["base"]) == ("random", f"on-{name}", "steer")
        assert (control["draws"], control["measure"]) == (3, ["answers"])
        assert controlled["scale"] == control["scale"] == scale
        inherited = ("method", "top_rate", "site", "edit", "targets", "source_off", "layers")
        assert {key: control[key] for key in inherited} == {key: controlled[key] for key in inherited}
        assert [control[key] for key in inherited] == ["probe", 0.1, "activation", "add", ["de"], True, None]


def test_a_control_may_stand_before_what_it_controls() -> None:
    found = catalogue(
        {"any": {"kind": "random", "of": "off"}, "off": {"kind": "deactivate", "site": ["product", "activation"]}}
    )
    assert list(found) == ["any-product", "any-activation", "off-product", "off-activation"]
    assert found["any-product"]["site"] == "product"


def test_a_control_of_a_shift_inherits_its_layers() -> None:
    found = catalogue(
        {
            "shift": {"kind": "steer", "site": "residual", "layers": [1, 3], "scale": 2},
            "any": {"kind": "random", "of": "shift"},
        }
    )
    assert (found["any"]["site"], found["any"]["layers"], found["any"]["scale"]) == ("residual", [1, 3], 2)


def test_a_control_without_of_sweeps_by_itself() -> None:
    found = catalogue({"any": {"kind": "random", "top_rate": [0.1, 0.2], "site": ["activation", "product"]}})
    assert list(found) == ["any-0.1-activation", "any-0.1-product", "any-0.2-activation", "any-0.2-product"]
    assert [one["of"] for one in found.values()] == [None] * 4


@pytest.mark.parametrize(
    ("key", "value"), [("site", "product"), ("method", "probe"), ("top_rate", 0.1), ("top_rate", [0.1, 0.2])]
)
def test_a_control_has_nothing_of_its_own_that_it_inherits(key: str, value: Any) -> None:
    text = message({"off": {"kind": "deactivate"}, "any": {"kind": "random", "of": "off", key: value}})
    assert text == (
        f"config key 'perturbations.any.{key}': a control of 'off' takes this from there. Leave it out, or leave out "
        "'of'."
    )
    assert key in catalogue({"any": {"kind": "random", key: value}}).popitem()[1]


def test_a_control_of_an_unknown_variant() -> None:
    text = message({"off": {"kind": "deactivate"}, "on": {"kind": "steer"}, "any": {"kind": "random", "of": "of"}})
    assert text == (
        "config key 'perturbations.any.of' names 'of', which is no entry of 'perturbations'. Variants with controls: "
        "off, on."
    )
    assert message({"any": {"kind": "random", "of": "x"}}).endswith("Variants with controls: none.")


def test_a_control_of_one_variant_of_a_sweep_is_refused() -> None:
    """A control follows the whole sweep; its parts are no entries."""
    text = message({"off": {"kind": "deactivate", "top_rate": [0.1, 0.2]}, "any": {"kind": "random", "of": "off-0.1"}})
    assert text.startswith("config key 'perturbations.any.of' names 'off-0.1', which is no entry of 'perturbations'.")


@pytest.mark.parametrize("of", [None, "off"])
@pytest.mark.parametrize("order", [["off", "first", "second"], ["second", "first", "off"]])
def test_a_control_of_a_control_is_refused(of: str | None, order: list[str]) -> None:
    """With or without an `of` of the first, and wherever the second stands."""
    given = {
        "off": {"kind": "deactivate"},
        "first": {"kind": "random"} if of is None else {"kind": "random", "of": of},
        "second": {"kind": "random", "of": "first"},
    }
    assert message({name: given[name] for name in order}) == (
        "config key 'perturbations.second.of' names 'first', which is a random variant itself. Variants with controls: "
        "off."
    )
    text = message({"self": {"kind": "random", "of": "self"}})
    assert text.startswith("config key 'perturbations.self.of' names 'self', which is a random variant itself.")


# -- the lists of the run ----------------------------------------------------------------------------------------------


def test_the_run_names_sweeps() -> None:
    given = {
        "off": {"kind": "deactivate", "top_rate": [0.1, 0.2]},
        "any": {"kind": "random", "of": "off", "draws": 1},
        "one": {"kind": "deactivate"},
    }
    run = checked(given, ["one", "any", "off"])["run"]["perturbations"]
    assert run == ["one", "any-0.1", "any-0.2", "off-0.1", "off-0.2"]
    found = checked(given, ["any"])
    assert found["run"]["perturbations"] == ["any-0.1", "any-0.2"]
    assert list(found["perturbations"]) == ["off-0.1", "off-0.2", "any-0.1", "any-0.2", "one"]  # all are kept


def test_the_run_may_name_one_variant_of_a_sweep() -> None:
    given = {"off": {"kind": "deactivate", "top_rate": [0.1, 0.2]}}
    found = checked(given, ["off-0.2"])
    assert found["run"]["perturbations"] == ["off-0.2"]
    assert variants.perturbations(found) == ["none", "off-0.2-en", "off-0.2-de", "off-0.2-tr"]
    assert message(given, ["off", "off-0.2"]) == (
        "config key 'run.perturbations' names 'off-0.2' twice: by itself, and as a part of a sweep. Leave out one of "
        "them."
    )


def test_an_unknown_name_behind_a_sweep_is_found_where_it_was_written() -> None:
    given = {"off": {"kind": "deactivate", "top_rate": [0.1, 0.2, 0.3]}}
    assert message(given, ["off", "zap"]) == (
        "config key 'run.perturbations[1]' names 'zap', which is no entry of 'perturbations'. Entries there: off-0.1, "
        "off-0.2, off-0.3."
    )
    assert message(given, ["off", "none"]).startswith("config key 'run.perturbations[1]' names the baseline 'none'")


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [["on", "on-2"], ["on-2", "on"]])
@pytest.mark.parametrize("run", [["on"], ["on-2"], []])
def test_a_name_that_a_sweep_takes(order: list[str], run: list[str]) -> None:
    given = {"on": {"kind": "steer", "scale": [1, 2]}, "on-2": {"kind": "deactivate"}}
    assert message({name: given[name] for name in order}, run) == (
        "config key 'perturbations.on': its sweep gives the variant 'on-2', a name that is taken. Rename one of them."
    )


def test_a_name_that_a_sweep_takes_is_taken_even_by_another_sweep() -> None:
    """`on-2` stands for others, yet is written in the config: `run.perturbations: [on-2]` would mean two things."""
    text = message({"on": {"kind": "steer", "scale": [1, 2]}, "on-2": {"kind": "steer", "edit": ["set", "add"]}})
    assert text.startswith("config key 'perturbations.on': its sweep gives the variant 'on-2', a name that is taken.")


def test_a_name_that_two_sweeps_take() -> None:
    given = {
        "on": {"kind": "steer", "edit": ["set", "add"], "scale": [1, 2]},
        "on-set": {"kind": "steer", "scale": [2, 3]},
    }
    assert message(given) == (
        "config key 'perturbations.on-set': its sweep gives the variant 'on-set-2', a name that is taken. Rename one "
        "of them."
    )


def test_a_name_that_the_control_of_a_sweep_takes() -> None:
    given = {
        "on": {"kind": "steer", "scale": [1, 2]},
        "any": {"kind": "random", "of": "on"},
        "any-1": {"kind": "deactivate"},
    }
    text = message(given)
    assert text.startswith("config key 'perturbations.any': its sweep gives the variant 'any-1', a name that is taken.")


# -- the residual stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("source_off", True, "switches neurons off, and there are none"),
        ("method", "probe", "selects neurons, and there are none"),
        ("top_rate", 0.1, "selects neurons, and there are none"),
    ],
)
@pytest.mark.parametrize("sites", ["residual", ["product", "residual"]])
def test_what_a_shift_cannot_use(key: str, value: Any, reason: str, sites: Any) -> None:
    """The key is named as the config has it, also in a sweep."""
    text = message({"on": {"kind": "steer", "site": sites, key: value}})
    assert text == f"config key 'perturbations.on.{key}' {reason} at the site residual."


@pytest.mark.parametrize("site", ["product", "activation"])
def test_layers_are_for_the_residual_stream_only(site: str) -> None:
    text = message({"on": {"kind": "steer", "site": site, "layers": [1]}})
    assert text == f"config key 'perturbations.on.layers' is for the site residual only at the site {site}."
    assert message({"on": {"kind": "deactivate", "layers": [1]}}).startswith(
        "config key 'perturbations.on.layers' is unknown."
    )


def test_directions_are_not_drawn_by_activity() -> None:
    shift = {"kind": "steer", "site": "residual"}
    text = message({"on": shift, "any": {"kind": "random", "of": "on", "control": "activity"}})
    assert text == ("config key 'perturbations.any.control' matches neurons, and there are none at the site residual.")
    assert catalogue({"on": shift, "any": {"kind": "random", "of": "on"}})["any"]["control"] == "layer"


def test_what_a_control_inherits_is_refused_where_it_is_written() -> None:
    """The control stands first, but the key is not its own."""
    shift = {"kind": "steer", "site": "residual", "source_off": True}
    text = message({"any": {"kind": "random", "of": "on"}, "on": shift})
    assert text.startswith("config key 'perturbations.on.source_off' switches neurons off")


def test_sites_of_neurons_and_of_the_stream_sweep_together() -> None:
    found = catalogue({"on": {"kind": "steer", "site": ["activation", "product", "residual"]}})
    assert list(found) == ["on-activation", "on-product", "on-residual"]
    assert found["on-residual"]["layers"] is None


# -- the schema --------------------------------------------------------------------------------------------------------

METHODS = "lape, lape-bonus, mean-difference, average-precision, probe"


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"),
    [
        ("steer", "scale", [], ".scale': [] should be non-empty"),
        ("steer", "scale", [1, 1.0], ".scale': [1, 1.0] has non-unique elements"),
        ("steer", "scale", "2", ".scale' is '2', but must be a number or a list"),
        ("steer", "scale", [1, "2"], ".scale.1' is '2', but must be a number."),
        ("steer", "scale", None, ".scale' is None, but must be a number or a list"),
        ("deactivate", "site", "gate", ".site' is 'gate'; choose one of: activation, product."),
        ("deactivate", "site", "residual", ".site' is 'residual'; choose one of: activation, product."),
        ("deactivate", "site", ["product", "residual"], ".site.1' is 'residual'; choose one of: activation, product."),
        ("deactivate", "site", [], ".site': [] should be non-empty"),
        ("steer", "site", "gate", ".site' is 'gate'; choose one of: activation, product, residual."),
        ("random", "site", "residual", ".site' is 'residual'; choose one of: activation, product."),
        ("steer", "edit", "mul", ".edit' is 'mul'; choose one of: set, add."),
        ("steer", "edit", ["set", "mul"], ".edit.1' is 'mul'; choose one of: set, add."),
        ("deactivate", "method", "lda", f".method' is 'lda'; choose one of: {METHODS}."),
        ("random", "method", ["lape", "lda"], f".method.1' is 'lda'; choose one of: {METHODS}."),
        ("deactivate", "method", [], ".method': [] should be non-empty"),
        ("deactivate", "top_rate", [], ".top_rate': [] should be non-empty"),
        ("deactivate", "top_rate", 0, ".top_rate': 0 is less than or equal to the minimum of 0"),
        ("deactivate", "top_rate", [0.1, 1], ".top_rate.1': 1 is greater than or equal to the maximum of 1"),
        ("deactivate", "top_rate", "5%", ".top_rate' is '5%', but must be a number or a list"),
        ("steer", "layers", [], ".layers': [] should be non-empty"),
        ("steer", "layers", [-1], ".layers.0': -1 is less than the minimum of 0"),
        ("steer", "layers", 2, ".layers' is 2, but must be a list or null"),
        ("steer", "targets", [], ".targets': [] should be non-empty"),
        ("steer", "source_off", "de", ".source_off' is 'de', but must be true or false"),
        (
            "deactivate",
            "measure",
            ["perplexities"],
            ".measure.0' is 'perplexities'; choose one of: perplexity, answers",
        ),
        ("deactivate", "measure", [], ".measure': [] should be non-empty"),
        ("random", "control", "width", ".control' is 'width'; choose one of: layer, activity."),
        ("random", "nearest", 0, ".nearest': 0 is less than the minimum of 1"),
        ("deactivate", "scale", 2, ".scale' is unknown. Known keys here: kind, measure, method, site, top_rate."),
        ("deactivate", "of", "off", ".of' is unknown."),
        ("steer", "draws", 2, ".draws' is unknown."),
        ("steer", "sclae", 2, ".sclae' is unknown. Did you mean 'scale'?"),
        ("random", "scale", 2, ".scale' is unknown."),
        ("random", "targets", ["de"], ".targets' is unknown."),
    ],
)
def test_a_mistake_in_a_variant(kind: str, key: str, value: Any, expected: str) -> None:
    text = message({"v": {"kind": kind, key: value}})
    assert text.startswith(f"config key 'perturbations.v{expected}")


@pytest.mark.parametrize("scale", [2, [1, 2]])
def test_a_target_that_is_not_recorded(scale: Any) -> None:
    given = {"on": {"kind": "steer", "targets": ["de", "fi"], "scale": scale}, "any": {"kind": "random", "of": "on"}}
    expected = (
        "config key 'perturbations.on.targets' names 'fi', whose activations are not recorded. Add it to "
        "'run.languages'."
    )
    assert message(given, ["on"]) == expected
    assert message(given, ["any"]) == expected  # the control has the targets from there
    assert checked(given, [])["run"]["perturbations"] == []  # what does not run needs nothing


# -- a scale for one model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [["on", "any"], ["any", "on"]])
def test_a_scale_for_an_unknown_model(order: list[str]) -> None:
    given: Mapping = {
        "on": {"kind": "steer", "scale_by_model": {"small": 3, "smal": 2}},
        "any": {"kind": "random", "of": "on"},
    }
    assert message({name: given[name] for name in order}) == (
        "config key 'perturbations.on.scale_by_model' names 'smal', which is no entry of 'models': small."
    )


def test_a_scale_for_one_model_in_a_sweep() -> None:
    """Not of scales: which of them would it replace? Of anything else it is that of all variants."""
    text = message({"on": {"kind": "steer", "scale": [1, 2], "scale_by_model": {"small": 3}}})
    assert text == (
        "config key 'perturbations.on.scale_by_model' cannot be used while 'scale' is a list to sweep. Leave out one "
        "of them."
    )
    found = catalogue({"on": {"kind": "steer", "scale": [2], "edit": ["set", "add"], "scale_by_model": {"small": 3}}})
    assert [(one["scale"], one["scale_by_model"]) for one in found.values()] == [(2, {"small": 3})] * 2


@pytest.mark.parametrize(("kind", "value"), [("steer", {"small": "3"}), ("steer", 3), ("deactivate", {"small": 3})])
def test_a_scale_that_is_none(kind: str, value: Any) -> None:
    assert message({"on": {"kind": kind, "scale_by_model": value}}).startswith(
        "config key 'perturbations.on.scale_by_model"
    )


def test_the_default_catalogue_names_no_model() -> None:
    """A config that says nothing of perturbations may have any models."""
    found = validate({"run": {"models": ["mine"], "languages": ["en", "de"]}, "models": {"mine": SMALL}})
    assert {"steer", "random-steer"} <= set(found["perturbations"])


# -- seeds of the training ---------------------------------------------------------------------------------------------


def trained(run: list[str], **catalogue: Mapping) -> Mapping:
    """A valid config of these models; `_` in their names is a hyphen."""
    named = {name.replace("_", "-"): {**SMALL, **settings} for name, settings in catalogue.items()}
    chosen = {"models": run, "languages": ["en", "de", "tr"], "perturbations": []}
    return validate({"run": chosen, "models": named, "seed": 9})


def refusal(run: list[str], **catalogue: Mapping) -> str:
    """The message on these models."""
    with pytest.raises(ConfigError) as caught:
        trained(run, **catalogue)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_several_seeds_are_several_models() -> None:
    found = trained(["small", "big"], big={"layers": 2}, small={"training_seeds": [7, 0], "layers": 3})
    assert list(found["models"]) == ["big", "small-seed-7", "small-seed-0"]
    assert found["run"]["models"] == ["small-seed-7", "small-seed-0", "big"]
    for seed in (7, 0):
        model = found["models"][f"small-seed-{seed}"]
        assert (model["training_seeds"], model["layers"], model["neurons"]) == ([seed], 3, 512)
    assert found["models"]["big"]["training_seeds"] is None


@pytest.mark.parametrize("seeds", [None, [5]])
def test_no_or_one_seed_leaves_the_name(seeds: list[int] | None) -> None:
    found = trained(["small"], small={"training_seeds": seeds})
    assert (list(found["models"]), found["run"]["models"]) == (["small"], ["small"])
    assert found["models"]["small"]["training_seeds"] == seeds


def test_the_seed_of_a_training() -> None:
    found = trained(["one"], one={"training_seeds": [5]}, two={"training_seeds": [0, 3]}, own={})
    seeds = {name: config.training_seed(found, name) for name in found["models"]}
    assert seeds == {"one": 5, "two-seed-0": 0, "two-seed-3": 3, "own": 9}


@pytest.mark.parametrize("order", [["small", "small_seed_1"], ["small_seed_1", "small"]])
def test_a_name_that_a_seed_takes(order: list[str]) -> None:
    settings: Mapping = {"small": {"training_seeds": [0, 1]}, "small_seed_1": {}}
    assert refusal(["small"], **{name: settings[name] for name in order}) == (
        "config key 'models.small.training_seeds' gives the model 'small-seed-1', a name that is taken. Rename one of "
        "them."
    )


def test_a_model_of_one_seed_may_run_alone_but_not_twice() -> None:
    seeds = {"training_seeds": [0, 1]}
    assert trained(["small-seed-1"], small=seeds)["run"]["models"] == ["small-seed-1"]
    assert refusal(["small", "small-seed-1"], small=seeds) == (
        "config key 'run.models' names 'small-seed-1' twice: by itself, and as a part of a sweep. Leave out one of "
        "them."
    )


def test_an_unknown_model_behind_several_seeds_is_found_where_it_was_written() -> None:
    text = refusal(["small", "zap"], small={"training_seeds": [0, 1, 2]})
    assert text.startswith("config key 'run.models[1]' names 'zap', which is no entry of 'models'.")


@pytest.mark.parametrize("seeds", [[], [-1], [1, 1], 3, [0.5]])
def test_seeds_that_are_none(seeds: Any) -> None:
    text = refusal(["small"], small={"training_seeds": seeds})
    assert text.startswith("config key 'models.small.training_seeds")


def test_only_trained_models_have_seeds() -> None:
    hub = {"source": "hub", "id": "x/y", "training_seeds": [1]}
    with pytest.raises(ConfigError, match=r"^config key 'models\.other\.training_seeds' is unknown\."):
        checked({}, models={"small": SMALL, "other": hub})


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), [1, float("-inf")]])
def test_a_scale_that_is_no_number(scale: Any) -> None:
    """YAML has .nan and .inf, which a schema takes for numbers."""
    text = message({"on": {"kind": "steer", "scale": scale}})
    assert text == "config key 'perturbations.on.scale' is not finite. Write a number."
