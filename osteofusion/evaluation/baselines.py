"""What a model has to beat: the majority class, age, published scores, and clinical models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Floats, Ints
from osteofusion.evaluation.ordinal import fit_proportional_odds
from osteofusion.evaluation.screening import screening_scores

# Deviation of the normal prior on the weight of each column but age: fixed beforehand, so strong
# that a column has to be worth a lot on a few hundred rows.
_PRIOR_SD = 0.1
_FREE = 0.01  # age is as good as free, yet finite where it separates the classes
_ON_DESIGN = ("logistic_regression", "proportional_odds", "gradient_boosting", "random_forest")


@dataclass(frozen=True)
class BaselineRows:
    """One side of a split, as the baselines see it.

    Attributes:
        design: (n, D) encoded clinical columns: imputed, standardised, one-hot. D may be 0.
        y: (n,) class codes.
        age: (n,) years, NaN where missing; None where the cohort has no age.
        brightness: (n,) mean brightness of the radiographs; None to leave that arm out.
        columns: Canonical name to (n,) values in canonical units, NaN where missing, of whichever
            of ``age``, ``weight``, ``female``, ``estrogen`` and ``frax`` the cohort has.
        values: (n, F) the columns of the design before imputation, NaN where missing, for the
            trees of gradient boosting; None to give them the design.
        ordinal: (n,) codes of the three classes normal < osteopenia < osteoporosis behind ``y``,
            for the proportional-odds model; None where only ``y`` is known.
    """

    design: Floats
    y: Ints
    age: Floats | None = None
    brightness: Floats | None = None
    columns: Mapping[str, Floats] = field(default_factory=dict)
    values: Floats | None = None
    ordinal: Ints | None = None


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines on the test rows.

    Attributes:
        probabilities: Arm name to (n_test, C) probabilities.
        skipped: Arm name to the reason why it could not be fitted.
        notes: Arm name to what a reader should know of it.
    """

    probabilities: dict[str, Floats] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def fit_baselines(train: BaselineRows, test: BaselineRows, classes: Sequence[str]) -> Baselines:
    """Fit the baselines on the training rows and ask them about the test rows.

    Arms ``majority`` (class shares), ``age``, ``brightness`` (where given), the scores ``ost``,
    ``osta``, ``orai`` and ``frax`` of :mod:`osteofusion.evaluation.screening` (where their columns
    are there), and on all clinical columns ``logistic_regression``, ``proportional_odds`` (age
    free, the other columns shrunk), ``gradient_boosting`` and ``random_forest``. A score becomes
    probabilities through a logistic regression on it alone; a missing one takes the training
    median. Classes count equally in every fit, as in a class-weighted network, so that figures at
    a threshold compare; regressions are multinomial for three classes.

    Args:
        train: Training rows; the only ones that are fitted on.
        test: Test rows.
        classes: C class names in order.

    Raises:
        EvaluationError: A training class has no row.
    """
    absent = [name for code, name in enumerate(classes) if not (train.y == code).any()]
    if absent:
        raise EvaluationError(
            f"no training row is {' or '.join(absent)}, so no baseline can be fitted; use a split "
            "with every class on the training side"
        )
    baselines = Baselines()
    majority = DummyClassifier(strategy="prior").fit(train.design, train.y)
    baselines.probabilities["majority"] = majority.predict_proba(test.design)
    _fit_alone(baselines, train, test)
    if not train.design.shape[1]:
        for arm in _ON_DESIGN:
            baselines.skipped[arm] = "the cohort has no clinical features"
        return baselines
    found = baselines.probabilities
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    found["logistic_regression"] = model.fit(train.design, train.y).predict_proba(test.design)
    found["proportional_odds"] = _proportional_odds(train, test, len(classes))
    boosting = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=60,
        max_leaf_nodes=8,
        min_samples_leaf=10,
        early_stopping=False,
        class_weight="balanced",
        random_state=0,
    )
    seen, asked = train.values, test.values
    if seen is None or asked is None:
        seen, asked = train.design, test.design
    found["gradient_boosting"] = boosting.fit(seen, train.y).predict_proba(asked)
    forest = RandomForestClassifier(
        300, min_samples_leaf=5, class_weight="balanced", random_state=0, n_jobs=1
    )
    found["random_forest"] = forest.fit(train.design, train.y).predict_proba(test.design)
    return baselines


def _fit_alone(baselines: Baselines, train: BaselineRows, test: BaselineRows) -> None:
    """Arms that rest on one number a row."""
    scores, reasons = screening_scores(train.columns)
    asked_scores, _ = screening_scores(test.columns)
    alone: dict[str, tuple[Floats | None, Floats | None]] = {"age": (train.age, test.age)}
    if train.brightness is not None:
        alone["brightness"] = (train.brightness, test.brightness)
    alone |= {arm: (score, asked_scores.get(arm)) for arm, score in scores.items()}
    for arm, (seen, asked) in alone.items():
        if seen is None or asked is None:
            baselines.skipped[arm] = f"the cohort has no {arm} column"
        elif np.isnan(seen).all():
            baselines.skipped[arm] = f"{arm} is missing in every training row"
        else:
            baselines.probabilities[arm] = _regress_alone(seen, train.y, asked)
            baselines.notes.update(_score_notes(arm, test))
    baselines.skipped.update(reasons)


def _score_notes(arm: str, test: BaselineRows) -> dict[str, str]:
    """What a published score was not made for."""
    if arm not in ("ost", "osta", "orai"):
        return {}
    said = []
    female = test.columns.get("female")
    if female is None:
        said.append("developed in women; the cohort does not tell the sex")
    elif men := int((female == 0).sum()):
        said.append(f"developed in women; {men} of {len(female)} rows are men")
    if arm == "orai" and "estrogen" not in test.columns:
        said.append("no column tells oestrogen use, so its 2 points are left out")
    return {arm: "; ".join(said)} if said else {}


def _regress_alone(seen: Floats, y: Ints, asked: Floats) -> Floats:
    model = make_pipeline(
        SimpleImputer(strategy="median"),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    probabilities: Floats = model.fit(seen.reshape(-1, 1), y).predict_proba(asked.reshape(-1, 1))
    return probabilities


def _proportional_odds(train: BaselineRows, test: BaselineRows, classes: int) -> Floats:
    """Age free beside the shrunk design; the finer classes, where known, added up to the task's."""
    codes = train.y if train.ordinal is None else train.ordinal
    held, y = np.unique(codes, return_inverse=True)
    designs, penalty = [train.design, test.design], np.full(train.design.shape[1], _PRIOR_SD**-2)
    if train.age is not None and test.age is not None and not np.isnan(train.age).all():
        scale = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        scale.fit(train.age.reshape(-1, 1))
        designs = [
            np.hstack([scale.transform(age.reshape(-1, 1)), design])
            for age, design in zip((train.age, test.age), designs, strict=True)
        ]
        penalty = np.insert(penalty, 0, _FREE)
    weights = compute_sample_weight("balanced", train.y)
    model = fit_proportional_odds(designs[0], y.astype(np.int64), weights, penalty)
    fine = model.probabilities(designs[1])
    probabilities = np.zeros((len(fine), classes))
    for column, code in enumerate(held):
        probabilities[:, train.y[codes == code][0]] += fine[:, column]
    return probabilities
