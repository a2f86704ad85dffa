"""The simple models of the audits: ridge regression on features that nothing trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from osteofusion.evaluation.metrics import Floats, Ints

FOLDS = 5
FEWEST = 2 * FOLDS  # groups of a class, so that every fold can hold two
_INNER = 3
_COMPONENTS = 256
_ALPHAS = np.logspace(0, 6, 13)
Folds = list[tuple[Ints, Ints]]


@dataclass(frozen=True)
class AuditRows:
    """What the simple models see; row i is the same radiograph everywhere.

    Attributes:
        y: (n,) class codes of the task.
        groups: (n,) codes of the split groups, 0 to G - 1.
        matrices: ``image`` and ``tabular``, where there are such, to (n, D) columns.
        classes: C class names of the task.
    """

    y: Ints
    groups: Ints
    matrices: Mapping[str, Floats]
    classes: Sequence[str]

    @property
    def models(self) -> list[str]:
        """``tabular``, ``image`` and ``fused``, as far as there are columns."""
        alone = [name for name in ("tabular", "image") if name in self.matrices]
        return [*alone, "fused"] if len(alone) == 2 else alone

    @property
    def too_few(self) -> str | None:
        """Why nothing can be cross-validated; None where it can."""
        for code, name in enumerate(self.classes):
            count = len(np.unique(self.groups[self.y == code]))
            if count < FEWEST:
                return f"{count} split groups hold a {name.replace('_', ' ')}; {FEWEST} are needed"
        return None


def rotate(features: Floats) -> Floats:
    """The first 256 principal components (n, K) of standardised columns (n, D).

    Of no more rows than that, they are all there is, and ridge cannot tell the difference. Means,
    scales and directions are those of all rows given: they hold nothing of any target.
    """
    values = features.astype(np.float64)
    scale = values.std(axis=0)
    varied = scale > 1e-12
    standard = (values - values.mean(axis=0))[:, varied] / scale[varied]
    left, singular, _ = np.linalg.svd(standard, full_matrices=False)
    turned: Floats = (left * singular)[:, :_COMPONENTS]
    return turned


def grouped_folds(strata: Ints, groups: Ints, seed: int, folds: int = FOLDS) -> Folds:
    """Stratified folds that keep split groups together."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(strata, strata, groups))


def row_folds(strata: Ints, seed: int) -> Folds:
    """Stratified folds of rows, whatever belongs together: the mistake that leakage is."""
    found: Folds = list(
        StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(strata, strata)
    )
    return found


def ridge_scores(x: Floats, target: Floats, asked: Floats, weights: Floats | None = None) -> Floats:
    """Predictions (m, K) for `asked` (m, D) of ridge regression on `x` (n, D), `target` (n, K).

    The penalty is chosen by leave-one-out on the rows at hand.
    """
    model = RidgeCV(_ALPHAS).fit(x, target, sample_weight=weights)
    predicted: Floats = model.predict(asked)
    return predicted.reshape(len(asked), -1)


def class_targets(y: Ints, classes: int) -> Floats:
    """(n, 1) of code 1, or (n, C) of each of C classes: 1 where it is, else -1."""
    codes: Floats = 2 * np.eye(classes)[y] - 1
    return codes[:, 1:] if classes == 2 else codes


def fit_scores(
    rows: AuditRows, model: str, train: Ints, test: Ints, seed: int, memory: dict[str, Floats]
) -> Floats:
    """Class scores (m, K) of the test rows, classes weighing equally.

    ``fused`` is late fusion: logistic regression on the scores of both others, learnt from their
    cross-fitted scores of the training rows.

    Args:
        rows: The rows.
        model: Of `AuditRows.models`.
        train: Positions of the training rows.
        test: Positions of the test rows.
        seed: Of the inner folds.
        memory: What the single models said of this fold; read and added to.
    """
    if model != "fused":
        memory[model] = _alone(rows, model, train, test)
        return memory[model]
    y, names = rows.y[train], ("tabular", "image")
    held = np.zeros((len(train), 2 * class_targets(y[:1], len(rows.classes)).shape[1]))
    for inner, outer in grouped_folds(y, rows.groups[train], seed, _INNER):
        parts = [_alone(rows, name, train[inner], train[outer]) for name in names]
        held[outer] = np.hstack(parts)
    late = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    late.fit(held, y)
    scores: Floats = late.decision_function(np.hstack([memory[name] for name in names]))
    return scores.reshape(len(test), -1)


def ranked(scores: Floats) -> Floats:
    """Ranks within a fold (m, K), between 0 and 1: models of different folds are offset."""
    ranks: Floats = rankdata(scores, axis=0) / (len(scores) + 1)
    return ranks


def decided(scores: Floats) -> Ints:
    """Class codes (m,) called from scores (m, K)."""
    called = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return called.astype(np.int64)


def _alone(rows: AuditRows, model: str, train: Ints, test: Ints) -> Floats:
    x, y = rows.matrices[model], rows.y[train]
    counts = np.bincount(y, minlength=len(rows.classes))
    return ridge_scores(x[train], class_targets(y, len(rows.classes)), x[test], len(y) / counts[y])
