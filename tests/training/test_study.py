"""What a study consists of: its YAML, its cells, and what its folder remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.resources import shipped_names
from osteofusion.training.study.collect import collect, comparable
from osteofusion.training.study.config import Study, find_study, load_study
from osteofusion.training.study.folds import plan_folds
from osteofusion.training.study.plan import (
    base_config,
    plan_cells,
    plan_combinations,
    read_given,
)
from osteofusion.training.study.records import Records
from osteofusion.training.study.runner import locked

MINIMAL = {"config": "binary.yaml"}


@pytest.fixture
def study_file(tmp_path):
    def write(**content):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(MINIMAL | content))
        return path

    return write


def planned(study, given=None, settings=None):
    """The cells of a study whose settings are what a worker could have answered."""
    base = base_config(study, Path("study.yaml"))
    folds = plan_folds(study, base, given or {})
    combinations = plan_combinations(study, base, folds, given or {})
    resolved = settings or {"data": {"fold": 0, "repeat": 0}, "seed_everything": 42}
    return plan_cells(study, folds, [(combination, resolved) for combination in combinations])


# ---- the folder ----


def test_a_study_folder_is_held_by_one(tmp_path):
    out = tmp_path / "out"
    with locked(out), pytest.raises(ConfigError, match=f"Another study is at work in {out}"):
        locked(out).__enter__()
    with locked(out):
        pass


# ---- YAML ----


def test_a_wrong_base_config_names_the_study_and_its_key(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError) as caught:
        base_config(Study(config="binry.yaml"), path)
    assert str(caught.value).startswith(f"Study {path}: config binry.yaml is neither a file")
    assert str(caught.value).endswith("Did you mean binary.yaml?")


@pytest.mark.parametrize("name", shipped_names("configs/studies"))
def test_shipped_studies_are_valid_and_found(name):
    assert planned(load_study(find_study(f"studies/{name}")))
    assert find_study(name) == find_study(f"studies/{name.removesuffix('.yaml')}")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arm": ["image"]}, "arm is not a key that a study knows; did you mean arms\\?"),
        ({"executor": {"worker": 2}}, "executor.worker is not a key .* mean workers\\?"),
        ({"executor": {"workers": 0}}, "executor.workers is 0"),
        ({"arms": ["picture"]}, "arms.0 is 'picture'"),
        ({"arms": []}, "arms is "),
        ({"arms": ["image", "image"]}, "a value is listed twice"),
        ({"folds": "canonicl"}, "folds is 'canonicl': .* canonical or sites"),
        ({"folds": 1}, "folds is 1"),
        ({"prevalence": [1.5]}, "prevalence.0 is 1.5"),
        ({"variants": {"a b": {}}}, "variants.a b"),
        ({"config": None}, "config is None"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(study_file, wrong, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load_study(study_file(**wrong))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("Study ")


@pytest.mark.parametrize("text", ["config: [", "- a list", ""])
def test_what_is_no_study_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_study(tmp_path / "mine.yaml")


def test_an_unknown_study_is_told_from_ours():
    with pytest.raises(ConfigError, match=r"Did you mean studies/ablation\.yaml"):
        find_study("studies/ablatoin.yaml")


# ---- cells ----


def test_cells_are_the_product_and_complete_fold_after_fold():
    study = Study(
        config="binary.yaml",
        arms=["image", "fused"],
        folds=3,
        repeats=2,
        seeds=[1, 2],
        variants={"base": {}, "late": {"model.fusion": "late"}},
    )
    cells = planned(study)
    assert len(cells) == 2 * 2 * 2 * 2 * 3 == len({cell.name for cell in cells})
    first = cells[: 2 * 2 * 2]
    assert {(cell.repeat, cell.fold) for cell in first} == {(0, 0)}
    for cell in cells:
        assert cell.settings["data"] == {"fold": cell.fold, "repeat": cell.repeat}
        assert cell.settings["seed_everything"] == cell.seed


def test_a_variant_comes_after_the_command_line_and_that_after_the_settings():
    study = Study(
        config="binary.yaml",
        settings={"data.batch_size": 8, "model.dropout": 0.1, "data.features": ["age"]},
        variants={"late": {"model.fusion": "late"}},
    )
    given = {"data.batch_size": "4"}
    base = base_config(study, Path("study.yaml"))
    folds = plan_folds(study, base, given)
    options = plan_combinations(study, base, folds, given)[0].arguments
    for option in ("--data.batch_size=4", "--model.dropout=0.1", '--data.features=["age"]'):
        assert option in options
    assert "--model.fusion=late" in options
    assert "--data.folds=5" in options


@pytest.mark.parametrize(
    ("study", "given", "said"),
    [
        ({"settings": {"model.arm": "image"}}, {}, "settings: model.arm .* use arms"),
        ({"variants": {"a": {"data.folds": 3}}}, {}, "variants.a: data.folds .* use folds"),
        ({"variants": {"a": {"data.task": "binary"}}}, {}, "data.task is the same for all cells"),
        ({}, {"data.fold": "1"}, "the command line: data.fold"),
        (
            {"variants": {"a": {"model.dropout": 0.1}}},
            {"model.dropout": "0.2"},
            "--model.dropout is what variants.a changes",
        ),
        ({"folds": "canonical"}, {}, "folds=canonical"),
        ({"folds": "sites"}, {}, "folds=sites"),
        ({"folds": 3}, {"data.splits": "some.csv"}, "exclude each other"),
        ({}, {"data.splits": "absent.csv"}, "absent.csv holds no folds"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(study, given, said):
    with pytest.raises(ConfigError, match=said):
        planned(Study(**MINIMAL | study), given)


@pytest.mark.parametrize(("repeats", "number"), [(None, 15), (1, 5)])
def test_mendeley_has_canonical_folds(repeats, number):
    cells = planned(
        Study(config="binary.yaml", arms=["image"], repeats=repeats), {"data.manifest": "mendeley"}
    )
    assert len(cells) == number
    with pytest.raises(ConfigError, match="repeats is 4"):
        planned(Study(config="binary.yaml", repeats=4), {"data.manifest": "mendeley"})


def test_a_file_of_folds_gives_its_own_numbers(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("subject_id,repeat,fold,split\na,0,1,test\nb,0,1,train\na,0,3,train\n")
    cells = planned(Study(config="binary.yaml", arms=["image"]), {"data.splits": str(path)})
    assert [(cell.repeat, cell.fold) for cell in cells] == [(0, 1), (0, 3)]


@given(st.dictionaries(st.from_regex(r"[a-z]+\.[a-z_]+", fullmatch=True), st.text("ab1.[=, ]")))
def test_options_are_read_in_both_ways(settings):
    joined = [f"--{key}={value}" for key, value in settings.items()]
    apart = [part for key, value in settings.items() for part in (f"--{key}", value)]
    assert read_given(joined) == settings == read_given(apart)


@pytest.mark.parametrize("rest", [["data.root"], ["--data.root"], ["--data.root", "--out"]])
def test_half_an_option_is_refused(rest):
    with pytest.raises(ConfigError):
        read_given(rest)


# ---- what the folder remembers ----


PROBABILITIES = {"p_normal": 0.1, "p_low_bmd": 0.9, "raw_normal": 0.1, "raw_low_bmd": 0.9}


def finish(records, cell, error="", data="same"):
    """A cell as a worker leaves it behind."""
    folder = records.folder(cell)
    folder.mkdir(parents=True)
    (folder / "cell.yaml").write_text(yaml.safe_dump(cell.settings))
    if not error:
        row = {
            "subject_id": "007", "image": "NA.png", "group": 3, "site": "s", "region": "knee",
            "split": "test", "fold": cell.fold, "repeat": cell.repeat, "arm": cell.arm,
            "seed": cell.seed, "label": "low_bmd", **PROBABILITIES,
        }  # fmt: skip
        table = pd.DataFrame([row, row | {"split": "train", "subject_id": "8"}])
        table.to_csv(folder / "predictions.csv", index=False)
        table.assign(arm="age").to_csv(folder / "baselines.csv", index=False)
        (folder / "environment.json").write_text(json.dumps({"data": {"sha256": data}}))
    records.add(cell, 1.234, error)


@pytest.fixture
def cells():
    return planned(Study(config="binary.yaml", arms=["image", "tabular"], folds=2))


def test_finished_cells_are_known_again_and_looks_counted(tmp_path, cells):
    records = Records(tmp_path, cells)
    finish(records, cells[1])
    finish(records, cells[0], error="It broke.")
    again = Records(tmp_path, cells)
    assert again.finished == [cells[1]]
    assert again.open == [cells[0], *cells[2:]]
    assert again.failed == {cells[0].name: "It broke."}
    table = pd.read_csv(tmp_path / "cells.csv")
    assert table["cell"].tolist() == [cells[0].name, cells[1].name]  # in the plan's order
    assert again.looks()["cell"].tolist() == [cells[1].name]
    again.add(cells[0], 1.0, "")
    assert len(again.looks()) == 2
    assert again.failed == {}


def test_a_done_cell_without_its_predictions_is_run_again(tmp_path, cells):
    records = Records(tmp_path, cells)
    finish(records, cells[0])
    (records.folder(cells[0]) / "predictions.csv").unlink()
    assert Records(tmp_path, cells).open == cells


def test_other_settings_of_a_finished_cell_are_named(tmp_path):
    study = Study(config="binary.yaml", arms=["image"], folds=2)
    one = {"data": {"fold": 0, "repeat": 0, "image_size": 64}, "seed_everything": 42}
    finish(Records(tmp_path, planned(study, settings=one)), planned(study, settings=one)[0])
    other = {**one, "data": {**one["data"], "image_size": 32}}
    with pytest.raises(ConfigError, match=r"data\.image_size=64, and now it is 32; choose another"):
        Records(tmp_path, planned(study, settings=other))


def test_cells_of_an_earlier_plan_still_count_as_tried(tmp_path, cells):
    records = Records(tmp_path, cells)
    for cell in cells:
        finish(records, cell)
    fewer = planned(Study(config="binary.yaml", arms=["image"], folds=2))
    shrunk = Records(tmp_path, fewer)
    assert len(shrunk.finished) == 2
    assert shrunk.tried == 2
    assert set(collect(shrunk).predictions["arm"]) == {"image", "age"}


# ---- one table ----


def test_test_rows_and_one_set_of_baselines_a_fold(tmp_path, cells):
    records = Records(tmp_path, cells)
    for cell in cells:
        finish(records, cell)
    collected = collect(records)
    table = collected.predictions
    assert collected.notes == []
    assert len(table) == len(cells) + 2  # one test row a cell, one baseline a fold
    assert table["subject_id"].tolist() == ["007"] * len(table)
    assert set(table["split"]) == {"test"}
    assert set(table["variant"]) == {"base"}
    assert comparable(records, table).equals(table)


def test_only_folds_that_all_arms_have_are_compared(tmp_path, cells):
    records = Records(tmp_path, cells)
    for cell in cells[:3]:
        finish(records, cell)
    collected = collect(records)
    assert "1 of 4 cells are missing" in collected.notes[0]
    assert "1 of 2 test folds" in collected.notes[0]
    assert set(comparable(records, collected.predictions)["fold"]) == {0}
    assert set(collected.predictions["fold"]) == {0, 1}


def test_cells_that_saw_different_data_are_not_mixed(tmp_path, cells):
    records = Records(tmp_path, cells)
    finish(records, cells[0])
    finish(records, cells[1], data="other")
    with pytest.raises(OsteofusionError, match="have seen different data"):
        collect(records)


def test_nothing_done_is_said(tmp_path, cells):
    with pytest.raises(OsteofusionError, match="No cell is done"):
        collect(Records(tmp_path, cells))
