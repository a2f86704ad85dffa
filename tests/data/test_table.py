"""Clinical tables as hospitals export them: five formats, and what is wrong with them."""

from __future__ import annotations

import re
import zipfile

import openpyxl
import pandas as pd
import pytest

from osteofusion.data.manifest import Table
from osteofusion.data.table import distinct_cells, find_column, need_column, read_table
from osteofusion.errors import CohortError


def layout(**options):
    return Table(file="table", id="Patient ID", **options)


def workbook(path, rows, sheet="Sheet1"):
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def damage(path, pattern, replacement):
    """Rewrite the sheet's XML inside a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet], count = re.subn(pattern, replacement, parts[sheet])
    assert count
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def as_text(table):
    return [
        {key: None if cell is None else str(cell) for key, cell in row.items()}
        for row in table.to_dict("records")
    ]


ROWS = [["Patient ID", "Age ", None], [7, 61.5, None], [None, None, None], ["B ä", None, "x"]]
WANTED = [
    {"Patient ID": "7", "Age ": "61.5", "(column 3)": None},
    {"Patient ID": "B ä", "Age ": None, "(column 3)": "x"},
]


@pytest.mark.parametrize("kind", ["csv", "semicolon", "tsv", "cp1252", "xlsx", "xls", "parquet"])
def test_every_format_reads_alike(tmp_path, kind):
    path = tmp_path / f"t.{'csv' if kind in ('semicolon', 'cp1252') else kind}"
    options = {"semicolon": {"delimiter": ";"}, "cp1252": {"encoding": "cp1252"}}.get(kind, {})
    if kind == "xlsx":
        workbook(path, ROWS)
    elif kind == "xls":
        book = pytest.importorskip("xlwt", reason="writes the .xls to read").Workbook()
        pytest.importorskip("xlrd")
        sheet = book.add_sheet("Sheet1")
        for i, row in enumerate(ROWS):
            for j, cell in enumerate(row):
                sheet.write(i, j, cell)
        book.save(str(path))
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        frame = pd.DataFrame(
            {"Patient ID": ["7", None, "B ä"], "Age ": pd.array([61.5, pd.NA, pd.NA], "Float64")}
        ).assign(**{"(column 3)": [None, None, "x"]})
        frame.to_parquet(path)
    else:
        mark = {"semicolon": ";", "tsv": "\t"}.get(kind, ",")
        lines = [mark.join("" if cell is None else str(cell) for cell in row) for row in ROWS]
        encoding = "cp1252" if kind == "cp1252" else "utf-8-sig"
        path.write_text("\n".join(lines) + "\n" + 2 * mark + "\n\n", encoding=encoding)
    table = read_table(path, layout(**options))
    assert as_text(table) == WANTED
    assert table.index.tolist() == [2, 4]  # as a spreadsheet program numbers them


@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_rows_keep_their_numbers_behind_blank_ones(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    rows = [[], [], ["id", "age"], [], ["A", 1], [], ["B", 2]]
    if suffix == "xlsx":
        workbook(path, rows)
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    assert read_table(path, layout()).index.tolist() == [5, 7]


def test_a_quoted_cell_may_hold_anything(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,note\nA,"one, ""two""\nthree"\n')
    assert read_table(path, layout())["note"].tolist() == ['one, "two"\nthree']


def test_a_long_text_reads_as_its_lines_stand(tmp_path):
    path = tmp_path / "t.csv"
    lines = [["", ""], [], ["id", "age", "note"]]
    for i in range(30_000):
        lines.append([f"P{i}", str(20 + i % 70), " " if i % 3 else "same words"][: 1 + i % 4])
    lines[1500] = []
    path.write_text("\n".join(",".join(line) for line in lines))
    table = read_table(path, layout())
    wanted = {
        row: [cell if cell.strip() else None for cell in [*line, "", ""][:3]]
        for row, line in enumerate(lines[3:], start=4)
        if line
    }
    assert table.columns.tolist() == lines[2]
    assert dict(zip(table.index, table.to_numpy().tolist(), strict=True)) == wanted
    ages = table["age"].dropna()  # equal cells are few strings, else the memory is gone
    assert len({id(age) for age in ages}) < len(ages) / 100
    lines[25_000] += ["", "", "surplus"]
    lines[27_000].append('"a"b')
    path.write_text("\n".join(",".join(line) for line in lines))
    with pytest.raises(CohortError, match="is no table with ','"):
        read_table(path, layout())
    lines[27_000].pop()
    path.write_text("\n".join(",".join(line) for line in lines))
    with pytest.raises(CohortError, match=r"row 25001 has \d cells, its header 3"):
        read_table(path, layout())


def test_equal_cells_of_different_types_are_told_apart():
    rows = range(5, 14)
    cells = pd.Series([None, True, 1, 1.0, "1", 1, "a", None, "1"], index=rows, dtype=object)
    codes, distinct = distinct_cells(cells)
    assert codes.tolist() == [-1, 0, 1, 2, 3, 1, 4, -1, 3]
    assert [(type(cell), cell) for cell in distinct] == [
        *((bool, True), (int, 1), (float, 1.0), (str, "1"), (str, "a"))
    ]
    assert distinct.index.tolist() == [6, 7, 8, 9, 11]
    words = cells[cells.map(lambda cell: cell is None or isinstance(cell, str))]
    assert distinct_cells(words)[1].index.tolist() == [9, 11]
    assert distinct_cells(cells[:1])[0].tolist() == [-1]


def test_stored_values_of_formulas_are_read_and_others_shown(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [["id", "age"], ["A", "=40+2"], ["B", "=1/0"], ["C", 5]])
    assert read_table(path, layout())["age"].tolist() == ["=40+2", "=1/0", 5]
    damage(path, rb"<f>40\+2</f>\s*<v\s*/>", b"<f>40+2</f><v>42</v>")
    damage(path, rb'(<c r="B3")([^>]*)><f>1/0</f>\s*<v\s*/>', rb'\1 t="e"><f>1/0</f><v>#DIV/0!</v>')
    assert read_table(path, layout())["age"].tolist() == [42, "=1/0", 5]


def test_error_cells_are_shown(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [["id", "age"], ["A", "#N/A"], ["B", None]])
    assert read_table(path, layout())["age"].tolist() == ["#N/A", None]
    book = pytest.importorskip("xlwt", reason="writes the .xls to read").Workbook()
    sheet = book.add_sheet("Sheet1")
    for column, header in enumerate(["id", "age"]):
        sheet.write(0, column, header)
    sheet.write(1, 0, "A")
    sheet.row(1).set_cell_error(1, "#DIV/0!")
    book.save(str(tmp_path / "t.xls"))
    assert read_table(tmp_path / "t.xls", layout())["age"].tolist() == ["#ERROR"]


def test_the_real_workbook_reads_its_formulas(mendeley):
    table = read_table(mendeley / "patient details.xlsx", layout(sheet="Sheet2"))
    assert len(table) == 243
    patients = table[table["Patient Id"].notna()]
    assert len(patients) == 240
    height, weight, bmi = (
        patients[find_column(table, [name], mendeley, name)].astype(float)
        for name in ("Height (meter)", "weight (kg)", "BMI")
    )
    assert ((weight / height**2 - bmi).abs() < 0.5).mean() > 0.95


def write(name, content):
    def file(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return file


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096)
GOOD = [["id", "age"], ["A", 1]]

BAD = {
    "missing": (lambda folder: folder / "no.csv", {}, "does not exist"),
    "suffix": (write("t.docx", b"x"), {}, "neither xlsx, xls, csv"),
    "empty": (write("t.csv", b""), {}, "no rows below a header"),
    "blank": (write("t.csv", b"\n , \n"), {}, "no rows below a header"),
    "header only": (write("t.csv", b"id,age\n"), {}, "no rows below a header"),
    "header only xlsx": (lambda f: workbook(f / "t.xlsx", GOOD[:1]), {}, "no rows below a header"),
    "empty xlsx": (lambda f: workbook(f / "t.xlsx", []), {}, "no rows below a header"),
    "sheet": (lambda f: workbook(f / "t.xlsx", GOOD), {"sheet": "S2"}, "no sheet 'S2'; .*'Sheet1'"),
    "text as xlsx": (write("t.xlsx", b"id,age\nA,1\n"), {}, "damaged or no workbook"),
    "html as xls": (write("t.xls", b"<html><table/></html>"), {}, "damaged or no workbook"),
    "zero bytes": (write("t.xlsx", b""), {}, "damaged or no workbook"),
    "cut short": (
        lambda f: write("c.xlsx", workbook(f / "t.xlsx", GOOD).read_bytes()[:-60])(f),
        {},
        "damaged or no workbook",
    ),
    "bad xml": (
        lambda f: damage(workbook(f / "t.xlsx", GOOD), b"<row", b"<ro w"),
        {},
        "damaged or no workbook",
    ),
    "password": (write("t.xlsx", OLE), {}, "password-protected"),
    "damaged xls": (write("t.xls", OLE), {}, "damaged or no workbook"),
    "cp1252": (write("t.csv", "id,größe\nA,1\n".encode("cp1252")), {}, "table.encoding .*cp1252"),
    "utf-16": (write("t.csv", "id,age\nA,1\n".encode("utf-16")), {}, "table.encoding"),
    "encoding": (write("t.csv", b"id\nA\n"), {"encoding": "utf8x"}, "not in encoding 'utf8x'"),
    "ragged": (write("t.csv", b"id,age\nA,1,5\n"), {}, "row 2 has 3 cells, its header 2"),
    "open quote": (write("t.csv", b'id,age\nA,"1\nB,2\n'), {}, "no table with ','"),
    "parquet": (write("t.parquet", b"PAR1 and no more"), {}, "no readable parquet"),
}


@pytest.mark.parametrize(("file", "options", "message"), BAD.values(), ids=BAD)
def test_a_bad_table_is_one_sentence(tmp_path, file, options, message):
    path = file(tmp_path)
    with pytest.raises(CohortError, match=message) as caught:
        read_table(path, layout(**options))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_are_found_by_forgiving_headers(tmp_path):
    table = pd.DataFrame(columns=["Patient  ID", "AGE :", "age"])
    assert find_column(table, ["patient id"], tmp_path, "x") == "Patient  ID"
    assert find_column(table, ["weight", "mass"], tmp_path, "x") is None
    with pytest.raises(CohortError, match=r"several columns that could be column age: 'AGE :', 'a"):
        find_column(table, ["Age"], tmp_path, "column age")
    with pytest.raises(CohortError, match=r"no ID column 'id'; it has 'Patient  ID', 'AGE :', 'a"):
        need_column(table, ["id"], tmp_path, "ID column")
    twice = pd.DataFrame(columns=["Age", "Age"])
    with pytest.raises(CohortError, match="several columns"):
        find_column(twice, ["age"], tmp_path, "column age")
