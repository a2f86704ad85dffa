import io

import numpy as np
import pandas as pd
import pytest
from decision_tables import folds_table
from fabricated import BINARY, THREE
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binomtest, norm
from statsmodels.stats.multitest import multipletests

from osteofusion.errors import EvaluationError
from osteofusion.evaluation import evaluate, render_differences, render_table
from osteofusion.evaluation.differences import COMPARED, holm
from osteofusion.evaluation.paired_auroc import mover, p_of_interval

ARMS = (("fused", 2.2), ("tabular", 1.9), ("age", 1.2))


def found_of(table, classes=BINARY, **options):
    evaluation = evaluate(table, classes, resamples=100, **options)
    return {(d.first, d.second, d.metric): d for d in evaluation.differences}


def text_of(renderable, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


@settings(max_examples=15)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_agrees_with_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_first_arm_against_every_other_in_every_headline_metric():
    table = folds_table(0, arms=ARMS)
    evaluation = evaluate(table, BINARY, resamples=100)
    pairs = {(d.first, d.second) for d in evaluation.differences}
    assert pairs == {("fused", "tabular"), ("fused", "age")}
    for d in evaluation.differences:
        one, two = (evaluation.arms[arm].metrics[d.metric].value for arm in (d.first, d.second))
        assert d.estimate.value == pytest.approx(one - two), d.metric
        assert d.estimate.low < d.estimate.value < d.estimate.high, d.metric
        excludes = d.estimate.low > 0 or d.estimate.high < 0
        assert (d.p < 0.05) == excludes, d.metric
    metrics = [d.metric for d in evaluation.differences if d.second == "age"]
    assert metrics == [name for name in COMPARED if name in evaluation.arms["fused"].metrics]


def test_p_values_are_adjusted_over_the_pairs_of_a_metric():
    found = found_of(folds_table(1, arms=(*ARMS, ("image", 0.5))))
    for metric in ("auroc", "brier", "mcc"):
        own = [d for d in found.values() if d.metric == metric]
        expected = multipletests([d.p for d in own], method="holm")[1]
        assert [d.p_adjusted for d in own] == pytest.approx(expected)


def test_turned_pairs_change_sign():
    pairs = [("tabular", "age"), ("age", "tabular")]
    found = found_of(folds_table(2, arms=ARMS), compare=pairs)
    assert {key[:2] for key in found} == set(pairs)
    for metric in ("auroc", "sensitivity", "brier", "mcc"):
        one, two = (found[(*pair, metric)] for pair in pairs)
        ends = (one.estimate.value, one.estimate.low, one.estimate.high)
        assert ends == pytest.approx((-two.estimate.value, -two.estimate.high, -two.estimate.low))
        assert one.p == pytest.approx(two.p)


def test_a_single_split_has_no_p_value_and_says_why():
    table = folds_table(3, arms=ARMS, folds=1, repeats=1)
    for d in found_of(table).values():
        assert d.p is None
        assert d.p_adjusted is None
        assert "no p value from a single split" in d.estimate.reason


def test_an_arm_that_is_not_there_is_refused():
    with pytest.raises(EvaluationError, match=r"arm 'image' cannot be compared: .* fused, tabular"):
        evaluate(folds_table(4, arms=ARMS), BINARY, compare=[("fused", "image")])


def test_an_arm_and_its_copy_do_not_differ():
    table = folds_table(5, repeats=1)
    copied = table.assign(arm="copy")
    squared = table.assign(arm="squared", p_low_bmd=table["p_low_bmd"] ** 2)
    squared["p_normal"] = 1 - squared["p_low_bmd"]
    both = found_of(_stack(table, copied, squared))
    for (_, second, metric), d in both.items():
        if second == "copy" or metric == "auroc":
            assert (d.estimate.value, d.estimate.low, d.estimate.high) == (0, 0, 0)
            assert d.p == 1
    assert both["fused", "squared", "brier"].estimate.method == "mover"


def _stack(*tables):
    return pd.concat(tables, ignore_index=True)


def test_pairing_narrows_a_difference():
    table = folds_table(6, repeats=1)
    rng = np.random.default_rng(0)
    odds = np.log(table["p_low_bmd"] / table["p_normal"]) + 0.1 * rng.normal(size=len(table))
    near = table.assign(arm="near", p_low_bmd=1 / (1 + np.exp(-odds)))
    near["p_normal"] = 1 - near["p_low_bmd"]
    far = folds_table(6, repeats=1, arms=(("far", 2.0), ("other", 2.0)))
    far = far[far["arm"] == "other"]
    found = found_of(_stack(table, near, far))
    for metric in ("auroc", "accuracy", "brier", "mcc"):
        width = [
            found["fused", second, metric].estimate.high
            - found["fused", second, metric].estimate.low
            for second in ("near", "other")
        ]
        assert width[0] < 0.7 * width[1], metric


def test_two_arms_without_an_error_may_still_differ():
    table = folds_table(7, repeats=1)
    right = (table["label"] == "low_bmd").to_numpy()
    tables = []
    for arm, sure in (("fused", 0.99), ("age", 0.9)):
        p = np.where(right, sure, 1 - sure)
        tables.append(table.assign(arm=arm, p_low_bmd=p, p_normal=1 - p))
    found = found_of(_stack(*tables))["fused", "age", "sensitivity"].estimate
    assert found.low < found.value == 0 < found.high


def test_mover_without_correlation_is_newcombes_published_interval():
    # Newcombe 1998, "Interval estimation for the difference between independent proportions",
    # method 10 on 56/70 - 48/80: 0.0524 to 0.3339.
    sides = []
    for hits, n in ((56, 70), (48, 80)):
        wilson = binomtest(hits, n).proportion_ci(method="wilson")
        sides.append((hits / n, wilson.low, wilson.high))
    assert mover(*sides) == pytest.approx((0.0524, 0.3339), abs=6e-5)


def test_p_of_an_interval_is_the_usual_one_where_it_is_symmetric():
    value, error = 0.03, 0.013
    half = norm.ppf(0.975) * error
    expected = 2 * norm.sf(value / error)
    assert p_of_interval(value, value - half, value + half) == pytest.approx(expected)
    assert p_of_interval(-value, -value - half, -value + half) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [BINARY, THREE])
@pytest.mark.parametrize("folds", [1, 3])
def test_tables_of_twelve_arms_fit_100_columns(classes, folds):
    arms = [("fused", 2.0), ("fused_shuffled_images", 1.0), ("logistic_regression", 1.5)]
    arms += [(f"gradient_boosting_{i}", 1.0) for i in range(9)]
    shares = [0.3, 0.7] if classes == BINARY else [0.2, 0.5, 0.3]
    table = folds_table(8, 150, classes, shares, folds, 1, arms)
    evaluation = evaluate(table, classes, resamples=50)
    metric = "auroc" if classes == BINARY else "macro_auroc"
    differences = text_of(render_differences(evaluation))
    for text in (text_of(render_table(evaluation)), differences):
        assert all(len(line.rstrip()) <= 100 for line in text.splitlines())
        assert "…" not in text
    for d in evaluation.differences:
        if d.metric == metric:
            assert f"{d.estimate.value:+.3f}" in differences
            assert f"{d.estimate.low:.3f} to {d.estimate.high:.3f}" in differences
    for arm in evaluation.arms.values():
        found = arm.metrics[metric]
        assert f"{found.low:.3f} to {found.high:.3f}" in text_of(render_table(evaluation))
    assert ("No p values from a single split" in differences) == (folds == 1)
    assert ("p < 0.001" in differences) == (folds > 1)
