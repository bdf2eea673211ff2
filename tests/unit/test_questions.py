"""The answers to the research questions: sentences from numbers, for effects that hold and for those that do not."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from langneurons.report.questions import MODELS, RQ1, RQ2, Answer, answers
from langneurons.validation import validate

NONE, NAN = "none", float("nan")
VARIANTS = {
    "steer": {"kind": "steer", "site": "product", "edit": "set", "scale": 2, "scale_by_model": {"other": 3}},
    "random-steer": {"kind": "random", "of": "steer", "draws": 2},
    "shift": {"kind": "steer", "site": "residual", "layers": [1]},
    "active": {"kind": "random", "control": "activity", "draws": 3},
}


def config_of(*variants: str, models: tuple[str, ...] = ("tiny",)) -> dict[str, Any]:
    catalogue = {name: {"source": "demo", "architecture": "llama"} for name in ("tiny", "other")}
    run = {"models": list(models), "languages": ["en", "de"], "perturbations": list(variants)}
    return validate({"run": run, "models": catalogue, "perturbations": {**DEFAULT, **VARIANTS}})


DEFAULT = {"deactivate": {"kind": "deactivate"}, "random": {"kind": "random", "draws": 2}}


def effect(language: str, edited: str, ratio: float, against: str = NONE, **changes: Any) -> dict[str, Any]:
    """A row of differences: perplexity, with an interval of a hundredth of a nat to both sides."""
    value = math.log(ratio)
    row = {
        **{"model": "tiny", "variant": "deactivate", "perturbation": f"deactivate-{edited}", "kind": "deactivate"},
        **{"language": language, "edited_language": edited, "measure": "perplexity", "unit": "windows"},
        **{"against": against, "draws": 0 if against == NONE else 2, "samples": 47, "reference": 3.0},
        **{"value": 3.0 + value, "difference": value, "low": value - 0.01, "high": value + 0.01},
        **{"p_value": 0.0001, "q_value": 0.0002, "note": None},
    }
    return row | changes


def sound() -> list[dict[str, Any]]:
    """Both languages hit at home, nowhere else, and clearly more than by random neurons."""
    return [
        effect("en", "en", 1.5),
        effect("en", "en", 1.45, "random"),
        effect("de", "en", 1.02),
        effect("de", "de", 1.2),
        effect("de", "de", 1.19, "random"),
        effect("en", "de", 1.01),
    ]


def success(variant: str, share: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    row = {"model": "tiny", "variant": variant, "language": "all", "target": "all", "prompts": 80, "draws": 0}
    return row | {"share": share, "low": low, "high": high, "note": None} | changes


def found(
    rows: list[dict[str, Any]], steering: list[dict[str, Any]] | None = None, config: dict[str, Any] | None = None
) -> list[Answer]:
    tables = {"differences": pd.DataFrame(rows), "steering": pd.DataFrame(steering or [])}
    return answers(tables, config or config_of("deactivate", "random"))


def test_nothing_measured_nothing_said() -> None:
    assert answers({}, config_of("deactivate", "random", "steer")) == []
    assert answers({"differences": pd.DataFrame()}, config_of("deactivate")) == []


def test_a_specific_effect() -> None:
    (answer,) = found(sound())
    assert (answer.question, answer.model, answer.supported, answer.figure) == (RQ1, "tiny", True, "language_effects")
    (text,) = answer.paragraphs
    assert "5.0% of all neurons by lape" in text
    assert "multiplied by 1.500 [1.485, 1.515] (en) and 1.200 [1.188, 1.212] (de), on 47 windows" in text
    assert "any other language by at most 1.020 [1.010, 1.030] (de text, en neurons off)" in text
    assert "as many random neurons in the same layers (random) (2 draws each)" in text
    assert "1.450 [1.436, 1.465] (en) and 1.190 [1.178, 1.202] (de) times as high (corrected p below 0.001)" in text
    assert "So these neurons matter for their language" in text
    assert "does not support" not in text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (effect("de", "de", 1.005, "random"), "for de, the effect is not clearly above the control"),
        (effect("de", "de", 1.19, "random", q_value=0.06), "for de, the effect is not clearly above the control"),
        (effect("de", "de", 0.995), "for de, the effect is not clearly above unperturbed text (0.995 [0.985, 1.005])"),
        (effect("de", "de", 0.9), "for de, perplexity falls (0.900 [0.891, 0.909])"),
        (effect("de", "de", 0.95, "random"), "for de, the control random has more effect (0.950 [0.941, 0.960])"),
        (effect("de", "de", 1.2, low=NAN, high=NAN, note="fewer than 10 windows"), "for de, fewer than 10 windows"),
        (effect("en", "de", 1.3), "with the neurons of de off, en is hit at least as hard"),
    ],
)
def test_an_effect_that_is_not_specific(row: dict[str, Any], words: str) -> None:
    """One number changed, and the claim is withdrawn, with the reason."""
    key = ("language", "edited_language", "against")
    rows = [row if all(one[name] == row[name] for name in key) else one for one in sound()]
    (answer,) = found(rows)
    assert answer.supported is False
    assert f"The evidence does not support the claim in every case: {words}" in answer.paragraphs[0]
    assert "So these neurons" not in answer.paragraphs[0]


def test_measures_without_a_single_case_are_left_out() -> None:
    none = {"measure": "loops", "unit": "prompts", "reference": 0.0, "value": 0.0}
    (answer,) = found([*sound(), effect("en", "en", 1, **none)])
    assert answer.paragraphs[1] == "The language of the answers was not measured."


def test_without_a_control_nothing_is_claimed() -> None:
    (answer,) = found([row for row in sound() if row["against"] == NONE], config=config_of("deactivate"))
    assert answer.supported is False
    assert "No random control of the same size was run" in answer.paragraphs[0]


def test_every_control_counts() -> None:
    """Above random neurons of the layer, but not above those as active."""
    rows = [*sound(), effect("en", "en", 1.3, "active"), effect("de", "de", 0.99, "active")]
    (answer,) = found(rows, config=config_of("deactivate", "random", "active"))
    assert answer.supported is False
    assert "Against random neurons as active as they in the same layers (active)" in answer.paragraphs[0]
    assert "for de, the control active has more effect (0.990" in answer.paragraphs[0]


def test_answers_of_the_perturbed_model() -> None:
    told = {"measure": "prompt_language", "unit": "prompts", "samples": 40, "reference": 0.95, "value": 0.9}
    rows = [
        *sound(),
        effect("en", "en", 1, **told, difference=-0.05, low=-0.1, high=0.01, q_value=0.2),
        effect("de", "de", 1, **{**told, "value": 0.4}, difference=-0.55, low=-0.7, high=-0.4, q_value=0.001),
    ]
    (answer,) = found(rows)
    assert answer.paragraphs[1] == (
        "In the answers to 40 prompts per language: answers in the prompt's language: en 95% to 90% (−5 points "
        "[−10, +1]), de 95% to 40% (−55 points [−70, −40]). Changed beyond chance: answers in the prompt's "
        "language (de)."
    )
    (unsure,) = found([*rows[:-1], rows[-1] | {"q_value": 0.08}])
    assert unsure.paragraphs[1].endswith(
        "on answers, degradation was not shown. By its interval alone, but not after the correction for many "
        "comparisons: answers in the prompt's language (de)."
    )
    (calm,) = found(rows[:-1])
    assert "None of these differs from the unperturbed model beyond chance" in calm.paragraphs[1]


def test_steering_that_works() -> None:
    steering = [
        success(NONE, 0.01, 0.002, 0.05),
        success("steer", 0.5, 0.4, 0.6),
        success("steer", 0.8, 0.6, 0.9, language="en", target="de"),
        success("steer", 0.2, 0.1, 0.4, language="de", target="en"),
        success("random-steer", 0.02, 0.01, 0.06, draws=2),
    ]
    (answer,) = found([], steering, config_of("steer", "random-steer"))
    assert (answer.question, answer.supported, answer.figure) == (RQ2, True, "steering_success")
    text = answer.paragraphs[0]
    assert text.startswith("steer (the target's neurons set to 2 times their mean product on it): 50% [40%, 60%] of ")
    assert "the answers to 80 prompts in other languages were in the target language, against 2% [1%, 6%] with" in text
    assert "1% [0%, 5%] of the unperturbed model" in text
    assert "Most often from en to de (80%), least often from de to en (20%)." in text
    assert text.endswith("The intervals do not overlap: it steers.")


@pytest.mark.parametrize(
    ("control", "words", "supported"),
    [
        (success("random-steer", 0.3, 0.2, 0.41), "does not support that it steers: the intervals overlap", False),
        (success("random-steer", 0.3, NAN, NAN), "There were too few prompts to tell.", None),
        (None, "Without a random control, it is open whether any other edit", None),
    ],
)
def test_steering_that_is_not_shown(control: dict[str, Any] | None, words: str, supported: bool | None) -> None:
    steering = [success("steer", 0.5, 0.4, 0.6), *([control] if control else [])]
    (answer,) = found([], steering, config_of("steer", "random-steer"))
    assert words in answer.paragraphs[0]
    assert bool(answer.supported) == bool(supported)


def test_a_shift_of_the_residual_stream_does_not_answer_for_neurons() -> None:
    steering = [success("steer", 0.1, 0.05, 0.2), success("random-steer", 0.1, 0.05, 0.2), success("shift", 1, 0.95, 1)]
    (answer,) = found([], steering, config_of("steer", "random-steer", "shift"))
    assert answer.supported is False
    assert "shift (the residual stream shifted by DiffMean): 100% [95%, 100%]" in answer.paragraphs[1]


def test_of_many_variants_the_best_are_described() -> None:
    """With a warning: what was picked by its success looks better than it is."""
    scales = [1, 2, 3, 4, 5, 6]
    sweep = {"sweep": {"kind": "steer", "scale": scales}}
    catalogue = {"tiny": {"source": "demo", "architecture": "llama"}}
    run = {"models": ["tiny"], "languages": ["en", "de"], "perturbations": ["sweep"]}
    config = validate({"run": run, "models": catalogue, "perturbations": sweep})
    rows = [success(f"sweep-{scale}", scale / 10, scale / 10 - 0.05, scale / 10 + 0.05) for scale in scales]
    (answer,) = found([], rows, config)
    assert answer.paragraphs[0].startswith("Of 6 variants that steer, the 4 with most success are shown.")
    assert [text.split(" ")[0] for text in answer.paragraphs[1:]] == ["sweep-3", "sweep-4", "sweep-5", "sweep-6"]


def test_the_scale_is_the_models() -> None:
    rows = [success("steer", 0.5, 0.4, 0.6, model="other")]
    (answer,) = found([], rows, config_of("steer", models=("other",)))
    assert "set to 3 times their mean" in answer.paragraphs[0]


def test_what_steering_costs() -> None:
    about = {"variant": "steer", "unit": "prompts", "reference": 0.1, "value": 0.3, "kind": "steer"}
    rows = [effect("en", "de", 1, **about, measure="loops"), effect("de", "en", 1, **about, measure="loops")]
    (answer,) = found(rows, [success("steer", 0.5, 0.4, 0.6)], config_of("steer"))
    assert answer.paragraphs[-1] == (
        "What it costs, unperturbed to steered: answers that end in a loop: 10% to 30% (steer). Whether a steered "
        "answer still addresses its question was not scored (metrics.relevance is not set)."
    )


def test_models_are_compared() -> None:
    rows = sound() + [{**row, "model": "other"} for row in sound() if row["against"] == NONE]
    first, second, both = found(rows, config=config_of("deactivate", "random", models=("tiny", "other")))
    assert (first.model, second.model, both.model, both.question) == ("tiny", "other", None, MODELS)
    assert (first.supported, second.supported, both.supported) == (True, False, False)
    assert both.paragraphs == (
        "Switching a language's neurons off has the effect in tiny; it was not shown to have it in other.",
    )
