"""A report of several variants: one table and one figure of them all, and each model apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from osteofusion.evaluation import evaluate
from osteofusion.evaluation.classification import accuracy_gap, gaps_in_json
from osteofusion.report.glossary import explained
from osteofusion.report.read import read_material
from osteofusion.report.variants import verdict

CLASSES = ["normal", "low_bmd"]
APART = {"small_net": 0.3, "large_net": 4.0}  # how well each tells the classes


def drawn(study, variant):
    """Test rows of a variant, its image arm and two baselines; and its training rows."""
    table = pd.read_csv(study / "predictions.csv", dtype={"subject_id": str})
    own = table[table["arm"] == "image"].assign(variant=variant)
    rng, low = np.random.default_rng(1), (own["label"] == "low_bmd").to_numpy()

    def probabilities(rows, p):
        values = {f"{kind}_{name}": q for kind in ("p", "raw")
                  for name, q in zip(CLASSES, (1 - p, p), strict=True)}  # fmt: skip
        return rows.assign(**values)

    p = 1 / (1 + np.exp(-(APART[variant] * (low - 0.5) + rng.normal(size=len(low)))))
    arms = [probabilities(own, p)]
    for arm, said in {"majority": np.full(len(low), 0.7), "age": 0.5 + 0.2 * (p - 0.5)}.items():
        arms.append(probabilities(own.assign(arm=arm), said))
    return pd.concat(arms), probabilities(own.assign(split="train"), low * 0.8 + 0.1)


@pytest.fixture(scope="module")
def backbones(study, tmp_path_factory):
    """The study's folder with two variants of the image arm."""
    out = shutil.copytree(study, tmp_path_factory.mktemp("backbones") / "out")
    tests, evaluations = [], {}
    for variant in APART:
        test, train = drawn(study, variant)
        tests.append(test)
        found = evaluate(test.drop(columns="variant"), CLASSES, resamples=200).to_dict()
        both = pd.concat([test[test["arm"] == "image"], train]).drop(columns="variant")
        gaps = gaps_in_json(accuracy_gap(both, CLASSES))
        evaluations[variant] = found | {"accuracy_gap": gaps, "regions": {}}
        cell = f"{variant}-image-r0-f0-s42"
        shutil.copytree(study / "cells" / "base-fused-r0-f0-s42", out / "cells" / cell)
    table = pd.concat(tests, ignore_index=True)
    named = table[table["arm"] == "image"]
    named = named.assign(arm=named["variant"] + "/image").drop(columns="variant")
    pairs = [("large_net/image", "small_net/image")]
    between = evaluate(named, CLASSES, resamples=200, compare=pairs).to_dict()
    evaluations["between variants"] = between
    table.to_csv(out / "predictions.csv", index=False)
    (out / "evaluation.json").write_text(json.dumps(evaluations))
    described = json.loads((out / "study.json").read_text())
    described |= {"arms": ["image"], "variants": {name: {} for name in APART}, "failed": {}}
    (out / "study.json").write_text(json.dumps(described))
    head = "cell,variant,arm,fold,repeat,seed,status,seconds,folder,error\n"
    lines = [f"{v}-image-r0-f0-s42,{v},image,0,0,42,done,1,cells/x,\n" for v in APART]
    (out / "cells.csv").write_text(head + "".join(lines))
    (out / "audits.json").unlink()
    return out


@pytest.fixture(scope="module")
def page(backbones, make_page, tmp_path_factory):
    return make_page(backbones, tmp_path_factory.mktemp("page"), "--figures", "figures")


def test_variants_stand_before_the_results_and_table_one_after(page):
    keys = [attributes["id"] for attributes in page.all("section")]
    places = [keys.index(key) for key in ("cohort", "variants", "results", "table-one")]
    assert places == sorted(places)


def test_one_table_has_every_variant_and_what_it_is_held_against(page, backbones):
    evaluations = json.loads((backbones / "evaluation.json").read_text())
    start = page.text.index("2 variants on the same")
    text = page.text[start : page.text.index("Each variant against the first", start)]
    for words in ("macro F1", "MCC", "always the majority", "age alone", "predictions.csv"):
        assert words in text
    for variant in APART:
        found = evaluations[variant]
        for metric in ("auroc", "accuracy", "macro_f1", "mcc"):
            value = found["arms"]["image"]["metrics"][metric]["value"]
            assert f"{value:.3f}".replace("-", "\N{MINUS SIGN}") in text
        gap = found["accuracy_gap"]["image"]
        assert f"{gap['gap']:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert text.index("small net") < text.index("large net")  # the study's order, not the best


def test_the_first_page_says_which_variant_is_better(page):
    assert "By AUROC, large net is better than the first variant, small net." in page.text
    assert "AUROC is how often" in page.text


def test_only_terms_that_stand_there_are_explained():
    assert explained(["The confusion matrix of the image model."]) == ""
    assert explained(["Fusion helps."]).startswith("Fused is")


@pytest.mark.parametrize(("p", "warned"), [(None, True), (0.01, False)])
def test_many_comparisons_without_p_values_are_said_to_be_unadjusted(backbones, p, warned):
    material = read_material(backbones)
    (found,) = [each for each in material.between["differences"] if each["metric"] == "auroc"]
    several = [{**found, "first": f"net_{i}/image", "p_adjusted": p} for i in range(3)]
    said = verdict(replace(material, between={"differences": several}))
    assert ("3 comparisons that are not adjusted" in said) == warned
    alone = verdict(replace(material, between={"differences": several[:1]}))
    assert "adjusted" not in alone


def test_each_model_has_its_report_matrix_and_accuracy_curve(page):
    for variant in APART:
        assert f"Classification report, {variant.replace('_', ' ')}." in page.text
        for name in (f"confusion_{variant}_image", f"training_{variant}_image_accuracy"):
            assert (page.folder / "figures" / f"{name}.svg").is_file()
    assert (page.folder / "figures" / "variants.png").is_file()


def test_a_folder_of_an_older_version_says_what_it_lacks(backbones, cli, tmp_path):
    old = shutil.copytree(backbones, tmp_path / "old")
    content = json.loads((old / "evaluation.json").read_text())
    for evaluation in content.values():
        evaluation.pop("accuracy_gap", None)
        for arm in evaluation["arms"].values():
            arm.pop("by_class")
    (old / "evaluation.json").write_text(json.dumps(content))
    result = cli("report", old, "--out", "page.html", cwd=tmp_path)
    assert result.code == 0, result.err
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Classification report, small net: not here. An older version" in text
    assert "training less test" not in text
