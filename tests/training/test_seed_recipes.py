"""What the seeds ask for: double corrections that run and say so, and bad input in one sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from osteofusion.errors import SplitError
from osteofusion.models import balanced_class_weights
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule

TABULAR = ("--model.arm", "tabular")
BOTH = ("--data.balanced_sampler", "true", "--model.class_weights", "balanced")
FOCAL = ("--model.loss", "focal", "--model.focal_alpha", "0.25")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (BOTH, "2 times, by data.balanced_sampler and model.class_weights"),
        (FOCAL, "2 times, by model.class_weights and model.focal_alpha"),
        ((*BOTH, *FOCAL), "3 times"),
        # One factor for all of three classes evens out nothing.
        ((*FOCAL, "--data.task", "three_class"), None),
        ((*FOCAL, "--model.class_weights", "null"), None),
        (("--model.class_weights", "balanced"), None),
    ],
)
def test_a_double_correction_runs_and_says_so(cli, tmp_path, options, said):
    result = cli.fit(*TABULAR, *options, cwd=tmp_path)
    found = [text for text in result.warnings if "imbalance of the classes is corrected" in text]
    assert len(found) == (said is not None)
    if said is not None:
        assert said in found[0]


def test_balanced_weights_are_those_of_the_rows_whatever_the_sampler_draws(demo):
    weights = {}
    for sampler in (False, True):
        data = RadiographDataModule(root=str(demo), arm="tabular", balanced_sampler=sampler)
        facts = {
            "class_names": data.class_names,
            "clinical": data.clinical,
            "class_counts": data.class_counts,
            "row_counts": data.row_counts,
        }
        for kind in ("auto", "balanced"):
            module = FusionModule(**facts, arm="tabular", class_weights=kind)
            weights[kind, sampler] = module.class_weights
        counts = np.bincount(data.codes(data.side("train")))
    expected = balanced_class_weights(counts.tolist())
    assert weights["auto", False] == weights["balanced", False] == pytest.approx(expected)
    assert weights["balanced", True] == pytest.approx(expected)
    assert weights["auto", True] == [1.0, 1.0]


def test_minmax_scaling_reaches_the_model_and_its_checkpoint(cli, tmp_path, demo):
    from osteofusion.training.checkpoints import load_checkpoint

    cli.fit(*TABULAR, "--data.numeric_scaling", "minmax", cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    checkpoint = load_checkpoint(run / "checkpoints" / "best.ckpt")
    data = RadiographDataModule.from_checkpoint(checkpoint)
    spec = checkpoint["hyper_parameters"]["clinical"]["preprocessing"]
    column = spec["numeric"]["columns"].index(spec["features"].index("age"))
    age = data.side("train")["age"]
    assert spec["numeric"]["mean"][column] == pytest.approx(age.min())
    assert spec["numeric"]["scale"][column] == pytest.approx(age.max() - age.min())
    result = cli("test", "--ckpt_path", run, "--data.numeric_scaling", "standard", cwd=tmp_path)
    assert result.code == 2
    assert "data.numeric_scaling='standard' would be ignored" in result.err


def test_a_backbone_that_needs_larger_images_is_one_sentence(cli, tmp_path):
    options = ("--model.backbone", "inception_v3", "--model.arm", "image")
    result = cli("fit", "--config", "binary.yaml", *cli.toy, *options, cwd=tmp_path)
    assert result.code == 2
    sentence = result.err.splitlines()[-1]
    assert "inception_v3 cannot read images of 32 px" in sentence
    assert "give data.image_size at least 75" in sentence
    assert "Traceback" not in result.err


def test_a_class_of_three_subjects_cannot_be_in_five_folds(clinic):
    template = clinic.rows[0]
    sizes = {"normal": 3, "osteopenia": 9, "osteoporosis": 9}
    clinic.rows = [
        {**template, "Patient ID": f"{label}{i}", "Diagnosis": label, "T-score": score}
        for (label, size), score in zip(sizes.items(), (0.0, -2.0, -3.0), strict=True)
        for i in range(size)
    ]
    clinic.images = {
        f"{row['Diagnosis']}/{row['Patient ID']}.png": clinic.radiograph(str(row["Patient ID"]))
        for row in clinic.rows
    }
    data = RadiographDataModule(
        manifest=str(clinic.write()), root=str(clinic.root), task="three_class", folds=5
    )
    with pytest.raises(
        SplitError, match=r"class 'normal' has 3 subject groups but 5 folds .* need at.*3 at most"
    ):
        data.rows  # noqa: B018


def test_both_phases_of_the_seed_run_from_a_config(cli, tmp_path):
    """Frozen first, then all at 1e-5, as seeds/osteoai.yaml asks; logged at an epoch's start."""
    (tmp_path / "phases.yaml").write_text(
        "trainer:\n"
        "  callbacks:\n"
        "    - class_path: osteofusion.training.finetuning.TwoPhaseFinetuning\n"
        "      init_args: { frozen_epochs: 1, learning_rate: 1.0e-5 }\n"
        "    - class_path: pytorch_lightning.callbacks.LearningRateMonitor\n"
    )
    options = ("--config", "phases.yaml", "--model.arm", "image", "--trainer.max_epochs", 3)
    cli.fit(*options, cwd=tmp_path)
    logs = tmp_path / "runs" / "phases" / "version_0" / "logs" / "part_0" / "metrics.csv"
    rates = pd.read_csv(logs).filter(like="lr-").dropna(how="all")
    assert (rates.iloc[-1] == 1e-5).all()
    assert (rates.iloc[0] > 1e-5).all()
