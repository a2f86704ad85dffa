import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from decision_tables import folds_table, probabilities
from fabricated import BINARY, THREE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.agreement import agreement
from osteofusion.evaluation.calibration import Calibration, calibrate_folds, fit_calibration


def two_columns(p):
    p = np.asarray(p, dtype=float)
    return np.column_stack([1 - p, p])


def test_platt_agrees_with_statsmodels_where_the_prior_cannot_pull():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 20_000)
    raw = two_columns(np.clip(rng.beta(2 + 2 * y, 3), 0.01, 0.99))
    fitted = fit_calibration(raw, y)
    other = sm.Logit(y, sm.add_constant(logit(raw[:, 1]))).fit(disp=0).params
    np.testing.assert_allclose([*fitted.intercept, *fitted.slope], other, atol=2e-3)


def test_a_prior_shifted_by_class_weights_is_put_back():
    rng = np.random.default_rng(1)
    y = (rng.random(5000) < 0.85).astype(int)
    raw = probabilities(rng, y, BINARY, 1.5)  # the posterior at equal classes
    fitted = fit_calibration(raw, y)
    assert fitted.slope[0] == pytest.approx(1, abs=0.1)
    assert fitted.intercept[0] == pytest.approx(logit(0.85), abs=0.15)
    assert fitted.apply(raw)[:, 1].mean() == pytest.approx(y.mean(), abs=1e-3)


def test_vector_scaling_puts_the_shares_of_three_classes_back():
    rng = np.random.default_rng(2)
    y = rng.choice(3, 4000, p=[0.15, 0.65, 0.2])
    raw = probabilities(rng, y, THREE, 1.5)
    fitted = fit_calibration(raw, y)
    assert len(fitted.slope) == len(fitted.intercept) == 3
    shares = np.bincount(y) / len(y)
    np.testing.assert_allclose(fitted.apply(raw).mean(axis=0), shares, atol=2e-3)
    spread = np.subtract(fitted.intercept, fitted.intercept[0])
    np.testing.assert_allclose(spread, np.log(shares / shares[0]), atol=0.25)


@pytest.mark.parametrize("classes", [2, 3])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rows_sum_to_one_and_binary_order_is_kept(classes, data):
    n = data.draw(st.integers(2, 30))
    weights = st.lists(st.floats(0, 1), min_size=classes, max_size=classes)
    rows = data.draw(st.lists(weights.filter(lambda w: sum(w) > 0.1), min_size=n, max_size=n))
    raw = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    fitted = fit_calibration(raw, labels)
    calibrated = fitted.apply(raw)
    assert np.isfinite([*fitted.slope, *fitted.intercept]).all()
    assert min(fitted.slope) > 0
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    if classes == 2:
        order = np.argsort(raw[:, 1])
        assert (np.diff(calibrated[order, 1]) >= -1e-12).all()


def test_separated_rows_and_two_rows_stay_finite():
    separated = fit_calibration(two_columns([0.0, 0.1, 0.9, 1.0]), np.array([0, 0, 1, 1]))
    assert 1 < separated.slope[0] < 5
    pair = fit_calibration(two_columns([0.4, 0.6]), np.array([0, 1]))
    assert np.isfinite([*pair.slope, *pair.intercept]).all()


def test_a_falling_slope_is_refused_in_favour_of_the_intercept():
    p = np.linspace(0.05, 0.95, 50)
    y = (p < 0.6).astype(int)
    fitted = fit_calibration(two_columns(p), y)
    assert fitted.slope == (1.0,)
    assert fitted.intercept[0] > 0.1
    assert "turn the order round" in fitted.note


def test_one_class_leaves_the_probabilities_as_they_are():
    raw = two_columns([0.0, 0.3, 1.0])
    fitted = fit_calibration(raw, np.ones(3, dtype=int))
    np.testing.assert_array_equal(fitted.apply(raw), raw)
    assert fitted.note == "not calibrated: the rows to fit on hold 1 of 2 classes"


def test_a_calibration_survives_json_and_knows_its_classes():
    calibration = Calibration((0.8,), (1.2,), "a note")
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration
    with pytest.raises(EvaluationError, match="of 3 classes"):
        calibration.apply(np.full((2, 3), 1 / 3))


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_folds_are_calibrated_on_the_other_folds_alone(classes):
    shares = (0.15, 0.85) if len(classes) == 2 else (0.15, 0.6, 0.25)
    table = folds_table(classes=classes, shares=shares, arms=(("fused", 1.5), ("age", 1.0)))
    done = calibrate_folds(table, classes)
    names = [f"p_{name}" for name in classes]
    np.testing.assert_allclose(done[names].sum(axis=1), 1)
    raws = [f"raw_{name}" for name in classes]
    np.testing.assert_array_equal(done[raws], table[raws])
    observed = (table["label"] == classes[0]).mean()
    means = done.groupby("arm")[[names[0], raws[0]]].mean()
    assert (abs(means[names[0]] - observed) < 0.02).all()
    assert (abs(means[raws[0]] - observed) > 0.05).all()

    own = (table["arm"] == "fused") & (table["repeat"] == 1) & (table["fold"] == 2)
    changed = table.copy()
    changed.loc[own, "label"] = classes[0]
    moved = (calibrate_folds(changed, classes)[names[0]] != done[names[0]]).to_numpy()
    same_repeat = (table["arm"] == "fused") & (table["repeat"] == 1)
    assert not moved[own].any()
    assert moved[same_repeat & ~own].all()
    assert not moved[~same_repeat].any()


def test_training_rows_are_not_fitted_on():
    table = folds_table()
    extra = table.assign(split="train", label="normal", subject_id="T" + table["subject_id"])
    both = calibrate_folds(pd.concat([table, extra], ignore_index=True), BINARY)
    alone = calibrate_folds(table, BINARY)
    np.testing.assert_array_equal(both["p_low_bmd"][: len(table)], alone["p_low_bmd"])


def test_a_single_fold_is_returned_unchanged_with_a_note():
    table = folds_table(folds=1, repeats=1)
    done = calibrate_folds(table, BINARY)
    np.testing.assert_array_equal(done["p_low_bmd"], table["raw_low_bmd"])
    assert done.attrs["calibration_notes"] == ["fused 0: not calibrated, there is a single fold"]


def test_tables_that_cannot_be_calibrated():
    table = folds_table(n=20)
    with pytest.raises(EvaluationError, match="no column 'raw_low_bmd'"):
        calibrate_folds(table.drop(columns="raw_low_bmd"), BINARY)
    with pytest.raises(EvaluationError, match="such as 'sick'"):
        calibrate_folds(table.replace("low_bmd", "sick"), BINARY)
    with pytest.raises(EvaluationError, match="'fold' of the predictions table is empty in 40"):
        calibrate_folds(table.assign(fold=np.nan), BINARY)
    table.loc[3, "raw_low_bmd"] = np.nan
    with pytest.raises(EvaluationError, match=r"1 rows .* image 'S0003.png'"):
        calibrate_folds(table, BINARY)


def test_agreement_against_statsmodels():
    rng = np.random.default_rng(5)
    p = rng.uniform(0.05, 0.95, 400)
    y = rng.random(400) < p**2
    found = agreement(p, y, np.arange(400))
    logits = logit(p)
    slope = sm.Logit(y, sm.add_constant(logits)).fit(disp=0).params[1]
    offset = sm.GLM(y, np.ones(400), family=sm.families.Binomial(), offset=logits).fit().params[0]
    assert found.slope == pytest.approx(slope, rel=1e-4)
    assert found.intercept == pytest.approx(offset, rel=1e-4)
    assert found.brier == pytest.approx(((p - y) ** 2).mean())
    assert sum(each["n"] for each in found.bins) == 400
    assert all(each["low"] <= each["observed"] <= each["high"] for each in found.bins)


@pytest.mark.parametrize(
    ("scores", "low", "reason"),
    [
        ([0.2, 0.4], [1, 1], "one kind"),
        ([0.5, 0.5], [0, 1], "the same probability"),
        ([0.0, 1.0], [0, 1], "separate the classes"),
        ([1.0, 0.0], [0, 1], "separate the classes"),
    ],
)
def test_agreement_of_degenerate_rows_has_a_reason(scores, low, reason):
    found = agreement(np.array(scores), np.array(low, dtype=bool), np.arange(2))
    assert found.slope is None
    assert reason in found.reason
    assert np.isfinite(found.brier)
