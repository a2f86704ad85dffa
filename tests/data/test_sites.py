"""Several data sets in one cohort, and data sets without a table or without images."""

from __future__ import annotations

import copy
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from osteofusion.data.cohort import build_cohort
from osteofusion.data.copies import tied_digests
from osteofusion.data.drafting import draft_manifest
from osteofusion.data.manifest import LABELS, load_manifest
from osteofusion.data.splits import load_splits, make_splits, save_splits
from osteofusion.errors import CohortError, ManifestError, OsteofusionError, SplitError


@pytest.fixture
def sites(tmp_path, clinic):
    """Writes a second hospital with the clinic's own IDs; `change` edits its manifest."""

    def build(change=None, images=None, **options):
        one = clinic.write()
        manifest = copy.deepcopy(clinic.manifest) | {"name": "hospital", "site": "Hospital B"}
        if change is not None:
            change(manifest)
        root = tmp_path / "hospital"
        for name, data in (images or clinic.images).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            stamped = clinic.radiograph("hospital " + name) if images is None else data
            (root / name).write_bytes(stamped)
        if "table" in manifest:
            pd.DataFrame(clinic.rows).to_csv(root / "table.csv", index=False)
        two = tmp_path / "hospital.yaml"
        two.write_text(yaml.safe_dump(manifest), encoding="utf-8")
        return build_cohort([one, two], [clinic.root, root], **options)

    return build


def test_sites_keep_their_subjects_apart(sites):
    cohort = sites()
    table = cohort.table
    assert len(table) == table["subject_id"].nunique() == table["group"].nunique() == 12
    assert set(table["site"]) == {"clinic", "Hospital B"}
    assert "Hospital B/A1" in set(table["subject_id"])
    assert not table.duplicated(["image"]).any()
    assert all(path.is_file() for path in cohort.files(table))
    assert {path.parent.parent.name for path in cohort.files(table)} == {"clinic", "hospital"}
    assert cohort.report.joined == 12
    assert [site.joined for site in cohort.report.sites] == [6, 6]


def test_a_column_that_one_site_lacks_is_missing_there(sites):
    def change(manifest):
        del manifest["columns"]["job"]
        manifest["columns"]["blood"] = {"kind": "numeric", "header": "Age", "unit": "mmol/l"}
        del manifest["columns"]["age"]

    table = sites(change).table
    there = table["site"] == "Hospital B"
    assert table.loc[there, ["job", "age"]].isna().all(axis=None)
    assert table.loc[~there, "age"].notna().all()
    assert table.loc[there, "blood"].tolist() == [40, 50, 60, 61, 70, 80]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["columns"]["age"].update(unit="months"), "'age' has unit years .* and months"),
        (lambda m: m["columns"]["age"].update(role="outcome"), "'age' has role feature"),
        (lambda m: m["columns"].update(job={"kind": "presence"}), "'job' has kind categorical"),
        (lambda m: m.update(site="clinic"), "Two data sets are of site 'clinic'"),
    ],
)
def test_sites_that_contradict_each_other_are_refused(sites, change, message):
    with pytest.raises(ManifestError, match=message):
        sites(change)


def test_one_site_may_ignore_what_another_uses_and_the_wider_range_counts(sites):
    def change(manifest):
        manifest["columns"]["smoker"]["role"] = "ignored"
        manifest["columns"]["age"]["range"] = [30, 110]

    manifest = sites(change).manifest
    assert "smoker" in manifest.features
    assert manifest.columns["age"].range == (15, 110)


def test_a_film_of_two_sites_is_one_group(sites, clinic):
    films = {name: clinic.radiograph("new " + name) for name in clinic.images}
    films["normal/A1.png"] = clinic.images["osteoporosis/C1.png"]
    cohort = sites(images=films)
    (pair,) = cohort.report.identical_groups
    assert set(pair) == {"Hospital B/normal/A1.png", "clinic/osteoporosis/C1.png"}
    assert cohort.report.conflicting_groups
    tied = cohort.table[cohort.table["image"].isin(pair)]
    assert tied["group"].nunique() == 1


def test_manifests_and_roots_come_in_pairs(clinic):
    path = clinic.write()
    with pytest.raises(CohortError, match="2 manifests and 1 root folders"):
        build_cohort([path, path], clinic.root)
    with pytest.raises(CohortError, match="Another table or label file goes with one data set"):
        build_cohort([path, "demo"], [clinic.root, clinic.root], table=clinic.root / "table.csv")


# ---- leave one site out ----


def cohort_table(site_of_row, label_of_row, same=()):
    n = len(site_of_row)
    table = pd.DataFrame(
        {
            "subject_id": [f"{site}/{i}" for i, site in enumerate(site_of_row)],
            "image": [f"{i}.png" for i in range(n)],
            "image_sha256": [f"d{i}" for i in range(n)],
            "site": site_of_row,
            "label": label_of_row,
        }
    )
    for first, second in same:
        table.loc[second, "image_sha256"] = table.loc[first, "image_sha256"]
    return table.assign(group=range(n))


@given(
    sites=st.lists(st.sampled_from("abc"), min_size=30, max_size=60),
    seed=st.integers(0, 100),
    same=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=4),
)
def test_each_site_is_the_test_side_once(sites, seed, same):
    table = cohort_table(sites, [LABELS[i % 2] for i in range(len(sites))], same)
    try:
        splits = make_splits(table, seed=seed, folds="sites")
    except SplitError:
        assume(False)  # the drawn sites leave too few rows elsewhere
    site = table.set_index("image")["site"]
    digest = table.set_index("image")["image_sha256"]
    for fold, left_out in enumerate(sorted(set(sites))):
        rows = splits[splits["fold"] == fold]
        assert len(rows) == len(table)
        tested = set(rows.loc[rows["split"] == "test", "image"])
        assert {image for image in site.index if site[image] == left_out} <= tested
        # Another site's row is tested only where a film ties it to the one left out.
        for image in tested:
            tied = digest[digest == digest[image]].index
            assert left_out in set(site[tied])
        for _, each in rows.groupby("image_sha256"):
            assert each["split"].nunique() == 1
        for side in ("train", "val"):
            assert set(rows.loc[rows["split"] == side, "label"]) == set(table["label"])


def test_a_site_without_some_class_can_be_left_out_and_its_splits_saved(tmp_path):
    both = [LABELS[i % 2] for i in range(12)]
    table = cohort_table(["a"] * 12 + ["b"] * 6 + ["c"] * 12, [*both, *["normal"] * 6, *both])
    splits = make_splits(table, seed=0, folds="sites")
    save_splits(splits, tmp_path / "splits.csv")
    again = load_splits(tmp_path / "splits.csv", table)
    assert again["split"].tolist() == splits["split"].tolist()
    with pytest.raises(SplitError, match=r"without site 'a' class 'osteopenia' has 0"):
        make_splits(table[table["site"] != "c"], seed=0, folds="sites")


def test_one_site_cannot_be_left_out():
    with pytest.raises(SplitError, match="the cohort has one only"):
        make_splits(cohort_table(["a"] * 12, ["normal", "osteopenia"] * 6), seed=0, folds="sites")


# ---- no table, no images ----


def test_class_folders_are_a_cohort_without_a_table(clinic):
    path = clinic.write()
    del clinic.manifest["table"], clinic.manifest["columns"], clinic.manifest["label"]
    path.write_text(yaml.safe_dump(clinic.manifest), encoding="utf-8")
    (clinic.root / "table.csv").unlink()
    cohort = build_cohort(path, clinic.root)
    assert cohort.table["subject_id"].tolist() == ["A1", "A2", "B1", "B2", "C1", "C2"]
    assert cohort.report.by_label == dict.fromkeys(LABELS, 2)
    assert cohort.manifest.features == []
    with pytest.raises(CohortError, match="describes no table"):
        build_cohort(path, clinic.root, table=clinic.root / "other.csv")


def test_a_label_file_labels_films_without_a_table(clinic, tmp_path):
    path = clinic.write()
    del clinic.manifest["table"], clinic.manifest["columns"]
    clinic.manifest["images"] = {"layout": "folder", "id_pattern": "0*(.+)"}
    clinic.manifest["label"] = {"file": "labels.csv", "id": "film", "column": "label"}
    path.write_text(yaml.safe_dump(clinic.manifest), encoding="utf-8")
    pd.DataFrame({"film": ["00A1", "C2"], "label": ["normal", "osteoporosis"]}).to_csv(
        clinic.root / "labels.csv", index=False
    )
    cohort = build_cohort(path, clinic.root)
    assert dict(zip(cohort.table["subject_id"], cohort.table["label"], strict=True)) == {
        "A1": "normal",
        "C2": "osteoporosis",
    }
    assert cohort.report.rows_without_label == ["A2", "B1", "B2", "C1"]


def test_a_table_is_a_cohort_without_images(clinic):
    path = clinic.write()
    del clinic.manifest["images"]
    path.write_text(yaml.safe_dump(clinic.manifest), encoding="utf-8")
    cohort = build_cohort(path, clinic.root)
    assert len(cohort.table) == 6
    assert (cohort.table["image"] == "").all()
    assert not cohort.report.identical_groups
    assert cohort.table["group"].nunique() == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m.pop("table"), m.pop("images")), "needs `images`, `table` or both"),
        (lambda m: m.pop("table"), "needs `table`, or `dicom`"),
        (
            lambda m: (
                m.pop("table"),
                m.pop("columns"),
                m.pop("label"),
                m["images"].update(layout="column", column="x"),
            ),
            "layout column needs `table`",
        ),
        (
            lambda m: (
                m.pop("table"),
                m.pop("columns"),
                m.update(images={"layout": "folder"}, label={"column": "Diagnosis"}),
            ),
            "without `table` the label needs `file`",
        ),
        (
            lambda m: (m.pop("table"), m.pop("columns"), m.update(label={"column": "Diagnosis"})),
            "label.column needs `table` or label.file",
        ),
        (lambda m: m["columns"]["age"].update(dicom="female"), "fills binary columns"),
        (lambda m: m["columns"]["age"].update(dicom="age", unit="months"), "must be years"),
        (
            lambda m: m["columns"]["smoker"].update(dicom="female", values={"F": 0, "M": 1}),
            "is 1 for a woman",
        ),
        (lambda m: m["table"].update(id_pattern="("), "not a regular expression"),
    ],
)
def test_manifests_that_cannot_stand_are_refused(clinic, change, message):
    change(clinic.manifest)
    path = clinic.root / "m.yaml"
    path.write_text(yaml.safe_dump(clinic.manifest), encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        load_manifest(path)


def test_ids_are_compared_after_both_patterns(clinic):
    for i, row in enumerate(clinic.rows):
        row["Patient ID"] = f"00{i + 1}"
    clinic.images = {
        f"{name.split('/')[0]}/knee_{i + 1}_L.png": data
        for i, (name, data) in enumerate(clinic.images.items())
    }
    clinic.manifest["table"]["id_pattern"] = "0*(.+)"
    clinic.manifest["images"]["id_pattern"] = r"knee_(\d+)"
    assert clinic.build().table["subject_id"].tolist() == list("123456")


def test_groups_of_a_pattern_are_joined(clinic):
    for row in clinic.rows:
        row["Patient ID"] = f"{row['Patient ID'][0]}00{row['Patient ID'][1]}"
    clinic.manifest["table"]["id_pattern"] = r"([A-Z]+)0*(\d+)"
    assert clinic.build().table["subject_id"].tolist() == ["A1", "A2", "B1", "B2", "C1", "C2"]


# ---- copies of an audit ----


def write_copies(path: Path, *pairs) -> Path:
    pd.DataFrame(pairs, columns=["sha256_a", "sha256_b"]).to_csv(path, index=False)
    return path


def test_copies_of_an_audit_share_a_group(clinic, tmp_path):
    table = clinic.build().table
    a, b, c, d = table["image_sha256"][:4]
    copies = write_copies(tmp_path / "copies.csv", (a, b), (b, c), ("elsewhere", d))
    group = clinic.build(copies=copies).table["group"].tolist()
    assert group[0] == group[1] == group[2]
    assert len(set(group)) == 4
    for content, message in [("x,y\n1,2\n", "no column sha256_a"), (None, "cannot be read")]:
        wrong = tmp_path / "wrong.csv"
        wrong.unlink(missing_ok=True)
        if content is not None:
            wrong.write_text(content)
        with pytest.raises(OsteofusionError, match=message):
            clinic.build(copies=wrong)


def test_an_emptied_cell_ties_nothing(clinic, tmp_path):
    path = clinic.write()
    table = clinic.build().table
    a, b = table["image_sha256"][:2]
    copies = write_copies(tmp_path / "copies.csv", (a, b), ("", a))
    del clinic.manifest["images"]
    path.write_text(yaml.safe_dump(clinic.manifest), encoding="utf-8")
    with pytest.raises(CohortError, match="names no file of this cohort"):
        build_cohort(path, clinic.root, copies=copies)
    assert "" not in tied_digests(copies)


def test_copies_of_other_files_are_refused(clinic, tmp_path):
    copies = write_copies(tmp_path / "copies.csv", ("one", "two"))
    with pytest.raises(CohortError, match="names no file of this cohort"):
        clinic.build(copies=copies)
    assert len(clinic.build(copies=write_copies(tmp_path / "none.csv")).table) == 6


def test_a_trailing_comma_does_not_shift_the_digests(tmp_path):
    (tmp_path / "copies.csv").write_text("sha256_a,sha256_b\nx,y,\ny,z,\n")
    with pytest.warns(pd.errors.ParserWarning):
        films = tied_digests(tmp_path / "copies.csv")
    assert films.keys() == {"x", "y", "z"}
    assert len(set(films.values())) == 1


# ---- several data sets without a table; rows that say the same ----


def test_label_files_of_two_sites_without_tables_unite(clinic, tmp_path):
    path = clinic.write()
    for key in ("table", "columns"):
        del clinic.manifest[key]
    clinic.manifest["images"] = {"layout": "folder"}
    clinic.manifest["label"] = {"file": "labels.csv", "column": "label"}
    pd.DataFrame({"id": ["A1"], "label": ["normal"]}).to_csv(
        clinic.root / "labels.csv", index=False
    )
    paths = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(clinic.manifest | {"name": name}), encoding="utf-8")
        paths.append(path)
    cohort = build_cohort(paths, [clinic.root] * 2)
    assert cohort.table["subject_id"].tolist() == ["one/A1", "two/A1"]


def test_class_folders_of_two_sites_unite(clinic, tmp_path):
    clinic.write()
    for key in ("table", "columns", "label"):
        del clinic.manifest[key]
    paths = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(clinic.manifest | {"name": name}), encoding="utf-8")
        paths.append(path)
    assert len(build_cohort(paths, [clinic.root] * 2).table) == 12


def test_a_row_given_twice_is_one_radiograph(clinic):
    for row in clinic.rows:
        row["File"] = f"{row['Diagnosis']}/{row['Patient ID']}.png"
    clinic.rows.append(dict(clinic.rows[0]))
    clinic.manifest["images"] = {"layout": "column", "column": "File"}
    table = clinic.build().table
    assert table["subject_id"].tolist() == ["A1", "A2", "B1", "B2", "C1", "C2"]


# ---- left and right of one patient, without a table ----


def test_left_and_right_are_one_subject_in_a_draft_and_are_told_of_without_one(clinic, tmp_path):
    clinic.images = {
        f"{name.removesuffix('.png')}_{side}.png": clinic.radiograph(name + side)
        for name in clinic.images
        for side in ("re", "li")
    }
    path = clinic.write()
    (clinic.root / "table.csv").unlink()
    del clinic.manifest["table"], clinic.manifest["columns"], clinic.manifest["label"]
    path.write_text(yaml.safe_dump(clinic.manifest), encoding="utf-8")
    plain = build_cohort(path, clinic.root)
    assert plain.report.sides_as_subjects == [
        f"{subject}_li | {subject}_re" for subject in ("A1", "A2", "B1", "B2", "C1", "C2")
    ]
    assert "sides_as_subjects" in plain.report.problems
    draft = draft_manifest(clinic.root, None)
    cohort = build_cohort(draft.manifest, clinic.root)
    assert sorted(set(cohort.table["subject_id"])) == ["A1", "A2", "B1", "B2", "C1", "C2"]
    assert cohort.table["group"].nunique() == 6
    assert not cohort.report.sides_as_subjects
