from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import BINARY, THREE
from sklearn.metrics import roc_auc_score
from statsmodels.miscmodels.ordinal_model import OrderedModel
from test_baselines import cohort

from osteofusion.evaluation import fit_baselines
from osteofusion.evaluation.ordinal import fit_proportional_odds
from osteofusion.evaluation.screening import orai, ost, osta, screening_scores

MENDELEY = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "mendeley"


def test_ost_and_osta_of_the_published_form():
    age, weight = np.array([73.0, 50.0, 60.0]), np.array([50.0, 73.0, np.nan])
    np.testing.assert_allclose(ost(age, weight), [-4.6, 4.6, np.nan])
    np.testing.assert_array_equal(osta(age, weight), [-4.0, 4.0, np.nan])  # towards 0


@pytest.mark.parametrize(
    ("age", "weight", "estrogen", "points"),
    [
        (80, 55, 0, 26),
        (75, 60, 1, 18),
        (74.9, 69.9, 0, 14),
        (65, 70, 0, 11),
        (55, 59.9, 1, 14),
        (54.9, 70, 0, 2),
        (45, 90, 1, 0),
        (45, 90, np.nan, 2),
        (np.nan, 90, 1, np.nan),
        (45, np.nan, 1, np.nan),
    ],
)
def test_orai_by_hand(age, weight, estrogen, points):
    values = [np.array([float(v)]) for v in (age, weight, estrogen)]
    np.testing.assert_array_equal(orai(*values), [points])
    without = points - 2 if estrogen != 1 else points
    np.testing.assert_array_equal(orai(*values[:2]), [without])


def test_scores_need_their_columns():
    age = np.array([60.0])
    scores, reasons = screening_scores({"age": age, "frax": np.array([0.2])})
    assert list(scores) == ["frax"]
    assert reasons == dict.fromkeys(("ost", "osta", "orai"), "the cohort has no weight column")


def test_men_and_left_out_points_are_said():
    train, test = cohort(0, 120, BINARY), cohort(1, 50, BINARY)
    men = int((test.columns["female"] == 0).sum())
    said = fit_baselines(train, test, BINARY).notes
    assert said == dict.fromkeys(
        ("ost", "osta", "orai"), f"developed in women; {men} of 50 rows are men"
    )
    women = {**test.columns, "female": np.ones(50)}
    assert fit_baselines(train, replace(test, columns=women), BINARY).notes == {}
    sides = [
        replace(side, columns={name: side.columns[name] for name in ("age", "weight")})
        for side in (train, test)
    ]
    notes = fit_baselines(*sides, BINARY).notes
    assert notes["ost"] == "developed in women; the cohort does not tell the sex"
    assert notes["orai"].endswith("its 2 points are left out")


def test_frax_that_somebody_brings_is_an_arm():
    train, test = cohort(2, 120, BINARY), cohort(3, 50, BINARY)
    sides = [
        replace(side, columns={**side.columns, "frax": side.y + 0.1 * side.age})
        for side in (train, test)
    ]
    p = fit_baselines(*sides, BINARY).probabilities["frax"]
    assert roc_auc_score(test.y, p[:, 1]) > 0.8


def test_gradient_boosting_reads_missing_cells_as_they_are():
    train, test = cohort(4, 300, BINARY), cohort(5, 100, BINARY)
    sides = []
    for side in (train, test):
        told = np.where(side.y == 1, np.nan, 1.0)  # missing means low BMD
        sides.append(replace(side, values=np.column_stack([side.design, told])))
    found = fit_baselines(*sides, BINARY).probabilities["gradient_boosting"]
    assert roc_auc_score(test.y, found[:, 1]) == 1


def ordinal_data(seed=0, n=300):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n, 3))
    signal = design @ [1.0, -0.5, 0.0] + rng.logistic(size=n)
    return design, np.digitize(signal, [-1.5, 1.0])


def test_proportional_odds_agrees_with_statsmodels():
    design, y = ordinal_data()
    model = fit_proportional_odds(design, y, np.ones(300), np.zeros(3))
    other = OrderedModel(y, design, distr="logit").fit(method="bfgs", disp=0, gtol=1e-8)
    np.testing.assert_allclose(model.weight, other.params[:3], atol=2e-3)
    p = model.probabilities(design)
    np.testing.assert_allclose(p, other.predict(), atol=1e-3)
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_two_classes_are_logistic_regression():
    design, y = ordinal_data()
    y = (y > 0).astype(int)
    model = fit_proportional_odds(design, y, np.ones(300), np.zeros(3))
    other = OrderedModel(y, design, distr="logit").fit(method="bfgs", disp=0, gtol=1e-8)
    np.testing.assert_allclose(model.weight, other.params[:3], atol=2e-3)


def test_whole_weights_count_rows_and_the_penalty_shrinks_its_column_alone():
    design, y = ordinal_data()
    twice = np.where(np.arange(300) % 2 == 0, 2, 1)
    repeated = np.repeat(np.arange(300), twice)
    free = np.zeros(3)
    weighted = fit_proportional_odds(design, y, twice.astype(float), free)
    copied = fit_proportional_odds(design[repeated], y[repeated], np.ones(len(repeated)), free)
    np.testing.assert_allclose(weighted.weight, copied.weight, atol=1e-3)
    shrunk = fit_proportional_odds(design, y, np.ones(300), np.array([0.0, 1e6, 1e6]))
    alone = fit_proportional_odds(design[:, :1], y, np.ones(300), np.zeros(1))
    np.testing.assert_allclose(shrunk.weight, [alone.weight[0], 0, 0], atol=2e-3)


def test_with_everything_shrunk_away_the_cuts_are_the_shares():
    design, y = ordinal_data()
    model = fit_proportional_odds(design, y, np.ones(300), np.full(3, 1e9))
    shares = np.tile(np.bincount(y) / 300, (300, 1))
    np.testing.assert_allclose(model.probabilities(design), shares, atol=1e-3)


def test_the_finer_classes_add_up_to_the_task():
    train, test = cohort(6, 300, THREE), cohort(7, 100, THREE)
    for positive in ([1, 2], [2]):  # low BMD; osteoporosis
        sides = [
            replace(side, y=np.isin(side.y, positive).astype(int), ordinal=side.y)
            for side in (train, test)
        ]
        p = fit_baselines(*sides, BINARY).probabilities["proportional_odds"]
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert roc_auc_score(sides[1].y, p[:, 1]) > 0.8
    coarse = [replace(side, y=(side.y > 0).astype(int)) for side in (train, test)]
    assert fit_baselines(*coarse, BINARY).probabilities["proportional_odds"].shape == (100, 2)


def test_separated_and_tiny_training_rows_stay_finite():
    train = cohort(8, 6, THREE)
    apart = replace(train, age=np.linspace(20, 90, 6), y=np.array([0, 0, 1, 1, 2, 2]))
    for p in fit_baselines(apart, apart, THREE).probabilities.values():
        assert np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)


@pytest.mark.slow
@pytest.mark.skipif(not MENDELEY.is_dir(), reason="needs ../shared/data/mendeley")
def test_baselines_on_mendeley_reach_what_is_known_by_hand():
    from osteofusion.data.clinical import ClinicalSchema, fit_preprocessing, select_features
    from osteofusion.data.cohort import build_cohort
    from osteofusion.data.splits import make_splits
    from osteofusion.evaluation import BaselineRows

    built = build_cohort("mendeley", MENDELEY)
    features = select_features(built.manifest, None)
    table = built.table.set_index(["subject_id", "image"])
    splits = make_splits(built.table, seed=0, folds=5, repeats=3)
    areas = []
    for _, fold in splits.groupby(["repeat", "fold"]):
        sides = {
            name: table.loc[list(rows[["subject_id", "image"]].itertuples(index=False, name=None))]
            for name, rows in fold.groupby("split")
        }
        schema = ClinicalSchema.fit(sides["train"], built.manifest, features)
        encoder = fit_preprocessing(schema.encode(sides["train"]), schema)
        facts = {}
        for name in ("train", "test"):
            rows, values = sides[name], schema.encode(sides[name])
            codes = rows["label"].map(THREE.index).to_numpy()
            facts[name] = BaselineRows(
                design=encoder.transform(values),
                y=(codes > 0).astype(int),
                age=rows["age"].to_numpy(dtype=float),
                columns={c: rows[c].to_numpy(dtype=float) for c in ("age", "weight", "estrogen")},
                values=values,
                ordinal=codes,
            )
        found = fit_baselines(facts["train"], facts["test"], BINARY).probabilities
        areas.append({arm: roc_auc_score(facts["test"].y, p[:, 1]) for arm, p in found.items()})
    means = pd.DataFrame(areas).mean()
    assert means["age"] == pytest.approx(0.945, abs=0.005)
    assert means["logistic_regression"] == pytest.approx(0.926, abs=0.01)
    assert means["proportional_odds"] > means["age"]
    assert means["gradient_boosting"] > 0.92
    assert 0.8 < means["ost"] < means["age"]
