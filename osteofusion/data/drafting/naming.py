"""Bring the drafted columns together: names of their own, copies told, rules between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from osteofusion.data.drafting.columns import draft_column
from osteofusion.data.drafting.profile import ColumnDraft, Profile
from osteofusion.data.drafting.words import shown
from osteofusion.data.manifest import RESERVED, normalise_header

_LONGEST = 60


def draft_columns(profiles: Sequence[Profile]) -> list[ColumnDraft]:
    """A draft of each column, with a canonical name that is no other column's header."""
    headers = Counter(normalise_header(profile.header) for profile in profiles)
    drafts: list[ColumnDraft] = []
    seen: dict[tuple[str, ...], str] = {}
    for profile in profiles:
        draft = draft_column(profile)
        cells = tuple(map(str, zip(profile.cells.index, profile.cells, strict=True)))
        if len(profile.counts) > 1 and cells in seen:
            draft.entry["role"] = "ignored"
            draft.comments = [f"the same cells as {shown([seen[cells]])}"]
        seen.setdefault(cells, profile.header)
        others = set(headers) - {normalise_header(profile.header)}
        draft.name = _free(draft.name, others | {each.name for each in drafts} | RESERVED)
        drafts.append(draft)
    _relate(drafts)
    return drafts


def profiles_of(raw: pd.DataFrame, decimal: str, without: set[str]) -> list[Profile]:
    """Columns that a manifest can name; a header that stands there twice is not one."""
    headers = Counter(map(normalise_header, raw.columns))
    return [
        Profile(str(header), raw.iloc[:, place].dropna(), len(raw), decimal)
        for place, header in enumerate(raw.columns)
        if headers[normalise_header(header)] == 1 and header not in without
    ]


def repeated_headers(raw: pd.DataFrame) -> list[str]:
    """Headers that several columns have."""
    headers = Counter(map(normalise_header, raw.columns))
    names = {normalise_header(name): str(name) for name in reversed(list(raw.columns))}
    return [names[header] for header, count in headers.items() if count > 1]


def _free(name: str, taken: set[str]) -> str:
    name = f"{name}_column" if name in RESERVED else name[:_LONGEST]
    if name not in taken:
        return name
    return next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)


def _relate(drafts: list[ColumnDraft]) -> None:
    """Rules between columns that hold for everybody."""
    by_name = {draft.name: draft for draft in drafts}
    female = by_name.get("female")
    age = by_name.get("age")
    for name in ("menopause_age", "pregnancies"):
        draft = by_name.get(name)
        if draft is None or draft.entry["kind"] != "numeric":
            continue
        if name == "menopause_age" and age is not None and age.entry.get("unit") == "years":
            draft.entry["at_most"] = "age"
        if female is not None and female.entry["kind"] == "binary":
            draft.entry["only_if"] = {"female": 1}
