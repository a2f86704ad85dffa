"""What DICOM headers add to clinical rows, what they contradict, and what stays out."""

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from osteofusion.data.manifest import Manifest
from osteofusion.data.report import JoinReport

pydicom = pytest.importorskip("pydicom", reason="needs the extra osteofusion[dicom]")

from pydicom.data.data_manager import DATA_ROOT  # noqa: E402

from osteofusion.data.dicom import DicomFacts  # noqa: E402
from osteofusion.data.headers import fill_from_headers, read_headers  # noqa: E402

NOTHING = DicomFacts(None, None, None, None, None, None, None)
COLUMNS = {
    "bmi": {"kind": "numeric"},
    # Written in months and in German; the header has years and F or M.
    "age": {
        "kind": "numeric",
        "unit": "years",
        "scale": 1 / 12,
        "range": [15, 105],
        "dicom": "age",
    },
    "female": {"kind": "binary", "values": {"w": 1, "m": 0}, "dicom": "female"},
    "side": {"kind": "categorical", "values": {"left": "L", "right": "R"}, "dicom": "laterality"},
    "part": {"kind": "categorical", "dicom": "body_part"},
}


def facts(**known):
    return dataclasses.replace(NOTHING, **known)


def filled(rows, found, columns=COLUMNS):
    manifest = Manifest(
        name="clinic",
        title="A clinic",
        region="knee",
        license="none",
        citation="none",
        images={"layout": "folder"},
        table={"file": "table.csv", "id": "id"},
        label={"column": "label"},
        columns=columns,
    )
    joined = pd.DataFrame(
        {
            "subject_id": [f"P{i}" for i in range(len(found))],
            "image": [f"{i}.dcm" for i in range(len(found))],
            "label": "normal",
            **rows,
        }
    )
    report = JoinReport.of(manifest, "root")
    report.absent_columns = [name for name in columns if name not in rows]
    before = joined.copy()
    result = fill_from_headers(joined, manifest, found, report)
    pd.testing.assert_frame_equal(joined, before)  # the caller's rows stay as they are
    return result, report


def test_empty_cells_are_filled_and_the_table_goes_first():
    found = [facts(age=50.0, female=1), facts(age=60.5, female=0), facts(female=1), None]
    rows = {"age": [49.5, np.nan, np.nan, np.nan], "female": [np.nan, 0.0, np.nan, np.nan]}
    result, report = filled(rows, found)
    np.testing.assert_array_equal(result["age"], [49.5, 60.5, np.nan, np.nan])
    np.testing.assert_array_equal(result["female"], [1, 0, 1, np.nan])
    assert result["age"].dtype == result["female"].dtype == np.float64
    assert report.filled_from_headers == {"age": 1, "female": 2}
    assert report.header_conflicts == []
    assert report.absent_columns == ["bmi", "side", "part"]


def test_a_column_that_the_table_lacks_appears_in_the_order_of_the_manifest():
    found = [facts(laterality="left", body_part="knee", age=40.0), facts(laterality="both"), None]
    result, report = filled({"bmi": [20.0, 21.0, 22.0], "part": [None] * 3}, found)
    assert result.columns.tolist() == [
        *("subject_id", "image", "label", "bmi", "age", "side", "part")
    ]
    assert result["side"].tolist() == ["L", "both", None]
    assert result["part"].tolist() == ["knee", None, None]
    assert report.filled_from_headers == {"age": 1, "side": 2, "part": 1}
    assert report.absent_columns == ["female"]


def test_conflicts_are_listed_without_the_values():
    found = [
        facts(age=71.0, female=1, laterality="left"),
        facts(age=51.0, female=0, laterality="right"),
        facts(age=48.9),
    ]
    rows = {"age": [50.0, 50.0, 50.0], "female": [0.0, 0.0, 1.0], "side": ["R", "R", None]}
    result, report = filled(rows, found)
    assert result["age"].tolist() == [50, 50, 50]
    assert [(item["image"], item["column"]) for item in report.header_conflicts] == [
        ("0.dcm", "age"),
        ("2.dcm", "age"),
        ("0.dcm", "female"),
        ("0.dcm", "side"),
    ]
    assert "header_conflicts" in report.problems
    assert "71" not in json.dumps(report.header_conflicts)


def test_an_implausible_header_counts_as_missing():
    result, report = filled({"age": [np.nan, np.nan]}, [facts(age=3.0), facts(age=110.0)])
    assert result["age"].isna().all()
    assert [(cell.subject_id, cell.column) for cell in report.implausible_cells] == [
        ("P0", "age"),
        ("P1", "age"),
    ]
    assert report.filled_from_headers == {}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report)
    assert "(DICOM header) outside 15 to 105 years" in console.export_text()


def test_headers_that_say_nothing_change_nothing():
    rows = {"bmi": [20.0, np.nan], "age": [np.nan, 50.0]}
    result, report = filled(rows, [None, NOTHING])
    assert result.columns.tolist() == ["subject_id", "image", "label", "bmi", "age"]
    np.testing.assert_array_equal(result["age"], [np.nan, 50])
    assert report.filled_from_headers == {}
    assert report.problems == ["absent_columns"]


@pytest.mark.filterwarnings("ignore")  # pydicom on the damaged file
def test_headers_are_read_in_order_and_what_is_no_dicom_has_none(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    own = DATA_ROOT + "/test_files/"
    files = [own + "CT_small.dcm", tmp_path / "a.png", own + "MR_small.dcm", tmp_path / "absent"]
    ct, png, mr, absent = read_headers(files)
    assert (ct.modality, mr.modality) == ("CT", "MR")
    assert png is absent is None
    assert read_headers([]) == []
    assert [fact.modality for fact in read_headers([files[0]] * 20, progress=True)] == ["CT"] * 20
    assert len(read_headers([damaged])) == 1  # nothing is raised
