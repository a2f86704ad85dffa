"""`osteofusion explain` on run folders."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osteofusion.data.radiograph import read_radiograph
from osteofusion.explain.cohort import load_run
from osteofusion.training.predictions import read_predictions


@pytest.fixture(scope="module")
def explained(cli, trained, tmp_path_factory):
    """Output of the fused toy run, and what was said."""
    cwd = tmp_path_factory.mktemp("explained")
    result = cli(
        *("explain", trained, "--out", "why", "--most", 3, "--repeats", 4),
        *("--method", "gradcam", "hirescam", "--colormap", "jet", "viridis"),
        cwd=cwd,
    )
    assert result.code == 0, result.err
    return cwd / "why", result


def test_everything_is_written(explained, trained):
    folder, result = explained
    assert {path.name for path in folder.iterdir()} == {
        *("overlays", "attributions.csv", "modalities.csv", "importance.csv", "importance.png"),
        *("sanity.json", "explanations.pdf"),
    }
    _, data = load_run(str(trained))
    test = data.side("test")
    assert f"the first 3 of {len(test)} rows of the test side" in result.err
    assert result.warnings == []
    assert (folder / "explanations.pdf").read_bytes().startswith(b"%PDF")
    overlays = sorted(path.name for path in (folder / "overlays").iterdir())
    assert len(overlays) == 3 * 2 * 2
    film = read_radiograph(data.cohort.files(test)[0])
    who = test["subject_id"].iloc[0]
    drawn = np.asarray(Image.open(folder / "overlays" / f"001_{who}_gradcam_jet.png"))
    assert drawn.shape == (*film.shape, 3)


def test_tables_agree_with_the_run_and_the_cohort(explained, trained):
    folder, _ = explained
    written = read_predictions(trained / "predictions.csv")
    risk = written[(written["arm"] == "fused") & (written["split"] == "test")].set_index("image")
    moved = pd.read_csv(folder / "attributions.csv")
    parts = pd.read_csv(folder / "modalities.csv").set_index("image")
    assert len(parts) == 3
    np.testing.assert_allclose(parts["risk"], risk.loc[parts.index, "p_low_bmd"], atol=1e-5)
    assert parts[["log_odds_image", "log_odds_clinical"]].notna().all(axis=None)
    model, data = load_run(str(trained))
    cohort = data.cohort.table.set_index("image")
    for image, rows in moved.groupby("image"):
        given = cohort.loc[image, model.preprocessing.feature_names].dropna()
        assert set(rows["feature"]) == set(given.index)
        numbers = rows[rows["feature"] == "age"]
        assert float(numbers["value"].iloc[0]) == given["age"]
    odds = np.log(moved["risk"] / (1 - moved["risk"]))
    without = np.log(moved["risk_without"] / (1 - moved["risk_without"]))
    np.testing.assert_allclose(odds - without, moved["log_odds"], atol=1e-6)
    importance = pd.read_csv(folder / "importance.csv")
    names = {*model.preprocessing.feature_names, "all clinical values", "radiograph"}
    assert set(importance["input"]) == names
    checks = json.loads((folder / "sanity.json").read_text())["checks"]
    assert [check["method"] for check in checks] == ["gradcam", "hirescam"]


@pytest.mark.parametrize("arm", ["image", "tabular"])
def test_an_arm_of_one_modality_says_what_it_lacks(cli, tmp_path, arm):
    options = ("--model.arm", arm, "--data.image_size", "64", "--model.image_encoder", "cnn")
    cli.fit(*(options if arm == "image" else options[:2]), cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    result = cli("explain", run / "checkpoints" / "best.ckpt", "--most", 2, cwd=tmp_path)
    assert result.code == 0, result.err
    written = {path.name for path in (run / "explain").iterdir()}
    always = {"importance.csv", "importance.png", "explanations.pdf"}
    if arm == "image":
        assert written == always | {"overlays", "sanity.json"}
        assert "no attributions" in result.err
    else:
        assert written == always | {"attributions.csv"}
        assert "no saliency maps" in result.err


def test_mistakes_get_one_sentence_and_leave_nothing(cli, trained, tmp_path):
    _, data = load_run(str(trained))
    sides = {side: data.side(side)["subject_id"].iloc[0] for side in ("train", "test")}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for options, said in (
        (("nowhere",), "nowhere does not exist"),
        ((trained, "--subjects", sides["test"] + "9"), f"close matches: .*{sides['test']}"),
        ((trained, "--subjects", sides["train"]), "is on the train side; choose --side train"),
        ((trained, "--method", "scorecam"), "invalid choice: 'scorecam'"),
        ((trained, "--side", "all"), "invalid choice: 'all'"),
        ((trained, "--most", "0"), "--most is 0"),
        ((trained, "--out", "full"), "already exists"),
    ):
        result = cli("explain", *options, "--repeats", 2, cwd=tmp_path)
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert re.search(said, result.err), result.err
    assert {path.name for path in tmp_path.iterdir()} == {"full"}
    assert not (trained / "explain").exists()


def test_named_subjects_are_explained(cli, trained, tmp_path):
    _, data = load_run(str(trained))
    who = data.side("val")["subject_id"].iloc[1]
    result = cli(
        *("explain", trained, "--side", "val", "--subjects", who, "--repeats", 2, "--out", "why"),
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    assert set(pd.read_csv(tmp_path / "why" / "attributions.csv")["subject_id"]) == {who}
