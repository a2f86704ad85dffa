"""The Lightning module: complete checkpoints, honest losses, a model without the command line."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Trainer

from osteofusion.errors import ConfigError
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule

PREPROCESSING_FREE = {"schema": [], "preprocessing": None}


def module(**options):
    settings = {
        "class_names": ["normal", "low_bmd"],
        "clinical": PREPROCESSING_FREE,
        "class_counts": [10.0, 30.0],
        "arm": "image",
        "backbone": "test_resnet.r160_in1k",
        "pretrained": False,
    }
    return FusionModule(**{**settings, **options})


def plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str)


def test_a_checkpoint_is_read_without_pickle_and_holds_plain_values(trained):
    for name in ("best", "last"):
        content = torch.load(trained / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert plain(dict(content["hyper_parameters"]))
        assert plain(dict(content["datamodule_hyper_parameters"]))


def test_a_bare_reload_reproduces_the_predictions(trained, tmp_path, monkeypatch):
    """Three lines of Python, elsewhere, without the hub: the same probabilities."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = trained / "checkpoints" / "best.ckpt"
    model = FusionModule.load_from_checkpoint(path)
    data = RadiographDataModule.from_checkpoint(torch.load(path, weights_only=True))
    trainer = Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = trainer.predict(model, datamodule=data)
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    raw = torch.cat([batch["probability"] for batch in batches]).numpy()
    table = pd.read_csv(trained / "predictions.csv")
    assert index.tolist() == table.index.tolist()
    np.testing.assert_allclose(raw, table[["raw_normal", "raw_low_bmd"]], atol=1e-6)


def test_a_reload_needs_no_weights_file(cli, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(module().model.image_encoder.backbone.state_dict(), weights)
    cli.fit("--model.pretrained", weights, "--model.arm", "image", cwd=tmp_path)
    weights.unlink()
    run = tmp_path / "runs" / "binary" / "version_0"
    FusionModule.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["pretrained"] == str(weights)


def test_automatic_weights_are_inverse_frequencies():
    logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1])
    auto, none = module(), module(class_weights=None)
    fixed = module(class_weights=[2.0, 2 / 3])
    mixed = torch.tensor([0, 1])
    assert auto.criterion(logits, mixed) == pytest.approx(float(fixed.criterion(logits, mixed)))
    assert auto.criterion(logits, mixed) != pytest.approx(float(none.criterion(logits, mixed)))
    # One class alone: a weighted mean does not see its weight.
    assert auto.criterion(logits, target) == pytest.approx(float(none.criterion(logits, target)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_weights": [1.0]}, "has 1 entries"),
        ({"class_weights": [1.0, float("nan")]}, "class_weights"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"dropout": -1.0}, "dropout"),
        ({"loss": "focal", "focal_gamma": -2.0}, "gamma"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        module(**options)


def test_balanced_classes_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(class_counts=[20.0, 20.0])


def test_optimizer_groups_cover_every_parameter_once():
    built = module(learning_rate=0.1, backbone_learning_rate=0.01, weight_decay=0.5)
    groups = built.configure_optimizers().param_groups
    inside = [parameter for group in groups for parameter in group["params"]]
    assert len(inside) == len({id(p) for p in inside}) == len(list(built.model.parameters()))
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    for name, parameter in built.model.named_parameters():
        rate = 0.01 if name.startswith("image_encoder.") else 0.1
        decay = 0.5 if parameter.ndim > 1 else 0.0
        assert rates[id(parameter)] == (rate, decay), name


def test_pixels_become_intensities():
    batch = {"image": torch.tensor([[[[0, 51], [255, 102]]]], dtype=torch.uint8)}
    image = module().on_after_batch_transfer(batch, 0)["image"]
    assert image.dtype == torch.float32
    assert image.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0, 0.4])
