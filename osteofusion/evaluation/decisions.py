"""From probabilities to decisions: calibration, thresholds, triage and net benefit of one arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.agreement import Agreement, agreement
from osteofusion.evaluation.decision_curve import DecisionCurve, decision_curve
from osteofusion.evaluation.operating import OperatingPoint, operating_points
from osteofusion.evaluation.out_of_fold import OutOfFold, out_of_fold
from osteofusion.evaluation.precision import Precision, detectable_difference
from osteofusion.evaluation.prevalence import AtPrevalence, at_prevalence, shift_odds
from osteofusion.evaluation.triage import Triage, three_way_triage

_CURVES = ("age", "ost")
_COMPARED = ("tabular", "age", "ost", "logistic_regression", "proportional_odds")


@dataclass(frozen=True)
class Decisions:
    """What an arm is good for at the point of decision.

    Attributes:
        arm: The arm.
        classes: Class names in order.
        positive: What a positive decision is for: the last class, ``low_bmd`` of three classes.
        n_rows: Test radiographs.
        n_groups: Split groups, the unit of every interval.
        n_positive: Rows that are positive.
        cohort_prevalence: Their share.
        cells: Number of repeats times folds.
        calibrated: Whether probabilities are calibrated across folds.
        before: Agreement of the raw probabilities, a row once a repeat: their mean over repeats
            would be the calibration of an ensemble.
        after: Agreement of the calibrated ones; None without calibration.
        operating: Operating points.
        at_prevalence: Operating point to what it means at the cohort's prevalence, which comes
            first, and at those asked for.
        triage: Three-way triage at the same prevalences; empty with a single fold.
        curves: Decision curves at the same prevalences; empty where rows are of one kind.
        precision: What the comparisons of the arm with others can tell.
        notes: What a reader should know.
    """

    arm: str
    classes: list[str]
    positive: str
    n_rows: int
    n_groups: int
    n_positive: int
    cohort_prevalence: float
    cells: int
    calibrated: bool
    before: Agreement
    after: Agreement | None
    operating: list[OperatingPoint]
    at_prevalence: dict[str, list[AtPrevalence]]
    triage: list[Triage]
    curves: list[DecisionCurve]
    precision: list[Precision]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, ready for JSON; None, never NaN.

        Keys are the attributes of the dataclasses, an ``Estimate`` a dictionary with
        ``value, n, low, high, method, reason``:

        - ``arm, classes, positive, n_rows, n_groups, n_positive, cohort_prevalence, cells,
          calibrated, notes``
        - ``before``, ``after``: ``mean_predicted, observed, brier, slope, intercept, reason, bins``
        - ``operating``: list of ``name, target, sensitivity, specificity, reading``,
          ``thresholds``, one a repeat and fold, and ``chosen_anew``: ``sensitivity, specificity``
          with the interval that choosing the thresholds adds
        - ``at_prevalence``: name of the operating point to a list of ``prevalence, ppv, npv,
          threshold, net_benefit, net_benefit_treat_all, dxa_avoided_per_1000, missed_per_1000``
        - ``triage``: list of ``prevalence, reading`` and ``bands``: ``rule_out, dxa, rule_in`` to
          ``share, of_low, of_normal, low_bmd, normal``
        - ``curves``: list of ``prevalence, thresholds, arms, treat_all, low, high``
        - ``precision``: list of ``first, second, n_rows, n_normal, auroc, standard_error,
          correlation, detectable, difference, rows_needed, normals_needed, reading``
        """
        plain = asdict(self)
        for comparison in plain["precision"]:
            comparison["auroc"] = list(comparison["auroc"])
        return plain


def decide(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    *,
    arm: str,
    prevalence: float | Sequence[float],
    sensitivity: float = 0.9,
    specificity: float = 0.9,
) -> Decisions:
    """Bring an arm's test predictions to decisions, nothing chosen on the fold it is applied to.

    Works from ``raw_<class>``: seeds are averaged, each fold is calibrated on the other folds of
    its repeat, and thresholds come from those too. Three classes are read as low BMD. With a
    single fold only the uncalibrated threshold 0.5 is left, and a note says so. Intervals at a
    prevalence and of the triage are for the thresholds as they are.

    Args:
        predictions: Predictions table of one variant with all its arms and test folds; the arms
            ``age`` and ``ost`` go into the decision curves where they are there.
        classes: Class names in order; the first is the negative one.
        arm: The arm to decide with.
        prevalence: Share of low BMD, or several, where it is to be used.
        sensitivity: Target of the fixed sensitivity and of ruling out.
        specificity: Target of the fixed specificity and of ruling in.

    Raises:
        EvaluationError: The table is not valid, the arm is not there, or a share is not between 0
            and 1.
    """
    rows = out_of_fold(predictions, classes, arm)
    arms = set(predictions["arm"]) - {arm}
    others = {n: out_of_fold(predictions, classes, n) for n in _COMPARED if n in arms}
    cohort = float(rows.low.mean())
    mixed = 0 < cohort < 1
    shares = [*([cohort] if mixed else []), *np.atleast_1d(prevalence).astype(float).tolist()]
    points = operating_points(rows, sensitivity=sensitivity, specificity=specificity)
    curves = {arm: rows} | {name: others[name] for name in _CURVES if name in others}
    positive = classes[1] if len(classes) == 2 else "low_bmd"
    precision, notes = _compare(arm, rows, others)
    seen = np.concatenate([fold.rows for fold in rows.folds])  # each repeat stands for itself
    low, groups = rows.low[seen], rows.groups[seen]
    raw, calibrated = (
        np.concatenate([getattr(fold, kind) for fold in rows.folds]) for kind in ("raw", "scores")
    )
    return Decisions(
        arm=arm,
        classes=list(classes),
        positive=positive,
        n_rows=len(rows.low),
        n_groups=int(rows.groups.max()) + 1,
        n_positive=int(rows.low.sum()),
        cohort_prevalence=cohort,
        cells=len(rows.folds),
        calibrated=rows.cross_fitted,
        before=agreement(raw, low, groups),
        after=agreement(calibrated, low, groups) if rows.cross_fitted else None,
        operating=points,
        at_prevalence={point.name: _carry(point, cohort, shares) for point in points},
        triage=three_way_triage(rows, shares, sensitivity=sensitivity, specificity=specificity)
        if rows.cross_fitted and mixed
        else [],
        curves=[decision_curve(curves, share) for share in shares] if mixed else [],
        precision=precision,
        notes=[*_notes(rows, positive), *notes],
    )


def _carry(point: OperatingPoint, cohort: float, shares: Sequence[float]) -> list[AtPrevalence]:
    middle = float(np.median(point.thresholds))
    carried = []
    for share in shares:
        threshold = float(shift_odds(middle, cohort, share)) if 0 < middle < 1 else None
        carried.append(at_prevalence(point.sensitivity, point.specificity, share, threshold))
    return carried


def _compare(
    arm: str, rows: OutOfFold, others: dict[str, OutOfFold]
) -> tuple[list[Precision], list[str]]:
    """What can be compared, and the reason why one cannot."""
    found, notes = [], []
    for name, other in others.items():
        try:
            found.append(detectable_difference((arm, rows), (name, other)))
        except EvaluationError as error:
            notes.append(f"No precision of {arm} against {name}: {error}")
    return found, notes


def _notes(rows: OutOfFold, positive: str) -> list[str]:
    notes = []
    if not rows.cross_fitted:
        notes.append(
            "Not every test fold has other folds with rows of both kinds to learn from (a single "
            "split has none): 0.5 is the only threshold, since one chosen on the rows it is judged "
            "on would flatter them, and net benefit rests on probabilities that were not "
            "calibrated."
        )
    refused = sorted({fold.note for fold in rows.folds if fold.note is not None})
    for note in refused:
        count = sum(fold.note == note for fold in rows.folds)
        notes.append(f"In {count} of {len(rows.folds)} folds {note}.")
    if rows.low.all() or not rows.low.any():
        kind = positive if rows.low.all() else f"not {positive}"
        notes.append(f"Every row is {kind}, so neither triage nor decision curves can be drawn.")
    return notes
