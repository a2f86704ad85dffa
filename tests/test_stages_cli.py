"""`stages` as a user types it, at toy size."""

from __future__ import annotations

import json
import shutil
import sys

import pandas as pd
import pytest
import torch
import yaml

from osteofusion.training.carrying import seen_before
from osteofusion.training.predictions import read_predictions

NEW = {"link", "skip", "head"}


@pytest.fixture(scope="module")
def toy(cli):
    """Toy options of `fit` without those that stages set themselves."""
    return cli.toy[: cli.toy.index("--ablation")]


@pytest.fixture(scope="module")
def staged(cli, toy, tmp_path_factory):
    """A finished stages folder and what was said; read only."""
    cwd = tmp_path_factory.mktemp("staged")
    result = cli("stages", "binary.yaml", "three_class.yaml", *toy, cwd=cwd)
    assert result.code == 0, result.err
    assert result.warnings == []
    return cwd / "runs" / "stages" / "version_0", result.out


def tensors(run, name="best"):
    content = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content["state_dict"]


def test_a_stages_folder_is_whole(staged):
    folder, out = staged
    assert {path.name for path in folder.iterdir()} == {
        *("binary", "staged", "scratch", "predictions.csv", "stages.csv", "stages.json"),
        "comparison.json",
    }
    comparison = json.loads((folder / "comparison.json").read_text())
    assert list(comparison["arms"])[:3] == ["staged", "scratch", "majority"]
    assert comparison["tasks"] == ["binary", "three_class"]
    assert comparison["test_rows_seen_in_stage_one"] == 0
    assert comparison["test_rows"] == comparison["n_rows"] > 0
    table = pd.read_csv(folder / "stages.csv")
    lead = table[(table["arm"] == "scratch") & (table["metric"] == "macro_auroc")].iloc[0]
    values = {
        arm: comparison["arms"][arm]["metrics"]["macro_auroc"] for arm in ("staged", "scratch")
    }
    difference = values["staged"]["value"] - values["scratch"]["value"]
    assert lead["staged_minus_arm"] == pytest.approx(difference)
    for said in ("Stage one", "from stage one", "from scratch", "Carried over", "Stages folder:"):
        assert out.count(said) == 1, said
    assert "none of the" in " ".join(out.split())


def test_all_parts_share_one_split(staged):
    folder, _ = staged
    splits = {part: pd.read_csv(folder / part / "splits.csv") for part in ("binary", "staged")}
    assert splits["binary"]["split"].tolist() == splits["staged"]["split"].tolist()
    assert (folder / "scratch" / "splits.csv").read_text() == (
        folder / "staged" / "splits.csv"
    ).read_text()
    table = read_predictions(folder / "predictions.csv")
    assert set(table["split"]) == {"test"}
    known = splits["binary"][splits["binary"]["split"] != "test"]
    assert not set(known["subject_id"]) & set(table["subject_id"])
    assert not set(known["group"]) & set(table["group"])


def test_encoders_and_fusion_are_carried_and_the_head_is_new(staged):
    folder, out = staged
    carried = json.loads((folder / "staged" / "carried.json").read_text())
    assert set(carried["carried_parts"]) == {"image_encoder", "clinical_encoder", "fusion"}
    assert set(carried["new_parts"]) == NEW
    assert sum(carried["carried_parts"].values()) == len(carried["carried"])
    assert f"{len(carried['carried'])} tensors of" in " ".join(out.split())
    assert not (folder / "scratch" / "carried.json").exists()
    names = {name.removeprefix("model.") for name in tensors(folder / "staged") if "." in name}
    model = {name for name in names if not name.startswith(("preprocessing.", "criterion."))}
    listed = {*carried["carried"], *carried["new"]}
    assert {name for name in model if "metrics" not in name} == listed


def test_a_fit_begins_with_what_it_carried(cli, toy, staged, tmp_path):
    """At a rate of next to nothing the weights after an epoch are those it began with."""
    folder, _ = staged
    best = folder / "binary" / "checkpoints" / "best.ckpt"
    result = cli(
        *("fit", "--config", "three_class.yaml", *toy, "--ablation=false"),
        *("--model.start_from", best, "--data.splits", folder / "binary" / "splits.csv"),
        *("--model.learning_rate=1e-12", "--model.backbone_learning_rate=1e-12"),
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    run = tmp_path / "runs" / "three_class" / "version_0"
    before, after = tensors(folder / "binary"), tensors(run)
    carried = json.loads((run / "carried.json").read_text())
    for name in carried["carried"]:
        if "running_" not in name and "num_batches" not in name:  # statistics follow the rows
            torch.testing.assert_close(after[f"model.{name}"], before[f"model.{name}"])
    # The regression of three classes starts what is new, and nothing that was carried.
    assert after["model.link.log_steps"].shape != before["model.link.log_steps"].shape
    assert not torch.equal(after["model.skip.weight"], before["model.skip.weight"])
    again = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert again.code == 0, again.err


def test_finished_parts_are_not_run_again(cli, toy, staged, tmp_path):
    folder = shutil.copytree(staged[0], tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}
    (folder / "comparison.json").unlink()
    shutil.rmtree(folder / "scratch")
    options = ("stages", "binary.yaml", "three_class.yaml", *toy, "--out", folder)
    # The start of stage two lies where the first part was.
    result = cli(*options, cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.out.count("finished in") == 2
    kept = {path: time_ for path, time_ in before.items() if "scratch" not in path.parts}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (
        json.loads((folder / "comparison.json").read_text())["arms"]
        == (json.loads((staged[0] / "comparison.json").read_text())["arms"])
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.slow
def test_a_kill_in_stage_two_leaves_stages_that_go_on(cli, toy, tmp_path):
    options = [*toy, "--early_stopping.patience=9999", "--trainer.max_epochs=6", "--out", "out"]
    begun = tmp_path / "out" / "staged" / "checkpoints" / "last.ckpt"
    cli.killed_once(begun, "stages", "binary.yaml", "three_class.yaml", *options, cwd=tmp_path)
    carried = (tmp_path / "out" / "staged" / "carried.json").read_text()
    result = cli("stages", "binary.yaml", "three_class.yaml", *options, cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.out.count("finished in") == 1
    assert "Carried over" not in result.out  # it goes on with its own weights
    assert (tmp_path / "out" / "staged" / "carried.json").read_text() == carried
    assert torch.load(begun, weights_only=True)["epoch"] == 5
    assert (tmp_path / "out" / "comparison.json").is_file()


@pytest.mark.slow
def test_folds_without_a_fold_are_pooled(cli, toy, tmp_path):
    options = ("--data.folds=2", "--model.arm=tabular", "--out", "out")
    result = cli("stages", "binary.yaml", "three_class.yaml", *toy, *options, cwd=tmp_path)
    assert result.code == 0, result.err
    table = read_predictions(tmp_path / "out" / "predictions.csv")
    cohort = pd.read_csv(tmp_path / "out" / "binary" / "fold_0" / "cohort.csv")
    for arm in ("staged", "scratch", "age"):
        rows = table[table["arm"] == arm]
        assert sorted(rows["image"]) == sorted(cohort["image"])
        assert set(rows["fold"]) == {0, 1}
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["n_folds"] == 2
    assert all(each["p"] is not None for each in comparison["differences"][:1])
    one = cli(
        *("stages", "binary.yaml", "three_class.yaml", *toy, "--data.folds=2", "--data.fold=1"),
        *("--model.arm=tabular", "--out", "one"),
        cwd=tmp_path,
    )
    assert one.code == 0, one.err
    assert set(read_predictions(tmp_path / "one" / "predictions.csv")["fold"]) == {1}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": {"task": "binary"}}, "is not finer than"),
        ({"data": {"task": "osteoporosis"}}, "is not finer than"),
        ({"data": {"features": ["age"]}}, "data.features is None in binary.yaml and ['age']"),
        ({"model": {"fusion": "gated"}}, "model.fusion is 'concat' in binary.yaml and 'gated'"),
        ({"model": {"image_encoder": "cnn"}}, "model.image_encoder is 'timm' in binary.yaml"),
        ({"data": {"split_seed": 9}}, "data.split_seed is 0 in binary.yaml and 9"),
        ({"model": {"luck": 1}}, "luck"),
    ],
)
def test_stages_that_do_not_belong_together_are_refused(cli, toy, tmp_path, changed, said):
    config = {"data": {"task": "three_class"}} | {
        section: {"task": "three_class", **content} if section == "data" else content
        for section, content in changed.items()
    }
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(config))
    result = cli("stages", "binary.yaml", "second.yaml", *toy, cwd=tmp_path)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["second.yaml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["binary.yaml"], "takes two configs first"),
        (["--data.root", "a"], "takes two configs first"),
        (["binary.yaml", "tree_class.yaml"], "Did you mean three_class.yaml?"),
        (["three_class.yaml", "binary.yaml"], "is not finer than"),
        (["binary.yaml", "three_class.yaml", "--data.task", "binary"], "--data.task is set by"),
        (["binary.yaml", "three_class.yaml", "--ckpt_path=last"], "--ckpt_path is set by"),
        (["binary.yaml", "three_class.yaml", "--data.luck", "1"], "data.luck"),
        (["binary.yaml", "three_class.yaml", "--data.root", "nowhere"], "nowhere"),
        (["binary.yaml", "three_class.yaml", "--data.folds", "40"], "40 folds"),
    ],
)
def test_wrong_stages_are_refused(cli, toy, tmp_path, arguments, said):
    options = toy if len(arguments) > 1 and arguments[0].endswith(".yaml") else ()
    result = cli("stages", *arguments[:2], *options, *arguments[2:], cwd=tmp_path)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("osteofusion: error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_another_command_does_not_go_on_in_a_folder(cli, toy, staged, tmp_path):
    folder = shutil.copytree(staged[0], tmp_path / "copy")
    options = ("stages", "binary.yaml", "three_class.yaml", *toy, "--out")
    result = cli(*options, folder, "--model.dropout=0.5", cwd=tmp_path)
    assert result.code == 2
    assert "was made with another model.dropout" in result.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    result = cli(*options, tmp_path / "mine", cwd=tmp_path)
    assert result.code == 2
    assert "was not made by osteofusion stages" in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.split_seed=9"], "were trained or validated on"),
        (["--data.features=[age, bmi]"], "reads other clinical columns"),
        (["--model.fusion=gated"], "built with fusion='concat'"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(cli, toy, staged, tmp_path, options, said):
    best = staged[0] / "binary" / "checkpoints" / "best.ckpt"
    arguments = ("fit", "--config", "three_class.yaml", *toy, "--model.start_from")
    result = cli(*arguments, best, *options, cwd=tmp_path)
    assert result.code == 2
    assert said in result.err
    assert not (tmp_path / "runs" / "three_class").exists()
    result = cli(*arguments, "nowhere.ckpt", cwd=tmp_path)
    assert "model.start_from: nowhere.ckpt does not exist" in result.err


def test_a_film_or_a_subject_that_was_seen_is_found():
    def split(*rows):
        return pd.DataFrame(rows, columns=["subject_id", "image_sha256", "split"])

    first = split(("a", "1", "train"), ("b", "2", "val"), ("c", "3", "test"), ("d", "", "train"))
    assert seen_before(first, split(("c", "3", "test"), ("e", "", "test"))).empty
    assert seen_before(first, split(("a", "1", "train"), ("c", "3", "test"))).empty
    for row in (("b", "9", "test"), ("z", "1", "test"), ("d", "", "test")):
        assert len(seen_before(first, split(row))) == 1
    assert seen_before(first, split(("b", "9", "test")), by_subject=False).empty
