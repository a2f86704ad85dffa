"""Knees and spines in one model: the region is known, an unseen one is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from osteofusion.data.manifest import LABELS, Manifest
from osteofusion.errors import ConfigError, ManifestError
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.options import possible_arm
from osteofusion.training.study.config import Study
from osteofusion.training.study.folds import plan_folds
from osteofusion.training.study.plan import plan_cells, plan_combinations

BOTH = ["demo", "demo_spine"]


@pytest.fixture(scope="module")
def both(demo, spine):
    """Options that join knees and spines."""
    return ("--data.manifest", "[demo, demo_spine]", "--data.root", f"[{demo}, {spine}]")


@pytest.fixture(scope="module")
def run(cli, both, tmp_path_factory):
    """Run folder of a fused model of both regions."""
    cwd = tmp_path_factory.mktemp("regions")
    cli.fit(*both, "--data.features", "[age, region]", cwd=cwd)
    return cwd / "runs" / "binary" / "version_0"


def module(demo, spine, **settings):
    return RadiographDataModule(manifest=BOTH, root=[str(demo), str(spine)], **settings)


def one_hot(data) -> list[str]:
    return [name for name in data.clinical["preprocessing"]["names"] if "region" in name]


def test_the_region_is_a_feature_where_there_are_several(demo, spine):
    assert one_hot(module(demo, spine)) == ["region = knee", "region = spine"]
    assert one_hot(module(demo, spine, regions=["spine"])) == []
    assert one_hot(RadiographDataModule(manifest="demo", root=str(demo))) == []


def test_the_region_can_be_left_out(demo, spine):
    assert one_hot(module(demo, spine, features=["age"])) == []


def test_one_region_alone_has_no_such_feature(demo):
    data = RadiographDataModule(manifest="demo", root=str(demo), features=["age", "region"])
    with pytest.raises(ConfigError, match="names 'region', which manifest 'demo' does not have"):
        data.cohort  # noqa: B018


@pytest.fixture(scope="module")
def folded(demo, spine):
    return module(demo, spine, folds=2, fold=1).rows


def test_no_subject_or_film_crosses(folded):
    rows = folded
    for key in ("subject_id", "image_sha256", "group"):
        assert (rows.groupby(key)["split"].nunique() == 1).all()
    spines = rows[rows["region"] == "spine"]
    assert spines["subject_id"].duplicated().any()
    assert spines["image_sha256"].duplicated().any()


def test_models_of_one_region_share_the_folds_of_a_model_of_all(demo, spine, folded):
    keys = ["subject_id", "image", "split"]
    spines = module(demo, spine, folds=2, fold=1, regions=["spine"]).rows
    expected = folded[folded["region"] == "spine"].reset_index(drop=True)
    pd.testing.assert_frame_equal(spines[keys], expected[keys])
    assert set(spines["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"regions": ["hip"]}, "names 'hip', of which there is no radiograph; .* knee, spine"),
        ({"regions": []}, "data.regions is empty; name one or more of knee, spine"),
        ({"folds": "sites"}, "No training row is of region knee"),
    ],
)
def test_regions_that_cannot_be_are_refused(demo, spine, settings, said):
    with pytest.raises(ConfigError, match=said):
        module(demo, spine, arm="image", **settings).rows  # noqa: B018


def test_films_of_a_subject_count_once(run):
    table = pd.read_csv(run / "predictions.csv")
    test = table[(table["split"] == "test") & (table["arm"] == "fused")]
    assert test["subject_id"].duplicated().any()
    assert set(test["region"]) == {"knee", "spine"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["n_rows"] == test["subject_id"].nunique()
    assert any("count as" in note for note in metrics["notes"])
    assert set(metrics["regions"]) == {"knee", "spine"}
    for region, apart in metrics["regions"].items():
        assert apart["n_rows"] == test.loc[test["region"] == region, "subject_id"].nunique()
        assert set(apart["arms"]) == {"fused", "majority", "age"}
    gap = metrics["accuracy_gap"]["fused"]
    assert gap["test"] == pytest.approx(metrics["arms"]["fused"]["metrics"]["accuracy"]["value"])
    assert gap["gap"] == pytest.approx(gap["train"] - gap["test"])


def test_a_region_apart_is_tested_as_it_was_among_both(cli, run, demo, spine, tmp_path):
    """Its one-hot code stands in the checkpoint, whatever the new cohort is called."""
    from osteofusion.training.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(run / "checkpoints" / "best.ckpt")
    apart = RadiographDataModule.from_checkpoint(
        checkpoint, manifest="demo_spine", root=str(spine), need_labels=False
    )
    among = RadiographDataModule.from_checkpoint(checkpoint)
    spines = among.rows[among.rows["region"] == "spine"]
    np.testing.assert_array_equal(
        apart.schema.encode(apart.rows)[: len(spines)], among.schema.encode(spines)
    )
    assert len(apart.rows) == len(spines)


def test_an_unseen_region_is_refused(cli, trained, spine, tmp_path):
    for command in ("test", "predict"):
        result = cli(command, "--ckpt_path", trained, "--data.manifest", "demo_spine",
                     "--data.root", spine, cwd=tmp_path)  # fmt: skip
        assert result.code == 2
        sentence = result.err.splitlines()[-1]
        assert "was trained on knee radiographs, and" in sentence
        assert "are spine, such as" in sentence
        assert "Traceback" not in result.err


def test_a_model_of_one_region_of_two_is_tested_on_its_own_cohort(cli, both, tmp_path):
    cli.fit(*both, "--data.regions", "[spine]", "--model.arm", "image", cwd=tmp_path)
    run = tmp_path / "runs" / "binary" / "version_0"
    result = cli("test", "--ckpt_path", run, cwd=tmp_path)
    assert result.code == 0, result.err
    assert "Of spine alone" in result.out
    again = pd.read_csv(tmp_path / "runs/test/version_0/predictions.csv")
    assert set(again["region"]) == {"spine"}
    pd.testing.assert_frame_equal(again, pd.read_csv(run / "predictions.csv"))


def test_images_alone_of_two_regions_can_be_told_the_region():
    folders = {"layout": "class_folders", "folders": {label: label for label in LABELS}}
    facts = {"title": "t", "license": "l", "citation": "c", "images": folders}
    knees, spines, more = (
        Manifest.model_validate({"name": name, "region": region, **facts})
        for name, region in (("a", "knee"), ("b", "spine"), ("c", "Knee"))
    )
    assert possible_arm("fused", [knees, spines], None) == ("fused", "")
    assert possible_arm("fused", [knees, more], None)[0] == "image"


def test_a_manifest_may_not_call_a_column_region(clinic):
    clinic.manifest["columns"]["region"] = {"kind": "categorical"}
    with pytest.raises(ManifestError, match=r"columns\.region: the name is reserved"):
        clinic.build()


def planned(tmp_path, variant):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"data": {"manifest": BOTH}}))
    base = tmp_path / "base.yaml"
    study = Study(config=str(base), arms=["image"], folds=2, variants={"one": {}, "each": variant})
    folds = plan_folds(study, base, {})
    combinations = plan_combinations(study, base, folds, {})
    return plan_cells(study, folds, [(c, {"data": {}, "made": c.arguments}) for c in combinations])


def test_a_variant_may_have_a_model_for_each_region(tmp_path):
    cells = planned(tmp_path, {"data.regions": "each"})
    assert [cell.name for cell in cells[:3]] == [
        "one-image-r0-f0-s42", "each.knee-image-r0-f0-s42", "each.spine-image-r0-f0-s42",
    ]  # fmt: skip
    assert {cell.variant for cell in cells} == {"one", "each"}
    assert '--data.regions=["spine"]' in cells[2].settings["made"]


def test_a_variant_of_some_regions_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.regions can only be `each`"):
        planned(tmp_path, {"data.regions": ["knee"]})
