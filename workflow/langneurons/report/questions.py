"""The answers to the research questions, in sentences made from the numbers: what was found, how surely, and what the
evidence does not support.

RQ1: does switching a language's neurons off degrade the model in that language, and those neurons rather than others?
RQ2: does switching them on steer the language of the answers?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from langneurons import variants
from langneurons.metrics.steering import ALL
from langneurons.report.findings import Tables, describe_model, join, ratio, table_of

Json = dict[str, Any]

LEVEL = 0.05
"""False discovery rate at which an effect is called."""
FEW = 4
"""So many variants that steer are described; of more, the most successful."""
RQ1, RQ2, MODELS = "RQ1", "RQ2", "Models"
TITLES = {
    RQ1: "Does switching a language's neurons off degrade the model in that language, and those rather than others?",
    RQ2: "Does switching a language's neurons on steer the language of the answers?",
    MODELS: "Do the neurons matter in every model?",
}


@dataclass(frozen=True)
class Answer:
    """The answer to one question for one model, or for all."""

    question: str
    model: str | None
    paragraphs: tuple[str, ...]
    supported: bool | None
    """None where nothing was measured that could tell."""
    figure: str | None = None
    """Name of the model's figure that shows it."""

    @property
    def title(self) -> str:
        """The question."""
        return TITLES[self.question]

    def shown(self) -> Json:
        """For the page's template."""
        figure = (self.model, self.figure) if self.figure else None
        return {
            **{"model": self.model, "question": self.question, "title": self.title, "figure": figure},
            **{"paragraphs": list(self.paragraphs), "supported": self.supported},
        }


def answers(tables: Tables, config: Json) -> list[Answer]:
    """Both questions for every model with measurements, and a comparison of the models.

    Args:
        tables: `differences`, `steering`, `variants`, `neurons` and those of `describe_model`, by name.
        config: validated, as `config.reported` gives it.
    """
    models = config["run"]["models"]
    result = [found for model in models for found in [_first(model, tables, config)] if found]
    result += [found for model in models for found in [_second(model, tables, config)] if found]
    return result + ([_comparison(result, tables, config)] if len({found.model for found in result}) > 1 else [])


# -- RQ1 ---------------------------------------------------------------------------------------------------------------


def _first(model: str, tables: Tables, config: Json) -> Answer | None:
    """Of the first variant that switches off: perplexity, then answers."""
    names = [name for name in config["run"]["perturbations"] if config["perturbations"][name]["kind"] == "deactivate"]
    table = table_of(tables, "differences", model)
    if table.empty:
        return None
    for name in names:
        own = table[(table["variant"] == name) & (table["language"] == table["edited_language"])]
        if own.empty:
            continue
        read, told = own[own["measure"] == "perplexity"], own[own["unit"] == "prompts"]
        others = table[(table["variant"] == name) & (table["language"] != table["edited_language"])]
        paragraphs, supported = [], None
        if len(read):
            supported, sentences = _perplexity(name, read, others[others["measure"] == "perplexity"], config)
            paragraphs.append(sentences)
        if len(told):
            paragraphs.append(_degradation(told))
        return Answer(RQ1, model, tuple(paragraphs), supported, "language_effects" if len(read) else None)
    return None


def _perplexity(name: str, own: pd.DataFrame, others: pd.DataFrame, config: Json) -> tuple[bool, str]:
    """What the neurons do to perplexity, against the baseline, other languages and every control."""
    baseline = own[own["against"] == variants.BASELINE]
    windows = _number(baseline["samples"])
    sentences = [
        f"With a language's neurons off ({name}, {_which(name, config)}), the perplexity of text in that language was "
        f"multiplied by {_ratios(baseline)}, on {windows} windows of held-out text per language."
    ]
    others = others[others["against"] == variants.BASELINE]
    if len(others):
        worst = others.loc[others["difference"].idxmax()]
        sentences.append(
            f"That of text in any other language by at most {ratio_interval(worst)} ({worst['language']} text, "
            f"{worst['edited_language']} neurons off)."
        )
    controls = [against for against in dict.fromkeys(own["against"]) if against != variants.BASELINE]
    for control in controls:
        rows = own[own["against"] == control]
        sentences.append(
            f"Against {control_words(control, config)} ({_number(rows['draws'])} draws each) it was {_ratios(rows)} "
            f"times as high{_surely(rows)}."
        )
    if not controls:
        sentences.append("No random control of the same size was run, so other neurons might have the same effect.")
    failures = _failures(own, others)
    if not failures and controls:
        sentences.append("So these neurons matter for their language, more than others in number and place like them.")
    elif failures:
        sentences.append(f"The evidence does not support the claim in every case: {'; '.join(failures)}.")
    return not failures and bool(controls), " ".join(sentences)


def _failures(own: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Where an own effect is not above the baseline, a control or another language."""
    problems = []
    for row in own.to_dict("records"):
        what = "unperturbed text" if row["against"] == variants.BASELINE else f"the control {row['against']}"
        if pd.isna(row["low"]):
            problems.append(f"for {row['language']}, {row['note'] or 'there is no interval'}")
        elif row["high"] < 0:
            more = "perplexity falls" if row["against"] == variants.BASELINE else f"{what} has more effect"
            problems.append(f"for {row['language']}, {more} ({ratio_interval(row)})")
        elif row["low"] <= 0 or not row["q_value"] <= LEVEL:
            problems.append(f"for {row['language']}, the effect is not clearly above {what} ({ratio_interval(row)})")
    baseline = own[own["against"] == variants.BASELINE]
    for row in baseline.to_dict("records"):
        above = others[(others["edited_language"] == row["language"]) & (others["difference"] >= row["difference"])]
        problems += [
            f"with the neurons of {row['language']} off, {language} is hit at least as hard"
            for language in above["language"]
        ]
    return problems


DEGRADATION = {
    "prompt_language": "answers in the prompt's language",
    "loops": "answers that end in a loop",
    "copies": "answers that copy the question",
}
"""Shares of answers that tell of degradation."""


def _degradation(own: pd.DataFrame) -> str:
    """What switching off did to the answers to prompts in the same language."""
    parts, called, unsure, prompts = [], [], [], 0
    for measure, words in DEGRADATION.items():
        rows = own[(own["measure"] == measure) & (own["against"] == variants.BASELINE)]
        none = not (rows["reference"] + rows["value"]).any()
        if rows.empty or (none and measure != "prompt_language"):  # no answer of that kind at all
            continue
        prompts = max(prompts, int(rows["samples"].max()))
        changes = [
            f"{row['language']} {row['reference']:.0%} to {row['value']:.0%} ({_points(row)})"
            for row in rows.to_dict("records")
        ]
        parts.append(f"{words}: {', '.join(changes)}")
        clear = rows["q_value"] <= LEVEL
        called += [f"{words} ({language})" for language in rows.loc[clear, "language"]]
        apart = (rows["low"] > 0) | (rows["high"] < 0)
        unsure += [f"{words} ({language})" for language in rows.loc[apart & ~clear, "language"]]
    if not parts:
        return "The language of the answers was not measured."
    sentences = [f"In the answers to {prompts} prompts per language: {'; '.join(parts)}."]
    sentences.append(
        f"Changed beyond chance: {join(called)}."
        if called
        else "None of these differs from the unperturbed model beyond chance; on answers, degradation was not shown."
    )
    if unsure:
        sentences.append(f"By its interval alone, but not after the correction for many comparisons: {join(unsure)}.")
    return " ".join(sentences)


# -- RQ2 ---------------------------------------------------------------------------------------------------------------


def _second(model: str, tables: Tables, config: Json) -> Answer | None:
    """Every variant that switches on, beside its control and the unperturbed answers."""
    table = table_of(tables, "steering", model)
    catalogue = config["perturbations"]
    names = [name for name in config["run"]["perturbations"] if catalogue[name]["kind"] == "steer"]
    if table.empty or not names:
        return None
    together = table[(table["language"] == ALL)].set_index("variant")
    measured = [name for name in names if name in together.index]
    if not measured:
        return None
    paragraphs, verdicts = [], {}
    best = sorted(measured, key=lambda name: -together.loc[name, "share"])[:FEW]
    if len(measured) > len(best):
        paragraphs.append(
            f"Of {len(measured)} variants that steer, the {len(best)} with most success are shown. They were picked by "
            "this very success, which is therefore too high: measure the chosen one on other prompts."
        )
        measured = [name for name in measured if name in best]
    for name in measured:
        success, row = together.loc[name], catalogue[name]
        controls = [one for one in config["run"]["perturbations"] if name in variants.controlled(config, one)]
        controls = [one for one in controls if one in together.index]
        references = [(f"with {control_words(one, config)}", together.loc[one]) for one in controls]
        if variants.BASELINE in together.index:
            references.append(("of the unperturbed model", together.loc[variants.BASELINE]))
        compared = join([f"{share_interval(reference)} {words}" for words, reference in references])
        directions = table[(table["variant"] == name) & (table["language"] != ALL)]
        how = "the residual stream shifted by DiffMean" if row["site"] == variants.RESIDUAL else _steered(row, model)
        text = (
            f"{name} ({how}): {share_interval(success)} of the answers to {int(success['prompts'])} prompts in other "
            f"languages were in the target language"
        )
        text += f", against {compared}." if compared else ". There is nothing to compare this with."
        verdicts[name] = _clear(success, [reference for _, reference in references], bool(controls))
        sentences = [text, _spread(directions), _verdict(verdicts[name], bool(controls))]
        paragraphs.append(" ".join(sentence for sentence in sentences if sentence))
    neurons = [verdicts[name] for name in measured if catalogue[name]["site"] != variants.RESIDUAL]
    paragraphs.append(_price(model, measured, tables))
    supported = True if True in neurons else None if None in neurons or not neurons else False
    return Answer(RQ2, model, tuple(part for part in paragraphs if part), supported, "steering_success")


def _steered(row: Json, model: str) -> str:
    verb = "set to" if row["edit"] == "set" else "raised by"
    return f"the target's neurons {verb} {variants.scale(row, model):g} times their mean {row['site']} on it"


def _clear(success: pd.Series, references: Sequence[pd.Series], controlled: bool) -> bool | None:
    """Whether the interval lies above those of all references; None without intervals or without a control."""
    if pd.isna(success["low"]) or any(pd.isna(reference["high"]) for reference in references):
        return None
    above = all(success["low"] > reference["high"] for reference in references)
    return above if controlled or not above else None


def _spread(directions: pd.DataFrame) -> str:
    """The best and the worst direction."""
    if len(directions) < 2:
        return ""
    if directions["share"].nunique() == 1:
        return "It is the same in every direction."
    best, worst = (directions.loc[directions["share"].idxmax()], directions.loc[directions["share"].idxmin()])
    return (
        f"Most often from {best['language']} to {best['target']} ({best['share']:.0%}), least often from "
        f"{worst['language']} to {worst['target']} ({worst['share']:.0%})."
    )


def _verdict(clear: bool | None, controlled: bool) -> str:
    if clear is True:
        return "The intervals do not overlap: it steers."
    if clear is False:
        return "The evidence does not support that it steers: the intervals overlap."
    if controlled:
        return "There were too few prompts to tell."
    return "Without a random control, it is open whether any other edit of this size would do the same."


def _price(model: str, names: Sequence[str], tables: Tables) -> str:
    """What steering costs: loops, and whether answers stay relevant."""
    table = table_of(tables, "differences", model)
    if table.empty:
        return ""
    sentences = []
    for measure, words in (("loops", "answers that end in a loop"), ("relevance", "mean relevance of the answers")):
        rows = table[(table["measure"] == measure) & (table["against"] == variants.BASELINE)]
        rows = rows[rows["language"] != rows["edited_language"]]
        parts = [
            f"{_value(mean['reference'], measure)} to {_value(mean['value'], measure)} ({name})"
            for name in names
            for mean in [rows.loc[rows["variant"] == name, ["reference", "value"]].mean()]
            if not mean.isna().any()
        ]
        sentences += [f"{words}: {join(parts)}"] if parts else []
    price = f"What it costs, unperturbed to steered: {'; '.join(sentences)}." if sentences else ""
    if "relevance" not in set(table["measure"]):
        price += " Whether a steered answer still addresses its question was not scored (metrics.relevance is not set)."
    return price.strip()


# -- models ------------------------------------------------------------------------------------------------------------


def _comparison(found: Sequence[Answer], tables: Tables, config: Json) -> Answer:
    """The replication's third question: whether it holds across architectures and sizes."""
    sentences = []
    for question, claim in ((RQ1, "switching a language's neurons off"), (RQ2, "switching them on")):
        rows = [answer for answer in found if answer.question == question and answer.model]
        if not rows:
            continue
        groups = {True: "has the effect in", False: "was not shown to have it in", None: "cannot be judged in"}
        parts = [
            f"{words} {join([_named(answer.model, tables, config) for answer in chosen])}"
            for verdict, words in groups.items()
            for chosen in [[answer for answer in rows if answer.supported is verdict]]
            if chosen
        ]
        sentences.append(f"{claim[0].upper()}{claim[1:]} {'; it '.join(parts)}.")
    verdicts = {answer.supported for answer in found}
    return Answer(MODELS, None, tuple(sentences), verdicts == {True} if None not in verdicts else None)


def _named(model: str | None, tables: Tables, config: Json) -> str:
    """A model with its architecture and size, where they are known."""
    if model is None:
        return ""
    known = describe_model(model, tables, config)
    size = f"{known['layers']:.0f} x {known['neurons_per_layer']:.0f} neurons" if known["neurons_per_layer"] else None
    about = [str(part) for part in (known["architecture"], size) if part]
    return f"{model} ({', '.join(about)})" if about else model


# -- words -------------------------------------------------------------------------------------------------------------


def _which(name: str, config: Json) -> str:
    """Which neurons a variant uses."""
    row, identification = config["perturbations"][name], config["identification"]
    rate = row.get("top_rate") or identification["top_rate"]
    return f"{rate:.1%} of all neurons by {row.get('method') or identification['method']}"


def control_words(name: str, config: Json) -> str:
    """What a control edits."""
    settings = config["perturbations"][name]
    if settings["site"] == variants.RESIDUAL:
        return f"random directions of the same length ({name})"
    kind = "random neurons as active as they" if settings["control"] == "activity" else "as many random neurons"
    return f"{kind} in the same layers ({name})"


def _ratios(rows: pd.DataFrame) -> str:
    """Ratios of perplexity with their intervals, by language."""
    return join([f"{ratio_interval(row)} ({row['language']})" for row in rows.to_dict("records")])


def ratio_interval(row: Any) -> str:
    """The ratio of perplexities of a difference in nats, with its interval."""
    with np.errstate(over="ignore"):  # what is too large for a number is shown as infinite
        value, low, high = (ratio(float(np.exp(row[key]))) for key in ("difference", "low", "high"))
    return value if pd.isna(row["low"]) else f"{value} [{low}, {high}]"


def _points(row: Any) -> str:
    """A difference of shares in percentage points, with its interval."""
    value = f"{100 * row['difference']:+.0f} points"
    value = value if pd.isna(row["low"]) else f"{value} [{100 * row['low']:+.0f}, {100 * row['high']:+.0f}]"
    return value.replace("-", "−")


def share_interval(row: pd.Series) -> str:
    """A share in percent, with its interval."""
    value = "not known" if pd.isna(row["share"]) else f"{row['share']:.0%}"
    return value if pd.isna(row["low"]) else f"{value} [{row['low']:.0%}, {row['high']:.0%}]"


def _value(value: float, measure: str) -> str:
    return f"{value:.2f}" if measure == "relevance" else f"{value:.0%}"


def _surely(rows: pd.DataFrame) -> str:
    """The largest corrected p-value."""
    largest = rows["q_value"].max()
    if pd.isna(largest):
        return ""
    return f" (corrected p {'below 0.001' if largest < 0.001 else f'up to {largest:.3f}'})"


def _number(values: pd.Series) -> str:
    """One number, or the range."""
    known = values.dropna()
    if known.empty:
        return "an unknown number of"
    low, high = int(known.min()), int(known.max())
    return f"{low}" if low == high else f"{low} to {high}"
