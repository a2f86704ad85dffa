import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from osteofusion.evaluation.auroc import (
    Z95,
    auroc_interval,
    clustered_auroc,
    mean_auroc,
    newcombe_interval,
)
from osteofusion.evaluation.paired_auroc import auroc_difference, mean_auroc_difference

# Albumin, total protein, K-G score and outcome of 43 ovarian cancer patients: DeLong, DeLong and
# Clarke-Pearson 1988, as printed with SAS/STAT's PROC LOGISTIC ("Comparing Receiver Operating
# Characteristic Curves"), whose output the tests below are held against.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1
"""


@pytest.fixture
def ovarian():
    rows = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    scores = {"albumin": -rows[:, 0], "protein": -rows[:, 1], "kg": rows[:, 2]}
    return rows[:, 3] == 0, scores


@pytest.mark.parametrize(
    ("test", "area", "error"),
    [("albumin", 0.7366, 0.0927), ("protein", 0.6478, 0.1000), ("kg", 0.7258, 0.1028)],
)
def test_delong_published_areas(ovarian, test, area, error):
    positive, scores = ovarian
    found = clustered_auroc(positive, scores[test], np.arange(43))
    assert found.value == pytest.approx(area, abs=5e-5)
    assert np.sqrt(found.variance) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(
    ("test", "difference", "error"), [("albumin", -0.0108, 0.0953), ("protein", 0.0780, 0.1046)]
)
def test_delong_published_differences(ovarian, test, difference, error):
    positive, scores = ovarian
    one = clustered_auroc(positive, scores["kg"], np.arange(43))
    two = clustered_auroc(positive, scores[test], np.arange(43))
    spread = np.linalg.norm(one.contributions - two.contributions)
    assert abs(one.value - two.value) == pytest.approx(abs(difference), abs=5e-5)
    assert spread == pytest.approx(error, abs=5e-5)


def obuchowski(positive, scores, clusters):
    """Obuchowski 1997 as written: sums of placements over all pairs, cluster by cluster."""
    x, y = scores[positive], scores[~positive]
    kernel = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    theta, m, n = kernel.mean(), len(x), len(y)
    names = np.unique(clusters)
    v10 = [kernel.mean(axis=1)[clusters[positive] == c] - theta for c in names]
    v01 = [kernel.mean(axis=0)[clusters[~positive] == c] - theta for c in names]
    i10, i01 = sum(len(v) > 0 for v in v10), sum(len(v) > 0 for v in v01)
    s10 = i10 / ((i10 - 1) * m) * sum(v.sum() ** 2 for v in v10)
    s01 = i01 / ((i01 - 1) * n) * sum(v.sum() ** 2 for v in v01)
    cross = sum(a.sum() * b.sum() for a, b in zip(v10, v01, strict=True))
    s11 = len(names) / (len(names) - 1) * cross
    return theta, s10 / m + s01 / n + 2 * s11 / (m * n)


def test_clusters_of_one_label_give_obuchowskis_variance():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    positive = clusters % 3 > 0
    scores = np.round(rng.normal(size=30)[clusters] + rng.normal(size=len(clusters)) + positive, 1)
    found = clustered_auroc(positive, scores, clusters)
    value, variance = obuchowski(positive, scores, clusters)
    assert found.value == pytest.approx(value)
    assert found.variance == pytest.approx(variance)


def test_clusters_of_mixed_labels_are_near_obuchowskis_variance():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    positive = rng.random(len(clusters)) < 0.5
    scores = rng.normal(size=60)[clusters] + 0.5 * rng.normal(size=len(clusters)) + positive
    found = clustered_auroc(positive, scores, clusters)
    value, variance = obuchowski(positive, scores, clusters)
    assert found.value == pytest.approx(value)
    # only the small-sample factor of the cross term is another: both sides' own
    assert found.variance == pytest.approx(variance, rel=0.02)
    apart = clustered_auroc(positive, scores, np.arange(len(clusters)))
    assert apart.variance != pytest.approx(variance, rel=0.2)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 12), st.integers(1, 20))
def test_area_and_interval_are_sound(seed, n, levels, groups):
    rng = np.random.default_rng(seed)
    positive = np.append([True, False], rng.random(n - 2) < 0.5)
    scores = rng.integers(0, levels, n) + 0.0
    clusters = np.unique(rng.integers(0, groups, n), return_inverse=True)[1]
    found = clustered_auroc(positive, scores, clusters)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))
    low, high, method = auroc_interval([found])
    assert 0 <= low <= found.value <= high <= 1
    assert low < high
    assert method in {"delong", "newcombe"}
    order = np.exp(scores / 3)
    assert auroc_interval([clustered_auroc(positive, order, clusters)]) == (low, high, method)
    difference = auroc_difference(positive, scores, rng.normal(size=n), clusters)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1


def test_copies_in_one_cluster_add_nothing():
    rng = np.random.default_rng(4)
    positive = np.arange(80) < 25
    scores = rng.normal(size=80) + positive
    once = auroc_interval([clustered_auroc(positive, scores, np.arange(80))])
    twice = auroc_interval(
        [clustered_auroc(np.tile(positive, 2), np.tile(scores, 2), np.tile(np.arange(80), 2))]
    )
    assert twice[:2] == pytest.approx(once[:2])


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 30), (36, 203)])
def test_perfect_separation_has_a_wide_enough_interval(m, n):
    positive = np.arange(m + n) < m
    found = clustered_auroc(positive, positive + 0.0, np.arange(m + n))
    low, high, method = auroc_interval([found])
    assert (high, method) == (1.0, "newcombe")
    assert 0 <= low < 0.97
    assert auroc_interval([clustered_auroc(positive, -1.0 * positive, np.arange(m + n))])[0] == 0


def test_newcombe_ends_solve_the_score_equation():
    value, m, n = 0.9, 20, 35
    for theta in newcombe_interval(value, m, n):
        half = (m + n) / 2 - 1
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        error = np.sqrt(theta * (1 - theta) * spread / (m * n))
        assert abs(value - theta) == pytest.approx(Z95 * error)


def test_one_kind_of_rows_is_refused():
    with pytest.raises(ValueError, match="3 positive and 0 negative"):
        clustered_auroc(np.ones(3, dtype=bool), np.arange(3.0), np.arange(3))


def test_difference_of_the_same_order_is_zero_without_spread():
    rng = np.random.default_rng(5)
    positive, scores = np.arange(40) < 12, rng.normal(size=40)
    found = auroc_difference(positive, scores, np.exp(scores), np.arange(40))
    assert (found.value, found.low, found.high, found.method) == (0, 0, 0, "constant")


def test_two_perfect_arms_may_still_differ():
    positive = np.arange(30) < 8
    ramp = np.arange(30.0)
    found = auroc_difference(positive, 100 * positive + ramp, 100 * positive - ramp, np.arange(30))
    assert found.value == 0
    assert found.low < -0.02
    assert found.high > 0.02


def test_difference_changes_sign_with_the_arms():
    rng = np.random.default_rng(6)
    positive = np.arange(60) < 20
    first, second = rng.normal(size=60) + positive, rng.normal(size=60) + 2 * positive
    one = auroc_difference(positive, first, second, np.arange(60))
    two = auroc_difference(positive, second, first, np.arange(60))
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))


def test_pairing_narrows_the_difference():
    rng = np.random.default_rng(7)
    positive = np.arange(120) < 40
    first = rng.normal(size=120) + positive
    near = auroc_difference(positive, first, first + 0.1 * rng.normal(size=120), np.arange(120))
    far = auroc_difference(positive, first, rng.normal(size=120) + positive, np.arange(120))
    assert near.high - near.low < 0.5 * (far.high - far.low)


def delong(positive, *scores):
    """DeLong 1988 as written: areas and their covariance from the matrix of all pairs."""
    v10, v01, areas = [], [], []
    for values in scores:
        x, y = values[positive], values[~positive]
        kernel = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
        areas.append(kernel.mean())
    covariance = np.cov(v10) / positive.sum() + np.cov(v01) / (~positive).sum()
    return np.array(areas), covariance


def test_p_value_of_many_rows_is_delongs():
    rng = np.random.default_rng(8)
    positive = np.arange(2000) < 700
    first = np.round(rng.normal(size=2000) + positive, 1)
    second = first + 0.25 * rng.normal(size=2000)
    areas, covariance = delong(positive, first, second)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    one, two = (clustered_auroc(positive, each, np.arange(2000)) for each in (first, second))
    found, p = mean_auroc_difference([one], [two], 2000)
    assert found.value == pytest.approx(areas[0] - areas[1])
    assert (found.high - found.low) / 2 == pytest.approx(Z95 * error, rel=0.01)
    expected = 2 * norm.sf(abs(areas[0] - areas[1]) / error)
    assert 1e-4 < expected < 0.1
    assert p == pytest.approx(expected, rel=0.1)


def test_folds_of_one_repeat_add_their_delong_variances():
    rng = np.random.default_rng(9)
    positive, fold = rng.random(150) < 0.4, np.arange(150) % 3
    scores = rng.normal(size=150) + positive
    folds = [
        clustered_auroc(positive[fold == k], scores[fold == k], np.flatnonzero(fold == k), 150)
        for k in range(3)
    ]
    mean = mean_auroc(folds, (positive.sum(), (~positive).sum()))
    parts = [delong(positive[fold == k], *[scores[fold == k]] * 2) for k in range(3)]
    assert mean.value == pytest.approx(np.mean([areas[0] for areas, _ in parts]))
    assert mean.variance == pytest.approx(sum(c[0, 0] for _, c in parts) / 9)


def test_macro_difference_of_one_class_thrice_is_that_of_the_class():
    rng = np.random.default_rng(10)
    positive = rng.random(90) < 0.3
    one, two = (
        clustered_auroc(positive, rng.normal(size=90) + positive, np.arange(90)) for _ in range(2)
    )
    single, p = mean_auroc_difference([one], [two], 90)
    thrice, same = mean_auroc_difference([one] * 3, [two] * 3, 90)
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx(
        (single.value, single.low, single.high)
    )
    assert same == pytest.approx(p)
