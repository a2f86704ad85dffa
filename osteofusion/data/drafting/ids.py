"""Which column holds the subject IDs, and how they stand in the file names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from osteofusion.data.drafting.dictionary import words
from osteofusion.data.drafting.words import tokens
from osteofusion.data.manifest import normalise_header, normalise_id, subject_id

WHOLE = "(.+)"
_LAST_NUMBER = r"(?<!\d)0*(\d+)\D*$"
_FIRST_NUMBER = r"^\D*0*(\d+)"
_STEM = r"([^/\\]+)\.\w+$"
_ENOUGH = 0.5  # of the images or of the rows


@dataclass(frozen=True)
class IdMatch:
    """How the table's IDs meet the file names.

    Attributes:
        header: Of the ID column.
        table_pattern: For `table.id_pattern`.
        image_pattern: For `images.id_pattern`.
        images: How many images match a row.
        rows: How many rows match an image.
        others: Headers of columns that match as well.
        case_only: How many more images would match if case did not matter.
    """

    header: str
    table_pattern: str = WHOLE
    image_pattern: str = WHOLE
    images: int = 0
    rows: int = 0
    others: tuple[str, ...] = ()
    case_only: int = 0


def match_ids(raw: pd.DataFrame, stems: Sequence[str]) -> IdMatch | None:
    """The column and the patterns under which most images meet a row; None without a column.

    A pattern that makes one ID of two is not considered. Where nothing meets, the column is the
    one whose header sounds like an ID.
    """
    columns = _candidates(raw)
    if not columns:
        return None
    found = list(_meetings(columns, stems))
    good = [
        (score, match)
        for score, match in found
        if match.images >= _ENOUGH * len(stems)
        or match.rows >= _ENOUGH * len(columns[match.header])
    ]
    if not good:
        header = _by_header(columns)
        keys = set(columns[header])
        met = [normalise_id(stem) for stem in stems if normalise_id(stem) in keys]
        return IdMatch(
            header, images=len(met), rows=len(set(met)), case_only=_case_only(keys, stems, keys)
        )
    score, best = max(good, key=lambda item: item[0])
    others = {match.header for each, match in good if each > score - 0.02} - {best.header}
    subjects = [subject_id(stem, best.image_pattern) for stem in stems]
    keys = {subject_id(each, best.table_pattern) for each in columns[best.header]}
    more = _case_only(keys, subjects, keys)
    return IdMatch(**{**vars(best), "others": tuple(sorted(others)), "case_only": more})


def _meetings(
    columns: dict[str, list[str]], stems: Sequence[str]
) -> Iterator[tuple[float, IdMatch]]:
    """Every column and pair of patterns under which anything meets, and how good that is."""
    by_pattern: dict[str, list[str]] = {}  # the same for every column, and there may be 10^4
    for header, ids in columns.items():
        for table_pattern, image_patterns in _patterns(ids):
            keys = {subject_id(each, table_pattern) for each in ids}
            if len(keys) < len(ids):
                continue
            for cost, pattern in enumerate(image_patterns):
                if pattern not in by_pattern:
                    by_pattern[pattern] = [subject_id(stem, pattern) for stem in stems]
                met = Counter(subject for subject in by_pattern[pattern] if subject in keys)
                images = met.total()
                if not met or max(met.values()) > max(len(stems) / 2, 2):
                    continue
                score = images / len(stems) + 0.3 * len(met) / len(keys)
                score -= 0.002 * cost + 0.05 * (table_pattern != WHOLE)
                yield score, IdMatch(header, table_pattern, pattern, images, len(met))


def id_column(raw: pd.DataFrame) -> str | None:
    """The column that most sounds and looks like an ID, for a table without images."""
    columns = _candidates(raw)
    return _by_header(columns) if columns else None


def _candidates(raw: pd.DataFrame) -> dict[str, list[str]]:
    """Distinct IDs of each column that could hold them."""
    headers = Counter(map(normalise_header, raw.columns))
    found = {}
    for position, header in enumerate(raw.columns):
        cells = raw.iloc[:, position].dropna()
        if headers[normalise_header(header)] > 1 or cells.empty:
            continue
        ids = list(dict.fromkeys(map(normalise_id, cells)))
        if len(ids) >= 0.3 * len(cells) and len(cells) >= 0.5 * len(raw):
            found[str(header)] = ids
    return found


def _by_header(columns: dict[str, list[str]]) -> str:
    def likely(header: str) -> tuple[int, int]:
        return len(words("headers", "id") & set(tokens(header))), len(columns[header])

    return max(columns, key=likely)


def _case_only(ids: Sequence[str] | set[str], subjects: Sequence[str], met: set[str]) -> int:
    folded = {each.casefold() for each in ids}
    return sum(subject not in met and subject.casefold() in folded for subject in subjects)


def _patterns(ids: list[str]) -> list[tuple[str, list[str]]]:
    """Pairs of a pattern on the ID's cell and the patterns on file names to try with it."""
    pairs = [(WHOLE, _text_patterns(ids))]
    prefix = re.sub(r"[^\W_]*$", "", _common_start(ids))
    if prefix:
        tails = [each[len(prefix) :] for each in ids]
        if all(tails):
            pairs.append((f"^{re.escape(prefix)}(.+)$", _text_patterns(tails)))
    if _most(ids, _STEM):
        stems = [subject_id(each, _STEM) for each in ids]
        pairs.append((_STEM, _text_patterns(stems)))
    if _most(ids, r"\d"):
        later = [rf"^\D*(?:\d+\D+){{{k}}}0*(\d+)" for k in (1, 2, 3)]
        if _most(ids, r"^([1-9]\d*|0)$"):
            own = [WHOLE]
        else:
            own = [r"^0*(\d+)$"] if _most(ids, r"^\d+$") else [_FIRST_NUMBER, _LAST_NUMBER]
        pairs += [(pattern, [_FIRST_NUMBER, *later, _LAST_NUMBER]) for pattern in own]
    return pairs


def _common_start(ids: list[str]) -> str:
    first, last = min(ids), max(ids)
    return next((first[:i] for i in range(len(first)) if first[i] != last[i : i + 1]), first)


def _most(ids: list[str], pattern: str) -> bool:
    """Whether all but stray cells, such as a "total" below the column, match."""
    return sum(re.search(pattern, each) is not None for each in ids) >= 0.9 * len(ids)


def _text_patterns(ids: list[str]) -> list[str]:
    """Where an ID may stand in a file name, the plainest first."""
    found = [WHOLE]
    for mark in "_-. ":
        part = f"[^{re.escape(mark)}]+"
        at = re.escape(mark)
        found += [f"^({part})", f"{at}({part})$", f"^{part}{at}({part})", f"^({part}{at}{part})"]
    shapes = Counter(map(_shape, ids)).most_common(3)
    if sum(count for _, count in shapes) >= 0.9 * len(ids):
        shape = "|".join(dict.fromkeys(_regex(name, ids) for name, _ in shapes))
        found += [f"^({shape})", rf"(?<![^\W_])({shape})(?![^\W_])", rf"({shape})$"]
    return found


def _shape(text: str) -> str:
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", text))


def _regex(shape: str, ids: list[str]) -> str:
    """A shape as a regular expression; letters that never change are taken as they are."""
    letters = [re.findall(r"[^\W\d_]+", each) for each in ids if _shape(each) == shape]
    words = iter(zip(*letters, strict=True))
    parts = []
    for part in re.findall(r"a|0|[^a0]+", shape):
        if part == "a":
            kinds = set(next(words))
            parts.append(re.escape(kinds.pop()) if len(kinds) == 1 else r"[^\W\d_]+")
        else:
            parts.append(r"\d+" if part == "0" else re.escape(part))
    return "".join(parts)
