"""Joining films to rows: what matches, what is left out, and what a mistake is told."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from osteofusion.data.checks import LEAK_AUROC, describe
from osteofusion.data.cohort import build_cohort
from osteofusion.data.labels import TASKS, task_classes, who_label
from osteofusion.data.manifest import LABELS, Expected, load_manifest
from osteofusion.data.report import JoinReport
from osteofusion.errors import CohortError


def joined(cohort):
    return cohort.table.set_index("image")["label"].to_dict()


def set_cell(clinic, row, **cells):
    clinic.rows[row] |= {key.replace("_", " "): value for key, value in cells.items()}


def test_films_meet_their_rows_by_id_in_any_order(clinic):
    expected = clinic.build().table
    assert expected["subject_id"].tolist() == ["A1", "A2", "B1", "B2", "C1", "C2"]
    assert expected["age"].tolist() == [40, 50, 60, 61, 70, 80]
    assert expected["fracture"].fillna(-1).tolist() == [0, 0, 1, -1, 1, 0]
    assert expected["job"].isna().tolist() == [False] * 4 + [True, False]
    first = ["subject_id", "image", "image_sha256", "group", "site", "region", "label"]
    assert expected.columns.tolist()[:7] == first
    assert {*expected["site"], *expected["region"]} == {"clinic", "knee"}
    assert clinic.build().report.problems == []
    clinic.rows.reverse()
    pd.testing.assert_frame_equal(clinic.build().table, expected)


@pytest.mark.parametrize("file", ["t.xlsx", "t.tsv", "t.parquet"])
def test_every_table_format_gives_the_same_cohort(clinic, file):
    expected = clinic.build().table
    clinic.manifest["table"]["file"] = file
    pd.testing.assert_frame_equal(clinic.build().table, expected)


def test_numeric_ids_of_a_workbook_meet_file_names(clinic):
    clinic.manifest["table"]["file"] = "t.xlsx"
    clinic.images = {
        f"{row['Diagnosis']}/{1377 + i}.PNG": clinic.radiograph(str(i))
        for i, row in enumerate(clinic.rows)
    }
    for i, row in enumerate(clinic.rows):
        row["Patient ID"] = float(1377 + i)
    clinic.rows.append(dict.fromkeys(clinic.rows[0]) | {"Age": 60.2})  # averages
    cohort = clinic.build()
    assert cohort.table["subject_id"].tolist() == [str(1377 + i) for i in range(6)]
    assert cohort.report.summary_rows == [8]
    clinic.manifest["table"]["file"] = "t.csv"  # pandas writes 1377.0 there
    assert clinic.build().report.joined == 6


def test_an_id_pattern_finds_the_subject_in_the_name(clinic):
    clinic.manifest["images"] = {
        "layout": "folder",
        "folder": "films",
        "id_pattern": r"knee_(\w+)_(?:left|right)",
    }
    names = ["knee_A1_left", "knee_A1_right", "knee_C1_left", "chest"]
    clinic.images = {f"films/{name}.png": clinic.radiograph(name) for name in names}
    cohort = clinic.build()
    assert cohort.table["subject_id"].tolist() == ["A1", "A1", "C1"]
    assert cohort.table["group"].nunique() == cohort.report.subjects == 2
    assert cohort.report.images_without_row == ["films/chest.png"]


def test_a_path_column_gives_one_row_a_film(clinic):
    clinic.manifest["images"] = {"layout": "column", "column": "File"}
    files = list(clinic.images)
    for row, file in zip(clinic.rows, files, strict=True):
        row["File"] = file
    clinic.images["second of A1.png"] = clinic.radiograph("second")
    clinic.rows.append(clinic.rows[0] | {"File": "second of A1.png"})
    clinic.rows.append(clinic.rows[0] | {"Patient ID": "D1", "File": None})
    cohort = clinic.build()
    assert joined(cohort)["second of A1.png"] == "normal"
    assert cohort.report.joined == 7
    assert cohort.report.problems == ["rows_without_image"]
    clinic.rows.pop()
    clinic.rows[-1]["Age"] = 41  # two ages: neither row can be trusted
    report = clinic.build().report
    assert (report.joined, report.duplicate_ids) == (5, ["A1"])
    clinic.rows[-1]["File"] = "nowhere.png"
    with pytest.raises(CohortError, match=r"row 8, column 'File': .*nowhere.png does not exist"):
        clinic.build()


def test_equal_rows_count_once_and_differing_rows_not_at_all(clinic):
    clinic.manifest["columns"]["number"] = {"kind": "numeric", "role": "identifier"}
    for number, row in enumerate(clinic.rows):
        row["Number"] = number
    clinic.rows += [clinic.rows[0] | {"Number": 7}, clinic.rows[5] | {"Age": 81}]
    cohort = clinic.build()
    assert cohort.table["subject_id"].tolist() == ["A1", "A2", "B1", "B2", "C1"]
    assert cohort.report.duplicate_ids == ["A1", "C2"]
    assert cohort.report.images_without_row == []
    assert "duplicate_ids" in cohort.report.problems
    clinic.rows = [row | {"Patient ID": "A1", "Age": 40 + i} for i, row in enumerate(clinic.rows)]
    with pytest.raises(CohortError, match=r"several differing rows for each 'Patient ID'.*'A1'"):
        clinic.build()


def test_rows_of_two_subjects_are_never_one(clinic):
    clinic.manifest["columns"]["patient"] = {
        "header": "Patient ID",
        "kind": "text",
        "role": "identifier",
    }
    alike = {key: value for key, value in clinic.rows[0].items() if key != "Patient ID"}
    clinic.rows[1] |= alike
    clinic.rows += [clinic.rows[0], clinic.rows[1] | {"Age": 51}]
    clinic.rows.append(clinic.rows[2] | alike)
    cohort = clinic.build()
    assert cohort.report.duplicate_ids == ["A1", "A2", "B1"]
    assert cohort.table["subject_id"].tolist() == ["A1", "B2", "C1", "C2"]
    del clinic.rows[-1]
    clinic.rows[-1] = clinic.rows[1]
    assert clinic.build().report.joined == 6


def test_each_of_many_films_keeps_its_digest_and_its_place(clinic):
    for row in clinic.rows:
        for i in range(25):
            key = f"{row['Patient ID']}_{i:02}"
            broken = i == 13 and row["Diagnosis"] != "normal"
            data = b"" if broken else clinic.radiograph(key)
            clinic.images[f"{row['Diagnosis']}/{i % 3}/{key}.png"] = data
    clinic.manifest["images"]["id_pattern"] = r"([A-Z]\d)"
    table = (cohort := clinic.build(decode=True)).table
    assert [item["image"] for item in cohort.report.unreadable_images] == sorted(
        (name for name, data in clinic.images.items() if not data), key=lambda name: name[-9:]
    )
    names = sorted(
        (name for name, data in clinic.images.items() if data),
        key=lambda name: (Path(name).name[:2], name),
    )
    assert table["image"].tolist() == names
    assert table["image_sha256"].tolist() == [
        hashlib.sha256(clinic.images[name]).hexdigest() for name in names
    ]


def test_what_does_not_match_is_listed(clinic):
    clinic.images["normal/Z9.png"] = clinic.radiograph("Z9")
    clinic.images["figures/A1.png"] = clinic.radiograph("figure")
    clinic.images["B1.png"] = clinic.radiograph("thumbnail")
    del clinic.images["osteoporosis/C2.png"]
    set_cell(clinic, 0, Diagnosis=None, **{"T-score": None})
    set_cell(clinic, 2, Age="old", Smoker="perhaps")
    set_cell(clinic, 3, Age=610)
    for row in clinic.rows:
        row["Ward"], row["Fracture"] = "x", "no"
    report = clinic.build().report
    assert report.images_without_row == ["normal/Z9.png"]
    assert report.images_outside_folders == ["B1.png", "figures/A1.png"]
    assert report.rows_without_image == ["C2"]
    assert report.joined == 5  # A1 has the label of its folder
    assert [(cell.subject_id, cell.column) for cell in report.unparsable_cells] == [
        ("B1", "age"),
        ("B1", "smoker"),
    ]
    assert [(cell.subject_id, cell.row) for cell in report.implausible_cells] == [("B2", 5)]
    assert report.unmapped_columns == ["Ward"]
    assert report.constant_columns == ["fracture"]


def test_a_column_that_the_table_lacks_is_listed(clinic):
    for row in clinic.rows:
        del row["Job"]
    cohort = clinic.build()
    assert cohort.report.absent_columns == ["job"]
    assert "job" not in cohort.table


def test_an_all_missing_column_is_listed_as_constant(clinic):
    for row in clinic.rows:
        row["Age"] = None
    assert clinic.build().report.constant_columns == ["age"]


def test_identical_films_share_a_group_and_their_labels_are_compared(clinic):
    clinic.images["normal/A2.png"] = clinic.images["osteoporosis/C1.png"]
    clinic.images["osteopenia/B2.png"] = clinic.images["osteopenia/B1.png"]
    cohort = clinic.build()
    groups = cohort.table.set_index("subject_id")["group"]
    assert groups["A2"] == groups["C1"]
    assert groups["B1"] == groups["B2"]
    assert groups.nunique() == 4
    report = cohort.report
    assert report.identical_groups == [
        ["normal/A2.png", "osteoporosis/C1.png"],
        ["osteopenia/B1.png", "osteopenia/B2.png"],
    ]
    assert report.surplus_identical_images == ["osteoporosis/C1.png", "osteopenia/B2.png"]
    assert report.conflicting_groups == [
        {"normal/A2.png": "normal", "osteoporosis/C1.png": "osteoporosis"}
    ]


@pytest.mark.parametrize("decode", [False, True])
def test_unreadable_images_are_listed_and_left_out(clinic, decode):
    clinic.images["normal/A1.png"] = b""
    clinic.images["normal/A2.png"] = b"no image"
    cut = clinic.images["osteopenia/B1.png"]
    clinic.images["osteopenia/B1.png"] = cut[: len(cut) // 2]
    clinic.write()
    (clinic.root / "osteoporosis/C2.png").unlink()
    (clinic.root / "osteoporosis/C2.png").symlink_to("nowhere.png")
    del clinic.images["osteoporosis/C2.png"]
    report = clinic.build(decode=decode).report
    names = [Path(item["image"]).stem for item in report.unreadable_images]
    assert names == (["A1", "A2", "B1", "C2"] if decode else ["C2"])
    assert report.joined == 6 - len(names)
    assert all(item["reason"] for item in report.unreadable_images)


def test_no_readable_image_is_an_error_that_names_one(clinic):
    clinic.images = dict.fromkeys(clinic.images, b"")
    with pytest.raises(CohortError, match=r"None of the radiographs .* such as: .*A1\.png"):
        clinic.build(decode=True)


AWKWARD = ["O'Brien", 'quo"te', "two\nlines", "Кость", "膝", "a, b; c", "[bold]", "e\u0301", "-x"]


def test_awkward_names_survive_the_join_and_the_csv(clinic, tmp_path):
    for row, name in zip(clinic.rows * 2, AWKWARD, strict=False):
        folder = row["Diagnosis"]
        clinic.rows.append(row | {"Patient ID": name})
        clinic.images[f"{folder}/a folder/{name}.PnG"] = clinic.radiograph(name)
    cohort = clinic.build(decode=True)
    assert cohort.report.images_without_row == []
    assert cohort.report.joined == 6 + len(AWKWARD)
    cohort.table.to_csv(tmp_path / "cohort.csv", index=False)
    back = pd.read_csv(tmp_path / "cohort.csv", keep_default_na=False)
    assert back["image"].tolist() == cohort.table["image"].tolist()
    assert set(AWKWARD) - {"e\u0301"} < set(back["subject_id"])
    assert all((clinic.root / image).is_file() for image in back["image"])


def test_a_name_that_is_no_text_is_refused(clinic):
    clinic.write()
    try:
        os.close(os.open(os.fsencode(clinic.root) + b"/normal/\xff.png", os.O_CREAT))
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    with pytest.raises(CohortError, match=r"file name that is no text: '\\udcff.png'"):
        clinic.build()


def test_hidden_files_and_linked_folders_are_no_films(clinic):
    clinic.images["normal/._A1.png"] = b"what macOS leaves"
    clinic.images["normal/.thumbs/A1.png"] = clinic.radiograph("thumb")
    clinic.write()
    (clinic.root / "normal" / "loop").symlink_to(clinic.root)
    (clinic.root / "loop").symlink_to("loop")
    assert clinic.build().report.joined == 6
    (clinic.root / "normal").rename(clinic.root.parent / "elsewhere")
    (clinic.root / "normal").symlink_to(clinic.root.parent / "elsewhere")  # a class folder may be
    cohort = build_cohort(load_manifest(clinic.root.parent / "clinic.yaml"), clinic.root)
    assert cohort.report.joined == 6


def test_two_files_of_one_stem_are_two_films_of_one_subject(clinic):
    clinic.images["normal/A1.jpg"] = clinic.radiograph("other view")
    table = clinic.build().table
    assert table["image"].tolist()[:2] == ["normal/A1.jpg", "normal/A1.png"]
    assert table["group"].iloc[0] == table["group"].iloc[1]


def test_folder_names_forgive_case(clinic):
    clinic.images = {f"{name[0].upper()}{name[1:]}": data for name, data in clinic.images.items()}
    assert clinic.build().table["image"].iloc[0] == "Normal/A1.png"


# ---- labels ----


@pytest.mark.parametrize(
    ("score", "label"),
    [
        (3.0, "normal"),
        (-1.0, "normal"),
        (np.nextafter(-1.0, -2), "osteopenia"),
        (np.nextafter(-2.5, 0), "osteopenia"),
        (-2.5, "osteoporosis"),
        (-6.0, "osteoporosis"),
    ],
)
def test_who_thresholds(score, label):
    assert who_label(score) == label


def test_tasks_fall_in_bone_density():
    assert {task: task_classes(task) for task in TASKS} == {
        "binary": ["normal", "low_bmd"],
        "osteoporosis": ["no_osteoporosis", "osteoporosis"],
        "three_class": ["normal", "osteopenia", "osteoporosis"],
    }


def test_label_column_then_t_score_then_folder(clinic):
    set_cell(clinic, 0, Diagnosis=None, **{"T-score": -3})
    set_cell(clinic, 1, Diagnosis=None, **{"T-score": None})
    set_cell(clinic, 2, Diagnosis=" Osteopenia ", **{"T-score": -2.6})
    cohort = clinic.build()
    assert cohort.table["label"].tolist() == [
        "osteoporosis",
        "normal",
        "osteopenia",
        "osteopenia",
        "osteoporosis",
        "osteoporosis",
    ]
    assert cohort.report.label_conflicts == [
        {"subject": "B1", "table": "osteopenia", "t_score -2.6": "osteoporosis"},
        {"image": "normal/A1.png", "folder": "normal", "table": "osteoporosis"},
    ]


def test_labels_are_mapped_and_unknown_ones_name_their_row(clinic):
    clinic.manifest["label"]["values"] = {"Osteo-Penia": "osteopenia", "0": "normal"}
    set_cell(clinic, 0, Diagnosis=0)
    set_cell(clinic, 2, Diagnosis="OSTEO-PENIA")
    assert clinic.build().report.joined == 6
    set_cell(clinic, 3, Diagnosis="fragile")
    with pytest.raises(
        CohortError, match=r"Unknown label 'fragile' in table .*, row 5, 'Diagnosis'"
    ):
        clinic.build()


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "parquet"])
def test_a_label_file_labels_subjects_by_id(clinic, suffix, tmp_path):
    clinic.manifest["label"] = {"file": "labels.csv", "column": "label"}
    clinic.images = {f"normal/{i}.png": clinic.radiograph(str(i)) for i in range(6)}
    clinic.manifest["images"] = {"layout": "folder", "folder": "normal"}
    for i, row in enumerate(clinic.rows):
        row["Patient ID"] = str(i)
    with pytest.raises(CohortError, match=r"Label file .*labels.csv does not exist"):
        clinic.build()
    file = tmp_path / f"labels.{suffix}"

    def labelled(ids, labels):
        frame = pd.DataFrame({"ID": ids, "Label": labels})
        write = {"csv": frame.to_csv, "xlsx": frame.to_excel, "parquet": frame.to_parquet}
        write[suffix](file, index=False)
        return clinic.build(labels=file)

    three = ["normal", "Osteopenia", "osteoporosis"]
    cohort = labelled([0, 1, 5], three)
    assert cohort.table["label"].tolist() == [label.lower() for label in three]
    assert cohort.report.rows_without_label == ["2", "3", "4"]
    assert labelled(["0", "1", "0"], ["normal", "normal", "normal"]).report.joined == 2
    for ids, labels, message in [
        ([0, 7, 8], three, "names 2 subjects that .*table.csv does not have, such as '7'"),
        ([0, 1, 0], three, "row 4: subject 0 has two labels"),
        ([0, 1, 2], ["normal", "frail", "normal"], "Unknown label 'frail' in label file .*, row 3"),
        ([0, 1, 2], ["normal", None, "normal"], "row 3: the ID or the label is empty"),
    ]:
        with pytest.raises(CohortError, match=message):
            labelled(ids, labels)


def test_new_patients_need_no_labels_and_no_class_folders(clinic):
    for row in clinic.rows:
        del row["Diagnosis"], row["T-score"]
    clinic.images = {Path(name).name: data for name, data in clinic.images.items()}
    with pytest.raises(CohortError, match="has no folder 'normal'"):
        clinic.build()
    cohort = clinic.build(need_labels=False)
    assert cohort.report.joined == 6
    assert cohort.table["label"].isna().all()
    clinic.images |= {"normal/A1.png": clinic.radiograph("second film")}
    cohort = clinic.build(need_labels=False)
    assert cohort.report.joined == 7
    assert cohort.table["label"].notna().sum() == 1
    for row in clinic.rows:
        row["Diagnosis"] = "osteopenia"
    assert set(clinic.build(need_labels=False).table["label"]) == {"osteopenia"}


# ---- leaks ----


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 1), steps=st.integers(1, 40))
def test_leaks_are_what_scikit_learn_finds(seed, noise, steps):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, 90)  # 3: unknown
    label[rng.random(90) < 0.5] = rng.integers(0, 4)
    value = np.round(steps * (label % 3 + noise * rng.normal(size=90)) / 3)
    value[(rng.random(90) < noise / 4) | (label == rng.integers(-1, 3))] = np.nan
    table = pd.DataFrame(
        {
            "subject_id": [f"P{i}" for i in range(90)],
            "image": "",
            "image_sha256": "",
            "label": np.array([*LABELS, None], dtype=object)[label],
            "age": value,
        }
    )
    manifest = load_manifest("demo")
    columns = {"age": manifest.columns["age"]}
    manifest = manifest.model_copy(update={"columns": columns, "expected": Expected()})
    report = JoinReport.of(manifest, Path())
    describe(table, manifest, report)

    def leak(values, label):
        if len(label) < 20 or len(set(label)) < 2:
            return None
        for code in (0, 2):
            if 5 <= (label == code).sum() <= len(label) - 5:
                auroc = roc_auc_score(label == code, values)
                if max(auroc, 1 - auroc) >= LEAK_AUROC:
                    return f"AUROC {max(auroc, 1 - auroc):.3f} for {LABELS[code]}"
        return None

    known = (label < 3) & ~np.isnan(value)
    why = leak(value[known], label[known])
    if why is None and (why := leak(np.isnan(value)[label < 3], label[label < 3])):
        why = f"whether it is missing: {why}"
    assert report.suspected_leaks == ([] if why is None else [{"column": "age", "why": why}])
    assert report.constant_columns == (["age"] if pd.Series(value).nunique() < 2 else [])


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("numeric", lambda label, i: 10 * LABELS.index(label) + i % 7, "AUROC 1.000 for normal"),
        ("numeric", lambda label, i: i % 7 - 50 * (label == LABELS[2]), "1.000 for osteoporosis"),
        ("binary", lambda label, i: "no" if label == "normal" else "yes", "AUROC 1.000 for normal"),
        ("categorical", lambda label, i: label[-4:], "its categories predict 100% of the labels"),
        ("numeric", lambda label, i: i % 7, None),
        ("categorical", lambda label, i: f"word {i % 3}", None),
        ("categorical", lambda label, i: f"{label} {i}", None),  # a name, not a category
    ],
)
def test_a_feature_that_is_the_label_in_disguise_is_suspected(clinic, kind, value, why):
    clinic.manifest["columns"] = {"code": {"kind": kind}}
    clinic.manifest["label"] = {"column": "Diagnosis"}
    labels = [label for label in LABELS for _ in range(10)]
    clinic.rows = [
        {"Patient ID": f"P{i}", "Diagnosis": label, "Code": value(label, i)}
        for i, label in enumerate(labels)
    ]
    clinic.images = {
        f"{label}/P{i}.png": clinic.radiograph(str(i)) for i, label in enumerate(labels)
    }
    leaks = clinic.build().report.suspected_leaks
    assert [leak["column"] for leak in leaks] == ([] if why is None else ["code"])
    assert why is None or why in leaks[0]["why"]


# ---- mistakes ----


def _delete(key):
    def change(clinic):
        for row in clinic.rows:
            del row[key]

    return change


def _rename(clinic):
    clinic.images = {
        f"{Path(name).parent}/n_00{i}.png": data
        for i, (name, data) in enumerate(clinic.images.items())
    }


def _no_images(clinic):
    clinic.images = {f"{label}/notes.txt": b"x" for label in LABELS}


def _one_folder_less(clinic):
    clinic.images = {k: v for k, v in clinic.images.items() if not k.startswith("osteopo")}


MISTAKES = {
    "no ID column": (_delete("Patient ID"), "no ID column 'Patient ID'; it has 'Diagnosis', 'T-sc"),
    "two ID columns": (
        lambda clinic: [row.update({"PATIENT ID:": 1}) for row in clinic.rows],
        "several columns that could be ID column",
    ),
    "two columns": (
        lambda clinic: [row.update({"AGE": 1}) for row in clinic.rows],
        "several columns that could be column age: 'Age', 'AGE'",
    ),
    "no IDs": (
        lambda clinic: [row.update({"Patient ID": None}) for row in clinic.rows],
        "no row with a 'Patient ID'",
    ),
    "no label": (
        lambda clinic: (_delete("Diagnosis")(clinic), _delete("T-score")(clinic)),
        "no label column 'Diagnosis'",
    ),
    "no match": (
        _rename,
        r"IDs in the table look like 'A1', 'A2', images like 'normal/n_000\.png', .*id_pattern",
    ),
    "no images": (_no_images, r"No image \(.*\.png.*\) under .*; expected:"),
    "no class folders": (lambda clinic: setattr(clinic, "images", {"A1.png": b"x"}), "no folder"),
    "one folder less": (_one_folder_less, "no folder 'osteoporosis'; expected:"),
    "no folder": (
        lambda clinic: clinic.manifest.update(images={"layout": "folder", "folder": "films"}),
        "no folder 'films'",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said_in_one_sentence(clinic, change, message):
    change(clinic)
    with pytest.raises(CohortError, match=message):
        clinic.build()


def test_a_missing_table_or_root_shows_the_layout(clinic):
    manifest = load_manifest(clinic.write())
    (clinic.root / "table.csv").unlink()
    layout = r"table\.csv\n  normal/\*\.jpg"
    with pytest.raises(CohortError, match=rf"no 'table.csv', the table of clinic.*\n.*{layout}"):
        build_cohort(manifest, clinic.root)
    with pytest.raises(CohortError, match=rf"nowhere does not exist: clinic .*\n.*{layout}"):
        build_cohort(manifest, clinic.root / "nowhere")
    with pytest.raises(CohortError, match=r"other\.csv does not exist"):
        build_cohort(manifest, clinic.root, table=clinic.root / "other.csv")
    with pytest.raises(CohortError, match=r"https://doi\.org/10\.17632/fxjm8fb6mw\.2"):
        build_cohort("mendeley", clinic.root / "nowhere")


# ---- nothing is dropped in silence ----

ids = st.sampled_from(["1", "2", "3", "n 4", "É5", "6", None])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(ids, st.sampled_from([*LABELS, None]), st.sampled_from([50, 60, "x"]))),
    films=st.lists(st.tuples(st.sampled_from(LABELS), ids.filter(bool), st.booleans()), min_size=1),
)
def test_every_row_and_every_film_is_joined_or_listed(clinic, rows, films):
    with tempfile.TemporaryDirectory() as folder:
        small = type(clinic)(Path(folder) / "root")
        small.manifest["images"] = {"layout": "folder"}
        small.manifest["label"] = {"column": "Diagnosis"}
        small.manifest["columns"] = {"age": {"kind": "numeric"}}
        small.rows = [
            {"Patient ID": subject, "Diagnosis": label, "Age": age} for subject, label, age in rows
        ] + [{"Patient ID": "sure", "Diagnosis": "normal", "Age": 40}]
        small.images = {
            f"{folder}/{subject}.png": small.radiograph(subject) if readable else b""
            for folder, subject, readable in films
        } | {"sure.png": small.radiograph("sure")}
        cohort = small.build()
    table, report = cohort.table, cohort.report
    unreadable = {item["image"] for item in report.unreadable_images}
    unlabelled, duplicated = set(report.rows_without_label), set(report.duplicate_ids)
    for image in small.images:
        subject = Path(image).stem
        left_out = image in unreadable or subject in unlabelled | duplicated
        assert left_out or (image in set(table["image"])) != (image in report.images_without_row)
    with_image = {Path(image).stem for image in small.images}
    for number, row in enumerate(small.rows, start=2):
        subject = row["Patient ID"]
        if subject is None:
            assert number in report.summary_rows or all(cell is None for cell in row.values())
        elif subject not in duplicated:
            assert (subject in with_image) != (subject in report.rows_without_image)
    differing = pd.DataFrame(small.rows).dropna(subset="Patient ID").drop_duplicates()
    differing = differing[differing["Patient ID"].duplicated(keep=False)]
    assert not set(table["subject_id"]) & set(differing["Patient ID"])
    for subject, label in zip(table["subject_id"], table["label"], strict=True):
        assert label in {row["Diagnosis"] for row in small.rows if row["Patient ID"] == subject}
    assert re.fullmatch(r"[0-9a-f]{64}", table["image_sha256"].iloc[0])
