"""What is audited: folders of any layout, and other people's split files."""

import os
import shutil

import pytest
import yaml

from osteofusion.audit.assess import assess
from osteofusion.audit.sources import from_cohort, from_folders
from osteofusion.audit.split_file import add_splits
from osteofusion.errors import CohortError, SplitError


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode())
    return root


def told(collection, what):
    return dict(zip(collection.table["name"], collection.table[what], strict=True))


@pytest.mark.parametrize(
    "layout",
    ["{split}/{label}/{name}.png", "{label}/{split}/{name}.png", "x/{split}/y/{label}/{name}.png"],
)
def test_folders_give_split_and_label_either_way_round(tmp_path, layout):
    names = {
        layout.format(split=split, label=label, name=f"{split}{label}"): (side, label.casefold())
        for split, side in (("Train", "train"), ("valid", "val"), ("Testing", "test"))
        for label in ("Normal", "osteoporosis")
    }
    collection = from_folders([fill(tmp_path, *names)])
    assert told(collection, "label") == {name: label for name, (_, label) in names.items()}
    sides = dict(zip(collection.table["name"], collection.divisions["split"], strict=True))
    assert sides == {name: side for name, (side, _) in names.items()}


def test_any_other_few_folders_are_labels_and_many_are_subjects(tmp_path):
    few = from_folders([fill(tmp_path / "few", "in/healthy/1.png", "in/ill/2.png", "in/ill/3.png")])
    assert told(few, "label") == {
        "in/healthy/1.png": "healthy",
        "in/ill/2.png": "ill",
        "in/ill/3.png": "ill",
    }
    many = from_folders(
        [fill(tmp_path / "many", *(f"p{i}/{k}.png" for i in range(12) for k in "ab"))]
    )
    assert many.table["label"].isna().all()
    assert many.table["subject"].nunique() == 12
    assert any("12 sub-folders" in note for note in many.notes)


def test_flat_folder_has_no_label_and_no_split(tmp_path):
    collection = from_folders([fill(tmp_path, "images/1.png", "images/2.png")])
    assert collection.table["label"].isna().all()
    assert collection.divisions.shape == (2, 0)


def test_two_folders_are_two_sources_and_sides_by_their_names(tmp_path):
    collection = from_folders([fill(tmp_path / "train", "a.png"), fill(tmp_path / "test", "a.png")])
    assert collection.table["source"].tolist() == ["train", "test"]
    assert collection.table["name"].tolist() == ["train/a.png", "test/a.png"]
    assert collection.divisions["split"].tolist() == ["train", "test"]


def test_folders_that_share_files_are_refused(tmp_path):
    fill(tmp_path, "in/a.png")
    with pytest.raises(CohortError, match="lies in"):
        from_folders([tmp_path, tmp_path / "in"])
    with pytest.raises(CohortError, match="no folder"):
        from_folders([tmp_path / "absent"])
    with pytest.raises(CohortError, match="No image"):
        from_folders([(tmp_path / "empty").mkdir() or tmp_path / "empty"])


def test_what_is_left_out_is_said(tmp_path):
    fill(tmp_path, "a.png", "b.bmp", ".hidden.png")
    os.symlink(tmp_path, tmp_path / "loop")
    collection = from_folders([tmp_path])
    assert collection.table["name"].tolist() == ["a.png"]
    assert any(".bmp" in note for note in collection.notes)
    assert any("links" in note for note in collection.notes)


def test_odd_names_become_printable(tmp_path):
    fill(tmp_path, "a\nb.png", "膝.png")
    names = from_folders([tmp_path]).table["name"].tolist()
    assert sorted(names) == ["a\\nb.png", "膝.png"]
    (tmp_path / os.fsdecode(b"bad\xff.png")).write_bytes(b"x")
    with pytest.raises(CohortError, match="no text"):
        from_folders([tmp_path])


CSVS = {
    "our own": "subject_id,image,fold,split\n1,normal/1.png,0,train\n2,ill/2.png,0,test\n",
    "file names": "filename;set\n1.png;Training\n2.png;TEST\n",
    "stems": "Image ID\tsubset\n1\ttrain\n2\ttest\n",
    "backslashes": "path,partition\nC:\\data\\normal\\1.png,train\nC:\\data\\ill\\2.png,test\n",
    "quotes": 'file,split\n"normal/1.png",train\n\n"ill/2.png",test\n',
}


@pytest.mark.parametrize("text", CSVS.values(), ids=CSVS)
def test_split_files_of_many_kinds(tmp_path, text):
    collection = from_folders([fill(tmp_path / "d", "normal/1.png", "ill/2.png", "ill/3.png")])
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    add_splits(collection, tmp_path / "split.csv", [tmp_path / "d"])
    sides = dict(zip(collection.table["name"], collection.divisions.iloc[:, 0], strict=True))
    assert sides == {"normal/1.png": "train", "ill/2.png": "test", "ill/3.png": None}
    assert any(note.startswith("1 images are on no side") for note in collection.notes)


def test_labels_and_subjects_of_a_split_file(tmp_path):
    collection = from_folders([fill(tmp_path / "d", "1.png", "2.png")])
    text = "image,split,class,Patient ID\n1.png,train,ill,A\n2.png,test,,A\n"
    (tmp_path / "split.csv").write_text(text)
    add_splits(collection, tmp_path / "split.csv", [tmp_path / "d"])
    assert collection.table["label"].tolist() == ["ill", None]
    assert collection.table["subject"].tolist() == ["A", "A"]


def test_labels_of_folders_go_before_those_of_a_split_file(tmp_path):
    collection = from_folders([fill(tmp_path / "d", "normal/1.png", "osteopenia/2.png", "3.png")])
    text = ",,image,split,label\n0,,1.png,train,x\n1,,2.png,test,\n2,,3.png,test,y\n"
    (tmp_path / "split.csv").write_text(text)
    add_splits(collection, tmp_path / "split.csv", [tmp_path / "d"])
    assert told(collection, "label") == {
        "normal/1.png": "normal",
        "osteopenia/2.png": "osteopenia",
        "3.png": "y",
    }


def test_folds_are_divisions_of_their_own(tmp_path):
    collection = from_folders([fill(tmp_path / "d", "1.png", "2.png")])
    rows = [
        f"{name}.png,{fold},{'test' if name == fold else 'train'}"
        for fold in (1, 2)
        for name in (1, 2)
    ]
    (tmp_path / "split.csv").write_text("image,fold,split\n" + "\n".join(rows))
    add_splits(collection, tmp_path / "split.csv", [tmp_path / "d"])
    assert collection.divisions.to_dict("list") == {
        "fold 1": ["test", "train"],
        "fold 2": ["train", "test"],
    }


def test_an_image_on_two_sides_is_found(tmp_path):
    collection = from_folders([fill(tmp_path / "d", "1.png", "2.png")])
    (tmp_path / "split.csv").write_text("image,split\n1.png,train\n1.png,test\n2.png,test\n")
    add_splits(collection, tmp_path / "split.csv", [tmp_path / "d"])
    assert collection.on_both_sides == ["1.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,split\n9.png,train\n", "row 2: image '9.png' is not in"),
        ("a,b\n1,2\n", "needs a column of images"),
        ("image,split\n", "has no rows"),
        ("", "has no rows"),
        ("image,split\n1.png\n", "row 2: 1 cells under 2 headers"),
        ("image,split\nsame.png,train\n", "may mean any of 2 images"),
        ("image,split,split\n1.png,train,test\n", "header twice"),
    ],
)
def test_wrong_split_files_get_a_sentence(tmp_path, text, says):
    collection = from_folders([fill(tmp_path / "d", "1.png", "a/same.png", "b/same.png")])
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(SplitError, match="(?s)" + says):
        add_splits(collection, tmp_path / "split.csv", [tmp_path / "d"])


def test_cohort_keeps_subjects_labels_and_columns(clinic):
    collection = from_cohort([str(clinic.write())], [clinic.root], progress=False)
    assert collection.table["subject"].tolist() == ["A1", "A2", "B1", "B2", "C1", "C2"]
    assert collection.table["label"].value_counts().to_dict() == {
        "normal": 2,
        "osteopenia": 2,
        "osteoporosis": 2,
    }
    assert {name: column.role for name, column in collection.columns.items()}[
        "t_score"
    ] == "outcome"
    assert collection.clinical["age"].tolist() == [40, 50, 60, 61, 70, 80]
    assert all(path.is_file() for path in collection.table["path"])


def test_cohort_without_labels_is_audited_without(clinic):
    for row in clinic.rows:
        row["Diagnosis"] = row["T-score"] = None
    clinic.manifest["images"] = {"layout": "folder", "folder": "normal"}
    for name in list(clinic.images):
        clinic.images["normal/" + name.rpartition("/")[2]] = clinic.images.pop(name)
    collection = from_cohort([str(clinic.write())], [clinic.root], progress=False)
    assert collection.table["label"].isna().all()
    assert any("without labels" in note for note in collection.notes)


def test_findings_of_every_site_are_counted(clinic, tmp_path):
    clinic.images["normal/Z9.png"] = clinic.radiograph("Z9")
    one = clinic.write()
    two = tmp_path / "two.yaml"
    two.write_text(one.read_text().replace("name: clinic", "name: two"))
    collection = from_cohort([str(one), str(two)], [clinic.root] * 2, progress=False)
    assert "images without row: 2 (see osteofusion cohort)" in collection.notes


def test_a_site_without_images_is_audited_beside_one_with(clinic, tmp_path):
    one = clinic.write()
    del clinic.manifest["images"]
    two = tmp_path / "two.yaml"
    two.write_text(yaml.safe_dump(clinic.manifest | {"name": "two"}))
    report, _ = assess(from_cohort([str(one), str(two)], [clinic.root] * 2, progress=False))
    assert report.images == 6
    assert sum(sum(labels.values()) for labels in report.families.values()) == 6


def test_a_split_by_subject_fits_a_cohort(clinic, tmp_path):
    collection = from_cohort([str(clinic.write())], [clinic.root], progress=False)
    (tmp_path / "s.csv").write_text("patient,set\n" + "".join(f"{s},train\n" for s in ("A1", "B1")))
    add_splits(collection, tmp_path / "s.csv", [clinic.root])
    assert collection.divisions["split"].tolist() == ["train", None, "train", None, None, None]
    shutil.rmtree(clinic.root)
