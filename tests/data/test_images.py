"""Finding radiographs: odd files, odd names, links, class folders, and whose a film is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from osteofusion.data.cohort import build_cohort
from osteofusion.data.images import find_images, near_ids
from osteofusion.data.manifest import LABELS, Manifest, load_manifest, normalise_id
from osteofusion.data.radiograph import RADIOGRAPH_SUFFIXES
from osteofusion.data.report import JoinReport
from osteofusion.data.scan import scan_folder, stem
from osteofusion.errors import CohortError, ManifestError

FOLDERS = {label: label for label in LABELS}
# What tells a DICOM file: preamble, magic word, then the class of what it holds.
DICOM = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0" + bytes(4)


def sop(uid):
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return DICOM + b"\2\0\2\0UI" + len(value).to_bytes(2, "little") + value


DIGITAL_XRAY, REPORT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.88.11"


def manifest(**images):
    return Manifest(
        name="clinic",
        title="A clinic",
        region="knee",
        license="none",
        citation="none",
        images=images,
        label={"file": "labels.csv", "column": "label"} if images["layout"] == "folder" else {},
    )


def fill(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def found(root, need_labels=True, **images):
    spec = manifest(**({"layout": "folder"} | images))
    report = JoinReport.of(spec, root)
    table = find_images(root, spec, None, None, report, need_labels=need_labels)
    return table.set_index("image")["subject_id"].to_dict(), report


def classes(root, need_labels=True, folders=FOLDERS):
    spec = manifest(layout="class_folders", folders=folders)
    report = JoinReport.of(spec, root)
    return find_images(root, spec, None, None, report, need_labels=need_labels), report


# What counts as a radiograph


def test_dicom_is_found_whatever_its_name_and_other_files_are_listed(tmp_path):
    uid = "1.2.840.113619.2.55.3.123"
    radiographs = {
        "IM0001": "IM0001",
        uid: uid,
        f"{uid}.dcm": uid,
        "a.DCM": "a",
        "b.ima": "b",
        "c.dic": "c",
        "d.v2": "d.v2",
        "no.suffix at all": "no.suffix at all",
    }
    fill(tmp_path, dict.fromkeys(radiographs, sop(DIGITAL_XRAY)))
    fill(tmp_path, {"e.png": b"", "f.JPEG": b"x", "damaged.dcm": b"no DICOM"})
    other = {
        "DICOMDIR": sop("1.2.840.10008.1.3.10"),
        "report.dcm": sop(REPORT),
        "shown": sop("1.2.840.10008.5.1.4.1.1.11.1"),
        "Thumbs.db": b"thumbs",
        "notes.txt": b"the film is in the post",
        "empty": b"",
        ".DS_Store": b"",
        "._e.png": sop(DIGITAL_XRAY),
    }
    fill(tmp_path, other)
    ids, report = found(tmp_path)
    assert ids == radiographs | {"e.png": "e", "f.JPEG": "f", "damaged.dcm": "damaged"}
    assert sorted(report.other_files) == sorted(other)
    # The UID is there twice, once with a suffix, and a name in a report is no problem.
    assert report.equal_names == [[uid, f"{uid}.dcm"]]
    assert report.problems == ["equal_names"]


def test_pictures_in_formats_that_are_not_read_are_told_and_not_dropped(tmp_path):
    fill(tmp_path, {"a.png": b"", "b.BMP": b"BM", "c.webp": b"RIFF"})
    ids, report = found(tmp_path)
    assert set(ids) == {"a.png"}
    assert [item["image"] for item in report.unreadable_images] == ["b.BMP", "c.webp"]
    assert "it is a .bmp file; export it as PNG" in report.unreadable_images[0]["reason"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(CohortError, match=r"No image .*\(2 other files, such as 'b.BMP'\)"):
        found(tmp_path)


def test_the_table_and_the_label_file_are_no_odd_files(clinic):
    assert clinic.build().report.other_files == []
    (clinic.root / "notes.txt").write_text("x")
    report = clinic.build().report
    assert report.other_files == ["notes.txt"]
    assert report.problems == []


# Links and folders


def test_links_to_folders_are_told_and_links_to_files_are_taken(tmp_path):
    root = fill(tmp_path / "root", {"a.png": b"a", "deep/x.png/b.png": b"b"})
    fill(tmp_path / "elsewhere", {"c.png": b"c", "d": sop(DIGITAL_XRAY)})
    for name, target in {
        "parent": root,
        "deep/loop": root / "deep",
        "outside.png": tmp_path / "elsewhere",
        "c.png": tmp_path / "elsewhere" / "c.png",
        "d": tmp_path / "elsewhere" / "d",
        "itself.png": root / "itself.png",
        "itself": root / "itself",
        "nowhere.png": root / "absent",
    }.items():
        (root / name).symlink_to(target)
    ids, report = found(root)
    assert ids == {
        "a.png": "a",
        "deep/x.png/b.png": "b",
        "c.png": "c",
        "d": "d",
        "itself.png": "itself",  # whoever reads it says what is wrong
        "nowhere.png": "nowhere",
    }
    assert sorted(report.linked_folders) == ["deep/loop", "outside.png", "parent"]
    assert report.other_files == ["itself"]
    os.mkfifo(root / "pipe")
    assert found(root)[1].other_files == ["itself", "pipe"]


def test_a_class_folder_that_links_to_its_parent_is_refused(tmp_path):
    fill(tmp_path, {"normal/a.png": b"", "osteopenia/b.png": b""})
    (tmp_path / "osteoporosis").symlink_to(tmp_path)
    with pytest.raises(CohortError, match=r"osteoporosis is a link to a folder that holds it"):
        classes(tmp_path)


def test_an_empty_class_folder_is_told(tmp_path):
    fill(tmp_path, {"normal/a.png": b"", "osteopenia/b.png": b"", "osteoporosis/notes": b""})
    table, report = classes(tmp_path)
    assert len(table) == 2
    assert report.empty_folders == ["osteoporosis"]
    assert "empty_folders" in report.problems


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path):
    fill(tmp_path, {"a.png": b"", "b": sop(DIGITAL_XRAY), "locked/c.png": b""})
    (tmp_path / "b").chmod(0)
    (tmp_path / "locked").chmod(0)
    ids, report = found(tmp_path)
    (tmp_path / "locked").chmod(0o700)
    assert set(ids) == {"a.png"}
    assert [item["image"] for item in report.unreadable_images] == ["b", "locked"]


@pytest.mark.parametrize("above", ["", "archive/", "archive/Knee X-ray/"])
def test_class_folders_are_found_below_an_unpacked_archive(tmp_path, above):
    names = [f"{above}Normal/a.png", f"{above}OSTEOPENIA/b.png", f"{above}osteoporosis/c/d.png"]
    fill(tmp_path, dict.fromkeys(names, b"") | {f"{above}figure.png": b""})
    table, report = classes(tmp_path)
    assert table.set_index("image")["folder_label"].to_dict() == dict(
        zip(sorted(names), LABELS, strict=True)
    )
    assert report.images_outside_folders == [f"{above}figure.png"]
    assert classes(tmp_path, need_labels=False)[0]["image"].tolist() == sorted(
        [*names, f"{above}figure.png"]
    )


def test_every_split_of_an_archive_is_taken(tmp_path):
    names = [f"{part}/{label}/{part}{label}.jpg" for part in ("test", "train") for label in LABELS]
    fill(tmp_path, dict.fromkeys(names, b""))
    table, _ = classes(tmp_path)
    assert table["image"].tolist() == names
    assert table["folder_label"].tolist() == [*LABELS, *LABELS]


def test_a_missing_class_folder_is_named(tmp_path):
    fill(tmp_path, {"x/normal/a.png": b"", "x/osteopenia/b.png": b""})
    with pytest.raises(CohortError, match="has no folder 'osteoporosis'"):
        classes(tmp_path)
    with pytest.raises(CohortError, match="has no folder 'films'"):
        found(tmp_path, folder="films")
    with pytest.raises(CohortError, match="'/etc' is not relative to the root"):
        found(tmp_path, folder="/etc")


# Whose a film is


def test_numbered_class_folders_are_no_subjects_of_several_classes(tmp_path):
    fill(tmp_path, {f"{label}/{i}.png": b"" for label in LABELS for i in (1, 2)})
    fill(tmp_path, {"normal/left/2.png": b"", "normal/N3.png": b""})
    table, report = classes(tmp_path)
    ids = table.set_index("image")["subject_id"]
    assert ids["normal/1.png"] == "normal/1"
    assert ids["osteoporosis/1.png"] == "osteoporosis/1"
    assert ids["normal/2.png"] == ids["normal/left/2.png"] == "normal/2"
    assert ids["normal/N3.png"] == "N3"
    assert report.ids_in_several_classes == ["1", "2"]
    assert report.equal_names == [["normal/2.png", "normal/left/2.png"]]


def test_with_a_table_class_folders_leave_the_id_alone(clinic):
    clinic.images["osteoporosis/A1.png"] = clinic.radiograph("other")
    report = clinic.build().report
    assert (report.joined, report.subjects) == (7, 6)
    assert report.ids_in_several_classes == []
    assert report.equal_names == [["normal/A1.png", "osteoporosis/A1.png"]]


def test_two_files_of_one_stem_are_kept_and_told(clinic):
    clinic.images["normal/A1.jpg"] = clinic.radiograph("other view")
    report = clinic.build().report
    assert report.joined == 7
    assert report.equal_names == [["normal/A1.jpg", "normal/A1.png"]]
    assert "equal_names" in report.problems


def test_ids_that_differ_by_case_or_zeros_are_told(clinic):
    clinic.images["normal/a1.png"] = clinic.images.pop("normal/A1.png")
    clinic.images["normal/A002.png"] = clinic.images.pop("normal/A2.png")
    report = clinic.build().report
    assert report.joined == 4
    assert report.near_ids == ["'A002' ~ 'A2'", "'a1' ~ 'A1'"]
    assert "near_ids" in report.problems
    for row in clinic.rows:
        row["Patient ID"] = row["Patient ID"].replace("A", "A0").replace("B", "b").replace("C", "c")
    with pytest.raises(CohortError, match=r"\('A002' ~ 'A02' but for case or leading zeros\)"):
        clinic.build()


@pytest.mark.parametrize(
    ("ids", "others", "near"),
    [
        (["007"], ["7"], ["'007' ~ '7'"]),
        (["7"], ["0007"], ["'7' ~ '0007'"]),
        (["OP-01-10"], ["op-1-10"], ["'OP-01-10' ~ 'op-1-10'"]),
        (["10"], ["1", "100"], []),
        (["0"], ["00"], ["'0' ~ '00'"]),
        (["7"], ["7", "07"], []),
        (["A"], ["B"], []),
    ],
)
def test_near_ids(ids, others, near):
    assert near_ids(ids, others) == near


def test_header_ids_need_dicom_and_no_path_column(tmp_path):
    fill(tmp_path, {"a.png": b""})
    with pytest.raises(CohortError, match=r"a\.png is not a DICOM file, and images\.id is header"):
        found(tmp_path, id="header")
    path = tmp_path / "clinic.yaml"
    content = manifest(layout="folder").model_dump(exclude_none=True, exclude_defaults=True)
    content |= {"table": {"file": "t.csv", "id": "id"}}
    content["images"] = {"layout": "column", "column": "file", "id": "header"}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ManifestError, match="takes the ID from the table"):
        load_manifest(path)


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
NAMES = st.text(LETTERS, min_size=1, max_size=20).filter(
    lambda name: not name.startswith(".") and name.strip() and len(name.encode()) < 200
)


@settings(max_examples=300, deadline=None)
@given(name=NAMES, suffix=st.sampled_from([".png", ".JPG", ".tif", ".dcm", ".DICOM", ".ima"]))
def test_the_stem_is_the_name_without_its_suffix(name, suffix):
    assert stem(f"{name}{suffix}") == name
    assert normalise_id(stem(f"{name}{suffix}")) == normalise_id(name)


@settings(max_examples=300, deadline=None)
@given(name=NAMES, place=st.sampled_from(["", "a/", "b.png/"]))
@example(name="png", place="")
@example(name="a.", place="b.png/")
@example(name="a.png.JPG", place="")
def test_only_an_ending_that_radiographs_have_is_cut_off(name, place):
    path = PurePosixPath(name)
    endings = RADIOGRAPH_SUFFIXES | {".dc3", ".dic", ".ima"}
    assert stem(place + name) == (path.stem if path.suffix.lower() in endings else name)


def test_a_name_that_is_an_ending_is_no_radiograph(tmp_path):
    fill(tmp_path, {"a.png": b"", "png": b"", "b.": b"", "c.png.txt": b"", "JPG": b"text"})
    scan = scan_folder(tmp_path, tmp_path)
    assert scan.images == ["a.png"]
    assert scan.other == ["JPG", "b.", "c.png.txt", "png"]


@given(parts=st.lists(st.integers(0, 10**9), min_size=2, max_size=8))
def test_a_uid_is_its_own_stem(parts):
    uid = ".".join(map(str, parts))
    assert stem(uid) == stem(f"{uid}.dcm") == uid


CONTENTS = st.sampled_from([b"", b"text", sop(DIGITAL_XRAY), sop(REPORT), DICOM, b"\x89PNG\r\n"])
SUFFIXES = st.sampled_from(["", ".png", ".jpg", ".dcm", ".bmp", ".txt", ".123", ".db", ".IMA"])


@settings(max_examples=80, deadline=None)
@given(
    files=st.lists(
        st.tuples(
            st.sampled_from(["", "normal/", "Normal/x y/", ".hid/"]), NAMES, SUFFIXES, CONTENTS
        ),
        min_size=1,
        max_size=12,
    ),
    links=st.lists(st.sampled_from(["loop", "normal/up", "x.png", "y"]), unique=True, max_size=3),
)
def test_every_file_is_found_or_told(files, links):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place, name, suffix, content in files:
            if (
                len(f"{name}{suffix}".encode()) < 250
                and not (root / place / (name + suffix)).is_dir()
            ):
                fill(root, {f"{place}{name}{suffix}": content})
        linked = []
        for name in links:
            if (root / name).parent.is_dir() and not (root / name).exists():
                (root / name).symlink_to(root)
                linked.append(name)
        scan = scan_folder(root, root)
        told = [*scan.images, *scan.other, *(item["image"] for item in scan.unreadable)]
        hidden = [".hid/"] if (root / ".hid").is_dir() else []
        there = [
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_file() and ".hid" not in path.relative_to(root).parts[:1]
        ]
        assert sorted(told) == sorted([*there, *hidden])
        assert sorted(scan.linked_folders) == sorted(linked)
        report = JoinReport.of(manifest(layout="folder"), root)
        try:
            table = find_images(
                root, manifest(layout="folder"), None, None, report, need_labels=False
            )
        except CohortError:
            assert not scan.images
            return
        left_out = len(report.other_files) + len(report.unreadable_images)
        assert len(table) + left_out + len(report.images_without_id) == len(there) + len(hidden)
        assert set(table["image"]) | set(report.images_without_id) == set(scan.images)
        assert table["subject_id"].map(bool).all()


def test_names_that_are_no_text_are_escaped_or_refused(tmp_path):
    fill(tmp_path, {"a.png": b""})
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff.txt", os.O_CREAT))
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    assert found(tmp_path)[1].other_files == [r"\udcff.txt"]
    os.mkdir(os.fsencode(tmp_path) + b"/\xfe")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xfe/a.png", os.O_CREAT))
    with pytest.raises(CohortError, match="no text"):
        found(tmp_path)


# The shipped layouts without a table


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("kaggle_knee_osteoporosis", ["normal", "osteoporosis"]),
        ("kaggle_knee_three_class", LABELS),
    ],
)
def test_kaggle_layouts_make_a_cohort(tmp_path, clinic, name, labels):
    suffixes = (".jpg", ".JPEG", ".png")
    fill(
        tmp_path / "films",
        {
            f"Knee X-ray/{label.title()}/{i}{suffix}": clinic.radiograph(f"{label}{i}")
            for label in labels
            for i, suffix in enumerate(suffixes)
        },
    )
    cohort = build_cohort(name, tmp_path / "films", decode=True)
    assert cohort.report.by_label == dict.fromkeys(labels, 3)
    assert cohort.report.subjects == 3 * len(labels)
    assert cohort.report.problems == ["ids_in_several_classes"]
    assert cohort.manifest.features == []
