"""What two runs were made with, where it differs; and rows that one of them alone has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from langneurons.report.comparison import ONLY_A, ONLY_B
from langneurons.report.runs import LAYOUTS, Run, as_text, cells, keyed

Json = dict[str, Any]


def descriptions(a: Run, b: Run) -> pd.DataFrame:
    """Words of the tables that differ (number formats, versions, severities): `table, model, what, a, b, cells`.

    Rows of one model that differ in the same way are one: `cells` lists what else identifies them.
    """
    parts = []
    for name, layout in LAYOUTS.items():
        if not layout.texts or name not in a.tables or name not in b.tables:
            continue
        keys = list(layout.keys)
        both = keyed(a, name).merge(keyed(b, name), on=keys, suffixes=(" a", " b"))
        about = both[keys].drop(columns="model", errors="ignore")
        for what in layout.texts:
            if f"{what} a" in both and f"{what} b" in both:
                one, other = as_text(both[f"{what} a"]), as_text(both[f"{what} b"])
                model = both["model"] if "model" in keys else ""
                part = pd.DataFrame({"model": model, "a": one, "b": other, "cells": cells(about)}, index=both.index)
                parts.append(part[one != other].assign(table=name, what=what))
    columns = ["table", "model", "what", "a", "b"]
    if not parts or not sum(map(len, parts)):
        return pd.DataFrame(columns=[*columns, "cells"])
    return pd.concat(parts).groupby(columns, sort=False)["cells"].agg(", ".join).reset_index()


def settings(a: Mapping | None, b: Mapping | None) -> pd.DataFrame:
    """Keys of two configs that differ: `key` (a dotted path), `a, b` (JSON; None where the key is not set).

    Lists are compared whole. A name with a dot in it stands in quotes. None of it if a config is not known.
    """
    if a is None or b is None:
        return pd.DataFrame(columns=["key", "a", "b"])
    one, other = _flat(a), _flat(b)
    rows = [
        {"key": key, "a": one.get(key), "b": other.get(key)}
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: str(row["key"])), columns=["key", "a", "b"], dtype=object)


def _flat(config: Mapping, prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in config.items():
        key = prefix + (json.dumps(name, ensure_ascii=False) if "." in str(name) else str(name))
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{key}.")
        else:
            flat[key] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return flat


def unmatched(a: Run, b: Run) -> pd.DataFrame:
    """Rows that one run alone has: `side` (one of `VERDICTS`)`, table, cell` (its keys).

    The rows of a model or a table that the other run lacks altogether are one.
    """
    rows: list[Json] = []
    only = {ONLY_A: set(a.models) - set(b.models), ONLY_B: set(b.models) - set(a.models)}
    for side, run in ((ONLY_A, a), (ONLY_B, b)):
        own = [model for model in run.models if model in only[side]]
        rows += [{"side": side, "table": "all tables", "cell": f"{model}: every row"} for model in own]
    for name, layout in LAYOUTS.items():
        keys = list(layout.keys)
        found = keyed(a, name)[keys].merge(keyed(b, name)[keys], how="outer", on=keys, indicator="found", sort=False)
        for side, where, other in ((ONLY_A, "left_only", b), (ONLY_B, "right_only", a)):
            own_rows = found[found["found"] == where]
            if "model" in keys:
                own_rows = own_rows[~own_rows["model"].isin(only[side])]
            if name not in other.tables and len(own_rows):
                rows.append({"side": side, "table": name, "cell": f"the whole table, {len(own_rows)} rows"})
                continue
            rows += [{"side": side, "table": name, "cell": cell} for cell in cells(own_rows)]
    return pd.DataFrame(rows, columns=["side", "table", "cell"])
