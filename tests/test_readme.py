"""What the README shows works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from osteofusion.data.manifest import Manifest
from osteofusion.training.study.config import load_study

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_python_example_runs_without_lightning_pandas_and_opencv(tmp_path):
    (code,) = blocks("python")
    hidden = ["pytorch_lightning", "lightning", "pandas", "cv2"]
    guard = f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\n"  # None: cannot be imported
    check = "\nassert logits.shape == (4, 2) and logits.isfinite().all()\n"
    done = subprocess.run(
        [sys.executable, "-c", guard + code + check],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_the_manifest_example_is_valid():
    _, text = blocks("yaml")
    manifest = Manifest.model_validate(yaml.safe_load(text))
    assert manifest.features == ["age", "height", "female", "fracture_history"]


def test_the_study_example_is_valid(tmp_path):
    text, _ = blocks("yaml")
    (tmp_path / "study.yaml").write_text(text)
    study = load_study(tmp_path / "study.yaml")
    assert list(study.variants) == ["concat", "gated"]
    assert study.repeats == 3


def test_every_command_of_the_readme_exists():
    from osteofusion.cli import _HELP

    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"osteofusion (\w+)[ `]", text)) - {"trains", "exists"}
    offered = set(re.findall(r"^  (\w+) {2,}", _HELP, re.MULTILINE))
    assert {"fit", "test", "cohort"} <= named <= offered
