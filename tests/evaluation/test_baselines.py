import numpy as np
import pytest
from fabricated import BINARY, THREE
from sklearn.metrics import roc_auc_score

from osteofusion.errors import EvaluationError
from osteofusion.evaluation import BaselineRows, fit_baselines

SCORES = ["ost", "osta", "orai"]
CLINICAL = ["logistic_regression", "proportional_odds", "gradient_boosting", "random_forest"]


def cohort(seed, n, classes):
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(len(classes)), rng.integers(0, len(classes), n - len(classes)))
    age = 50 + 8 * y + 6 * rng.normal(size=n)
    design = np.column_stack([(age - 60) / 10, rng.normal(size=n) + y, rng.normal(size=n)])
    columns = {
        "age": age,
        "weight": 75 - 4 * y + 8 * rng.normal(size=n),
        "female": (rng.random(n) < 0.7).astype(float),
        "estrogen": (rng.random(n) < 0.1).astype(float),
    }
    return BaselineRows(design, y, age=age, brightness=rng.normal(size=n), columns=columns)


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_arms_and_their_probabilities(classes):
    train, test = cohort(0, 150, classes), cohort(1, 80, classes)
    baselines = fit_baselines(train, test, classes)
    found = baselines.probabilities
    assert list(found) == ["majority", "age", "brightness", *SCORES, *CLINICAL]
    assert baselines.skipped == {}
    for p in found.values():
        assert p.shape == (80, len(classes))
        np.testing.assert_allclose(p.sum(axis=1), 1)
    shares = np.bincount(train.y) / 150
    np.testing.assert_allclose(found["majority"], np.tile(shares, (80, 1)))
    low = test.y > 0
    areas = {arm: roc_auc_score(low, p[:, 1:].sum(axis=1)) for arm, p in found.items()}
    assert areas["logistic_regression"] > areas["age"] - 0.02
    assert areas["proportional_odds"] > areas["age"] - 0.02
    assert min(areas[arm] for arm in ("ost", "osta", "orai")) > 0.7
    assert min(areas["gradient_boosting"], areas["random_forest"]) > 0.75
    assert areas["age"] > 0.75
    assert areas["brightness"] < 0.65
    assert areas["majority"] == 0.5


def test_a_rare_class_is_called_too():
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], [15, 185])
    age = 50.0 + 8 * y + 8 * rng.normal(size=200)
    rows = BaselineRows(np.zeros((200, 0)), y, age=age)
    p = fit_baselines(rows, rows, BINARY).probabilities["age"]
    called = p[:, 1] >= 0.5
    assert 0.5 < (~called[y == 0]).mean() < 1
    assert 0.5 < called[y == 1].mean() < 1


def test_missing_ages_take_the_training_median():
    train, test = cohort(3, 100, BINARY), cohort(4, 30, BINARY)
    train.age[::7] = np.nan
    test.age[0] = np.nan
    test.age[1] = np.nanmedian(train.age)
    p = fit_baselines(train, test, BINARY).probabilities["age"]
    np.testing.assert_allclose(p[0], p[1])


def test_test_rows_do_not_reach_the_fit():
    train, test = cohort(5, 100, THREE), cohort(6, 40, THREE)
    first = {name: values[:1] for name, values in test.columns.items()}
    fewer = BaselineRows(test.design[:1], test.y[:1], test.age[:1], test.brightness[:1], first)
    alone = fit_baselines(train, fewer, THREE).probabilities
    for arm, p in fit_baselines(train, test, THREE).probabilities.items():
        np.testing.assert_allclose(alone[arm], p[:1])


def test_what_cannot_be_fitted_is_skipped_with_a_reason():
    y = np.array([0, 1, 1, 0])
    nothing = BaselineRows(np.zeros((4, 0)), y)
    baselines = fit_baselines(nothing, nothing, BINARY)
    assert list(baselines.probabilities) == ["majority"]
    assert baselines.skipped == {
        "age": "the cohort has no age column",
        **dict.fromkeys(SCORES, "the cohort has no age and no weight column"),
        **dict.fromkeys(CLINICAL, "the cohort has no clinical features"),
    }
    unknown = BaselineRows(np.zeros((4, 0)), y, age=np.full(4, np.nan))
    reasons = fit_baselines(unknown, unknown, BINARY).skipped
    assert reasons["age"] == "age is missing in every training row"


def test_a_class_without_training_rows_is_refused():
    rows = BaselineRows(np.ones((3, 1)), np.array([0, 1, 1]))
    with pytest.raises(EvaluationError, match="no training row is osteoporosis"):
        fit_baselines(rows, rows, THREE)
