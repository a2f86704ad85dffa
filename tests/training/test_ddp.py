"""Two processes: one run folder, one prediction a row, the figures of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over subprocesses")
def test_two_processes_make_one_run(cli, tmp_path):
    distributed = [
        "--trainer.accelerator",
        "cpu",
        "--trainer.devices",
        "2",
        "--trainer.strategy",
        "ddp",
    ]
    command = [sys.executable, "-m", "osteofusion", "fit", "--config", "binary.yaml"]
    done = subprocess.run(
        [*command, *cli.toy, *distributed, "--data.balanced_sampler=true"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs" / "binary").iterdir()] == ["version_0"]
    run = tmp_path / "runs" / "binary" / "version_0"
    assert [path.name for path in (run / "logs").iterdir()] == ["part_0"]
    for once in ("This run uses SYNTHETIC", "Run folder:", "test rows:", "epoch 0", "Source:"):
        assert done.stdout.count(once) == 1, done.stdout
    warned = [line for line in done.stderr.splitlines() if line]
    assert len(warned) == 1  # the one below; nothing of Lightning's
    assert "set one of them, not both" in warned[0]

    table = pd.read_csv(run / "predictions.csv")
    assert table["image"].is_unique
    assert len(table) == 59  # odd, so that a process had a copy to drop

    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    alone = pd.read_csv(tmp_path / "runs" / "test" / "version_0" / "predictions.csv")
    pd.testing.assert_frame_equal(table, alone, atol=1e-6, rtol=0)
    one, other = (
        json.loads((tmp_path / "runs" / name / "version_0" / "metrics.json").read_text())
        for name in ("binary", "test")
    )
    for metric, estimate in one["arms"]["fused"]["metrics"].items():
        for key, value in estimate.items():
            again = other["arms"]["fused"]["metrics"][metric][key]
            if isinstance(value, float):
                np.testing.assert_allclose(value, again, atol=1e-6, rtol=0)
            else:
                assert value == again
