import json
import math

import numpy as np
import pandas as pd
import pytest
from decision_tables import folds_table
from fabricated import BINARY, THREE

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.decisions import decide
from osteofusion.evaluation.out_of_fold import out_of_fold
from osteofusion.evaluation.precision import detectable_difference

ARMS = (("fused", 1.6), ("tabular", 1.4), ("age", 1.2), ("ost", 0.8))


def pair(**options):
    table = folds_table(arms=ARMS[:2], **options)
    return [(arm, out_of_fold(table, BINARY, arm)) for arm in ("fused", "tabular")]


def delong_variance(rows, others):
    """Textbook DeLong variance of a paired difference, from placement values."""
    columns = []
    for each in (rows, others):
        scores = each.folds[0].scores
        low = each.low[each.folds[0].rows]
        above = (scores[low][:, None] > scores[~low]) + 0.5 * (scores[low][:, None] == scores[~low])
        columns.append((above.mean(axis=1), above.mean(axis=0)))
    (a1, a0), (b1, b0) = columns
    return np.var(a1 - b1, ddof=1) / len(a1) + np.var(a0 - b0, ddof=1) / len(a0)


def test_detectable_difference_from_delongs_variance():
    first, second = pair(folds=1, repeats=1)
    found = detectable_difference(first, second, difference=0.05)
    variance = delong_variance(first[1], second[1])
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    assert found.detectable == pytest.approx(2.8015 * np.sqrt(variance), rel=1e-3)
    assert found.rows_needed == math.ceil(240 * (found.detectable / 0.05) ** 2)
    assert found.n_normal == (~first[1].low).sum()
    assert found.normals_needed / found.rows_needed == pytest.approx(found.n_normal / 240, abs=0.05)


def test_the_difference_that_can_be_detected_takes_the_rows_at_hand():
    first, second = pair()
    known = detectable_difference(first, second).detectable
    again = detectable_difference(first, second, difference=known)
    assert again.rows_needed == pytest.approx(240, abs=1)
    half = detectable_difference(first, second, difference=known / 2)
    assert half.rows_needed == pytest.approx(960, abs=2)
    assert "you would need about 960" in half.reading
    assert "you would need" not in detectable_difference(first, second, difference=0.5).reading


def test_folds_and_repeats_do_not_count_as_more_rows():
    few, many = pair(n=1200, repeats=1, folds=2), pair(n=1200, repeats=1, folds=6)
    errors = [detectable_difference(*each).standard_error for each in (few, many)]
    assert errors[0] == pytest.approx(errors[1], rel=0.15)
    table = folds_table(arms=ARMS[:2], repeats=1)
    copied = pd.concat([table, table.assign(repeat=1)], ignore_index=True)
    rows = [(arm, out_of_fold(copied, BINARY, arm)) for arm in ("fused", "tabular")]
    once = [(arm, out_of_fold(table, BINARY, arm)) for arm in ("fused", "tabular")]
    assert detectable_difference(*rows).standard_error == pytest.approx(
        detectable_difference(*once).standard_error
    )


def test_arms_that_err_alike_have_no_detectable_difference():
    first, _ = pair()
    found = detectable_difference(first, ("copy", first[1]))
    assert found.detectable is None
    assert found.rows_needed is None
    assert found.correlation == pytest.approx(1)
    assert "err alike" in found.reading


def test_precision_refuses_what_it_cannot_compare():
    first, second = pair()
    with pytest.raises(EvaluationError, match="positive difference"):
        detectable_difference(first, second, difference=0)
    other = ("tabular", out_of_fold(folds_table(n=100, arms=ARMS[1:2]), BINARY, "tabular"))
    with pytest.raises(EvaluationError, match="not asked about the same radiographs"):
        detectable_difference(first, other)
    table = folds_table(n=10, folds=5, repeats=1, shares=(0.5, 0.5))
    rows = ("fused", out_of_fold(table, BINARY, "fused"))
    with pytest.raises(EvaluationError, match="one class only"):
        detectable_difference(rows, rows)


def no_nan(value):
    if isinstance(value, dict):
        return all(map(no_nan, value.values()))
    if isinstance(value, list):
        return all(map(no_nan, value))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_decisions_are_plain_json_with_the_keys_of_the_docstring(classes):
    shares = (0.2, 0.8) if len(classes) == 2 else (0.2, 0.6, 0.2)
    table = folds_table(classes=classes, shares=shares, arms=ARMS)
    decisions = decide(table, classes, arm="fused", prevalence=[0.3, 0.5])
    plain = json.loads(json.dumps(decisions.to_dict(), allow_nan=False))
    assert no_nan(plain)
    assert plain["positive"] == "low_bmd"
    assert plain["calibrated"]
    assert plain["notes"] == []
    cohort = plain["cohort_prevalence"]
    assert cohort == pytest.approx((table["label"] != "normal").mean())
    for name in ("fixed_sensitivity", "fixed_specificity", "youden", "half"):
        assert [a["prevalence"] for a in plain["at_prevalence"][name]] == [cohort, 0.3, 0.5]
    assert [t["prevalence"] for t in plain["triage"]] == [cohort, 0.3, 0.5]
    assert list(plain["curves"][0]["arms"]) == ["fused", "age", "ost"]
    assert [p["second"] for p in plain["precision"]] == ["tabular", "age", "ost"]
    assert set(plain["operating"][0]["chosen_anew"]) == {"sensitivity", "specificity"}
    before, after = plain["before"], plain["after"]
    assert abs(after["mean_predicted"] - cohort) < 0.02 < abs(before["mean_predicted"] - cohort)
    assert abs(after["slope"] - 1) < 0.25
    assert after["brier"] < before["brier"]


def test_the_order_of_the_rows_and_p_columns_do_not_matter():
    table = folds_table(arms=ARMS[:2])
    shuffled = table.sample(frac=1, random_state=0).assign(p_normal=0.5, p_low_bmd=0.5)
    one, other = (
        decide(t, BINARY, arm="fused", prevalence=0.3).to_dict() for t in (table, shuffled)
    )
    assert one["triage"] == other["triage"]
    assert one["curves"][0]["arms"] == other["curves"][0]["arms"]


def test_a_single_fold_says_what_it_cannot_give():
    table = folds_table(folds=1, repeats=1, arms=ARMS[:2])
    plain = decide(table, BINARY, arm="fused", prevalence=0.3).to_dict()
    assert plain["after"] is None
    assert plain["triage"] == []
    assert list(plain["at_prevalence"]) == ["half"]
    assert "a single split has none" in plain["notes"][0]
    assert len(plain["precision"]) == 1


@pytest.mark.parametrize("label", ["normal", "low_bmd"])
def test_one_class_gives_reasons_and_no_nan(label):
    table = folds_table(n=30, arms=ARMS[:3]).assign(label=label)
    plain = decide(table, BINARY, arm="fused", prevalence=[0.3]).to_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["curves"] == plain["triage"] == plain["precision"] == []
    assert plain["before"]["slope"] is None
    assert plain["before"]["reason"] == "all rows are of one kind"
    assert any("Every row is" in note for note in plain["notes"])
    assert any("No precision of fused against age" in note for note in plain["notes"])
    (found,) = plain["at_prevalence"]["half"]
    assert found["ppv"]["reason"] in ("no row is negative", "no row is positive")


def test_constant_probabilities_give_reasons_and_no_nan():
    table = folds_table(n=60, arms=ARMS[:2]).assign(raw_normal=0.5, raw_low_bmd=0.5)
    plain = decide(table, BINARY, arm="fused", prevalence=0.3).to_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["before"]["slope"] is None
    assert "err alike" in plain["precision"][0]["reading"]


def test_two_rows_of_one_fold():
    table = folds_table(n=2, folds=1, repeats=1)
    table["label"] = BINARY
    plain = decide(table, BINARY, arm="fused", prevalence=0.3).to_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["n_rows"] == 2
