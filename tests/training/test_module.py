"""The Lightning module: complete checkpoints, honest losses, a model without the command line."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
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


# ---- losses beside the classes ----

EVERYTHING = {
    "auxiliary_weight": 0.3,
    "t_score_weight": 0.1,
    "modality_dropout": 0.2,
    "label_smoothing": 0.1,
    "loss": "focal",
    "focal_alpha": 0.25,
}


def test_all_losses_train_together_from_options(cli, tmp_path):
    options = [f"--model.{name}={value}" for name, value in EVERYTHING.items()]
    cli.fit(*options, cwd=tmp_path)
    run = tmp_path / "runs/binary/version_0"
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    learnt = content["state_dict"]
    for part in ("image_head", "clinical_head", "t_score_head"):
        assert any(f"model.{part}." in key for key in learnt), part
    assert cli("test", "--ckpt_path", run, cwd=tmp_path).code == 0


def test_each_loss_beside_the_classes_reaches_its_weights(demo):
    data = RadiographDataModule(root=str(demo), image_size=32, batch_size=8)
    batch = next(iter(data.train_dataloader()))
    assert batch["t_score"].isfinite().all()
    given = {"class_names": data.class_names, "clinical": data.clinical, "arm": "fused"}

    def loss_and_heads(**options):
        torch.manual_seed(0)
        built = module(**given, **options)
        ready = built.on_after_batch_transfer(batch, 0)
        built.log = built.log_dict = lambda *_, **__: None
        loss = built.training_step(ready, 0)
        loss.backward()
        heads = {
            name: parameter.grad is not None and parameter.grad.abs().sum() > 0
            for name, parameter in built.model.named_parameters()
            if name.startswith(("image_head", "clinical_head", "t_score_head"))
        }
        return loss.item(), heads

    plain_loss, none = loss_and_heads()
    assert none == {}
    for option in ("auxiliary_weight", "t_score_weight"):
        loss, heads = loss_and_heads(**{option: 0.5})
        assert loss != pytest.approx(plain_loss, abs=1e-3)
        assert heads
        assert all(heads.values())


def test_validation_loss_counts_the_classes_alone(demo):
    data = RadiographDataModule(root=str(demo), image_size=32, batch_size=8)
    given = {"class_names": data.class_names, "clinical": data.clinical, "arm": "fused"}
    batch = next(iter(data.val_dataloader()))
    losses = []
    for options in ({}, {"auxiliary_weight": 0.5, "t_score_weight": 0.5}):
        torch.manual_seed(0)
        built = module(**given).eval()
        other = module(**given, **options).eval()
        other.load_state_dict(built.state_dict(), strict=False)
        ready = other.on_after_batch_transfer(batch, 0)
        seen = {}
        other.log = lambda name, value, seen=seen, **_: seen.update({name: value.item()})
        other.log_dict = lambda *_, **__: None
        other.validation_step(ready, 0)
        losses.append(seen["val_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auxiliary_weight": 0.3}, "the image arm has one modality"),
        ({"modality_dropout": 0.3}, "the image arm has one modality"),
        ({"t_score_weight": -1.0}, r"model\.t_score_weight is -1\.0"),
        ({"focal_alpha": 0.3}, "cross_entropy has no such factor"),
        ({"label_smoothing": 1.5}, "expected a share"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        module(**options)


def test_a_t_score_target_needs_t_scores(cli, demo, tmp_path):
    manifest = tmp_path / "no_score.yaml"
    content = yaml.safe_load((Path(__file__).parents[2] / "manifests/demo.yaml").read_text())
    del content["label"]["t_score"]
    manifest.write_text(yaml.safe_dump(content))
    result = cli(
        "fit", "--config", "binary.yaml", *cli.toy, "--data.manifest", manifest,
        "--model.t_score_weight", 0.1, cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 2
    assert "no training row has a T-score" in result.err


def test_a_misspelt_part_ends_the_sentence_with_its_question():
    with pytest.raises(ConfigError) as refused:
        module(head="softmx")
    assert str(refused.value).endswith("did you mean 'softmax'?")
