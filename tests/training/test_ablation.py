"""The ablation: each modality alone, and the fused model without it, resumable, under DDP too."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback, Trainer

from osteofusion.errors import ConfigError
from osteofusion.evaluation import evaluate
from osteofusion.training.ablation import ModalityAblation, draw_ablation
from osteofusion.training.callbacks import RunStopping, StepSeed
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule
from osteofusion.training.predictions import PredictionWriter, read_predictions
from osteofusion.training.readings import shuffled_partners

TRAINED = ["fused", "image", "tabular"]
READINGS = ["fused_without_image", "fused_without_clinical", "fused_shuffled_images"]
RAW = ["raw_normal", "raw_low_bmd"]
ON = ("--ablation", "true", "--trainer.max_epochs", 2)


@pytest.fixture(scope="module")
def ablated(cli, tmp_path_factory):
    """Run folder of a fused model with its ablation, and what the run said; read only."""
    cwd = tmp_path_factory.mktemp("ablated")
    result = cli.fit(*ON, cwd=cwd)
    assert result.warnings == []
    return cwd / "runs" / "binary" / "version_0", result.out


def rows_of(run, arm, split=None):
    table = read_predictions(run / "predictions.csv")
    table = table[table["arm"] == arm]
    return table[table["split"] == split] if split else table


def weights(run):
    return {path: path.stat().st_mtime_ns for path in run.rglob("*.ckpt")}


def test_one_model_is_in_memory_while_the_fused_one_trains(demo, tmp_path):
    """Callbacks hold a method of the model, and copies of callbacks held copies of its weights."""

    def models():
        gc.collect()
        return sum(type(each) is FusionModule for each in gc.get_objects())

    class BegunError(Exception):
        pass

    class Begun(Callback):
        def on_train_start(self, trainer, pl_module):
            raise BegunError

    data = RadiographDataModule(root=str(demo), image_size=32, num_workers=0)
    before = models()
    module = FusionModule(
        class_names=data.class_names,
        clinical=data.clinical,
        class_counts=data.class_counts,
        backbone="test_resnet.r160_in1k",
        pretrained=False,
    )
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[
            ModalityAblation(train_arms=True),
            PredictionWriter(tmp_path),
            StepSeed(),
            RunStopping("val_loss"),
            Begun(),
        ],
    )
    with pytest.raises(BegunError):
        trainer.fit(module, datamodule=data)
    assert models() - before == 1


def test_all_arms_stand_in_one_run(ablated):
    run, out = ablated
    table = read_predictions(run / "predictions.csv")
    assert list(table["arm"].unique()) == [*TRAINED, *READINGS]
    cohort = len(pd.read_csv(run / "cohort.csv"))
    test = (rows_of(run, "fused")["split"] == "test").sum()
    sizes = table["arm"].value_counts()
    assert {sizes[arm] for arm in TRAINED} == {cohort}
    assert {sizes[arm] for arm in READINGS} == {test}
    assert set(table["seed"]) == {42}
    sides = table[table["arm"].isin(TRAINED)].groupby(["subject_id", "image"])["split"]
    assert (sides.nunique() == 1).all()
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["arms"])[:6] == [*TRAINED, *READINGS]
    assert {"majority", "age", "ost", "random_forest"} < set(metrics["arms"])
    pairs = {(each["first"], each["second"]) for each in metrics["differences"]}
    assert {("fused", arm) for arm in metrics["arms"] if arm != "fused"} == pairs
    assert all(each["p"] is None for each in metrics["differences"])  # a single split
    for said in ("training the image arm", "training the tabular arm", "Paired differences"):
        assert said in out


def test_the_table_and_the_figure_of_the_ablation(ablated):
    run, _ = ablated
    table = pd.read_csv(run / "ablation.csv").set_index(["arm", "metric"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(table.index.unique("arm")) == [*TRAINED, *READINGS]
    for arm in (*TRAINED, *READINGS):
        assert table.loc[arm, "auroc"]["value"] == metrics["arms"][arm]["metrics"]["auroc"]["value"]
    lead = table.xs("auroc", level="metric")["fused_minus_arm"]
    values = table.xs("auroc", level="metric")["value"]
    np.testing.assert_allclose(lead["image"], values["fused"] - values["image"], atol=1e-12)
    assert np.isnan(lead["fused"])
    low, high = (table.loc[("image", "auroc"), f"fused_minus_arm_{end}"] for end in ("low", "high"))
    assert low <= lead["image"] <= high
    assert (run / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_the_rows_of_both_panels_are_level(ablated):
    table = read_predictions(ablated[0] / "predictions.csv")
    tested = table[table["split"] == "test"]
    figure = draw_ablation(evaluate(tested, ["normal", "low_bmd"], resamples=10))
    figure.canvas.draw()

    def heights(axes):
        labels = axes.get_yticklabels()
        return {each.get_text(): each.get_window_extent().y0 for each in labels}

    left, right = map(heights, figure.axes)
    assert (
        list(right) == list(left)[1:] == [arm.replace("_", " ") for arm in TRAINED[1:] + READINGS]
    )
    assert right == pytest.approx({name: left[name] for name in right})


def test_baselines_are_written_for_the_test_rows(ablated):
    run, _ = ablated
    baselines = read_predictions(run / "baselines.csv")
    assert list(baselines) == list(read_predictions(run / "predictions.csv"))
    test = rows_of(run, "fused", "test")
    for _, rows in baselines.groupby("arm"):
        assert rows["image"].tolist() == test["image"].tolist()
    assert "random_forest" in set(baselines["arm"])


@pytest.mark.parametrize("arm", ["image", "tabular"])
def test_an_arm_equals_a_fit_of_it_alone(cli, ablated, tmp_path, arm):
    run, _ = ablated
    cli.fit("--model.arm", arm, "--trainer.max_epochs", 2, cwd=tmp_path)
    alone = rows_of(tmp_path / "runs" / "binary" / "version_0", arm)
    np.testing.assert_allclose(rows_of(run, arm)[RAW], alone[RAW], atol=1e-6)
    own = run / "ablation" / arm
    pd.testing.assert_frame_equal(
        rows_of(own, arm).reset_index(drop=True), rows_of(run, arm).reset_index(drop=True)
    )
    result = cli("test", "--ckpt_path", own, cwd=tmp_path)
    assert result.code == 0, result.err


def test_readings_are_those_of_the_model_asked_directly(ablated):
    run, _ = ablated
    path = run / "checkpoints" / "best.ckpt"
    model = FusionModule.load_from_checkpoint(path).eval()
    data = RadiographDataModule.from_checkpoint(torch.load(path, weights_only=True))
    batch = torch.utils.data.default_collate([*data.test_dataloader().dataset])
    batch = model.on_after_batch_transfer(batch, 0)
    test = np.flatnonzero(data.rows["split"] == "test")

    def asked(**changed):
        with torch.no_grad():
            return model({**batch, **changed}).softmax(dim=1).numpy()[test]

    for arm, column in (("fused_without_image", 0), ("fused_without_clinical", 1)):
        present = batch["present"].clone()
        present[:, column] = False
        told = rows_of(run, arm)[RAW]
        np.testing.assert_allclose(told, asked(present=present), atol=1e-6)
        assert not np.allclose(told, rows_of(run, "fused", "test")[RAW], atol=1e-3)

    partners = shuffled_partners(data.rows["group"].to_numpy()[test], 42)
    image = batch["image"].clone()
    image[test] = batch["image"][test[partners]]
    told = rows_of(run, "fused_shuffled_images")[RAW]
    np.testing.assert_allclose(told, asked(image=image), atol=1e-6)
    films = data.rows["image_sha256"].to_numpy()[test]
    assert (films != films[partners]).all()
    subjects = data.rows["subject_id"].to_numpy()[test]
    assert (subjects != subjects[partners]).all()


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(0, 2**32 - 1))
def test_nobody_keeps_a_film_of_their_group(groups, seed):
    partners = shuffled_partners(groups, seed)
    largest = max((groups.count(group) for group in groups), default=0)
    if not groups or 2 * largest > len(groups):
        assert partners is None
        return
    assert sorted(partners) == list(range(len(groups)))
    assert all(groups[i] != groups[partner] for i, partner in enumerate(partners))
    assert partners.tolist() == shuffled_partners(groups, seed).tolist()


def test_another_seed_shuffles_otherwise():
    shuffles = {tuple(shuffled_partners(range(30), seed)) for seed in range(5)}
    assert len(shuffles) == 5


def test_a_finished_ablation_is_scored_again_and_not_trained(cli, ablated, tmp_path):
    run = tmp_path / "runs" / "binary" / "version_0"
    shutil.copytree(ablated[0], run)
    before, metrics = weights(run / "ablation"), (run / "metrics.json").read_text()
    (run / "metrics.json").unlink()
    result = cli.fit(*ON, "--ckpt_path", "last", cwd=tmp_path)
    assert result.out.count("is trained already") == 2
    assert weights(run / "ablation") == before
    assert json.loads((run / "metrics.json").read_text()) == json.loads(metrics)


@pytest.mark.slow
def test_more_epochs_are_gone_on_to_in_every_arm(cli, ablated, tmp_path):
    run = tmp_path / "runs" / "binary" / "version_0"
    shutil.copytree(ablated[0], run)
    options = ("--ablation", "true", "--trainer.max_epochs", 3)
    result = cli.fit(*options, "--ckpt_path", "last", cwd=tmp_path)
    assert result.out.count("going on with the") == 2
    for folder in (run, run / "ablation" / "image", run / "ablation" / "tabular"):
        last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert last["epoch"] == 2
    cli.fit(*options, cwd=tmp_path)
    whole = read_predictions(tmp_path / "runs" / "binary" / "version_1" / "predictions.csv")
    parts = read_predictions(run / "predictions.csv")
    pd.testing.assert_frame_equal(parts, whole, atol=1e-6, rtol=0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_kill_in_an_arm_leaves_a_run_that_goes_on(cli, tmp_path):
    options = [*cli.toy, "--ablation", "true", "--early_stopping.patience", "9999"]
    epochs = 6
    arguments = (*options, "--trainer.max_epochs", epochs)
    run = tmp_path / "runs" / "binary" / "version_0"
    begun = run / "ablation" / "image" / "checkpoints" / "last.ckpt"
    cli.killed_once(begun, "fit", "--config", "binary.yaml", *arguments, cwd=tmp_path)
    assert torch.load(begun, weights_only=True)["epoch"] < epochs - 1
    (begun.parent / ".last-abcdef.ckpt").write_bytes(b"torn")
    fused = weights(run / "checkpoints")

    result = cli(
        *("fit", "--config", "binary.yaml", *arguments, "--ckpt_path", "last"), cwd=tmp_path
    )
    assert result.code == 0, result.err
    assert "going on with the image arm" in result.out
    assert "training the tabular arm" in result.out
    assert weights(run / "checkpoints") == fused
    assert not list(run.rglob(".*.ckpt"))
    whole = cli("fit", "--config", "binary.yaml", *arguments, cwd=tmp_path)
    assert whole.code == 0, whole.err
    pd.testing.assert_frame_equal(
        read_predictions(run / "predictions.csv"),
        read_predictions(tmp_path / "runs" / "binary" / "version_1" / "predictions.csv"),
        atol=1e-6,
        rtol=0,
    )


def fit_plainly(demo, folder, seed=0, **options):
    """The callback with a trainer of one's own."""
    torch.manual_seed(seed)
    data = RadiographDataModule(root=str(demo), image_size=32)
    module = FusionModule(
        data.class_names,
        data.clinical,
        data.class_counts,
        backbone="test_resnet.r160_in1k",
        pretrained=False,
    )
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[ModalityAblation(**options), PredictionWriter(folder)],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)


def test_with_a_trainer_of_ones_own(demo, tmp_path, capsys):
    fit_plainly(demo, tmp_path)
    assert list(read_predictions(tmp_path / "predictions.csv")["arm"].unique()) == [
        *TRAINED,
        *READINGS,
    ]
    before = weights(tmp_path / "ablation")
    capsys.readouterr()
    fit_plainly(demo, tmp_path)
    assert capsys.readouterr().out.count("is trained already") == 2
    assert weights(tmp_path / "ablation") == before
    # Arms of another seed would be compared with another model's rows.
    fit_plainly(demo, tmp_path, seed=1)
    assert capsys.readouterr().out.count("is trained already") == 0
    assert set(read_predictions(tmp_path / "predictions.csv")["seed"]) == {1}


def test_readings_alone_train_nothing(demo, tmp_path):
    fit_plainly(demo, tmp_path, train_arms=False)
    arms = read_predictions(tmp_path / "predictions.csv")["arm"].unique()
    assert list(arms) == ["fused", *READINGS]
    assert not (tmp_path / "ablation").exists()
    assert (tmp_path / "ablation.csv").is_file()


def test_a_writer_is_needed():
    trainer = Trainer(logger=False, enable_checkpointing=False, callbacks=[ModalityAblation()])
    with pytest.raises(ConfigError, match="add one to the trainer's callbacks"):
        ModalityAblation().setup(trainer, None, "fit")


def test_a_cohort_without_images_has_nothing_to_ablate(cli, clinic, tmp_path):
    rng = np.random.default_rng(0)
    clinic.rows = [
        {**row, "Patient ID": f"{row['Patient ID']}{i}", "Age": int(rng.integers(30, 90))}
        for row in clinic.rows
        for i in range(6)
    ]
    del clinic.manifest["images"]
    options = ("--data.manifest", clinic.write(), "--data.root", clinic.root)
    result = cli.fit(*options, "--ablation", "true", cwd=tmp_path)
    said = "has no images, so the tabular arm is trained alone. There is nothing to ablate."
    assert said in " ".join(result.out.split())
    assert not list((tmp_path / "runs").rglob("ablation*"))


def test_a_frozen_backbone_is_ablated_too(cli, tmp_path):
    frozen = ("--model.frozen_backbone", "true", "--data.augmentation", "null")
    cli.fit(*frozen, "--ablation", "true", cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    for arm in (*TRAINED, *READINGS):
        assert len(rows_of(run, arm))


def test_a_fused_checkpoint_is_tested_without_its_ablation(cli, ablated, tmp_path):
    result = cli("test", "--ckpt_path", ablated[0], cwd=tmp_path)
    assert result.code == 0, result.err
    table = read_predictions(tmp_path / "runs" / "test" / "version_0" / "predictions.csv")
    assert set(table["arm"]) == {"fused"}
    np.testing.assert_allclose(table[RAW], rows_of(ablated[0], "fused")[RAW], atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over subprocesses")
@pytest.mark.slow
def test_two_processes_ablate_one_run(cli, tmp_path):
    distributed = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, "-m", "osteofusion", "fit", "--config", "binary.yaml", *cli.toy]
    done = subprocess.run(
        [*command, *distributed, "--ablation=true"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for once in ("training the image arm", "training the tabular arm", "Run folder:"):
        assert done.stdout.count(once) == 1, done.stdout
    run = tmp_path / "runs" / "binary" / "version_0"
    table = read_predictions(run / "predictions.csv")
    assert list(table["arm"].unique()) == [*TRAINED, *READINGS]
    assert not table.duplicated(["arm", "image"]).any()
    sizes = table["arm"].value_counts()
    assert {sizes[arm] for arm in TRAINED} == {59}  # odd, so that a process had a copy to drop
    for arm in ("image", "tabular"):
        result = cli("test", "--ckpt_path", run / "ablation" / arm, cwd=tmp_path)
        assert result.code == 0, result.err
    alone = read_predictions(tmp_path / "runs" / "test" / "version_0" / "predictions.csv")
    np.testing.assert_allclose(rows_of(run, "image")[RAW], alone[RAW], atol=1e-6)
