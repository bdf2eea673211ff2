"""The tables of the report: tidy, one CSV each, over all models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import artifacts
from langneurons.config import PUBLISHED
from langneurons.corpus.shares import shares
from langneurons.metrics import perplexity, text
from langneurons.metrics.steering import success
from langneurons.neurons.convergence import convergence
from langneurons.report.replication import compare

Json = dict[str, Any]

COLUMNS = {
    "recordings": ["model", "language", "tokens", "split", "documents", "window"],
    "neurons": ["model", "method", "language", "neurons"],
    "neurons_by_layer": ["model", "method", "language", "layer", "neurons"],
    "overlaps": ["model", "method", "language", "other_method", "other_language", "neurons", "other_neurons", "shared"],
    "thresholds": ["model", "method"],
    "perplexity": ["model", "perturbation", "language", "windows", "tokens", "perplexity", "ratio"],
    "text": ["model", "perturbation", "language", "outputs", "mean_characters", "stop_word_ratio"],
    "output_languages": ["model", "perturbation", "language", "output_language", "outputs", "share"],
    "effects": [
        *("model", "perturbation", "edited_neurons", "edited_layers", "largest_error", "largest_change"),
        *("logits_change", "note"),
    ],
    "variants": [
        "variant",
        "family",
        "kind",
        "of",
        "method",
        "top_rate",
        "site",
        "edit",
        "scale",
        "scale_by_model",
        "layers",
        "control",
    ],
    "differences": [
        *("model", "perturbation", "language", "measure", "unit", "against", "draws", "samples", "reference", "value"),
        *("difference", "low", "high", "p_value", "q_value", "note"),
    ],
    "steering": ["model", "variant", "language", "target", "prompts", "draws", "share", "low", "high"],
    "stop_words": ["model", "perturbation", "language", "output_language", "list", "outputs", "ratio"],
    "convergence": ["model", "method", "other_method", "language", "layer", "neurons", "other_neurons", "shared"],
    "stability": ["model", "comparison", "language", "tokens", "neurons", "other_neurons", "shared"],
    "audit": ["model", "check", "severity", "cell", "sentence"],
    "replication": [
        *("model", "reference", "source", "quantity", "perturbation", "language", "theirs", "ours", "difference"),
        *("decimals", "agrees"),
    ],
}
"""The first columns of every table, which are there also when the table has no rows."""


@dataclass(frozen=True)
class ModelResults:
    """What the jobs of one model measured; of a published model, what its files hold."""

    recordings: dict[str, Json] = field(default_factory=dict)
    """Metadata of the recordings by language, with `tokens` recorded."""
    neurons: dict[str, tuple[pd.DataFrame, Json]] = field(default_factory=dict)
    """By method: selected neurons, and thresholds and counts."""
    languages: dict[str, list[str]] = field(default_factory=dict)
    """By method: the languages that it compared, in order."""
    perplexity: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per window."""
    text: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per output."""
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per perturbation, language, measure, and what it is compared with."""
    stop_words: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Stop words of every list in answers of every language."""
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Neurons that parts of the text give."""
    audit: list[Json] = field(default_factory=list)
    """Findings."""
    replicates: str | None = None
    """Whose published numbers are put beside."""


def read_model(folder: Path, contents: Json, languages: list[str], replicates: str | None = None) -> ModelResults:
    """Read what there is of one model, as `config.contents` says."""
    recordings = {}
    for language in languages if contents["recorded"] else []:
        counts, metadata = artifacts.read_activations(folder / "activations" / f"{language}.safetensors")
        recordings[language] = metadata | {"tokens": counts.tokens}
    methods = contents["methods"]

    def metrics(name: str, kind: str, there: object) -> pd.DataFrame:
        return artifacts.read_table(folder / "metrics" / f"{name}.parquet", kind)[0] if there else pd.DataFrame()

    return ModelResults(
        recordings=recordings,
        neurons={name: artifacts.read_table(folder / "neurons" / f"{name}.parquet", "neurons") for name in methods},
        languages={name: contents["mask_languages"] if name == PUBLISHED else languages for name in methods},
        perplexity=metrics("perplexity", "perplexity", contents["read"]),
        text=metrics("text", "text-metrics", contents["answered"]),
        differences=metrics("effects", "effects", contents["answered"]),
        stop_words=metrics("stop_words", "stop-words", contents["answered"]),
        stability=metrics("stability", "stability", not contents["published"]),
        audit=artifacts.read_records(folder / "audit.json", "audit"),
        replicates=replicates,
    )


def read_effects(results: Path, models: list[str], perturbations: list[Json]) -> pd.DataFrame:
    """What the engine verified of every perturbation of the models that ran here: `model, perturbation, …`."""
    rows = []
    for model in models:
        for member in perturbations:
            if member["variant"] == "none":
                continue
            proof = artifacts.read_document(results / model / "effects" / f"{member['id']}.json", "effect")
            rows.append(
                {
                    "model": model,
                    "perturbation": member["id"],
                    "edited_neurons": proof["edited_neurons"],
                    "edited_layers": len(proof["layers"]),
                    "largest_error": max((row["error"] for row in proof["layers"]), default=0.0),
                    "largest_change": max((row["change"] for row in proof["layers"]), default=0.0),
                    "logits_change": proof["logits_change"],
                    "note": proof["note"],
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS["effects"])


def make_tables(
    models: dict[str, ModelResults],
    effects: pd.DataFrame,
    perturbations: list[Json],
    variants: list[Json],
    languages: list[str],
) -> dict[str, pd.DataFrame]:
    """All tables by name.

    Args:
        models: results by model.
        effects: from `read_effects`.
        perturbations: `id, variant, kind, language` (whose neurons), `source` (whose neurons are off as well) and
            `draw` of every perturbation, the baseline first.
        variants: settings of every variant.
        languages: of the run, in order.
    """
    described = pd.DataFrame(perturbations).rename(
        columns={"id": "perturbation", "language": "edited_language", "source": "source_language"}
    )
    described = described[["perturbation", "variant", "kind", "edited_language", "source_language", "draw"]]
    described["draw"] = described["draw"].astype("Int64")

    def over_models(name: str, function: Callable[[ModelResults], pd.DataFrame]) -> pd.DataFrame:
        """Stack one table per model, with the model and what is known of the perturbation in front."""
        parts = [function(results).assign(model=model) for model, results in models.items()]
        parts = [part[["model", *part.columns.drop("model")]] for part in parts if len(part)]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS[name])
        return table.merge(described, how="left", on="perturbation") if "perturbation" in COLUMNS[name] else table

    made = {
        "recordings": over_models("recordings", _recordings),
        "neurons": over_models("neurons", _neurons),
        "neurons_by_layer": over_models("neurons_by_layer", _neurons_by_layer),
        "overlaps": over_models("overlaps", _overlaps),
        "thresholds": over_models("thresholds", _thresholds),
        "perplexity": over_models("perplexity", _perplexity),
        "text": over_models("text", lambda results: _text(results, languages)),
        "output_languages": over_models("output_languages", _output_languages),
        "effects": effects,
        "variants": pd.DataFrame(variants, columns=COLUMNS["variants"]),
        "differences": over_models("differences", lambda results: results.differences),
        "steering": over_models("steering", lambda results: success(results.text, perturbations)),
        "stop_words": over_models("stop_words", lambda results: results.stop_words),
        "convergence": over_models("convergence", lambda results: _convergence(results, languages)),
        "stability": over_models("stability", lambda results: results.stability),
        "audit": over_models("audit", lambda results: pd.DataFrame(results.audit)),
    }
    compared = {
        model: compare(results.replicates, made, model) for model, results in models.items() if results.replicates
    }
    parts = [table.assign(model=model, reference=models[model].replicates) for model, table in compared.items()]
    replication = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS["replication"])
    return made | {"replication": replication[COLUMNS["replication"]]}


def _recordings(results: ModelResults) -> pd.DataFrame:
    rows = []
    for language, metadata in results.recordings.items():
        text_of = metadata.get("text", {})
        row = {"language": language, "tokens": metadata["tokens"]}
        row |= {key: text_of.get(key) for key in ("split", "documents", "window")}
        row |= {name.removesuffix("_tokens"): share for name, share in shares(text_of).items()}
        kept = ("architecture", "dtype", "device", "engine", "torch", "transformers", "file")
        rows.append(row | {key: metadata.get(key) for key in kept})
    return pd.DataFrame(rows)


def _neurons(results: ModelResults) -> pd.DataFrame:
    """`method, language, neurons`, then their share, mean entropy and probability, and the language's percentile."""
    rows = []
    for method, (table, summary) in results.neurons.items():
        size = _size(summary)
        for language in results.languages[method]:
            own = table[table["language"] == language]
            rows.append(
                {
                    "method": method,
                    "language": language,
                    "neurons": len(own),
                    "share_of_neurons": len(own) / size if size else float("nan"),
                    "mean_entropy": own["entropy"].mean(),
                    "mean_probability": own["probability"].mean(),
                    "percentile": summary["percentile_by_language"].get(language, float("nan")),
                }
            )
    return pd.DataFrame(rows)


def _size(summary: Json) -> int | None:
    """Number of FFN neurons of a model; a mask alone does not tell."""
    return summary["layers"] * summary["neurons_per_layer"] if summary["neurons_per_layer"] else None


def _neurons_by_layer(results: ModelResults) -> pd.DataFrame:
    """`method, language, layer, neurons`, layers without neurons included."""
    rows = []
    for method, (table, summary) in results.neurons.items():
        counts = table.groupby(["language", "layer"]).size()
        for language in results.languages[method]:
            for layer in range(summary["layers"]):
                number = int(counts.get((language, layer), 0))
                rows.append({"method": method, "language": language, "layer": layer, "neurons": number})
    return pd.DataFrame(rows)


def _overlaps(results: ModelResults) -> pd.DataFrame:
    """Neurons that two sets share: of two languages by one method, and of one language by two methods.

    Columns: `method, language, other_method, other_language, neurons, other_neurons, shared, jaccard` (shared of those
    in either set) and `expected`, the mean number shared by two random sets of these sizes.
    """
    sets = {
        (method, language): set(zip(own["layer"], own["neuron"], strict=True))
        for method, (table, _) in results.neurons.items()
        for language in results.languages[method]
        for own in [table[table["language"] == language]]
    }
    rows = []
    for one, other in combinations(sets, 2):
        if (one[0] == other[0]) == (one[1] == other[1]):
            continue
        size = next((number for name in (one[0], other[0]) if (number := _size(results.neurons[name][1]))), None)
        shared, either = len(sets[one] & sets[other]), len(sets[one] | sets[other])
        rows.append(
            dict(zip(("method", "language", "other_method", "other_language"), one + other, strict=True))
            | {"neurons": len(sets[one]), "other_neurons": len(sets[other]), "shared": shared}
            | {"jaccard": shared / either if either else float("nan")}
            | {"expected": len(sets[one]) * len(sets[other]) / size if size else float("nan")}
        )
    return pd.DataFrame(rows)


def _convergence(results: ModelResults, languages: list[str]) -> pd.DataFrame:
    """Every pair of selections of the same share of neurons; those of a mask are in `overlaps`."""
    rated = {name: part for name, part in results.neurons.items() if name != PUBLISHED}
    rates = [summary["top_rate"] for _, summary in rated.values()]
    tables = {name: table for name, (table, summary) in rated.items() if summary["top_rate"] == rates[0]}
    if len(tables) < 2:
        return pd.DataFrame()
    summary = next(iter(rated.values()))[1]
    return convergence(tables, languages, summary["layers"], summary["neurons_per_layer"])


def _thresholds(results: ModelResults) -> pd.DataFrame:
    """Per method: what was asked for, the bar and how many neurons passed it. A mask holds none of that."""
    keys = ("top_rate", "activation_percentile", "activation_bar", "candidates", "requested", "selected")
    more = ("entropy_min", "entropy_max", "layers", "neurons_per_layer")
    table = pd.DataFrame(
        [
            {"method": method} | {key: summary[key] for key in (*keys, *more)}
            for method, (_, summary) in results.neurons.items()
        ]
    )
    whole = ("candidates", "requested", "selected", "layers", "neurons_per_layer")
    return table.astype(dict.fromkeys(whole, "Int64")) if len(table) else table


def _perplexity(results: ModelResults) -> pd.DataFrame:
    return results.perplexity if results.perplexity.empty else perplexity.summarise(results.perplexity)


def _text(results: ModelResults, languages: list[str]) -> pd.DataFrame:
    return results.text if results.text.empty else text.summarise(results.text, languages)


def _output_languages(results: ModelResults) -> pd.DataFrame:
    return results.text if results.text.empty else text.output_languages(results.text)
