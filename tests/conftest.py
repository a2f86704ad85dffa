"""Shared by all tests: real data beside the checkout, a small clinic, a cache of their own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import settings
from PIL import Image

from osteofusion.data.cohort import build_cohort
from osteofusion.data.manifest import LABELS

# How long an example takes says more about the machine than about the code.
settings.register_profile("machine", deadline=None)
settings.load_profile("machine")

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """A shell has what it puts into the background ignore Ctrl-C, which tests send."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    # One folder for all test processes: entries are keyed by content and written atomically.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    patch.setenv("OSTEOFUSION_CACHE", str(shared / "cache"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def mendeley() -> Path:
    """The real cohort, scaled."""
    return _real(SHARED / "mendeley")


@pytest.fixture(scope="session")
def rsna() -> Path:
    """810 hand radiographs without a bone-status label."""
    return _real(SHARED / "rsna_boneage")


@dataclass
class Result:
    """What a command answered; `warnings` are those that a user would see."""

    code: int
    out: str
    err: str
    warnings: list[str]


class Cli:
    """`osteofusion` in this process; `toy` are options that make a fit last a second."""

    def __init__(self, demo: Path) -> None:
        self.toy = [
            *("--data.root", str(demo), "--data.image_size", "32"),
            *("--model.backbone", "test_resnet.r160_in1k", "--model.pretrained", "false"),
            *("--trainer.max_epochs", "1", "--ablation", "false"),
        ]

    def __call__(self, *arguments: object, cwd: Path) -> Result:
        from osteofusion.cli import main

        out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(cwd)
        try:
            with (
                redirect_stdout(out),
                redirect_stderr(err),
                warnings.catch_warnings(record=True) as shown,
            ):
                code = main([str(argument) for argument in arguments])
        finally:
            os.chdir(before)
        return Result(code, out.getvalue(), err.getvalue(), [str(w.message) for w in shown])

    def fit(self, *options: object, cwd: Path, config: str = "binary.yaml") -> Result:
        """`fit` at toy size, which must succeed."""
        result = self("fit", "--config", config, *self.toy, *options, cwd=cwd)
        assert result.code == 0, result.err
        return result

    def killed_once(self, begun: Path, *arguments: object, cwd: Path) -> None:
        """Run a command in a process of its own, and kill it as soon as `begun` is a file."""
        process = subprocess.Popen(
            [sys.executable, "-m", "osteofusion", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until = time.monotonic() + 180
            while not begun.is_file():
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < until
                time.sleep(0.02)
        finally:
            process.kill()
            process.communicate(timeout=60)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """A synthetic cohort of 60 subjects."""
    from osteofusion.data.demo import write_demo

    return write_demo(tmp_path_factory.mktemp("cohort") / "demo", subjects=60, seed=1)


@pytest.fixture(scope="session")
def spine(tmp_path_factory) -> Path:
    """Two views of the lumbar spines of 40 synthetic subjects."""
    from osteofusion.data.demo import write_demo

    out = tmp_path_factory.mktemp("cohort") / "spine"
    return write_demo(out, subjects=40, seed=1, region="spine")


@pytest.fixture(scope="session")
def hands(tmp_path_factory) -> Path:
    """Noise in the layout of the RSNA bone-age challenge, with labels.csv beside it."""
    root = tmp_path_factory.mktemp("hands")
    rng = np.random.default_rng(0)
    folder = root / "boneage-training-dataset"
    folder.mkdir()
    ids = np.arange(1377, 1437)
    for number in ids:
        Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(folder / f"{number}.png")
    months, male = rng.integers(12, 228, len(ids)), rng.random(len(ids)) < 0.5
    table = pd.DataFrame({"id": ids, "boneage": months, "male": male})
    table.to_csv(root / "boneage-training-dataset.csv", index=False)
    labels = pd.DataFrame({"id": ids, "label": np.resize(LABELS, len(ids)), "synthetic": "yes"})
    labels.to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="session")
def cli(demo) -> Cli:
    """The command line at toy size."""
    import torch

    torch.set_num_threads(1)
    return Cli(demo)


@pytest.fixture(scope="session")
def trained(cli, tmp_path_factory) -> Path:
    """Run folder of a fused binary model after two epochs; read only."""
    cwd = tmp_path_factory.mktemp("trained")
    cli.fit("--trainer.max_epochs", 2, cwd=cwd)
    return cwd / "runs" / "binary" / "version_0"


def _real(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"real data not beside the checkout ({path.name})")
    return path.resolve()


class Clinic:
    """A data set of six subjects: change what it holds, then `write` or `build` it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = {
            "name": "clinic",
            "title": "A clinic",
            "region": "knee",
            "license": "none",
            "citation": "none",
            "images": {"layout": "class_folders", "folders": {label: label for label in LABELS}},
            "table": {"file": "table.csv", "id": "Patient ID"},
            "label": {"column": "Diagnosis", "t_score": "t_score"},
            "columns": {
                "t_score": {"header": "T-score", "kind": "numeric", "role": "outcome"},
                "age": {"kind": "numeric", "unit": "years", "range": [15, 105]},
                "smoker": {"kind": "binary"},
                "job": {"kind": "categorical"},
                "fracture": {"kind": "presence"},
            },
        }
        keys = ("Patient ID", "Diagnosis", "T-score", "Age", "Smoker", "Job", "Fracture")
        content = [
            ("A1", "normal", 0.5, 40, "no", "cook", "no"),
            ("A2", "normal", -0.9, 50, "yes", "cook", "none"),
            ("B1", "osteopenia", -1.5, 60, "no", "smith", "wrist"),
            ("B2", "osteopenia", -2.4, 61, "yes", "cook", None),
            ("C1", "osteoporosis", -2.5, 70, "no", None, "hip"),
            ("C2", "osteoporosis", -4.0, 80, "yes", "smith", "no"),
        ]
        self.rows: list[dict[str, object]] = [dict(zip(keys, row, strict=True)) for row in content]
        self.images = {f"{row[1]}/{row[0]}.png": self.radiograph(row[0]) for row in content}

    @staticmethod
    def radiograph(key: str) -> bytes:
        """A readable PNG of its own for each key."""
        rng = np.random.default_rng(list(key.encode()))
        encoded = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 20), np.uint8)).save(encoded, "png")
        return encoded.getvalue()

    def write(self) -> Path:
        """The manifest's path, once everything is on disk."""
        for name, data in self.images.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(data)
        frame = pd.DataFrame(self.rows)
        file = self.root / self.manifest["table"]["file"]
        if file.suffix == ".parquet":
            frame.to_parquet(file, index=False)
        elif file.suffix == ".xlsx":
            frame.to_excel(file, index=False)
        else:
            frame.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")
        path = self.root.parent / "clinic.yaml"
        path.write_text(yaml.safe_dump(self.manifest), encoding="utf-8")
        return path

    def build(self, **options):
        """The joined cohort."""
        return build_cohort(self.write(), self.root, **options)


@pytest.fixture
def clinic(tmp_path) -> Clinic:
    """Six subjects, two a class, in order."""
    root = tmp_path / "clinic"
    root.mkdir()
    return Clinic(root)
