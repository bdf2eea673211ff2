"""In which languages the answers to each language's prompts are."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from langneurons.metrics.language import UNDETERMINED

OTHER = "other"
KEYS = ["label", "language"]


def language_shares(table: pd.DataFrame, languages: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Share of each answer language by `label` of the perturbation and `language` of the prompt; names of the columns.

    Languages outside the run are `other`. All draws of a random variant, for all languages, are one row: their mean.
    Where there are no answers to prompts in a language, and where a share is not known, the row is NaN.
    """
    table = table.copy()
    known = [*languages, UNDETERMINED]
    table["name"] = table["output_language"].where(table["output_language"].isin(known), OTHER)
    sums = table.groupby(["perturbation", "language", "name"])["share"].agg(lambda shares: shares.sum(skipna=False))
    single = sums.unstack(fill_value=0.0)  # a language that no answer is in; a share that is not known stays so
    about = table.drop_duplicates("perturbation").set_index("perturbation")
    order = {name: position for position, name in enumerate(dict.fromkeys(about["variant"]))}
    whose = about["edited_language"].map({language: position for position, language in enumerate(languages)}).fillna(-1)
    about = about.assign(
        rank=about["variant"].map(order), whose=whose, last=about["kind"] == "random", first=about["kind"] != "none"
    )
    about = about.sort_values(["first", "last", "rank", "whose"])
    labels = {perturbation: _label(row) for perturbation, row in about.iterrows()}
    index = single.index.get_level_values("perturbation")
    single = (
        single.assign(label=index.map(labels)).reset_index("perturbation", drop=True).set_index("label", append=True)
    )
    means = single.groupby(["label", "language"], sort=False).mean()
    sourced = about["source_language"].notna() if "source_language" in about else []
    partial = {labels[name] for name in about.index[sourced]}  # of these only prompts in the source's language count
    wanted = [(label, language) for label in dict.fromkeys(labels.values()) for language in languages]
    wanted = [key for key in wanted if key in means.index or key[0] not in partial]
    names = [*languages, *(name for name in (OTHER, UNDETERMINED) if name in means)]
    return means.reindex(columns=names, fill_value=0.0).reindex(pd.MultiIndex.from_tuples(wanted, names=KEYS)), names


def _label(row: pd.Series) -> str:
    if row["kind"] == "none":
        return "not perturbed"
    return f"{row['variant']} (mean)" if row["kind"] == "random" else f"{row['variant']}-{row['edited_language']}"
