"""The page: numbers in the right cells, honest sentences, hostile text made harmless, missing parts tolerated."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from langneurons import artifacts
from langneurons import config as experiment
from langneurons.report import findings, formats, render, views
from unit.report_cases import (
    LANGUAGES,
    RTL,
    SCRIPT,
    STYLE,
    SUMMARY,
    TEMPLATE,
    Page,
    all_tables,
    answers,
    config_of,
    config_of_kinds,
    full_page,
    hostile_page,
    neurons,
    page_of,
    steering,
    text_metrics,
)

# -- numbers in their cells ------------------------------------------------------------------------------------------


def test_summary_compares_own_other_and_random() -> None:
    page, _ = full_page()
    assert page.row(SUMMARY, "tiny", "en") == ["12", "1.500", "1.100 (de)", "1.040", "1.060 (2)", "above both"]
    assert page.row(SUMMARY, "tiny", "de") == ["9", "1.500", "1.100 (en)", "1.040", "1.060 (2)", "above both"]


def test_text_tables_have_the_layout_of_the_replication() -> None:
    page, _ = full_page()
    header = page.tables["Mean length of the answers (characters)"][1]
    assert header == ["prompts", "not perturbed", "en", "de", "en", "de"]
    # Rows of text_metrics: none 100 200, deactivate-en 300 400, random-en-1 500 600, random-en-2 700 800, those of de.
    # The mean of the draws for en is 600.
    lengths = page.row("Mean length of the answers (characters)", "en")
    assert lengths == ["100.0", "300.0", "900.0", "600.0", "1,200.0"]
    assert page.row("Mean length of the answers (characters)", "de")[1:3] == ["400.0", "1,000.0"]
    ratios = page.row("Stop-word ratio (replication's definition, of the prompt's language)", "de")
    assert ratios == ["0.020", "0.040", "0.100", "0.070", "0.130"]
    assert page.row("Answers in the prompt's language", "en") == ["90.0%", "25.0%", "25.0%", "80.0%", "80.0%"]
    assert page.row("Answers identical to the unperturbed ones", "en") == ["5.0%"] * 5
    assert page.row("Empty answers", "de") == ["0.0%"] * 5
    assert page.row("Answers in English", "de") == ["12.5%"] * 5
    assert page.row("Answers whose language is undetermined", "de") == ["7.5%"] * 5
    assert page.row("Answers whose language both identifiers agree on", "de") == ["87.5%"] * 5
    assert page.row("Answers that end in a loop", "en") == ["15.0%"] * 5
    assert page.row("Answers that copy the question", "en") == ["35.0%"] * 5
    assert page.row("Repeated word 4-grams, mean share", "en") == ["0.062"] * 5
    assert page.row("Distinct-2, mean share of distinct word pairs", "en") == ["0.938"] * 5
    assert page.row("Compression ratio, mean", "en") == ["1.62"] * 5


def test_tables_of_what_was_run() -> None:
    page, html = full_page()
    row = ["trained in this run", "TinyForCausalLM", "4", "100", "128", "float32", "cpu", "hf"]
    assert page.row("Models", "tiny") == row
    assert page.row("Text whose activations were recorded", "tiny", "de") == ["23,456", "78", "train"]
    assert page.row("Selected neurons by language", "tiny", "lape", "en") == ["12", "3.0%", "0.500", "0.700"]
    limits = ["5.0%", "95.0%", "0.613", "60", "20", "20", "0.111", "0.222"]
    assert page.row("Thresholds of the selection", "tiny", "lape") == limits
    assert "abc123" in html
    assert "with uncommitted changes" in page.text
    assert "torch 9.8.7 and transformers 6.5.4" in page.text
    assert "repetition_penalty: 1.1" in page.text  # of the whole configuration


def test_perplexity_of_every_perturbation() -> None:
    page, _ = full_page()
    assert page.row("Perplexity of tiny", "deactivate-de") == ["22.00", "45.00", "1.100", "1.500"]
    assert page.row("Perplexity of tiny", "random-en-2") == ["21.20", "31.80", "1.060", "1.060"]


def test_languages_of_the_answers() -> None:
    page, _ = full_page()
    rows = page.tables["Languages of the answers of tiny"]
    assert rows[0] == ["perturbation", "prompts", "en", "de"]
    assert rows[1:4] == [
        ["not perturbed", "en", "100.0%", "0.0%"],
        ["not perturbed", "de", "0.0%", "100.0%"],
        ["deactivate-en", "en", "100.0%", "0.0%"],
    ]
    assert rows[-1] == ["random (mean)", "de", "0.0%", "100.0%"]


def test_effects_are_summed_up() -> None:
    page, _ = full_page()
    words = " ".join(page.text.split())
    assert (
        "2 edits verified: the error was at most 9e-07, while each changed the blocks' output by at least 0.25" in words
    )
    assert "1 perturbation has no neurons to edit." in words
    assert "random-en-1: the neuron set is empty" in words
    assert page.row("Edits of tiny", "deactivate-de") == ["9", "2", "9e-07", "0.25", "1.5"]


def test_every_link_of_the_contents_has_its_section() -> None:
    page, _ = full_page()
    targets = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {f"#{target}" for target in targets}
    assert len(links) == 17


# -- data and script -------------------------------------------------------------------------------------------------


def test_every_table_can_be_taken_along() -> None:
    """The files byte for byte; figures link to the file of their numbers, where there is one."""
    svg = '<svg width="540pt" height="100pt" xmlns="http://www.w3.org/2000/svg"><g/></svg>'
    files = {"overlaps": "model,neurons\ntiny,3\nmgpt,ş\n", "neurons_by_layer": "model\n"}
    figures = {"tiny": dict.fromkeys(("layer_profile", "perplexity_ratio"), svg)}
    page, html = page_of(tables=all_tables(), files=files, figures=figures)
    links = {attributes["id"]: attributes for tag, attributes in page.tags if tag == "a" and "download" in attributes}
    assert list(links) == ["data-overlaps", "data-neurons_by_layer"]
    head, content = links["data-overlaps"]["href"].split(",")
    assert head == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(content).decode("utf-8") == files["overlaps"]
    assert links["data-overlaps"]["download"] == "overlaps.csv"
    assert "overlaps.csv 2 rows" in page.text
    assert [attributes["data-table"] for _, attributes in page.tags if "data-table" in attributes] == [
        "neurons_by_layer"
    ]
    assert 'id="data"' not in page_of()[1]
    assert 'id="data"' in html


def test_only_the_pages_own_script_may_run() -> None:
    """The policy names the checksum of exactly what stands between the tags."""
    _, html = full_page()
    code = html.partition("<script>")[2].partition("</script>")[0]
    assert code.endswith(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'\"" in html


# -- untrusted text --------------------------------------------------------------------------------------------------


def test_hostile_text_is_escaped() -> None:
    page, html = hostile_page()
    assert [tag for tag, _ in page.tags].count("script") == html.count("<script") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert not any(attributes.get("src") == "x" for _, attributes in page.tags)
    assert "{{ 7 * 7 }}" in page.text  # shown as it is, not evaluated
    assert RTL in page.text


def test_control_characters_are_made_visible() -> None:
    page, html = hostile_page()
    assert not [character for character in html if ord(character) < 32 and character != "\n"]
    assert "␀␛[31m\N{REPLACEMENT CHARACTER}" in page.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb\tc", "a\nb\tc"), ("\r\x7f", "␍␡"), ("\ud800x", "\ufffdx"), ("", ""), ("ğ𝄞", "ğ𝄞")],
)
def test_visible(text: str, shown: str) -> None:
    assert formats.visible(text) == shown


def test_hostile_style_cannot_come_from_values() -> None:
    page, html = hostile_page()
    styles = [attributes["style"] for _, attributes in page.tags if attributes.get("style")]
    assert styles == []
    assert html.count("</style>") == 1


@pytest.mark.parametrize("make", [full_page, hostile_page], ids=["full", "hostile"])
def test_nothing_is_loaded_from_anywhere(make: Any) -> None:
    page, _ = make()
    loading = ("src", "srcset", "href", "xlink:href", "data", "action", "poster", "background")
    for tag, attributes in page.tags:
        for key in loading:
            value = attributes.get(key)
            own = ("#", "data:image/svg+xml;base64,", *["data:text/csv;"] * ("download" in attributes))
            assert value is None or value.startswith(own), (tag, key, value)
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    kept, _, scripts = policy.rpartition("; ")
    assert kept == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert re.fullmatch(r"script-src 'sha256-[A-Za-z0-9+/]{43}='", scripts)


# -- examples --------------------------------------------------------------------------------------------------------


def test_examples_side_by_side() -> None:
    shown = views.examples(answers(), config_of(report={"examples": 2}), pd.DataFrame())
    assert [example["id"] for example in shown] == ["en-1", "en-2", "de-1", "de-2"]
    names = [answer["perturbation"] for answer in shown[2]["answers"]]
    assert names == ["none", "deactivate-de", "random-de-1"]
    assert shown[2]["answers"][2]["output"] == "an answer (random-de-1, de-1)"


def test_examples_of_steering_to_another_language_and_of_its_controls() -> None:
    shown = views.shown_perturbations("en", config_of_kinds(), steering())
    assert shown == [
        ("Not perturbed", "none"),
        ("Neurons of en off", "deactivate-en"),
        ("As many random neurons as en has, off", "random-en-1"),
        ("Steered to de: steer", "steer-de"),
        ("The same with random neurons: random-steer", "random-steer-de-1"),
        ("Steered to de: steer-residual", "steer-residual-de"),
    ]
    pair = config_of_kinds(pair={"kind": "steer", "source_off": True, "targets": ["en"]})
    assert ("Steered to en: pair", "pair-de-en") in views.shown_perturbations("de", pair, steering())
    assert "pair" not in str(views.shown_perturbations("en", pair, steering()))


def test_examples_stand_beside_their_detected_language() -> None:
    page, _ = full_page()
    words = " ".join(page.text.split())
    assert "Neurons of en off en 0.88 an answer (deactivate-en, en-1)" in words


def test_the_same_id_in_two_languages() -> None:
    texts = answers()
    texts["id"] = texts["id"].str.slice(3)
    shown = views.examples(texts, config_of(report={"examples": 1}), pd.DataFrame())
    outputs = [answer["output"] for example in shown for answer in example["answers"][:1]]
    assert outputs == ["an answer (none, en-1)", "an answer (none, de-1)"]


def test_no_examples_wanted() -> None:
    page, _ = page_of(config=config_of(report={"examples": 0}), texts={"tiny": answers()})
    assert "asks for no examples" in page.text


# -- what is missing -------------------------------------------------------------------------------------------------


def test_everything_missing() -> None:
    page, _ = page_of(provenance={})
    for words in (
        "The number of selected neurons is missing: snakemake --cores all results/tables/thresholds.csv",
        "there is nothing to compare",
        "The recordings of tiny are missing: snakemake --cores all results/tables/recordings.csv",
        "The neurons of tiny are missing: snakemake --cores all results/tables/neurons.csv",
        "The figure layer_profile of tiny is missing: snakemake --cores all results/figures/tiny/layer_profile.svg",
        "The perplexities of tiny are missing: snakemake --cores all results/tables/perplexity.csv",
        "The measures of the answers of tiny are missing: snakemake --cores all results/tables/text.csv",
        "The languages of the answers of tiny are missing: snakemake --cores all results/tables/output_languages.csv",
        "The answers of tiny are missing: snakemake --cores all results/tiny/metrics/text.parquet",
        "There are no proofs of the edits of tiny: snakemake --cores all results/tables/effects.csv",
        "No timings were found.",
        "Commit unknown",
    ):
        assert words in page.text, words


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(all_tables()))
def test_each_missing_table(name: str) -> None:
    """Of a small run, which lacks more than this table: the page is made. What it says is in test_missing_parts."""
    tables = all_tables()
    for missing in (None, tables[name].iloc[:0], pd.DataFrame()):
        rest = {key: table for key, table in tables.items() if key != name}
        page, _ = page_of(tables=rest | ({} if missing is None else {name: missing}))
        assert {"summary", "run", "neurons", "perplexity"} <= page.sections.keys()


def test_no_neuron_selected() -> None:
    tables = all_tables() | neurons(0, 0)
    tables["thresholds"] = tables["thresholds"].assign(selected=0, entropy_min=math.nan, entropy_max=math.nan)
    tables["neurons"] = tables["neurons"].assign(mean_entropy=math.nan, mean_probability=math.nan)
    page, _ = page_of(tables=tables)
    assert "0 of the 400 feed-forward neurons (0.0%) were selected" in page.text
    assert "No neuron belongs to en and de" in page.text
    assert page.row("Thresholds of the selection", "tiny", "lape")[-2:] == ["–", "–"]


# -- models that others ran, the audit, published numbers ------------------------------------------------------------


def published_tables() -> dict[str, pd.DataFrame]:
    """What the files of a model that others ran hold: a mask and answers, no recordings and no perplexity."""
    nan = math.nan
    text = text_metrics()[lambda rows: rows["kind"] != "random"]
    mask = {"top_rate": nan, "activation_bar": nan, "candidates": nan, "requested": nan, "entropy_min": nan}
    mask |= {"activation_percentile": nan, "entropy_max": nan, "neurons_per_layer": nan, "layers": 4, "selected": 20}
    tables = all_tables() | neurons() | {"text": text}
    tables |= {name: pd.DataFrame() for name in ("perplexity", "recordings", "effects")}
    tables["neurons"] = tables["neurons"].assign(method="published", mean_entropy=nan, share_of_neurons=nan)
    tables["thresholds"] = pd.DataFrame([{"model": "tiny", "method": "published", **mask}])
    return tables


PUBLISHED = {"tiny": {"source": "published", "masks": {"path": "pyproject.toml", "languages": LANGUAGES}}}


def test_published_model_says_what_is_left_out() -> None:
    page, _ = page_of(tables=published_tables(), config=experiment.reported(config_of(models=PUBLISHED)))
    for sentence in (
        "tiny was run by others: only the files that they published are analysed here",
        "Perplexity is not part of the published files of tiny.",
        "The published files hold no recordings.",
        "20 are in the published mask: 12 (en) and 9 (de). Some belong to several languages.",
        "No model ran here, so there is nothing to prove.",
    ):
        assert sentence in page.text
    assert "Perplexity was measured on" not in page.text
    assert "nan" not in page.text
    assert page.row("Thresholds of the selection", "tiny", "published") == [*"–––", "–", "–", "20", "–", "–"]


def test_published_model_without_answers() -> None:
    tables = published_tables() | {"text": pd.DataFrame(), "output_languages": pd.DataFrame()}
    page, _ = page_of(tables=tables, texts={}, config=config_of(models=PUBLISHED))
    assert page.text.count("The published files of tiny hold no answers.") == 3  # text, output languages, examples


def audit_rows(**severities: str) -> pd.DataFrame:
    rows = [
        {"model": "tiny", "check": check, "severity": severity, "cell": None, "sentence": f"Sentence on {check}."}
        for check, severity in severities.items()
    ]
    return pd.DataFrame(rows)


def test_audit_shows_the_gravest_first_and_warns_in_the_summary() -> None:
    audit = audit_rows(budgets="note", padding="passed", language="warning", counts="fatal")
    page, _ = page_of(tables=all_tables() | {"audit": audit})
    rows = page.tables["Findings of tiny"][1:]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("fatal", "counts", "Sentence on counts."),
        ("warning", "language", "Sentence on language."),
        ("note", "budgets", "Sentence on budgets."),
    ]
    assert "Audit: Sentence on counts." in page.text
    assert "Audit: Sentence on language." in page.text
    assert "Audit: Sentence on budgets." not in page.text
    assert "Passed (1)" in page.text


def test_audit_in_the_summary_is_short() -> None:
    audit = audit_rows(**{f"c{number}": "warning" for number in range(7)})
    page, _ = page_of(tables=all_tables() | {"audit": audit})
    assert page.text.count("Audit: Sentence on") == findings.FEW
    assert "The audit has 3 more findings; see there." in page.text


def test_published_numbers_beside_ours() -> None:
    row = {"model": "tiny", "reference": "mgpt", "source": "replication", "perturbation": "none", "language": "en"}
    rows = [
        row
        | {"quantity": "mean_characters", "theirs": 953.471, "ours": 953.4712, "difference": 0.0002, "agrees": True},
        row | {"quantity": "stop_word_ratio", "theirs": 0.366, "ours": 0.368, "difference": 0.002, "agrees": False},
        row | {"quantity": "selected", "theirs": 1966, "ours": math.nan, "difference": math.nan, "agrees": None},
    ]
    table = pd.DataFrame(rows).assign(decimals=[3, 3, 0])
    page, _ = page_of(tables=all_tables() | {"replication": table})
    shown = page.tables["tiny beside mgpt"][1:]
    assert [cells[4:] for cells in shown] == [
        ["953.471", "953.471", "0.0002", "yes"],
        ["0.366", "0.368", "0.002", "no"],
    ]
    assert "Of the 2 published numbers of mgpt that this run has too, 1 agrees to the printed digits." in page.text
    assert "Not in this run: 0 of 1 row of the number of selected neurons can be compared" in page.text


def test_without_published_numbers_there_is_no_such_section() -> None:
    _, html = page_of()
    assert 'id="replication"' not in html
    assert "#replication" not in html


# -- timings, provenance, figures ------------------------------------------------------------------------------------


def test_timings(tmp_path: Path) -> None:
    header = "s\th:m:s\tmax_rss\n"
    for name, content in {
        "make_tables.tsv": header + "1.5\t0:00:01\t120.0\n",
        "generate/tiny.none.tsv": header + "10.0\t0:00:10\t500.0\n",
        "generate/tiny.random.tsv": header + "100.0\t0:01:40\t450.0\n",
        "short/tiny.tsv": header + "0.1\t0:00:00\t-\n",
        "broken/tiny.tsv": "",
        "foreign/tiny.tsv": "something\telse\n1\t2\n",
        "generate/another.none.tsv": header + "900.0\t0:15:00\t900.0\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    rows = render.summarise_timings(render.read_timings(tmp_path, ["tiny"]))
    assert [row["rule"] for row in rows] == ["generate", "make_tables", "short"]
    assert rows[0] == {
        "rule": "generate",
        "jobs": 2,
        "total": 110.0,
        "longest": 100.0,
        "job": "tiny.random",
        "megabytes": 500.0,
    }
    assert formats.integer(rows[2]["megabytes"]) == "–"
    page, _ = page_of(timings=render.read_timings(tmp_path, ["tiny"]))
    cells = ["2", "1 min 50 s", "1 min 40 s", "tiny.random", "500"]
    assert page.row("Wall-clock time and memory by stage", "generate") == cells


def test_no_timings(tmp_path: Path) -> None:
    assert render.summarise_timings(render.read_timings(tmp_path / "absent", ["tiny"])) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (7260, "2 h 01 min"), (math.nan, "–")]
)
def test_seconds(value: float, text: str) -> None:
    assert formats.seconds(value) == text


def test_commit_outside_git_is_unknown(tmp_path: Path) -> None:
    assert render.git_commit(tmp_path) == ("unknown", False)
    assert render.git_commit(tmp_path / "absent") == ("unknown", False)


def test_commit_and_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ("git", "-C", str(tmp_path), *identity, *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1", encoding="utf-8")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert render.git_commit(tmp_path) == (head, False)
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert render.git_commit(tmp_path) == (head, True)
    # A folder inside a foreign repository is not that repository.
    (tmp_path / "inside").mkdir()
    assert render.git_commit(tmp_path / "inside") == ("unknown", False)


def test_figures_follow_the_dark_scheme() -> None:
    svg = '<svg width="540.0pt" xmlns="http://www.w3.org/2000/svg"><path style="fill: #1d2227"/></svg>'
    drawn = render.embed(svg)
    assert drawn["width"] == 720
    themed = base64.b64decode(drawn["uri"].removeprefix("data:image/svg+xml;base64,")).decode()
    assert '[style*="fill: #1d2227"],[fill="#1d2227"]{fill:#e3e6ea!important}' in themed
    assert themed.startswith('<svg width="540.0pt" xmlns="http://www.w3.org/2000/svg"><style>@media')


def test_figures_have_alternative_texts() -> None:
    page, _ = full_page()
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    assert all("tiny" in (image["alt"] or "") for image in images)


# -- the script ------------------------------------------------------------------------------------------------------


def test_the_script_writes_one_page(tmp_path: Path) -> None:
    from scripts import render_report

    results = tmp_path / "results"
    for name, table in all_tables().items():
        artifacts.write_text(results / "tables" / f"{name}.csv", table.to_csv(index=False))
    artifacts.write_table(results / "tiny" / "metrics" / "text.parquet", "text-metrics", answers())
    out = results / "report" / "report.html"
    parts = [f"--{name}={TEMPLATE.with_name(file)}" for name, file in (("style", "style.css"), ("script", "script.js"))]
    files = ["--template", str(TEMPLATE), *parts, "--output", str(out)]
    files += ["--output-config", str(results / "config.json")]
    render_report.main(["--config", json.dumps(config_of()), "--results", str(results), *files])
    page = Page(out.read_text(encoding="utf-8"))
    assert "an answer (random-de-1, de-1)" in page.text
    assert page.row("Perplexity of tiny", "deactivate-de") == ["22.00", "45.00", "1.100", "1.500"]
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    config = (results / "config.json").read_text(encoding="utf-8")
    assert json.loads(config) == config_of()
    assert config.splitlines()[1:] == json.dumps(json.loads(config), indent=2, sort_keys=True).splitlines()[1:]
