"""Length, stop words, language, copying and degeneration of generated texts.

To add a metric of single outputs: compute its column in `measure_outputs` and aggregate it in `summarise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.corpus.textfiles import read_lines
from langneurons.errors import UserError
from langneurons.metrics.copying import COPIES, copied_question
from langneurons.metrics.degeneration import compression_ratio, distinct_ngrams, loops, repeated_ngrams
from langneurons.metrics.language import UNDETERMINED, identify, knows, say_once
from langneurons.metrics.words import words_of_answers

IDENTIFIERS = ("lingua", "py3langid")
"""The language identifiers, unless others are named: the first decides."""

KEYS = ["perturbation", "language"]
"""Of outputs that are summarised together: of one perturbation, to prompts in one language."""
MEANS = ("copies", "loops", "repeated_ngrams", "distinct_2", "compression_ratio")
"""Columns of `measure_outputs` whose mean the summary has under the same name."""

Columns = dict[str, Any]


def stop_words(language: str, source: str | None) -> frozenset[str]:
    """The stop words of a language.

    Args:
        language: its code.
        source: a file with one word per line, or the code of a list of the package stopwordsiso; by default the list of
            the language's own code.

    Raises:
        UserError: no such list.
    """
    import stopwordsiso

    if source and Path(source).is_file():
        lines = read_lines(source, f"the stop-word list of language '{language}'")
        words = frozenset(word for line in lines for word in line.split())
        if not words:
            raise UserError(f"{source}: the stop-word list of language '{language}' is empty.")
        return words
    code = source or language
    if not stopwordsiso.has_lang(code):
        raise UserError(
            f"language '{language}' has no stop-word list: '{code}' is neither a file nor a list of stopwordsiso "
            f"({', '.join(sorted(stopwordsiso.langs()))}). Name a file with one word per line in "
            f"'metrics.stop_words.{language}'."
        )
    return frozenset(stopwordsiso.stopwords(code))


def measure_outputs(
    outputs: pd.DataFrame,
    lists: dict[str, frozenset[str]],
    identifiers: Sequence[str] = IDENTIFIERS,
    threshold: float = 0.5,
) -> pd.DataFrame:
    """Measure every output.

    Args:
        outputs: one row per output: `perturbation, language, id, output, output_tokens`, where `language` is the
            prompt's; the perturbation `none` is the baseline. The question that an output may copy is `question`, or
            `input` where that is missing.
        lists: stop words by language of the prompt.
        identifiers: what identifies the language: the first decides, a second one shows how far they agree.
        threshold: an output whose language is less probable than this is undetermined.

    Returns:
        The same rows with `characters`, `words` (split at white space), `stop_words` (words that are in the list of the
        prompt's language, case kept, as in the replication), `empty`, `identical_to_baseline` (missing where there is
        no baseline), `output_language`, its `confidence` and `identifier`, `second_language`, `second_confidence` and
        `second_identifier` (missing where there is one identifier only), `copied_question` (0 to 1; missing where there
        is no question), `copies`, `loops`, `compression_ratio` (see `copying` and `degeneration`), and, over the words
        as `metrics.words` divides them, `repeated_ngrams` (of four words) and `distinct_2`.

    Raises:
        UserError: an identifier that is not known or not installed, or not one or two of them.
    """
    table = outputs.copy()
    words = table["output"].str.split()
    table["characters"] = table["output"].str.len()
    table["words"] = words.str.len()
    pairs = zip(words, table["language"], strict=True)
    table["stop_words"] = [sum(word in lists[language] for word in row) for row, language in pairs]
    table["empty"] = table["output"] == ""
    baseline = table.loc[table["perturbation"] == "none"].set_index(["language", "id"])["output"].to_dict()
    answers = zip(table["language"], table["id"], table["output"], strict=True)
    same = [baseline.get((language, name)) == output for language, name, output in answers]
    table["identical_to_baseline"] = same if baseline else pd.array([pd.NA] * len(table), dtype="boolean")
    table["output_tokens"] = pd.to_numeric(table["output_tokens"])  # missing in published answers
    table = table.assign(**_languages(table["output"], identifiers, threshold))
    for language in lists:
        if not knows(language, identifiers[0]):
            say_once(
                f"the language identifier '{identifiers[0]}' does not know language '{language}': the shares of this "
                "language stay empty. Another one may know it; name it first in 'metrics.identifiers'."
            )
    return table.assign(**_copying(table), **_degeneration(table))


def _languages(outputs: pd.Series, identifiers: Sequence[str], threshold: float) -> Columns:
    """The columns of both identifiers; those of the second are missing where there is none."""
    if not 1 <= len(identifiers) <= 2:
        raise UserError(f"metrics.identifiers: name one or two language identifiers, not {len(identifiers)}.")
    columns: Columns = {}
    for (language, prefix), identifier in zip(
        [("output_language", ""), ("second_language", "second_")], [*identifiers, None], strict=False
    ):
        named = identify(outputs.tolist(), identifier) if identifier else [(None, math.nan)] * len(outputs)
        codes = pd.Series([code for code, _ in named], outputs.index, dtype="str")
        confidence = pd.Series([value for _, value in named], outputs.index, dtype=float)
        columns[language] = codes.mask(confidence < threshold, UNDETERMINED)
        columns[f"{prefix}confidence"] = confidence
        columns[f"{prefix}identifier"] = pd.Series(identifier, outputs.index, dtype="str")
    return columns


def _copying(table: pd.DataFrame) -> Columns:
    missing = pd.Series(None, table.index, dtype=object)
    questions = table.get("question", missing).fillna(table.get("input", missing)).fillna("")
    pairs = zip(table["output"], questions, strict=True)
    similarity = pd.Series([copied_question(answer, question) for answer, question in pairs], table.index, dtype=float)
    return {"copied_question": similarity, "copies": similarity > COPIES}


def _degeneration(table: pd.DataFrame) -> Columns:
    answers = table["output"]
    divided = words_of_answers(answers.tolist(), table["output_language"].tolist(), table["language"].tolist())
    return {
        "loops": answers.map(loops).astype(bool),
        "repeated_ngrams": [math.nan if words is None else repeated_ngrams(words) for words in divided],
        "distinct_2": [math.nan if words is None else distinct_ngrams(words) for words in divided],
        "compression_ratio": answers.map(compression_ratio).astype(float),
    }


def summarise(measured: pd.DataFrame, languages: list[str]) -> pd.DataFrame:
    """One row per perturbation and prompt language.

    Returns:
        `perturbation, language, outputs, mean_characters, mean_words, mean_tokens, stop_word_ratio` (stop words over
        all words of all outputs together), `identical_to_baseline`, `empty`, `prompt_language` (share of outputs in the
        prompt's language), then `share_<language>` for each language of the run and `share_other` (the undetermined
        among them), `english`, `undetermined`, `copies` and `loops` (shares), `repeated_ngrams`, `distinct_2` and
        `compression_ratio` (means over the outputs that have them) and `agreement` (share of equal languages among the
        outputs whose language both identifiers determine). Other shares are of all outputs; that of a language which
        the first identifier does not know is missing, as is `agreement` without a second one.
    """
    output, second = measured["output_language"], measured["second_language"]
    by = str(measured["identifier"].iloc[0])
    known = {name for name in {*measured["language"], *languages, "en"} if knows(name, by)}
    values = {
        "mean_characters": measured["characters"],
        "mean_words": measured["words"],
        "mean_tokens": measured["output_tokens"],
        "stop_word_ratio": measured["stop_words"],
        "identical_to_baseline": measured["identical_to_baseline"],
        "empty": measured["empty"],
        "prompt_language": (output == measured["language"]).where(measured["language"].isin(known)),
        **{f"share_{name}": output == name if name in known else math.nan for name in languages},
        "share_other": ~output.isin(languages),
        "english": output == "en" if "en" in known else math.nan,
        "undetermined": output == UNDETERMINED,
        **{name: measured[name] for name in MEANS},
        "agreement": (output == second).where((output != UNDETERMINED) & (second != UNDETERMINED) & second.notna()),
    }
    groups = measured[KEYS].assign(**pd.DataFrame(values, measured.index).astype(float)).groupby(KEYS, sort=False)
    words = measured.groupby(KEYS, sort=False)["words"].sum()
    table = groups.mean()
    table["stop_word_ratio"] = groups["stop_word_ratio"].sum() / words.where(words > 0)
    table.insert(0, "outputs", groups.size())
    return table.reset_index()


def output_languages(measured: pd.DataFrame) -> pd.DataFrame:
    """Outputs and their share by `perturbation, language, output_language`."""
    table = measured.groupby([*KEYS, "output_language"], sort=False).size().rename("outputs").reset_index()
    table["share"] = table["outputs"] / table.groupby(KEYS)["outputs"].transform("sum")
    return table.sort_values(
        [*KEYS, "share", "output_language"], ascending=[True, True, False, True], ignore_index=True
    )
