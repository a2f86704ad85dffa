"""Calibration intercept and slope: what logistic recalibration would have to do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import t

Floats = npt.NDArray[np.float64]

_SMALLEST = 1e-6  # a forest says exactly 0 and 1, whose log-odds are not finite
_STEPS = 100  # of Newton's method, which needs about 8
_TIE = 1e-6  # of standardised log-odds: closer rows stand at the same place
_NO_SPREAD = 1e-20  # what rounding leaves of a variance of 0
_SEPARATE = "the probabilities separate the classes, so the slope is not finite"


def calibration_intercept(positive: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Calibration-in-the-large: intercept of the log-odds at slope 1 (Van Calster et al. 2016).

    0 is right, above 0 the probabilities are too low.

    Args:
        positive: (n,) true for the positive rows; both kinds must be there.
        scores: (n,) probabilities, taken to lie within 1e-6 and 1 - 1e-6.
    """
    odds = log_odds(scores)
    total = positive.sum()
    return float(brentq(lambda a: expit(a + odds).sum() - total, -50, 50))


def calibration_line(positive: npt.NDArray[np.bool_], scores: Floats) -> Floats | str:
    """Intercept and slope (2,) of a logistic regression on the log-odds; slope 1 is right.

    Below 1 the probabilities are too extreme (Cox 1958). Without penalty, so that a reader gets
    what other software gives.

    Args:
        positive: (n,) true for the positive rows; both kinds must be there.
        scores: (n,) probabilities, taken to lie within 1e-6 and 1 - 1e-6.

    Returns:
        The line, or why there is none.
    """
    odds = log_odds(scores)
    if np.ptp(odds) < 1e-9:
        return "every row has the same probability"
    # Newton's method on standardised log-odds; halved steps make sure that it goes up
    centre, scale = odds.mean(), odds.std()
    standard = (odds - centre) / scale
    above, below = standard[positive], standard[~positive]
    if above.min() > below.max() - _TIE or below.min() > above.max() - _TIE:
        return _SEPARATE
    design = np.column_stack([np.ones(len(odds)), standard])
    line = np.array([logit(positive.mean()), 0.0])
    reached = _likelihood(design @ line, positive)
    for _ in range(_STEPS):
        p = expit(design @ line)
        weight = p * (1 - p)
        if weight.sum() < _TIE:
            return _SEPARATE
        step = np.linalg.solve((design.T * weight) @ design, design.T @ (positive - p))
        while (new := _likelihood(design @ (line + step), positive)) < reached - 1e-12:
            step /= 2
        line, reached = line + step, new
        if np.abs(step).max() < 1e-10:
            break
    slope = line[1] / scale
    return np.array([line[0] - slope * centre, slope])


def intercept_interval(
    positive: npt.NDArray[np.bool_], scores: Floats, clusters: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """95 % interval of :func:`calibration_intercept` over clusters, by the sandwich variance."""
    value = calibration_intercept(positive, scores)
    p = expit(value + log_odds(scores))
    sums = np.bincount(clusters, weights=positive - p)
    return _interval(value, float((sums**2).sum()) / float((p * (1 - p)).sum()) ** 2, clusters)


def slope_interval(
    positive: npt.NDArray[np.bool_], scores: Floats, clusters: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """95 % interval of the slope of :func:`calibration_line`, by the sandwich variance.

    Raises:
        ValueError: There is no line.
    """
    line = calibration_line(positive, scores)
    if isinstance(line, str):
        raise ValueError(line)
    odds = log_odds(scores)
    design = np.column_stack([np.ones(len(odds)), odds])
    p = expit(design @ line)
    bread = np.linalg.inv((design.T * (p * (1 - p))) @ design)
    parts = [np.bincount(clusters, weights=column * (positive - p)) for column in design.T]
    meat = np.array(parts) @ np.array(parts).T
    return _interval(float(line[1]), float((bread @ meat @ bread)[1, 1]), clusters)


def log_odds(scores: Floats) -> Floats:
    """Log-odds (n,) of probabilities, those of 0 and 1 made finite."""
    odds: Floats = logit(np.clip(scores, _SMALLEST, 1 - _SMALLEST))
    return odds


def _likelihood(odds: Floats, positive: npt.NDArray[np.bool_]) -> float:
    return float(-np.logaddexp(0, np.where(positive, -odds, odds)).sum())


def _interval(
    value: float, variance: float, clusters: npt.NDArray[np.int64]
) -> tuple[float, float]:
    count = len(np.unique(clusters))
    variance = variance if variance > _NO_SPREAD else 0.0
    half = float(t.ppf(0.975, count - 1) * np.sqrt(variance * count / (count - 1)))
    return value - half, value + half
