"""Manifests: the shipped ones hold, and every mistake names file, key and value."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from osteofusion.data.cohort import build_cohort
from osteofusion.data.manifest import (
    Column,
    load_manifest,
    normalise_header,
    normalise_id,
    normalise_word,
)
from osteofusion.data.splits import load_splits, make_splits
from osteofusion.errors import ManifestError
from osteofusion.resources import find_shipped, shipped_folder, shipped_names


@pytest.mark.parametrize("name", shipped_names("manifests"))
def test_shipped_manifests_load_by_name_and_by_path(name):
    manifest = load_manifest(name.removesuffix(".yaml"))
    assert manifest == load_manifest(name) == load_manifest(shipped_folder("manifests") / name)
    assert bool(manifest.features) == (manifest.table is not None)
    assert manifest.citation
    assert manifest.license
    assert not {"t_score", "z_score", "bone_density"} & set(manifest.features)


def test_the_demo_has_the_columns_of_the_data_set_it_imitates():
    demo, mendeley = load_manifest("demo"), load_manifest("mendeley")
    assert demo.columns == mendeley.columns
    assert (demo.images, demo.table, demo.label) == (
        mendeley.images,
        mendeley.table,
        mendeley.label,
    )
    assert demo.synthetic
    assert not mendeley.synthetic


def test_words_of_a_cell_stay_words(clinic):
    text = clinic.write().read_text().replace("smoker:", "smoker:\n    values: {yes: 1, No: 0}")
    path = clinic.root / "m.yaml"
    path.write_text(text)
    assert load_manifest(path).columns["smoker"].values == {"yes": 1, "no": 0}


# A value of None removes the key.
MISTAKES = [
    ("name", None, "name is missing"),
    ("colour", "red", "colour is not a key"),
    ("columns.age.kind", "number", "columns.age.kind is 'number'.*numeric"),
    ("columns.age.rang", [1, 2], "columns.age.rang is not a key"),
    ("columns.age.range", [90, 15], r"columns.age: range \[90.0, 15.0\] is empty"),
    ("columns.age.range", [15], "columns.age.range.1 is missing"),
    ("columns.age.scale", 0, "columns.age.scale is 0.*greater than 0"),
    ("columns.age.header", 5, "columns.age.header is 5"),
    ("columns.age.header", ["Age", 5], "columns.age.header.1 is 5"),
    ("columns.age.values", {"old": "x"}, "columns.age: numeric values must be numbers, not 'x'"),
    ("columns.age.at_most", "height", "columns.age refers to 'height', which is no column"),
    ("columns.age.only_if", {"job": 1}, "columns.age refers to 'job', which holds no numbers"),
    ("columns.age.absent", ["no"], "absent is for presence columns, and this one is numeric"),
    ("columns.job.values", {"chef": 1}, "categorical values must be words .*, not 1.0"),
    ("columns.job.range", [0, 1], "range is for numeric columns, and this one is categorical"),
    ("columns.job.kind", "text", "columns.job: a text column cannot be a feature"),
    ("columns.smoker.values", {"a": 2}, "columns.smoker: binary values must be 0 or 1, not 2.0"),
    ("columns.fracture.values", {"a": "b"}, "presence values must be 0 or 1, not 'b'"),
    ("columns.smoker.scale", 2, "scale is for numeric columns"),
    ("columns.label", {"kind": "binary"}, "columns.label: the name is reserved"),
    ("columns.t_score.role", "feature", "columns.t_score defines the label"),
    ("label.t_score", "bmd", "label.t_score refers to 'bmd', which is no column"),
    ("label.values", {"x": "healthy"}, "label.values.x is 'healthy'.*'normal'"),
    ("images.layout", "files", "images.layout is 'files'.*'class_folders'"),
    ("images.folders", {}, "images: layout class_folders needs `folders`"),
    ("images.folders.normal", "fine", "images.folders.normal is 'fine'"),
    ("images.layout", "column", "images: layout column needs `column`"),
    ("images.id_pattern", "(", r"images.id_pattern is '\('.*not a regular expression"),
    ("images.id_pattern", "n_.*", "images.id_pattern is 'n_.*needs one group"),
    ("table.id", None, "table.id is missing"),
    ("table.decimal", ";", "table.decimal is ';'"),
    ("table.delimiter", ";;", "table.delimiter is ';;'"),
    ("synthetic", "perhaps", "synthetic is 'perhaps'"),
]


@pytest.mark.parametrize(("key", "value", "message"), MISTAKES)
def test_a_mistake_names_file_key_and_value(clinic, key, value, message):
    *parents, last = key.split(".")
    place = clinic.manifest
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    path = clinic.write()
    with pytest.raises(ManifestError, match=f"{re.escape(str(path))}: .*{message}") as caught:
        load_manifest(path)
    assert "\n" not in str(caught.value)


def test_a_label_must_come_from_somewhere(clinic):
    clinic.manifest["label"] = {}
    load_manifest(clinic.write())  # from the class folders
    clinic.manifest["images"] = {"layout": "folder"}
    with pytest.raises(ManifestError, match="label needs `column` or `t_score`"):
        load_manifest(clinic.write())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [clinic\ntitle: x\n", "not valid YAML near line 2: expected"),
        (b"name: a\ntitle: b\nname: c\n", "near line 3: key 'name' is given twice"),
        (b"? [a]\n: 1\n", "not valid YAML"),
        (b"name: \xff\xfe", "UTF-8"),
        (b"- a\n- b\n", "no `key: value` lines"),
        (b"", "no `key: value` lines"),
        (b"name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, message):
    path = tmp_path / "m.yaml"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        load_manifest(path)


def test_an_unknown_name_shows_the_close_one():
    with pytest.raises(ManifestError, match=r"'mendely' is neither.*Did you mean 'mendeley'\?"):
        load_manifest("mendely")


def test_only_shipped_files_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_shipped("manifests", "demo") == shipped_folder("manifests") / "demo.yaml"
    assert find_shipped("manifests", "../pyproject.toml") is None
    assert find_shipped("manifests", "nothing") is None
    assert all(
        (shipped_folder("manifests") / name).is_file() for name in shipped_names("manifests")
    )


@given(
    st.sampled_from(["height (meter)", "Weight (KG)", "BMI", "T-score Value", "Größe"]),
    st.sampled_from(["{}", " {} ", "{}:", "{} : ", "{}?", "\u00a0{}."]),
    st.sampled_from([str, str.upper, str.lower, str.title]),
    st.sampled_from([" ", "  ", "\n", "\u00a0"]),
)
def test_headers_forgive_case_spacing_and_trailing_punctuation(header, frame, case, space):
    noisy = frame.format(case(header).replace(" ", space))
    assert normalise_header(noisy) == normalise_header(header)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1377.0, "1377"),
        (1377, "1377"),
        ("1377.0", "1377"),
        (" N1 ", "N1"),
        ("N1\u00a0", "N1"),
        ("0012", "0012"),
        ("1.2.0", "1.2.0"),
        ("12.5", "12.5"),
        ("e\u0301", "\u00e9"),  # how macOS writes é into file names
    ],
)
def test_ids_compare_by_what_a_reader_sees(value, expected):
    assert normalise_id(value) == expected
    assert normalise_id(normalise_id(value)) == expected


def test_different_headers_and_words_stay_different():
    assert normalise_header("BMI (kg)") != normalise_header("BMI")
    assert normalise_word(" Over  Weight") == "over weight" != normalise_word("overweight")


def test_the_canonical_name_is_a_header_too():
    assert Column(kind="numeric").headers("age") == ["age"]
    assert Column(kind="numeric", header=["Alter", "Âge"]).headers("age") == ["Alter", "Âge", "age"]


def test_no_manifest_maps_one_header_twice():
    for path in Path(shipped_folder("manifests")).glob("*.yaml"):
        columns = yaml.safe_load(path.read_text()).get("columns", {})
        headers = [normalise_header(str(column.get("header"))) for column in columns.values()]
        assert len(set(headers)) == len(headers), path


def test_canonical_folds_are_found_beside_the_manifest(clinic):
    path = clinic.write()
    path.write_text(path.read_text() + "splits: folds.csv\n")
    with pytest.raises(ManifestError, match=r"splits .*folds.csv is no file.*relative"):
        load_manifest(path)
    (path.parent / "folds.csv").write_text("subject_id\n")
    assert load_manifest(path).splits == str(path.resolve().parent / "folds.csv")


def test_the_canonical_folds_of_the_shipped_data_set(mendeley):
    """They can be made again, and fit any copy of the data: no digest binds them to one."""
    splits = load_manifest("mendeley").splits
    assert splits is not None
    assert "image_sha256" not in pd.read_csv(splits, nrows=1)
    table = build_cohort("mendeley", mendeley).table
    folds = load_splits(splits, table)  # refuses a subject or a film on two sides
    again = make_splits(table, seed=0, folds=5, repeats=3)
    keys = ["repeat", "fold", "subject_id"]
    pd.testing.assert_series_equal(
        folds.sort_values(keys, ignore_index=True)["split"],
        again.sort_values(keys, ignore_index=True)["split"],
    )
    tested = folds[folds["split"] == "test"].groupby(["repeat", "subject_id"]).size()
    assert len(tested) == 3 * 239
    assert (tested == 1).all()
