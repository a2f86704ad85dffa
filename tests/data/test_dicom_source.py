"""A hospital's export as a data set: IDs and facts from headers, a DICOMDIR, odd neighbours."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from osteofusion.data.cache import RadiographCache
from osteofusion.data.cohort import build_cohort
from osteofusion.data.manifest import load_manifest
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.errors import CohortError, RadiographError

pydicom = pytest.importorskip("pydicom", reason="needs the extra osteofusion[dicom]")

from pydicom import uid  # noqa: E402
from pydicom.data.data_manager import DATA_ROOT  # noqa: E402

MEDIUM = Path(DATA_ROOT) / "test_files" / "dicomdirtests"


def film(path, patient, **elements):
    """A small radiograph with a picture of its own."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = uid.generate_uid(entropy_srcs=[str(path)])
    made.Rows, made.Columns, made.SamplesPerPixel = 24, 20, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    pixels = np.random.default_rng(list(str(path).encode())).integers(0, 256, 480, np.uint8)
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB"
    made.PatientID = patient
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def hospital(clinic):
    """The clinic's six subjects as an export: one folder a patient, every film named IM0001."""
    clinic.images = {}
    clinic.manifest["images"] = {"layout": "folder", "folder": "export", "id": "header"}
    clinic.manifest["columns"]["age"]["dicom"] = "age"
    clinic.manifest["columns"]["female"] = {"kind": "binary", "dicom": "female"}
    for number, row in enumerate(clinic.rows):
        # A space before and after, as a fixed-width system writes it.
        film(
            clinic.root / f"export/PAT{number}/STU1/IM0001",
            f" {row['Patient ID']} ",
            PatientAge=f"{row['Age']:03}Y",
            PatientSex="FM"[number % 2],
            PatientName="Muster^Erika",
            PatientBirthDate="19500704",
            InstitutionName="Sankt Nirgendwo",
            AccessionNumber="ACC4711",
        )
    return clinic


def test_the_patient_id_joins_whatever_the_files_are_called(hospital):
    cohort = hospital.build(decode=True)
    assert cohort.table["subject_id"].tolist() == ["A1", "A2", "B1", "B2", "C1", "C2"]
    assert cohort.table["label"].tolist() == [row["Diagnosis"] for row in hospital.rows]
    assert cohort.table["female"].tolist() == [1, 0, 1, 0, 1, 0]
    assert cohort.report.filled_from_headers == {"female": 6}
    assert cohort.report.problems == []


def test_an_id_pattern_and_padding_on_both_sides(hospital):
    hospital.manifest["images"]["id_pattern"] = r"^KN0*(\d+)$"
    hospital.manifest["table"]["id_pattern"] = r"^0*(\d+)$"
    for number, row in enumerate(hospital.rows):
        row["Patient ID"] = f"{number + 1:06}"
        film(hospital.root / f"export/PAT{number}/STU1/IM0001", f"KN{number + 1:04} ")
    assert hospital.build().table["subject_id"].tolist() == ["1", "2", "3", "4", "5", "6"]


def test_ages_missing_in_the_table_come_from_the_header_and_conflicts_are_told(hospital):
    hospital.rows[0]["Age"] = None
    hospital.rows[1]["Age"] = 45
    cohort = hospital.build()
    assert cohort.table["age"].tolist() == [40, 45, 60, 61, 70, 80]
    assert cohort.report.filled_from_headers["age"] == 1
    assert [item["image"] for item in cohort.report.header_conflicts] == ["export/PAT1/STU1/IM0001"]


def test_nothing_that_identifies_reaches_cohort_report_or_cache(hospital, tmp_path):
    hospital.rows[1]["Age"] = 20
    cohort = hospital.build(decode=True)
    cache = RadiographCache(tmp_path / "cache", RadiographPreprocessing(64))
    files = cohort.files(cohort.table)
    cache.fill(zip(files, cohort.table["image_sha256"], strict=True), 1, progress=False)
    stored = b"".join(path.read_bytes() for path in cache.folder.rglob("*") if path.is_file())
    told = f"{cohort.table.to_csv()} {cohort.report.to_dict()} {stored!r}"
    for secret in ("Muster", "19500704", "Nirgendwo", "ACC4711"):
        assert secret not in told


def test_odd_neighbours_of_the_films_are_told(hospital):
    film(hospital.root / "export/PAT9/STU1/IM0001", "")
    film(hospital.root / "export/PAT9/STU1/IM0002", "A1", NumberOfFrames=2, Rows=12)
    film(hospital.root / "export/PAT9/STU1/SR0001", "A1", SOPClassUID=uid.BasicTextSRStorage)
    broken = hospital.root / "export/PAT9/STU1/IM0003"
    broken.write_bytes(film(broken, "A1").read_bytes()[:400])
    shutil.copy(MEDIUM / "DICOMDIR", hospital.root / "export")
    (hospital.root / "export" / "viewer.exe").write_bytes(b"MZ")
    report = hospital.build(decode=True).report
    # Of the third, cut short, the header has lost its PatientID.
    assert report.images_without_id == [f"export/PAT9/STU1/IM000{i}" for i in (1, 3)]
    assert sorted(report.other_files) == [
        "export/DICOMDIR",
        "export/PAT9/STU1/SR0001",
        "export/viewer.exe",
    ]
    told = {item["image"]: item["reason"] for item in report.unreadable_images}
    assert "holds 2 frames" in told["export/PAT9/STU1/IM0002"]
    assert report.joined == 6
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(hospital.root / "export/photo.png")
    with pytest.raises(CohortError, match=r"photo\.png is not a DICOM file"):
        hospital.build()


def test_names_alone_would_make_one_subject_of_all_patients(hospital):
    hospital.manifest["images"]["id"] = "name"
    with pytest.raises(CohortError, match=r"No image matches a row: .* 'A1'.*IM0001"):
        hospital.build()


def test_a_dicomdir_and_its_folder_give_the_same_radiographs(tmp_path):
    medium = shutil.copytree(MEDIUM, tmp_path / "cd" / "medium")
    (medium / "stray.png").write_bytes(b"x")
    content = {
        "name": "cd",
        "title": "A CD",
        "region": "knee",
        "license": "none",
        "citation": "none",
        "label": {"file": "labels.csv", "column": "label"},
    }
    tables = []
    for folder in ("medium", "medium/DICOMDIR"):
        content["images"] = {"layout": "folder", "folder": folder, "id": "header"}
        path = tmp_path / "cd.yaml"
        path.write_text(yaml.safe_dump(content))
        if folder == "medium":
            with pytest.raises(CohortError, match=r"stray\.png is not a DICOM file"):
                build_cohort(load_manifest(path), tmp_path / "cd", need_labels=False)
            (medium / "stray.png").unlink()
        cohort = build_cohort(load_manifest(path), tmp_path / "cd", need_labels=False, decode=True)
        tables.append(cohort.table)
    listed = set(tables[1]["image"])
    assert len(listed) == 31
    assert listed <= set(tables[0]["image"])
    assert tables[1]["subject_id"].isin(["77654033", "98890234"]).all()
    (medium / "77654033" / "CR1" / "6154").unlink()
    with pytest.raises(RadiographError, match="lacks the '6154'"):
        build_cohort(load_manifest(path), tmp_path / "cd", need_labels=False)
    other = next(file for file in (medium / "98892003").rglob("*") if file.is_file())
    content["images"]["folder"] = other.relative_to(tmp_path / "cd").as_posix()
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RadiographError, match="it is not a DICOMDIR"):
        build_cohort(load_manifest(path), tmp_path / "cd", need_labels=False)


WITHOUT = """
import sys
sys.modules["pydicom"] = None
from osteofusion.cli import main
sys.exit(main(["cohort", "--manifest", sys.argv[1], "--root", sys.argv[2]]))
"""


def test_without_pydicom_one_sentence_names_the_extra(hospital):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(hospital.write()), str(hospital.root)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "run pip install 'osteofusion[dicom]'" in done.stderr
