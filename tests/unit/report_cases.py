"""Small results with known numbers, and a reader of the page that is made of them."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.report import findings, render
from langneurons.validation import validate

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "report" / "templates" / "report.html.j2"
STYLE = (ROOT / "report" / "templates" / "style.css").read_text(encoding="utf-8")
LANGUAGES = ["en", "de"]
SUMMARY = "Perplexity with a language's neurons off, as a multiple of the unperturbed model's"


class Page(HTMLParser):
    """Tables by caption, as rows of cell texts; all tags with their attributes; the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._caption: str | None = None
        self._rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            name = (self._caption or "").strip()
            while name in self.tables:
                name += "+"
            self.tables[name] = [[cell.strip() for cell in row] for row in self._rows]

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption = (self._caption or "") + data
        elif self._open and any(tag in ("td", "th") for tag in self._open):
            self._rows[-1][-1] += data

    def row(self, caption: str, *labels: str) -> list[str]:
        """The cells after these row labels."""
        return next(row[len(labels) :] for row in self.tables[caption] if row[: len(labels)] == list(labels))


def config_of(**overrides: Any) -> dict[str, Any]:
    run = {"models": ["tiny"], "languages": LANGUAGES, "perturbations": ["deactivate", "random"]}
    raw = {"run": run, "models": {"tiny": {"source": "demo", "architecture": "llama"}}} | overrides
    return validate(raw)


def perplexity(own: float = 1.5, other: float = 1.1, draws: tuple[float, ...] = (1.02, 1.06)) -> pd.DataFrame:
    """`deactivate` with these ratios; `random` with these draws; unperturbed perplexity 20 in en, 30 in de."""
    rows = []

    def add(perturbation: str, variant: str, edited: str | None, draw: float, ratios: dict[str, float]) -> None:
        about = {"model": "tiny", "perturbation": perturbation, "variant": variant, "kind": variant, "draw": draw}
        for language, ratio in ratios.items():
            value = ratio * {"en": 20, "de": 30}[language]
            rows.append(about | {"edited_language": edited, "language": language, "perplexity": value, "ratio": ratio})

    add("none", "none", None, math.nan, dict.fromkeys(LANGUAGES, 1.0))
    for edited in LANGUAGES:
        ratios = {language: own if language == edited else other for language in LANGUAGES}
        add(f"deactivate-{edited}", "deactivate", edited, math.nan, ratios)
        for number, draw in enumerate(draws, 1):
            add(f"random-{edited}-{number}", "random", edited, number, dict.fromkeys(LANGUAGES, draw))
    return pd.DataFrame(rows)


def text_metrics() -> pd.DataFrame:
    """Every cell has its own length: 100, 200, … in the order of the rows; the ratio is a thousandth of it."""
    table = perplexity().drop(columns=["perplexity", "ratio"])
    table["mean_characters"] = [100.0 * number for number in range(1, len(table) + 1)]
    table["stop_word_ratio"] = table["mean_characters"] / 10_000
    table["prompt_language"] = table["kind"].map({"none": 0.9, "deactivate": 0.25, "random": 0.8})
    return table.assign(identical_to_baseline=0.05, empty=0.0, outputs=40)


def neurons(en: int = 12, de: int = 9) -> dict[str, pd.DataFrame]:
    rows = [{"model": "tiny", "method": "lape", "language": name, "neurons": n} for name, n in (("en", en), ("de", de))]
    limits = {"top_rate": 0.05, "activation_percentile": 0.95, "activation_bar": 0.6127, "candidates": 60}
    sizes = {"requested": 20, "selected": 20, "entropy_min": 0.111, "entropy_max": 0.222, "layers": 4}
    return {
        "neurons": pd.DataFrame(rows).assign(share_of_neurons=0.03, mean_entropy=0.5, mean_probability=0.7),
        "thresholds": pd.DataFrame([{"model": "tiny", "method": "lape", **limits, **sizes, "neurons_per_layer": 100}]),
    }


def answers(output: str = "an answer") -> pd.DataFrame:
    rows = []
    for perturbation in dict.fromkeys(perplexity()["perturbation"]):
        for language in LANGUAGES:
            for number in range(1, 5):
                name = f"{language}-{number}"
                words = {"input": f"Q: question {name}?\nA:", "output": f"{output} ({perturbation}, {name})"}
                seen = {"output_language": language, "confidence": 0.875, "finish_reason": "stop"}
                row = {"perturbation": perturbation, "language": language, "id": name, **words, **seen}
                rows.append(row | {"identical_to_baseline": perturbation == "none"})
    return pd.DataFrame(rows)


def effects() -> pd.DataFrame:
    rows = [
        {"perturbation": "deactivate-en", "edited_neurons": 12, "largest_error": 3e-7, "largest_change": 0.5},
        {"perturbation": "deactivate-de", "edited_neurons": 9, "largest_error": 9e-7, "largest_change": 0.25},
        {"perturbation": "random-en-1", "edited_neurons": 0, "largest_error": 0.0, "largest_change": 0.0},
    ]
    notes = [None, None, "the neuron set is empty"]
    return pd.DataFrame(rows).assign(model="tiny", edited_layers=2, logits_change=1.5, note=notes)


def recordings() -> pd.DataFrame:
    versions = {"torch": "9.8.7", "transformers": "6.5.4", "engine": "hf", "device": "cpu", "dtype": "float32"}
    rows = [
        {"language": "en", "tokens": 12345, "documents": 67, "split": "train"},
        {"language": "de", "tokens": 23456, "documents": 78, "split": "train"},
    ]
    return pd.DataFrame([row | versions | {"window": 128, "architecture": "TinyForCausalLM"} for row in rows]).assign(
        model="tiny"
    )


def all_tables() -> findings.Tables:
    shares = text_metrics().assign(share=1.0)
    return {
        "recordings": recordings(),
        **neurons(),
        "perplexity": perplexity(),
        "text": text_metrics(),
        "output_languages": shares.assign(output_language=shares["language"]),
        "effects": effects(),
    }


def page_of(**parts: Any) -> tuple[Page, str]:
    """The page of these inputs, and its HTML."""
    provenance = {"date": "2026-01-02", "commit": "abc123", "changed": True, "versions": {"python": "3.11.0"}}
    inputs = render.Inputs(**({"config": config_of(), "provenance": provenance} | parts))
    html = render.render(inputs, TEMPLATE, STYLE)
    return Page(html), html


def full_page() -> tuple[Page, str]:
    svg = '<svg width="540pt" height="100pt" xmlns="http://www.w3.org/2000/svg"><g/></svg>'
    names = ("layer_profile", "perplexity_ratio", "perplexity_spread", "output_languages")
    timings = pd.DataFrame({"rule": ["generate"], "job": [""], "seconds": [3.0], "megabytes": [100.0]})
    figures = {"tiny": dict.fromkeys(names, svg)}
    return page_of(tables=all_tables(), figures=figures, texts={"tiny": answers()}, timings=timings)
