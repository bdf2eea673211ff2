"""From selected neurons and recordings to edits, worked out by hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts, variants
from langneurons.errors import UserError
from langneurons.interventions import Intervention
from langneurons.neurons.controls import draw_as_active, draw_random
from langneurons.neurons.counting import ActivationCounts
from langneurons.planning import mean_difference, plan, target_mean
from langneurons.validation import validate

Json = dict[str, Any]

LAYERS, NEURONS, WIDTH = 3, 12, 4
SELECTED = pd.DataFrame(
    [("en", 0, 1), ("en", 0, 4), ("en", 2, 3), ("de", 0, 4), ("de", 1, 0), ("tr", 2, 11)],
    columns=["language", "layer", "neuron"],
).astype({"layer": np.int64, "neuron": np.int64})
"""English and German share neuron 4 of layer 0."""
SELECTIONS = {"lape": (SELECTED, {"layers": LAYERS, "neurons_per_layer": NEURONS})}
SEED = 3


def recording(language: int, tokens: int) -> ActivationCounts:
    """Sums by a formula, so that means can be worked out by hand: of `activation` 1000 * language + 100 * layer +
    neuron, of `product` the negative, of hidden states (language + 1) ** 2 * (layer + 1) in every dimension but the
    first."""
    layer, neuron = np.meshgrid(np.arange(LAYERS), np.arange(NEURONS), indexing="ij")
    mean = 1000.0 * language + 100 * layer + neuron
    hidden = np.outer(np.arange(1, LAYERS + 1), [0, 1, 1, 1]) * float((language + 1) ** 2)
    return ActivationCounts(
        over_zero=(7 * neuron + 3 * layer + language) % tokens,
        activation_sum=mean * tokens,
        product_sum=-mean * tokens,
        tokens=tokens,
        hidden_sum=hidden * tokens,
    )


RECORDINGS = {"en": recording(0, 50), "de": recording(1, 80), "tr": recording(2, 100)}


def member(**changes: Any) -> Json:
    """A member of a variant that switches neurons off, or of another, as `variants.plans` gives it."""
    base = {"language": "en", "source": None, "draw": None, "base": "deactivate", "selection": "lape"}
    steer = {"edit": "set", "scale": 1, "layers": None} if changes.get("base") == "steer" else {}
    random = {"control": "layer", "nearest": 2} if changes.get("draw") else {}
    return {"id": "v-en", "site": "activation", **base, **steer, **random, **changes}


def rows(edit: Intervention) -> list[tuple[int, int, float, float]]:
    """Layer, neuron, keep and fill of every entry."""
    found: list[tuple[int, int, float, float]] = list(edit.table.itertuples(index=False, name=None))
    return found


def planned(recordings: dict[str, ActivationCounts] = RECORDINGS, **changes: Any) -> Intervention:
    """The edit of a member."""
    return plan(member(**changes), SELECTIONS, recordings, SEED)


def refusal(recordings: dict[str, ActivationCounts] = RECORDINGS, **changes: Any) -> str:
    """The message on a member that cannot be planned."""
    with pytest.raises(UserError) as caught:
        planned(recordings, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- switching off -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["activation", "product"])
def test_deactivation(site: str) -> None:
    edit = planned({}, site=site)  # needs no recordings
    assert edit.site == site
    assert rows(edit) == [(0, 1, 0, 0), (0, 4, 0, 0), (2, 3, 0, 0)]


def test_deactivation_of_a_language_without_neurons() -> None:
    assert len(planned({}, language="fi")) == 0


def test_as_many_random_neurons_of_each_layer() -> None:
    edit = planned({}, draw=2)
    layers, neurons = draw_random(SELECTED, "en", 2, LAYERS, NEURONS, SEED)
    assert rows(edit) == [(layer, neuron, 0, 0) for layer, neuron in zip(layers, neurons, strict=True)]
    assert edit.table["layer"].tolist() == [0, 0, 2]
    assert rows(planned({}, draw=1)) != rows(edit)


def test_random_neurons_about_as_active_on_the_language() -> None:
    """By the probabilities on the language itself, not on another one."""
    draws = {}
    for language in ("en", "de"):
        edit = planned(language=language, draw=1, control="activity", nearest=1)
        probability = RECORDINGS[language].probability()
        layers, neurons = draw_as_active(SELECTED, language, 1, probability, 1, SEED)
        assert rows(edit) == [(layer, neuron, 0, 0) for layer, neuron in zip(layers, neurons, strict=True)]
        draws[language] = rows(edit)
    # By hand, layer 2: English owns neuron 3, active on 27 of 50 tokens. The free ones are all but 3 and 11, active on
    # (7n + 6) mod 50, that is 6, 13, 20, (27), 34, 41, 48, 5, 12, 19, 26: neuron 10 is nearest.
    assert draws["en"][-1] == (2, 10, 0, 0)
    # Layer 1: German owns neuron 0, active on 4 of 80 tokens; the others on 11, 18, .. 74, 1 (neuron 11).
    assert draws["de"][-1] == (1, 11, 0, 0)


def test_an_activity_control_needs_the_recording_of_its_language() -> None:
    assert refusal({"de": RECORDINGS["de"]}, id="any-en-1", draw=1, control="activity") == (
        "the perturbation 'any-en-1' needs the recorded activations of 'en', and there are none. Add the language to "
        "'run.languages'."
    )


# -- switching on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("site", "sign"), [("activation", 1), ("product", -1)])
@pytest.mark.parametrize(("edit", "keep"), [("set", 0), ("add", 1)])
@pytest.mark.parametrize("scale", [1, 2, -0.5])
def test_steering_by_hand(site: str, sign: int, edit: str, keep: float, scale: float) -> None:
    """German's neurons get a multiple of their mean on German text."""
    found = planned(language="de", base="steer", site=site, edit=edit, scale=scale)
    assert found.site == site
    # Means 1000 * 1 + 100 * layer + neuron: 1004 in layer 0, 1100 in layer 1. Both are whole, so exactly.
    assert rows(found) == [(0, 4, keep, scale * sign * 1004), (1, 0, keep, scale * sign * 1100)]


def test_steering_needs_the_recording_of_its_target_only() -> None:
    one = {"de": RECORDINGS["de"]}
    assert rows(planned(one, language="de", base="steer")) == rows(planned(language="de", base="steer"))


def test_steering_with_the_source_off() -> None:
    """German on, English off; the neuron that both own is German's."""
    edit = planned(language="de", source="en", base="steer", edit="add", scale=2)
    assert rows(edit) == [(0, 1, 0, 0), (0, 4, 1, 2008), (1, 0, 1, 2200), (2, 3, 0, 0)]
    assert edit.site == "activation"
    other = planned(language="en", source="de", base="steer", edit="set")
    assert rows(other) == [(0, 1, 0, 1), (0, 4, 0, 4), (1, 0, 0, 0), (2, 3, 0, 203)]


def test_random_neurons_are_steered_to_their_own_means_on_the_target() -> None:
    edit = planned(language="de", base="steer", draw=1, site="product", scale=2)
    layers, neurons = draw_random(SELECTED, "de", 1, LAYERS, NEURONS, SEED)
    assert not {(0, 4), (1, 0)} & set(zip(layers, neurons, strict=True))
    expected = [
        (layer, neuron, 0, -2 * (1000 + 100 * layer + neuron))
        for layer, neuron in zip(layers.tolist(), neurons.tolist(), strict=True)
    ]
    assert rows(edit) == expected


def test_random_neurons_with_random_ones_of_the_source_off() -> None:
    edit = planned(language="de", source="en", base="steer", draw=1)
    on = set(zip(*draw_random(SELECTED, "de", 1, LAYERS, NEURONS, SEED), strict=True))
    off = set(zip(*draw_random(SELECTED, "en", 1, LAYERS, NEURONS, SEED), strict=True))
    expected = {place: 1000 + 100 * place[0] + place[1] if place in on else 0.0 for place in on | off}
    assert {(layer, neuron): fill for layer, neuron, _, fill in rows(edit)} == expected
    assert (edit.table["keep"] == 0).all()


def test_random_neurons_as_active_as_those_of_the_target_and_the_source() -> None:
    edit = planned(language="de", source="tr", base="steer", draw=1, control="activity", nearest=1)
    on = draw_as_active(SELECTED, "de", 1, RECORDINGS["de"].probability(), 1, SEED)
    off = draw_as_active(SELECTED, "tr", 1, RECORDINGS["tr"].probability(), 1, SEED)
    assert set(zip(edit.table["layer"], edit.table["neuron"], strict=True)) == {
        place for drawn in (on, off) for place in zip(*drawn, strict=True)
    }


@pytest.mark.parametrize("site", ["activation", "product"])
def test_recordings_without_sums(site: str) -> None:
    bare = {"de": ActivationCounts(RECORDINGS["de"].over_zero, None, None, 80)}
    assert refusal(bare, id="on-de", language="de", base="steer", site=site) == (
        f"the perturbation 'on-de' sets neurons to their mean {site} on 'de', but the recording holds no such sums: it "
        "was published by others, and only counts how often neurons are active. Record the model here to steer it."
    )


def test_a_target_that_was_not_recorded() -> None:
    text = refusal({"de": RECORDINGS["de"]}, id="on-en", base="steer")
    assert text.startswith("the perturbation 'on-en' needs the recorded activations of 'en', and there are none.")


def test_target_means() -> None:
    counts = {"de": RECORDINGS["de"]}
    activation = target_mean(member(language="de", site="activation"), counts)
    product = target_mean(member(language="de", site="product"), counts)
    assert activation[2].tolist() == [1200 + neuron for neuron in range(NEURONS)]
    assert np.array_equal(product, -activation)
    assert activation.dtype == np.float64


# -- the residual stream -----------------------------------------------------------------------------------------------

# Mean hidden states, but for the first dimension, which is 0: English 1, German 4, Turkish 9, times layer + 1.
DIFFERENCE = {"en": 1 - (4 + 9) / 2, "de": 4 - (1 + 9) / 2, "tr": 9 - (1 + 4) / 2}


@pytest.mark.parametrize("language", ["en", "de", "tr"])
@pytest.mark.parametrize("scale", [1, -2])
def test_difference_of_means_by_hand(language: str, scale: float) -> None:
    """Each of the other languages counts alike, however many of its tokens were recorded."""
    edit = planned(language=language, base="steer", site="residual", selection=None, scale=scale, layers=[2, 0])
    assert edit.site == "residual"
    expected = [
        (layer, dimension, 1, scale * (layer + 1) * DIFFERENCE[language] * (dimension > 0))
        for layer in (0, 2)
        for dimension in range(WIDTH)
    ]
    assert rows(edit) == expected


@pytest.mark.parametrize(("layers", "middle"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (32, 15)])
def test_the_middle_layer(layers: int, middle: int) -> None:
    """Of an even number the lower one."""
    counts = {
        language: ActivationCounts(np.zeros((layers, 2)), None, None, 10, hidden_sum=np.full((layers, 3), value))
        for language, value in (("en", 20.0), ("de", 10.0))
    }
    edit = planned(counts, base="steer", site="residual")
    assert rows(edit) == [(middle, dimension, 1, 1) for dimension in range(3)]


def test_a_difference_that_is_asked_for_by_itself() -> None:
    found = mean_difference("tr", RECORDINGS, "x")
    assert found.tolist() == [[0, *[(layer + 1) * 6.5] * 3] for layer in range(LAYERS)]


def test_random_directions_are_as_long_in_every_layer_and_reproducible() -> None:
    how: Json = {"language": "tr", "base": "steer", "site": "residual", "layers": [0, 1], "scale": -2}
    found = {draw: planned(**how, draw=draw).by_layer() for draw in (1, 2, 3)}
    for layers in found.values():
        assert list(layers) == [0, 1]
        for layer, (dimensions, keep, fill) in layers.items():
            assert dimensions.tolist() == list(range(WIDTH))
            assert keep.tolist() == [1] * WIDTH
            # float64: some roundings of a sum of four squares
            assert np.linalg.norm(fill) == pytest.approx(2 * (layer + 1) * 6.5 * np.sqrt(3), rel=1e-14)
    directions = [fill / np.linalg.norm(fill) for layers in found.values() for _, _, fill in layers.values()]
    cosines = np.abs(np.array(directions) @ np.array(directions).T)[np.triu_indices(6, 1)]
    assert cosines.max() < 0.999  # no two are the same, in other layers or draws
    again = planned(**how, draw=1)
    assert rows(again) == rows(planned(**how, draw=1))
    assert rows(again) != rows(plan(member(**how, draw=1), SELECTIONS, RECORDINGS, SEED + 1))


def test_a_random_direction_does_not_depend_on_the_other_layers() -> None:
    how: Json = {"language": "tr", "base": "steer", "site": "residual", "draw": 1}
    both, one = planned(**how, layers=[0, 2]).by_layer(), planned(**how, layers=[2]).by_layer()
    assert one[2][2].tolist() == both[2][2].tolist()


def test_no_hidden_states() -> None:
    counts = {**RECORDINGS, "de": ActivationCounts(RECORDINGS["de"].over_zero, None, None, 80)}
    assert refusal(counts, id="shift-en", base="steer", site="residual") == (
        "the perturbation 'shift-en' shifts the residual stream, but the recording of 'de' holds no hidden states: it "
        "was published by others. Record the model here to steer it."
    )


@pytest.mark.parametrize("languages", [["en"], ["de", "tr"], []])
def test_no_language_to_compare_with(languages: list[str]) -> None:
    counts = {language: RECORDINGS[language] for language in languages}
    assert refusal(counts, id="shift-en", base="steer", site="residual") == (
        "the perturbation 'shift-en' needs recordings of 'en' and of at least one other language."
    )


@pytest.mark.parametrize(("layers", "first"), [([3], 3), ([0, 7, 4], 7)])
@pytest.mark.parametrize("draw", [None, 1])
def test_layers_that_the_model_lacks(layers: list[int], first: int, draw: int | None) -> None:
    assert refusal(id="shift-en", base="steer", site="residual", layers=layers, draw=draw) == (
        f"the perturbation 'shift-en' shifts the residual stream after layer {first}, but the model has 3 layers, the "
        "last of them 2. Correct 'layers' of its variant."
    )
    assert list(planned(base="steer", site="residual", layers=[2]).by_layer()) == [2]


# -- from the config to files ------------------------------------------------------------------------------------------

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "plan_perturbations.py"


def test_every_member_of_a_config_can_be_planned(tmp_path: Path) -> None:
    """The keys of `variants.plans` are those that `plan` reads, for every kind; each edit is in its own file."""
    config = validate(
        {
            "run": {
                "models": ["small"],
                "languages": ["en", "de", "tr"],
                "perturbations": ["off", "rate", "on", "swap", "shift", "any", "active", *(f"any-{n}" for n in "rosh")],
            },
            "models": {"small": {"source": "demo", "architecture": "gpt2"}},
            "perturbations": {
                "off": {"kind": "deactivate"},
                "rate": {"kind": "deactivate", "top_rate": [0.1, 0.2]},
                "on": {"kind": "steer", "edit": ["set", "add"], "scale": [1, -2]},
                "swap": {"kind": "steer", "source_off": True, "targets": ["tr"], "scale_by_model": {"small": 3}},
                "shift": {"kind": "steer", "site": "residual", "layers": [0, 2]},
                "any": {"kind": "random", "draws": 2},
                "active": {"kind": "random", "draws": 1, "control": "activity", "nearest": 1},
                "any-r": {"kind": "random", "of": "rate", "draws": 1},
                "any-o": {"kind": "random", "of": "on", "draws": 1, "control": "activity", "nearest": 1},
                "any-s": {"kind": "random", "of": "swap", "draws": 1},
                "any-h": {"kind": "random", "of": "shift", "draws": 1},
            },
        }
    )
    spec = importlib.util.spec_from_file_location("plan_perturbations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    size = {"layers": LAYERS, "neurons_per_layer": NEURONS}
    for name in variants.run_selections(config):
        artifacts.write_table(tmp_path / f"{name}.parquet", "neurons", SELECTED, size)
    for language, counts in RECORDINGS.items():
        artifacts.write_activations(tmp_path / f"{language}.safetensors", counts, {"language": language})
    found = {}
    for family in variants.families(config):
        members = variants.plans(config, family, "small")
        needed = RECORDINGS if variants.plan_needs_activations(config, family) else []
        script.main(
            [
                *(
                    "--neurons",
                    *(str(tmp_path / f"{name}.parquet") for name in variants.plan_selections(config, family)),
                ),
                *("--activations", *(str(tmp_path / f"{language}.safetensors") for language in needed)),
                *("--members", json.dumps(members), "--seed", str(SEED)),
                *("--outputs", *(str(tmp_path / f"{row['id']}.edit") for row in members)),
            ]
        )
        found |= {row["id"]: artifacts.read_intervention(tmp_path / f"{row['id']}.edit") for row in members}
    assert ["none", *found] == variants.perturbations(config)
    for edit in found.values():
        edit.check(LAYERS, NEURONS, WIDTH)
    assert rows(found["off-en"]) == rows(found["rate-0.2-en"]) == [(0, 1, 0, 0), (0, 4, 0, 0), (2, 3, 0, 0)]
    assert rows(found["on-add-minus-2-tr"]) == [(2, 11, 1, 2 * 2211)]  # the product's mean is negative
    assert rows(found["swap-en-tr"]) == [(0, 1, 0, 0), (0, 4, 0, 0), (2, 3, 0, 0), (2, 11, 0, 3 * -2211)]
    assert {name: edit.site for name, edit in found.items() if "tr" in name and "rate" not in name} == {
        **dict.fromkeys(["off-tr", "any-tr-1", "any-tr-2", "active-tr-1"], "activation"),
        **dict.fromkeys([f"on-{edit}-{scale}-tr" for edit in ("set", "add") for scale in ("1", "minus-2")], "product"),
        **dict.fromkeys(
            [f"any-o-{edit}-{scale}-tr-1" for edit in ("set", "add") for scale in ("1", "minus-2")], "product"
        ),
        **dict.fromkeys(["swap-en-tr", "swap-de-tr", "any-s-en-tr-1", "any-s-de-tr-1"], "product"),
        **dict.fromkeys(["shift-tr", "any-h-tr-1"], "residual"),
        "any-r-0.1-tr-1": "activation",
        "any-r-0.2-tr-1": "activation",
    }
    # The random draws of a control are as many per layer, and a table says what each file is.
    assert found["any-r-0.1-en-1"].table["layer"].tolist() == [0, 0, 2]
    _, about = artifacts.read_table(tmp_path / "any-o-add-minus-2-tr-1.edit", "intervention")
    assert (about["of"], about["draw"], about["scale"], about["site"]) == (["on-add-minus-2"], 1, -2, "product")
