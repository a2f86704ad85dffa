"""`osteofusion study` as a user types it, at toy size: killed, resumed, spread, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from osteofusion.errors import ConfigError
from osteofusion.training.predictions import read_predictions
from osteofusion.training.study.audits import audit
from osteofusion.training.study.runner import locked

STUDY = {
    "config": "binary.yaml",
    "settings": {
        "data.image_size": 32,
        "model.backbone": "test_resnet.r160_in1k",
        "model.pretrained": False,
        "trainer.max_epochs": 2,
    },
    "arms": ["tabular", "fused"],
    "folds": 2,
    "executor": {"cpus_per_cell": 1},
}
STUDY_FILES = {
    ".lock", "study.yaml", "cells.csv", "looks.csv", "predictions.csv", "study.json",
    "evaluation.json", "decisions.json", "cohort.csv", "join_report.json", "splits.csv",
}  # fmt: skip


def write_study(folder, **changes):
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"audits": False} | changes, sort_keys=False))
    return path


@pytest.fixture
def study(cli, demo, tmp_path):
    """Run a study of toy size in this folder."""

    def run(*options, out="out", **changes):
        path = write_study(tmp_path, **changes)
        return cli("study", "--config", path, "--data.root", demo, "--out", out, *options,
                   cwd=tmp_path)  # fmt: skip

    return run


@pytest.fixture(scope="module")
def whole(cli, demo, tmp_path_factory):
    """A study that nothing disturbed: its folder and what was said."""
    folder = tmp_path_factory.mktemp("whole")
    path = write_study(folder, audits=True)
    result = cli("study", "--config", path, "--data.root", demo, "--out", "out", cwd=folder)
    assert result.code == 0, result.err
    return folder / "out", result


def test_a_study_leaves_its_cells_and_what_they_found(whole):
    out, result = whole
    assert {path.name for path in out.iterdir()} == STUDY_FILES | {"audits.json", "cells"}

    cells = pd.read_csv(out / "cells.csv")
    assert cells["status"].tolist() == ["done"] * 4
    assert (cells["seconds"] > 0).all()
    for folder in cells["folder"]:
        assert (out / folder / "checkpoints" / "best.ckpt").is_file()
        assert "Run folder" in (out / folder / "log.txt").read_text()
    assert pd.read_csv(out / "looks.csv")["cell"].tolist() == cells["cell"].tolist()

    table = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    assert set(table["split"]) == {"test"}
    assert {"tabular", "fused", "age", "majority", "logistic_regression"} <= set(table["arm"])
    rows = len(pd.read_csv(out / "cohort.csv"))
    assert set(table.groupby("arm").size()) == {rows}  # each radiograph is tested once
    assert (table["p_low_bmd"] != table["raw_low_bmd"]).any()

    described = json.loads((out / "study.json").read_text())
    assert described["synthetic"] is True
    assert described["configurations_tried"] == 2
    assert [fold["looks"] for fold in described["looks_per_fold"]] == [2, 2]
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert list(evaluation) == ["base"]
    assert next(iter(evaluation["base"]["arms"])) == "fused"
    assert evaluation["base"]["n_rows"] == rows
    decisions = json.loads((out / "decisions.json").read_text())
    assert list(decisions["base"]) == ["fused", "tabular"]
    for word in ("4 cells", "tabular", "AUROC", "looked at 4 times", "SYNTHETIC", str(out)):
        assert word in result.out


def test_audits_take_the_films_of_a_study_with_fixed_views_as_they_are(whole):
    out, _ = whole
    cell = next((out / "cells").glob("*fused*"))
    settings = yaml.safe_load((cell / "cell.yaml").read_text())
    settings["data"]["augmentation_views"] = 2
    found, error = audit(settings, read_predictions(out / "predictions.csv"))
    assert error == ""
    assert found


def test_killed_halfway_and_resumed_with_two_workers_it_finds_the_same(whole, demo, cli, tmp_path):
    path = write_study(tmp_path)
    words = ["study", "--config", path, "--data.root", demo, "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "osteofusion", *map(str, words)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    cells = tmp_path / "out" / "cells.csv"
    until = time.monotonic() + 120
    while not cells.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()
    before = pd.read_csv(cells)
    assert 0 < len(before) < 4

    result = cli(*words, "--workers", 2, cwd=tmp_path)
    assert result.code == 0, result.err
    assert f"{len(before)} are done" in result.out
    after = pd.read_csv(cells)
    assert after["cell"].tolist() == pd.read_csv(whole[0] / "cells.csv")["cell"].tolist()
    assert after["seconds"].tolist()[: len(before)] == before["seconds"].tolist()  # not run again
    for name in ("predictions.csv", "evaluation.json", "decisions.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_ends_a_study_as_ctrl_c_does(demo, tmp_path):
    endless = {"trainer.max_epochs": 99999, "early_stopping.patience": 99999}
    path = write_study(tmp_path, settings=STUDY["settings"] | endless)
    words = ["study", "--config", path, "--data.root", demo, "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "osteofusion", *map(str, words)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    out = tmp_path / "out"
    until = time.monotonic() + 120
    try:
        while not (out / "study.yaml").is_file() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.02)
        with pytest.raises(ConfigError, match="Another study is at work"), locked(out):
            pass
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 2, error
    said = f"Interrupted; finished cells are kept in {out}: the same command goes on there."
    assert error == f"osteofusion: error: {said}\n"
    with locked(out):  # its workers are gone too
        pass


@pytest.mark.slow
def test_ray_finds_the_same(whole, study, tmp_path):
    pytest.importorskip("ray")
    result = study("--executor", "ray", "--workers", 2)
    assert result.code == 0, result.err
    for name in ("predictions.csv", "evaluation.json", "decisions.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes()


@pytest.mark.slow
def test_a_failing_cell_is_collected_and_run_again(study, tmp_path):
    out = tmp_path / "out"
    obstacle = out / "cells" / "base-tabular-r0-f1-s42"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder should be")
    changes = {
        "arms": ["tabular"],
        "folds": 2,
        "variants": {"base": None, "age_only": {"data.features": ["age"]}},
    }
    first = study(**changes)
    assert first.code == 2
    assert "1 of 4 cells failed, such as base-tabular-r0-f1-s42 (Cannot write" in first.err
    assert "the same command runs them again" in first.err
    cells = pd.read_csv(out / "cells.csv", keep_default_na=False)
    assert cells.loc[cells["status"] == "failed", "cell"].tolist() == [obstacle.name]
    assert set(pd.read_csv(out / "predictions.csv")["fold"]) == {0, 1}
    evaluation = json.loads((out / "evaluation.json").read_text())
    for part in evaluation.values():
        assert "1 of 2 test folds" in " ".join(part["notes"])
    half = evaluation["age_only"]["n_rows"]

    obstacle.unlink()
    again = study(**changes)
    assert again.code == 0, again.err
    assert "3 are done" in again.out
    assert len(pd.read_csv(out / "looks.csv")) == 4
    assert json.loads((out / "study.json").read_text())["configurations_tried"] == 2
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert list(evaluation) == ["base", "age_only", "between variants"]
    assert evaluation["age_only"]["n_rows"] > half
    between = evaluation["between variants"]
    assert list(between["arms"]) == ["base/tabular", "age_only/tabular"]
    pairs = {(row["first"], row["second"]) for row in between["differences"]}
    assert pairs == {("age_only/tabular", "base/tabular")}


def test_what_cannot_be_is_said_before_the_first_cell(study, tmp_path):
    result = study(variants={"base": {}, "odd": {"data.imagesize": 64}})
    assert result.code == 2
    assert result.err == (
        "osteofusion: error: variant odd, arm tabular: data.imagesize is no setting of fit; did "
        "you mean data.image_size?\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", 0], "--workers is 0"),
        (["--executor", "slurm"], "invalid choice: 'slurm'"),
        (["extra"], "'extra' belongs to no option"),
        (["--model.arm", "image"], "use arms"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(study, options, said):
    result = study(*options)
    assert result.code == 2
    assert said in result.err


def test_without_ray_its_extra_is_named(tmp_path, demo):
    path = write_study(tmp_path)
    hidden = "import sys; sys.modules['ray'] = None; from osteofusion.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden}", "study", "--config", str(path), "--executor", "ray",
         "--data.root", str(demo), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert 'pip install "osteofusion[ray]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "osteofusion", "study", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--executor" in done.stdout
    assert "torch" not in done.stderr


def test_a_run_that_had_stopped_trains_no_further_when_it_is_resumed(cli, tmp_path):
    """A cell may be killed after its training and before its score."""
    still = ("--model.arm", "tabular", "--early_stopping.patience", 1)
    options = (
        "--trainer.max_epochs",
        5,
        "--early_stopping.min_delta",
        9,
        *still,
    )  # no epoch is better enough
    first = cli.fit(*options, cwd=tmp_path)
    assert "epoch 1" in first.out
    assert "epoch 2" not in first.out
    run = tmp_path / "runs" / "binary" / "version_0"
    predictions = (run / "predictions.csv").read_bytes()
    again = cli.fit(*options, "--ckpt_path", "last", cwd=tmp_path)
    assert "epoch " not in again.out
    assert (run / "predictions.csv").read_bytes() == predictions
