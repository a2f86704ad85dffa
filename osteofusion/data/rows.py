"""Clinical rows of one table: one row a subject, canonical columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from osteofusion.data.clinical import cross_check, parse_column
from osteofusion.data.manifest import Manifest, Table, subject_id
from osteofusion.data.report import JoinReport
from osteofusion.data.table import find_column, need_column
from osteofusion.errors import CohortError


def clinical_rows(
    raw: pd.DataFrame, path: Path, manifest: Manifest, table: Table, report: JoinReport
) -> pd.DataFrame:
    """Column subject_id and the canonical columns, one row a subject, indexed by sheet row.

    Raises:
        CohortError: a column is missing or named twice, or no row is usable.
    """
    id_header = need_column(raw, [table.id], path, "ID column")
    image_column = manifest.images.column if manifest.images is not None else None
    has_id = raw[id_header].notna()
    report.summary_rows = [int(row) for row in raw.index[~has_id]]
    raw = raw[has_id]
    if raw.empty:
        raise CohortError(f"Table {path} has no row with a {id_header!r}; choose another sheet.")
    ids = raw[id_header].map(lambda cell: subject_id(cell, table.id_pattern))
    repeated = ids.duplicated(keep=False)
    if repeated.any():
        # Equal rows say one thing twice; differing ones leave no row that could be trusted. A
        # running number may differ, and so may the image path: one row a film.
        content = _content(raw[repeated], path, manifest).assign(**{id_header: ids[repeated]})
        same = content.duplicated(keep="first").reindex(ids.index, fill_value=False)
        distinct = ids[repeated & ~same]
        differing = distinct[distinct.duplicated(keep=False)]
        several = set(ids[repeated])
        if image_column is not None:
            several &= set(differing)
        report.duplicate_ids = sorted(several)
        keep = ~same & ~ids.isin(set(differing))
        raw, ids = raw[keep], ids[keep]
        if raw.empty:
            raise CohortError(
                f"Table {path} has several differing rows for each {id_header!r}, such as "
                f"{differing.iloc[0]!r}; give one row a subject, or correct table.id."
            )
    report.rows = len(raw)
    parsed: dict[str, pd.Series] = {"subject_id": ids}
    mapped = {id_header}
    for name, column in manifest.columns.items():
        header = find_column(raw, column.headers(name), path, f"column {name}")
        if header is None:
            report.absent_columns.append(name)
            continue
        mapped.add(header)
        parsed[name], unparsable, implausible = parse_column(
            raw[header], ids, name, column, table.decimal
        )
        if column.role in ("feature", "outcome"):
            report.unparsable_cells += unparsable
            report.implausible_cells += implausible
    named = {manifest.label.column, image_column} - {None}
    mapped |= {find_column(raw, [str(header)], path, "column") or "" for header in named}
    report.unmapped_columns = [str(name) for name in raw.columns if name not in mapped]
    rows = pd.DataFrame(parsed)
    report.implausible_cells += cross_check(rows, manifest)
    return rows


def _content(raw: pd.DataFrame, path: Path, manifest: Manifest) -> pd.DataFrame:
    """The cells in which two rows of one subject may not differ, as text."""
    free = {
        find_column(raw, column.headers(name), path, f"column {name}")
        for name, column in manifest.columns.items()
        if column.role == "identifier"
    }
    if manifest.images is not None and manifest.images.column is not None:
        free.add(find_column(raw, [manifest.images.column], path, "image column"))
    return raw.loc[:, [name not in free for name in raw.columns]].astype(str)
