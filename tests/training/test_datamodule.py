"""The data module by itself, as an engineer uses it in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osteofusion.data.manifest import load_manifest
from osteofusion.data.transforms import Augmentation
from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.trained import FROZEN


@pytest.fixture
def data(demo):
    def make(**options):
        return RadiographDataModule(root=str(demo), image_size=32, **options)

    return make


@pytest.fixture(scope="module")
def checkpoint(trained):
    return torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)


def test_class_counts_are_those_of_the_training_rows(data):
    three = data(task="three_class")
    counts = three.side("train")["label"].value_counts()
    assert three.class_counts == [counts[name] for name in three.class_names]


def test_a_sampler_that_evens_out_classes_is_counted_so(data):
    sampled = data(task="three_class", balanced_sampler=True)
    assert len(set(sampled.class_counts)) == 1
    assert sum(sampled.class_counts) == pytest.approx(len(sampled.side("train")))
    sampler = sampled.train_dataloader().sampler
    codes = sampled.codes(sampled.side("train"))
    drawn = []
    for epoch in range(60):
        sampler.set_epoch(epoch)
        drawn += [codes[row] for row, _ in sampler]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)


def test_training_batches_are_bytes_and_evaluation_is_not_augmented(data):
    module = data(batch_size=7)
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (7, 1, 32, 32)
    assert batch["image"].dtype == torch.uint8
    first, second = (next(iter(module.val_dataloader()))["image"] for _ in range(2))
    assert torch.equal(first, second)


def test_a_process_with_less_than_a_batch_still_trains(data):
    module = data(batch_size=30)
    loader = module.train_dataloader()
    assert 30 < len(module.side("train")) < 60
    assert len(loader) == 1
    module.trainer = type("Two", (), {"world_size": 2, "global_rank": 1})()
    assert len(module.train_dataloader()) == 1  # half the rows are fewer than a batch


def test_evaluation_covers_every_row_once(data):
    module = data()
    seen = torch.cat([batch["index"] for batch in module.test_dataloader()])
    assert sorted(seen.tolist()) == module.rows.index.tolist()


def test_the_tabular_arm_reads_no_image(data, demo, tmp_path):
    module = data(arm="tabular", cache_dir=str(tmp_path / "cache"))
    module.prepare_data()
    assert "image" not in next(iter(module.train_dataloader()))
    assert not (tmp_path / "cache").exists()


def test_features_are_fitted_on_the_training_rows_alone(data):
    module = data()
    names = ["age", "height", "weight", "bmi", "walking_distance"]
    numbers = [module.schema.names.index(name) for name in names]
    fill = np.array(module.clinical["preprocessing"]["fill"])[numbers]
    medians = {
        side: np.nanmedian(module.schema.encode(rows)[:, numbers], axis=0)
        for side, rows in (("train", module.side("train")), ("all", module.rows))
    }
    np.testing.assert_allclose(fill, medians["train"])
    assert not np.allclose(fill, medians["all"])


@pytest.mark.parametrize("name", sorted(set(FROZEN) - {"features", "arm", "task"}))
def test_what_a_model_fixes_cannot_be_changed(checkpoint, name):
    other = {
        "image_size": 64,
        "clahe": True,
        "augmentation": Augmentation(rotation=1),
        "balanced_sampler": True,
        "splits": "x.csv",
        "folds": 3,
    }.get(name, 1)
    with pytest.raises(ConfigError, match=f"{name}=.* would be ignored"):
        RadiographDataModule.from_checkpoint(checkpoint, **{name: other})


def test_from_checkpoint_keeps_split_seed_and_encoding(checkpoint, data):
    trained = RadiographDataModule.from_checkpoint(checkpoint, batch_size=3)
    assert trained.hparams["batch_size"] == 3
    fresh = data()
    assert trained.rows["split"].equals(fresh.rows["split"])
    assert trained.clinical == fresh.clinical
    assert trained.seed == 42
    assert (
        trained.hparams["augmentation"] == checkpoint["datamodule_hyper_parameters"]["augmentation"]
    )


def test_part_of_the_training_cohort_keeps_its_sides(checkpoint, demo, tmp_path):
    import shutil

    root = shutil.copytree(demo, tmp_path / "part")
    gone = sorted((root / "normal").iterdir())[0]
    gone.unlink()
    part = RadiographDataModule.from_checkpoint(checkpoint, root=str(root))
    whole = RadiographDataModule.from_checkpoint(checkpoint)
    sides = whole.rows.set_index("image")["split"]
    assert part.rows.set_index("image")["split"].equals(sides.drop(f"normal/{gone.name}"))


def test_state_tells_changed_rows(data, demo, tmp_path):
    state = data().state_dict()
    data().refuse_changes(state)
    data(batch_size=2).refuse_changes(state)
    for other in (data(split_seed=1), data(test=0.3)):
        with pytest.raises(OsteofusionError, match="has changed since"):
            other.refuse_changes(state)


def test_relative_paths_survive_another_working_directory(demo, monkeypatch, tmp_path):
    monkeypatch.chdir(demo.parent)
    module = RadiographDataModule(root=demo.name)
    monkeypatch.chdir(tmp_path)
    assert len(module.cohort.table) == 59


def test_two_processes_may_draw_the_demo_at_once(monkeypatch, tmp_path):
    """The slower one takes the folder that the faster one has put there meanwhile."""
    from osteofusion.data import demo

    draw = demo.write_demo

    def overtaken(root, region):
        draw(root, subjects=40, region=region)
        return draw(root, subjects=40, region=region)

    monkeypatch.setenv("OSTEOFUSION_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "write_demo", overtaken)
    assert len(RadiographDataModule(arm="tabular").cohort.table) == 39


def test_shipped_folds_are_found_by_name(tmp_path, monkeypatch):
    shipped = RadiographDataModule(splits="mendeley_folds.csv").hparams["splits"]
    assert shipped == load_manifest("mendeley").splits
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mendeley_folds.csv").write_text("mine")
    mine = RadiographDataModule(splits="mendeley_folds.csv").hparams["splits"]
    assert mine == str(tmp_path / "mendeley_folds.csv")
