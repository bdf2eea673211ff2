"""The tables of the report: tidy, one CSV each, over all models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons import artifacts
from langneurons.metrics import perplexity, text

Json = dict[str, Any]


@dataclass(frozen=True)
class ModelResults:
    """What the jobs of one model measured."""

    recordings: dict[str, Json]
    """Metadata of the recordings by language, with `tokens` recorded."""
    neurons: dict[str, tuple[pd.DataFrame, Json]]
    """By method: selected neurons, and thresholds and counts."""
    perplexity: pd.DataFrame
    """One row per window."""
    text: pd.DataFrame
    """One row per output."""


def read_model(folder: Path, languages: list[str], methods: list[str]) -> ModelResults:
    """Read what is needed of one model's folder."""
    recordings = {}
    for language in languages:
        counts, metadata = artifacts.read_activations(folder / "activations" / f"{language}.safetensors")
        recordings[language] = metadata | {"tokens": counts.tokens}
    return ModelResults(
        recordings=recordings,
        neurons={
            method: artifacts.read_table(folder / "neurons" / f"{method}.parquet", "neurons") for method in methods
        },
        perplexity=artifacts.read_table(folder / "metrics" / "perplexity.parquet", "perplexity")[0],
        text=artifacts.read_table(folder / "metrics" / "text.parquet", "text-metrics")[0],
    )


def read_effects(results: Path, models: list[str], perturbations: list[Json]) -> pd.DataFrame:
    """What the engine verified of every perturbation: `model, perturbation, edited_neurons, …`."""
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
    return pd.DataFrame(rows)


def make_tables(
    models: dict[str, ModelResults], effects: pd.DataFrame, perturbations: list[Json], languages: list[str]
) -> dict[str, pd.DataFrame]:
    """All tables by name.

    Args:
        models: results by model.
        effects: from `read_effects`.
        perturbations: `id, variant, kind, language` (whose neurons) and `draw` of every perturbation, the baseline
        first. languages: of the run, in order.
    """
    described = pd.DataFrame(perturbations).rename(columns={"id": "perturbation", "language": "edited_language"})
    described["draw"] = described["draw"].astype("Int64")

    def over_models(function: Any) -> pd.DataFrame:
        """Stack one table per model, with the model and what is known of the perturbation in front."""
        parts = []
        for model, results in models.items():
            part = function(results)
            part.insert(0, "model", model)
            parts.append(part)
        table = pd.concat(parts, ignore_index=True)
        return table.merge(described, how="left", on="perturbation") if "perturbation" in table else table

    return {
        "recordings": over_models(_recordings),
        "neurons": over_models(_neurons),
        "neurons_by_layer": over_models(_neurons_by_layer),
        "thresholds": over_models(_thresholds),
        "perplexity": over_models(lambda results: perplexity.summarise(results.perplexity)),
        "text": over_models(lambda results: text.summarise(results.text, languages)),
        "output_languages": over_models(lambda results: text.output_languages(results.text)),
        "effects": effects,
    }


def _recordings(results: ModelResults) -> pd.DataFrame:
    rows = []
    for language, metadata in results.recordings.items():
        kept = ("architecture", "dtype", "device", "engine", "torch", "transformers")
        text_of = metadata["text"]
        row = {"language": language, "tokens": metadata["tokens"], "split": text_of["split"]}
        rows.append(
            row
            | {"documents": text_of["documents"], "window": text_of["window"]}
            | {key: metadata[key] for key in kept}
        )
    return pd.DataFrame(rows)


def _neurons(results: ModelResults) -> pd.DataFrame:
    """`method, language, neurons`, then their mean entropy and mean activation probability."""
    rows = []
    for method, (table, summary) in results.neurons.items():
        for language in results.recordings:
            own = table[table["language"] == language]
            rows.append(
                {
                    "method": method,
                    "language": language,
                    "neurons": len(own),
                    "share_of_neurons": len(own) / (summary["layers"] * summary["neurons_per_layer"]),
                    "mean_entropy": own["entropy"].mean(),
                    "mean_probability": own["probability"].mean(),
                }
            )
    return pd.DataFrame(rows)


def _neurons_by_layer(results: ModelResults) -> pd.DataFrame:
    """`method, language, layer, neurons`, layers without neurons included."""
    rows = []
    for method, (table, summary) in results.neurons.items():
        counts = table.groupby(["language", "layer"]).size()
        for language in results.recordings:
            for layer in range(summary["layers"]):
                rows.append(
                    {
                        "method": method,
                        "language": language,
                        "layer": layer,
                        "neurons": int(counts.get((language, layer), 0)),
                    }
                )
    return pd.DataFrame(rows)


def _thresholds(results: ModelResults) -> pd.DataFrame:
    """Per method: what was asked for, the bar and how many neurons passed it."""
    keys = ("top_rate", "activation_percentile", "activation_bar", "candidates", "requested", "selected")
    more = ("entropy_min", "entropy_max", "layers", "neurons_per_layer")
    return pd.DataFrame(
        [
            {"method": method} | {key: summary[key] for key in (*keys, *more)}
            for method, (_, summary) in results.neurons.items()
        ]
    )
