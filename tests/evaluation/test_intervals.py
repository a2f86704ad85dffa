import numpy as np
import pytest
from fabricated import BINARY, THREE, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from osteofusion.evaluation.intervals import (
    ClusterBootstrap,
    balanced_accuracy_interval,
    wilson_interval,
)
from osteofusion.evaluation.metrics import metric_bounds, value_name
from osteofusion.evaluation.points import point_metrics

BOOTSTRAPPED = ["auprc", "auprc_negative", "f1", "macro_f1", "mcc", "brier", "ece"]


@given(st.integers(1, 300), st.data())
def test_one_row_a_cluster_is_wilsons_interval(n, data):
    hits = data.draw(st.integers(0, n))
    everything = np.ones(n, dtype=bool)
    found = wilson_interval(everything, np.arange(n) < hits, np.arange(n))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("hits", [0, 9, 40])
def test_copies_in_a_cluster_do_not_narrow_a_proportion(hits):
    success, clusters = np.arange(40) < hits, np.arange(40)
    once = wilson_interval(np.ones(40, dtype=bool), success, clusters)
    many = np.ones(200, dtype=bool)
    copied = wilson_interval(many, np.tile(success, 5), np.tile(clusters, 5))
    apart = wilson_interval(many, np.tile(success, 5), np.arange(200))
    assert copied == pytest.approx(once, abs=0.01)
    assert apart[1] - apart[0] < 0.6 * (copied[1] - copied[0])


def test_rows_outside_the_denominator_do_not_count():
    chosen = np.array([True] * 20 + [False] * 30)
    success = np.array([True] * 15 + [False] * 5 + [True] * 30)
    expected = binomtest(15, 20).proportion_ci(method="wilson")
    found = wilson_interval(chosen, success, np.arange(50))
    assert found == pytest.approx((expected.low, expected.high))


def test_one_cluster_says_next_to_nothing():
    low, high = wilson_interval(
        np.ones(30, dtype=bool), np.arange(30) < 15, np.zeros(30, dtype=int)
    )
    assert high - low > 0.8


def test_balanced_accuracy_without_an_error_has_a_length():
    labels = np.repeat([0, 1], [7, 41])
    low, high = balanced_accuracy_interval(labels, labels, np.arange(48))
    assert high == 1
    assert 0.75 < low < 0.9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60), st.booleans(), st.sampled_from([2, 3]))
def test_intervals_hold_their_value_within_the_metrics_range(seed, groups, clustered, classes):
    rng = np.random.default_rng(seed)
    shares = [0.2, 0.8] if classes == 2 else [0.2, 0.5, 0.3]
    labels, p, group = simulate(rng, shares, rng.uniform(0, 4), groups, clustered=clustered)
    bootstrap = ClusterBootstrap(labels, p, group, resamples=100, seed=1)
    names = BINARY if classes == 2 else THREE
    proportions = {"sensitivity", "specificity", "ppv", "npv", "accuracy"}
    for name, point in point_metrics(labels, p, names).items():
        key = value_name(name, names)
        if key not in bootstrap.values or name.removeprefix("low_bmd_") in proportions:
            continue
        found = bootstrap.interval(key, point)
        if found.low is None:
            assert found.reason, name
        else:
            least, most = metric_bounds(name, classes)
            assert least <= found.low <= found.value <= found.high <= most, name


def test_same_seed_same_resamples():
    labels, p, group = simulate(np.random.default_rng(1), [0.3, 0.7], 1, 60)
    first, second, other = (
        ClusterBootstrap(labels, p, group, resamples=50, seed=seed).values["brier"]
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_resampling_draws_whole_clusters():
    labels, p, group = simulate(np.random.default_rng(2), [0.3, 0.7], 1, 60)
    once = ClusterBootstrap(labels, p, group, resamples=80, seed=0)
    doubled = ClusterBootstrap(
        np.tile(labels, 2), np.tile(p, (2, 1)), np.tile(group, 2), resamples=80, seed=0
    )
    for name in BOOTSTRAPPED:
        np.testing.assert_allclose(doubled.values[name], once.values[name], atol=1e-12)


def test_a_chunked_bootstrap_is_the_same(monkeypatch):
    labels, p, group = simulate(np.random.default_rng(2), [0.3, 0.7], 1, 60)
    whole = ClusterBootstrap(labels, p, group, resamples=50).values
    monkeypatch.setattr("osteofusion.evaluation.intervals._CHUNK", 1000)
    parts = ClusterBootstrap(labels, p, group, resamples=50).values
    for name in BOOTSTRAPPED:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-12)


@pytest.mark.parametrize(("right", "f1"), [(True, (0.75, 0.99)), (False, (0.0, 0.4))])
def test_perfect_and_hopeless_calls_still_have_a_length(right, f1):
    labels = np.repeat([0, 1], [10, 30])
    p = np.eye(2)[labels if right else 1 - labels]
    bootstrap = ClusterBootstrap(labels, p, np.arange(40))
    found = bootstrap.interval("f1", point_metrics(labels, p, BINARY)["f1"])
    assert found.method == "pseudo-rows"
    ends = (found.low, found.high)
    inner, outer = ends if right else ends[::-1]
    assert outer == found.value
    assert f1[0] < inner < f1[1]


def test_resamples_without_a_class_are_counted():
    labels = np.repeat([0, 1], [3, 40])
    p = np.column_stack([1 - labels * 0.6, labels * 0.6])
    bootstrap = ClusterBootstrap(labels, p, np.arange(43), resamples=4000)
    # a resample misses three given rows of 43 with probability (40 / 43) ** 43
    assert bootstrap.degenerate / 4000 == pytest.approx((40 / 43) ** 43, abs=0.012)
    assert np.isnan(bootstrap.values["mcc"]).sum() == bootstrap.degenerate
    assert not np.isnan(bootstrap.values["brier"]).any()


def test_a_class_in_a_single_group_gives_no_bootstrap_interval():
    labels = np.repeat([0, 1], [4, 20])
    p = np.column_stack([0.9 - 0.5 * labels, 0.1 + 0.5 * labels])
    group = np.append(np.zeros(4, dtype=int), 1 + np.arange(20))
    bootstrap = ClusterBootstrap(labels, p, group, resamples=50)
    found = bootstrap.interval("brier", point_metrics(labels, p, BINARY)["brier"])
    assert found.value is not None
    assert found.low is None
    assert "single split group" in found.reason


def test_ece_of_a_calibrated_model_does_not_exclude_zero():
    rng = np.random.default_rng(3)
    scores = rng.uniform(size=200)
    labels = (rng.uniform(size=200) < scores).astype(int)
    for p, excludes in ((scores, False), (scores**3, True)):
        rows = np.column_stack([1 - p, p])
        bootstrap = ClusterBootstrap(labels, rows, np.arange(200))
        found = bootstrap.interval("ece", point_metrics(labels, rows, BINARY)["ece"])
        assert (found.low > 0) == excludes
