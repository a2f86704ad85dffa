"""Interrupted runs: what is kept, and that going on equals never having stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
import yaml

from osteofusion.training.checkpoints import AtomicCheckpointIO


def content(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("arm", ["fused", "tabular"])
def test_a_resumed_run_equals_an_uninterrupted_one(cli, tmp_path, arm):
    options = ("--model.arm", arm, "--early_stopping.patience", 99, "--data.balanced_sampler=true")
    options += ("--model.class_weights", "null")
    cli.fit(*options, "--trainer.max_epochs", 4, cwd=tmp_path)
    cli.fit(*options, "--trainer.max_epochs", 2, cwd=tmp_path)
    whole, parts = (tmp_path / "runs" / "binary" / f"version_{i}" for i in (0, 1))
    assert content(parts)["epoch"] == 1
    first = (parts / "environment.json").read_text()
    again = cli.fit(*options, "--trainer.max_epochs", 4, "--ckpt_path", "last", cwd=tmp_path)

    assert "epoch 2" in again.out
    assert "epoch 1" not in again.out
    assert again.warnings == []
    for name in ("last", "best"):
        one, other = content(whole, name), content(parts, name)
        assert one["epoch"] == other["epoch"]
        assert one["global_step"] == other["global_step"]
        assert_same_weights(one["state_dict"], other["state_dict"])
    assert json.loads((whole / "metrics.json").read_text()) == json.loads(
        (parts / "metrics.json").read_text()
    )
    assert (parts / "environment.json").read_text() == first
    config = yaml.safe_load((parts / "config.yaml").read_text())
    assert config["ckpt_path"] is None
    assert config["trainer"]["max_epochs"] == 4
    assert sorted(path.name for path in (parts / "logs").iterdir()) == ["part_0", "part_1"]
    assert len(list((tmp_path / "runs" / "binary").iterdir())) == 2


def test_last_is_the_last_epoch_even_when_no_epoch_was_better(cli, tmp_path):
    """Lightning's save_last skips epochs that were not the best."""
    rate = ("--model.learning_rate", "3", "--model.arm", "tabular", "--trainer.max_epochs", 6)
    cli.fit(*rate, "--early_stopping.patience", 99, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    assert content(run, "last")["epoch"] == 5
    assert content(run, "best")["epoch"] < 5


def test_a_moved_run_keeps_its_best_epoch(cli, tmp_path):
    # With this rate and seed the second epoch is the best of seven.
    rate = ("--model.learning_rate=1", "--seed_everything=1", "--model.arm=tabular")
    rate += ("--early_stopping.patience=99",)
    cli.fit(*rate, "--trainer.max_epochs", 6, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    best = content(run, "best")["epoch"]
    assert best < 5
    moved = tmp_path / "elsewhere" / "kept"
    shutil.copytree(run, moved)
    last = moved / "checkpoints" / "last.ckpt"
    result = cli.fit(*rate, "--trainer.max_epochs", 7, "--ckpt_path", last, cwd=tmp_path)
    assert result.warnings == []
    assert content(moved, "last")["epoch"] == 6
    assert content(run, "last")["epoch"] == 5
    scores = pd.read_csv(run / "logs/part_0/metrics.csv")["val_loss"].dropna()
    later = pd.read_csv(moved / "logs/part_1/metrics.csv")["val_loss"].dropna()
    assert later.min() > scores.min(), "the rate no longer makes later epochs worse"
    assert content(moved, "best")["epoch"] == best


def test_a_run_folder_goes_on_from_its_last_epoch(cli, tmp_path):
    rate = ("--model.learning_rate", "3", "--model.arm", "tabular", "--early_stopping.patience=99")
    cli.fit(*rate, "--trainer.max_epochs", 4, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    result = cli.fit(*rate, "--trainer.max_epochs", 5, "--ckpt_path", run, cwd=tmp_path)
    assert result.out.count("\nepoch ") == 1


def test_a_finished_run_is_scored_again(cli, tmp_path):
    cli.fit("--model.arm", "tabular", cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    (run / "metrics.json").unlink()
    cli.fit("--model.arm", "tabular", "--ckpt_path", "last", cwd=tmp_path)
    assert (run / "metrics.json").is_file()
    assert content(run)["epoch"] == 0


def test_fewer_epochs_than_done_are_refused(cli, trained, tmp_path):
    copy = tmp_path / "runs" / "binary" / "version_0"
    shutil.copytree(trained, copy)
    options = ("fit", "--config", "binary.yaml", *cli.toy, "--trainer.max_epochs", 1)
    result = cli(*options, "--ckpt_path", "last", cwd=tmp_path)
    assert result.code == 2
    assert "trainer.max_epochs is 1 and the checkpoint has done 2" in result.err


def test_a_checkpoint_outside_a_run_is_not_gone_on_from(cli, trained, tmp_path):
    shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "mine.ckpt")
    options = ("fit", "--config", "binary.yaml", *cli.toy, "--ckpt_path", "mine.ckpt")
    result = cli(*options, cwd=tmp_path)
    assert result.code == 2
    assert "outside a run folder" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.ckpt"]


def change_cell(root):
    path = root / "patient details.xlsx"
    book = openpyxl.load_workbook(path)
    sheet = book["Sheet2"]
    age = next(cell.column for cell in sheet[1] if cell.value == "Age")
    sheet.cell(9, age).value = 33
    book.save(path)


def remove_image(root):
    next((root / "normal").iterdir()).unlink()


def swap_images(root):
    one, other = sorted((root / "normal").glob("*.jpg"))[:2]
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize("change", [change_cell, remove_image, swap_images])
def test_changed_data_is_not_gone_on_with(cli, demo, tmp_path, change):
    root = shutil.copytree(demo, tmp_path / "cohort")
    options = ("--data.root", root, "--model.arm", "tabular")
    cli.fit(*options, cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    change(root)
    arguments = ("fit", "--config", "binary.yaml", *cli.toy, *options, "--trainer.max_epochs", 3)
    result = cli(*arguments, "--ckpt_path", "last", cwd=tmp_path)
    assert result.code == 2
    assert "has changed since the checkpoint" in result.err or "not a mixture" in result.err
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_stopped_process_leaves_a_run_that_goes_on(cli, tmp_path, how):
    cli.fit("--model.arm", "image", cwd=tmp_path)  # images are cached now
    epochs = ("--early_stopping.patience", "9999", "--trainer.max_epochs")
    arguments = [*cli.toy, "--model.arm", "image", *epochs]
    command = [sys.executable, "-m", "osteofusion", "fit", "--config", "binary.yaml", *arguments]
    process = subprocess.Popen(
        [*command, "9999"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = tmp_path / "runs" / "binary" / "version_1"
    last = run / "checkpoints" / "last.ckpt"
    try:
        started = time.monotonic()
        while not last.is_file():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() - started < 120
            time.sleep(0.05)
        time.sleep(0.5)  # into some epoch
        process.send_signal(how)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    if how == signal.SIGINT:
        assert process.returncode == 2, error
        assert error.count("osteofusion: error: ") == 1
        assert f"--ckpt_path {last.relative_to(tmp_path)}" in error
        assert "Traceback" not in error
    else:
        assert process.returncode == -signal.SIGKILL
    # What a kill while writing leaves.
    (last.parent / ".last-abcdef.ckpt").write_bytes(b"torn")

    done = content(run)["epoch"]
    result = cli(
        *("fit", "--config", "binary.yaml", *arguments, done + 2, "--ckpt_path", "last"),
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    assert content(run)["epoch"] == done + 1
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert json.loads((run / "metrics.json").read_text())["arms"]["image"]
    assert len(pd.read_csv(run / "predictions.csv")) == 59
    assert not (tmp_path / "runs" / "binary" / "version_2").exists()


def test_an_interruption_waits_until_a_checkpoint_is_written(tmp_path):
    """In the middle of PyTorch's writer it would end the process."""
    content = {str(i): torch.zeros(2000) for i in range(60)}
    rng = np.random.default_rng(0)

    def save_until_interrupted(timer):
        timer.start()
        while True:
            AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")

    for _ in range(15):
        timer = threading.Timer(rng.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            save_until_interrupted(timer)
        assert [path.name for path in tmp_path.iterdir()] in ([], ["a.ckpt"])
