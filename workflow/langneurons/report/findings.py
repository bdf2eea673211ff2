"""What the numbers say, in sentences: each language's own effect against other languages and against random draws."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import config as experiment
from langneurons import variants
from langneurons.errors import ResultError
from langneurons.report import choices
from langneurons.report.formats import FEW, integer, join, listed, ratio, share
from langneurons.variants import BASELINE, DEACTIVATE, PERPLEXITY

Json = dict[str, Any]
Tables = dict[str, pd.DataFrame]

NAN = float("nan")
CONTROLS = ("layer", "activity")
"""How the neurons of random controls are drawn."""
REMADE = "snakemake --cores all --forcerun make_tables"
"""What makes the tables anew."""
TEXT_COLUMNS = (
    *("model", "method", "language", "edited_language", "output_language", "perturbation", "variant", "kind", "note"),
    *("other_method", "other_language", "check", "severity", "cell", "sentence", "source", "quantity", "control"),
    *("family", "of", "site", "edit", "measure", "unit", "against", "source_language", "target", "list"),
    "comparison",
)
NUMBERS = (
    *("tokens", "documents", "neurons", "other_neurons", "shared", "jaccard", "expected", "share_of_neurons"),
    *("mean_entropy", "mean_probability", "top_rate", "activation_percentile", "activation_bar", "candidates"),
    *("requested", "selected", "entropy_min", "entropy_max", "neurons_per_layer", "layer", "perplexity", "ratio"),
    *("outputs", "mean_characters", "stop_word_ratio", "prompt_language", "share", "low", "high", "prompts", "draws"),
    *("edited_neurons", "edited_layers", "largest_error", "largest_change", "logits_change", "samples", "value"),
    *("difference", "p_value", "q_value", "theirs", "ours", "decimals"),
)
"""Columns that hold numbers, in whichever table."""


@dataclass(frozen=True)
class Comparison:
    """Perplexity ratios with the neurons of one language off."""

    model: str
    variant: str
    language: str
    neurons: float
    """How many neurons are off; NaN if unknown."""
    own: float
    """Ratio in the language itself."""
    other: float
    """Largest ratio in another language."""
    other_language: str | None
    draws: tuple[float, ...]
    """Ratios in the language itself with as many random neurons of the same layers off."""
    active: tuple[float, ...] = ()
    """The same with random neurons that are about as active."""

    @property
    def measured(self) -> bool:
        """Whether there is an effect to compare: neurons were off and perplexity was measured."""
        return not pd.isna(self.own) and self.neurons != 0

    @property
    def random_mean(self) -> float:
        """Mean over the draws."""
        return sum(self.draws) / len(self.draws) if self.draws else NAN

    @property
    def random_max(self) -> float:
        """Largest of the draws."""
        return max(self.draws, default=NAN)

    @property
    def active_mean(self) -> float:
        """Mean over the draws of neurons as active."""
        return sum(self.active) / len(self.active) if self.active else NAN

    @property
    def active_max(self) -> float:
        """Largest of the draws of neurons as active."""
        return max(self.active, default=NAN)

    @property
    def reached(self) -> dict[str, tuple[float, ...]]:
        """By control, the draws of which some have at least the language's own effect."""
        controls = {"random draws": self.draws, "random draws as active": self.active}
        return {name: draws for name, draws in controls.items() if any(draw >= self.own for draw in draws)}

    @property
    def above_others(self) -> bool:
        """Whether the language itself is hit harder than every other one."""
        return self.own > self.other or pd.isna(self.other)

    @property
    def verdict(self) -> str:
        """In a few words, for a table."""
        if self.neurons == 0:
            return "no neurons"
        if not self.measured:
            return "not measured"
        problems = [] if self.above_others else [f"{self.other_language} changes more"]
        problems += ["no other language was measured"] if pd.isna(self.other) else []
        problems += [f"{self.count(draws)} of {len(draws)} {name} reach it" for name, draws in self.reached.items()]
        problems += [] if self.own > 1 else ["perplexity does not rise"]
        problems += [] if self.draws or self.active else ["no random control"]
        return "; ".join(problems) or ("above all" if self.draws and self.active else "above both")

    def count(self, draws: Sequence[float]) -> int:
        """How many draws have at least the language's own effect."""
        return sum(draw >= self.own for draw in draws)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of the report. Codes such as `nan` (Min Nan) stay text; only empty cells are missing.

    Raises:
        ResultError: the file is empty, cut off or no table, or has words where numbers are.
    """
    types, content = dict.fromkeys(TEXT_COLUMNS, "str"), path.read_bytes()
    try:
        if not content.endswith(b"\n"):
            raise ValueError("it does not end in a whole line" if content else "it is empty")
        table = pd.read_csv(io.BytesIO(content), dtype=types, keep_default_na=False, na_values=[""])
        return table.assign(**{name: as_numbers(table[name]) for name in NUMBERS if name in table})
    except pd.errors.EmptyDataError:  # a line without columns
        return pd.DataFrame()
    except ValueError as error:  # among them what pandas raises, and bytes that are no text
        reason = str(error).strip()[:200]
        raise ResultError(f"{path}: cannot be read ({reason}). Make it anew where the run was made: {REMADE}") from None


def as_numbers(column: pd.Series) -> pd.Series:
    """A column of numbers; `nan` is missing.

    Raises:
        ValueError: there are words in it.
    """
    if pd.api.types.is_numeric_dtype(column):
        return column
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = values.isna() & column.notna() & (column.astype(str).str.lower() != "nan")
    if wrong.any():
        raise ValueError(f"has {str(column[wrong].iloc[0])[:40]!r} in the column {column.name}, where numbers are")
    return values


def table_of(tables: Tables, name: str, model: str) -> pd.DataFrame:
    """One model's rows of a table; empty if there is no such table."""
    table = tables.get(name, pd.DataFrame())
    return table[table["model"] == model] if "model" in table else pd.DataFrame()


def compare(tables: Tables, config: Json) -> list[Comparison]:
    """Every model, variant that switches off while text is read, and language, beside its random controls."""
    run, catalogue = config["run"], config["perturbations"]
    result = []
    for model in run["models"]:
        table, neurons = table_of(tables, "perplexity", model), table_of(tables, "neurons", model)
        if table.empty:
            continue
        for variant in variants.of_kind(config, DEACTIVATE, PERPLEXITY):
            method = variants.selection(config, variant)
            controls = [name for name in run["perturbations"] if variant in variants.controlled(config, name)]
            drawn = {kind: [name for name in controls if catalogue[name]["control"] == kind] for kind in CONTROLS}
            for language in run["languages"]:
                edited = table[table["edited_language"] == language]
                ratios = edited[edited["variant"] == variant].set_index("language")["ratio"].dropna()
                others = ratios.drop(language, errors="ignore")
                same = edited[edited["language"] == language]
                draws = [tuple(same[same["variant"].isin(drawn[kind])]["ratio"].dropna()) for kind in CONTROLS]
                result.append(
                    Comparison(
                        model=model,
                        variant=variant,
                        language=language,
                        neurons=_neurons(neurons, method, language),
                        own=float(ratios.get(language, NAN)),
                        other=float(others.max()) if len(others) else NAN,
                        other_language=str(others.idxmax()) if len(others) else None,
                        draws=draws[0],
                        active=draws[1],
                    )
                )
    return result


def _neurons(neurons: pd.DataFrame, method: str | None, language: str) -> float:
    if neurons.empty:
        return NAN
    found = neurons[(neurons["method"] == method) & (neurons["language"] == language)]["neurons"]
    return float(found.iloc[0]) if len(found) else NAN


def settings_of(config: Json) -> tuple[pd.DataFrame, choices.Default]:
    """The settings of every variant of a run, as in the table of variants, and its default method and rate."""
    identification = config["identification"]
    return pd.DataFrame(variants.settings(config)), (identification["method"], identification["top_rate"])


# -- sentences ---------------------------------------------------------------------------------------------------------


def sentences(model: str, comparisons: Sequence[Comparison], tables: Tables, config: Json) -> list[str]:
    """A few plain sentences on one model; none on what tables do not have: the page says so, with their target."""
    own = config["models"][model]["source"] != experiment.PUBLISHED
    there = experiment.contents(config, model)
    result = _selection_sentences(model, tables) if there["methods"] else []
    if own and not variants.of_kind(config, DEACTIVATE, PERPLEXITY):
        why = "run.perturbations names no variant that does"
        result.append(f"No language's neurons were switched off while the model read text: {why}.")
    elif own:
        shown = choices.deactivating(*settings_of(config))
        mine = [row for row in comparisons if row.model == model]
        compared = [row for row in mine if row.variant in shown] or mine
        result += _reading_sentences(compared)
    if there["answered"]:
        result += _answer_sentences(model, tables, config) + _steering_sentences(model, tables, config)
    return result + _replication_sentences(model, tables) + _audit_sentences(model, tables)


def _selection_sentences(model: str, tables: Tables) -> list[str]:
    thresholds, neurons = table_of(tables, "thresholds", model), table_of(tables, "neurons", model)
    result = []
    for row in _first_and_published(thresholds).itertuples():
        own = neurons[neurons["method"] == row.method] if not neurons.empty else neurons
        total = row.layers * row.neurons_per_layer
        counts = dict(zip(own.get("language", []), own.get("neurons", []), strict=True))
        selected = "An unknown number" if pd.isna(row.selected) else integer(row.selected)
        if not pd.isna(total):
            rate = "" if pd.isna(row.selected) else f" ({share(row.selected / total)})"
            selected += f" of the {integer(total)} feed-forward neurons{rate}"
        done = "are in the published mask" if row.method == experiment.PUBLISHED else f"were selected ({row.method})"
        sentence = f"{selected} {done}"
        sentence += f": {listed(counts, integer)}." if counts else "."
        if len(own) and own["neurons"].sum() > row.selected:
            sentence += " Some belong to several languages."
        result.append(sentence)
    return result


def _first_and_published(thresholds: pd.DataFrame) -> pd.DataFrame:
    """The default selection and a published mask; other methods and rates have sections of their own."""
    if thresholds.empty:
        return thresholds
    return thresholds[thresholds["method"].isin([thresholds["method"].iloc[0], experiment.PUBLISHED])]


def _reading_sentences(own: Sequence[Comparison]) -> list[str]:
    result = []
    names = list(dict.fromkeys(row.variant for row in own))
    for variant in names:
        rows = [row for row in own if row.variant == variant]
        measured = [row for row in rows if row.measured]
        prefix = f"{variant}: " if len(names) > 1 else ""
        if measured:
            result.append(prefix + _effect_sentence(measured))
            result.append(prefix + _dominance_sentence(measured))
        nothing = [row.language for row in rows if row.neurons == 0]
        if nothing:
            result.append(f"{prefix}No neuron belongs to {join(nothing)}, so nothing was switched off there.")
        unknown = [row.language for row in rows if row.neurons != 0 and not row.measured]
        if unknown:
            result.append(f"{prefix}The perplexity with the neurons of {join(unknown)} off was not measured.")
    return result


def _effect_sentence(rows: Sequence[Comparison]) -> str:
    """The three numbers to compare."""
    own = listed({row.language: row.own for row in rows}, ratio)
    sentence = f"Switching a language's neurons off multiplied its own perplexity by {own}"
    others = [row.other for row in rows if not pd.isna(row.other)]
    if others:
        sentence += f"; that of any other language by at most {ratio(max(others))}"
    draws = [draw for row in rows for draw in row.draws]
    active = [draw for row in rows for draw in row.active]
    if not draws and not active:
        return f"{sentence}. There is no random control of the same size."
    if draws:
        sentence += (
            f". As many random neurons of the same layers multiplied the language's perplexity by "
            f"{ratio(sum(draws) / len(draws))} on average and {ratio(max(draws))} at most ({len(draws)} draws)"
        )
    if active:
        sentence += (
            f". As many that are about as active multiplied it by {ratio(sum(active) / len(active))} on average and "
            f"{ratio(max(active))} at most ({len(active)} draws)"
        )
    return f"{sentence}."


def _dominance_sentence(rows: Sequence[Comparison]) -> str:
    """Whether the language itself is hit harder than others and than by chance; every exception is named."""
    problems = []
    for row in rows:
        if not row.above_others:
            problems.append(
                f"with the neurons of {row.language} off, {row.other_language} changed more ({ratio(row.other)}) than "
                f"{row.language} itself ({ratio(row.own)})"
            )
        if pd.isna(row.other):
            problems.append(f"with the neurons of {row.language} off, no other language was measured")
        for name, draws in row.reached.items():
            problems.append(
                f"for {row.language}, {row.count(draws)} of {len(draws)} {name} had at least the effect of "
                f"its own neurons (up to {ratio(max(draws))} against {ratio(row.own)})"
            )
        if row.own <= 1:
            problems.append(f"the perplexity of {row.language} did not rise ({ratio(row.own)})")
    if problems:
        return f"The neurons are not specific in every case: {'; '.join(problems)}."
    against = " and than with every random draw" if any(row.draws or row.active for row in rows) else ""
    return f"For every language, perplexity rose more in the language itself than in every other one{against}."


def _answer_sentences(model: str, tables: Tables, config: Json) -> list[str]:
    text = table_of(tables, "text", model)
    if text.empty:
        return []
    own = text[text["edited_language"] == text["language"]]
    baseline = text[text["kind"] == BASELINE]["prompt_language"]
    parts = [f"{share(baseline.mean())} unperturbed"] if len(baseline) else []
    table, default = settings_of(config)
    off = choices.deactivating(table, default)
    for shown, words in (
        (off, "with that language's neurons off"),
        (choices.controls(table, off, "layer"), "with as many random neurons off"),
    ):
        names = [name for name in shown if (own["variant"] == name).any()]
        for variant in names:
            rows = own[own["variant"] == variant]
            name = f" ({variant})" if len(names) > 1 else ""
            parts.append(f"{share(rows['prompt_language'].mean())} {words}{name}")
    if not parts:
        return []
    lacking = [language for language in config["run"]["languages"] if language not in set(text["language"])]
    without = f", without prompts in {join(lacking)}, which were not answered" if lacking else ""
    sentence = f"Answers in the language of the prompt: {join(parts)}{without}."
    if config["models"][model]["source"] == experiment.PUBLISHED and len(own):
        sentence += " Which neurons were off is not in the published answers; they need not be those above."
    return [sentence]


def _steering_sentences(model: str, tables: Tables, config: Json) -> list[str]:
    """How many answers are in the target language, over all directions."""
    success = table_of(tables, "steering", model)
    shares = choices.shares_of_all(success)
    table, _ = settings_of(config)
    steered = [name for name in choices.steering(table, success) if name in shares]
    if not steered:
        measured = len(success) and success["variant"].isin(choices.steering(table, success)).any()
        return ["How many answers are in the language that they are steered to is not known."] if measured else []
    draws = [name for name in choices.controls(table, steered) if name in shares]
    parts = [f"{share(shares[name])} with {name}" for name in steered]
    parts += [f"{share(shares[name])} with random {_what(table, name)} ({name})" for name in draws]
    before = f", against {share(shares[BASELINE])} unperturbed" if BASELINE in shares else ""
    return [f"Answers in another language than the prompt's, when steered to it: {join(parts)}{before}."]


def _what(table: pd.DataFrame, variant: str) -> str:
    site = table.loc[table["variant"] == variant, "site"]
    return "directions" if (site == variants.RESIDUAL).any() else "neurons"


def _replication_sentences(model: str, tables: Tables) -> list[str]:
    """How many published numbers agree."""
    rows = table_of(tables, "replication", model)
    compared = rows[rows["ours"].notna()] if len(rows) else rows
    if compared.empty:
        return []
    agreeing, reference = int(compared["agrees"].astype("boolean").sum()), compared["reference"].iloc[0]
    return [
        f"Of the {len(compared)} published numbers of {reference} that this run has too, {agreeing} "
        f"{'agrees' if agreeing == 1 else 'agree'} to the printed digits."
    ]


def _audit_sentences(model: str, tables: Tables) -> list[str]:
    """What the audit warns of; the rest is in its section."""
    audit = table_of(tables, "audit", model)
    if audit.empty:
        return []
    grave = audit[audit["severity"].isin(["fatal", "warning"])]
    named = [f"Audit: {sentence}" for sentence in grave["sentence"].head(FEW)]
    more = len(grave) - len(named)
    return named + ([f"The audit has {more} more finding{'' if more == 1 else 's'}; see there."] if more else [])
