"""A bundle of a model that was really trained, made once for all test processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

_TOY = (
    *("--data.image_size", "64", "--data.validation", "0.3", "--data.augmentation", "null"),
    *("--model.image_encoder", "cnn", "--trainer.max_epochs", "1", "--ablation", "false"),
)


def shared_folder(tmp_path_factory, name: str, make) -> Path:
    """What `make(folder)` leaves in a folder that all processes of a test run share."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base
    folder = base / name
    with FileLock(base / f"{name}.lock"):
        if not (folder / "made").exists():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def clinic_run(tmp_path_factory) -> Path:
    """A demo cohort of 80 in `demo/` and the run folder `run/` of a fused model; read only."""
    import torch

    from osteofusion.cli import main
    from osteofusion.data.demo import write_demo

    def make(folder: Path) -> None:
        torch.set_num_threads(1)
        write_demo(folder / "demo", subjects=80, seed=1)
        root = ("--data.root", str(folder / "demo"), "--trainer.default_root_dir", str(folder))
        assert main(["fit", "--config", "binary.yaml", *root, *_TOY]) == 0

    return shared_folder(tmp_path_factory, "clinic_run", make)


@pytest.fixture(scope="session")
def run_folder(clinic_run) -> Path:
    """The run of `clinic_run`."""
    return clinic_run / "binary" / "version_0"


@pytest.fixture(scope="session")
def bundle_folder(clinic_run, run_folder, tmp_path_factory) -> Path:
    """The bundle of `clinic_run`'s fused model; read only."""
    from osteofusion.cli import main

    def make(folder: Path) -> None:
        assert main(["export", str(run_folder), str(folder / "bundle")]) == 0

    return shared_folder(tmp_path_factory, "clinic_bundle", make) / "bundle"


@pytest.fixture(scope="session")
def predictor(bundle_folder):
    """Predictor of `bundle_folder`."""
    from osteofusion.serving.bundle import Bundle
    from osteofusion.serving.predictor import Predictor

    return Predictor(Bundle.load(bundle_folder), threads=1)
