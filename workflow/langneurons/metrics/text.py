"""Length, stop words, language, copying and degeneration of generated texts.

To add a metric of single outputs: compute its column in `measure_outputs` and aggregate it in `summarise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.errors import UserError
from langneurons.metrics.copying import COPIES, copied_question
from langneurons.metrics.degeneration import compression_ratio, distinct_ngrams, loops, repeated_ngrams
from langneurons.metrics.language import UNDETERMINED, identify, knows, say_once
from langneurons.metrics.words import words_of_answers

IDENTIFIERS = ("lingua", "py3langid")
"""The language identifiers, unless others are named: the first decides."""

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
        try:
            words = frozenset(Path(source).read_text(encoding="utf-8").split())
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: the stop-word list of language '{language}' is not UTF-8 ({error}).") from None
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
    rows: list[Columns] = []
    for (perturbation, language), group in measured.groupby(["perturbation", "language"], sort=False):
        words = group["words"].sum()
        rows.append(
            {
                "perturbation": perturbation,
                "language": language,
                "outputs": len(group),
                "mean_characters": group["characters"].mean(),
                "mean_words": group["words"].mean(),
                "mean_tokens": group["output_tokens"].mean(),
                "stop_word_ratio": group["stop_words"].sum() / words if words else math.nan,
                "identical_to_baseline": group["identical_to_baseline"].astype(float).mean(),
                "empty": group["empty"].mean(),
                "prompt_language": _share(group, str(language)),
                **{f"share_{name}": _share(group, name) for name in languages},
                "share_other": float((~group["output_language"].isin(languages)).mean()),
                "english": _share(group, "en"),
                "undetermined": float((group["output_language"] == UNDETERMINED).mean()),
                **group[["copies", "loops"]].mean(),
                **group[["repeated_ngrams", "distinct_2", "compression_ratio"]].mean(),
                "agreement": _agreement(group),
            }
        )
    return pd.DataFrame(rows)


def _share(group: pd.DataFrame, language: str) -> float:
    """Share of a language among those detected; NaN for a language that the first identifier does not know."""
    known = knows(language, group["identifier"].iloc[0])
    return float((group["output_language"] == language).mean()) if known else math.nan


def _agreement(group: pd.DataFrame) -> float:
    """Share of outputs in the same language by both identifiers, of those that both determine; NaN without any."""
    first, second = group["output_language"], group["second_language"]
    both = (first != UNDETERMINED) & (second != UNDETERMINED) & second.notna()
    return float((first == second)[both].mean())


def output_languages(measured: pd.DataFrame) -> pd.DataFrame:
    """Outputs and their share by `perturbation, language, output_language`."""
    keys = ["perturbation", "language"]
    table = measured.groupby([*keys, "output_language"], sort=False).size().rename("outputs").reset_index()
    table["share"] = table["outputs"] / table.groupby(keys)["outputs"].transform("sum")
    return table.sort_values(
        [*keys, "share", "output_language"], ascending=[True, True, False, True], ignore_index=True
    )
