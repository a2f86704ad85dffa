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
from osteofusion.data.transforms import Augmentation, Augmenter
from osteofusion.errors import ConfigError, RadiographError
from osteofusion.models import ImageEncoder
from osteofusion.training.callbacks import StepSeed
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.features import FeatureStore, View, fingerprint
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


def fit(module, data, *callbacks, epochs=2, **options):
    trainer = Trainer(
        max_epochs=epochs,
        **options,
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


AUGMENTATION = Augmentation(rotation=20)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_view_is_what_the_backbone_makes_of_the_augmented_radiograph(demo, balanced, tmp_path):
    data = data_of(
        demo,
        augmentation=AUGMENTATION,
        augmentation_views=2,
        balanced_sampler=balanced,
        cache_dir=str(tmp_path),
    )
    module = module_of(data, frozen_backbone=True)
    module.on_fit_start = lambda: None
    module.use_features(data)
    encoder, loader = module.model.image_encoder.eval(), data.train_dataloader()
    rows, augmenter = data.side("train"), Augmenter(AUGMENTATION)
    images = [data.cache.get(*file) for file in data._images(rows)]
    seen = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        asked = list(loader.sampler)
        seen.append(pd.DataFrame(asked, columns=["row", "seed"]))
        pixels = np.stack([augmenter(images[i], seed) for i, seed in asked])
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(pixels)[:, None] / 255.0)
        given = torch.cat([batch["image_features"] for batch in loader])
        torch.testing.assert_close(given, expected[: len(given)], atol=1e-5, rtol=1e-5)
    of_a_row = pd.concat(seen).groupby("row")["seed"].nunique()
    assert of_a_row.max() == 2
    if not balanced:
        assert (of_a_row == 2).all()
        first, second, third = (each.set_index("row")["seed"].sort_index() for each in seen[:3])
        assert (first == third).all()
        assert (first != second).all()
    val = next(iter(data.val_dataloader()))
    film = data._images(data.side("val"))[0]
    with torch.inference_mode():
        plain = encoder(torch.from_numpy(data.cache.get(*film))[None, None] / 255.0)
    torch.testing.assert_close(val["image_features"][:1], plain, atol=1e-5, rtol=1e-5)


def test_views_are_computed_once_however_many_epochs_and_arms(demo, tmp_path):
    options = {"augmentation": AUGMENTATION, "augmentation_views": 3, "cache_dir": str(tmp_path)}
    for arm in ("fused", "image"):
        data = data_of(demo, arm=arm, **options)
        fit(module_of(data, arm=arm, frozen_backbone=True), data, epochs=5)
        entries = len(list(tmp_path.rglob("*.npy")))
        hashes = [data.side(side)["image_sha256"].nunique() for side in ("train", "val")]
        assert entries == 3 * hashes[0] + hashes[1]


def test_augmented_anew_only_training_rows_are_encoded_at_every_step(demo):
    data = data_of(demo, augmentation=AUGMENTATION)
    module = module_of(data, frozen_backbone=True)
    fit(module, data, epochs=1)
    assert "image" in next(iter(data.train_dataloader()))
    assert "image_features" in next(iter(data.val_dataloader()))
    assert "image_features" in next(iter(data.test_dataloader()))


class LooksEveryStep(TwoPhaseFinetuning):
    """The first phase as it would be without kept features."""

    def on_fit_start(self, trainer, pl_module):
        super().on_fit_start(trainer, pl_module)
        trainer.datamodule.frozen = None


class Served(Callback):
    """What the loaders serve in each epoch, and the validation loss."""

    def __init__(self):
        self.train, self.val, self.losses = {}, {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train.setdefault(trainer.current_epoch, set()).add("image_features" in batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not trainer.sanity_checking:
            self.val.setdefault(trainer.current_epoch, set()).add("image_features" in batch)

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.losses.append(float(trainer.callback_metrics["val_loss"]))


@pytest.mark.parametrize(("every", "frozen_epochs"), [(1, 2), (2, 2), (2, 3), (3, 1)])
def test_the_frozen_phase_of_two_looks_once_and_changes_nothing(demo, every, frozen_epochs):
    states, served = [], []
    for phases in (TwoPhaseFinetuning, LooksEveryStep):
        data = data_of(demo)
        module = module_of(data)
        assert data.seed is not None  # taken now: a step of training changes PyTorch's
        seen = Served()
        trainer = fit(
            module,
            data,
            phases(frozen_epochs=frozen_epochs, learning_rate=1e-3),
            seen,
            epochs=6,
            check_val_every_n_epoch=every,
        )
        states.append(module.state_dict())
        served.append(seen)
        assert trainer.current_epoch == 6
    for epoch, features in [*served[0].train.items(), *served[0].val.items()]:
        assert features == {epoch < frozen_epochs}
    assert len(served[0].val) == 6 // every
    np.testing.assert_allclose(served[0].losses, served[1].losses, atol=1e-4)
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=1e-4, rtol=1e-4, equal_nan=True)


def test_views_are_of_the_frozen_phase_alone(demo):
    data = data_of(demo, augmentation=AUGMENTATION, augmentation_views=2)
    seen = Served()
    fit(module_of(data), data, TwoPhaseFinetuning(frozen_epochs=2), seen, epochs=4)
    assert seen.train == {0: {True}, 1: {True}, 2: {False}, 3: {False}}
    assert seen.val == seen.train


@pytest.mark.parametrize(
    ("options", "frozen", "said"),
    [
        ({"augmentation_views": 2}, False, "no phase"),
        ({"augmentation_views": 0}, True, "at least 1"),
        ({"augmentation_views": 2, "augmentation": None}, True, "needs data.augmentation"),
    ],
)
def test_views_that_nobody_would_see_are_refused(demo, options, frozen, said):
    def train():
        data = data_of(demo, **{"augmentation": AUGMENTATION, **options})
        fit(module_of(data, frozen_backbone=frozen), data)

    with pytest.raises(ConfigError, match=said):
        train()


def test_another_module_does_not_read_the_features(demo):
    data = data_of(demo)
    first = module_of(data, frozen_backbone=True)
    fit(first, data, epochs=1)
    other = module_of(data, frozen_backbone=True)
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(other, datamodule=data, verbose=False)
    assert data.frozen is None


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


def test_it_is_said_what_the_backbone_sees(cli, tmp_path):
    views = ("--model.frozen_backbone", "true", "--data.augmentation_views", 2)
    for options, said in ((FROZEN, "each radiograph once"), (views, "2 augmentations of each")):
        result = cli.fit(*options, cwd=tmp_path)
        assert said in result.out
        # The first epoch's line has its own metrics.
        (line,) = [each for each in result.out.splitlines() if each.startswith("epoch 0")]
        assert "val_loss" in line
        assert "val_auroc" in line


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
    first = store(one).read([View(*film)]).get(film[1])
    assert not torch.equal(first, store(two).read([View(*film)]).get(film[1]))
    assert store(one, pooled=False).read([View(*film)]).get(film[1]).ndim == 3
    film[0].unlink()  # now only the disk knows
    assert torch.equal(first, store(encoder_of(1)).read([View(*film)]).get(film[1]))


def test_where_no_radiograph_is_there_are_still_zeros_to_stack(store, film):
    for pooled in (True, False):
        features = store(encoder_of(1), pooled).read([View(*film)]).get(film[1])
        assert torch.equal(
            store(encoder_of(1), pooled).read([]).get(""), torch.zeros_like(features)
        )


def test_a_damaged_entry_is_computed_again(store, film, tmp_path):
    first = store(encoder_of(1)).read([View(*film)]).get(film[1])
    entry = next((tmp_path / "features").rglob("*.npy"))
    for damage in (entry.read_bytes()[:50], entry.read_bytes()[:-4], b""):
        entry.write_bytes(damage)
        assert torch.equal(first, store(encoder_of(1)).read([View(*film)]).get(film[1]))


def test_a_changed_file_is_refused(store, film):
    with pytest.raises(RadiographError, match="has changed"):
        store(encoder_of(1)).read([View(film[0], "0" * 64)])


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
