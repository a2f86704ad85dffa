"""Share of 95 % intervals that hold the truth, by simulation; asked for: 0.93 to 0.97."""

import numpy as np
import pytest
from fabricated import BINARY, THREE, simulate, table
from scipy.special import expit
from scipy.stats import norm

from osteofusion.evaluation import (
    auroc_difference,
    auroc_interval,
    clustered_auroc,
    evaluate,
    point_metrics,
    wilson_interval,
)


def distance(area):
    """Distance of two unit normals whose AUROC is ``area``."""
    return np.sqrt(2) * norm.ppf(area)


def clustered_noise(rng, groups, shared):
    sizes = rng.integers(1, 4, groups)
    clusters = np.repeat(np.arange(groups), sizes)
    own = rng.normal(size=len(clusters))
    noise = np.sqrt(shared) * rng.normal(size=groups)[clusters] + np.sqrt(1 - shared) * own
    return clusters, noise


def share_of_auroc(area, runs, *, clustered, seed=0):
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        if clustered:
            clusters, noise = clustered_noise(rng, 239, 0.6)
            positive = (rng.random(239) > 36 / 239)[clusters]
        else:
            clusters, noise = np.arange(239), rng.normal(size=239)
            positive = clusters >= 36
        found = clustered_auroc(positive, noise + distance(area) * positive, clusters)
        low, high, _ = auroc_interval([found])
        held += low <= area <= high
    return held / runs


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("area", [0.95, 0.80])
def test_auroc(area, clustered):
    assert 0.93 <= share_of_auroc(area, 1500, clustered=clustered) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("area", [0.95, 0.80])
def test_auroc_long(area, clustered):
    assert 0.93 <= share_of_auroc(area, 10_000, clustered=clustered, seed=1) <= 0.97


@pytest.mark.parametrize(
    ("groups", "share", "shared"),
    [(36, 0.85, None), (203, 0.9, None), (120, 0.85, 0.5), (40, 0.8, 0.8)],
)
def test_proportion(groups, share, shared):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        if shared is None:
            clusters, noise = np.arange(groups), rng.normal(size=groups)
        else:
            clusters, noise = clustered_noise(rng, groups, shared)
        chosen = np.ones(len(clusters), dtype=bool)
        low, high = wilson_interval(chosen, noise < norm.ppf(share), clusters)
        held += low <= share <= high
    assert 0.93 <= held / 2000 <= 0.97


@pytest.mark.parametrize(("first", "second", "shared"), [(0.95, 0.95, 0.5), (0.95, 0.80, 0.3)])
def test_difference(first, second, shared):
    rng = np.random.default_rng(0)
    positive = np.arange(239) >= 36
    held = 0
    for _ in range(1000):
        common = rng.normal(size=239)
        scores = [
            np.sqrt(shared) * common
            + np.sqrt(1 - shared) * rng.normal(size=239)
            + distance(area) * positive
            for area in (first, second)
        ]
        found = auroc_difference(positive, *scores, np.arange(239))
        held += found.low <= first - second <= found.high
    assert 0.93 <= held / 1000 <= 0.975


def binary_rows(rng, groups, area, clustered):
    labels, signal, clusters = binary_signal(rng, groups, area, clustered)
    middle = distance(area) / 2
    score = expit(1.3 * distance(area) * (signal - middle))
    return labels, np.column_stack([1 - score, score]), clusters


def binary_signal(rng, groups, area, clustered):
    if clustered:
        clusters, noise = clustered_noise(rng, groups, 0.6)
    else:
        clusters, noise = np.arange(groups), rng.normal(size=groups)
    labels = (rng.random(groups) < 203 / 239).astype(int)[clusters]
    return labels, noise + distance(area) * labels, clusters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("area", "groups", "clustered"), [(0.95, 239, False), (0.80, 239, False), (0.90, 239, True)]
)
def test_every_binary_metric(area, groups, clustered):
    def draw(rng, groups):
        return binary_rows(rng, groups, area, clustered)

    check_every_metric(draw, groups, BINARY)


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_every_three_class_metric(clustered):
    def draw(rng, groups):
        return simulate(rng, [36 / 239, 154 / 239, 49 / 239], 1.5, groups, clustered=clustered)

    check_every_metric(draw, 239, THREE)


def check_every_metric(draw, groups, classes, runs=1000):
    rng = np.random.default_rng(0)
    labels, p, _ = draw(rng, 300_000)
    truth = {name: point.value for name, point in point_metrics(labels, p, classes).items()}
    held = dict.fromkeys(truth, 0)
    for run in range(runs):
        labels, p, clusters = draw(rng, groups)
        rows = table(labels, p, classes, groups=clusters)
        found = evaluate(rows, classes, resamples=500, seed=run).arms["fused"].metrics
        for name, estimate in found.items():
            held[name] += estimate.low <= truth[name] <= estimate.high
    shares = {name: count / runs for name, count in held.items()}
    print(shares)
    # 0.93 to 0.97, with two standard errors of 1,000 runs at its ends
    outside = {name: share for name, share in shares.items() if not 0.914 <= share <= 0.981}
    assert not outside, outside
