import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import BINARY, THREE, simulate, table
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from osteofusion.errors import EvaluationError
from osteofusion.evaluation import (
    add_arms,
    auroc_interval,
    clustered_auroc,
    evaluate,
    metric_names,
    render_table,
)

MENDELEY = Path(__file__).resolve().parents[3] / "shared" / "data" / "mendeley"


def arms_table(classes, groups=90, seed=0, clustered=False):
    shares = [0.3, 0.7] if len(classes) == 2 else [0.2, 0.5, 0.3]
    rng = np.random.default_rng(seed)
    labels, p, group = simulate(rng, shares, 1.5, groups, clustered=clustered)
    fused = table(labels, p, classes, groups=group)
    flat = np.tile(shares, (len(labels), 1))
    noise = rng.dirichlet(np.ones(len(classes)), len(labels))
    return add_arms(fused, {"majority": flat, "noise": noise}, classes)


def text_of(evaluation, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(render_table(evaluation))
    return console.file.getvalue()


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_every_arm_has_every_metric_with_interval_or_reason(classes):
    predictions = arms_table(classes, clustered=True)
    evaluation = evaluate(predictions, classes, resamples=200)
    assert list(evaluation.arms) == ["fused", "majority", "noise"]
    assert evaluation.n_rows == len(predictions) / 3
    assert evaluation.n_groups == 90
    assert sum(evaluation.class_counts.values()) == evaluation.n_rows
    for arm in evaluation.arms.values():
        assert tuple(arm.metrics) == metric_names(classes)
        assert np.sum(arm.confusion) == evaluation.n_rows
        for name, found in arm.metrics.items():
            if found.value is None:
                assert found.reason, name
            else:
                assert found.low <= found.value <= found.high, name
                assert found.method, name


def test_majority_is_where_it_must_be():
    metrics = evaluate(arms_table(BINARY), BINARY, resamples=100).arms["majority"].metrics
    assert metrics["auroc"].value == metrics["balanced_accuracy"].value == 0.5
    assert (metrics["auroc"].low, metrics["auroc"].high) == (0.5, 0.5)
    assert metrics["mcc"].value == 0
    assert (metrics["sensitivity"].value, metrics["specificity"].value) == (1, 0)
    assert metrics["npv"].reason == "no row is called normal"


def test_result_is_plain_json_and_repeats():
    predictions = arms_table(THREE)
    first = evaluate(predictions, THREE, resamples=100, notes=["age: no column"])
    written = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert (
        written == evaluate(predictions, THREE, resamples=100, notes=["age: no column"]).to_dict()
    )
    assert written["arms"]["fused"]["metrics"]["macro_auroc"].keys() == {
        "value", "n", "low", "high", "method", "reason",
    }  # fmt: skip
    assert written["notes"] == ["age: no column"]


def test_row_order_and_further_columns_do_not_matter():
    predictions = arms_table(BINARY)
    expected = evaluate(predictions, BINARY, resamples=50)
    shuffled = pd.concat(
        rows.sample(frac=1, random_state=seed)
        for seed, (_, rows) in enumerate(predictions.groupby("arm"))
    )
    found = evaluate(shuffled.assign(further=1), BINARY, resamples=50)
    for name in ("auroc", "accuracy", "brier"):
        one, two = (e.arms["noise"].metrics[name] for e in (expected, found))
        assert one.value == pytest.approx(two.value)


def test_one_class_on_the_test_side_is_said_and_not_nan():
    predictions = arms_table(BINARY)
    evaluation = evaluate(predictions[predictions["label"] == "low_bmd"], BINARY, resamples=50)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluation.arms["fused"].metrics["auroc"].value is None
    assert evaluation.class_counts["normal"] == 0
    text = " ".join(text_of(evaluation).split())
    assert "n/a: no row is normal." in text
    assert "Only 0 normal radiographs on this side: no arm can be told from another" in text


def test_split_groups_without_spread_give_no_calibration_interval():
    labels, group = np.tile([0, 1], 4), np.repeat(np.arange(4), 2)
    p = np.tile([0.5, 0.5], (8, 1))
    found = evaluate(table(labels, p, BINARY, groups=group), BINARY, resamples=50)
    intercept = found.arms["fused"].metrics["calibration_intercept"]
    assert intercept.value == pytest.approx(0)
    assert intercept.low is None
    assert "no spread" in intercept.reason


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_report_has_no_number_where_a_class_is_not_called(classes):
    report = evaluate(arms_table(classes), classes, resamples=20).arms["majority"].report
    assert list(report) == [*classes, "accuracy", "macro avg", "weighted avg"]
    assert report[classes[0]]["precision"] is None
    assert report[classes[0]]["recall"] == 0
    assert report[classes[1]]["recall"] == 1
    assert sum(report[name]["support"] for name in classes) == 90


def test_two_rows():
    labels = np.array([0, 1])
    p = np.array([[0.8, 0.2], [0.3, 0.7]])
    evaluation = evaluate(table(labels, p, BINARY), BINARY, resamples=50)
    area = evaluation.arms["fused"].metrics["auroc"]
    assert (area.value, area.method) == (1.0, "newcombe")
    assert area.low < 0.3
    assert evaluation.arms["fused"].metrics["brier"].reason


def test_few_rows_are_put_in_words():
    evaluation = evaluate(arms_table(BINARY, groups=20), BINARY, resamples=50)
    area = evaluation.arms["fused"].metrics["auroc"]
    few = evaluation.class_counts["normal"]
    assert few < 10
    (note,) = evaluation.notes
    assert note.startswith(f"Only {few} normal radiographs on this side: the AUROC of fused")
    assert f"a width of {area.high - area.low:.2f}" in note


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_table_fits_100_columns_with_five_arms(classes):
    predictions = arms_table(classes)
    rows = predictions[predictions["arm"] == "fused"]
    p = rows[[f"p_{name}" for name in classes]].to_numpy()
    names = ["majority", "age", "brightness", "logistic_regression"]
    evaluation = evaluate(add_arms(rows, dict.fromkeys(names, p), classes), classes, resamples=50)
    text = text_of(evaluation)
    assert all(len(line.rstrip()) <= 100 for line in text.splitlines())
    headline = evaluation.arms["fused"].metrics["auroc" if classes == BINARY else "macro_auroc"]
    assert text.count(f"{headline.low:.3f} to {headline.high:.3f}") == 5
    assert "…" not in text


def test_four_arms_of_a_cohort_take_seconds():
    rng = np.random.default_rng(0)
    labels, p, _ = simulate(rng, [0.15, 0.65, 0.2], 1.5, 239)
    predictions = add_arms(table(labels, p, THREE), dict.fromkeys("abc", p), THREE)
    start = time.perf_counter()
    evaluate(predictions, THREE, resamples=2000)
    assert time.perf_counter() - start < 10


BROKEN = {
    "no column 'label'": lambda t: t.drop(columns="label"),
    "no rows": lambda t: t.iloc[:0],
    "mixes values of 'split'": lambda t: t.assign(split=["train", "test"] * (len(t) // 2)),
    "mixes values of 'variant'": lambda t: t.assign(variant=["a", "b"] * (len(t) // 2)),
    "'noise' was not asked .* lacks 90 of them in 1 of 2 test folds, .* in fold 0 of repeat 0": (
        lambda t: t.assign(fold=(t["arm"] == "noise").astype(int))
    ),
    "label that is not one of": lambda t: t.assign(label="osteopenia"),
    "not probabilities with sum 1": lambda t: t.assign(p_normal=t["p_normal"].mask(t.index == 3)),
    "more than once": lambda t: pd.concat([t, t.iloc[:1]]),
    "same radiographs as 'fused': it lacks 1 of them, the first being image 'S89.jpg'": lambda t: (
        t.drop(index=len(t) - 1)
    ),
    "different labels or groups": lambda t: t.assign(group=range(len(t))),
    "column 'group'.* is empty in 270 rows": lambda t: t.assign(group=None),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_tables_are_refused_in_one_sentence(message):
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate(BROKEN[message](arms_table(BINARY)), BINARY)
    assert "\n" not in str(caught.value)


def test_arms_are_added_to_one_arm_in_its_order():
    predictions = arms_table(BINARY)
    with pytest.raises(EvaluationError, match="rows of one arm"):
        add_arms(predictions, {}, BINARY)
    fused = predictions[predictions["arm"] == "fused"]
    with pytest.raises(EvaluationError, match=r"shape \(3, 2\)"):
        add_arms(fused, {"age": np.ones((3, 2))}, BINARY)
    both = add_arms(fused, {"age": fused[["p_low_bmd", "p_normal"]].to_numpy()}, BINARY)
    age = both[both["arm"] == "age"]
    np.testing.assert_array_equal(age["p_normal"], fused["p_low_bmd"])
    np.testing.assert_array_equal(age["raw_low_bmd"], fused["p_normal"])
    assert age["subject_id"].tolist() == fused["subject_id"].tolist()


@pytest.mark.skipif(not MENDELEY.is_dir(), reason="the Mendeley cohort is not at ../shared/data")
def test_age_alone_on_the_mendeley_workbook():
    sheet = pd.read_excel(MENDELEY / "patient details.xlsx")
    sheet = sheet[sheet["Patient Id"].notna() & (sheet["Patient Id"] != "N37")]
    low = sheet["Diagnosis"].str.strip().str.lower().to_numpy() != "normal"
    area = clustered_auroc(low, sheet["Age"].to_numpy(float), np.arange(len(sheet)))
    low_end, high_end, _ = auroc_interval([area])
    assert area.value == pytest.approx(0.945, abs=5e-4)
    assert (low_end, high_end) == pytest.approx((0.914, 0.972), abs=0.02)


def test_no_torch_no_lightning():
    code = (
        "import sys, osteofusion.evaluation\n"
        "heavy = {'torch', 'pytorch_lightning', 'cv2', 'matplotlib.pyplot'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6), st.sampled_from([2, 3]))
def test_tiny_and_degenerate_tables_never_give_nan(seed, n, groups, count):
    classes = BINARY if count == 2 else THREE
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, n)
    called = np.eye(count)[rng.integers(0, count, n)]
    weight = rng.choice([0.0, 0.5, 1.0], (n, 1))
    p = weight * called + (1 - weight) / count
    predictions = table(labels, p, classes, groups=rng.integers(0, groups, n))
    evaluation = evaluate(predictions, classes, resamples=40)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    text_of(evaluation)
    for name, found in evaluation.arms["fused"].metrics.items():
        assert found.value is not None or found.reason, name
        if found.low is None:
            assert found.reason, name
        else:
            assert found.low <= found.value <= found.high, name
