"""Precision, recall and F1 of each class, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Estimate, Ints

_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassScores:
    """How well one class is called, with 95 % intervals over split groups.

    Attributes:
        precision: Share of those called it that are; not defined where none is called it.
        recall: Share of those that are it that are called so.
        f1: Harmonic mean of both.
        support: Rows of the class.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


def class_scores(
    labels: Ints, decisions: Ints, groups: Ints, classes: Sequence[str]
) -> dict[str, ClassScores]:
    """Score each class, by name.

    The intervals are Wilson's for proportions. F1 is the proportion of hits where each is counted
    for the class that is there and the class that is called, so it has one too.

    Args:
        labels: (n,) class codes.
        decisions: (n,) called class codes.
        groups: (n,) codes of the split groups.
        classes: Class names in order.
    """
    found = {}
    for code, name in enumerate(classes):
        there, called = labels == code, decisions == code
        found[name] = ClassScores(
            _proportion(called, there, groups, "no row is called it"),
            _proportion(there, called, groups, "no row is of the class"),
            _f1(there, called, groups),
            int(there.sum()),
        )
    return found


def _proportion(chosen: _Bools, success: _Bools, groups: Ints, none: str) -> Estimate:
    """A share with its interval; not defined of no rows."""
    if not chosen.any():
        return Estimate(None, 0, reason=none)
    low, high = wilson_interval(chosen, success, groups)
    return Estimate(float(success[chosen].mean()), int(chosen.sum()), low, high, "wilson")


def _f1(there: _Bools, called: _Bools, groups: Ints) -> Estimate:
    """F1 of a class: 2 TP / (2 TP + FP + FN)."""
    twice = np.concatenate([np.flatnonzero(there), np.flatnonzero(called)])
    hit = (there & called)[twice]
    none = "no row is of the class or called it"
    return _proportion(np.ones(len(twice), dtype=bool), hit, groups[twice], none)
