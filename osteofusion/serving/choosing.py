"""Calibration, operating points and triage of a single run: chosen on validation rows, tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.evaluation.calibration import Calibration, fit_calibration, raw_and_labels
from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.operating import choose_thresholds
from osteofusion.serving.description import (
    BandReached,
    CalibrationDescription,
    OperatingPointDescription,
    Reached,
    TriageDescription,
)

_FEWEST = 5  # rows of a kind: of fewer, a threshold for 90 % is the most extreme one
_TARGET = 0.9
_RULES: tuple[tuple[Literal["fixed_sensitivity", "fixed_specificity", "youden"], float | None], ...]
_RULES = (("fixed_sensitivity", _TARGET), ("fixed_specificity", _TARGET), ("youden", None))
_ALSO = "which also chose the epoch, so what is chosen suits them a little better than others"

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """The rows of one side of a split.

    Attributes:
        raw: (n, C) probabilities of the model.
        labels: (n,) class codes.
        groups: (n,) codes of the split groups.
    """

    raw: Floats
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: pd.DataFrame, classes: Sequence[str]) -> Side:
        """The rows of a predictions table.

        Raises:
            EvaluationError: A label or probability is invalid.
        """
        raw, labels = raw_and_labels(rows, classes)
        return cls(raw, labels, pd.factorize(rows["group"])[0].astype(np.int64))

    @property
    def low(self) -> Bools:
        """(n,) true for every class but the first."""
        return self.labels > 0

    def share(self, low: bool, chosen: Bools) -> Reached:
        """Share of the rows of a kind that are chosen, with Wilson's interval over groups."""
        return reached(self.low == low, chosen, self.groups)


@dataclass(frozen=True)
class Decisions:
    """What a bundle decides with.

    Attributes:
        calibration: Fitted on the validation rows.
        calibrated: The same in words.
        points: Operating points.
        triage: Bands.
        note: Why there are no points or bands.
        prevalence: Share of low BMD that the probabilities are meant for.
    """

    calibration: Calibration
    calibrated: CalibrationDescription
    points: list[OperatingPointDescription]
    triage: TriageDescription | None
    note: str | None
    prevalence: float


def reached(of: Bools, chosen: Bools, groups: npt.NDArray[np.int64]) -> Reached:
    """Share of the rows `of` that are `chosen`, with Wilson's 95 % interval over `groups`."""
    n = int(of.sum())
    if not n:
        return Reached(value=None, low=None, high=None, n=0)
    low, high = wilson_interval(of, chosen, groups)
    return Reached(value=float(chosen[of].mean()), low=low, high=high, n=n)


def choose(validation: Side, test: Side, kinds: tuple[str, str]) -> Decisions:
    """Fit calibration and choose thresholds on the validation rows; say what the test rows reach.

    A rule whose target needs rows of a kind has no operating point where there are fewer than five
    of it: sensitivity needs low BMD, specificity normals, Youden and the triage both.

    Args:
        validation: Rows to choose on.
        test: Rows to test on.
        kinds: What to call rows of the first class, and all others.
    """
    calibration = fit_calibration(validation.raw, validation.labels)
    scores, applied = (1 - calibration.apply(side.raw)[:, 0] for side in (validation, test))
    low = validation.low
    negative, positive = kinds
    held = {positive: int(low.sum()), negative: int((~low).sum())}
    counted = " and ".join(f"{n} {kind}" for kind, n in held.items())
    # A risk means what it does at this share: thresholds do not carry over to another.
    share = f"{100 * low.mean():.0f} % {positive}"
    chosen_on = f"{len(low)} validation rows ({counted}: {share}), {_ALSO}"
    few = {kind for kind, n in held.items() if n < _FEWEST}
    needs = {"fixed_sensitivity": {positive}, "fixed_specificity": {negative}, "youden": set(held)}
    thresholds: dict[str, float] = {
        rule: float(choose_thresholds(scores, low, np.ones((1, len(low))), rule, target)[0])
        for rule, target in _RULES
        if all(held.values()) and not needs[rule] & few
    }
    points = [
        OperatingPointDescription(
            name=rule,
            target=target,
            threshold=thresholds[rule],
            sensitivity=test.share(True, applied >= thresholds[rule]),
            specificity=test.share(False, applied < thresholds[rule]),
            chosen_on=chosen_on,
        )
        for rule, target in _RULES
        if rule in thresholds
    ]
    lacking = [rule.replace("_", " ") for rule, _ in _RULES if rule not in thresholds]
    note = None
    if lacking:
        note = (
            f"No operating point for {', '.join(lacking)} and no triage: the validation side holds "
            f"{counted} rows, and fewer than {_FEWEST} of a kind cannot choose a threshold for "
            f"{_TARGET:.0%}."
        )
    fitted = calibration.note is None or not calibration.note.startswith("not calibrated")
    every = low if fitted else np.concatenate([low, test.low])
    one_kind = bool(every.all() or not every.any())
    return Decisions(
        calibration=calibration,
        calibrated=CalibrationDescription(
            **calibration.to_dict(), fitted_on=f"validation rows ({counted}), {_ALSO}", n=len(low)
        ),
        points=points,
        triage=_triage(thresholds, test, applied, chosen_on),
        note=note,
        # A side of one kind says nothing of how frequent the other is.
        prevalence=float((every.sum() + 0.5 * one_kind) / (len(every) + one_kind)),
    )


def _triage(
    thresholds: dict[str, float], test: Side, scores: Floats, chosen_on: str
) -> TriageDescription | None:
    if not {"fixed_sensitivity", "fixed_specificity"} <= thresholds.keys():
        return None
    lower, upper = thresholds["fixed_sensitivity"], thresholds["fixed_specificity"]
    if lower > upper:  # both targets are met without a middle band
        lower = upper = (lower + upper) / 2
    out, within = scores < lower, scores >= upper
    members = {"rule_out": out, "dxa": ~out & ~within, "rule_in": within}
    return TriageDescription(
        rule_out=lower,
        rule_in=upper,
        chosen_on=chosen_on,
        reached={
            name: BandReached(of_low=test.share(True, chosen), of_normal=test.share(False, chosen))
            for name, chosen in members.items()
        },
    )
