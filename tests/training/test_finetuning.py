"""Two-phase fine-tuning: what is frozen when, at which rates, and over an interruption."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
import yaml

from osteofusion.errors import ConfigError
from osteofusion.training.finetuning import TwoPhaseFinetuning


def config(folder, **options):
    """A config file, since lists of callbacks are what configs are for."""
    callback = {
        "class_path": "osteofusion.training.finetuning.TwoPhaseFinetuning",
        "init_args": {"frozen_epochs": 2, "learning_rate": 1e-4, **options},
    }
    path = folder / "two_phase.yaml"
    path.write_text(
        yaml.safe_dump({"early_stopping": {"patience": 99}, "trainer": {"callbacks": [callback]}})
    )
    return path


def state(folder, epochs_run, name="two_phase"):
    run = folder / "runs" / name / f"version_{epochs_run}"
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def fit(cli, folder, epochs, *options, **init):
    path = config(folder, **init)
    return cli.fit("--trainer.max_epochs", epochs, *options, cwd=folder, config=str(path))


def backbone(checkpoint):
    return {k: v for k, v in checkpoint["state_dict"].items() if ".backbone." in k}


def test_the_backbone_keeps_weights_and_statistics_until_the_second_phase(cli, tmp_path):
    for epochs in (1, 2, 3):
        fit(cli, tmp_path, epochs)
    one, two, three = (backbone(state(tmp_path, i)) for i in range(3))
    assert any("running_mean" in name for name in one)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    changed = [name for name, value in three.items() if not torch.equal(value, two[name])]
    assert any("running_mean" in name for name in changed)
    assert any("conv" in name and "weight" in name for name in changed)


def test_a_second_phase_that_is_never_reached_is_said(cli, tmp_path):
    assert any("never trained" in said for said in fit(cli, tmp_path, 2).warnings)
    assert not any("never trained" in said for said in fit(cli, tmp_path, 3).warnings)


def test_a_run_resumed_in_either_phase_equals_an_uninterrupted_one(cli, tmp_path):
    fit(cli, tmp_path, 4, cosine=False)
    for number, stop in ((1, 1), (2, 3)):
        fit(cli, tmp_path, stop)
        fit(cli, tmp_path, 4, "--ckpt_path", "last")
        whole, parts = state(tmp_path, 0), state(tmp_path, number)
        assert parts["epoch"] == whole["epoch"] == 3
        for name, value in whole["state_dict"].items():
            torch.testing.assert_close(
                parts["state_dict"][name], value, atol=1e-6, rtol=0, equal_nan=True, msg=name
            )


def test_rates_ramp_up_fall_and_grow_with_depth(cli, tmp_path):
    options = {"frozen_epochs": 1, "stage_decay": 0.5, "warmup_epochs": 1, "cosine": True}
    fit(cli, tmp_path, 3, **options)
    groups = state(tmp_path, 0)["optimizer_states"][0]["param_groups"]
    by_depth = {group["depth"]: group["lr"] for group in groups}
    assert len(by_depth) > 2
    for depth, rate in by_depth.items():
        assert rate == pytest.approx(by_depth[0] * 0.5**depth)
    assert 0 < by_depth[0] < 1e-4  # on the cosine's way down
    fit(cli, tmp_path, 2, **options)  # another schedule length, its warm-up epoch last
    warm = state(tmp_path, 1)["optimizer_states"][0]["param_groups"]
    assert {g["depth"]: g["lr"] for g in warm}[0] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    "wrong", [{"frozen_epochs": 0}, {"learning_rate": 0.0}, {"stage_decay": 2.0}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TwoPhaseFinetuning(**wrong)


def test_the_tabular_arm_has_nothing_to_freeze(cli, tmp_path):
    path = config(tmp_path)
    result = cli("fit", "--config", path, *cli.toy, "--model.arm", "tabular", cwd=tmp_path)
    assert result.code == 2
    assert "image encoder" in result.err


def test_lightnings_weight_averaging_can_be_used(cli, tmp_path):
    path = tmp_path / "averaged.yaml"
    callback = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging"}
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    cli.fit("--trainer.max_epochs", 2, cwd=tmp_path, config=str(path))
    run = tmp_path / "runs" / "averaged" / "version_0"
    assert len(pd.read_csv(run / "predictions.csv")) == 59
