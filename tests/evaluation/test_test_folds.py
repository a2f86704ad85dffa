"""Evaluation of several test folds, repeats and seeds."""

import json

import numpy as np
import pandas as pd
import pytest
from decision_tables import folds_table
from fabricated import BINARY, THREE
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, classification_report, roc_auc_score

from osteofusion.errors import EvaluationError
from osteofusion.evaluation import combine_subjects, evaluate, read_rows

ARMS = (("fused", 2.0), ("tabular", 1.5))


def fused(table):
    return table[table["arm"] == "fused"]


def metrics_of(table, classes=BINARY, **options):
    return evaluate(table, classes, resamples=50, **options).arms["fused"].metrics


@settings(max_examples=10)
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 3), st.integers(1, 2))
def test_auroc_is_the_mean_within_folds_of_the_mean_over_seeds(seed, folds, repeats, seeds):
    table = folds_table(seed, n=120, folds=folds, repeats=repeats, seeds=seeds)
    mean = table.groupby(["repeat", "fold", "image"], as_index=False).agg(
        {"p_low_bmd": "mean", "label": "first"}
    )
    areas = [
        roc_auc_score(rows["label"] == "low_bmd", rows["p_low_bmd"])
        for _, rows in mean.groupby(["repeat", "fold"])
    ]
    found = metrics_of(table)
    assert found["auroc"].value == pytest.approx(np.mean(areas))
    assert found["auroc"].low < found["auroc"].value < found["auroc"].high


def test_all_else_pools_the_folds_and_averages_the_repeats():
    table = folds_table(1, repeats=3, seeds=2)
    pooled = table.groupby("image").agg({"p_low_bmd": "mean", "label": "first"})
    positive = pooled["label"] == "low_bmd"
    evaluation = evaluate(table, BINARY, resamples=50)
    arm = evaluation.arms["fused"]
    assert evaluation.n_rows == len(pooled)
    assert evaluation.n_folds == 15
    assert arm.metrics["brier"].value == pytest.approx(
        brier_score_loss(positive, pooled["p_low_bmd"])
    )
    expected = classification_report(
        positive, pooled["p_low_bmd"] >= 0.5, target_names=BINARY, output_dict=True
    )
    assert arm.report.keys() == expected.keys()
    for name, line in expected.items():
        assert arm.report[name] == pytest.approx(line)
    assert any("means over 2 seeds" in note for note in evaluation.notes)
    assert any("15 test folds" in note for note in evaluation.notes)


def test_a_repeat_that_says_the_same_adds_nothing():
    one = folds_table(2, repeats=1)
    two = pd.concat([one, one.assign(repeat=1)])
    first, second = metrics_of(one), metrics_of(two)
    for name in ("auroc", "brier", "sensitivity", "mcc"):
        for end in ("value", "low", "high"):
            assert getattr(first[name], end) == pytest.approx(getattr(second[name], end)), name


def test_repeats_that_differ_narrow_the_auroc():
    table = folds_table(3, repeats=5)
    whole, single = metrics_of(table)["auroc"], metrics_of(table[table["repeat"] == 0])["auroc"]
    assert whole.high - whole.low < 0.8 * (single.high - single.low)


def test_folds_on_different_scales_keep_their_auroc():
    table = folds_table(4, repeats=1)
    before = metrics_of(table)["auroc"]
    shifted = table.assign(p_low_bmd=table["p_low_bmd"] / (1 + table["fold"]))
    shifted["p_normal"] = 1 - shifted["p_low_bmd"]
    after = metrics_of(shifted)["auroc"]
    assert (after.value, after.low, after.high) == (before.value, before.low, before.high)


def test_one_fold_is_a_single_split():
    table = folds_table(5, repeats=1, folds=2)
    one = table[table["fold"] == 1]
    named = evaluate(one, BINARY, resamples=50)
    plain = evaluate(one.drop(columns=["fold", "repeat", "seed"]), BINARY, resamples=50)
    assert named == plain
    assert named.n_folds == 1
    assert named.notes == []


def test_a_fold_without_a_class_is_left_out_and_said():
    table = folds_table(6, n=100, repeats=1)
    table = table[~((table["fold"] == 2) & (table["label"] == "normal"))]
    evaluation = evaluate(table, BINARY, resamples=50)
    areas = [
        roc_auc_score(rows["label"] == "low_bmd", rows["p_low_bmd"])
        for fold, rows in table.groupby("fold")
        if fold != 2
    ]
    found = evaluation.arms["fused"].metrics["auroc"]
    assert found.value == pytest.approx(np.mean(areas))
    assert found.n == (table["fold"] != 2).sum()
    (note,) = [note for note in evaluation.notes if "no row that is normal" in note]
    assert note.startswith("1 of 5 test folds have no row that is normal (fold 2 of repeat 0)")


def test_folds_of_one_class_each_have_no_auroc_and_a_reason():
    table = folds_table(7, n=60, repeats=1)
    table = table.assign(fold=(table["label"] == "normal").astype(int))
    evaluation = evaluate(table, BINARY, resamples=50)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    found = evaluation.arms["fused"].metrics["auroc"]
    assert found.value is None
    assert "no test fold" in found.reason
    assert evaluation.arms["fused"].metrics["brier"].value is not None


def test_a_fold_with_a_single_normal_does_not_hide_its_chance():
    table = folds_table(8, n=200, repeats=1, folds=4)
    normal = table[table["label"] == "normal"]
    thinned = table.drop(normal[normal["fold"] == 0].index[1:])
    found, whole = metrics_of(thinned)["auroc"], metrics_of(table)["auroc"]
    assert found.high - found.low > 1.2 * (whole.high - whole.low)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 24), st.sampled_from([BINARY, THREE]))
def test_tiny_folds_never_give_nan(seed, n, classes):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(len(classes)))
    table = folds_table(seed, n, classes, shares, folds=3, repeats=2, arms=ARMS)
    evaluation = evaluate(table, classes, resamples=30)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    found = [item for arm in evaluation.arms.values() for item in arm.metrics.items()]
    found += [(each.metric, each.estimate) for each in evaluation.differences]
    for name, estimate in found:
        if estimate.value is None or estimate.low is None:
            assert estimate.reason, name
        else:
            assert estimate.low <= estimate.value <= estimate.high, name
    for each in evaluation.differences:
        assert each.p is None or 0 <= each.p <= each.p_adjusted <= 1


def test_arms_need_the_same_folds():
    table = folds_table(9, arms=ARMS)
    own = (table["arm"] == "tabular") & (table["repeat"] == 1) & (table["fold"] == 3)
    with pytest.raises(EvaluationError) as caught:
        evaluate(table[~own], BINARY)
    assert str(caught.value).startswith(
        f"arm 'tabular' was not asked about the same radiographs as 'fused': it lacks {own.sum()} "
        "of them in 1 of 10 test folds"
    )
    assert "fold 3 of repeat 1" in str(caught.value)
    own = (table["arm"] == "fused") & (table["repeat"] == 1)
    with pytest.raises(
        EvaluationError, match=r"arm 'fused' was not asked .* in 5 of 10 test folds"
    ):
        evaluate(table[~own], BINARY)


def test_the_same_row_twice_in_a_fold_is_refused():
    table = folds_table(10)
    with pytest.raises(EvaluationError, match="more than once for arm 'fused' in one fold"):
        read_rows(pd.concat([table, table.iloc[:1]]), BINARY)


@given(st.integers(0, 100), st.sampled_from(["mean", "max"]))
@settings(max_examples=10)
def test_subjects_are_combined_fold_by_fold(seed, how):
    table = folds_table(seed, n=60, group_size=2, seeds=2, arms=ARMS)
    table["subject_id"] = "S" + table["group"].astype(str)
    table = table.sample(frac=1, random_state=seed)  # the order of films differs between folds
    combined = combine_subjects(table, BINARY, how)
    assert len(combined) == len(table) / 2
    assert not combined.duplicated(["arm", "repeat", "fold", "seed", "subject_id"]).any()
    cell = table[(table["repeat"] == 1) & (table["seed"] == 1)]
    own = combined[(combined["repeat"] == 1) & (combined["seed"] == 1)]
    alone = combine_subjects(cell, BINARY, how)
    keys = ["arm", "subject_id"]
    pd.testing.assert_frame_equal(
        own.sort_values(keys, ignore_index=True), alone.sort_values(keys, ignore_index=True)
    )
    assert evaluate(combined, BINARY, resamples=20).n_rows == 30
