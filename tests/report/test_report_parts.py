"""Parts of a report on fabricated numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from osteofusion.evaluation import evaluate
from osteofusion.evaluation.curves import (
    ForestRow,
    draw_calibration,
    draw_decision_curves,
    draw_forest,
)
from osteofusion.report.flow import FlowBox, draw_flow
from osteofusion.report.pooled import pool
from osteofusion.report.reading import difference, from_dict, fusion_verdict
from osteofusion.report.words import estimate, percent, persons

CLASSES = ["normal", "low_bmd"]
MINUS = "\N{MINUS SIGN}"


def predictions(arms, *, n=80, folds=2, repeats=1, seed=0):
    """Arm name to how far it tells the classes apart."""
    rng = np.random.default_rng(seed)
    low = np.arange(n) % 4 > 0
    tables = []
    for repeat in range(repeats):
        for arm, apart in arms.items():
            p = 1 / (1 + np.exp(-(apart * (low - 0.5) + rng.normal(size=n))))
            values = {"p_normal": 1 - p, "p_low_bmd": p, "raw_normal": 1 - p, "raw_low_bmd": p}
            tables.append(
                pd.DataFrame(
                    {
                        "subject_id": [f"S{i:02d}" for i in range(n)],
                        "image": [f"S{i:02d}.png" for i in range(n)],
                        "group": np.arange(n),
                        "split": "test",
                        "fold": np.arange(n) // 4 % folds,
                        "repeat": repeat,
                        "arm": arm,
                        "seed": 0,
                        "label": np.where(low, "low_bmd", "normal"),
                        **values,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def test_an_evaluation_is_read_back_as_it_was():
    whole = evaluate(predictions({"fused": 2, "tabular": 1}), CLASSES, resamples=50)
    assert from_dict(whole.to_dict()).arms == whole.arms
    assert from_dict(whole.to_dict()).differences == whole.differences


@pytest.mark.parametrize(
    ("arms", "helps"),
    [
        ({"fused": 9, "tabular": 0.5, "age": 0.5}, True),
        ({"fused": 9, "tabular": 9, "age": 0.5}, False),
        ({"fused": 9, "tabular": 0.5, "age": 9}, False),
        ({"fused": 9, "tabular": 0.5}, False),
        ({"fused": 9, "age": 0.5}, False),
    ],
)
def test_fusion_helps_only_over_the_tabular_arm_and_the_best_column(arms, helps):
    found = evaluate(predictions(arms), CLASSES, resamples=50).to_dict()
    assert ("Fusion helps" in fusion_verdict(found)) == helps


def test_a_difference_can_be_asked_for_either_way():
    found = evaluate(predictions({"fused": 2, "tabular": 1}), CLASSES, resamples=50).to_dict()
    one, other = (
        difference(found, *pair, "auroc") for pair in (("fused", "tabular"), ("tabular", "fused"))
    )
    assert (other["value"], other["low"], other["high"]) == (
        -one["value"],
        -one["high"],
        -one["low"],
    )
    assert difference(found, "fused", "age", "auroc") == {}


@given(st.integers(1, 4), st.integers(0, 9))
def test_pooling_averages_over_repeats(repeats, seed):
    table = predictions({"fused": 1.0, "age": 0.3}, n=12, repeats=repeats, seed=seed)
    shuffled = table.sample(frac=1, random_state=seed)
    found = pool(shuffled, CLASSES)
    assert found.rows["subject_id"].tolist() == [f"S{i:02d}" for i in range(12)]
    mean = table[table["arm"] == "fused"].groupby("subject_id")["p_low_bmd"].mean()
    np.testing.assert_allclose(found.scores(["fused"])["fused"], mean)
    np.testing.assert_array_equal(found.positive, np.arange(12) % 4 > 0)
    assert found.left_out == 0


def test_pooling_counts_what_an_arm_was_not_asked_about():
    table = predictions({"fused": 1.0, "age": 0.3}, n=12)
    found = pool(table.drop(index=table.index[-1]), CLASSES)
    assert (len(found.labels), found.left_out) == (11, 1)


def test_numbers_in_words():
    assert estimate({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500\n0.250 to 0.750"
    signed = {"value": -0.01, "low": -0.02, "high": 0.005}
    assert estimate(signed, signed=True) == "-0.010\n-0.020 to +0.005".replace("-", MINUS)
    assert estimate({"value": 0.5, "low": 0.5, "high": 0.5, "method": "constant"}) == "0.500"
    assert estimate({"value": None, "reason": "no row"}) == "n/a"
    assert persons({"value": 3.2, "low": -1.0, "high": 9.9}) == "3\n0 to 10"
    assert percent(0.025) == "2.5 %"


def test_a_forest_plot_says_its_numbers_and_what_is_not_defined():
    axes = Figure().subplots()
    rows = [ForestRow("fused", 0.9, 0.8, 0.95, True), ForestRow("age", None, None, None)]
    draw_forest(axes, rows, "AUROC")
    assert [text.get_text() for text in axes.texts] == ["0.900 (0.800 to 0.950)", "not defined"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fused", "age"]
    assert axes.get_ylim() == (1.5, -0.5)  # from top to bottom


def test_calibration_before_and_after_are_both_drawn():
    axes = Figure().subplots()
    positive = np.arange(40) % 2 > 0
    scores = {"before": np.linspace(0.1, 0.5, 40), "after": np.linspace(0.2, 0.9, 40)}
    draw_calibration(axes, positive, scores, np.arange(40), "Calibration", "low BMD")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["before", "after"]


def test_decision_curves_hold_the_arms_and_both_defaults():
    axes = Figure().subplots()
    curve = {
        "prevalence": 0.2,
        "thresholds": [0.1, 0.5],
        "arms": {"fused": [0.1, 0.05], "ost": [0.08, 0.0]},
        "treat_all": [0.11, -0.6],
        "low": [0.05, 0.0],
        "high": [0.15, 0.1],
    }
    draw_decision_curves(axes, curve)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["nobody to DXA", "everybody to DXA", "fused", "ost"]


def test_the_flow_shows_every_box():
    boxes = [
        FlowBox("Found", ["9 files"]),
        FlowBox("Left out", ["1 row"], aside=True),
        FlowBox("Joined", ["8 radiographs"]),
        FlowBox("train", ["6"], side=True),
        FlowBox("test", ["2"], side=True),
    ]
    texts = [text.get_text() for text in draw_flow(boxes).axes[0].texts if text.get_text()]
    for box in boxes:
        assert box.title in texts
        assert set(box.lines) <= set(texts)
