"""The main job on the real cohort, at its real size; minutes each."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

pytestmark = pytest.mark.slow


def run_of(folder, config):
    return folder / "runs" / config / "version_0"


@pytest.fixture(scope="module", params=["binary", "three_class"])
def run(request, cli, mendeley, tmp_path_factory):
    """Run folder of a shipped config as it stands, on the real cohort."""
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp(request.param)
    real = ("--data.manifest", "mendeley", "--data.root", mendeley)
    result = cli("fit", "--config", f"{request.param}.yaml", *real, cwd=folder)
    assert result.code == 0, result.err
    print(result.out)
    return run_of(folder, request.param)


def test_another_folder_and_plain_python_give_the_same_figures(run, cli, tmp_path):
    from osteofusion.training.datamodule import RadiographDataModule
    from osteofusion.training.module import FusionModule

    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    again = run_of(tmp_path, "test")
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (run, again))
    assert one == other

    path = run / "checkpoints" / "best.ckpt"
    module = FusionModule.load_from_checkpoint(path).eval()
    content = torch.load(path, map_location="cpu", weights_only=True)
    data = RadiographDataModule.from_checkpoint(content)
    data.prepare_data()
    data.setup("test")
    written = pd.read_csv(run / "predictions.csv")
    columns = [f"p_{name}" for name in data.class_names]
    with torch.no_grad():
        for batch in data.test_dataloader():
            logits = module(module.on_after_batch_transfer(batch, 0))
            expected = written.loc[batch["index"].numpy(), columns].to_numpy()
            np.testing.assert_allclose(logits.softmax(dim=1).numpy(), expected, atol=1e-6)


def test_one_radiograph_one_prediction(run):
    written = pd.read_csv(run / "predictions.csv")
    assert len(written) == 239
    assert not written.duplicated(["subject_id", "image"]).any()
    sides = written.groupby("group")["split"].nunique()
    assert (sides == 1).all()


def test_another_backbone_without_pretrained_weights(cli, mendeley, tmp_path):
    torch.set_num_threads(2)
    options = ("--model.backbone", "densenet121", "--model.pretrained", "false")
    real = ("--data.manifest", "mendeley", "--data.root", mendeley)
    result = cli(
        "fit", "--config", "binary.yaml", *options, *real, "--trainer.max_epochs", 1, cwd=tmp_path
    )
    assert result.code == 0, result.err
    assert (run_of(tmp_path, "binary") / "metrics.json").is_file()
