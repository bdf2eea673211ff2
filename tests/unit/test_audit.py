"""What the audit says: every fault of the published replication is named, and ordinary results raise no alarm."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langneurons import artifacts, variants
from langneurons import config as experiment
from langneurons.artifacts import ArtifactError
from langneurons.audit.checks import CHECKS, audit
from langneurons.audit.effect import ROUNDING
from langneurons.audit.evidence import FATAL, NOTE, PASSED, WARNING, Evidence, Finding, read_evidence
from langneurons.corpus.shares import ODD
from langneurons.errors import UserError
from langneurons.metrics.text import measure_outputs
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.lape import activation_entropy, rank_value, select
from scripts import audit_results, check_audit
from unit.report_cases import LANGUAGES, config_of

REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))

CONFIG = config_of(
    perturbations={"deactivate": {"kind": "deactivate"}, "random": {"kind": "random", "draws": 1}},
    identification={"compare": []},
)
CONTENTS = experiment.contents(CONFIG, "tiny")
PERTURBATIONS = variants.describe_all(CONFIG)
EDITS = {
    "deactivate": ["deactivate-en", "deactivate-de"],
    "random": ["random-en-1", "random-de-1"],
}
"""The perturbations of `PERTURBATIONS` by variant."""
IDENTIFICATION = {"top_rate": 0.05, "activation_percentile": 0.95}
LAYERS, NEURONS = 4, 20
TOKENS = 10_000

Cell = tuple[str, str]
"""Perturbation and language of the prompts."""
Expected = tuple[str, str, str]
"""Severity, cell and the telling part of the sentence."""


def cells(*variants: str) -> list[Cell]:
    """Every cell of these variants, of all if none is named."""
    return [(name, language) for variant in variants or EDITS for name in EDITS[variant] for language in LANGUAGES]


# -- sound results, and what is changed of them -----------------------------------------------------------------------


def counts_of(over_zero: np.ndarray, tokens: int = TOKENS, **rest: Any) -> ActivationCounts:
    return ActivationCounts(over_zero, np.ones(over_zero.shape), np.ones(over_zero.shape), tokens, **rest)


def recording(language: str) -> ActivationCounts:
    """All neurons are active on a tenth of the tokens, two of each language on eight tenths; either half alike."""
    over_zero = np.full((LAYERS, NEURONS), TOKENS // 10)
    for layer, neuron in {"en": [(0, 3), (3, 7)], "de": [(1, 5), (3, 8)]}[language]:
        over_zero[layer, neuron] = 8 * TOKENS // 10
    return counts_of(over_zero, half_over_zero=over_zero // 2, half_tokens=TOKENS // 2)


def selected(counts: dict[str, ActivationCounts], top_rate: float = 0.05) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A selection as `identify_neurons` writes it."""
    selection = select(counts, top_rate, 0.95)
    return selection.table, selection.summary() | {"layers": next(iter(counts.values())).over_zero.shape[0]}


def answers(silent: list[Cell] | None = None) -> pd.DataFrame:
    """Four answers per cell, in the prompt's language; those of silent cells are the baseline's."""
    rows = []
    for name in ("none", *EDITS["deactivate"], *EDITS["random"]):
        for language in LANGUAGES:
            edit = "" if name == "none" or (name, language) in (silent or []) else f" under {name}"
            for number in range(1, 5):
                baseline = f"answer {number} in {language}"
                about = {"perturbation": name, "language": language, "id": f"{language}-{number}", "input": "Q?"}
                output = baseline + edit
                rows.append(about | {"output": output, "identical_to_baseline": output == baseline})
    return pd.DataFrame(rows).assign(output_language=lambda table: table["language"])


def windows(silent: list[Cell] | None = None) -> pd.DataFrame:
    """Three windows per cell; an edit moves the last by just more than rounding, in silent cells by nothing."""
    rows = []
    for name in ("none", *EDITS["deactivate"], *EDITS["random"]):
        for language in LANGUAGES:
            same = name == "none" or (name, language) in (silent or [])
            losses = [300.0, 310.0, 320.0 * (1 if same else 1 + 2 * ROUNDING)]
            rows += [{"perturbation": name, "language": language, "nll_sum": loss, "tokens": 127} for loss in losses]
    return pd.DataFrame(rows)


def texts_of(**tokens: int) -> dict[str, dict[str, int]]:
    """Metadata of 1,000 tokens of English with these among them, and of German without any."""
    return {
        language: {"tokens": 1000, **dict.fromkeys(ODD, 0), **more} for language, more in (("en", tokens), ("de", {}))
    }


def sound(**changes: Any) -> Evidence:
    """An own model without fault."""
    recordings = {language: recording(language) for language in LANGUAGES}
    evidence = Evidence(
        published=False,
        languages=LANGUAGES,
        perturbations=PERTURBATIONS,
        identification=IDENTIFICATION,
        recordings=recordings,
        texts=texts_of(),
        neurons={"lape": selected(recordings)},
        text=answers(),
        perplexity=windows(),
        effects={name: {"edited_neurons": 2, "logits_change": 1.5} for name, _ in cells()},
    )
    return replace(evidence, **changes)


def audited(evidence: Evidence) -> list[Finding]:
    """The audit, after what holds of every audit."""
    findings = audit(evidence)
    assert list(dict.fromkeys(finding.check for finding in findings)) == list(CHECKS)
    for finding in findings:
        assert finding.severity in ("fatal", "warning", "note", "passed")
        assert finding.sentence.strip()
    return findings


def expect(check: str, evidence: Evidence, *expected: Expected) -> None:
    """The check finds exactly this, in this order."""
    findings = [finding for finding in audited(evidence) if finding.check == check]
    assert [(finding.severity, finding.cell) for finding in findings] == [row[:2] for row in expected], findings
    for finding, (_, _, part) in zip(findings, expected, strict=True):
        assert part in finding.sentence


def severities(evidence: Evidence) -> dict[str, set[str]]:
    """By check."""
    result: dict[str, set[str]] = {}
    for finding in audited(evidence):
        result.setdefault(finding.check, set()).add(finding.severity)
    return result


def test_sound_results_pass_every_check() -> None:
    assert severities(sound()) == {check: {PASSED} for check in CHECKS}


def test_without_anything_nothing_is_claimed() -> None:
    """Two checks are answered without measurements: no file is damaged, and own windows are never padded."""
    assert severities(Evidence()) == {check: {PASSED} if check in ("files", "padding") else {NOTE} for check in CHECKS}


# -- the effect of perturbations --------------------------------------------------------------------------------------


def text_only(**changes: Any) -> Evidence:
    """What is published: answers, no perplexity, no proofs."""
    return sound(**({"published": True, "perplexity": None, "effects": {}} | changes))


COPY = "The perturbation did nothing; an edit made on a copy of the activations would look like this."


@pytest.mark.parametrize(
    "evidence",
    [
        text_only(text=answers(cells())),
        sound(text=answers(cells()), perplexity=windows(cells())),
        sound(text=None, perplexity=windows(cells())),
    ],
    ids=["published", "own", "perplexity only"],
)
def test_an_edit_on_a_copy(evidence: Evidence) -> None:
    """The mGPT fault: every perturbed output equals the baseline, byte for byte."""
    said = "Nothing changed under any perturbation of {}, in any language (4 cells): all outputs equal the unperturbed"
    variants = [(FATAL, name, said.format(name)) for name in EDITS]
    silent = [
        (WARNING, f"{name}/{language}", f" in {language} under {name} equal the un") for name, language in cells()
    ]
    expect("effect", evidence, *variants, *silent)
    fatal = [finding.sentence for finding in audited(evidence) if finding.severity == FATAL]
    assert all(sentence.endswith(COPY) for sentence in fatal)


def test_one_of_two_variants_is_dead() -> None:
    dead = cells("random")
    evidence = sound(text=answers(dead), perplexity=windows(dead))
    silent = [(WARNING, f"{name}/{language}", "the perturbation did nothing there") for name, language in dead]
    expect("effect", evidence, (FATAL, "random", COPY), *silent)


@pytest.mark.parametrize("make", [text_only, sound], ids=["published", "own"])
def test_one_silent_cell_is_no_dead_variant(make: Callable[..., Evidence]) -> None:
    silent = [("deactivate-en", "de")]
    evidence = make(text=answers(silent))
    if evidence.perplexity is not None:
        evidence = replace(evidence, perplexity=windows(silent))
    said = "All 4 answers in de under deactivate-en equal the unperturbed ones: the perturbation did nothing there."
    expect("effect", evidence, (WARNING, "deactivate-en/de", said))


def test_the_same_answers_with_another_perplexity_are_worth_a_note() -> None:
    """A random control may leave every greedy answer as it was; that all outputs differ is not claimed then."""
    evidence = sound(text=answers(cells("random")))
    notes = [
        (NOTE, f"{name}/{language}", f"No answer in {language} changed under {name}, although the perplexity did.")
        for name, language in cells("random")
    ]
    expect("effect", evidence, *notes)


def test_one_window_tells_a_variant_from_a_dead_one() -> None:
    """No answer changed, and of four cells the perplexity of one did: that variant did something, if only there."""
    *dead, alive = cells("random")
    evidence = sound(text=answers([*dead, alive]), perplexity=windows(dead))
    silent = [(WARNING, f"{name}/{language}", "did nothing there") for name, language in dead]
    said = "No answer in de changed under random-de-1, although the perplexity did."
    expect("effect", evidence, *silent, (NOTE, "random-de-1/de", said))


def alike(*numbers: int) -> pd.DataFrame:
    """25 answers in each of eight cells: so many of each cell of `deactivate` are the baseline's, of `random` none."""
    same = dict(zip(cells("deactivate"), numbers, strict=True))
    rows = [
        {
            **{"perturbation": name, "language": language, "output_language": language},
            "identical_to_baseline": name == "none" or number < same.get((name, language), 0),
        }
        for name, language in [*(("none", language) for language in LANGUAGES), *cells()]
        for number in range(25)
    ]
    return pd.DataFrame(rows)


NEXT_TO_NOTHING = "Next to nothing changed under deactivate: {} of 100 answers equal the unperturbed model's. Answers"


@pytest.mark.parametrize("published", [True, False])
def test_answers_that_are_almost_all_identical(published: bool) -> None:
    """The limit is nine tenths of a variant's answers, where nothing else tells; who measured does not matter."""
    evidence = text_only(published=published, text=alike(23, 22, 22, 22))
    expect("effect", evidence, (PASSED, "", "in all 8 cells"))
    evidence = text_only(published=published, text=alike(23, 23, 22, 22))
    said = NEXT_TO_NOTHING.format(90)
    expect("effect", evidence, (WARNING, "deactivate", said), (PASSED, "", "in all 8 cells"))


def test_an_edit_that_is_proved_but_changes_no_answer_is_no_fault() -> None:
    """Where only answers were measured, a proof that the logits changed tells a weak edit from one that did nothing."""
    silent = [
        (WARNING, f"{name}/{language}", f"All 25 answers in {language} under {name}")
        for name, language in cells("deactivate")
    ]
    proofs = {name: {"edited_neurons": 2, "logits_change": 1.5} for name, _ in cells()}
    evidence = replace(text_only(text=alike(25, 25, 25, 25)), effects=proofs)
    weak = (WARNING, "deactivate", "although each was proved to change the logits")
    expect("effect", evidence, weak, *silent)
    for name in EDITS["deactivate"]:
        proofs[name]["logits_change"] = 0.0
    fault = (FATAL, "deactivate", "Nothing changed under any perturbation of deactivate")
    expect("effect", replace(evidence, effects=proofs), fault, *silent)


def test_almost_all_answers_of_a_variant_are_counted_over_its_cells() -> None:
    """Three cells are silent, and of the fourth 14 or 15 answers of 25 are the baseline's."""
    dead = cells("deactivate")[:3]
    silent = [(WARNING, f"{name}/{language}", f"All 25 answers in {language} under {name}") for name, language in dead]
    expect("effect", text_only(text=alike(25, 25, 25, 14)), *silent)
    variant = (WARNING, "deactivate", NEXT_TO_NOTHING.format(90))
    expect("effect", text_only(text=alike(25, 25, 25, 15)), variant, *silent)
    # All but one answer is not nothing, and all of them are.
    variant = (WARNING, "deactivate", NEXT_TO_NOTHING.format(99))
    expect("effect", text_only(text=alike(25, 25, 25, 24)), variant, *silent)
    assert severities(text_only(text=alike(25, 25, 25, 25)))["effect"] == {FATAL, WARNING}


def test_perplexity_tells_better_than_almost_identical_answers() -> None:
    said = "Outputs differ from the unperturbed model's in all 8 cells."
    expect("effect", sound(text=alike(24, 24, 24, 24)), (PASSED, "", said))
    english = windows().query("language == 'en'")  # in some of the cells is enough
    expect("effect", sound(text=alike(24, 24, 24, 24), perplexity=english), (PASSED, "", said))
    notes = [
        (NOTE, f"{name}/{language}", f"No answer in {language} changed under {name}, although the perplexity did.")
        for name, language in cells("deactivate")
    ]
    dead = (WARNING, "deactivate", "No answer changed under deactivate, although perplexity did")
    expect("effect", sound(text=alike(25, 25, 25, 25)), dead, *notes)


def test_losses_that_differ_by_rounding_alone_are_the_same() -> None:
    table = windows()
    baseline = table[table["perturbation"] == "none"].groupby("language")["nll_sum"].agg(list)
    table["nll_sum"] = [loss for _, rows in table.groupby(["perturbation", "language"], sort=False)
                        for loss in baseline[rows["language"].iloc[0]]]  # fmt: skip
    for factor, severity in ((1 + ROUNDING / 2, FATAL), (1 + 2 * ROUNDING, NOTE)):
        edited = table["perturbation"] != "none"
        moved = table.assign(nll_sum=table["nll_sum"].where(~edited, table["nll_sum"] * factor))
        found = severities(sound(text=answers(cells()), perplexity=moved))["effect"]
        assert (FATAL in found) == (severity == FATAL)


# -- copies and empty files -------------------------------------------------------------------------------------------


def test_recordings_that_are_copies_or_empty() -> None:
    same = sound(recordings={"en": recording("en"), "de": recording("en")})
    expect("copies", same, (WARNING, "en, de", "The recordings of en and de are the same"))
    zero = counts_of(np.zeros((LAYERS, NEURONS), dtype=np.int64))
    empty = sound(recordings={"en": recording("en"), "de": zero})
    expect("copies", empty, (WARNING, "de", "No neuron is ever active on de"))


def edited_answers(change: Callable[[pd.Series], str], name: str, language: str, number: int) -> pd.DataFrame:
    """The first answers of one cell changed."""
    table = answers()
    cell = table[(table["perturbation"] == name) & (table["language"] == language)].index[:number]
    table.loc[cell, "output"] = table.loc[cell].apply(change, axis=1)
    return table


@pytest.mark.parametrize(("number", "severity"), [(1, PASSED), (2, WARNING), (4, WARNING)])
def test_empty_answers(number: int, severity: str) -> None:
    """Half of the four answers are too many."""
    evidence = sound(text=edited_answers(lambda row: " \n", "deactivate-en", "de", number))
    cell = "deactivate-en/de" if severity == WARNING else ""
    expect("copies", evidence, (severity, cell, f"{number / 4:.0%} of the answers in de" if cell else "No recording"))


@pytest.mark.parametrize(("number", "severity"), [(1, PASSED), (2, WARNING)])
def test_answers_that_begin_with_their_prompt(number: int, severity: str) -> None:
    evidence = sound(text=edited_answers(lambda row: row["input"] + row["output"], "none", "en", number))
    cell = "none/en" if severity == WARNING else ""
    expect("copies", evidence, (severity, cell, "begin with their prompt" if cell else "No recording"))


def test_two_perturbations_with_the_same_answers() -> None:
    table = answers()
    source = table[table["perturbation"] == "deactivate-en"]["output"].to_numpy()
    copied = table["perturbation"] == "deactivate-de"
    table.loc[copied, "output"] = source
    pair = "deactivate-en, deactivate-de"
    expect("copies", sound(text=table), (WARNING, pair, f"All answers under {pair.replace(',', ' and')} are the same"))
    expect("copies", sound(text=answers(cells("deactivate"))), (PASSED, "", "No recording"))  # that they equal the
    # baseline's is what `effect` says


def test_nothing_to_compare() -> None:
    expect("copies", Evidence(), (NOTE, "", "no recordings and no answers"))


UNREAD = "Under random answers changed, but no perplexity did: the edit was not in place while the model read."


def test_answers_that_changed_without_perplexity() -> None:
    """Bit by bit the same losses in all four cells of a variant, or in all but one window of one cell."""
    passed = (PASSED, "", "in all 8 cells")
    expect("effect", sound(perplexity=windows(cells("random"))), (WARNING, "random", UNREAD), passed)
    expect("effect", sound(perplexity=windows(cells("random")[1:])), passed)


def test_some_answers_changed_without_perplexity() -> None:
    """Of the four cells, one is the baseline's in its answers as well, and that is said beside."""
    evidence = sound(text=answers([("random-en-1", "de")]), perplexity=windows(cells("random")))
    said = "All 4 answers in de under random-en-1 equal the unperturbed ones"
    expect("effect", evidence, (WARNING, "random", UNREAD), (WARNING, "random-en-1/de", said))


def test_every_cell_differs() -> None:
    said = "Outputs differ from the unperturbed model's in all 8 cells."
    expect("effect", sound(), (PASSED, "", said))
    expect("effect", text_only(), (PASSED, "", said))


def test_an_empty_edit_is_neither_fault_nor_effect() -> None:
    """`random-en-1` edits no neuron, so that its outputs are the baseline's: two of the eight cells."""
    empty = [("random-en-1", language) for language in LANGUAGES]
    effects = sound().effects | {"random-en-1": {"edited_neurons": 0, "note": "the neuron set is empty"}}
    evidence = sound(text=answers(empty), perplexity=windows(empty), effects=effects)
    expect("effect", evidence, (PASSED, "", "in all 6 cells"))
    # The rest of the variant is dead, and said to be.
    dead = cells("random")
    evidence = sound(text=answers(dead), perplexity=windows(dead), effects=effects)
    silent = [(WARNING, f"random-de-1/{language}", "did nothing there") for language in LANGUAGES]
    expect("effect", evidence, (FATAL, "random", "in any language (2 cells): all outputs"), *silent)


def test_only_empty_edits() -> None:
    effects = {name: {"edited_neurons": 0} for name, _ in cells()}
    evidence = sound(text=answers(cells()), perplexity=windows(cells()), effects=effects)
    expect("effect", evidence, (NOTE, "", "no effect to check"))


def test_answers_without_a_baseline() -> None:
    """Measured as in the workflow: what has no baseline is missing, not different. The quick identifier will do."""
    text = answers().query("perturbation == 'deactivate-en'").drop(columns=["identical_to_baseline", "output_language"])
    lists = dict.fromkeys(LANGUAGES, frozenset[str]())
    measured = measure_outputs(text.assign(output_tokens=None), lists, identifiers=["py3langid"])
    assert measured["identical_to_baseline"].isna().all()
    expect("effect", text_only(text=measured), (NOTE, "", "There is no perturbed output beside a baseline"))
    # Windows have one all the same, and it is windows that the sentence speaks of.
    evidence = sound(text=measured, perplexity=windows([("deactivate-en", "de")]))
    said = "All windows in de under deactivate-en equal the unperturbed ones"
    expect("effect", evidence, (WARNING, "deactivate-en/de", said))


def test_losses_that_are_nan_before_and_after_did_not_change() -> None:
    table = windows().assign(nll_sum=math.nan)
    evidence = sound(text=answers(cells()), perplexity=table)
    assert severities(evidence)["effect"] == {FATAL, WARNING}


def test_a_proof_that_is_lost_does_not_excuse_a_cell() -> None:
    dead = cells("random")
    effects = {name: proof for name, proof in sound().effects.items() if not name.startswith("random")}
    evidence = sound(text=answers(dead), perplexity=windows(dead), effects=effects)
    assert severities(evidence)["effect"] == {FATAL, WARNING}


# -- the identification -----------------------------------------------------------------------------------------------


def one_language_at_a_time(
    counts: dict[str, ActivationCounts], top_rate: float
) -> tuple[pd.DataFrame, dict[str, int], float]:
    """The replication's fault: the steps of `select`, for each language alone. Also the largest entropy of all."""
    tables, largest = [], 0.0
    for language, recorded in counts.items():
        probability = recorded.probability()
        entropy = activation_entropy(probability[None])  # q = p / p = 1 everywhere
        largest = max(largest, float(entropy.max()))
        candidate = probability > rank_value(probability, 0.95)
        ranked = np.argsort(np.where(candidate, entropy, np.inf).reshape(-1), kind="stable")
        layer, neuron = np.unravel_index(ranked[: round(top_rate * entropy.size)], entropy.shape)
        tables.append(pd.DataFrame({"language": language, "layer": layer, "neuron": neuron, "entropy": 0.0}))
    table = pd.concat(tables, ignore_index=True)
    return table, table["language"].value_counts().to_dict(), largest


def noisy(languages: list[str], tokens: int = 100_000) -> dict[str, ActivationCounts]:
    """Binomial counts. The languages have about the same probabilities, mostly small, but in every fiftieth neuron,
    which one of them uses on seven tenths of its tokens and the others on one tenth."""
    shape, generator = (8, 250), np.random.default_rng(0)
    probability = generator.beta(1, 4, shape) * generator.uniform(0.9, 1.1, (len(languages), *shape))
    for number, flat in enumerate(generator.permutation(math.prod(shape))[: math.prod(shape) // 50]):
        layer, neuron = divmod(int(flat), shape[1])
        probability[:, layer, neuron] = 0.1
        probability[number % len(languages), layer, neuron] = 0.7
    counts = generator.binomial(tokens, probability.clip(0, 1))
    return {language: counts_of(counts[index], tokens) for index, language in enumerate(languages)}


def as_mask(table: pd.DataFrame, layers: int, languages: list[str] | None = None) -> Evidence:
    """Published neurons: no entropies."""
    names = languages or LANGUAGES
    counts = table["language"].value_counts()
    summary = {"count_by_language": {name: int(counts.get(name, 0)) for name in names}, "layers": layers}
    return Evidence(published=True, languages=names, neurons={"published": (table.assign(entropy=math.nan), summary)})


def neurons_at(layers_by_language: dict[str, list[int]]) -> pd.DataFrame:
    """One neuron for every layer that is listed."""
    rows = [(name, layer, index) for name, layers in layers_by_language.items() for index, layer in enumerate(layers)]
    return pd.DataFrame(rows, columns=["language", "layer", "neuron"]).astype({"layer": int, "neuron": int})


def test_entropies_of_one_language_at_a_time() -> None:
    table, sizes, largest = one_language_at_a_time(noisy(["en", "de", "tr"]), 0.01)
    assert largest == 0
    assert sizes == {"en": 20, "de": 20, "tr": 20}
    evidence = sound(neurons={"lape": (table, {"count_by_language": sizes, "layers": 8})})
    said = "All neurons of lape have entropy 0, so that only ties order them: each is active in one"
    expect("joint-identification", evidence, (WARNING, "lape", said))


def test_a_mask_of_one_language_at_a_time() -> None:
    """5 % of the neurons pass the bar and 1 % are taken, by index: those of the first fifth or so of eight layers."""
    table, _, _ = one_language_at_a_time(noisy(["en", "de", "tr"]), 0.01)
    highest = table["layer"].max()
    assert highest in (1, 2)
    said = f"Each language has exactly 20 neurons, and all lie in layers 0 to {highest} of 8. An identification on one"
    expect("joint-identification", as_mask(table, 8, ["en", "de", "tr"]), (WARNING, "published", said))


def test_the_same_recordings_compared() -> None:
    recordings = noisy(["en", "de", "tr"])
    table, summary = selected(recordings, 0.01)
    said = f"The neurons of lape have different entropies, up to {table['entropy'].max():.3f}."
    expect("joint-identification", sound(neurons={"lape": (table, summary)}), (PASSED, "lape", said))
    said = "Languages have different numbers of neurons in published, up to layer 7."
    expect("joint-identification", as_mask(table, 8, ["en", "de", "tr"]), (PASSED, "published", said))


@pytest.mark.parametrize(
    ("entropies", "severity", "part"),
    [
        ([0.0, 0.0, 0.0, 0.02], PASSED, "up to 0.020"),
        ([0.0, 0.0, 0.0, 1.1e-9], PASSED, "up to 0.000"),
        ([0.0, 0.0, 0.0, 0.9e-9], WARNING, "entropy 0"),  # a rounding error
        ([0.0, 0.0, 0.0, math.nan], WARNING, "entropy 0"),
    ],
)
def test_one_entropy_above_zero_is_enough(entropies: list[float], severity: str, part: str) -> None:
    """The most specific neurons of few tokens are never active elsewhere."""
    table = neurons_at({"en": [0, 3], "de": [1, 2]}).assign(entropy=entropies)
    evidence = sound(neurons={"lape": (table, {"count_by_language": {"en": 2, "de": 2}, "layers": 4})})
    expect("joint-identification", evidence, (severity, "lape", part))


@pytest.mark.parametrize(
    ("layers_by_language", "layers", "severity", "part"),
    [
        ({"en": [0, 3], "de": [1, 2]}, 4, NOTE, "In published, each language has equally many neurons; see whether"),
        ({"en": [0, 1, 1], "de": [1]}, 4, NOTE, "In published, no neuron lies above layer 1 of 4; see whether"),
        ({"en": [0, 1], "de": [1, 1]}, 4, WARNING, "exactly 2 neurons, and all lie in layers 0 to 1 of 4"),
        # Of languages with equally many neurons, below three quarters of the layers is low.
        ({"en": [0, 1], "de": [0, 2]}, 4, WARNING, "exactly 2 neurons, and all lie in layers 0 to 2 of 4"),
        ({"en": [0, 9], "de": [0, 23]}, 32, WARNING, "exactly 2 neurons, and all lie in layers 0 to 23 of 32"),
        ({"en": [0, 9], "de": [0, 24]}, 32, NOTE, "In published, each language has equally many neurons; see"),
        ({"en": [0, 1], "de": [0, 3]}, 5, WARNING, "layers 0 to 3 of 5"),  # 3 of 3.75
        # Of others, below half of the layers is.
        ({"en": [0, 9, 15], "de": [0]}, 32, NOTE, "In published, no neuron lies above layer 15 of 32; see whether"),
        ({"en": [0, 9, 16], "de": [0]}, 32, PASSED, "different numbers of neurons in published, up to layer 16"),
        ({"en": [0, 2, 3], "de": [1]}, 4, PASSED, "different numbers of neurons in published, up to layer 3"),
        # Of fewer than four layers the lowest say nothing.
        ({"en": [0, 0], "de": [0, 0]}, 3, NOTE, "each language has equally many neurons"),
        ({"en": [0, 0], "de": [0]}, 3, PASSED, "different numbers of neurons in published, up to layer 0"),
        ({"en": [0, 1]}, 4, NOTE, "There is only one language in published, so whether"),
        ({"en": [], "de": []}, 4, NOTE, "There are no neurons of en, de in published."),
    ],
)
def test_masks(layers_by_language: dict[str, list[int]], layers: int, severity: str, part: str) -> None:
    evidence = as_mask(neurons_at(layers_by_language), layers, list(layers_by_language))
    expect("joint-identification", evidence, (severity, "published", part))


def test_mask_with_a_language_without_neurons() -> None:
    evidence = as_mask(neurons_at({"en": [3, 0], "de": []}), 4, ["en", "de"])
    none = (NOTE, "published", "There are no neurons of de in published.")
    expect("joint-identification", evidence, none, (PASSED, "published", "different numbers"))


def test_every_selection_is_judged_by_itself() -> None:
    mask = as_mask(neurons_at({"en": [0, 1], "de": [1, 1]}), 4).neurons
    zero = neurons_at({"en": [0], "de": [3, 3]}).assign(entropy=0.0)
    other = {"lape-top-0.01": (zero, {"count_by_language": {"en": 1, "de": 2}, "layers": 4})}
    expected = [(PASSED, "lape", "different"), (WARNING, "published", "ties"), (WARNING, "lape-top-0.01", "entropy 0")]
    expect("joint-identification", sound(neurons=sound().neurons | mask | other), *expected)


def test_no_neurons() -> None:
    evidence = sound(neurons={})
    expect("joint-identification", evidence, (NOTE, "", "There are no selected neurons to check."))
    expect("activation-profiles", evidence, (NOTE, "", "There are no entropies to check."))


# -- padding ----------------------------------------------------------------------------------------------------------


def padded(counts: dict[str, ActivationCounts]) -> dict[str, ActivationCounts]:
    """As many tokens again, all of them the padding token, on which 30 % of the neurons are active."""
    shape = next(iter(counts.values())).over_zero.shape
    active = np.random.default_rng(1).random(shape) < 0.3
    return {
        language: counts_of(one.over_zero + active * one.tokens, 2 * one.tokens) for language, one in counts.items()
    }


MANY = ["en", "de", "tr", "zh", "fr", "es", "vi", "id", "ja", "ko", "ru", "ar", "hi", "it", "nl", "pl", "pt", "sv"]
MANY += ["fi", "cs"]
NUMBERS = [2, 3, 7, len(MANY)]
"""Of languages."""


@pytest.mark.parametrize("number", NUMBERS)
def test_padding_flattens_the_activation_profiles(number: int) -> None:
    """By hand: of the specific neurons, those that are active on padding are 1.7 / 1.1 times as active in one language
    as in the others. In two languages that is 0.967 of the largest entropy, in three 0.98, and more in more."""
    languages = MANY[:number]
    recordings = padded(noisy(languages))
    evidence = sound(languages=languages, recordings=recordings, neurons={"lape": selected(recordings, 0.01)})
    said = "The activation profiles hardly differ between languages: 95 % of the neurons of lape have at least "
    said += {2: "97%", 3: "98%", 7: "99%", 20: "100%"}[number]
    expect("activation-profiles", evidence, (WARNING, "lape", f"{said} of the largest possible entropy. Was padding"))


@pytest.mark.parametrize(("number", "share"), [(2, 54), (3, 62), (7, 78), (20, 91)])
def test_activation_profiles_without_padding(number: int, share: int) -> None:
    """By hand: a neuron that is seven times as active in one language has 0.544, 0.622, 0.780 and 0.913."""
    languages = MANY[:number]
    recordings = noisy(languages)
    evidence = sound(languages=languages, recordings=recordings, neurons={"lape": selected(recordings, 0.01)})
    said = f"The neurons of lape tell languages apart: 5 % have at most {share}% of the largest entropy."
    expect("activation-profiles", evidence, (PASSED, "lape", said))


def profiles(number: int, *ratios: float) -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """A selection in so many languages: one neuron for every ratio of its activity in one language to the others'."""
    total = [number - 1 + ratio for ratio in ratios]
    entropies = [math.log(sum_) - ratio * math.log(ratio) / sum_ for ratio, sum_ in zip(ratios, total, strict=True)]
    table = neurons_at({MANY[0]: [index % LAYERS for index in range(len(ratios))]}).assign(entropy=entropies)
    return {"lape": (table, {"count_by_language": dict.fromkeys(MANY[:number], 1), "layers": LAYERS})}


SHARES = {2: 86, 3: 91, 7: 96, 20: 99}
"""By number of languages: per cent of the largest entropy that a neuron has which is 2.5 times as active in one."""


@pytest.mark.parametrize("number", NUMBERS)
def test_the_limit_of_flat_profiles(number: int) -> None:
    said = f"at most {SHARES[number]}% of the largest entropy."
    expect("activation-profiles", sound(neurons=profiles(number, 2.501)), (PASSED, "lape", said))
    said = f"at least {SHARES[number]}% of the largest possible entropy."
    expect("activation-profiles", sound(neurons=profiles(number, 2.499)), (WARNING, "lape", said))


def test_a_few_sharp_profiles_among_flat_ones() -> None:
    """Five of a hundred neurons may be sharp."""
    said = "95 % of the neurons of lape have at least"
    expect("activation-profiles", sound(neurons=profiles(3, *[9.0] * 5, *[1.0] * 95)), (WARNING, "lape", said))
    said = "5 % have at most 55% of the largest entropy."
    expect("activation-profiles", sound(neurons=profiles(3, *[9.0] * 6, *[1.0] * 94)), (PASSED, "lape", said))


def test_the_first_selection_with_entropies_is_judged() -> None:
    mask = as_mask(neurons_at({"en": [0], "de": [3]}), 4).neurons
    flat = {"flat": profiles(2, 1.0)["lape"]}
    expect("activation-profiles", sound(neurons=mask | flat | profiles(2, 9.0)), (WARNING, "flat", "hardly differ"))
    expect("activation-profiles", sound(neurons=mask | profiles(2, 9.0) | flat), (PASSED, "lape", "tell languages"))
    # Of one language there is nothing to tell apart.
    expect("activation-profiles", sound(neurons=profiles(1, 1.0)), (NOTE, "", "There are no entropies to check."))


def test_a_lost_recording_does_not_flatten_the_profiles() -> None:
    """The largest entropy is that of the languages compared, not of the recordings that can still be read."""
    languages = ["en", "de", "tr"]
    recordings = noisy(languages)
    neurons = {"lape": selected(recordings, 0.01)}
    kept = {language: recordings[language] for language in ("en", "de")}
    for left in (kept, {}):
        evidence = sound(languages=languages, recordings=left, neurons=neurons)
        expect("activation-profiles", evidence, (PASSED, "lape", "5 % have at most 62% of the largest"))


def test_a_mask_has_no_activation_profiles() -> None:
    expect("activation-profiles", as_mask(neurons_at({"en": [0], "de": [3]}), 4), (NOTE, "", "no entropies"))


def test_text_that_is_unknown_special_or_repeated() -> None:
    limits = {"repeated_tokens": 50, "unknown_tokens": 20, "special_tokens": 200, "empty_tokens": 500}
    said = {
        "repeated_tokens": "tokens of en repeat an earlier text",
        "unknown_tokens": "of en stand for text that the tokenizer does not know",
        "special_tokens": "of en are special tokens",
        "empty_tokens": "of en have no text of their own",
    }
    for name, limit in limits.items():
        expect("text", sound(texts=texts_of(**{name: limit + 10})), (WARNING, "en", said[name]))
        expect("text", sound(texts=texts_of(**{name: limit})), (PASSED, "", f"{limit / 1000:.1%}"))


def test_text_of_which_nothing_is_known() -> None:
    """Of others' recordings, and of those that an earlier version made."""
    for texts in ({}, {"en": {}}, {"en": {"tokens": 1000}}):
        expect("text", sound(texts=texts), (NOTE, "", "is not known"))


def of_tokens(published: bool, **tokens: int) -> Evidence:
    recordings = {language: counts_of(np.zeros((2, 3), dtype=int), number) for language, number in tokens.items()}
    return sound(published=published, languages=list(tokens), recordings=recordings, neurons={})


def with_profiles(evidence: Evidence, ratio: float) -> Evidence:
    return replace(evidence, neurons=profiles(len(evidence.languages), ratio))


WHOLE = 75 * 2048


@pytest.mark.parametrize(
    ("evidence", "severity", "part"),
    [
        (of_tokens(True, en=WHOLE, de=WHOLE, tr=WHOLE), NOTE, "exactly 153,600 tokens, a multiple of 2,048. Windows"),
        (of_tokens(True, en=3 * 128, de=3 * 128), NOTE, "exactly 384 tokens, a multiple of 128. Windows that are"),
        (of_tokens(True, en=2**20, de=2**20), NOTE, "exactly 1,048,576 tokens, a multiple of 4,096. Windows that"),
        (of_tokens(True, en=3 * 64, de=3 * 64), PASSED, "has 192 tokens, which is no whole number of usual windows."),
        (of_tokens(True, en=WHOLE + 1, de=WHOLE + 1), PASSED, "has 153,601 tokens, which is no whole number"),
        (of_tokens(True, en=WHOLE, de=WHOLE, tr=WHOLE + 2048), PASSED, "The languages have different numbers of"),
        (of_tokens(False, en=WHOLE, de=WHOLE), PASSED, "Windows are packed here, never padded."),
        (of_tokens(True, en=WHOLE), NOTE, "There are no recordings of several languages"),
        (of_tokens(True), NOTE, "There are no recordings of several languages"),
    ],
)
def test_padded_windows(evidence: Evidence, severity: str, part: str) -> None:
    """Without activation profiles, or with sharp ones."""
    expect("padding", evidence, (severity, "", part))
    expect("padding", with_profiles(evidence, 2.51), (severity, "", part))


SMELL = "With activation profiles that hardly differ, this smells of padding."


@pytest.mark.parametrize(
    ("evidence", "severity", "part"),
    [
        (of_tokens(True, en=WHOLE, de=WHOLE, tr=WHOLE), WARNING, f"153,600 tokens, a multiple of 2,048. {SMELL}"),
        (of_tokens(True, en=3 * 128, de=3 * 128), WARNING, f"384 tokens, a multiple of 128. {SMELL}"),
        # Flat profiles alone are the business of another check.
        (of_tokens(True, en=3 * 64, de=3 * 64), PASSED, "no whole number of usual windows"),
        (of_tokens(True, en=WHOLE, de=WHOLE + 2048), PASSED, "different numbers of tokens"),
        (of_tokens(False, en=WHOLE, de=WHOLE), PASSED, "Windows are packed here, never padded."),
    ],
)
def test_padded_windows_and_flat_profiles(evidence: Evidence, severity: str, part: str) -> None:
    expect("padding", with_profiles(evidence, 2.49), (severity, "", part))


@pytest.mark.parametrize("number", NUMBERS)
def test_published_windows_padded_or_packed(number: int) -> None:
    """From the counts: 64 windows of 2,048 tokens, and as many tokens of padding again."""
    languages = MANY[:number]
    packed = noisy(languages, tokens=64 * 2048)
    for recordings, profile, padding in ((packed, PASSED, NOTE), (padded(packed), WARNING, WARNING)):
        neurons = {"lape": selected(recordings, 0.01)}
        found = severities(sound(published=True, languages=languages, recordings=recordings, neurons=neurons))
        assert (found["activation-profiles"], found["padding"]) == ({profile}, {padding})


def test_padding_without_activation_profiles_that_can_be_read() -> None:
    """They are needed only where all languages have equally many tokens."""
    unreadable = {"lape": (neurons_at({"en": [0]}), {"count_by_language": {"en": 1, "de": 0}, "layers": 4})}
    evidence = replace(of_tokens(True, en=WHOLE, de=WHOLE), neurons=unreadable)
    expect("padding", evidence, (WARNING, "", "This check could not be made: KeyError: 'entropy'"))
    evidence = replace(of_tokens(True, en=WHOLE, de=2 * WHOLE), neurons=unreadable)
    expect("padding", evidence, (PASSED, "", "different numbers of tokens"))


# -- numbers ----------------------------------------------------------------------------------------------------------


def broken(where: str, value: float) -> ActivationCounts:
    """The recording of de with two impossible values in one of its arrays."""
    counts = recording("de")
    array = getattr(counts, where).copy()
    array[0, :2] = value
    return replace(counts, **{where: array})


IMPOSSIBLE: dict[str, tuple[ActivationCounts, str]] = {
    "above": (
        broken("over_zero", TOKENS + 2),
        "2 neurons were counted active on more tokens of de than there are (up to 10,002 of 10,000).",
    ),
    "negative": (broken("over_zero", -5), "2 neurons were counted active on a negative number of tokens of de."),
    "nan": (broken("activation_sum", math.nan), "The summed activations of 2 neurons on de are NaN or infinite."),
    "infinite": (broken("product_sum", -math.inf), "The summed products of 2 neurons on de are NaN or infinite."),
    "no tokens": (
        counts_of(np.zeros((2, 3), dtype=int), 0),
        "0 tokens of de were counted, but at least one is needed.",
    ),
    "half of the windows": (
        broken("half_over_zero", TOKENS // 2 + 1),
        "The recording of de cannot be true: the counts of a part of the windows are not possible for its 5000 tokens.",
    ),
    "shapes": (
        replace(recording("de"), activation_sum=np.zeros((2, 3))),
        "The recording of de cannot be true: the arrays have different shapes: [(2, 3), (4, 20)].",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_counts(name: str) -> None:
    counts, sentence = IMPOSSIBLE[name]
    expect("counts", sound(recordings={"en": recording("en"), "de": counts}), (FATAL, "de", sentence))


def test_every_fault_of_every_language_is_named() -> None:
    over_zero = np.array([[TOKENS + 1, -1, 5]])
    counts = replace(counts_of(over_zero), product_sum=np.array([[math.inf, 0, math.nan]]))
    faults = [
        "1 neurons were counted active on more",
        "1 neurons were counted active on a neg",
        "products of 2 neurons",
    ]
    expected = [(FATAL, language, part) for language in LANGUAGES for part in faults]
    expect("counts", sound(recordings=dict.fromkeys(LANGUAGES, counts)), *expected)


def test_possible_counts() -> None:
    """Never and always active are possible, and a published recording has no sums."""
    counts = ActivationCounts(np.array([[0, TOKENS]]), None, None, TOKENS)
    expect("counts", sound(recordings={"en": counts}), (PASSED, "", "No count is negative or above the number of"))
    expect("counts", sound(recordings={}), (NOTE, "", "There are no recordings, so no counts to check."))


def always(number: int) -> ActivationCounts:
    """Of 100 neurons this many are active on every token, and the others on all but one."""
    over_zero = np.full((4, 25), TOKENS - 1)
    over_zero.reshape(-1)[:number] = TOKENS
    return counts_of(over_zero)


def test_always_active() -> None:
    evidence = sound(recordings={"en": always(0), "de": always(2)})
    expect("always-active", evidence, (WARNING, "de", "2.0% of all neurons are active on every single token of de."))
    evidence = sound(recordings={"en": always(0), "de": always(1)})
    expect("always-active", evidence, (PASSED, "", "At most 1.00% of the neurons are active on every token"))
    expect("always-active", sound(recordings={}), (NOTE, "", "There are no recordings"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_impossible_losses(value: float) -> None:
    table = windows()
    rows = (table["perturbation"] == "random-en-1") & (table["language"] == "de")
    table.loc[table.index[rows][:2], "nll_sum"] = value
    said = "The log-likelihood of 2 windows of de is NaN, infinite or positive, or of no token."
    expect("log-likelihoods", sound(perplexity=table), (FATAL, "random-en-1/de", said))


def test_windows_without_tokens() -> None:
    table = windows()
    table.loc[0, "tokens"] = 0
    said = "1 windows of en is NaN, infinite or positive, or of no token."
    expect("log-likelihoods", sound(perplexity=table), (FATAL, "none/en", said))


def test_possible_losses() -> None:
    """Five perturbations, two languages, three windows; a loss of 0 is certainty."""
    table = windows()
    table.loc[0, "nll_sum"] = 0.0
    expect("log-likelihoods", sound(perplexity=table), (PASSED, "", "all 30 windows are finite"))
    expect("log-likelihoods", sound(perplexity=None), (NOTE, "", "Perplexity was not measured."))


# -- the answers ------------------------------------------------------------------------------------------------------


def answering(**languages: list[str]) -> pd.DataFrame:
    """Unperturbed answers in these languages, by language of the prompts; the perturbed ones are in none."""
    rows = [
        {"perturbation": name, "language": prompt, "output_language": code if name == "none" else "undetermined"}
        for name in ("none", "deactivate-en")
        for prompt, codes in languages.items()
        for code in codes
    ]
    return pd.DataFrame(rows).assign(identical_to_baseline=lambda table: table["perturbation"] == "none")


@pytest.mark.parametrize(
    ("right", "severity", "said"),
    [
        (0, WARNING, "Only 0% of the 100 unperturbed answers to prompts in tr are in that language."),
        (49, WARNING, "Only 49% of the 100 unperturbed answers to prompts in tr are in that language. A claim that a"),
        (50, NOTE, "50% of the 100 unperturbed answers to prompts in tr are in it."),
        (79, NOTE, "79% of the 100 unperturbed answers to prompts in tr are in it."),
        (80, PASSED, "80% of the 100 unperturbed answers to prompts in tr are in it."),
        (100, PASSED, "100% of the 100 unperturbed answers to prompts in tr are in it."),
    ],
)
def test_answers_in_another_language(right: int, severity: str, said: str) -> None:
    text = answering(tr=["tr"] * right + ["en"] * (100 - right))
    expect("baseline-language", sound(text=text), (severity, "tr", said))


def test_answers_in_another_language_by_language() -> None:
    """tr as in the published answers: mostly English. What cannot be determined is not in the language."""
    text = answering(tr=["tr", "en", "en", "undetermined"], de=["de", "en", "de"], en=["en"])
    expected = [
        (WARNING, "tr", "Only 25% of the 4 unperturbed answers to prompts in tr are in that language."),
        (NOTE, "de", "67% of the 3 unperturbed answers to prompts in de are in it."),
        (PASSED, "en", "100% of the 1 unperturbed answers to prompts in en are in it."),
    ]
    expect("baseline-language", sound(text=text), *expected)


def test_a_language_that_the_detector_does_not_know() -> None:
    text = answering(en=["en"], xx=["en", "de"])
    expected = [(PASSED, "en", "100%"), (NOTE, "xx", "The identifier lingua does not know xx.")]
    expect("baseline-language", sound(text=text), *expected)


@pytest.mark.parametrize("text", [None, answers().query("perturbation != 'none'")], ids=["no answers", "no baseline"])
def test_no_unperturbed_answers(text: pd.DataFrame | None) -> None:
    expect("baseline-language", sound(text=text), (NOTE, "", "There are no unperturbed answers."))


# -- enough text ------------------------------------------------------------------------------------------------------


def test_token_budgets() -> None:
    """The limit is a factor of 1.05, for own and published models alike."""
    for published in (False, True):
        said = "unequal amounts of text: 10,501 tokens of de, but 10,000 of en. Rare activations are then measured less"
        expect("token-budgets", of_tokens(published, en=10_000, tr=10_200, de=10_501), (WARNING, "", said))
        said = "about equally many tokens (10,000 or more)"
        expect("token-budgets", of_tokens(published, en=10_000, tr=10_200, de=10_500), (PASSED, "", said))
    expect("token-budgets", of_tokens(False, en=10_000), (NOTE, "", "no amounts of text to compare"))
    expect("token-budgets", of_tokens(False, en=0, de=1000), (WARNING, "", "1,000 tokens of de, but 0 of en"))


def halves_of(first: Iterable[int], second: Iterable[int]) -> Evidence:
    """Of 400 neurons, en has these active on eight tenths of either half and the others on one; de has none."""
    sides = []
    for indices in (first, second):
        over_zero = np.full((2, 200), 500)
        over_zero.reshape(-1)[list(indices)] = 4000
        sides.append(over_zero)
    english = counts_of(sides[0] + sides[1], half_over_zero=sides[0], half_tokens=5000)
    flat = np.full((2, 200), 1000)
    german = counts_of(flat, half_over_zero=flat // 2, half_tokens=5000)
    return sound(recordings={"en": english, "de": german}, identification=IDENTIFICATION | {"top_rate": 0.1})


@pytest.mark.parametrize(
    ("first", "second", "severity", "part"),
    [
        ([1, 210, 300], [300, 210, 1], PASSED, "selects or the other, 100% are selected from both."),
        (range(0, 36), range(4, 40), PASSED, "selects or the other, 80% are selected from both."),  # 32 of 40
        (range(0, 35), range(4, 39), WARNING, "or the other, only 79% are selected from both. There is too little"),
        ([1, 210, 300], [1, 210, 310], WARNING, "only 50% are selected from both."),  # two of four
        ([1, 210], [2, 220], WARNING, "only 0% are selected from both."),
    ],
)
def test_halves_of_the_text(first: Iterable[int], second: Iterable[int], severity: str, part: str) -> None:
    expect("stability", halves_of(first, second), (severity, "", part))


@pytest.mark.parametrize(("tokens", "severity"), [(40, WARNING), (40_000, PASSED)])
def test_stability_depends_on_the_amount_of_text(tokens: int, severity: str) -> None:
    """Either half is drawn from the same probabilities; 2 % of the neurons are specific, and 2 % are taken."""
    generator = np.random.default_rng(2)
    probability = {language: one.probability() for language, one in noisy(LANGUAGES).items()}
    recordings = {}
    for language, values in probability.items():
        first, second = generator.binomial(tokens // 2, values), generator.binomial(tokens // 2, values)
        recordings[language] = counts_of(first + second, tokens, half_over_zero=first, half_tokens=tokens // 2)
    evidence = sound(recordings=recordings, identification=IDENTIFICATION | {"top_rate": 0.02})
    assert severities(evidence)["stability"] == {severity}


def test_recordings_without_halves() -> None:
    """Published recordings have none, and a recording of one window has none either."""
    whole = counts_of(recording("de").over_zero)
    for recordings in ({}, {"en": recording("en")}, {"en": recording("en"), "de": whole}, {"en": whole, "de": whole}):
        expect("stability", sound(recordings=recordings), (NOTE, "", "There are no recordings by halves of the text"))


def test_nothing_is_selected_from_either_half() -> None:
    nothing = IDENTIFICATION | {"top_rate": 0.0}
    expect("stability", sound(identification=nothing), (NOTE, "", "No neuron was selected from either half"))


# -- the audit never fails --------------------------------------------------------------------------------------------


def test_problems_are_fatal() -> None:
    expect("files", sound(problems=["a: gone.", "b: cut."]), (FATAL, "", "a: gone."), (FATAL, "", "b: cut."))
    expect("files", sound(), (PASSED, "", "Every file could be read, and none is damaged."))


FLAT = np.full((2, 3), TOKENS // 10)
UNUSABLE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "answers without columns": (
        {"text": answers().drop(columns=["identical_to_baseline", "output_language"])},
        {"effect": "KeyError: 'identical_to_baseline'", "baseline-language": "KeyError: 'output_language'"},
    ),
    "answers of another table": (
        {"text": pd.DataFrame({"a": [1]})},
        {
            "effect": "KeyError: 'perturbation'",
            "copies": "KeyError: 'perturbation'",
            "baseline-language": "KeyError: 'perturbation'",
        },
    ),
    "windows without losses": (
        {"perplexity": windows().drop(columns="nll_sum")},
        {"effect": "KeyError: 'nll_sum'", "log-likelihoods": "KeyError: 'nll_sum'"},
    ),
    "neurons without entropies": (
        {"neurons": {"lape": (neurons_at({"en": [0]}), {"count_by_language": {"en": 1, "de": 0}, "layers": 4})}},
        {"joint-identification": "KeyError: 'entropy'", "activation-profiles": "KeyError: 'entropy'"},
    ),
    "a mask without a summary": (
        {"neurons": {"published": (neurons_at({"en": [0]}).assign(entropy=math.nan), {})}},
        {
            "joint-identification": "KeyError: 'count_by_language'",
            "activation-profiles": "KeyError: 'count_by_language'",
        },
    ),
    "recordings of two models": (
        {
            "recordings": {
                "en": recording("en"),
                "de": counts_of(FLAT, half_over_zero=FLAT // 2, half_tokens=TOKENS // 2),
            }
        },
        {"stability": "UserError: the recordings do not belong to one model"},
    ),
    "no identification": ({"identification": {}}, {"stability": "KeyError: 'top_rate'"}),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_check_that_cannot_be_made(name: str) -> None:
    """It says so; the others answer as ever."""
    changes, failing = UNUSABLE[name]
    evidence = sound(**changes)
    for check, reason in failing.items():
        expect(check, evidence, (WARNING, "", f"This check could not be made: {reason}"))
    others = {check: found for check, found in severities(evidence).items() if check not in failing}
    assert others == {check: {PASSED} for check in CHECKS if check not in failing}


@pytest.mark.parametrize("name", CHECKS)
def test_what_a_check_found_before_it_broke_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(evidence: Evidence) -> Iterator[tuple[str, str, str]]:
        yield FATAL, "en", "A fault."
        raise RuntimeError("out of reach")

    monkeypatch.setitem(CHECKS, name, breaks)
    said = "This check could not be made: RuntimeError: out of reach"
    expect(name, sound(), (FATAL, "en", "A fault."), (WARNING, "", said))
    assert [finding.check for finding in audit(sound()) if finding.severity != PASSED] == [name, name]


def test_a_fault_of_one_selection_survives_another_that_cannot_be_read() -> None:
    zero = neurons_at({"en": [0], "de": [3, 3]}).assign(entropy=0.0)
    neurons = {"lape": (zero, {"count_by_language": {"en": 1, "de": 2}, "layers": 4}), "other": (zero[["layer"]], {})}
    expected = [(WARNING, "lape", "entropy 0"), (WARNING, "", "could not be made: KeyError: 'entropy'")]
    expect("joint-identification", sound(neurons=neurons), *expected)


# -- reading ----------------------------------------------------------------------------------------------------------

FILES = [
    *(f"activations/{language}.safetensors" for language in LANGUAGES),
    "neurons/lape.parquet",
    "metrics/text.parquet",
    "metrics/perplexity.parquet",
    *(f"effects/{name}.json" for variant in EDITS.values() for name in variant),
]


def written(folder: Path, evidence: Evidence | None = None) -> Path:
    """A model's folder."""
    evidence = evidence or sound()
    for language, counts in evidence.recordings.items():
        path = folder / "activations" / f"{language}.safetensors"
        artifacts.write_activations(path, counts, {"language": language, "text": evidence.texts.get(language, {})})
    for method, (table, summary) in evidence.neurons.items():
        artifacts.write_table(folder / "neurons" / f"{method}.parquet", "neurons", table, summary)
    if evidence.text is not None:
        artifacts.write_table(folder / "metrics" / "text.parquet", "text-metrics", evidence.text)
    if evidence.perplexity is not None:
        artifacts.write_table(folder / "metrics" / "perplexity.parquet", "perplexity", evidence.perplexity)
    for name, proof in evidence.effects.items():
        artifacts.write_document(folder / "effects" / f"{name}.json", "effect", proof)
    return folder


def read(folder: Path, **contents: Any) -> Evidence:
    return read_evidence(folder, CONTENTS | contents, PERTURBATIONS, LANGUAGES, IDENTIFICATION)


def files_of(evidence: Evidence) -> set[str]:
    """The files that were read."""
    files = {f"activations/{language}.safetensors" for language in evidence.recordings}
    files |= {f"neurons/{method}.parquet" for method in evidence.neurons}
    files |= {"metrics/text.parquet"} if evidence.text is not None else set()
    files |= {"metrics/perplexity.parquet"} if evidence.perplexity is not None else set()
    return files | {f"effects/{name}.json" for name in evidence.effects}


def test_an_intact_folder(tmp_path: Path) -> None:
    evidence, original = read(written(tmp_path)), sound()
    assert evidence.problems == []
    assert files_of(evidence) == set(FILES)
    assert audited(evidence) == audited(original)
    for language, counts in original.recordings.items():
        again = evidence.recordings[language]
        assert again.over_zero.tolist() == counts.over_zero.tolist()
        assert (again.tokens, again.half_tokens) == (counts.tokens, counts.half_tokens)
    assert evidence.text is not None
    assert evidence.text.equals(original.text)
    assert evidence.perplexity is not None
    assert evidence.perplexity.equals(original.perplexity)
    assert evidence.effects == original.effects


MARKS = {".safetensors": b"", ".json": b'"edited_neurons": ', "lape.parquet": b"\x02\x00\x00\x00", ".parquet": b"none"}
"""After what the flipped bit comes, by ending: a value in each kind of file. Nothing stands for the last byte."""


def damage(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        mark = next(mark for ending, mark in MARKS.items() if path.name.endswith(ending))
        raw[raw.index(mark) + len(mark) if mark else -1] ^= 1
        path.write_bytes(raw)


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize(
    ("file", "check", "answer"),
    [
        ("activations/de.safetensors", "token-budgets", (NOTE, "", "no recordings of several languages")),
        ("neurons/lape.parquet", "joint-identification", (NOTE, "", "There are no selected neurons to check.")),
        ("metrics/text.parquet", "baseline-language", (NOTE, "", "There are no unperturbed answers.")),
        ("metrics/perplexity.parquet", "log-likelihoods", (NOTE, "", "Perplexity was not measured.")),
        ("effects/random-en-1.json", "effect", (PASSED, "", "in all 8 cells")),
    ],
)
def test_a_damaged_file(file: str, check: str, answer: Expected, how: str, tmp_path: Path) -> None:
    path = written(tmp_path) / file
    damage(path, how)
    evidence = read(tmp_path)
    assert files_of(evidence) == set(FILES) - {file}
    assert len(evidence.problems) == 1
    what = "the file does not exist" if how == "missing" else "the file is damaged"
    assert evidence.problems[0].startswith(f"A file cannot be used. {path}: {what}")
    expect("files", evidence, (FATAL, "", str(path)))
    expect(check, evidence, answer)
    assert not {FATAL, WARNING} & set().union(
        *(found for name, found in severities(evidence).items() if name != "files")
    )


def test_any_flipped_bit_of_a_recording_is_noticed(tmp_path: Path) -> None:
    """Header, metadata and numbers: one bit of every byte."""
    path = written(tmp_path) / "activations" / "de.safetensors"
    raw = path.read_bytes()
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        evidence = read(tmp_path, answered=[], read=[], methods=[])
        assert list(evidence.recordings) == ["en"], position
        assert [str(path) in problem for problem in evidence.problems] == [True], position


def test_an_empty_folder(tmp_path: Path) -> None:
    evidence = read(tmp_path)
    assert files_of(evidence) == set()
    assert len(evidence.problems) == len(FILES)
    assert all(any(str(tmp_path / file) in problem for problem in evidence.problems) for file in FILES)
    assert severities(evidence)["files"] == {FATAL}


def test_only_what_a_model_has_is_looked_for(tmp_path: Path) -> None:
    """A published model of which there is a mask alone."""
    mask = as_mask(neurons_at({"en": [0, 3], "de": [3]}), 4)
    nothing = {"published": True, "recorded": False, "methods": ["published"], "read": [], "answered": []}
    evidence = read(written(tmp_path, mask), **nothing)
    assert (evidence.published, evidence.problems) == (True, [])
    assert files_of(evidence) == {"neurons/published.parquet"}
    expect("joint-identification", evidence, (PASSED, "published", "different numbers of neurons"))


def test_published_answers_of_some_perturbations(tmp_path: Path) -> None:
    """Cells are counted where there are answers, after a round trip through the file."""
    silent = [("deactivate-en", "en")]
    text = answers(silent).query("not perturbation.str.startswith('random')")
    answered = ["none", *EDITS["deactivate"]]
    nothing = {"published": True, "recorded": False, "methods": [], "read": [], "answered": answered}
    evidence = read(written(tmp_path, Evidence(text=text)), **nothing)
    assert evidence.problems == []
    assert [member["id"] for member in evidence.perturbations] == answered
    expect("effect", evidence, (WARNING, "deactivate-en/en", "All 4 answers in en under deactivate-en equal"))


def test_impossible_counts_are_read_and_found(tmp_path: Path) -> None:
    """Other readers refuse them; the audit says what is wrong."""
    written(tmp_path, sound(recordings={"en": recording("en"), "de": IMPOSSIBLE["above"][0]}))
    with pytest.raises(ArtifactError, match="counts reach from"):
        artifacts.read_activations(tmp_path / "activations" / "de.safetensors")
    evidence = read(tmp_path)
    assert evidence.problems == []
    expect("counts", evidence, (FATAL, "de", IMPOSSIBLE["above"][1]))


# -- the command lines ------------------------------------------------------------------------------------------------


def run_audit(folder: Path, output: Path, **contents: Any) -> list[dict[str, Any]]:
    """The findings that `audit_results` writes."""
    options = {
        "--contents": json.dumps(CONTENTS | contents),
        "--perturbations": json.dumps(PERTURBATIONS),
        "--identification": json.dumps(IDENTIFICATION),
        "--output": str(output),
    }
    pairs = [word for pair in options.items() for word in pair]
    audit_results.main(["--results", str(folder), "--languages", *LANGUAGES, *pairs])
    return json.loads(output.read_text(encoding="utf-8"))


def test_the_audit_is_a_json_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = cells("random")
    folder = written(tmp_path / "tiny", sound(text=answers(dead), perplexity=windows(dead)))
    records = run_audit(folder, tmp_path / "audit.json")
    assert isinstance(records, list)
    keys = ("check", "severity", "cell", "sentence")
    assert all(set(record) == {*keys, "format", "sha256"} for record in records)
    found = [Finding(**{key: record[key] for key in keys}) for record in records]
    assert found == audited(read(folder))
    assert artifacts.read_records(tmp_path / "audit.json", "audit") == [vars(finding) for finding in found]
    # What passed is not printed.
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in printed] == [
        ["fatal", "random"],
        *(["warning", f"{name}/{language}"] for name, language in dead),
    ]


def test_an_audit_of_damaged_files_is_written(tmp_path: Path) -> None:
    damage(written(tmp_path / "tiny") / "neurons" / "lape.parquet", "truncated")
    records = run_audit(tmp_path / "tiny", tmp_path / "audit.json")
    fatal = [record for record in records if record["severity"] == "fatal"]
    assert [record["check"] for record in fatal] == ["files"]
    assert "lape.parquet" in fatal[0]["sentence"]


FAULT = Finding("effect", FATAL, "random", "Nothing changed under random.")
FINE = Finding("files", PASSED, "", "Every file could be read.")
DOUBT = Finding("stability", WARNING, "", "Too little text.")


def run_check(folder: Path, models: dict[str, list[Finding]], published: list[str]) -> Path:
    """The output of `check_audit`, which need not be there."""
    paths = []
    for model, findings in models.items():
        paths.append(str(folder / model / "audit.json"))
        artifacts.write_records(paths[-1], "audit", [vars(finding) for finding in findings])
    output = folder / "report" / "audit.txt"
    options = ["--report", "results/report/report.html", "--output", str(output)]
    check_audit.main(["--models", *models, "--published", *published, "--audits", *paths, *options])
    return output


def test_nothing_fatal_ends_quietly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {"tiny": [FINE, FINE, DOUBT], "other": [FINE]}
    assert run_check(tmp_path, models, []).read_text() == "tiny: 2 passed, 1 warning\nother: 1 passed\n"
    assert capsys.readouterr() == ("", "")


def test_a_published_model_never_ends_a_run(tmp_path: Path) -> None:
    models = {"theirs": [FAULT, FINE], "ours": [FINE]}
    assert run_check(tmp_path, models, ["theirs"]).read_text() == "theirs: 1 fatal, 1 passed\nours: 1 passed\n"


def test_a_fatal_fault_of_an_own_model_ends_the_run(tmp_path: Path) -> None:
    lost = Finding("files", FATAL, "", "A file is gone.")
    models = {"theirs": [replace(FAULT, sentence="Theirs.")], "ours": [DOUBT, FAULT, FINE], "tiny": [lost]}
    with pytest.raises(UserError) as caught:
        run_check(tmp_path, models, ["theirs"])
    message = str(caught.value)
    assert message.startswith("the audit found 2 fatal fault(s); do not use these numbers. ")
    assert "ours: Nothing changed under random. tiny: A file is gone." in message
    assert message.endswith("results/report/report.html")
    assert "Theirs." not in message
    assert DOUBT.sentence not in message
    assert not (tmp_path / "report" / "audit.txt").exists()


def test_a_damaged_audit_ends_the_run(tmp_path: Path) -> None:
    output = run_check(tmp_path, {"ours": [FINE]}, [])
    output.unlink()
    path = tmp_path / "ours" / "audit.json"
    path.write_text(path.read_text().replace("passed", "fatal"))
    arguments = ["--models", "ours", "--audits", str(path), "--report", "r", "--output", str(output)]
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        check_audit.main(arguments)
    assert not output.exists()


# -- the published data of LLaMA-2-7B ---------------------------------------------------------------------------------

PUBLISHED = ["en", "de", "tr"]


def test_the_published_recordings(llama: dict[str, ActivationCounts]) -> None:
    neurons = {"lape": selected(llama, 0.01)}
    evidence = Evidence(
        published=True, languages=PUBLISHED, identification=IDENTIFICATION, recordings=llama, neurons=neurons
    )
    said = "unequal amounts of text: 6,287,360 tokens of en, but 4,239,360 of de."
    expect("token-budgets", evidence, (WARNING, "", said))
    expect("padding", evidence, (PASSED, "", "different numbers of tokens"))
    expect("counts", evidence, (PASSED, "", "No count is negative"))
    expect("always-active", evidence, (PASSED, "", "At most 0.01% of the neurons"))
    expect("joint-identification", evidence, (PASSED, "lape", "different entropies, up to 0.958."))
    expect("activation-profiles", evidence, (PASSED, "lape", "5 % have at most 67% of the largest entropy."))
    assert [finding.check for finding in audited(evidence) if finding.severity in (FATAL, WARNING)] == ["token-budgets"]


def test_the_published_recordings_with_padding(llama: dict[str, ActivationCounts]) -> None:
    """The numbers beside the limit in the code."""
    recordings = padded(llama)
    evidence = Evidence(published=True, recordings=recordings, neurons={"lape": selected(recordings, 0.01)})
    expect("activation-profiles", evidence, (WARNING, "lape", "have at least 98% of the largest possible entropy"))


def test_the_replications_identification(llama: dict[str, ActivationCounts]) -> None:
    """Its masks, recomputed from its recordings: 3,523 neurons of each language, in layers 0 to 12."""
    table, sizes, largest = one_language_at_a_time(llama, 0.01)
    assert largest == 0
    assert sizes == dict.fromkeys(PUBLISHED, 3523)
    said = "Each language has exactly 3,523 neurons, and all lie in layers 0 to 12 of 32."
    expect("joint-identification", as_mask(table, 32, PUBLISHED), (WARNING, "published", said))


def deactivations() -> list[dict[str, Any]]:
    run = {"models": ["tiny"], "languages": PUBLISHED, "perturbations": ["deactivate"]}
    return variants.describe_all(config_of(run=run))


def test_the_published_answers(published_answers: pd.DataFrame) -> None:
    """70 of 70 English answers are English, 39 German ones German, 17 Turkish ones Turkish."""
    evidence = Evidence(
        published=True, languages=PUBLISHED, perturbations=deactivations(), text=published_answers, recordings={}
    )
    expect("effect", evidence, (PASSED, "", "in all 9 cells"))
    expected = [
        (PASSED, "en", "100% of the 70 unperturbed answers to prompts in en are in it."),
        (NOTE, "de", "56% of the 70 unperturbed answers to prompts in de are in it."),
        (WARNING, "tr", "Only 23% of the 70 unperturbed answers to prompts in tr are in that language."),
    ]
    expect("baseline-language", evidence, *expected)


def test_the_published_answers_had_the_edit_been_on_a_copy(published_answers: pd.DataFrame) -> None:
    """As for mGPT: the unperturbed answers in the place of the perturbed ones, which is then seen in the texts."""
    baseline = published_answers[published_answers["perturbation"] == "none"]
    names = ["none", *(f"deactivate-{language}" for language in PUBLISHED)]
    text = pd.concat([baseline.assign(perturbation=name) for name in names], ignore_index=True)
    evidence = Evidence(published=True, languages=PUBLISHED, perturbations=deactivations(), text=text)
    silent = [(WARNING, f"{name}/{language}", "All 70 answers") for name in names[1:] for language in PUBLISHED]
    expect("effect", evidence, (FATAL, "deactivate", "in any language (9 cells)"), *silent)
