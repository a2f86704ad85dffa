"""Several data sets, and data sets without a table or images, from the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from osteofusion.data.demo import write_demo
from osteofusion.data.manifest import load_manifest
from osteofusion.errors import ConfigError
from osteofusion.training.datamodule import RadiographDataModule

MANIFEST = Path(__file__).parents[1] / "manifests" / "demo.yaml"


def write_manifest(path: Path, **changes) -> Path:
    content = load_manifest(MANIFEST).model_dump(exclude_unset=True)
    content.update(changes)
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Manifests and roots of three hospitals; the third has no smokers' column."""
    folder = tmp_path_factory.mktemp("hospitals")
    manifests, roots = [], []
    for seed, name in enumerate(("north", "south", "west")):
        columns = load_manifest(MANIFEST).model_dump(exclude_unset=True)["columns"]
        if name == "west":
            del columns["smoker"]
        path = write_manifest(folder / f"{name}.yaml", name=name, site=name, columns=columns)
        manifests.append(str(path))
        roots.append(str(write_demo(folder / name, subjects=40, seed=20 + seed)))
    return manifests, roots


def lists(values):
    return "[" + ", ".join(values) + "]"


@pytest.fixture(scope="module")
def left_out(cli, hospitals, tmp_path_factory):
    """Run folder of a model trained on north and south's rest, with `south` left out."""
    cwd = tmp_path_factory.mktemp("sites")
    manifests, roots = hospitals
    options = ("--data.manifest", lists(manifests[:2]), "--data.root", lists(roots[:2]))
    result = cli.fit(*options, "--data.folds", "sites", "--data.fold", 1, cwd=cwd)
    assert "Left out for the test: site south" in result.out
    return cwd / "runs" / "binary" / "version_0"


def test_one_site_is_left_out(left_out):
    table = pd.read_csv(left_out / "predictions.csv")
    assert set(table["site"]) == {"north", "south"}
    assert set(table.loc[table["split"] == "test", "site"]) == {"south"}
    assert set(table.loc[table["site"] == "south", "split"]) == {"test"}
    assert table["subject_id"].is_unique
    assert table["subject_id"].str.startswith(("north/", "south/")).all()
    metrics = json.loads((left_out / "metrics.json").read_text())
    assert metrics["n_rows"] == (table["split"] == "test").sum()
    assert {"fused", "age", "majority"} <= set(metrics["arms"])


def test_a_run_of_several_sites_is_tested_again_from_its_checkpoint(cli, left_out, tmp_path):
    result = cli("test", "--ckpt_path", left_out, cwd=tmp_path)
    assert result.code == 0, result.err
    again = json.loads((tmp_path / "runs/test/version_0/metrics.json").read_text())
    assert again == json.loads((left_out / "metrics.json").read_text())


def test_an_external_site_meets_a_frozen_model(cli, left_out, hospitals, tmp_path):
    """Preprocessing and decisions are those of training, whatever the external rows are."""
    manifests, roots = hospitals
    checkpoint = left_out / "checkpoints" / "best.ckpt"
    before = hashlib.sha256(checkpoint.read_bytes()).hexdigest()

    def test_on(root, where):
        options = ("--data.manifest", manifests[2], "--data.root", root)
        result = cli("test", "--ckpt_path", left_out, *options, cwd=tmp_path)
        assert result.code == 0, result.err
        run = tmp_path / "runs" / "test" / where
        table = pd.read_csv(run / "predictions.csv").set_index("subject_id")
        return table, json.loads((run / "metrics.json").read_text())

    whole, metrics = test_on(roots[2], "version_0")
    assert set(whole["split"]) == {"test"}
    assert set(whole["site"]) == {"west"}
    # Half of the hospital's films, of other shares of the classes: no row may notice.
    half = tmp_path / "half"
    half.mkdir()
    (half / "patient details.xlsx").write_bytes(
        (Path(roots[2]) / "patient details.xlsx").read_bytes()
    )
    chosen = whole[(whole["label"] == "low_bmd") | (np.arange(len(whole)) % 3 == 0)]
    for image in chosen["image"]:
        (half / image).parent.mkdir(exist_ok=True)
        (half / image).write_bytes((Path(roots[2]) / image).read_bytes())
    for label in ("normal", "osteopenia", "osteoporosis"):
        (half / label).mkdir(exist_ok=True)
    part, _ = test_on(half, "version_1")
    columns = ["p_normal", "p_low_bmd"]
    expected = whole.loc[part.index, columns]
    np.testing.assert_allclose(part[columns], expected, atol=1e-6)
    called = part["p_low_bmd"] >= 0.5
    assert called.tolist() == (expected["p_low_bmd"] >= 0.5).tolist()
    confusion = np.array(metrics["arms"]["fused"]["confusion"])
    assert confusion[:, 1].sum() == (whole["p_low_bmd"] >= 0.5).sum()
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == before


def test_a_unit_that_differs_from_training_is_refused(cli, left_out, hospitals, tmp_path):
    columns = load_manifest(MANIFEST).model_dump(exclude_unset=True)["columns"]
    columns["height"] = {**columns["height"], "unit": "cm", "range": [120, 220]}
    manifest = write_manifest(tmp_path / "cm.yaml", name="cm", columns=columns)
    options = ("--data.manifest", manifest, "--data.root", hospitals[1][2])
    result = cli("test", "--ckpt_path", left_out, *options, cwd=tmp_path)
    assert result.code == 2
    assert "'height' is numeric in cm in manifest cm" in result.err
    assert not (tmp_path / "runs" / "test").exists()


def test_a_column_of_no_training_row_is_left_out_with_a_word(cli, hospitals, tmp_path):
    manifests, roots = hospitals
    options = ("--data.manifest", lists(manifests[1:]), "--data.root", lists(roots[1:]))
    options += ("--data.folds", "sites", "--data.fold", 0, "--model.arm", "tabular")
    result = cli.fit(*options, cwd=tmp_path)
    assert "no training row has a value: smoker" in result.out
    result = cli("fit", "--config", "binary.yaml", *cli.toy, *options, "--data.features",
                 "[age, smoker]", cwd=tmp_path)  # fmt: skip
    assert result.code == 2
    assert "'smoker' has no usable value" in result.err


def test_a_class_that_one_site_has_alone_does_not_forbid_leaving_it_out(cli, demo, tmp_path):
    """Of the task's two classes there are enough elsewhere; resuming and re-use see the same."""
    folders = {"normal": "normal", "osteoporosis": "osteoporosis"}
    images = {"layout": "class_folders", "folders": folders}
    two = write_manifest(
        tmp_path / "two.yaml", name="two", images=images, table=None, columns=None, label=None
    )
    folders = {**folders, "osteopenia": "osteopenia"}
    three = write_manifest(
        tmp_path / "three.yaml",
        name="three",
        images={"layout": "class_folders", "folders": folders},
        table=None,
        columns=None,
        label=None,
    )
    other = write_demo(tmp_path / "other", subjects=40, seed=9)
    options = ("--data.manifest", lists([str(three), str(two)]))
    options += ("--data.root", lists([str(demo), str(other)]))
    fold = ("--data.folds", "sites", "--data.fold", 0)  # "three" is the test side
    result = cli.fit(*options, *fold, cwd=tmp_path)
    assert "Left out for the test: site three" in result.out
    run = tmp_path / "runs/binary/version_0"
    splits = pd.read_csv(run / "splits.csv")
    assert set(splits["label"]) == {"normal", "osteopenia", "osteoporosis"}
    assert set(splits.loc[splits["split"] != "test", "label"]) == {"normal", "osteoporosis"}
    # What was chosen for want of clinical columns is no contradiction when training goes on.
    cli.fit(*options, *fold, "--ckpt_path", "last", "--trainer.max_epochs", 2, cwd=tmp_path)
    cli.fit(*options, "--data.splits", run / "splits.csv", cwd=tmp_path)
    refused = cli("fit", "--config", "three_class.yaml", *cli.toy, *options, *fold, cwd=tmp_path)
    assert refused.code == 2
    assert "class 'osteopenia' has 0" in refused.err


def test_the_same_numbers_of_another_hospital_are_other_people(cli, hospitals, tmp_path):
    """Without images there is nothing but the ID, and every hospital counts from 1."""
    _, roots = hospitals
    paths = [
        str(write_manifest(tmp_path / f"{name}.yaml", name=name, images=None))
        for name in ("north", "south", "west")
    ]
    one = ("--data.manifest", paths[0], "--data.root", roots[0])
    cli.fit(*one, cwd=tmp_path)
    run = tmp_path / "runs/binary/version_0"

    def tested(where, *options):
        result = cli("test", "--ckpt_path", run, *options, cwd=tmp_path)
        assert result.code == 0, result.err
        return pd.read_csv(tmp_path / "runs" / "test" / where / "predictions.csv")["split"]

    other = ("--data.manifest", paths[2], "--data.root", roots[2])
    assert set(tested("version_0", *other)) == {"test"}
    assert set(tested("version_1")) == {"train", "val", "test"}

    both = ("--data.manifest", lists(paths[:2]), "--data.root", lists(roots[:2]))
    cli.fit(*both, "--data.folds", "sites", cwd=tmp_path)
    run = tmp_path / "runs/binary/version_1"
    assert set(tested("version_2", *other)) == {"test"}
    assert set(tested("version_3", *one)) == {"test"}  # the site that was left out
    seen = ("--data.manifest", paths[1], "--data.root", roots[1])
    result = cli("test", "--ckpt_path", run, *seen, cwd=tmp_path)
    assert result.code == 2
    assert "the model was trained on them" in result.err


def test_features_that_an_external_site_lacks_are_named(cli, left_out, hospitals, tmp_path):
    manifests, roots = hospitals
    options = ("--data.manifest", manifests[2], "--data.root", roots[2])
    result = cli("test", "--ckpt_path", left_out, *options, cwd=tmp_path)
    assert result.code == 0, result.err
    assert "No row has a value of smoker, which the model was trained with" in " ".join(
        result.out.split()
    )
    assert "Left out for the test" not in result.out


def test_a_fused_model_needs_a_clinical_value_in_some_training_row(cli, hospitals, tmp_path):
    manifests, roots = hospitals
    films = write_manifest(
        tmp_path / "films.yaml", name="a_films", table=None, columns=None, label=None
    )
    options = (
        "--data.manifest",
        lists([manifests[0], str(films)]),
        "--data.root",
        lists(roots[:2]),
    )
    options += ("--data.folds", "sites", "--data.fold", 1)
    result = cli("fit", "--config", "binary.yaml", *cli.toy, *options, cwd=tmp_path)
    assert result.code == 2
    assert "No training row has a value in any clinical column" in result.err
    result = cli("fit", "--config", "binary.yaml", "--data.manifest", "[]", cwd=tmp_path)
    assert result.code == 2
    assert "data.manifest is an empty list" in result.err


def test_roots_and_manifests_come_in_pairs(cli, hospitals, tmp_path):
    manifests, roots = hospitals
    options = ("--data.manifest", lists(manifests), "--data.root", lists(roots[:2]))
    result = cli("fit", "--config", "binary.yaml", *options, cwd=tmp_path)
    assert result.code == 2
    assert "3 manifests and 2 root folders" in result.err


# ---- what is missing ----


def test_class_folders_alone_train_the_image_arm(cli, demo, tmp_path):
    manifest = write_manifest(
        tmp_path / "films.yaml", name="films", table=None, columns=None, label=None
    )
    result = cli.fit("--data.manifest", manifest, cwd=tmp_path)
    assert "films has no clinical columns, so the image arm is trained alone." in result.out
    metrics = json.loads((tmp_path / "runs/binary/version_0/metrics.json").read_text())
    assert "image" in metrics["arms"]
    assert "fused" not in metrics["arms"]
    assert any("no clinical features" in note for note in metrics["notes"])
    refused = cli(
        "fit", "--config", "binary.yaml", *cli.toy, "--data.manifest", manifest,
        "--model.arm", "tabular", cwd=tmp_path,
    )  # fmt: skip
    assert refused.code == 2
    assert "model.arm=tabular is not possible: films has no clinical columns" in refused.err
    # What was trained is tested and applied as any other model.
    assert cli("test", "--ckpt_path", "runs/binary/version_0", cwd=tmp_path).code == 0


def test_a_table_alone_trains_the_tabular_arm(cli, demo, tmp_path):
    manifest = write_manifest(tmp_path / "rows.yaml", name="rows", images=None)
    result = cli.fit("--data.manifest", manifest, cwd=tmp_path)
    assert "rows has no images, so the tabular arm is trained alone." in result.out
    run = tmp_path / "runs/binary/version_0"
    table = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    assert set(table["image"]) == {""}
    assert set(table["arm"]) == {"tabular"}
    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    # Its own splits can be used again.
    cli.fit("--data.manifest", manifest, "--data.splits", run / "splits.csv", cwd=tmp_path)


def test_a_site_without_images_joins_a_fused_model(cli, hospitals, tmp_path):
    manifests, roots = hospitals
    rows = write_manifest(tmp_path / "rows.yaml", name="rows", site="rows", images=None)
    options = ("--data.manifest", lists([manifests[0], str(rows)]))
    options += ("--data.root", lists(roots[:2]))
    cli.fit(*options, cwd=tmp_path)
    table = pd.read_csv(tmp_path / "runs/binary/version_0/predictions.csv")
    assert set(table.loc[table["image"].isna(), "site"]) == {"rows"}
    assert table["p_low_bmd"].notna().all()
    result = cli("fit", "--config", "binary.yaml", *cli.toy, *options, "--model.arm", "image",
                 cwd=tmp_path)  # fmt: skip
    assert result.code == 2
    assert "site rows has rows without" in result.err


def test_the_data_module_refuses_an_arm_that_lacks_its_input(demo, tmp_path):
    manifest = write_manifest(
        tmp_path / "films.yaml", name="films", table=None, columns=None, label=None
    )
    data = RadiographDataModule(manifest=str(manifest), root=str(demo))
    with pytest.raises(ConfigError, match=r"train with model\.arm=image"):
        _ = data.cohort


# ---- several radiographs a subject ----


def test_several_films_of_a_subject_count_once(cli, demo, tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    (root / "patient details.xlsx").write_bytes((demo / "patient details.xlsx").read_bytes())
    for path in demo.rglob("*.*"):
        if path.parent.name in ("normal", "osteopenia", "osteoporosis"):
            (root / path.parent.name).mkdir(exist_ok=True)
            for side in "LR":
                # One byte after the end of the file: another file, the same picture.
                name = root / path.parent.name / f"{path.stem}_{side}{path.suffix}"
                name.write_bytes(path.read_bytes() + side.encode())
    manifest = write_manifest(
        tmp_path / "sides.yaml",
        name="sides",
        images={**load_manifest(MANIFEST).images.model_dump(), "id_pattern": "(.+)_[LR]"},
    )
    options = ("--data.manifest", manifest, "--data.root", root)
    result = cli.fit(*options, cwd=tmp_path)
    run = tmp_path / "runs/binary/version_0"
    table = pd.read_csv(run / "predictions.csv")
    tested = table[table["split"] == "test"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["n_rows"] == tested["subject_id"].nunique() == len(tested) / 2
    assert any("count as" in note for note in metrics["notes"])
    assert "mean of the predictions" in " ".join(result.out.split())
    result = cli("test", "--ckpt_path", run, "--combine", "null", cwd=tmp_path)
    assert result.code == 0, result.err
    single = json.loads((tmp_path / "runs/test/version_0/metrics.json").read_text())
    assert single["n_rows"] == len(tested)
    result = cli("test", "--ckpt_path", run, "--combine", "max", cwd=tmp_path)
    assert result.code == 0, result.err
    worst = json.loads((tmp_path / "runs/test/version_1/metrics.json").read_text())
    assert worst["n_rows"] == metrics["n_rows"]
    assert worst["arms"].keys() == metrics["arms"].keys()


# ---- from an audit to a split ----


@pytest.mark.slow
def test_copies_that_an_audit_finds_stay_on_one_side(cli, tmp_path):
    root = write_demo(tmp_path / "demo", subjects=40, seed=3)
    films = sorted(path for path in root.rglob("*.*") if path.parent != root)
    pairs = [(films[1], films[15]), (films[4], films[-2])]
    for original, filed in pairs:
        picture = cv2.imread(str(original), cv2.IMREAD_GRAYSCALE)
        height, width = picture.shape
        cropped = picture[height // 8 :, : width - width // 10]
        filed.unlink()
        cv2.imwrite(str(filed.with_suffix(".png")), cropped)
    options = ("--manifest", "demo", "--root", root)
    assert cli("audit", *options, cwd=tmp_path).code == 0
    found = pd.read_csv(tmp_path / "audit" / "copies.csv")
    copied = {frozenset((a.stem, b.stem)) for a, b in pairs}
    cropped = found[found["kind"] == "cropped"]
    named = zip(cropped["subject_a"], cropped["subject_b"], strict=True)
    assert {frozenset(pair) for pair in named} == copied
    cli.fit(
        *("--data.root", root, "--data.copies", "audit/copies.csv"),
        *("--model.arm", "tabular"),
        cwd=tmp_path,
    )
    table = pd.read_csv(tmp_path / "runs/binary/version_0/predictions.csv").set_index("subject_id")
    for pair in copied:
        rows = table.loc[list(pair)]
        assert rows["group"].nunique() == rows["split"].nunique() == 1
    # A checkpoint is complete: it keeps what belongs together when the audit is gone.
    run = tmp_path / "runs/binary/version_0"
    (tmp_path / "audit" / "copies.csv").unlink()
    assert cli("test", "--ckpt_path", run, cwd=tmp_path).code == 0
    again = pd.read_csv(tmp_path / "runs/test/version_0/predictions.csv").set_index("subject_id")
    assert again["group"].tolist() == table["group"].tolist()
    refused = cli("audit", *options, "--strict", cwd=tmp_path)
    assert refused.code == 2
    assert "cropped copies" in refused.err
