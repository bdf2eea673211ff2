"""How many answers are in the language that is steered to: worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from langneurons.metrics.steering import COLUMNS, success

Json = dict[str, Any]

BASELINE: Json = {"id": "none", "variant": "none", "kind": "none", "language": None, "source": None, "draw": None}


def member(variant: str, target: str, kind: str = "steer", draw: int | None = None) -> Json:
    name = f"{variant}-{target}" + ("" if draw is None else f"-{draw}")
    return {"id": name, "variant": variant, "kind": kind, "language": target, "source": None, "draw": draw}


def answers(perturbation: str, language: str, outputs: list[str], identifier: str = "lingua") -> pd.DataFrame:
    """Answers to the prompts of a language, in these languages."""
    return pd.DataFrame(
        {
            "perturbation": perturbation,
            "language": language,
            "id": [f"p{number}" for number in range(len(outputs))],  # prompts of other languages have the same ids
            "output_language": outputs,
            "identifier": identifier,
        }
    )


def table(perturbations: list[Json], *parts: pd.DataFrame) -> pd.DataFrame:
    found = success(pd.concat(parts, ignore_index=True), [BASELINE, *perturbations])
    assert found.columns.tolist() == COLUMNS
    return found


def shares(found: pd.DataFrame) -> dict[tuple[str, str, str], tuple[int, float]]:
    """Prompts and share by variant, language and target."""
    return {
        (row.variant, row.language, row.target): (int(row.prompts), float(row.share))
        for row in found.itertuples(index=False)
    }


def wilson(share: float, number: int) -> tuple[float, float]:
    """Wilson 1927, at 95 %, written out again."""
    z = 1.959963984540054
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return centre - half, centre + half


def test_one_direction_by_hand() -> None:
    found = table([member("on", "de")], answers("on-de", "en", ["de"] * 4 + ["en"] * 5 + ["undetermined"]))
    assert shares(found) == {("on", "en", "de"): (10, 0.4), ("on", "all", "all"): (10, 0.4)}
    for row in found.itertuples():
        # float64: some roundings
        assert (row.low, row.high) == pytest.approx(wilson(0.4, 10), rel=1e-12)
        assert row.draws == 0
        assert pd.isna(row.note)


def test_prompts_in_the_target_language_do_not_count() -> None:
    """They are answered in it anyway."""
    found = table(
        [member("on", "de")], answers("on-de", "en", ["de"] + ["en"] * 9), answers("on-de", "de", ["de"] * 10)
    )
    assert shares(found) == {("on", "en", "de"): (10, 0.1), ("on", "all", "all"): (10, 0.1)}


def test_all_directions_by_hand() -> None:
    """Prompts are averaged over their targets first; each then counts once, so a language with more prompts weighs
    more."""
    parts = [
        answers("on-de", "en", ["de"] * 10 + ["en"] * 10),  # p0 to p9
        answers("on-tr", "en", ["tr"] * 5 + ["de"] * 15),  # p0 to p4
        answers("on-en", "de", ["en"] * 10),
        answers("on-tr", "de", ["de"] * 10),
        answers("on-en", "tr", ["en"] * 3 + ["tr"] * 9),
        answers("on-de", "tr", ["tr"] * 12),
        answers("on-tr", "tr", ["tr"] * 12),
    ]
    found = table([member("on", target) for target in ("en", "de", "tr")], *parts)
    # English prompts: five have 1, five 1/2, ten 0; German ones 1/2 each; Turkish ones: three 1/2, nine 0.
    total = (5 + 2.5 + 5 + 1.5) / (20 + 10 + 12)
    # float64: a mean of 42 numbers
    assert shares(found) == {
        ("on", "en", "de"): (20, 0.5),
        ("on", "en", "tr"): (20, 0.25),
        ("on", "de", "en"): (10, 1.0),
        ("on", "de", "tr"): (10, 0.0),
        ("on", "tr", "en"): (12, 0.25),
        ("on", "tr", "de"): (12, 0.0),
        ("on", "all", "all"): (42, pytest.approx(total, rel=1e-12)),
    }
    last = found.iloc[-1]
    assert (last["low"], last["high"]) == pytest.approx(wilson(total, 42), rel=1e-12)
    # Shares of 0 and 1 have an interval too, which stays within 0 and 1.
    one = found[(found["language"] == "de") & (found["target"] == "en")].iloc[0]
    assert (one["low"], one["high"]) == pytest.approx((1 / (1 + 1.959963984540054**2 / 10), 1.0), rel=1e-12)


def test_draws_are_averaged_by_prompt() -> None:
    """Twenty answers to ten prompts are ten samples: the interval is that of ten."""
    members = [member("any", "de", "random", draw) for draw in (1, 2)]
    found = table(
        members,
        answers("any-de-1", "en", ["de"] * 5 + ["en"] * 5),
        answers("any-de-2", "en", ["de"] + ["en"] * 9),
    )
    assert shares(found) == {
        ("any", "en", "de"): (10, pytest.approx(0.3)),
        ("any", "all", "all"): (10, pytest.approx(0.3)),
    }
    assert found["draws"].tolist() == [2, 2]
    assert (found["low"].iloc[0], found["high"].iloc[0]) == pytest.approx(wilson(0.3, 10), rel=1e-12)


def test_a_prompt_that_only_some_draws_answered() -> None:
    members = [member("any", "de", "random", draw) for draw in (1, 2)]
    found = table(members, answers("any-de-1", "en", ["de"] * 10), answers("any-de-2", "en", ["en"] * 5))
    assert shares(found)["any", "en", "de"] == (10, 0.75)  # five prompts have 1/2, five 1


def test_the_baseline_has_every_direction() -> None:
    """How often an unsteered model answers in another language."""
    found = table(
        [member("on", "de")],
        answers("none", "en", ["en"] * 6 + ["de"] * 3 + ["tr"]),
        answers("none", "tr", ["tr"] * 10),
        answers("none", "de", ["en"] * 10),
        answers("on-de", "en", ["de"] * 10),
    )
    assert shares(found) == {
        ("none", "en", "de"): (10, 0.3),
        ("none", "en", "tr"): (10, 0.1),
        ("none", "tr", "en"): (10, 0.0),
        ("none", "tr", "de"): (10, 0.0),
        ("none", "de", "en"): (10, 1.0),
        ("none", "de", "tr"): (10, 0.0),
        # Each prompt averages its two targets: English four times 1/2, German ten times 1/2.
        ("none", "all", "all"): (30, pytest.approx(7 / 30, rel=1e-12)),
        ("on", "en", "de"): (10, 1.0),
        ("on", "all", "all"): (10, 1.0),
    }
    assert found["draws"].tolist() == [0] * 9


def test_variants_stay_apart_and_in_order() -> None:
    members = [member("on-2", "de"), member("on-1", "de"), member("any", "de", "random", 1)]
    found = table(
        members,
        answers("on-2-de", "en", ["de"] * 10),
        answers("any-de-1", "en", ["en"] * 10),
        answers("on-1-de", "en", ["de"] * 5 + ["en"] * 5),
    )
    assert found["variant"].tolist() == ["on-2", "on-2", "any", "any", "on-1", "on-1"]
    assert found["share"].tolist() == [1, 1, 0, 0, 0.5, 0.5]
    assert found["draws"].tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("number", "interval"), [(9, False), (10, True)])
def test_few_prompts_have_no_interval(number: int, interval: bool) -> None:
    found = table([member("on", "de")], answers("on-de", "en", ["de"] * number))
    for row in found.itertuples():
        assert (row.prompts, row.share) == (number, 1.0)
        assert pd.isna(row.low) == pd.isna(row.high) == (not interval)
        assert (row.note == "fewer than 10 prompts: no interval") == (not interval)


def test_few_prompts_of_a_direction_may_be_many_together() -> None:
    found = table([member("on", "de")], answers("on-de", "en", ["de"] * 6), answers("on-de", "tr", ["tr"] * 6))
    assert found["prompts"].tolist() == [6, 6, 12]
    assert found["low"].isna().tolist() == [True, True, False]
    assert found["share"].tolist() == [1, 0, 0.5]


def test_a_target_that_the_identifier_does_not_know_is_left_out() -> None:
    """No answer can be found to be in it: a share of 0 would be wrong. Its prompts can be steered away from it."""
    found = table(
        [member("on", "xx"), member("on", "en")],
        answers("none", "xx", ["en"] * 10),
        answers("none", "en", ["en"] * 10),
        answers("on-xx", "en", ["undetermined"] * 10),
        answers("on-en", "xx", ["en"] * 5 + ["de"] * 5),
    )
    assert shares(found) == {
        ("none", "xx", "en"): (10, 1.0),
        ("none", "all", "all"): (10, 1.0),
        ("on", "xx", "en"): (10, 0.5),
        ("on", "all", "all"): (10, 0.5),
    }


def test_a_target_without_prompts_of_its_own() -> None:
    found = table([member("on", "de")], answers("none", "en", ["en"] * 10), answers("on-de", "en", ["de"] * 10))
    assert shares(found) == {
        ("none", "en", "de"): (10, 0.0),
        ("none", "all", "all"): (10, 0.0),
        ("on", "en", "de"): (10, 1.0),
        ("on", "all", "all"): (10, 1.0),
    }


def test_prompts_in_a_language_that_the_identifier_does_not_know() -> None:
    found = table([member("on", "de")], answers("on-de", "xx", ["de"] * 10), answers("on-de", "de", ["de"] * 10))
    assert shares(found) == {("on", "xx", "de"): (10, 1.0), ("on", "all", "all"): (10, 1.0)}


def test_each_identifier_knows_its_own_languages() -> None:
    """py3langid knows Breton, and lingua does not."""
    for identifier, known in (("lingua", False), ("py3langid", True)):
        found = table(
            [member("on", "br")],
            answers("on-br", "en", ["br"] * 10, identifier),
            answers("on-br", "br", ["br"] * 10, identifier),
        )
        assert shares(found) == ({("on", "en", "br"): (10, 1.0), ("on", "all", "all"): (10, 1.0)} if known else {})


def test_no_answers() -> None:
    empty = answers("on-de", "en", []).iloc[:0]
    found = success(empty, [BASELINE, member("on", "de")])
    assert found.empty
    assert found.columns.tolist() == COLUMNS


def test_perturbations_that_were_not_answered_have_no_rows() -> None:
    found = table([member("on", "de"), member("off", "de", "deactivate")], answers("on-de", "en", ["en"] * 10))
    assert set(found["variant"]) == {"on"}


def test_only_prompts_in_the_source_language_count() -> None:
    """With a source's neurons off, answers to prompts in a third language say nothing of the pair."""
    text = pd.DataFrame(
        [
            {"perturbation": "pair-en-de", "language": language, "id": f"{language}-{number}", "output_language": "de"}
            for language in ("en", "fr", "de")
            for number in range(12)
        ]
    ).assign(identifier="lingua")
    members = [{"id": "pair-en-de", "variant": "pair", "kind": "steer", "language": "de", "source": "en", "draw": None}]
    table = success(text, members)
    rows = table[["language", "target", "prompts", "share"]].values.tolist()
    assert rows == [["en", "de", 12, 1], ["all", "all", 12, 1]]
