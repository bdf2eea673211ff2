"""What the numbers say, in sentences: each language's own effect against other languages and against random draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import config as experiment
from langneurons import variants
from langneurons.metrics.language import UNDETERMINED

Json = dict[str, Any]
Tables = dict[str, pd.DataFrame]

NAN = float("nan")
FEW = 4
"""So many languages are listed one by one in a sentence."""
OTHER = "other"
TEXT_COLUMNS = (
    *("model", "method", "language", "edited_language", "output_language", "perturbation", "variant", "kind", "note"),
    *("other_method", "other_language", "check", "severity", "cell", "sentence", "reference", "source", "quantity"),
)


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
    """Ratios in the language itself with as many random neurons off."""

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
    def reached(self) -> int:
        """How many draws have at least the language's own effect."""
        return sum(draw >= self.own for draw in self.draws)

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
        problems += [f"{self.reached} of {len(self.draws)} draws reach it"] if self.reached else []
        problems += [] if self.own > 1 else ["perplexity does not rise"]
        problems += [] if self.draws else ["no random control"]
        return "; ".join(problems) or "above both"


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of the report. Codes such as `nan` (Min Nan) stay text; only empty cells are missing."""
    types = dict.fromkeys(TEXT_COLUMNS, "str")
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def table_of(tables: Tables, name: str, model: str) -> pd.DataFrame:
    """One model's rows of a table; empty if there is no such table."""
    table = tables.get(name, pd.DataFrame())
    return table[table["model"] == model] if "model" in table else pd.DataFrame()


def heading(variant: str, kind: str) -> str:
    """Title of the columns of a variant, over the codes of the languages whose neurons are edited."""
    words = {"deactivate": "neurons off, those of", "random": "mean of draws matched to"}
    return f"{variant}: {words.get(kind, 'neurons edited, those of')}"


def compare(tables: Tables, config: Json) -> list[Comparison]:
    """Every model, variant that switches off, and language. Controls are the random variants of the same selection."""
    run, catalogue = config["run"], config["perturbations"]
    result = []
    for model in run["models"]:
        table, neurons = table_of(tables, "perplexity", model), table_of(tables, "neurons", model)
        if table.empty:
            continue
        for variant in run["perturbations"]:
            if catalogue[variant]["kind"] != "deactivate":
                continue
            method = variants.selection(config, variant)
            controls = [name for name in run["perturbations"] if variant in variants.controlled(config, name)]
            controls = [name for name in controls if catalogue[name]["control"] == "layer"]
            for language in run["languages"]:
                edited = table[table["edited_language"] == language]
                ratios = edited[edited["variant"] == variant].set_index("language")["ratio"].dropna()
                others = ratios.drop(language, errors="ignore")
                draws = edited[edited["variant"].isin(controls) & (edited["language"] == language)]["ratio"].dropna()
                result.append(
                    Comparison(
                        model=model,
                        variant=variant,
                        language=language,
                        neurons=_neurons(neurons, method, language),
                        own=float(ratios.get(language, NAN)),
                        other=float(others.max()) if len(others) else NAN,
                        other_language=str(others.idxmax()) if len(others) else None,
                        draws=tuple(draws),
                    )
                )
    return result


def _neurons(neurons: pd.DataFrame, method: str | None, language: str) -> float:
    if neurons.empty:
        return NAN
    found = neurons[(neurons["method"] == method) & (neurons["language"] == language)]["neurons"]
    return float(found.iloc[0]) if len(found) else NAN


def describe_model(model: str, tables: Tables, config: Json) -> Json:
    """What is known of a model: its entry in the config, its size and how it was recorded."""
    recordings, thresholds = table_of(tables, "recordings", model), table_of(tables, "thresholds", model)
    settings = config["models"][model]
    sources = {"hub": settings.get("id"), "folder": settings.get("path"), "published": "published files of others"}
    source = sources.get(settings["source"], "trained in this run")
    known: Json = {"source": source, "revision": settings.get("revision")}
    for table, columns in (
        (recordings, ("architecture", "dtype", "device", "engine", "torch", "transformers", "window")),
        (thresholds, ("layers", "neurons_per_layer")),
    ):
        found = {column: table[column].iloc[0] if column in table and len(table) else None for column in columns}
        known |= {column: None if pd.isna(value) else value for column, value in found.items()}
    return known


# -- sentences ---------------------------------------------------------------------------------------------------------


def sentences(model: str, comparisons: Sequence[Comparison], tables: Tables, config: Json) -> list[str]:
    """A few plain sentences on one model."""
    own = config["models"][model]["source"] != experiment.PUBLISHED
    there = experiment.contents(config, model)
    result = _selection_sentences(model, tables) if there["methods"] else []
    if own:
        result += _reading_sentences(model, comparisons)
    if own or not table_of(tables, "text", model).empty:
        result += _answer_sentences(model, tables, config)
    return result + _replication_sentences(model, tables) + _audit_sentences(model, tables)


def _selection_sentences(model: str, tables: Tables) -> list[str]:
    thresholds, neurons = table_of(tables, "thresholds", model), table_of(tables, "neurons", model)
    result = []
    for row in thresholds.itertuples():
        own = neurons[neurons["method"] == row.method] if not neurons.empty else neurons
        total = row.layers * row.neurons_per_layer
        counts = dict(zip(own.get("language", []), own.get("neurons", []), strict=True))
        selected = f"{row.selected:,.0f}"
        if not pd.isna(total):
            selected += f" of the {total:,.0f} feed-forward neurons ({row.selected / total:.1%})"
        done = "are in the published mask" if row.method == experiment.PUBLISHED else f"were selected ({row.method})"
        sentence = f"{selected} {done}"
        sentence += f": {listed(counts, '{:,}'.format)}." if counts else "."
        if len(own) and own["neurons"].sum() > row.selected:
            sentence += " Some belong to several languages."
        result.append(sentence)
    return result or ["No table of selected neurons was found."]


def _reading_sentences(model: str, comparisons: Sequence[Comparison]) -> list[str]:
    own = [row for row in comparisons if row.model == model]
    if not own:
        return ["No language's neurons were switched off while the model read text."]
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
    if not draws:
        return f"{sentence}. There is no random control of the same size."
    return (
        f"{sentence}. As many random neurons of the same layers multiplied the language's perplexity by "
        f"{ratio(sum(draws) / len(draws))} on average and {ratio(max(draws))} at most ({len(draws)} draws)."
    )


def _dominance_sentence(rows: Sequence[Comparison]) -> str:
    """Whether the language itself is hit harder than others and than by chance; every exception is named."""
    problems = []
    for row in rows:
        if not row.above_others:
            problems.append(
                f"with the neurons of {row.language} off, {row.other_language} changed more ({ratio(row.other)}) than "
                f"{row.language} itself ({ratio(row.own)})"
            )
        if row.reached:
            problems.append(
                f"for {row.language}, {row.reached} of {len(row.draws)} random draws had at least the effect of "
                f"its own neurons (up to {ratio(row.random_max)} against {ratio(row.own)})"
            )
        if row.own <= 1:
            problems.append(f"the perplexity of {row.language} did not rise ({ratio(row.own)})")
    if problems:
        return f"The neurons are not specific in every case: {'; '.join(problems)}."
    against = " and than with every random draw" if any(row.draws for row in rows) else ""
    return f"For every language, perplexity rose more in the language itself than in every other one{against}."


def _answer_sentences(model: str, tables: Tables, config: Json) -> list[str]:
    text = table_of(tables, "text", model)
    if text.empty:
        return ["No answers were measured."]
    own = text[text["edited_language"] == text["language"]]
    baseline = text[text["kind"] == "none"]["prompt_language"]
    parts = [f"{baseline.mean():.1%} unperturbed"] if len(baseline) else []
    for kind, words in (
        ("deactivate", "with that language's neurons off"),
        ("random", "with as many random neurons off"),
    ):
        names = [name for name in config["run"]["perturbations"] if config["perturbations"][name]["kind"] == kind]
        for variant in names:
            rows = own[own["variant"] == variant]
            name = f" ({variant})" if len(names) > 1 else ""
            parts += [f"{rows['prompt_language'].mean():.1%} {words}{name}"] if len(rows) else []
    sentence = f"Answers in the language of the prompt: {join(parts)}."
    if config["models"][model]["source"] == experiment.PUBLISHED and len(own):
        sentence += " Which neurons were off is not in the published answers; they need not be those above."
    return [sentence]


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


def listed(values: dict[str, Any], form: Callable[[Any], str]) -> str:
    """Values with their languages; of many, the smallest, the median and the largest."""
    if len(values) <= FEW:
        return join([f"{form(value)} ({language})" for language, value in values.items()])
    ranked = sorted(values, key=lambda language: values[language])
    low, middle, high = (ranked[place] for place in (0, (len(ranked) - 1) // 2, -1))
    return (
        f"between {form(values[low])} ({low}) and {form(values[high])} ({high}), median {form(values[middle])} "
        f"({middle})"
    )


def join(parts: Sequence[str]) -> str:
    """An enumeration."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def ratio(value: float) -> str:
    """A ratio with the digits that its size deserves."""
    return "–" if pd.isna(value) else f"{value:.3f}" if value < 10 else f"{value:,.1f}"


# -- languages of the answers ------------------------------------------------------------------------------------------


def language_shares(table: pd.DataFrame, languages: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Share of each answer language by `label` of the perturbation and `language` of the prompt; names of the columns.

    Languages outside the run are `other`. All draws of a random variant, for all languages, are one row: their mean.
    """
    table = table.copy()
    known = [*languages, UNDETERMINED]
    table["name"] = table["output_language"].where(table["output_language"].isin(known), OTHER)
    single = table.pivot_table(
        index=["perturbation", "language"], columns="name", values="share", aggfunc="sum", fill_value=0.0
    )
    about = table.drop_duplicates("perturbation").set_index("perturbation")
    order = {name: position for position, name in enumerate(dict.fromkeys(about["variant"]))}
    whose = about["edited_language"].map({language: position for position, language in enumerate(languages)}).fillna(-1)
    about = about.assign(
        rank=about["variant"].map(order), whose=whose, last=about["kind"] == "random", first=about["kind"] != "none"
    )
    about = about.sort_values(["first", "last", "rank", "whose"])
    labels = {perturbation: _label(str(perturbation), row) for perturbation, row in about.iterrows()}
    index = single.index.get_level_values("perturbation")
    single = (
        single.assign(label=index.map(labels)).reset_index("perturbation", drop=True).set_index("label", append=True)
    )
    means = single.groupby(["label", "language"], sort=False).mean()
    wanted = [(label, language) for label in dict.fromkeys(labels.values()) for language in languages]
    means = means.reindex([key for key in wanted if key in means.index])
    names = [*languages, *(name for name in (OTHER, UNDETERMINED) if name in means)]
    return means.reindex(columns=names, fill_value=0.0), names


def _label(perturbation: str, row: pd.Series) -> str:
    if row["kind"] == "none":
        return "not perturbed"
    return f"{row['variant']} (mean)" if row["kind"] == "random" else perturbation


# -- audit and published numbers --------------------------------------------------------------------------------------


def audits(tables: Tables, config: Json) -> Json:
    """By model: findings that need attention, `open`, the gravest first, and the checks that passed."""
    order = ("fatal", "warning", "note")
    result = {}
    for model in config["run"]["models"]:
        rows = table_of(tables, "audit", model).to_dict("records")
        attention = [row for severity in order for row in rows if row["severity"] == severity]
        if rows:
            result[model] = {"open": attention, "passed": [row for row in rows if row["severity"] == "passed"]}
    return result


# -- the proof of effect -----------------------------------------------------------------------------------------------


def summarise_effects(tables: Tables, config: Json) -> list[Json]:
    """Per model: how many edits were verified, the largest error, the smallest change, and what was noted."""
    result = []
    for model in config["run"]["models"]:
        effects = table_of(tables, "effects", model)
        if effects.empty:
            continue
        edited = effects[effects["edited_neurons"] > 0]
        noted = effects[effects["note"].notna()] if "note" in effects else effects.iloc[:0]
        result.append(
            {
                "model": model,
                "edits": len(edited),
                "empty": len(effects) - len(edited),
                "largest_error": edited["largest_error"].max(),
                "smallest_change": edited["largest_change"].min(),
                "smallest_logits_change": edited["logits_change"].min(),
                "notes": [f"{row.perturbation}: {row.note}" for row in noted.itertuples()],
                "rows": effects.to_dict("records"),
            }
        )
    return result
