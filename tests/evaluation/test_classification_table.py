from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.classification import accuracy_gap, classification_table, summary_table
from osteofusion.evaluation.evaluate import evaluate

CLASSES = ["normal", "osteopenia", "osteoporosis"]


def predictions(labels, calls, classes=CLASSES, split="test", arm="image", groups=None):
    table = pd.DataFrame(
        {
            "subject_id": [f"{split}{i}" for i in range(len(labels))],
            "image": [f"{split}{i}.png" for i in range(len(labels))],
            "group": range(len(labels)) if groups is None else groups,
            "split": split,
            "fold": 0,
            "repeat": 0,
            "seed": 0,
            "arm": arm,
            "label": [classes[label] for label in labels],
        }
    )
    for code, name in enumerate(classes):
        p = np.where(np.array(calls) == code, 0.8, 0.2 / (len(classes) - 1))
        table[f"p_{name}"] = table[f"raw_{name}"] = p
    return table


codes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=6, max_size=30)


@settings(max_examples=20)
@given(codes)
def test_values_are_those_of_scikit_learn_inside_their_intervals(pairs):
    labels, calls = np.array([*pairs, (0, 0), (1, 1), (2, 2)]).T
    table = classification_table(predictions(labels, calls), CLASSES, "image")
    expected = classification_report(
        labels, calls, target_names=CLASSES, output_dict=True, zero_division=np.nan
    )
    assert table.index.tolist() == [*CLASSES, "accuracy", "AUROC"]
    for name in CLASSES:
        line = expected[name]
        assert table.loc[name, "support"] == str(int(line["support"]))
        for column, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1-score")):
            value, low, high = map(
                float, table.loc[name, column].translate(str.maketrans("()to", "    ")).split()
            )
            assert value == pytest.approx(line[key], abs=6e-4)
            assert 0 <= low <= value <= high <= 1
            assert low < high
    assert table.loc["accuracy", "F1"].startswith(f"{expected['accuracy']:.3f} (")


def test_a_class_that_is_never_called_has_no_precision():
    table = classification_table(predictions([0, 1, 2] * 4, [0, 1, 0] * 4), CLASSES, "image")
    assert table.loc["osteoporosis", "precision"] == "n/a"
    assert table.loc["osteoporosis", "recall"].startswith("0.000 (0.000 to")


def test_an_arm_that_is_not_there_is_refused():
    with pytest.raises(EvaluationError, match="no arm 'fused'; it has image"):
        classification_table(predictions([0, 1, 2], [0, 1, 2]), CLASSES, "fused")


def test_the_gap_is_what_the_test_side_loses():
    train = predictions([0, 1, 2] * 20, [0, 1, 2] * 20, split="train")
    test = predictions([0, 1, 2] * 10, [0, 1, 1] * 10)
    gap = accuracy_gap(pd.concat([train, test]), CLASSES)
    assert gap.loc["image", "gap"] == pytest.approx(1 / 3)
    assert 0 < gap.loc["image", "low"] < 1 / 3 < gap.loc["image", "high"] < 0.6


def test_the_interval_of_the_gap_has_newcombes_published_value():
    """His example (a) of 1998: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    train = predictions([0] * 70, [0] * 56 + [1] * 14, ["no", "yes"], split="train")
    test = predictions([0] * 80, [0] * 48 + [1] * 32, ["no", "yes"])
    gap = accuracy_gap(pd.concat([train, test]), ["no", "yes"]).loc["image"]
    assert gap["gap"] == pytest.approx(0.2)
    assert (gap["low"], gap["high"]) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_copies_of_a_film_do_not_narrow_the_gap():
    labels, calls = [0, 1, 2, 0] * 5, [0, 1, 1, 1] * 5
    train = predictions(labels, labels, split="train")
    alone = accuracy_gap(pd.concat([train, predictions(labels, calls)]), CLASSES).loc["image"]
    copied = predictions(labels * 3, calls * 3, groups=list(range(20)) * 3)
    again = accuracy_gap(pd.concat([train, copied]), CLASSES).loc["image"]
    assert again["gap"] == pytest.approx(alone["gap"])
    assert again["high"] - again["low"] > 0.95 * (alone["high"] - alone["low"])


def test_over_folds_each_training_is_asked_about_its_own_rows():
    """Averaged over folds first, the calls of two trainings would make a third."""
    labels = [0, 1, 2] * 6
    right, wrong = (predictions(labels, calls, split="train") for calls in (labels, [1] * 18))
    train = [right.assign(fold=0), wrong.assign(fold=1)]
    test = [predictions(labels[i::2], labels[i::2]).assign(fold=i) for i in (0, 1)]
    for i, each in enumerate(test):
        each[["subject_id", "image"]] = [[f"t{i}{n}", f"{i}{n}"] for n in range(9)]
        each["group"] = [100 + 10 * i + n for n in range(9)]
    gap = accuracy_gap(pd.concat([*train, *test]), CLASSES).loc["image"]
    assert gap["train"] == pytest.approx((1 + 1 / 3) / 2)
    assert gap["test"] == 1


@pytest.mark.parametrize("classes", [["no", "yes"], CLASSES])
def test_the_summary_has_scikit_learns_figures(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), 60)
    calls = np.where(rng.random(60) < 0.6, labels, rng.integers(0, len(classes), 60))
    train = predictions(labels, labels, classes, split="train")
    test = predictions(labels, calls, classes)
    gaps = accuracy_gap(pd.concat([train, test]), classes)
    found = summary_table(evaluate(test, classes, resamples=100), test, gaps).loc["image"]
    line = classification_report(labels, calls, target_names=classes, output_dict=True)
    expected = line["yes" if len(classes) == 2 else "macro avg"]
    for column, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1-score")):
        assert found[column].startswith(f"{expected[key]:.3f} (")
    assert found["accuracy"].startswith(f"{line['accuracy']:.3f} (")
    assert found["train - test"].startswith(f"{1 - line['accuracy']:+.3f} (")


def test_without_training_rows_there_is_no_gap():
    with pytest.raises(EvaluationError, match="no rows of the train side"):
        accuracy_gap(predictions([0, 1, 2], [0, 1, 2]), CLASSES)


def test_a_class_that_is_never_called_leaves_no_macro_precision():
    """Also where as many classes are called as there are."""
    test = predictions([0, 1] * 10, [0, 2] * 10)
    found = summary_table(evaluate(test, CLASSES, resamples=100), test)
    assert found.loc["image", "precision"] == "n/a"
