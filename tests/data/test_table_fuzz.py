"""Tables as nobody would write them: a sentence or a cohort, and every row accounted for."""

from __future__ import annotations

import csv
import datetime
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from PIL import Image

from osteofusion.data.cohort import build_cohort
from osteofusion.data.drafting import draft_manifest
from osteofusion.data.manifest import load_manifest, subject_id
from osteofusion.data.table import read_table
from osteofusion.errors import OsteofusionError

_BUFFER = io.BytesIO()
Image.fromarray(np.zeros((16, 16), np.uint8)).save(_BUFFER, "PNG")
PNG = _BUFFER.getvalue()

# fmt: off
WORDS = [
    "yes", "no", "ja", "nein", "male", "f", "normal", "osteopenia", "Osteoporose", "k.A.", "-",
    "1,5", "1.5", "170", "1e400", "nan", "inf", "0x1F", "=1+1", "#N/A", "01.02.2020", "007", "A1",
    "A1.png", " ", '"', "'", "#", ": ", "a\nb", "\ufeff", "\xb2", "\xbd", "\u0661\u0662", "{",
    "[x]", "null", "~", "!!int 3", "&a", "*a", "\x85", "\u2028", "\x1f", "1.0", "-2.5",
    "999999999999",
]
# fmt: on
# fmt: off
HEADERS = [
    "id", "ID ", "Id:", "age", "Alter (Monate)", "Größe [cm]", "height", "weight (kg)", "sex",
    "Geschlecht", "male", "diagnosis", "Befund", "label", "image", "site", "group", "region",
    "subject_id", "folder_label", "row", "T-score", "T-score hip", "smoker", "column", "", " ",
    ":", "(column 1)", "BMI", "Name", "a: b", "# x", "yes", "null", "1", "t", "split",
    "menopause age", "pregnancies", "female", "sex ", "index", "level_0", "__x", "\u0130",
]
# fmt: on
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
headers = st.sampled_from(HEADERS) | text
written = st.sampled_from(WORDS) | text | st.integers(-5, 300).map(str) | st.just("")
typed = (
    written
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, width=32)
    | st.booleans()
    | st.none()
    | st.dates(datetime.date(1901, 1, 1), datetime.date(2100, 1, 1))
    | st.datetimes(datetime.datetime(1901, 1, 1), datetime.datetime(2100, 1, 1))
    | st.times()
)


@st.composite
def grids(draw, cells):
    """Header and rows; mostly with an ID column and a label column."""
    width, length = draw(st.integers(1, 6)), draw(st.integers(0, 14))
    columns = []
    for _ in range(width):
        few = draw(st.lists(cells, min_size=1, max_size=4))
        cell = draw(st.sampled_from([cells, st.sampled_from(few)]))
        columns.append([draw(headers), *draw(st.lists(cell, min_size=length, max_size=length))])
    if draw(st.integers(0, 9)):
        ids = [
            draw(st.sampled_from(["A{}", "00{}", "{}", "p-{}"])).format(i) for i in range(length)
        ]
        if length > 2 and draw(st.booleans()):
            ids[0] = ids[1]
        columns.append([draw(st.sampled_from(["id", "Patient", "nr"])), *ids])
    if draw(st.integers(0, 9)):
        label = st.sampled_from(["normal", "osteopenia", "osteoporosis"])
        labels = draw(st.lists(label, min_size=length, max_size=length))
        columns.append([draw(st.sampled_from(["diagnosis", "Klasse", "x y"])), *labels])
    blanks = draw(st.integers(0, 2))
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [[] for _ in range(blanks)] + rows


def films(folder):
    (folder / "films").mkdir()
    for name in ("A1", "A2", "2_L", "2_R", "0003", "p-4", "A5 x", "odd"):
        (folder / "films" / f"{name}.png").write_bytes(PNG)


def accounted(folder, path, with_images=True):
    """Draft and join; the subjects of all rows stand in the cohort or in its report."""
    images = folder / "films" if with_images else None
    try:
        draft = draft_manifest(images, path)
    except OsteofusionError:
        return
    file = folder / "drafted.yaml"
    file.write_text(draft.text, encoding="utf-8")
    manifest = load_manifest(file)
    assert manifest == draft.manifest
    try:
        cohort = build_cohort(manifest, draft.root)
    except OsteofusionError:
        return
    raw, report = read_table(path, manifest.table), cohort.report
    ids = raw[next(h for h in raw.columns if h.strip(" :") == manifest.table.id.strip(" :"))]
    assert ids.isna().sum() == len(report.summary_rows)
    subjects = {subject_id(each, manifest.table.id_pattern) for each in ids.dropna()}
    told = {*report.rows_without_image, *report.rows_without_label, *report.duplicate_ids}
    assert subjects == set(cohort.table["subject_id"]) | told
    named = {manifest.table.id, manifest.label.column, manifest.images and manifest.images.column}
    mapped = len(manifest.columns) - len(report.absent_columns) + len(named - {None})
    assert len(raw.columns) == mapped + len(report.unmapped_columns)
    if with_images:
        names = {f"films/{path.name}" for path in (folder / "films").iterdir()}
        without = {*report.images_without_row, *report.rows_without_label, *report.duplicate_ids}
        assert names - set(cohort.table["image"]) <= without or without


settings.register_profile(
    "tables", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TABLES = settings(settings.get_profile("tables"), max_examples=30)


@TABLES
@given(
    grids(written),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp1250", "cp1251", "gb18030"]),
    st.sampled_from(",;\t|"),
    st.booleans(),
)
def test_text_tables(rows, encoding, delimiter, with_images):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films(folder)
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=delimiter).writerows(rows)
        path = folder / "t.csv"
        path.write_bytes(stream.getvalue().encode(encoding, errors="replace"))
        accounted(folder, path, with_images)


@TABLES
@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "xlsx", "xls", "parquet", "doc"]))
def test_bytes_that_are_no_table(data, suffix):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films(folder)
        path = folder / f"t.{suffix}"
        path.write_bytes(data)
        accounted(folder, path)


@TABLES
@given(
    grids(typed),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2), st.integers(0, 2))),
    st.booleans(),
    st.booleans(),
)
def test_workbooks(rows, merged, hidden, second):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films(folder)
        book = openpyxl.Workbook()
        sheet = book.active
        for row in rows:
            sheet.append([storable(cell) for cell in row])
        for top, left, down, right in merged[:3]:
            sheet.merge_cells(
                start_row=top, start_column=left, end_row=top + down, end_column=left + right
            )
        if second:
            book.create_sheet("Ä 'x'").append(["id", "age"])
        if hidden and second:
            sheet.sheet_state = "hidden"
        path = folder / "t.xlsx"
        book.save(path)
        accounted(folder, path)


def storable(cell):
    """Excel holds no control characters."""
    if isinstance(cell, str):
        return ILLEGAL_CHARACTERS_RE.sub("", cell)
    return cell


@pytest.mark.slow
def test_a_hundred_thousand_empty_rows_take_seconds(tmp_path):
    films(tmp_path)
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("s")
    sheet.append(["id", "age", "diagnosis"])
    for i, label in enumerate(["normal", "osteopenia", "osteoporosis"], 1):
        sheet.append([f"A{i}", 50 + i, label])
    for _ in range(100_000):
        sheet.append([None, "", " "])
    book.save(tmp_path / "t.xlsx")
    with (tmp_path / "t.csv").open("w") as stream:
        stream.write("id,age,diagnosis\nA1,51,normal\nA2,52,osteopenia\n" + ",,\n" * 100_000)
    for suffix in ("xlsx", "csv"):
        start = time.process_time()
        draft = draft_manifest(tmp_path / "films", tmp_path / f"t.{suffix}")
        assert build_cohort(draft.manifest, tmp_path).report.joined > 1
        assert time.process_time() - start < 20
