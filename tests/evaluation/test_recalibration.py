import numpy as np
import pytest
import statsmodels.api as sm
from fabricated import BINARY, THREE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import t

from osteofusion.evaluation.points import point_metrics
from osteofusion.evaluation.recalibration import (
    calibration_intercept,
    calibration_line,
    intercept_interval,
    log_odds,
    slope_interval,
)


def rows(seed, n, decimals=12):
    """Overlapping probabilities of both classes, by rounding with ties and exact 0 and 1."""
    rng = np.random.default_rng(seed)
    positive = np.append([True, False], rng.random(n - 2) < 0.6)
    scores = np.round(expit(1.2 * rng.normal(size=n) + positive), decimals)
    clusters = np.unique(rng.integers(0, n, n), return_inverse=True)[1]
    return positive, scores, clusters


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(20, 200), st.sampled_from([1, 2, 12]))
def test_intercept_and_slope_agree_with_statsmodels(seed, n, decimals):
    positive, scores, clusters = rows(seed, n, decimals)
    line = calibration_line(positive, scores)
    if isinstance(line, str):
        assert "separate" in line or "same probability" in line
        return
    groups = {"groups": clusters, "use_correction": False}
    odds, family, count = log_odds(scores), sm.families.Binomial(), clusters.max() + 1
    wider = t.ppf(0.975, count - 1) * np.sqrt(count / (count - 1))
    fitted = sm.GLM(positive, sm.add_constant(odds), family=family)
    fitted = fitted.fit(tol=1e-12, maxiter=200, cov_type="cluster", cov_kwds=groups)
    np.testing.assert_allclose(line, fitted.params, rtol=1e-5, atol=1e-6)
    low, high = slope_interval(positive, scores, clusters)
    assert (high - low) / 2 == pytest.approx(wider * fitted.bse[1], rel=1e-4)
    large = sm.GLM(positive, np.ones(n), family=family, offset=odds)
    large = large.fit(tol=1e-12, maxiter=200, cov_type="cluster", cov_kwds=groups)
    intercept = calibration_intercept(positive, scores)
    assert intercept == pytest.approx(large.params[0], abs=1e-6)
    low, high = intercept_interval(positive, scores, clusters)
    assert (low + high) / 2 == pytest.approx(intercept)
    assert (high - low) / 2 == pytest.approx(wider * large.bse[0], rel=1e-4)


def test_known_distortions_are_found():
    rng = np.random.default_rng(0)
    odds = rng.normal(size=200_000)
    positive = rng.random(200_000) < expit(odds)
    assert calibration_intercept(positive, expit(odds - 0.7)) == pytest.approx(0.7, abs=0.02)
    too_extreme = calibration_line(positive, expit(2 * odds))
    assert too_extreme == pytest.approx([0, 0.5], abs=0.02)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_separated_classes_have_a_reason_in_place_of_a_slope(turned, tied):
    positive = np.array([False, False, True, True]) ^ turned
    scores = np.array([0.1, 0.3, 0.3 if tied else 0.6, 0.9])
    assert "separate" in calibration_line(positive, scores)
    assert np.isfinite(calibration_intercept(positive, scores))
    with pytest.raises(ValueError, match="separate"):
        slope_interval(positive, scores, np.arange(4))


def test_sums_that_miss_each_other_by_rounding_are_ties():
    positive = np.array([False, True, True])
    assert "separate" in calibration_line(positive, np.array([0.1 + 0.2, 0.3, 0.9]))


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_one_probability_for_all_has_an_intercept_only(classes):
    labels = np.array([0, 1, 1, 1])
    p = np.tile([0.5, 0.5] if classes == BINARY else [0.5, 0.3, 0.2], (4, 1))
    points = point_metrics(labels, p, classes)
    assert points["calibration_slope"].value is None
    assert "same probability" in points["calibration_slope"].reason
    assert points["calibration_intercept"].value == pytest.approx(np.log(3))
