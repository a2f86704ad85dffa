import numpy as np
import pytest
from fabricated import BINARY, THREE, simulate, softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from osteofusion.evaluation.metrics import (
    decide,
    metric_names,
    metric_values,
)
from osteofusion.evaluation.points import point_metrics

seeds = st.integers(0, 2**32 - 1)


def draw(seed, classes, n, decimals):
    """Rows with every class and, by rounding, with ties."""
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), rng.integers(0, classes, n - classes))
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    first = np.round(softmax(logits), decimals)[:, 1:]
    first = first / np.maximum(1, first.sum(axis=1, keepdims=True))
    return labels, np.column_stack([1 - first.sum(axis=1), first])


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 80), st.sampled_from([1, 2, 12]))
def test_binary_metrics_agree_with_scikit_learn(seed, n, decimals):
    labels, p = draw(seed, 2, n, decimals)
    called = (p[:, 1] >= 0.5).astype(int)
    expected = {
        "auroc": sk.roc_auc_score(labels, p[:, 1]),
        "auprc": sk.average_precision_score(labels, p[:, 1]),
        "auprc_negative": sk.average_precision_score(1 - labels, p[:, 0]),
        "sensitivity": sk.recall_score(labels, called),
        "specificity": sk.recall_score(labels, called, pos_label=0),
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "f1": sk.f1_score(labels, called, zero_division=0),
        "macro_f1": sk.f1_score(labels, called, average="macro", zero_division=0),
        "mcc": sk.matthews_corrcoef(labels, called),
        "brier": sk.brier_score_loss(labels, p[:, 1]),
    }
    if called.any():
        expected["ppv"] = sk.precision_score(labels, called)
    if not called.all():
        expected["npv"] = sk.precision_score(labels, called, pos_label=0)
    points = point_metrics(labels, p, BINARY)
    assert list(points) == list(metric_names(BINARY))
    found = {name: points[name].value for name in expected}
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(3, 80), st.sampled_from([1, 2, 12]))
def test_three_class_metrics_agree_with_scikit_learn(seed, n, decimals):
    labels, p = draw(seed, 3, n, decimals)
    called = p.argmax(axis=1)
    one_hot = np.eye(3)[labels]
    areas = [sk.roc_auc_score(one_hot[:, code], p[:, code]) for code in range(3)]
    expected = {
        "macro_auroc": np.mean(areas),
        "low_bmd_auroc": sk.roc_auc_score(labels > 0, p[:, 1] + p[:, 2]),
        **{f"auroc_{name}": area for name, area in zip(THREE, areas, strict=True)},
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "macro_f1": sk.f1_score(labels, called, average="macro", zero_division=0),
        "mcc": sk.matthews_corrcoef(labels, called),
        "quadratic_kappa": sk.cohen_kappa_score(labels, called, weights="quadratic"),
        "brier": ((p - one_hot) ** 2).sum(axis=1).mean(),
    }
    for code, name in enumerate(THREE):
        expected[f"auprc_{name}"] = sk.average_precision_score(one_hot[:, code], p[:, code])
    low, p_low = labels > 0, p[:, 1] + p[:, 2]
    of_low = point_metrics(low.astype(int), np.column_stack([p[:, 0], p_low]), BINARY)
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        expected[f"low_bmd_{name}"] = of_low[name].value
    for name in ("calibration_intercept", "calibration_slope", "ece"):
        expected[name] = of_low[name].value
    points = point_metrics(labels, p, THREE)
    assert list(points) == list(metric_names(THREE))
    found = {name: point.value for name, point in points.items()}
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([2, 3]))
def test_weights_are_repetitions_of_rows(seed, classes):
    rng = np.random.default_rng(seed)
    labels, p = draw(seed, classes, 40, 2)
    counts = rng.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), counts)
    by_weight = metric_values(labels, p, counts[None].astype(float))
    by_row = metric_values(labels[repeated], p[repeated], np.ones((1, len(repeated))))
    for name, value in by_row.items():
        np.testing.assert_allclose(by_weight[name], value, atol=1e-12, err_msg=name)


def test_ece_by_hand():
    labels = np.array([0, 1, 1, 1])
    scores = np.array([0.12, 0.18, 0.95, 1.0])
    # bin 0.1: observed 0.5, predicted 0.15, two rows; bin 0.9: observed 1, predicted 0.975
    expected = 0.5 * 0.35 + 0.5 * 0.025
    points = point_metrics(labels, np.column_stack([1 - scores, scores]), BINARY)
    assert points["ece"].value == pytest.approx(expected)


def test_decisions():
    assert decide(np.array([[0.5, 0.5], [0.51, 0.49]])).tolist() == [1, 0]
    assert decide(np.array([[0.3, 0.4, 0.3], [0.1, 0.2, 0.7]])).tolist() == [1, 2]


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_one_class_leaves_no_nan_and_gives_reasons(classes):
    p = softmax(np.random.default_rng(0).normal(size=(12, len(classes))))
    points = point_metrics(np.zeros(12, dtype=int), p, classes)
    for name, point in points.items():
        if point.value is None:
            assert classes[1] in point.reason, name
        else:
            assert np.isfinite(point.value), name
    undefined = {name for name, point in points.items() if point.value is None}
    assert {"balanced_accuracy", "macro_f1", "mcc"} <= undefined
    assert {"accuracy", "brier"}.isdisjoint(undefined)


def test_a_class_that_is_never_called_has_no_predictive_value():
    labels = np.array([0, 1, 1])
    p = np.array([[0.1, 0.9]] * 3)
    points = point_metrics(labels, p, BINARY)
    assert points["npv"].value is None
    assert points["npv"].reason == "no row is called normal"
    assert points["npv"].n == 0
    assert points["mcc"].value == 0
    assert "every row is called low_bmd" in points["mcc"].reason


def test_two_rows():
    points = point_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), BINARY)
    assert points["calibration_slope"].value is None
    assert "separate" in points["calibration_slope"].reason
    perfect = set(points) - {"brier", "ece", "calibration_intercept", "calibration_slope"}
    assert all(points[name].value == 1 for name in perfect)


def test_perfect_and_inverted_three_classes():
    labels, _, _ = simulate(np.random.default_rng(1), [0.2, 0.5, 0.3], 1, 50)
    perfect = point_metrics(labels, np.eye(3)[labels], THREE)
    assert perfect["quadratic_kappa"].value == 1
    assert perfect["brier"].value == 0
    worst = point_metrics(labels, np.eye(3)[(labels + 1) % 3], THREE)
    assert worst["accuracy"].value == 0
    assert worst["brier"].value == 2
