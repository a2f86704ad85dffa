"""What a model has to beat: majority class, age alone, brightness alone, logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Floats, Ints


@dataclass(frozen=True)
class BaselineRows:
    """One side of a split, as the baselines see it.

    Attributes:
        design: (n, D) encoded clinical columns: imputed, standardised, one-hot. D may be 0.
        y: (n,) class codes.
        age: (n,) years, NaN where missing; None where the cohort has no age.
        brightness: (n,) mean brightness of the radiographs; None to leave that arm out.
    """

    design: Floats
    y: Ints
    age: Floats | None = None
    brightness: Floats | None = None


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines on the test rows.

    Attributes:
        probabilities: Arm name to (n_test, C) probabilities.
        skipped: Arm name to the reason why it could not be fitted.
    """

    probabilities: dict[str, Floats] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def fit_baselines(train: BaselineRows, test: BaselineRows, classes: Sequence[str]) -> Baselines:
    """Fit the baselines on the training rows and ask them about the test rows.

    Arms ``majority`` (class shares), ``age``, ``brightness`` (where given) and
    ``logistic_regression`` (all clinical columns). The regressions weight classes equally, as a
    class-weighted network does, so that figures at a threshold compare; they are multinomial for
    three classes. A missing age takes the training median.

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
    alone = {"age": (train.age, test.age), "brightness": (train.brightness, test.brightness)}
    for arm, (seen, asked) in alone.items():
        if seen is None or asked is None:
            if arm == "age":
                baselines.skipped[arm] = "the cohort has no age column"
        elif np.isnan(seen).all():
            baselines.skipped[arm] = f"{arm} is missing in every training row"
        else:
            baselines.probabilities[arm] = _regress_alone(seen, train.y, asked)
    if train.design.shape[1]:
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit(train.design, train.y)
        baselines.probabilities["logistic_regression"] = model.predict_proba(test.design)
    else:
        baselines.skipped["logistic_regression"] = "the cohort has no clinical features"
    return baselines


def _regress_alone(seen: Floats, y: Ints, asked: Floats) -> Floats:
    model = make_pipeline(
        SimpleImputer(strategy="median"),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    probabilities: Floats = model.fit(seen.reshape(-1, 1), y).predict_proba(asked.reshape(-1, 1))
    return probabilities
