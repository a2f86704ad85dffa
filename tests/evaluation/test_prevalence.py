import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom, norm

from osteofusion.errors import EvaluationError
from osteofusion.evaluation import Estimate, wilson_interval
from osteofusion.evaluation.prevalence import (
    at_prevalence,
    complement,
    posterior,
    shift_odds,
    weighted_sum,
)


def share(hits, n):
    success = np.arange(n) < hits
    low, high = wilson_interval(np.ones(n, dtype=bool), success, np.arange(n))
    return Estimate(hits / n, n, low, high, "wilson")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_at_the_cohorts_own_prevalence_they_are_the_plain_values(tp, fn, fp, tn):
    n = tp + fn + fp + tn
    sensitivity, specificity = share(tp, tp + fn), share(tn, tn + fp)
    found = at_prevalence(sensitivity, specificity, (tp + fn) / n, 0.2)
    assert found.ppv.value == pytest.approx(tp / (tp + fp))
    assert found.npv.value == pytest.approx(tn / (tn + fn))
    assert found.net_benefit.value == pytest.approx(tp / n - fp / n * 0.25)
    assert found.net_benefit_treat_all == pytest.approx((tp + fn) / n - (fp + tn) / n * 0.25)
    assert found.dxa_avoided_per_1000.value == pytest.approx(1000 * (fn + tn) / n)
    assert found.missed_per_1000.value == pytest.approx(1000 * fn / n)
    for estimate in (found.ppv, found.npv):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(st.floats(0.01, 0.9), st.floats(0.01, 0.09))
def test_a_rarer_disease_lowers_ppv_and_raises_npv(prevalence, step):
    rare, common = (
        at_prevalence(share(80, 100), share(30, 36), p) for p in (prevalence, prevalence + step)
    )
    assert rare.ppv.value < common.ppv.value
    assert rare.npv.value > common.npv.value


def test_many_rows_give_the_delta_interval_of_mercaldo():
    sensitivity, specificity, m, n, prevalence = 0.8, 0.7, 40_000, 30_000, 0.2
    found = at_prevalence(share(32_000, m), share(21_000, n), prevalence)
    odds = sensitivity * prevalence / ((1 - sensitivity + sensitivity - specificity) * 0.8)
    assert found.ppv.value == pytest.approx(odds / (1 + odds))
    error = np.sqrt((1 - sensitivity) / (sensitivity * m) + specificity / ((1 - specificity) * n))
    ends = expit(logit(found.ppv.value) + np.array([-1, 1]) * norm.ppf(0.975) * error)
    np.testing.assert_allclose([found.ppv.low, found.ppv.high], ends, atol=1e-4)


@pytest.mark.parametrize(
    ("sensitivity", "specificity"), [(0.9, 0.8), (0.8, 0.9), (0.9, 0.95), (0.6, 0.6)]
)
def test_coverage_with_36_normals_and_203_others_is_exact_enough(sensitivity, specificity):
    """Coverage by summing over all outcomes: PPV, NPV and net benefit lie in 0.93 to 0.97."""
    prevalence, odds = 0.3, 0.25
    hits, clears = range(204), range(37)
    first, second = [share(k, 203) for k in hits], [share(k, 36) for k in clears]
    chance = np.outer(binom.pmf(hits, 203, sensitivity), binom.pmf(clears, 36, specificity))
    called = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    truth = {
        "ppv": sensitivity * prevalence / called,
        "npv": specificity * (1 - prevalence) / (1 - called),
        "net_benefit": sensitivity * prevalence - (1 - specificity) * (1 - prevalence) * odds,
    }
    covered = dict.fromkeys(truth, 0.0)
    for i, j in np.argwhere(chance > 1e-6):
        found = at_prevalence(first[i], second[j], prevalence, 0.2)
        for name, value in truth.items():
            estimate = getattr(found, name)
            covered[name] += chance[i, j] * (estimate.low <= value <= estimate.high)
    for name, coverage in covered.items():
        assert 0.93 <= coverage <= 0.97, (name, coverage)


def test_perfect_rules_keep_an_honest_end():
    found = at_prevalence(share(200, 200), share(36, 36), 0.3, 0.2)
    assert found.ppv.value == found.ppv.high == 1
    assert 0.75 < found.ppv.low < 0.95
    assert found.npv.value == found.npv.high == 1
    assert 0.95 < found.npv.low < 1
    assert found.missed_per_1000.value == 0
    assert found.missed_per_1000.high > 1


def test_what_nobody_falls_in_has_a_reason():
    none = at_prevalence(share(0, 10), share(10, 10), 0.3)
    assert none.ppv.value is None
    assert none.ppv.reason == "no row falls there"
    assert none.npv.value == pytest.approx(0.7)
    assert none.net_benefit.reason == "the rule has no threshold between 0 and 1"
    assert none.net_benefit_treat_all is None
    unknown = Estimate(None, 0, reason="no row is negative")
    found = at_prevalence(share(9, 10), unknown, 0.3, 0.2)
    for name in ("ppv", "npv", "net_benefit", "dxa_avoided_per_1000"):
        assert getattr(found, name).value is None
        assert getattr(found, name).reason == "no row is negative"
    assert found.missed_per_1000.value == pytest.approx(30)


@pytest.mark.parametrize("prevalence", [0, 1, 30, -0.1, float("nan")])
def test_a_prevalence_is_a_share(prevalence):
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        at_prevalence(share(9, 10), share(9, 10), prevalence)


def test_posterior_is_bayes_and_falls_both_ways():
    in_low, in_normal = share(30, 100), share(10, 50)
    band = posterior(in_low, in_normal, 0.4)
    assert band.value == pytest.approx(0.3 * 0.4 / (0.3 * 0.4 + 0.2 * 0.6))
    other = posterior(in_normal, in_low, 0.6)
    assert other.value == pytest.approx(1 - band.value)
    assert (other.low, other.high) == pytest.approx((1 - band.high, 1 - band.low))


def test_a_sum_of_one_proportion_is_that_proportion():
    one = share(7, 20)
    found = weighted_sum([one], [1.0])
    assert (found.value, found.low, found.high) == pytest.approx((one.value, one.low, one.high))
    turned = complement(one)
    back = weighted_sum([turned], [-1.0])
    assert (back.low, back.high) == pytest.approx((-turned.high, -turned.low))


def test_shifted_odds_come_back_and_stay_probabilities():
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    moved = shift_odds(p, 0.85, 0.3)
    np.testing.assert_allclose(shift_odds(moved, 0.3, 0.85), p)
    np.testing.assert_allclose(moved[[0, -1]], [0, 1])
    assert (moved[1:-1] < p[1:-1]).all()
    np.testing.assert_allclose(shift_odds(0.85, 0.85, 0.3), 0.3)
