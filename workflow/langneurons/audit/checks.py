"""The checks of an audit.

Every check looks for one thing that went wrong in an experiment that others published, in own results as in theirs, and
answers in a plain sentence. To add a check: a function from `Evidence` to findings, and its name in `CHECKS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import entropy

from langneurons.audit.copies import check_copies
from langneurons.audit.effect import check_effect
from langneurons.audit.evidence import FATAL, NOTE, PASSED, WARNING, Evidence, Finding, Found, Json
from langneurons.audit.texts import check_text
from langneurons.errors import UserError
from langneurons.metrics.language import knows
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.lape import select

Selections = dict[str, tuple[pd.DataFrame, Json]]
LAPE, PUBLISHED = "lape", "published"
"""Methods whose neurons must tell languages apart."""
FLAT_PROFILE = 2.5
"""Neurons of which 95 % have at least the entropy of one that is only so many times as often active in one language as
in each other one hardly tell languages apart. In three languages that is 0.91 of the largest possible entropy; on the
published recordings of LLaMA-2-7B the share is 0.67, and 0.98 once as many tokens of padding are added, on which 30 %
of the neurons are active."""
BUDGET_RATIO = 1.05
"""Languages whose numbers of tokens differ by more than this factor are unequally measured."""
ALWAYS_ACTIVE = 0.01
"""Largest plausible share of neurons that are active on every single token (published LLaMA-2-7B: 0.0001)."""
BASELINE_SHARE = 0.5
"""A model that answers less than this share of the prompts in their language cannot be switched away from it."""
BASELINE_MOSTLY = 0.8
"""Below this share the baseline is worth looking at."""
AGREEMENT = 0.8
"""Smallest share of neurons that must be selected from either half of the text, of all selected from one of them. The
demo models, with 56,000 tokens per language, reach 0.9."""
SMALLEST_WINDOW = 128
"""Equal numbers of tokens that are multiples of a power of two from here on look like padded windows."""


def audit(evidence: Evidence) -> list[Finding]:
    """Make every check. A check that cannot be made is a finding itself: the audit never fails."""
    found = []
    for name, check in CHECKS.items():
        try:
            for rest in check(evidence):
                found.append(Finding(name, *rest))  # one by one: what was found before an error is kept
        except Exception as error:  # whatever the files hold, the report must still be written
            sentence = f"This check could not be made: {type(error).__name__}: {error}"
            found.append(Finding(name, WARNING, "", sentence))
    return found


# -- reading and numbers ----------------------------------------------------------------------------------------------


def _files(evidence: Evidence) -> Found:
    for problem in evidence.problems:
        yield FATAL, "", problem
    if not evidence.problems:
        yield PASSED, "", "Every file could be read, and none is damaged."


def _counts(evidence: Evidence) -> Found:
    if not evidence.recordings:
        yield NOTE, "", "There are no recordings, so no counts to check."
        return
    faults = 0
    for language, counts in evidence.recordings.items():
        for sentence in list(_faults(language, counts)) or _other_faults(language, counts):
            faults += 1
            yield FATAL, language, sentence
    if not faults:
        yield PASSED, "", "No count is negative or above the number of tokens, and no sum is NaN or infinite."


def _faults(language: str, counts: ActivationCounts) -> Iterator[str]:
    if counts.tokens < 1:
        yield f"{counts.tokens:,} tokens of {language} were counted, but at least one is needed."
    above = int((counts.over_zero > counts.tokens).sum())
    if above:
        largest = f"up to {counts.over_zero.max():,} of {counts.tokens:,}"
        yield f"{above:,} neurons were counted active on more tokens of {language} than there are ({largest})."
    negative = int((counts.over_zero < 0).sum())
    if negative:
        yield f"{negative:,} neurons were counted active on a negative number of tokens of {language}."
    for name, sums in (("activations", counts.activation_sum), ("products", counts.product_sum)):
        broken = 0 if sums is None else int((~np.isfinite(sums)).sum())
        if broken:
            yield f"The summed {name} of {broken:,} neurons on {language} are NaN or infinite."


def _other_faults(language: str, counts: ActivationCounts) -> Iterator[str]:
    """What has no sentence of its own here: arrays of different shapes, impossible counts of a part of the windows."""
    try:
        counts.check()
    except UserError as error:
        yield f"The recording of {language} cannot be true: {error}."


def _always_active(evidence: Evidence) -> Found:
    if not evidence.recordings:
        yield NOTE, "", "There are no recordings, so no activation probabilities to check."
        return
    shares = {name: float((counts.over_zero == counts.tokens).mean()) for name, counts in evidence.recordings.items()}
    for language, share in shares.items():
        if share > ALWAYS_ACTIVE:
            yield (
                WARNING,
                language,
                f"{share:.1%} of all neurons are active on every single token of {language}. Few tokens, or a count of "
                "something else than activations above zero, would look like this.",
            )
    if max(shares.values()) <= ALWAYS_ACTIVE:
        yield PASSED, "", f"At most {max(shares.values()):.2%} of the neurons are active on every token of a language."


def _losses(evidence: Evidence) -> Found:
    table = evidence.perplexity
    if table is None:
        yield NOTE, "", "Perplexity was not measured."
        return
    broken = table[~np.isfinite(table["nll_sum"]) | (table["nll_sum"] < 0) | (table["tokens"] < 1)]
    for (perturbation, language), group in broken.groupby(["perturbation", "language"], sort=False):
        cell = f"{perturbation}/{language}"
        yield (
            FATAL,
            cell,
            f"The log-likelihood of {len(group):,} windows of {language} is NaN, infinite or positive, or of no token.",
        )
    if broken.empty:
        yield PASSED, "", f"The log-likelihoods of all {len(table):,} windows are finite."


# -- the identification -----------------------------------------------------------------------------------------------


def _by_entropy(evidence: Evidence) -> Selections:
    """The selections that were, or should have been, made by plain LAPE; other methods may choose flat profiles."""
    return {name: part for name, part in evidence.neurons.items() if part[1].get("method", LAPE) in (LAPE, PUBLISHED)}


def _joint_identification(evidence: Evidence) -> Found:
    """Whether languages were compared at all.

    With one language at a time every entropy is 0, and ties are broken by index: each language gets equally many
    neurons, all from the lowest layers. The replication's masks are of this kind.
    """
    if not evidence.neurons:
        yield NOTE, "", "There are no selected neurons to check."
    for method, (table, summary) in _by_entropy(evidence).items():
        entropies = table["entropy"].dropna()
        if entropies.empty:
            yield from _mask_of_one_language(method, table, summary)
        elif (entropies < 1e-9).all():
            yield (
                WARNING,
                method,
                f"All neurons of {method} have entropy 0, so that only ties order them: each is active in "
                "one language alone. Too little text, or an identification on one language, looks like this.",
            )
        else:
            yield PASSED, method, f"The neurons of {method} have different entropies, up to {entropies.max():.3f}."


def _mask_of_one_language(method: str, table: pd.DataFrame, summary: Json) -> Found:
    """A mask holds no entropies; what ties leave behind is equal sizes and the lowest layers."""
    without = [language for language, number in summary["count_by_language"].items() if number == 0]
    if table.empty or without:
        yield NOTE, method, f"There are no neurons of {', '.join(without) or 'any language'} in {method}."
    if table.empty:
        return
    if len(summary["count_by_language"]) < 2:
        yield NOTE, method, f"There is only one language in {method}, so whether languages were compared is not known."
        return
    sizes, layers, highest = summary["count_by_language"], summary["layers"], int(table["layer"].max())
    equal = len(set(sizes.values())) == 1
    low = layers >= 4 and highest < layers * (0.75 if equal else 0.5)
    if equal and low:
        yield (
            WARNING,
            method,
            f"Each language has exactly {next(iter(sizes.values())):,} neurons, and all lie in layers 0 to {highest} "
            f"of {layers}. An identification on one language at a time looks like this: every entropy is 0, and the "
            "lowest indices win the ties.",
        )
    elif equal or low:
        what = (
            "each language has equally many neurons" if equal else f"no neuron lies above layer {highest} of {layers}"
        )
        yield NOTE, method, f"In {method}, {what}; see whether that is plausible."
    else:
        yield PASSED, method, f"Languages have different numbers of neurons in {method}, up to layer {highest}."


def _activation_profiles(evidence: Evidence) -> Found:
    """Whether the selected neurons tell languages apart at all; those that are active on padding do not."""
    found = _flatness(evidence)
    if found is None:
        yield NOTE, "", "There are no entropies to check."
        return
    method, share, flat = found
    if flat:
        yield (
            WARNING,
            method,
            f"The activation profiles hardly differ between languages: 95 % of the neurons of {method} have at least "
            f"{share:.0%} of the largest possible entropy. Was padding counted?",
        )
    else:
        sentence = f"The neurons of {method} tell languages apart: 5 % have at most {share:.0%} of the largest entropy."
        yield PASSED, method, sentence


def _flatness(evidence: Evidence) -> tuple[str, float, bool] | None:
    """The 5 % quantile of the first selection's entropies, relative to ln K, and whether it is too high."""
    for method, (table, summary) in _by_entropy(evidence).items():
        entropies, number = table["entropy"].dropna(), len(summary["count_by_language"])
        if number > 1 and len(entropies):
            profile = np.array([FLAT_PROFILE, *[1.0] * (number - 1)])
            lowest = float(entropies.quantile(0.05))
            return method, lowest / math.log(number), lowest >= entropy(profile)
    return None


def _padding(evidence: Evidence) -> Found:
    """Whether published counts look like those of padded windows; the mGPT part of the replication counted padding."""
    tokens = {language: counts.tokens for language, counts in evidence.recordings.items()}
    if not evidence.published:
        yield PASSED, "", "Windows are packed here, never padded."
        return
    if len(tokens) < 2:
        yield NOTE, "", "There are no recordings of several languages, so no numbers of tokens to compare."
        return
    number = next(iter(tokens.values()))
    window = number & -number  # the largest power of two that divides it
    if len(set(tokens.values())) > 1:
        yield PASSED, "", "The languages have different numbers of tokens, unlike equally many padded windows."
    elif window < SMALLEST_WINDOW:
        yield PASSED, "", f"Every language has {number:,} tokens, which is no whole number of usual windows."
    else:
        equal = f"Every language has exactly {number:,} tokens, a multiple of {min(window, 4096):,}."
        found = _flatness(evidence)
        if found and found[2]:
            yield WARNING, "", f"{equal} With activation profiles that hardly differ, this smells of padding."
        else:
            yield NOTE, "", f"{equal} Windows that are padded and counted whole look like this, but so do packed ones."


def _token_budgets(evidence: Evidence) -> Found:
    tokens = {language: counts.tokens for language, counts in evidence.recordings.items()}
    if len(tokens) < 2:
        yield NOTE, "", "There are no recordings of several languages, so no amounts of text to compare."
        return
    least, most = min(tokens, key=lambda name: tokens[name]), max(tokens, key=lambda name: tokens[name])
    if tokens[most] > BUDGET_RATIO * max(tokens[least], 1):
        yield (
            WARNING,
            "",
            f"Languages were recorded on unequal amounts of text: {tokens[most]:,} tokens of {most}, but "
            f"{tokens[least]:,} of {least}. Rare activations are then measured less well in {least}.",
        )
    else:
        yield PASSED, "", f"All languages were recorded on about equally many tokens ({tokens[least]:,} or more)."


def _stability(evidence: Evidence) -> Found:
    """Whether either half of the text selects the same neurons."""
    halves = {language: counts.halves() for language, counts in evidence.recordings.items()}
    if len(halves) < 2 or not all(halves.values()):
        yield NOTE, "", "There are no recordings by halves of the text, so whether it was enough text is not known."
        return
    keys = ("language", "layer", "neuron")
    selected: list[set] = []
    for side in (0, 1):
        counts = {language: half[side] for language, half in halves.items() if half}
        chosen = select(counts, evidence.identification["top_rate"], evidence.identification["activation_percentile"])
        selected.append(set(zip(*(chosen.table[key] for key in keys), strict=True)))
    either = selected[0] | selected[1]
    if not either:
        yield NOTE, "", "No neuron was selected from either half of the text."
        return
    share = len(selected[0] & selected[1]) / len(either)
    if share < AGREEMENT:
        yield (
            WARNING,
            "",
            f"Of the neurons that one half of the text selects or the other, only {share:.0%} are selected from both. "
            "There is too little text, or many more neurons are as specific as those selected.",
        )
    else:
        yield (
            PASSED,
            "",
            f"Of the neurons that one half of the text selects or the other, {share:.0%} are selected from both.",
        )


# -- the answers ------------------------------------------------------------------------------------------------------


def _baseline_language(evidence: Evidence) -> Found:
    """Whether the unperturbed model answers in the prompt's language; if not, there is nothing to switch away from."""
    text = evidence.text
    baseline = text[text["perturbation"] == "none"] if text is not None else pd.DataFrame()
    if baseline.empty:
        yield NOTE, "", "There are no unperturbed answers."
        return
    for language, answers in baseline.groupby("language", sort=False):
        share = float((answers["output_language"] == language).mean())
        identifier = str(answers["identifier"].iloc[0]) if "identifier" in answers else "lingua"
        if not knows(str(language), identifier):
            yield NOTE, str(language), f"The identifier {identifier} does not know {language}."
        elif share < BASELINE_SHARE:
            yield (
                WARNING,
                str(language),
                f"Only {share:.0%} of the {len(answers)} unperturbed answers to prompts in {language} are in that "
                "language. A claim that a perturbation switches the language has no base there.",
            )
        else:
            severity = NOTE if share < BASELINE_MOSTLY else PASSED
            sentence = f"{share:.0%} of the {len(answers)} unperturbed answers to prompts in {language} are in it."
            yield severity, str(language), sentence


CHECKS: dict[str, Callable[[Evidence], Found]] = {
    "effect": check_effect,
    "joint-identification": _joint_identification,
    "activation-profiles": _activation_profiles,
    "padding": _padding,
    "copies": check_copies,
    "counts": _counts,
    "always-active": _always_active,
    "log-likelihoods": _losses,
    "baseline-language": _baseline_language,
    "token-budgets": _token_budgets,
    "text": check_text,
    "stability": _stability,
    "files": _files,
}
"""By name, in the order of the report."""
