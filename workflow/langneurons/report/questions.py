"""The answers to the research questions, in sentences made from the numbers: what was found, how surely, and what the
evidence does not support.

RQ1: does switching a language's neurons off degrade the model in that language, and those neurons rather than others?
RQ2: does switching them on steer the language of the answers?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from langneurons import variants
from langneurons.metrics.steering import ALL
from langneurons.report.findings import Tables, table_of
from langneurons.report.formats import bounded, fixed2, join, optional, points, ratio_interval, share, share_interval
from langneurons.report.views import describe_model, without_neurons

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
            supported, sentences = _perplexity(name, read, others[others["measure"] == "perplexity"], tables, config)
            paragraphs.append(sentences)
        if len(told):
            paragraphs.append(_degradation(told))
        return Answer(RQ1, model, tuple(paragraphs), supported, "language_effects" if len(read) else None)
    return None


def _perplexity(name: str, own: pd.DataFrame, others: pd.DataFrame, tables: Tables, config: Json) -> tuple[bool, str]:
    """What the neurons do to perplexity, against the baseline, other languages and every control."""
    baseline = own[own["against"] == variants.BASELINE]
    windows = _number(baseline["samples"])
    sentences = [
        f"With a language's neurons off ({name}, {_which(name, config)}), the perplexity of text in that language was "
        f"multiplied by {_ratios(baseline)}, on {windows} windows of held-out text per language."
    ]
    nobody = without_neurons(name, str(own["model"].iloc[0]), tables, config)
    if nobody:
        sentences.append(f"No neuron belongs to {join(nobody)}, so nothing was switched off there.")
    others = others[others["against"] == variants.BASELINE]
    if others["difference"].notna().any():
        worst = others.loc[others["difference"].idxmax()]
        sentences.append(
            f"That of text in any other language by at most {ratio_interval(worst)} ({worst['language']} text, "
            f"{worst['edited_language']} neurons off)."
        )
    targets = dict.fromkeys(member.language for member in variants.members(config, name))
    unread = [language for language in targets if language not in set(baseline["language"])]
    controls = [against for against in dict.fromkeys(own["against"]) if against != variants.BASELINE]
    for control in controls:
        rows = own[own["against"] == control]
        sentences.append(
            f"Against {control_words(control, config)} ({_number(rows['draws'])} draws each) it was {_ratios(rows)} "
            f"times as high{_surely(rows)}."
        )
    if not controls:
        sentences.append("No random control of the same size was run, so other neurons might have the same effect.")
    failures = [*_failures(own, others), *(f"{language} was not measured" for language in unread)]
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
        if not bounded(row):
            problems.append(f"for {row['language']}, {optional(row['note']) or 'there is no interval'}")
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
    unknown = others[others["difference"].isna()]
    return problems + [
        f"with the neurons of {row['edited_language']} off, what {row['language']} loses is not known"
        for row in unknown.to_dict("records")
    ]


DEGRADATION = {
    "prompt_language": "answers in the prompt's language",
    "loops": "answers that end in a loop",
    "copies": "answers that copy the question",
}
"""Shares of answers that tell of degradation."""


def _degradation(own: pd.DataFrame) -> str:
    """What switching off did to the answers to prompts in the same language."""
    parts, called, unsure, prompts, tested = [], [], [], 0, False
    for measure, words in DEGRADATION.items():
        rows = own[(own["measure"] == measure) & (own["against"] == variants.BASELINE)]
        none = (rows[["reference", "value"]] == 0).all(axis=None)
        if rows.empty or (none and measure != "prompt_language"):  # no answer of that kind at all
            continue
        prompts = max(prompts, int(rows["samples"].fillna(0).max()))
        tested = tested or bool(rows["q_value"].notna().any())
        changes = [
            f"{row['language']} {share(row['reference'], 0)} to {share(row['value'], 0)} ({points(row)})"
            for row in rows.to_dict("records")
        ]
        parts.append(f"{words}: {', '.join(changes)}")
        clear = rows["q_value"] <= LEVEL
        called += [f"{words} ({language})" for language in rows.loc[clear, "language"]]
        apart = (rows["low"] > 0) | (rows["high"] < 0)
        unsure += [f"{words} ({language})" for language in rows.loc[apart & ~clear, "language"]]
    if not parts:
        return "The language of the answers was not measured."
    sentences = [f"In the answers to {prompts or 'an unknown number of'} prompts per language: {'; '.join(parts)}."]
    if called:
        sentences.append(f"Changed beyond chance: {join(called)}.")
    elif tested:
        sentences.append(
            "None of these differs from the unperturbed model beyond chance; on answers, degradation was not shown."
        )
    else:
        sentences.append("Whether any of these differs beyond chance was not tested.")
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
    best = list(together.loc[measured, "share"].sort_values(ascending=False, kind="stable").index[:FEW])
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
            f"{name} ({how}): {share_interval(success)} of the answers to {_number(together.loc[[name], 'prompts'])} "
            "prompts in other languages were in the target language"
        )
        text += f", against {compared}." if compared else ". There is nothing to compare this with."
        verdicts[name] = _clear(success, [reference for _, reference in references], bool(controls))
        known = not pd.isna([success["share"], *(reference["share"] for _, reference in references)]).any()
        sentences = [text, _spread(directions), _verdict(verdicts[name], bool(controls), known)]
        nobody = [] if row["site"] == variants.RESIDUAL else without_neurons(name, model, tables, config)
        if nobody:
            sentences.append(f"No neuron belongs to {join(nobody)}, so nothing was changed to steer there.")
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
    if not all(bounded(one) and not pd.isna(one["share"]) for one in (success, *references)):
        return None
    above = all(success["low"] > reference["high"] for reference in references)
    return above if controlled or not above else None


def _spread(directions: pd.DataFrame) -> str:
    """The best and the worst direction."""
    known = directions[directions["share"].notna()]
    unknown = len(directions) - len(known)
    rest = f" Of {unknown} direction{'' if unknown == 1 else 's'} it is not known." if unknown else ""
    if len(known) < 2:
        return rest.strip()
    if known["share"].nunique() == 1:
        return f"It is the same in every {'other ' if unknown else ''}direction.{rest}"
    best, worst = known.loc[known["share"].idxmax()], known.loc[known["share"].idxmin()]
    return (
        f"Most often from {best['language']} to {best['target']} ({share(best['share'], 0)}), least often from "
        f"{worst['language']} to {worst['target']} ({share(worst['share'], 0)}).{rest}"
    )


def _verdict(clear: bool | None, controlled: bool, known: bool) -> str:
    if clear is True:
        return "The intervals do not overlap: it steers."
    if clear is False:
        return "The evidence does not support that it steers: the intervals overlap."
    if not known:
        return "Not every share is known, so it is open whether it steers."
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
            f"{_value(own['reference'].mean(), measure)} to {_value(own['value'].mean(), measure)} ({name})"
            for name in names
            for own in [rows[rows["variant"] == name]]
            if len(own)
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
    shape = (known["layers"], known["neurons_per_layer"])
    size = None if None in shape else f"{shape[0]:.0f} x {shape[1]:.0f} neurons"
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


def _value(value: float, measure: str) -> str:
    return share(value, 0) if measure != "relevance" else fixed2(value)


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
