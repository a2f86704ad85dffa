"""`osteofusion export`, and `predict --bundle`: from a run to a folder, from there to answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from osteofusion.evaluation import Calibration, fit_calibration, wilson_interval
from osteofusion.serving.bundle import Bundle
from osteofusion.serving.choosing import Side, choose
from osteofusion.serving.predict_command import _report_names, _Row
from osteofusion.training.predictions import read_predictions

_KINDS = ("normal", "low BMD")


@pytest.fixture(scope="module")
def tabular_run(cli, clinic_run, tmp_path_factory) -> Path:
    """Run folder of a tabular model of the same cohort, which is quick to export."""
    cwd = tmp_path_factory.mktemp("tabular")
    options = ("--data.validation", "0.3", "--trainer.max_epochs", "1", "--ablation", "false")
    root = ("--data.root", clinic_run / "demo", "--model.arm", "tabular")
    result = cli("fit", "--config", "binary.yaml", *root, *options, cwd=cwd)
    assert result.code == 0, result.err
    return cwd / "runs" / "binary" / "version_0"


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


# ---- what a bundle holds ----


def test_a_bundle_holds_what_it_says(bundle_folder, run_folder):
    bundle = Bundle.load(bundle_folder)
    d = bundle.description
    held = {p.relative_to(bundle_folder).as_posix() for p in bundle_folder.rglob("*.*")}
    assert held - {"bundle.json"} == set(d.files)
    assert {
        *("model.onnx", "fusion.onnx", "embedding.npz", "model_card.md"),
        *("model/config.json", "model/model.safetensors"),
    } <= held
    rows = read_predictions(run_folder / "predictions.csv")
    assert sum(d.training.rows.values()) == len(rows)
    assert d.training.class_counts == rows["label"].value_counts().to_dict()
    assert d.training.synthetic_what
    assert d.regions == ["knee"]
    assert d.embedding is not None
    assert d.embedding.n == d.training.rows["train"]


def test_calibration_and_thresholds_come_from_validation_rows_alone(bundle_folder, run_folder):
    d = Bundle.load(bundle_folder).description
    rows = read_predictions(run_folder / "predictions.csv")
    validation = Side.of(rows[rows["split"] == "val"], d.classes)
    fitted = fit_calibration(validation.raw, validation.labels)
    assert d.calibration.slope == pytest.approx(fitted.slope)
    assert d.calibration.n == len(validation.labels)
    assert "validation" in d.calibration.fitted_on
    assert "epoch" in d.calibration.fitted_on
    assert d.cohort_prevalence == pytest.approx(validation.low.mean())
    scores = 1 - fitted.apply(validation.raw)[:, 0]
    points = {point.name: point for point in d.operating_points}
    cut = points["fixed_sensitivity"].threshold
    assert (scores[validation.low] >= cut).mean() >= 0.9
    cut = points["fixed_specificity"].threshold
    assert (scores[~validation.low] < cut).mean() >= 0.9


def test_what_a_point_reaches_is_counted_on_the_test_rows(bundle_folder, run_folder):
    d = Bundle.load(bundle_folder).description
    rows = read_predictions(run_folder / "predictions.csv")
    test = Side.of(rows[rows["split"] == "test"], d.classes)
    calibration = Calibration(tuple(d.calibration.slope), tuple(d.calibration.intercept))
    called = 1 - calibration.apply(test.raw)[:, 0]
    for point in d.operating_points:
        hits = called >= point.threshold
        assert point.sensitivity.value == pytest.approx(hits[test.low].mean())
        assert point.sensitivity.n == test.low.sum()
        interval = wilson_interval(~test.low, ~hits, test.groups)
        assert (point.specificity.low, point.specificity.high) == pytest.approx(interval)
    share = rows.loc[rows["split"] == "val", "label"].ne("normal").mean()
    for chosen in (d.triage, *d.operating_points):
        assert f"{100 * share:.0f} % low BMD)" in chosen.chosen_on
    bands = d.triage.reached.values()
    assert sum(band.of_low.value for band in bands) == pytest.approx(1)


def sides(low: int, normal: int) -> tuple[Side, Side]:
    rng = np.random.default_rng(0)

    def side(n_low: int, n_normal: int) -> Side:
        labels = np.repeat([1, 0], [n_low, n_normal])
        p = np.clip(0.5 + 0.2 * (labels * 2 - 1) + rng.normal(0, 0.15, len(labels)), 0.02, 0.98)
        return Side(np.column_stack([1 - p, p]), labels, np.arange(len(labels)))

    return side(low, normal), side(30, 20)


def test_the_test_rows_change_no_threshold():
    validation, test = sides(30, 20)
    one = choose(validation, test, _KINDS)
    other = choose(validation, Side(test.raw[::-1], test.labels, test.groups), _KINDS)
    assert [p.threshold for p in one.points] == [p.threshold for p in other.points]
    assert one.calibration == other.calibration
    assert one.points[0].sensitivity != other.points[0].sensitivity


@pytest.mark.parametrize(
    ("low", "normal", "points"),
    [
        (30, 20, ["fixed_sensitivity", "fixed_specificity", "youden"]),
        (5, 5, ["fixed_sensitivity", "fixed_specificity", "youden"]),
        (30, 4, ["fixed_sensitivity"]),
        (4, 30, ["fixed_specificity"]),
        (4, 4, []),
        (30, 0, []),
    ],
)
def test_too_few_rows_of_a_kind_choose_no_threshold_and_a_reason_is_given(low, normal, points):
    found = choose(*sides(low, normal), _KINDS)
    assert [point.name for point in found.points] == points
    assert (found.triage is None) == (len(points) < 3)
    if len(points) < 3:
        assert f"{low} low BMD and {normal} normal" in found.note
    else:
        assert found.note is None
    assert 0 < found.prevalence < 1


# ---- the command ----


@pytest.mark.slow
def test_exporting_twice_gives_the_same_but_for_the_time(cli, tabular_run, tmp_path):
    (tmp_path / "two").mkdir()  # an empty folder is filled
    for name in ("one", "two"):
        result = cli("export", tabular_run, tmp_path / name, cwd=tmp_path)
        assert result.code == 0, result.err
    one, two = (Bundle.load(tmp_path / name).description for name in ("one", "two"))
    assert one.model_copy(update={"created": ""}) == two.model_copy(update={"created": ""})
    assert one.sha256 == two.sha256
    assert one.preprocessing is None
    assert one.embedding is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]  # nothing temporary


def test_a_folder_with_content_is_refused_and_kept(cli, tabular_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    result = cli("export", tabular_run, tmp_path / "out", cwd=tmp_path)
    assert result.code == 2
    assert "already exists" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "predictions.csv").unlink(), "run `osteofusion test --ckpt_path"),
        (lambda run: (run / "checkpoints" / "best.ckpt").unlink(), "does not exist"),
        (
            lambda run: (run / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint"),
            "cannot be read as a checkpoint",
        ),
        (lambda run: without_side(run, "val"), "no validation row"),
        (lambda run: without_side(run, "test"), "no test row"),
        (lambda run: turned_round(run), "are not of"),
    ],
)
def test_a_run_that_cannot_be_exported_is_refused_in_one_sentence(
    cli, tabular_run, tmp_path, spoil, said
):
    run = copied(tabular_run, tmp_path)
    spoil(run)
    result = cli("export", run, tmp_path / "out", cwd=tmp_path)
    assert result.code == 2
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("osteofusion: error: ")
    assert said in last
    assert "--ckpt_path " not in last or "osteofusion test --ckpt_path" in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def without_side(run: Path, side: str) -> None:
    rows = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    rows[rows["split"] != side].to_csv(run / "predictions.csv", index=False)


def turned_round(run: Path) -> None:
    rows = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    names = {"raw_normal": "raw_low_bmd", "raw_low_bmd": "raw_normal"}
    rows.rename(columns=names).to_csv(run / "predictions.csv", index=False)


def test_a_checkpoint_that_the_run_did_not_score_is_refused(cli, tabular_run, tmp_path):
    last = tabular_run / "checkpoints" / "last.ckpt"
    result = cli("export", last, tmp_path / "out", cwd=tmp_path)
    assert result.code == 2
    assert "osteofusion test" in result.err


@pytest.mark.slow
def test_a_checkpoint_is_exported_with_the_predictions_of_its_test(cli, tabular_run, tmp_path):
    last = tabular_run / "checkpoints" / "last.ckpt"
    scored = cli("test", "--ckpt_path", last, cwd=tmp_path)
    assert scored.code == 0, scored.err
    folder = tmp_path / "runs" / "test" / "version_0"
    result = cli("export", last, tmp_path / "out", "--run", folder, cwd=tmp_path)
    assert result.code == 0, result.err
    assert Bundle.load(tmp_path / "out").description.operating_points


@pytest.mark.slow
def test_where_the_radiographs_are_gone_the_flag_is_off_and_said_to_be(cli, run_folder, tmp_path):
    run = copied(run_folder, tmp_path)
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["datamodule_hyper_parameters"]["root"] = str(tmp_path / "moved")
    torch.save(checkpoint, path)
    result = cli("export", run, tmp_path / "out", cwd=tmp_path)
    assert result.code == 0, result.err
    d = Bundle.load(tmp_path / "out").description
    assert d.embedding is None
    assert "not flagged" in d.embedding_note
    assert "not flagged" in result.err
    assert d.operating_points


# ---- predicting from it ----


def test_predictions_of_a_cohort_equal_those_of_the_checkpoint(
    cli, clinic_run, run_folder, bundle_folder, tmp_path
):
    demo = clinic_run / "demo"
    result = cli("predict", "--ckpt_path", run_folder, "--data.root", demo, cwd=tmp_path)
    assert result.code == 0, result.err
    expected = read_predictions(tmp_path / "runs" / "predict" / "version_0" / "predictions.csv")
    result = cli(
        *("predict", "--bundle", bundle_folder, "--manifest", "demo", "--root", demo),
        *("--out", tmp_path / "answers.csv"),
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    answers = pd.read_csv(tmp_path / "answers.csv", dtype={"subject_id": str})
    d = Bundle.load(bundle_folder).description
    both = expected.merge(answers, on=["subject_id", "image"], suffixes=("", "_bundle"))
    assert len(both) == len(expected) == len(answers) > 70
    calibration = Calibration(tuple(d.calibration.slope), tuple(d.calibration.intercept))
    calibrated = calibration.apply(both[[f"raw_{name}" for name in d.classes]].to_numpy())
    made = both[[f"p_{name}_bundle" for name in d.classes]].to_numpy()
    np.testing.assert_allclose(made, calibrated, atol=1e-4)
    assert answers["risk"].nunique() > 70
    assert set(answers["band"]) <= {"rule_out", "dxa", "rule_in"}


def test_one_patient_is_answered_with_a_report(cli, clinic_run, bundle_folder, tmp_path):
    film = next((clinic_run / "demo" / "normal").iterdir())
    result = cli(
        *("predict", "--bundle", bundle_folder, "--image", film, "--value", "age=61"),
        *("--value", "female=yes", "--out", tmp_path / "a.csv", "--report", tmp_path / "pdf"),
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    (row,) = pd.read_csv(tmp_path / "a.csv").to_dict("records")
    assert 0 < row["risk"] < 1
    (report,) = (tmp_path / "pdf").iterdir()
    assert report.name == f"{film.stem}.pdf"
    assert report.read_bytes().startswith(b"%PDF")


def test_no_report_is_written_over_another():
    def row(subject: str, image: str) -> _Row:
        return _Row({"subject_id": subject, "image": image}, None, {})

    rows = [row("P/1", ""), row("p_1", ""), row("P_1", "a/film.png"), row("P_1", "b/film.jpg")]
    rows += [row("P_1~2", ""), row("film", "film.png")]
    names = _report_names(rows)
    assert names == ["P_1", "p_1~2", "P_1_film", "P_1_film~2", "P_1_2", "film"]
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "either --manifest and --root, or --image"),
        (("--manifest", "demo"), "needs --root"),
        (("--value", "age"), "NAME=VALUE"),
        (("--value", "age=400"), "patient: age must lie between"),
        (("--value", "agee=40"), "did you mean 'age'"),
        (("--image", "absent.png"), "there is no such file"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(cli, bundle_folder, tmp_path, options, said):
    result = cli("predict", "--bundle", bundle_folder, *options, cwd=tmp_path)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_description_is_plain_json(bundle_folder):
    content = json.loads((bundle_folder / "bundle.json").read_text())
    assert content["format"] == 1
    assert "NaN" not in (bundle_folder / "bundle.json").read_text()
    train = {f["name"]: f["train"] for f in content["features"]}
    assert train["age"]["low"] < train["age"]["median"] < train["age"]["high"]
    assert sum(train["female"]["counts"].values()) == train["female"]["n"]
