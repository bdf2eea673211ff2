"""The sections on answers, steering, methods, firmness and effects: their numbers, and what is missing from them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from langneurons.report import effect_views, formats, render, views
from unit.report_cases import (
    LANGUAGES,
    Page,
    all_tables,
    answers,
    config_of,
    config_of_kinds,
    convergence,
    differences,
    neurons,
    page_of,
    perplexity,
    stability,
    steering,
    stop_words,
    text_metrics,
)

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7 * 7 }} %s \x00'
SVG = '<svg width="540pt" height="100pt" xmlns="http://www.w3.org/2000/svg"><g/></svg>'


# -- answers to the questions ------------------------------------------------------------------------------------------


def page_with(monkeypatch: pytest.MonkeyPatch, found: list[dict[str, Any]], **parts: Any) -> Page:
    """The page with these answers in its context."""
    context = render._context
    above = {answer["figure"] for answer in found if answer["figure"]}
    monkeypatch.setattr(render, "_context", lambda inputs: context(inputs) | {"answers": found, "above": above})
    return page_of(**parts)[0]


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "question": "RQ1",
        "title": "Does it degrade?",
        "paragraphs": ["First.", "Second."],
        "figure": ("tiny", "language_effects"),
        "supported": True,
    } | changes


def test_answers_come_first_with_their_verdict_and_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        answer(),
        answer(question="RQ2", supported=False, figure=None),
        answer(question="Models", model=None, supported=None, figure=None),
    ]
    page = page_with(monkeypatch, found, figures={"tiny": {"language_effects": SVG}})
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections[:2] == ["glance", "answers"]
    words = " ".join(page.text.split())
    assert "Does it degrade? RQ1 · tiny · Supported by this run First. Second." in words
    assert "RQ2 · tiny · Not supported in every respect" in words
    assert "Models · all models · This run cannot tell" in words
    # The figure stands there alone; its section points to it.
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert "The figure of this is in Answers." in words


def test_hostile_answers_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [answer(title=HOSTILE, paragraphs=[HOSTILE], question=HOSTILE, figure=("tiny", HOSTILE))]
    page = page_with(monkeypatch, found)
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert page.text.count("{{ 7 * 7 }} %s ␀") == 5  # the figure's name twice: what is missing, and its target


def test_without_answers_there_is_no_such_section() -> None:
    _, html = page_of()
    assert 'id="answers"' not in html
    assert "#answers" not in html


# -- steering ----------------------------------------------------------------------------------------------------------


SHARES = {"none": 0.05, "steer": 0.6, "random-steer": 0.1, "steer-residual": 0.9}


def test_steering_success_beside_control_and_baseline() -> None:
    page, _ = page_of(tables=all_tables() | {"steering": steering(SHARES)}, config=config_of_kinds())
    caption = "Steering success of tiny, all directions together"
    assert page.row(caption, "steer") == [
        "neurons set to 2 × their mean on the target (the input of the down projection)",
        "40",
        "60.0% [56.0%, 64.0%]",
        "10.0% [6.0%, 14.0%]",
        "5.0%",
        "random-steer, 5",
    ]
    assert page.row(caption, "steer-residual") == [
        "no neurons: 1 × DiffMean added to the residual stream after layer 2",
        "40",
        "90.0% [86.0%, 94.0%]",
        "–",
        "5.0%",
        "no control",
    ]
    assert "steer-residual uses no neurons: DiffMean" in " ".join(page.text.split())
    directions = page.tables["Answers of tiny in the target language, by direction"]
    assert directions[0] == ["prompts", "target", "not perturbed", "steer", "steer-residual", "random-steer"]
    assert directions[1][:4] == ["en", "de", "5.0% [1.0%, 9.0%]", "60.0% [56.0%, 64.0%]"]


def test_scale_of_a_model_of_its_own() -> None:
    config = config_of_kinds(strong={"kind": "steer", "scale": 2, "scale_by_model": {"tiny": 6}, "edit": "add"})
    words = effect_views.how(config["perturbations"]["strong"], "tiny")
    assert words.startswith("neurons raised by 6 × their mean")
    assert effect_views.how(config["perturbations"]["strong"], "other").startswith("neurons raised by 2 ×")


def test_the_baseline_is_of_the_same_directions() -> None:
    """A variant that steers to de only is compared with unperturbed answers in de."""
    table = steering(SHARES)
    table.loc[(table["variant"] == "none") & (table["target"] == "de"), "share"] = 0.4
    table = table[~((table["variant"] == "steer") & (table["target"] == "en"))]
    part = effect_views.steering("tiny", {"steering": table}, config_of_kinds())
    assert part is not None
    baselines = {row["variant"]: row["baseline"] for row in part["rows"]}
    assert baselines == pytest.approx({"steer": 0.4, "steer-residual": (0.4 + 0.05) / 2})


def test_of_many_steering_variants_the_others_are_folded() -> None:
    config = config_of_kinds(sweep={"kind": "steer", "scale": [1, 2, 3]})
    shares = SHARES | {"sweep-1": 0.1, "sweep-2": 0.2, "sweep-3": 0.7}
    page, _ = page_of(tables=all_tables() | {"steering": steering(shares)}, config=config)
    shown = [row[0] for row in page.tables["Steering success of tiny, all directions together"][2:]]
    assert shown == ["steer", "steer-residual", "sweep-3"]
    others = [row[0] for row in page.tables["Steering success of tiny, other variants"][2:]]
    assert others == ["sweep-1", "sweep-2"]
    assert "chosen on these same prompts" in page.text


def test_nothing_steered_is_said() -> None:
    page, _ = page_of(tables=all_tables())  # the run of this config steers nothing
    assert "No answers of tiny were steered to another language" in page.text


# -- methods -----------------------------------------------------------------------------------------------------------


def tables_of_methods() -> dict[str, pd.DataFrame]:
    both = neurons()
    both["neurons"] = pd.concat([both["neurons"], both["neurons"].assign(method="probe", neurons=8)])
    limits = both["thresholds"]
    extra = [limits.assign(method="probe"), limits.assign(method="lape-top-0.1", top_rate=0.1)]
    return all_tables() | both | {"thresholds": pd.concat([limits, *extra])}


def test_methods_with_overlap_and_effect() -> None:
    page, _ = page_of(tables=tables_of_methods(), config=config_of_kinds())
    caption = "Neurons of tiny by method"
    assert page.row(caption, "lape", "en") == [
        "12",
        "–",
        "–",
        "1.500 [1.357, 1.658]",  # times exp(±0.1)
        "1.100 (de)",
        "deactivate",
    ]
    # 4 shared of 16 in either; by chance 0.25 of 19.75.
    assert page.row(caption, "probe", "de") == ["8", "25.0%", "1.3%", "–", "–", "–"]
    assert [row[0] for row in page.tables[caption][2:]] == ["lape", "lape", "probe", "probe"]  # none of another rate
    assert "no variant of this run switches these neurons off" in page.text


def test_effect_of_switching_off_the_neurons_of_another_method() -> None:
    table = differences()
    probed = table[table["variant"] == "deactivate"].assign(variant="probed", difference=math.log(1.25))
    probed["perturbation"] = probed["perturbation"].str.replace("deactivate", "probed")
    config = config_of_kinds(probed={"kind": "deactivate", "method": "probe"})
    tables = tables_of_methods() | {"differences": pd.concat([table, probed])}
    rows = {(row["method"], row["language"]): row for row in effect_views.methods("tiny", tables, config)}
    assert rows["probe", "en"]["variant"] == "probed"
    assert rows["probe", "en"]["ratio"] == pytest.approx(1.25)
    assert rows["lape", "en"]["ratio"] == pytest.approx(1.5)


def test_one_method_alone_is_said() -> None:
    page, _ = page_of(tables=all_tables())
    assert "Only one method found neurons. The key identification.compare names others." in page.text


def test_an_effect_too_large_for_a_number() -> None:
    table = differences()
    table.loc[table["measure"] == "perplexity", "difference"] = 1000.0
    rows = effect_views.methods("tiny", tables_of_methods() | {"differences": table}, config_of_kinds())
    assert rows[0]["ratio"] == rows[0]["other"] == math.inf
    (group, _) = effect_views.differences(table, config_of_kinds(), pd.DataFrame())["groups"]
    assert group["rows"][0]["ratio"] == math.inf


# -- firmness ----------------------------------------------------------------------------------------------------------


def test_firmness_of_the_selection() -> None:
    page, _ = page_of(tables=all_tables())
    row = ["6,000", "12", "10", "8", "57.1%", "1.4%"]  # 8 of 14 in either; 0.3 of 21.7
    assert page.row("Neurons of tiny from parts of the text", "one half of the text and the other", "en") == row
    assert page.row("Neurons of tiny from parts of the text", "a quarter and all", "de")[0] == "3,000"
    assert "No model of this run was trained with several seeds." in page.text


def test_training_seeds_side_by_side() -> None:
    models = ["tiny-seed-0", "tiny-seed-1"]
    run = {"models": ["tiny"], "languages": LANGUAGES, "perturbations": ["deactivate", "random", "steer"]}
    tiny = {"source": "demo", "architecture": "llama", "training_seeds": [0, 1]}
    config = config_of(run=run, models={"tiny": tiny})
    assert config["run"]["models"] == models
    measured = zip(models, (1.5, 1.2), (12, 20), (0.6, 0.7), strict=True)
    parts = [
        {
            "perplexity": perplexity(own).assign(model=model),
            "neurons": neurons(number)["neurons"].assign(model=model),
            "steering": steering({"none": 0.05, "steer": share}).assign(model=model),
        }
        for model, own, number, share in measured
    ]
    tables = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
    page, _ = page_of(tables=tables, config=config)
    caption = "Training seeds of tiny"
    assert page.tables[caption][0] == ["", "seed-0", "seed-1", "lowest", "highest"]
    assert page.row(caption, "neurons of en") == ["12", "20", "12", "20"]
    assert page.row(caption, "perplexity ratio of en, its neurons off") == ["1.500", "1.200", "1.200", "1.500"]
    assert page.row(caption, "answers in the target language: steer") == ["60.0%", "70.0%", "60.0%", "70.0%"]
    assert page.row(caption, "answers in the target language: not perturbed") == ["5.0%"] * 4
    assert "trained 2 times" in page.text


def test_one_seed_is_no_group() -> None:
    config = config_of(
        run={"models": ["a-seed-1", "b"], "languages": LANGUAGES, "perturbations": []},
        models={name: {"source": "demo", "architecture": "llama"} for name in ("a-seed-1", "b")},
    )
    assert effect_views.seeds([], {}, config) == []


# -- effects with intervals --------------------------------------------------------------------------------------------


def test_effects_size_first_then_interval_then_q() -> None:
    page, _ = page_of(tables=all_tables())
    rows = page.tables["Perplexity, tiny (nats per token; the difference is the logarithm of the ratio)"]
    assert rows[0][3:9] == ["reference", "value", "difference", "95 % interval", "ratio", "q"]
    # ln 1.5 = 0.405
    assert rows[1] == ["deactivate-en", "en", "none", "3.000", "3.405", "+0.405", "+0.305 to +0.505", "1.500", "0.0012",
                       "80", "0", ""]  # fmt: skip
    assert rows[2][2] == "random"
    assert {row[0] for row in rows[1:]} == {"deactivate-en", "deactivate-de"}  # no random draws
    shares = page.tables["Answers in the prompt's language, tiny (%; differences in percentage points)"]
    assert shares[1][3:7] == ["90.0", "25.0", "−65.0", "−75.0 to −55.0"]
    assert "16 more rows, of random draws and of variants not shown in full" in page.text


def test_effects_without_an_interval() -> None:
    table = differences().assign(
        low=math.nan, high=math.nan, q_value=math.nan, note="fewer than 10 windows: no interval"
    )
    page, _ = page_of(tables=all_tables() | {"differences": table})
    rows = page.tables["Perplexity, tiny (nats per token; the difference is the logarithm of the ratio)"]
    assert rows[1][6] == "–"
    assert rows[1][8] == "–"
    assert rows[1][-1] == "fewer than 10 windows: no interval"


def test_effects_on_answers_are_of_the_variants_shown_in_full() -> None:
    table = differences()
    other = table[table["variant"] == "deactivate"].assign(variant="deactivate-rate-0.1", perturbation="other")
    groups = effect_views.differences(pd.concat([table, other]), config_of_kinds(), pd.DataFrame())["groups"]
    shown = {group["name"]: {row["perturbation"] for row in group["rows"]} for group in groups}
    assert "other" in shown["perplexity"]
    assert "other" not in shown["prompt_language"]


def test_a_measure_without_words_is_shown_by_its_name() -> None:
    table = pd.concat([differences(), differences().assign(measure="novelty")])
    page, _ = page_of(tables=all_tables() | {"differences": table})
    assert "novelty, tiny (mean)" in page.tables


@pytest.mark.parametrize(("value", "text"), [(0.125, "+0.12"), (-3.0, "−3.00"), (0.0, "+0.00"), (math.nan, "–")])
def test_signed(value: float, text: str) -> None:
    assert formats.signed(value, 2) == text


# -- answers -----------------------------------------------------------------------------------------------------------


def test_stop_words_by_list_and_language_of_the_answer() -> None:
    page, _ = page_of(tables=all_tables())
    rows = page.tables["Stop-word ratios of the answers of tiny, by list"]
    assert rows[0] == ["perturbation", "prompts", "answers in", "answers", "en", "de"]
    assert rows[1] == ["none", "en", "de", "7", "0.125", "0.250"]
    assert {row[0] for row in rows[1:]} == {"none", "deactivate-en"}  # no random draws


def test_relevance_that_was_not_scored_is_said() -> None:
    page, _ = page_of(tables=all_tables())
    assert "Relevance was not scored" in page.text
    assert "The key metrics.relevance of the configuration adds it." in page.text
    scored = {"relevance": {"kind": "judge", "path": "models/judge"}}
    page, _ = page_of(tables=all_tables(), config=config_of(metrics=scored))
    assert "was scored by judge (models/judge)" in page.text
    assert "Relevance was not scored" not in page.text


def test_measures_that_a_table_lacks_are_left_out() -> None:
    page, _ = page_of(tables=all_tables() | {"text": text_metrics().drop(columns=["loops", "english"])})
    assert "Answers that end in a loop" not in page.tables
    assert "Empty answers" in page.tables


# -- runs of many variants, or of few measurements -------------------------------------------------------------------


def many() -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """More than a hundred perturbations: 25 rates that were read, and 30 ways of steering that were answered."""
    rates = [round(0.06 + number / 1000, 3) for number in range(25)]
    scales = list(range(1, 31))
    config = config_of_kinds(
        rates={"kind": "deactivate", "top_rate": rates, "measure": ["perplexity"]},
        scales={"kind": "steer", "scale": scales, "measure": ["answers"]},
    )
    tables = all_tables()
    for table in ("perplexity", "differences"):
        off = tables[table][tables[table]["variant"] == "deactivate"]
        tables[table] = pd.concat(
            [tables[table], *(renamed(off, "deactivate", f"rates-{rate:g}", "deactivate") for rate in rates)]
        )
    for table in ("text", "output_languages"):
        off = tables[table][tables[table]["variant"] == "deactivate"]
        tables[table] = pd.concat(
            [tables[table], *(renamed(off, "deactivate", f"scales-{scale}", "steer") for scale in scales)]
        )
    shares = {"none": 0.05} | {f"scales-{scale}": scale / 100 for scale in scales}
    return tables | {"steering": steering(shares)}, config


def renamed(table: pd.DataFrame, before: str, name: str, kind: str) -> pd.DataFrame:
    perturbations = table["perturbation"].str.replace(before, name)
    return table.assign(variant=name, kind=kind, perturbation=perturbations)


def test_many_variants_stay_in_the_long_tables() -> None:
    tables, config = many()
    page, html = page_of(tables=tables, config=config)
    assert len(page.tables["Perplexity of tiny"]) > 50
    header = page.tables["Mean length of the answers (characters)"][1]
    assert len(header) == 2 + 2 * (1 + 1 + 3)  # deactivate, random, and the three best of steering
    best = page.tables["Mean length of the answers (characters)"][0]
    assert [cell for cell in best if "scales" in cell] == [f"scales-{scale}: steered to" for scale in (28, 29, 30)]
    shares = {row[0] for row in page.tables["Languages of the answers of tiny"][1:]}
    assert {name for name in shares if "scales" in name} == {
        f"scales-{n}-{to}" for n in (28, 29, 30) for to in LANGUAGES
    }
    assert len(html) < 500_000


@pytest.mark.parametrize("there", ["perplexity", "answers"])
def test_a_run_of_one_kind_of_measurement(there: str) -> None:
    tables = all_tables() | {"differences": differences()[lambda rows: rows["unit"] == "windows"]}
    config = config_of(
        perturbations={"deactivate": {"kind": "deactivate", "measure": [there]}, "random": {"kind": "random"}},
        run={"models": ["tiny"], "languages": LANGUAGES, "perturbations": ["deactivate"]},
    )
    answered = ("text", "output_languages", "stop_words", "steering")
    missing = answered if there == "perplexity" else ("perplexity", "differences")
    page, _ = page_of(tables={name: table for name, table in tables.items() if name not in missing}, config=config)
    said = "The measures of the answers of tiny are missing: snakemake --cores all results/tables/text.csv"
    assert (said if there == "perplexity" else "there is nothing to compare") in page.text
    assert not [cell for rows in page.tables.values() for row in rows for cell in row if cell in ("nan", "None")]


def test_hostile_names_in_every_new_table() -> None:
    tables = all_tables()
    tables["differences"] = differences().assign(note=HOSTILE)
    tables["stop_words"] = stop_words().assign(output_language=HOSTILE)
    tables["stability"] = stability().assign(comparison=HOSTILE)
    tables["convergence"] = convergence(["lape", HOSTILE])
    tables["steering"] = steering(SHARES).assign(note=HOSTILE)
    page, html = page_of(tables=tables, config=config_of_kinds(), texts={"tiny": answers(HOSTILE)})
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert not [character for character in html if ord(character) < 32 and character != "\n"]


def test_titles_of_columns_say_what_was_done() -> None:
    tables = views.text_tables(text_metrics(), config_of_kinds(), pd.DataFrame())
    assert tables[0]["groups"] == ["deactivate: neurons off, those of", "random: mean of draws matched to"]
