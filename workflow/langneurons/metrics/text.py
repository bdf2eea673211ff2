"""Length, stop words and language of generated texts.

To add a metric of single outputs: compute its column in `measure_outputs` and aggregate it in `summarise`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from langneurons.errors import UserError
from langneurons.metrics.language import identify, knows


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


def measure_outputs(outputs: pd.DataFrame, lists: dict[str, frozenset[str]]) -> pd.DataFrame:
    """Measure every output.

    Args:
        outputs: one row per output: `perturbation, language, id, input, output, output_tokens`, where `language` is the
            prompt's; the perturbation `none` is the baseline.
        lists: stop words by language of the prompt.

    Returns:
        The same rows with `characters`, `words` (split at white space), `stop_words` (words that are in the list of the
        prompt's language, case kept, as in the replication), `empty`, `identical_to_baseline` (missing where there is
        no baseline), `output_language` and its `confidence`.
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
    table[["output_language", "confidence"]] = identify(table["output"].tolist())
    return table


def summarise(measured: pd.DataFrame, languages: list[str]) -> pd.DataFrame:
    """One row per perturbation and prompt language.

    Returns:
        `perturbation, language, outputs, mean_characters, mean_words, mean_tokens, stop_word_ratio` (stop words over
        all words of all outputs together), `identical_to_baseline`, `empty`, `prompt_language` (share of outputs in the
        prompt's language), then `share_<language>` for each language of the run and `share_other`. Shares are of all
        outputs; that of a language which the detector does not know is missing.
    """
    rows: list[dict[str, Any]] = []
    for (perturbation, language), group in measured.groupby(["perturbation", "language"], sort=False):
        words = group["words"].sum()
        found = group["output_language"]
        shares = {f"share_{name}": _share(found, name) for name in languages}
        rows.append(
            {
                "perturbation": perturbation,
                "language": language,
                "outputs": len(group),
                "mean_characters": group["characters"].mean(),
                "mean_words": group["words"].mean(),
                "mean_tokens": group["output_tokens"].mean(),
                "stop_word_ratio": group["stop_words"].sum() / words if words else float("nan"),
                "identical_to_baseline": group["identical_to_baseline"].astype(float).mean(),
                "empty": group["empty"].mean(),
                "prompt_language": _share(found, str(language)),
                **shares,
                "share_other": float((~found.isin(languages)).mean()),
            }
        )
    return pd.DataFrame(rows)


def _share(found: pd.Series, language: str) -> float:
    """Share of a language among those detected; NaN for a language that the detector does not know."""
    return float((found == language).mean()) if knows(language) else float("nan")


def output_languages(measured: pd.DataFrame) -> pd.DataFrame:
    """Outputs and their share by `perturbation, language, output_language`."""
    keys = ["perturbation", "language"]
    table = measured.groupby([*keys, "output_language"], sort=False).size().rename("outputs").reset_index()
    table["share"] = table["outputs"] / table.groupby(keys)["outputs"].transform("sum")
    return table.sort_values(
        [*keys, "share", "output_language"], ascending=[True, True, False, True], ignore_index=True
    )
