"""What each column of a clinical table is: kind, unit, role, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.data.clinical import CellProblem
from osteofusion.data.drafting import concepts
from osteofusion.data.drafting.answers import NO, NONE, YES, sex_of_header, sexes, yes_no
from osteofusion.data.drafting.concepts import Concept, Quantity
from osteofusion.data.drafting.profile import Profile
from osteofusion.data.drafting.words import fold, shown
from osteofusion.data.manifest import Column, normalise_header

_MOST = 0.8  # of the cells decide what a column holds
_NEARLY_ALL = 0.95
_MAX_WORDS = 40  # a category with more is free text
_LONGEST = 60  # letters of a category


@dataclass
class ColumnDraft:
    """One entry of a manifest's `columns`.

    Attributes:
        profile: The column's cells.
        name: Canonical name.
        entry: Keys and values of the entry.
        comments: The evidence, a sentence each.
    """

    profile: Profile
    name: str
    entry: dict[str, Any]
    comments: list[str] = field(default_factory=list)

    @property
    def role(self) -> str:
        """The drafted role."""
        return str(self.entry.get("role", "feature"))


def draft_column(profile: Profile) -> ColumnDraft:
    """Look at one column; its name may still clash with another's."""
    concept = concepts.find_concept(profile.header)
    name = concepts.canonical_name(profile.header) or "column"
    draft = ColumnDraft(profile, name, {"header": _plain_header(profile.header)})
    if not profile.counts:
        return _ignored(draft, "empty")
    if len(profile.dates) > 0.5 * len(profile.cells):
        told = (
            "birth dates identify a patient" if concepts.says(profile.header, "birth") else "dates"
        )
        return _ignored(draft, told)
    numbers, _ = profile.numbers
    if concepts.says(profile.header, "identifying") and numbers.empty:
        return _ignored(draft, "may name a person")
    if len(numbers) >= _MOST * len(profile.words) and set(profile.counts) - {"0", "1"}:
        _numeric(draft, concept)
    else:
        _worded(draft, concept)
    _role(draft, concept)
    if len(profile.counts) == 1:
        word = next(iter(profile.counts))
        empty = " or empty" if len(profile.cells) < profile.rows else ""
        draft.comments.insert(0, f"{shown([word])} in every row{empty}")
        if concept is None and draft.role == "feature":
            draft.entry["role"] = "ignored"
    return draft


def _numeric(draft: ColumnDraft, concept: Concept | None) -> None:
    numbers, problems = draft.profile.numbers
    whole = bool((numbers % 1 == 0).all())
    if concept is not None and concept.name == "female":
        draft.name = "sex"
        draft.entry["kind"] = "categorical"
        draft.comments.append(
            f"codes {shown(draft.profile.counts)}; if you know them, call it female, kind binary, "
            'with values such as { "1": 0, "2": 1 }'
        )
        return
    codes = set(draft.profile.counts) == {"1", "2"}
    draft.entry["kind"] = "categorical" if codes else "numeric"
    if codes:
        draft.comments.append("codes 1 and 2; nothing says which is yes")
        return
    if concept is not None:
        draft.name = concept.name
    if concept is None and _is_running_number(draft.profile, whole):
        draft.entry["role"] = "identifier"
        draft.comments.append("a number of its own in every row")
        return
    if concepts.says(draft.profile.header, "birth"):
        draft.entry["role"] = "ignored"
        draft.comments.append("a year of birth says the age only beside the year of the film")
        return
    if concept is not None and concept.quantity is not None:
        _measure(draft, concept.quantity)
    else:
        unit = concepts.bracketed_unit(draft.profile.header)
        if unit is not None:
            draft.entry["unit"] = unit
        draft.comments.append(f"values {_span(numbers)}")
        if whole and 3 <= numbers.nunique() <= 4 and len(numbers) >= 30:
            draft.comments.append("few whole numbers: if they are codes, kind: categorical")
    if problems:
        draft.comments.append(_exceptions(draft.profile, problems, "numbers"))


def _measure(draft: ColumnDraft, quantity: Quantity) -> None:
    """Unit, scale and range of a known quantity, from the header and the size of the values."""
    numbers, _ = draft.profile.numbers
    median = float(numbers.median())
    stated = concepts.find_unit(draft.profile.header, quantity)
    low, high = quantity.usual or quantity.range or (-np.inf, np.inf)
    fitting = [unit for unit in quantity.units if low <= median * unit.scale <= high]
    draft.entry["unit"] = quantity.unit
    unit = stated if stated in fitting or not fitting else fitting[0]
    span = f"values {_span(numbers)}"
    if unit is not None and unit is stated and fitting:
        draft.comments.append(f"{span}; {unit.name} by the header")
    elif unit is not None and fitting:
        given = f", though the header says {stated.name}" if stated is not None else ""
        draft.comments.append(f"{span}, so {unit.name}{given}")
    else:
        draft.comments.append(span)
    if unit is not None and unit.scale != 1:
        draft.entry["scale"] = unit.scale
    if quantity.range is None:
        return
    scaled = numbers * draft.entry.get("scale", 1.0)
    bottom, top = quantity.range
    if quantity.unit == "years" and bottom == 15 and (scaled < bottom).mean() > 0.02:
        bottom = 0  # a cohort with children
    outside = scaled[(scaled < bottom) | (scaled > top)]
    if len(outside) > 0.2 * len(scaled):
        draft.comments.append(
            f"{len(outside)} of them lie outside {bottom:g} to {top:g} {quantity.unit}: correct "
            "unit and scale, then give a range"
        )
        return
    draft.entry["range"] = [bottom, top]
    if not outside.empty:
        draft.comments.append(
            f"{_cells(len(outside))} outside the range and missing, such as "
            f"{outside.iloc[0] / draft.entry.get('scale', 1.0):g} (row {outside.index[0]})"
        )


def _worded(draft: ColumnDraft, concept: Concept | None) -> None:
    profile = draft.profile
    says_sex = concept is not None and concept.name == "female"
    by_header = sex_of_header(profile.header)
    answers = yes_no(profile.counts)
    pair = sexes(profile.counts, header_says_sex=says_sex)
    if by_header is not None and profile.share(answers) >= _NEARLY_ALL:
        pair = {word: answer if by_header else 1 - answer for word, answer in answers.items()}
        answers = {}
    if profile.share(pair) >= _NEARLY_ALL and (says_sex or not answers):
        draft.name = "female"
        _binary(draft, pair)
    elif says_sex:
        draft.name = "sex"
        draft.entry["kind"] = "categorical"
        draft.comments.append(
            f"words {shown(profile.counts)}; if you know them, call it female, kind binary, with "
            "values that say which is 1"
        )
    elif profile.share(answers) >= _NEARLY_ALL:
        draft.name = _binary_name(draft.name, concept)
        _binary(draft, answers)
    elif len(profile.counts) == 1 and fold(next(iter(profile.counts))) in YES | NO:
        word = next(iter(profile.counts))
        draft.name = _binary_name(draft.name, concept)
        _binary(draft, {word: int(fold(word) in YES)})
    else:
        if concept is not None and concept.quantity is None:
            draft.name = concept.name
        _free(draft, concept)


def _binary_name(name: str, concept: Concept | None) -> str:
    """A concept's name, unless it is a number that the column only asks about."""
    if concept is None:
        return name
    return name if concept.quantity is not None else concept.name


def _binary(draft: ColumnDraft, values: dict[str, int]) -> None:
    draft.entry["kind"] = "binary"
    profile = draft.profile
    others = [word for word in profile.counts if word not in values]
    count = sum(profile.counts[word] for word in others)
    _, unknown = profile.parse(Column(kind="binary"))
    if draft.name == "female" or len(unknown) > count:
        draft.entry["values"] = dict(values)
    if others:
        draft.comments.append(f"{_cells(count)} neither and missing: {shown(others)}")


def _free(draft: ColumnDraft, concept: Concept | None) -> None:
    """Words that are no yes and no: presence, categories or free text."""
    profile = draft.profile
    total = sum(profile.counts.values())
    none = [word for word in profile.counts if fold(word) in NONE]
    others = len(profile.counts) - len(none)
    longest = max(map(len, profile.counts))
    if none and profile.share(none) >= 0.15 and others > 5:
        draft.entry["kind"] = "presence"
        if set(none) - {"no", "none", "0", "false"}:
            draft.entry["absent"] = none
        draft.comments.append(
            f"{sum(profile.counts[word] for word in none)} of {total} cells say none; the other "
            f"{others} wordings count as 1"
        )
    elif len(profile.counts) <= min(_MAX_WORDS, max(2, 0.3 * total)) and longest <= _LONGEST:
        draft.entry["kind"] = "categorical"
        if len(profile.counts) > 1:
            draft.comments.append(f"words {shown(profile.counts, 6)}")
    else:
        draft.entry |= {"kind": "text", "role": "ignored"}
        if len(profile.counts) >= 0.9 * total and _sounds_like_id(profile):
            draft.entry["role"] = "identifier"
        draft.comments.append(
            f"{len(profile.counts)} different texts, such as {shown(profile.counts, 2)}"
        )
        _other_mark(draft)


def _role(draft: ColumnDraft, concept: Concept | None) -> None:
    if draft.role != "feature":
        return
    numeric = draft.entry["kind"] == "numeric"
    if concept is not None and concept.is_outcome:
        draft.entry["role"] = "outcome"
        draft.comments.append(concept.follows_label)
    elif concepts.says(draft.profile.header, "supplements") and not numeric:
        draft.entry["role"] = "outcome"
        draft.comments.append("calcium and vitamin D are often given because of the diagnosis")


def _other_mark(draft: ColumnDraft) -> None:
    """Tell when a column of text would be numbers under the other decimal mark."""
    profile = draft.profile
    other = Profile(
        profile.header, profile.cells, profile.rows, "." if profile.decimal == "," else ","
    )
    if len(other.numbers[0]) >= _MOST * len(profile.words):
        draft.entry["kind"] = "numeric"
        draft.comments = [
            f"numbers with a decimal {mark!r}, unlike the other columns: replace it by "
            f"{profile.decimal!r} in the table, then delete `role: ignored`"
        ]


def _ignored(draft: ColumnDraft, why: str) -> ColumnDraft:
    draft.entry |= {"kind": "text", "role": "ignored"}
    draft.comments.append(why)
    return draft


def _sounds_like_id(profile: Profile) -> bool:
    return concepts.says(profile.header, "id")


def _is_running_number(profile: Profile, whole: bool) -> bool:
    numbers, _ = profile.numbers
    if not whole or numbers.duplicated().any() or len(numbers) < 3:
        return False
    consecutive = numbers.max() - numbers.min() == len(numbers) - 1
    return bool((consecutive and len(numbers) >= 10) or _sounds_like_id(profile))


def _exceptions(profile: Profile, problems: list[CellProblem], wanted: str) -> str:
    dates = [problem for problem in problems if problem.row in set(profile.dates)]
    first = problems[0]
    told = f"{_cells(len(problems))} no {wanted}, such as {shown([first.value])} (row {first.row})"
    if dates:
        told += f"; {len(dates)} are dates, into which spreadsheets turn numbers like 1.5 or 5/01"
    return told


def _cells(count: int) -> str:
    return "1 cell is" if count == 1 else f"{count} cells are"


def _span(numbers: pd.Series) -> str:
    return f"{numbers.min():g} to {numbers.max():g}"


def _plain_header(header: str) -> str:
    plain = " ".join(header.split()).rstrip(" :")
    return plain if normalise_header(plain) == normalise_header(header) else header
