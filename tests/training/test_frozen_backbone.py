"""A frozen backbone runs once a radiograph, and nothing else about training changes."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import RadiographPreprocessing, content_hash
from osteofusion.errors import ConfigError, RadiographError
from osteofusion.models import ImageEncoder
from osteofusion.training.callbacks import StepSeed
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.features import FeatureStore, fingerprint
from osteofusion.training.finetuning import TwoPhaseFinetuning
from osteofusion.training.module import FusionModule

FROZEN = ("--model.frozen_backbone", "true", "--data.augmentation", "null")


class Freeze(Callback):
    """An ordinary backbone, frozen by hand: it runs at every step."""

    def on_fit_start(self, trainer, pl_module):
        pl_module.model.image_encoder.freeze()


def data_of(demo, **options):
    settings = {"root": str(demo), "image_size": 32, "augmentation": None, "num_workers": 0}
    return RadiographDataModule(**{**settings, **options})


def module_of(data, **options):
    seed_everything(0, verbose=False)
    settings = {"backbone": "test_resnet.r160_in1k", "pretrained": False, "arm": "fused"}
    return FusionModule(
        class_names=data.class_names,
        clinical=data.clinical,
        class_counts=data.class_counts,
        **{**settings, **options},
    )


def fit(module, data, *callbacks, epochs=2):
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[StepSeed(), *callbacks],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize("fusion", ["gated", "film", "cross_attention", "residual_late"])
def test_it_equals_a_backbone_that_is_frozen_and_runs_at_every_step(demo, fusion):
    data, plain_data = data_of(demo), data_of(demo)
    once = module_of(data, fusion=fusion, frozen_backbone=True)
    before = {name: value.clone() for name, value in once.state_dict().items()}
    every = module_of(plain_data, fusion=fusion)
    assert data.seed == plain_data.seed  # taken now: a step of training changes PyTorch's
    fit(once, data)
    fit(every, plain_data, Freeze())

    assert "image_features" in next(iter(data.train_dataloader()))
    assert "image_features" not in next(iter(plain_data.train_dataloader()))
    for name, value in once.state_dict().items():
        torch.testing.assert_close(
            value, every.state_dict()[name], atol=1e-5, rtol=0, equal_nan=True
        )
        if "image_encoder" in name:
            torch.testing.assert_close(value, before[name], atol=0, rtol=0)
    trained = [name for name in before if name.startswith("model.fusion")]
    assert any(not torch.equal(before[name], once.state_dict()[name]) for name in trained)


def test_another_module_does_not_read_the_features(demo):
    data = data_of(demo)
    first = module_of(data, frozen_backbone=True)
    fit(first, data, epochs=1)
    other = module_of(data, frozen_backbone=True)
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(other, datamodule=data, verbose=False)
    assert data.features is None


def test_a_frozen_backbone_is_not_in_the_optimiser(demo):
    data = data_of(demo)
    module = module_of(data, frozen_backbone=True)
    encoder = {id(p) for p in module.model.image_encoder.parameters()}
    held = {id(p) for g in module.configure_optimizers().param_groups for p in g["params"]}
    assert held == {id(p) for p in module.parameters()} - encoder


def test_a_run_is_complete_and_reads_new_images(cli, demo, tmp_path):
    cli.fit(*FROZEN, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    fitted = pd.read_csv(run / "predictions.csv")
    for command in ("test", "predict"):
        result = cli(command, "--ckpt_path", run, "--data.root", demo, cwd=tmp_path)
        assert result.code == 0, result.err
        again = pd.read_csv(tmp_path / "runs" / command / "version_0" / "predictions.csv")
        np.testing.assert_allclose(again["raw_low_bmd"], fitted["raw_low_bmd"], atol=1e-5)


def test_resuming_equals_not_having_stopped(cli, tmp_path):
    options = (*FROZEN, "--early_stopping.patience", 99)
    cli.fit(*options, "--trainer.max_epochs", 3, cwd=tmp_path)
    cli.fit(*options, "--trainer.max_epochs", 1, cwd=tmp_path)
    cli.fit(*options, "--trainer.max_epochs", 3, "--ckpt_path", "last", cwd=tmp_path)
    whole, parts = (
        torch.load(
            tmp_path / "runs" / "binary" / f"version_{i}" / "checkpoints" / "last.ckpt",
            weights_only=True,
        )["state_dict"]
        for i in (0, 1)
    )
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], atol=1e-6, rtol=0, equal_nan=True)


def test_augmentation_is_honoured_and_said_to_cost_time(cli, tmp_path):
    result = cli.fit("--model.frozen_backbone", "true", cwd=tmp_path)
    assert any("--data.augmentation null" in said for said in result.warnings)


def test_the_tabular_arm_has_nothing_to_freeze(cli, tmp_path):
    result = cli.fit(*FROZEN, "--model.arm", "tabular", cwd=tmp_path)
    assert result.warnings == []


def test_two_phases_and_a_frozen_backbone_contradict_each_other(demo):
    data = data_of(demo)
    module = module_of(data, frozen_backbone=True)
    with pytest.raises(ConfigError, match="frozen_backbone"):
        fit(module, data, TwoPhaseFinetuning())


# ---- features on disk ----


@pytest.fixture
def store(tmp_path):
    return lambda encoder, pooled=True: FeatureStore(
        tmp_path / "features",
        encoder,
        RadiographCache(tmp_path / "radiographs", RadiographPreprocessing(32)),
        pooled=pooled,
    )


@pytest.fixture
def film(tmp_path, clinic):
    path = tmp_path / "film.png"
    path.write_bytes(clinic.radiograph("A"))
    return path, content_hash(path)


def encoder_of(seed):
    torch.manual_seed(seed)
    return ImageEncoder("test_resnet.r160_in1k")


def test_entries_are_of_one_encoder_and_one_kind(store, film):
    one, two = encoder_of(1), encoder_of(2)
    assert fingerprint(one) == fingerprint(encoder_of(1)) != fingerprint(two)
    first = store(one).read([film]).get(film[1])
    assert not torch.equal(first, store(two).read([film]).get(film[1]))
    assert store(one, pooled=False).read([film]).get(film[1]).ndim == 3
    film[0].unlink()  # now only the disk knows
    assert torch.equal(first, store(encoder_of(1)).read([film]).get(film[1]))


def test_a_damaged_entry_is_computed_again(store, film, tmp_path):
    first = store(encoder_of(1)).read([film]).get(film[1])
    entry = next((tmp_path / "features").rglob("*.npy"))
    for damage in (entry.read_bytes()[:50], entry.read_bytes()[:-4], b""):
        entry.write_bytes(damage)
        assert torch.equal(first, store(encoder_of(1)).read([film]).get(film[1]))


def test_a_changed_file_is_refused(store, film):
    with pytest.raises(RadiographError, match="has changed"):
        store(encoder_of(1)).read([(film[0], "0" * 64)])


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over subprocesses")
@pytest.mark.slow
def test_two_processes_share_the_work(cli, tmp_path):
    """Plain DDP, which waits for a gradient of all that is trained."""
    command = [sys.executable, "-m", "osteofusion", "fit", "--config", "binary.yaml", *cli.toy]
    distributed = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OSTEOFUSION_CACHE": str(tmp_path / "c")}
    done = subprocess.run(
        [*command, *FROZEN, *distributed, "--ablation=false"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "binary" / "version_0"
    table = pd.read_csv(run / "predictions.csv")
    films = pd.read_csv(run / "cohort.csv")["image_sha256"]
    assert len(list((tmp_path / "c" / "features").rglob("*.npy"))) == films.nunique()
    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    alone = pd.read_csv(tmp_path / "runs" / "test" / "version_0" / "predictions.csv")
    np.testing.assert_allclose(alone["raw_low_bmd"], table["raw_low_bmd"], atol=1e-5)


def test_training_leaves_the_regression_as_it_was_fitted(demo):
    """A narrow prior also holds the rest of the tabular arm to it; a wide one does not."""
    moved = {}
    for sd in (0.01, 10.0):
        data = data_of(demo, arm="tabular")
        module = module_of(data, arm="tabular", correction_sd=sd, learning_rate=0.03)
        rows = data.rows
        clinical = torch.tensor(data.schema.encode(rows))
        start = module_of(data, arm="tabular").model.eval()
        train = data.side("train")
        start.start_from_regression(
            torch.tensor(data.schema.encode(train)),
            torch.tensor(data.codes(train)),
            module.class_weights,
        )
        fit(module, data, epochs=5)
        module.eval()
        torch.testing.assert_close(module.model.skip.weight, start.skip.weight)
        with torch.no_grad():
            gap = module.model(clinical=clinical).softmax(1) - start(clinical=clinical).softmax(1)
        moved[sd] = float(gap.abs().max())
    # No fixed bound: Adam's steps are as long as the learning rate however strong the prior, so
    # the narrow one's rest is theirs (0.058 at 0.03, 0.006 at 0.003; the wide one's 0.27 and 0.02).
    assert moved[10.0] > 3 * moved[0.01]
