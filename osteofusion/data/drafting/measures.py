"""What columns of numbers are: codes, running numbers, measurements with a unit and a range."""

from __future__ import annotations

import numpy as np
import pandas as pd

from osteofusion.data.clinical import CellProblem
from osteofusion.data.drafting import concepts
from osteofusion.data.drafting.concepts import Concept, Quantity
from osteofusion.data.drafting.profile import ColumnDraft, Profile
from osteofusion.data.drafting.words import shown

MOSTLY = 0.8  # of the cells decide what a column holds


def draft_numbers(draft: ColumnDraft, concept: Concept | None) -> None:
    """Fill in the entry of a column that holds numbers: codes, running numbers, measurements."""
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
        draft.comments.append(_exceptions(draft.profile, problems))


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
            f"{cells_are(len(outside))} outside the range and missing, such as "
            f"{outside.iloc[0] / draft.entry.get('scale', 1.0):g} (row {outside.index[0]})"
        )


def has_other_mark(profile: Profile) -> bool:
    """Whether a column would be numbers under the other decimal mark only."""
    mark = "." if profile.decimal == "," else ","
    other = Profile(profile.header, profile.cells, profile.rows, mark)
    enough = MOSTLY * len(profile.words)
    return len(profile.numbers[0]) < enough <= len(other.numbers[0])


def _is_running_number(profile: Profile, whole: bool) -> bool:
    numbers, _ = profile.numbers
    if not whole or numbers.duplicated().any() or len(numbers) < 3:
        return False
    consecutive = numbers.max() - numbers.min() == len(numbers) - 1
    return bool((consecutive and len(numbers) >= 10) or concepts.says(profile.header, "id"))


def _exceptions(profile: Profile, problems: list[CellProblem]) -> str:
    dates = [problem for problem in problems if problem.row in set(profile.dates)]
    first = problems[0]
    told = (
        f"{cells_are(len(problems))} no numbers, such as {shown([first.value])} (row {first.row})"
    )
    if dates:
        told += f"; {len(dates)} are dates, into which spreadsheets turn numbers like 1.5 or 5/01"
    return told


def cells_are(count: int) -> str:
    """The beginning of a sentence on some cells."""
    return "1 cell is" if count == 1 else f"{count} cells are"


def _span(numbers: pd.Series) -> str:
    return f"{numbers.min():g} to {numbers.max():g}"
