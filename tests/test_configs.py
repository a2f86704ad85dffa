"""Every shipped config runs; a new one is covered by being there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osteofusion.resources import shipped_names

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_every_file_is_found_by_its_name():
    assert shipped_names("configs") == sorted(
        path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")
    )
    assert {"binary.yaml", "three_class.yaml"} <= set(shipped_names("configs"))


@pytest.mark.parametrize("name", shipped_names("configs"))
def test_config_runs_at_toy_size(cli, tmp_path, name):
    result = cli.fit(config=name, cwd=tmp_path)
    run = tmp_path / "runs" / Path(name).stem / "version_0"
    assert json.loads((run / "metrics.json").read_text())["arms"]
    assert (run / "predictions.csv").is_file()
    assert result.warnings == []


@pytest.mark.parametrize("name", ["binary", "binary.yaml"])
def test_a_name_works_with_and_without_its_suffix(cli, tmp_path, name):
    cli.fit("--model.arm", "tabular", config=name, cwd=tmp_path)
    assert (tmp_path / "runs" / "binary" / "version_0" / "metrics.json").is_file()


def test_a_file_of_ones_own_comes_before_a_shipped_one(cli, tmp_path):
    (tmp_path / "binary.yaml").write_text("model:\n  arm: tabular\n")
    result = cli.fit(config="binary.yaml", cwd=tmp_path)
    assert " tabular " in result.out
