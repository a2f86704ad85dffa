from dataclasses import replace

import pytest
from decision_tables import folds_table
from fabricated import BINARY, THREE

from osteofusion.evaluation import Estimate, evaluate, reading
from osteofusion.evaluation.reading import best_single_column

ARMS = (("fused", 1.6), ("tabular", 1.5), ("age", 1.4), ("ost", 0.8))


def evaluation_of(classes=BINARY, *, arms=ARMS, folds=3, **known):
    """An evaluation in which the difference of fused to an arm is set to (value, low, high)."""
    shares = [0.3, 0.7] if classes == BINARY else [0.2, 0.5, 0.3]
    table = folds_table(0, 150, classes, shares, folds, 1, arms)
    evaluation = evaluate(table, classes, resamples=20)
    differences = [
        replace(d, estimate=Estimate(known[d.second][0], 150, *known[d.second][1:]))
        if d.second in known
        else d
        for d in evaluation.differences
    ]
    return replace(evaluation, differences=differences)


@pytest.mark.parametrize(("classes", "name"), [(BINARY, "AUROC"), (THREE, "macro AUROC")])
def test_fusion_helps_only_where_both_lower_ends_are_above_zero(classes, name):
    helps = reading(evaluation_of(classes, tabular=(0.03, 0.01, 0.05), age=(0.02, 0.001, 0.04)))
    assert helps == (
        f"Fusion helps: the difference in {name} is +0.030 (+0.010 to +0.050) over the "
        "tabular arm and +0.020 (+0.001 to +0.040) over age alone."
    )
    both = reading(evaluation_of(classes, tabular=(0.03, 0.01, 0.05), age=(0.004, -0.01, 0.018)))
    assert "Fusion helps" not in both
    assert f"better than the tabular arm: difference in {name} +0.030 (+0.010 to +0.050)." in both
    assert (
        f"The fused model is not shown to be better than age alone: difference in {name} +0.004 "
        "(-0.010 to +0.018)." in both
    )


def test_a_fused_model_that_is_worse_is_called_worse():
    said = reading(evaluation_of(tabular=(-0.03, -0.05, -0.01), age=(0.02, 0.01, 0.04)))
    assert "The fused model is worse than the tabular arm" in said
    assert "Fusion helps" not in said


def test_an_interval_that_begins_at_zero_shows_nothing():
    said = reading(evaluation_of(tabular=(0.03, 0.0, 0.05), age=(0.02, 0.01, 0.04)))
    assert "not shown to be better than the tabular arm" in said


def test_one_split_says_so():
    known = {"tabular": (0.03, 0.01, 0.05), "age": (0.02, 0.01, 0.04)}
    assert reading(evaluation_of(folds=1, **known)).startswith("Fusion helps on this one split:")


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (ARMS[1:], "No fused model"),
        (ARMS[:2], "not compared with a single column such as age, so it cannot be said"),
        ((ARMS[0], ARMS[2]), "not compared with the tabular arm, so it cannot be said"),
        (ARMS[:1], "not compared with the tabular arm nor with a single column such as age"),
    ],
)
def test_what_is_missing_is_said(arms, said):
    assert said in reading(evaluation_of(arms=arms))
    assert "Fusion helps" not in reading(evaluation_of(arms=arms, tabular=(0.03, 0.01, 0.05)))


def test_an_interval_that_is_missing_has_its_reason():
    evaluation = evaluation_of(age=(0.02, 0.01, 0.04))
    unknown = Estimate(None, 10, reason="no row is normal")
    differences = [
        replace(d, estimate=unknown) if d.second == "tabular" else d for d in evaluation.differences
    ]
    said = reading(replace(evaluation, differences=differences))
    assert "could not be compared with the tabular arm (no row is normal)." in said


def test_the_best_single_column_is_the_rival():
    assert best_single_column(evaluation_of()) == "age"
    assert best_single_column(evaluation_of(arms=(*ARMS[:2], ARMS[3]))) == "ost"
    assert "OST" in reading(evaluation_of(arms=(*ARMS[:2], ARMS[3])))
