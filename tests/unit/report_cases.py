"""Small results with known numbers, and a reader of the page that is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.report import findings, render
from langneurons.validation import validate

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "report" / "templates" / "report.html.j2"
STYLE = (ROOT / "report" / "templates" / "style.css").read_text(encoding="utf-8")
SCRIPT = (ROOT / "report" / "templates" / "script.js").read_text(encoding="utf-8")
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7 * 7 }} \x00\x1b[31m\x85 ' + "w" * 5000
RTL = "مرحبا بالعالم \u202e abc"
LANGUAGES = ["en", "de"]
SUMMARY = "Perplexity with a language's neurons off, as a multiple of the unperturbed model's"


class Page(HTMLParser):
    """Tables by caption, as rows of cell texts; all tags with their attributes; the text, and that of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        """Text of every section by its id, white space as shown; without what a style or a script says."""
        self.commands: dict[str, list[str]] = {}
        """By section, what stands as code in it."""
        self._pieces: list[str] = []
        self._of_section: dict[str, list[str]] = {}
        self._section = ""
        self._caption: str | None = None
        self._rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.text = "".join(self._pieces)
        for name, pieces in self._of_section.items():
            words = "".join(pieces)
            self.sections[name] = " ".join(words.split()) + " " * words[-1:].isspace()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        elif tag == "code":
            self.commands.setdefault(self._section, []).append("")
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "section":
            self._section = ""
        if tag == "table":
            name = (self._caption or "").strip()
            while name in self.tables:
                name += "+"
            self.tables[name] = [[cell.strip() for cell in row] for row in self._rows]

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._pieces.append(data)
        if self._section and "script" not in self._open:
            self._of_section.setdefault(self._section, []).append(data)
        if "code" in self._open:
            self.commands[self._section][-1] += data
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


CATALOGUE = {
    "deactivate": {"kind": "deactivate"},
    "random": {"kind": "random"},
    "random-active": {"kind": "random", "control": "activity", "measure": ["perplexity"]},
    "deactivate-rate": {"kind": "deactivate", "top_rate": [0.01, 0.1], "measure": ["perplexity"]},
    "random-rate": {"kind": "random", "of": "deactivate-rate", "measure": ["perplexity"]},
    "steer": {"kind": "steer", "scale": 2, "measure": ["answers"]},
    "random-steer": {"kind": "random", "of": "steer", "measure": ["answers"]},
    "steer-residual": {"kind": "steer", "site": "residual", "layers": [2], "measure": ["answers"]},
}
"""Variants of every kind."""


def config_of_kinds(**catalogue: Any) -> dict[str, Any]:
    """A run of all of `CATALOGUE`, and of variants given here."""
    run = {"models": ["tiny"], "languages": LANGUAGES, "perturbations": [*CATALOGUE, *catalogue]}
    return config_of(run=run, perturbations=CATALOGUE | catalogue)


def variant_settings(**catalogue: Any) -> pd.DataFrame:
    """The table of variants of that run."""
    return findings.settings_of(config_of_kinds(**catalogue))[0]


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


def with_controls_by_activity(table: pd.DataFrame, *ratios: float) -> pd.DataFrame:
    """A table of perplexity with draws of `random-active` for every language, of these ratios."""
    draws = table[table["perturbation"].str.fullmatch("random-..-1")]
    named = [
        draws.assign(
            perturbation=[f"random-active-{language}-{number}" for language in draws["edited_language"]],
            **{"variant": "random-active", "draw": number, "ratio": ratio},
        )
        for number, ratio in enumerate(ratios, 1)
    ]
    return pd.concat([table, *named], ignore_index=True)


def text_metrics() -> pd.DataFrame:
    """Every cell has its own length: 100, 200, … in the order of the rows; the ratio is a thousandth of it."""
    table = perplexity().drop(columns=["perplexity", "ratio"])
    table["mean_characters"] = [100.0 * number for number in range(1, len(table) + 1)]
    table["stop_word_ratio"] = table["mean_characters"] / 10_000
    table["prompt_language"] = table["kind"].map({"none": 0.9, "deactivate": 0.25, "random": 0.8})
    table = table.assign(identical_to_baseline=0.05, empty=0.0, outputs=40)
    shares = {"english": 0.125, "undetermined": 0.075, "agreement": 0.875, "loops": 0.15, "copies": 0.35}
    return table.assign(**shares, repeated_ngrams=0.0625, distinct_2=0.9375, compression_ratio=1.625)


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


def differences(ratios: pd.DataFrame | None = None) -> pd.DataFrame:
    """Perplexity: ln of the ratio of `perplexity()`, or of another such table; answers in the prompt's language: from
    90 to 25 %. Both against none, in every language; the own language against random as well. Intervals reach 0.1 to
    either side.
    """
    rows = []
    for row in (perplexity() if ratios is None else ratios).to_dict("records"):
        if row["kind"] == "none":
            continue
        cell = {key: row[key] for key in ("model", "perturbation", "language", "variant", "kind", "edited_language")}
        difference = math.log(row["ratio"])
        nats = {"measure": "perplexity", "unit": "windows", "reference": 3.0, "value": 3.0 + difference, "samples": 80}
        share = {"measure": "prompt_language", "unit": "prompts", "reference": 0.9, "value": 0.25, "samples": 40}
        rows.append(cell | nats | {"against": "none", "draws": 0, "difference": difference})
        rows.append(cell | share | {"against": "none", "draws": 0, "difference": -0.65})
        if row["kind"] == "deactivate" and row["language"] == row["edited_language"]:
            rows.append(cell | nats | {"against": "random", "draws": 2, "difference": difference - 0.04})
    table = pd.DataFrame(rows).assign(p_value=0.0005, q_value=0.00123, note=None, source_language=None, draw=math.nan)
    return table.assign(low=table["difference"] - 0.1, high=table["difference"] + 0.1)


def steering(shares: dict[str, float] | None = None, languages: Sequence[str] = LANGUAGES) -> pd.DataFrame:
    """Every direction and all together with the same share per variant, an interval of 0.04 to either side."""
    shares = {"none": 0.05, "steer": 0.6, "random-steer": 0.1} if shares is None else shares
    directions = [(one, other) for one in languages for other in languages if one != other]
    rows = [
        {"variant": name, "language": language, "target": target, "prompts": 40, "share": share}
        for name, share in shares.items()
        for language, target in [*directions, ("all", "all")]
    ]
    table = pd.DataFrame(rows).assign(model="tiny", note=None)
    draws = table["variant"].str.startswith("random").map({True: 5, False: 0})
    return table.assign(draws=draws, low=table["share"] - 0.04, high=table["share"] + 0.04)


def stop_words() -> pd.DataFrame:
    rows = [
        {"perturbation": name, "variant": kind, "kind": kind, "language": language, "output_language": "de"}
        | {"list": words, "outputs": 7, "words": 100, "stop_words": 25, "ratio": 0.25 if words == "de" else 0.125}
        for name, kind in (("none", "none"), ("deactivate-en", "deactivate"), ("random-en-1", "random"))
        for language in LANGUAGES
        for words in LANGUAGES
    ]
    return pd.DataFrame(rows).assign(model="tiny", edited_language=None, source_language=None)


def convergence(methods: Sequence[str] = ("lape", "probe"), languages: Sequence[str] = LANGUAGES) -> pd.DataFrame:
    """Sets of 12 and 8 neurons that share 4, so a quarter of either; by chance 0.25 of them. Layer 0 holds all."""
    rows = [
        {"method": one, "other_method": other, "language": language, "layer": layer}
        for one, other in combinations(methods, 2)
        for language in languages
        for layer in (0, math.nan)
    ]
    sizes = {"neurons": 12, "other_neurons": 8, "shared": 4, "jaccard": 0.25, "expected": 0.25, "p_value": 0.001}
    return pd.DataFrame(rows).assign(model="tiny", **sizes)


def stability() -> pd.DataFrame:
    rows = [
        {"comparison": comparison, "language": language, "tokens": tokens}
        for comparison, tokens in (("halves", 6000), ("1/4", 3000), ("1/2", 6000))
        for language in LANGUAGES
    ]
    sizes = {"neurons": 12, "other_neurons": 10, "shared": 8, "jaccard": 8 / 14, "expected": 0.3}
    return pd.DataFrame(rows).assign(model="tiny", **sizes)


def all_tables() -> findings.Tables:
    shares = text_metrics().assign(share=1.0)
    return {
        "differences": differences(),
        "steering": steering(),
        "stop_words": stop_words(),
        "convergence": convergence(),
        "stability": stability(),
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
    config = parts.pop("config", None) or config_of()
    inputs = render.Inputs(**({"config": config, "provenance": provenance} | parts))
    html = render.render(inputs, TEMPLATE, STYLE, SCRIPT)
    return Page(html), html


@cache
def full_page() -> tuple[Page, str]:
    svg = '<svg width="540pt" height="100pt" xmlns="http://www.w3.org/2000/svg"><g/></svg>'
    names = ("layer_profile", "perplexity_ratio", "perplexity_spread", "output_languages")
    timings = pd.DataFrame({"rule": ["generate"], "job": [""], "seconds": [3.0], "megabytes": [100.0]})
    figures = {"tiny": dict.fromkeys(names, svg)}
    return page_of(tables=all_tables(), figures=figures, texts={"tiny": answers()}, timings=timings)


@cache
def hostile_page() -> tuple[Page, str]:
    texts = answers(HOSTILE)
    texts.loc[texts["language"] == "de", ["input", "output"]] = [f"Q: {HOSTILE}\nA:", RTL]
    tables = all_tables()
    tables["effects"]["note"] = HOSTILE
    config = config_of(report={"title": HOSTILE})
    return page_of(config=config, tables=tables, texts={"tiny": texts})
