"""Every shipped config runs; a new one is covered by being there."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from osteofusion.resources import shipped_names
from osteofusion.training.study.config import find_study, load_study
from osteofusion.training.study.plan import base_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STUDIES = shipped_names("configs/studies")
TOY = ("--data.image_size=32", "--model.pretrained=false", "--trainer.max_epochs=1")
TOY_BACKBONE = "--model.backbone=test_resnet.r160_in1k"
ONE_STEP = (
    *("--model.pretrained=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"),
    *("--trainer.limit_val_batches=1", "--data.batch_size=2"),
)


@pytest.fixture(scope="module")
def roots(demo, spine, hands):
    """Toy data in the place of each manifest that a config names."""
    return {"demo": demo, "demo_spine": spine, "rsna_boneage": hands}


def data_options(config: Path, roots) -> list[str]:
    manifest = yaml.safe_load(config.read_text())["data"]["manifest"]
    if isinstance(manifest, list):
        return [f"--data.root=[{', '.join(str(roots[name]) for name in manifest)}]"]
    return [f"--data.root={roots[manifest]}"]


def test_every_file_is_found_by_its_name():
    there = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    runs, studies = shipped_names("configs"), [f"studies/{name}" for name in STUDIES]
    assert sorted(there) == sorted([*runs, *studies])
    assert {"binary.yaml", "three_class.yaml", "seeds/osteoai.yaml"} <= set(runs)


@pytest.mark.parametrize("name", shipped_names("configs"))
def test_config_runs_at_toy_size(cli, roots, tmp_path, name):
    options = (*data_options(CONFIGS / name, roots), *TOY, TOY_BACKBONE)
    result = cli("fit", "--config", name, *options, cwd=tmp_path)
    assert result.code == 0, result.err
    run = tmp_path / "runs" / Path(name).stem / "version_0"
    assert json.loads((run / "metrics.json").read_text())["arms"]
    assert (run / "predictions.csv").is_file()
    # A seed that corrects the imbalance twice runs as it did, and says so; the one epoch of the toy
    # ends before the second phase of the seed that has two.
    twice = ["is corrected 2 times" in text for text in result.warnings]
    never = ["is never trained" in text for text in result.warnings]
    assert twice == [True] * name.startswith("seeds/knee") + [False] * sum(never)
    assert never == [False] * sum(twice) + [True] * (name == "seeds/osteoai.yaml")


@pytest.mark.parametrize(
    "name",
    # The others have a dozen cells and more.
    [pytest.param(n, marks=[] if n == "ablation.yaml" else pytest.mark.slow) for n in STUDIES],
)
def test_study_runs_at_toy_size(cli, roots, tmp_path, name):
    study = load_study(path := find_study(name))
    # Each variant keeps all in which it differs but its backbone; of equal ones, one.
    variants = {
        variant: {
            key: value
            for key, value in changed.items()
            if key not in ("model.backbone", "model.pretrained")
        }
        for variant, changed in study.variants.items()
    }
    unlike = {json.dumps(changed): variant for variant, changed in variants.items()}
    variants = {variant: variants[variant] for variant in unlike.values()}
    arms = study.arms if len(variants) == 1 else study.arms[:1]
    config = base_config(study, path)
    changed = {"variants": variants, "arms": arms, "folds": 2, "config": str(config)}
    toy = study.model_dump() | changed | {"audits": False}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy))
    options = (*data_options(config, roots), *TOY, TOY_BACKBONE)
    result = cli("study", "--config", "toy.yaml", *options, "--out", "out", cwd=tmp_path)
    assert result.code == 0, result.err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(table["variant"]) == set(variants)
    assert set(arms) <= set(table["arm"])
    rows = len(pd.read_csv(tmp_path / "out" / "cohort.csv"))
    sizes = table.groupby(["variant", "arm"]).size()
    assert set(sizes) == {rows}  # each radiograph is tested once by each


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_names("configs"))
def test_config_trains_a_step_with_its_own_backbone(cli, roots, tmp_path, name):
    options = (*data_options(CONFIGS / name, roots), *ONE_STEP)
    result = cli("fit", "--config", name, *options, cwd=tmp_path)
    assert result.code == 0, result.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name in STUDIES for variant in load_study(find_study(name)).variants],
)
def test_variant_trains_a_step_with_its_own_backbone(cli, roots, tmp_path, name, variant):
    study = load_study(path := find_study(name))
    config = base_config(study, path)
    changed = {**study.settings, **study.variants[variant], "model.arm": study.arms[0]}
    if changed.get("data.regions") == "each":  # the study's word for a model of each
        changed["data.regions"] = ["knee"]
    settings = [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in changed.items()
    ]
    options = (*data_options(config, roots), *settings, *ONE_STEP)
    result = cli("fit", "--config", config, *options, cwd=tmp_path)
    assert result.code == 0, result.err


@pytest.mark.parametrize("name", ["binary", "binary.yaml"])
def test_a_name_works_with_and_without_its_suffix(cli, tmp_path, name):
    cli.fit("--model.arm", "tabular", config=name, cwd=tmp_path)
    assert (tmp_path / "runs" / "binary" / "version_0" / "metrics.json").is_file()


def test_a_file_of_ones_own_comes_before_a_shipped_one(cli, tmp_path):
    (tmp_path / "binary.yaml").write_text("model:\n  arm: tabular\n")
    result = cli.fit(config="binary.yaml", cwd=tmp_path)
    assert " tabular " in result.out
