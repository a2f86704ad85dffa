"""`fit`, `validate`, `test` and `predict` as a user types them, at toy size."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
import yaml
from PIL import Image

from osteofusion.data.demo import write_demo
from osteofusion.data.labels import task_classes

RUN_FILES = {
    "baselines.csv",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "cohort.csv",
    "config.yaml",
    "environment.json",
    "join_report.json",
    "metrics.json",
    "predictions.csv",
    "splits.csv",
    "test.png",
}
IDENTITY = ["subject_id", "image", "group", "site", "region", "split", "fold", "repeat"]
BASELINES = [
    *("majority", "age", "ost", "osta", "orai"),
    *("logistic_regression", "proportional_odds", "gradient_boosting", "random_forest"),
]
FULL_DISK = """
import resource, sys, torch
from osteofusion.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


def files(folder):
    """Files of a run folder, without the loggers'."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("logs/")}


def plain_json(path):
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}, which is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def same_metrics(one, other):
    """Two metrics.json agree to 1e-6 in every number and to the letter in everything else."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_metrics(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_metrics, one, other))
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=0, abs_tol=1e-6)
    return one == other


def raw_columns(table):
    return [name for name in table if name.startswith("raw_")]


@pytest.fixture
def refused(cli, tmp_path):
    """Run a command that must be refused; its sentence, having left nothing behind."""

    def refuse(*arguments, toy=True, config="binary.yaml"):
        before = sorted(tmp_path.rglob("*"))
        if arguments[0] == "fit":
            arguments = ("fit", "--config", config, *(cli.toy if toy else ()), *arguments[1:])
        result = cli(*arguments, cwd=tmp_path)
        assert result.code == 2, result.out
        assert result.err.startswith("osteofusion: error: ")
        assert "Traceback" not in result.err
        left = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
        assert [path for path in left if path.name != "runs"] == []
        return result.err.removeprefix("osteofusion: error: ").strip()

    return refuse


# ---- fit ----


@pytest.mark.parametrize("task", ["binary", "osteoporosis", "three_class"])
@pytest.mark.parametrize("arm", ["fused", "image", "tabular"])
def test_fit_leaves_a_whole_run(cli, tmp_path, task, arm):
    result = cli.fit("--data.task", task, "--model.arm", arm, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    classes = task_classes(task)

    assert files(run) == RUN_FILES
    assert any((run / "logs").rglob("metrics.csv"))
    assert any((run / "logs").rglob("events.out.tfevents.*"))

    table = pd.read_csv(run / "predictions.csv")
    cohort = pd.read_csv(run / "cohort.csv")
    probabilities = [f"p_{name}" for name in classes]
    raw = [f"raw_{name}" for name in classes]
    assert list(table) == [*IDENTITY, "arm", "seed", "label", *probabilities, *raw]
    assert table[["subject_id", "image"]].equals(cohort[["subject_id", "image"]])
    assert set(table["split"]) == {"train", "val", "test"}
    assert set(table["arm"]) == {arm}
    assert set(table["seed"]) == {42}
    assert set(table["label"]) == set(classes)
    np.testing.assert_allclose(table[probabilities].sum(axis=1), 1, atol=1e-9)
    assert (table.groupby("group")["split"].nunique() == 1).all()
    splits = pd.read_csv(run / "splits.csv")
    assert splits["split"].tolist() == table["split"].tolist()

    metrics = plain_json(run / "metrics.json")
    assert metrics["task"] == task
    assert metrics["data"]["synthetic"] is True
    assert list(metrics["arms"]) == [arm, *BASELINES]
    baselines = pd.read_csv(run / "baselines.csv")
    assert list(baselines) == list(table)
    assert list(baselines["arm"].unique()) == BASELINES
    assert set(baselines["split"]) == {"test"}
    assert metrics["n_rows"] == (table["split"] == "test").sum()
    headline = "auroc" if len(classes) == 2 else "macro_auroc"
    estimate = metrics["arms"]["logistic_regression"]["metrics"][headline]
    assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert plain_json(run / "join_report.json")["joined"] == len(cohort)
    surroundings = plain_json(run / "environment.json")
    assert len(surroundings["data"]["sha256"]) == 64
    assert surroundings["packages"]["torch"]

    for word in (arm, "majority", "age", "logistic", "AUROC", "95 % intervals", str(run.name)):
        assert word in result.out
    assert result.out.count("SYNTHETIC DEMO DATA") == 2  # before and after
    assert "--data.manifest mendeley --data.root DIR" in result.out
    assert "Training: at most 1 epoch, fewer when" in result.out
    assert "written after 1 epoch." in result.out
    assert result.warnings == []
    assert result.err == ""


def test_on_a_terminal_the_table_comes_after_the_bars(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    out = cli.fit("--model.arm", "tabular", cwd=tmp_path).out
    assert "Epoch 0/0" in out
    assert "v_num" not in out
    assert out.rindex("Testing") < out.index("test rows:") < out.index("Run folder:")


def test_a_second_run_gets_a_folder_of_its_own(cli, tmp_path):
    for _ in range(2):
        cli.fit(cwd=tmp_path)
    runs = tmp_path / "runs" / "binary"
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]
    first, second = (pd.read_csv(runs / f"version_{i}" / "predictions.csv") for i in (0, 1))
    pd.testing.assert_frame_equal(first, second)  # the same seed, the same model


def test_the_seed_changes_the_model_and_not_the_split(cli, tmp_path):
    for seed in (1, 2):
        cli.fit("--seed_everything", seed, "--model.arm", "tabular", cwd=tmp_path)
    one, two = (
        pd.read_csv(tmp_path / "runs" / "binary" / f"version_{i}" / "predictions.csv")
        for i in (0, 1)
    )
    assert one["split"].equals(two["split"])
    assert not np.allclose(one["raw_normal"], two["raw_normal"], atol=1e-6)
    assert set(one["seed"]) == {1}


def test_fits_started_at_one_moment_share_no_folder(tmp_path):
    from osteofusion.training.run import new_run_dir

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_dir(tmp_path, "binary"), range(16)))
    assert len(set(made)) == 16
    assert all(path.is_dir() for path in made)


def test_chosen_features_are_the_only_ones(cli, tmp_path):
    import torch

    cli.fit("--data.features", "[age,female]", "--model.arm", "tabular", cwd=tmp_path)
    best = tmp_path / "runs/binary/version_0/checkpoints/best.ckpt"
    schema = torch.load(best, weights_only=True)["hyper_parameters"]["clinical"]["schema"]
    assert [feature["name"] for feature in schema] == ["age", "female"]


def test_a_run_config_starts_an_equal_run(cli, trained, tmp_path):
    result = cli("fit", "--config", trained / "config.yaml", cwd=tmp_path)
    assert result.code == 0, result.err
    again = tmp_path / "runs" / "binary" / "version_0"
    assert same_metrics(plain_json(again / "metrics.json"), plain_json(trained / "metrics.json"))


def test_saved_splits_give_the_same_sides(cli, trained, tmp_path):
    cli.fit("--data.splits", trained / "splits.csv", "--data.split_seed", 7, cwd=tmp_path)
    again = pd.read_csv(tmp_path / "runs/binary/version_0/splits.csv")
    pd.testing.assert_frame_equal(again, pd.read_csv(trained / "splits.csv"))


def test_folds_partition_the_cohort(cli, tmp_path):
    tested = []
    for fold in range(3):
        cli.fit(*("--data.folds", 3, "--data.fold", fold, "--model.arm", "tabular"), cwd=tmp_path)
        table = pd.read_csv(tmp_path / f"runs/binary/version_{fold}/predictions.csv")
        assert set(table["fold"]) == {fold}
        tested += table.loc[table["split"] == "test", "image"].tolist()
    assert sorted(tested) == sorted(table["image"])


def test_balanced_sampler_beside_automatic_weights_warns(cli, tmp_path):
    both = cli.fit("--data.balanced_sampler", "true", cwd=tmp_path)
    assert [w for w in both.warnings if "set one of them, not both" in w]
    one = cli.fit("--data.balanced_sampler=true", "--model.class_weights=null", cwd=tmp_path)
    assert one.warnings == []


@pytest.mark.parametrize("loss", ["focal", "cross_entropy"])
def test_other_losses_monitors_and_optimizers(cli, tmp_path, loss):
    result = cli.fit(
        *("--model.loss", loss, "--model.class_weights", "[1.0,2.0]", "--monitor", "mcc"),
        *("--model.optimizer", "adam", "--data.augmentation", "null", "--data.clahe", "true"),
        *("--trainer.precision", "bf16-true", "--data.num_workers", 1),
        cwd=tmp_path,
    )
    assert result.warnings == []
    config = yaml.safe_load((tmp_path / "runs/binary/version_0/config.yaml").read_text())
    assert config["monitor"] == "mcc"
    assert config["data"]["augmentation"] is None


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.backbone", "resnet5"], "close matches: resnet50"),
        (["--model.bakbone", "resnet50"], "--model.bakbone"),
        (["--data.batch", "8"], "--data.batch"),  # an abbreviation is a misspelling
        (["--ckpt", "last"], "--ckpt"),
        (["--model.arm", "both"], "'fused', 'image', 'tabular'"),
        (["--model.class_weights", "[1,2,3]"], "the task has 2 classes: normal, low_bmd"),
        (["--model.class_weights", "[1,-1]"], "class_weights"),
        (["--model.dropout", "2"], "dropout"),
        (["--model.learning_rate", "-1"], "model.learning_rate is -1.0"),
        (["--model.backbone_learning_rate", "0"], "model.backbone_learning_rate is 0"),
        (["--model.weight_decay", "-1"], "model.weight_decay is -1.0"),
        (["--model.loss", "focal", "--model.focal_gamma", "-1"], "gamma is -1.0"),
        (["--model.fusion", "luck"], "'cross_attention'"),
        (["--model.fusion_options", '{"x": 1}'], "fusion 'concat' cannot be built"),
        (["--model.head", "luck"], "'softmax'"),
        (["--model.head", "sigmoid", "--data.task", "three_class"], "sigmoid head expects 2"),
        (["--model.clinical_options", '{"hidden": "a"}'], "model: "),
        (["--model.pretrained", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--model.backbone", "vit_tiny_patch16_224"], "cannot read images of 32 px"),
        (["--data.features", "[age,t_score]"], "'t_score', an outcome"),
        (["--data.features", "[agee]"], "'agee'"),
        (["--data.task", "four"], "'binary', 'osteoporosis', 'three_class'"),
        (["--data.image_size", "31"], "data.image_size is 31"),
        (["--data.batch_size", "0"], "data.batch_size is 0"),
        (["--data.num_workers", "-1"], "data.num_workers is -1"),
        (["--data.augmentation.rotation", "999"], "rotation is 999.0; choose a number from 0"),
        (["--data.validation", "0.9"], "validation share of 0.9"),
        (["--data.fold", "2"], "no fold 2"),
        (["--data.folds", "40"], "40 folds"),
        (["--data.splits", "nowhere.csv"], "nowhere.csv"),
        (["--data.table", "nowhere.xlsx"], "nowhere.xlsx does not exist"),
        (["--data.manifest", "nowhere"], "nowhere"),
        (["--seed_everything", "-1"], "seed_everything is -1"),
        (["--monitor", "luck"], "'loss', 'auroc', 'macro_f1', 'mcc'"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs=many"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs is 0"),
        (["--trainer.limit_val_batches", "0"], "trainer.limit_val_batches is 0"),
        (["--trainer.devices", "0"], "devices"),
        (["--trainer.strategy", "luck"], "strategy"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_option_is_refused(refused, options, said):
    sentence = refused("fit", *options)
    assert said in sentence
    assert len(sentence) < 600


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("data: [a", "not valid YAML near line"),
        ("just words", "no `key: value` lines"),
        ("data:\n  imag_size: 32\n", "data.imag_size"),
        ("nonsense: 1\n", "nonsense"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_wrong_config_is_refused(refused, tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refused("fit", config=path)


def test_an_unknown_config_is_answered_with_close_ones(refused):
    sentence = refused("fit", config="bnary.yaml")
    assert "Did you mean binary.yaml?" in sentence
    assert "three_class.yaml" in sentence


def test_a_data_set_that_is_not_there_is_explained(refused):
    for options in ([], ["--data.root", "nowhere"]):
        sentence = refused("fit", "--data.manifest", "mendeley", *options, toy=False)
        assert "10.17632/fxjm8fb6mw.2" in sentence
        assert "patient details.xlsx" in sentence
        assert "osteopenia" in sentence


def test_training_that_diverges_says_so(cli, tmp_path):
    rate = ("--model.learning_rate", "1e30", "--model.backbone_learning_rate", "1e30")
    result = cli("fit", "--config", "binary.yaml", *cli.toy, *rate, cwd=tmp_path)
    assert result.code == 2
    assert "diverged; lower model.learning_rate" in result.err


def test_a_run_folder_below_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    sentence = refused("fit", "--trainer.default_root_dir", tmp_path / "file" / "below")
    assert "--trainer.default_root_dir" in sentence


# ---- bad data ----


def workbook(root):
    path = root / "patient details.xlsx"
    book = openpyxl.load_workbook(path)
    sheet = book["Sheet2"]
    columns = {str(cell.value).strip(": ").lower(): cell.column for cell in sheet[1]}
    return path, book, sheet, columns


def damage_truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_empty(path):
    path.write_bytes(b"")


def damage_tiny(path):
    Image.new("L", (1, 1)).save(path, "JPEG")


def damage_text(path):
    path.rename(path.with_suffix(".png")).write_text("not a picture")


def damage_cmyk(path):
    Image.new("CMYK", (64, 64)).save(path, "JPEG")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_truncated, "cut short"),
        (damage_empty, "0 bytes"),
        (damage_tiny, "1 x 1 pixels"),
        (damage_text, "not a PNG, JPEG or TIFF"),
        (damage_cmyk, "CMYK"),
    ],
)
def test_an_unreadable_radiograph_is_named(refused, demo, tmp_path, damage, said):
    root = shutil.copytree(demo, tmp_path / "damaged")
    victim = sorted((root / "osteopenia").iterdir())[3]
    damage(victim)
    sentence = refused("fit", "--data.root", root)
    assert said in sentence
    assert victim.stem in sentence


def test_an_empty_column_that_was_asked_for_is_refused(refused, demo, tmp_path):
    root = shutil.copytree(demo, tmp_path / "empty")
    path, book, sheet, columns = workbook(root)
    for row in range(2, sheet.max_row + 1):
        sheet.cell(row, columns["smoker"]).value = None
    book.save(path)
    sentence = refused("fit", "--data.root", root, "--data.features", "[age, smoker]")
    assert "'smoker' has no usable value" in sentence


def test_a_class_that_no_split_can_hold_is_refused(refused, demo, tmp_path):
    root = shutil.copytree(demo, tmp_path / "few")
    for path in sorted((root / "osteoporosis").iterdir())[2:]:
        path.unlink()
    assert "'osteoporosis' has" in refused("fit", "--data.root", root)


def test_a_class_without_any_row_is_refused(refused, demo, tmp_path):
    root = shutil.copytree(demo, tmp_path / "none")
    for path in (root / "osteoporosis").iterdir():
        path.unlink()
    sentence = refused("fit", "--data.root", root, "--data.task", "three_class")
    assert "No training row is osteoporosis" in sentence


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
@pytest.mark.parametrize(
    "limit", [1_000, pytest.param(200_000, marks=pytest.mark.slow)]
)  # bytes: no config fits, no checkpoint fits
def test_a_full_disk_is_one_sentence_and_no_torn_file(cli, tmp_path, limit):
    cli.fit(cwd=tmp_path)  # so that images are cached and Python's files are compiled
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(limit), "fit", "--config", "binary.yaml", *cli.toy],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("osteofusion: error: ") == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs" / "binary" / "version_1").rglob("*.ckpt"))
    if limit == 1_000:
        assert not (tmp_path / "runs" / "binary" / "version_1").exists()


# ---- checkpoints named ----


@pytest.mark.parametrize("name", ["best", "last", "folder", "file"])
def test_every_way_to_name_a_checkpoint(cli, trained, tmp_path, name):
    base = trained.parent.parent
    path = {
        "folder": trained,
        "file": trained / "checkpoints" / "best.ckpt",
    }.get(name, name)
    options = ("--config", "binary.yaml", "--trainer.default_root_dir", base, *cli.toy)
    result = cli("validate", *options, "--ckpt_path", path, cwd=tmp_path)
    assert result.code == 0, result.err
    assert "val_loss" in result.out
    assert result.warnings == []
    assert list(tmp_path.iterdir()) == []  # validate writes nothing


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_that_is_not_there_is_refused(refused, command):
    for name in ("last", "best", "nowhere.ckpt"):
        assert name in refused(command, "--ckpt_path", name)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_without_a_checkpoint_is_refused(refused, command):
    assert "needs --ckpt_path" in refused(command)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_refused(refused, tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    assert "cannot be read as a checkpoint" in refused("test", "--ckpt_path", "x.ckpt")


def test_a_foreign_checkpoint_is_refused(refused, tmp_path):
    import torch

    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    sentence = refused("test", "--ckpt_path", "x.ckpt")
    assert "not a checkpoint of osteofusion fit" in sentence


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
@pytest.mark.parametrize(
    "option",
    [
        "--model.arm=image",
        "--model.learning_rate=0.5",
        "--model.pretrained=true",
        "--data.task=three_class",
        "--data.features=[age]",
        "--data.image_size=64",
        "--data.split_seed=9",
        "--data.folds=3",
        "--data.augmentation.rotation=90",
        "--seed_everything=7",
    ],
)
def test_what_a_checkpoint_overrules_is_refused(cli, trained, tmp_path, command, option):
    checkpoint = trained / "checkpoints" / "last.ckpt"
    before = files(trained)
    result = cli(command, "--ckpt_path", checkpoint, option, cwd=tmp_path)
    assert result.code == 2
    assert "would be ignored" in result.err
    assert option.partition("=")[0].lstrip("-").removesuffix(".rotation") in result.err
    assert files(trained) == before
    assert list(tmp_path.iterdir()) == []


# ---- test ----


def test_test_from_elsewhere_reproduces_the_fit(cli, trained, tmp_path):
    result = cli("test", "--ckpt_path", trained / "checkpoints" / "best.ckpt", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.warnings == []
    run = tmp_path / "runs" / "test" / "version_0"
    assert files(run) == {name for name in RUN_FILES if not name.startswith("checkpoints/")}
    assert same_metrics(plain_json(run / "metrics.json"), plain_json(trained / "metrics.json"))
    ours, theirs = (pd.read_csv(folder / "predictions.csv") for folder in (run, trained))
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-6, rtol=0)


def test_test_accepts_the_config_of_the_run(cli, trained, tmp_path):
    options = ("--config", trained / "config.yaml", "--ckpt_path", trained)
    result = cli("test", *options, cwd=tmp_path)
    assert result.code == 0, result.err


def test_the_seed_of_training_is_noted_at_test(cli, tmp_path):
    cli.fit("--seed_everything", 5, "--model.arm", "tabular", cwd=tmp_path)
    result = cli("test", "--ckpt_path", "runs/binary/version_0", cwd=tmp_path)
    assert result.code == 0, result.err
    table = pd.read_csv(tmp_path / "runs/test/version_0/predictions.csv")
    assert set(table["seed"]) == {5}


def test_preprocessing_is_not_fitted_again(cli, demo, tmp_path):
    root = shutil.copytree(demo, tmp_path / "cohort")
    cli.fit("--data.root", root, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    before = pd.read_csv(run / "predictions.csv").set_index("subject_id")
    train = set(before.index[before["split"] == "train"])

    path, book, sheet, columns = workbook(root)
    for row in range(2, sheet.max_row + 1):
        if sheet.cell(row, columns["patient id"]).value in train:
            sheet.cell(row, columns["age"]).value = 90
            sheet.cell(row, columns["occupation"]).value = "astronaut"
    book.save(path)
    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    after = pd.read_csv(tmp_path / "runs/test/version_0/predictions.csv").set_index("subject_id")
    raw = raw_columns(before)
    moved = np.abs(after[raw] - before[raw]).max(axis=1)
    assert moved[before["split"] != "train"].max() < 1e-6
    assert moved[before["split"] == "train"].max() > 1e-6


def test_a_split_file_is_not_needed_after_training(cli, trained, tmp_path):
    splits = tmp_path / "splits.csv"
    shutil.copy(trained / "splits.csv", splits)
    cli.fit("--data.splits", splits, "--model.arm", "tabular", cwd=tmp_path)
    splits.unlink()
    result = cli("test", "--ckpt_path", "runs/binary/version_0", cwd=tmp_path)
    assert result.code == 0, result.err


def test_an_external_cohort_is_all_test(cli, trained, tmp_path):
    other = write_demo(tmp_path / "other", subjects=40, seed=9)
    result = cli("test", "--ckpt_path", trained, "--data.root", other, cwd=tmp_path)
    assert result.code == 0, result.err
    run = tmp_path / "runs" / "test" / "version_0"
    table = pd.read_csv(run / "predictions.csv")
    assert set(table["split"]) == {"test"}
    assert len(table) == 39
    metrics = plain_json(run / "metrics.json")
    assert list(metrics["arms"]) == ["fused"]
    assert any("no training rows" in note for note in metrics["notes"])
    assert metrics["n_rows"] == 39


def test_training_films_in_an_external_cohort_are_refused(cli, trained, demo, tmp_path):
    other = write_demo(tmp_path / "other", subjects=40, seed=9)
    known = next((demo / "normal").iterdir())
    victim = next(path for path in (other / "normal").iterdir() if path.suffix == known.suffix)
    shutil.copy(known, victim)
    result = cli("test", "--ckpt_path", trained, "--data.root", other, cwd=tmp_path)
    assert result.code == 2
    assert "not a mixture" in result.err


def test_another_manifest_needs_a_root_of_its_own(cli, trained, tmp_path):
    manifest = tmp_path / "mine.yaml"
    shipped = Path(__file__).parents[1] / "manifests" / "demo.yaml"
    manifest.write_text(shipped.read_text())
    options = ("--ckpt_path", trained, "--data.manifest", manifest)
    result = cli("test", *options, cwd=tmp_path)
    assert result.code == 2
    assert "give both or neither" in result.err


def test_another_root_leaves_the_table_of_training(cli, demo, tmp_path):
    table = tmp_path / "elsewhere.xlsx"
    shutil.copy(demo / "patient details.xlsx", table)
    cli.fit("--data.table", table, "--model.arm", "tabular", cwd=tmp_path)
    other = write_demo(tmp_path / "other", subjects=40, seed=9)
    options = ("--ckpt_path", "runs/binary/version_0", "--data.root", other)
    result = cli("test", *options, cwd=tmp_path)
    assert result.code == 0, result.err
    config = yaml.safe_load((tmp_path / "runs/test/version_0/config.yaml").read_text())
    assert config["data"]["table"] is None


# ---- predict ----


def test_predict_on_new_patients(cli, trained, demo, tmp_path):
    known = pd.read_csv(trained / "predictions.csv").set_index("subject_id")
    chosen = known.index[:7].tolist()
    flat = tmp_path / "new"
    flat.mkdir()
    for subject in chosen:
        shutil.copy(demo / known.at[subject, "image"], flat)
    path, book, sheet, columns = workbook(demo)
    for name in sorted(("diagnosis", "t-score value", "z-score value"), key=columns.get)[::-1]:
        sheet.delete_cols(columns[name])
    book.save(flat / path.name)

    result = cli("predict", "--ckpt_path", trained, "--data.root", flat, cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.warnings == []
    run = tmp_path / "runs" / "predict" / "version_0"
    assert "runs/predict/version_0/predictions.csv" in result.out
    assert files(run) == {
        *("cohort.csv", "config.yaml", "environment.json", "join_report.json", "predictions.csv")
    }
    table = pd.read_csv(run / "predictions.csv").set_index("subject_id")
    assert sorted(table.index) == sorted(chosen)
    assert table["label"].isna().all()
    assert set(table["split"]) == {"predict"}
    raw = raw_columns(table)
    expected = known.loc[table.index, raw]
    # Identical images are one group, but a prediction depends on its own row alone.
    np.testing.assert_allclose(table[raw], expected, atol=1e-6)


def test_predict_says_what_it_cannot_read(cli, trained, tmp_path):
    result = cli("predict", "--ckpt_path", trained, "--data.root", tmp_path, cwd=tmp_path)
    assert result.code == 2
    assert "patient details.xlsx" in result.err
    assert not (tmp_path / "runs" / "predict").exists()
