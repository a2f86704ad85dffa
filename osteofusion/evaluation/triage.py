"""Three-way triage: rule out, send to DXA, rule in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Estimate, Floats
from osteofusion.evaluation.operating import fold_thresholds
from osteofusion.evaluation.out_of_fold import OutOfFold
from osteofusion.evaluation.prevalence import (
    check_prevalence,
    complement,
    posterior,
    weighted_sum,
)


@dataclass(frozen=True)
class Band:
    """One band of the triage in a population.

    Attributes:
        share: Share of all persons who fall in it.
        of_low: Share of those with low BMD who do.
        of_normal: Share of the others who do.
        low_bmd: Low BMD among those in it: the error rate of ruling out.
        normal: Normal among those in it: the error rate of ruling in.
    """

    share: Estimate
    of_low: Estimate
    of_normal: Estimate
    low_bmd: Estimate
    normal: Estimate


@dataclass(frozen=True)
class Triage:
    """The bands at one prevalence.

    Attributes:
        prevalence: Share of low BMD.
        bands: ``rule_out``, ``dxa`` and ``rule_in``.
        reading: One sentence.
    """

    prevalence: float
    bands: dict[str, Band]
    reading: str


def three_way_triage(
    rows: OutOfFold,
    prevalences: Sequence[float],
    *,
    sensitivity: float = 0.9,
    specificity: float = 0.9,
) -> list[Triage]:
    """Bands between the threshold of a fixed sensitivity and that of a fixed specificity.

    Below the first a person is ruled out, at or above the second ruled in, between them sent to
    DXA. Both are chosen on the other folds of the same repeat. Where they cross, both targets are
    met without a middle band, and one threshold midway serves for both.
    Intervals are for the thresholds as they are.

    Args:
        rows: The arm on its test folds.
        prevalences: Shares of low BMD to reweight to.
        sensitivity: What ruling out has to keep.
        specificity: What ruling in has to keep.

    Raises:
        EvaluationError: There are no other folds with rows of both kinds to choose thresholds on,
            or a prevalence is not between 0 and 1.
    """
    if not rows.cross_fitted:
        raise EvaluationError(
            "a triage needs several test folds with rows of both kinds to choose its thresholds "
            "on; run a study with stratified folds"
        )
    lower = fold_thresholds(rows, "fixed_sensitivity", sensitivity)
    upper = fold_thresholds(rows, "fixed_specificity", specificity)
    members: dict[str, list[Floats]] = {"rule_out": [], "dxa": [], "rule_in": []}
    for fold, low, high in zip(rows.folds, lower, upper, strict=True):
        if low > high:
            low = high = (low + high) / 2
        out, within = fold.scores < low, fold.scores >= high
        members["rule_out"].append(out.astype(np.float64))
        members["rule_in"].append(within.astype(np.float64))
        members["dxa"].append((~out & ~within).astype(np.float64))
    of_kind = {}
    for name, values in members.items():
        chosen = rows.average(values)
        of_kind[name] = (rows.share(True, chosen), rows.share(False, chosen))
    triages = []
    for prevalence in prevalences:
        check_prevalence(prevalence)
        bands = {name: _band(*kinds, prevalence) for name, kinds in of_kind.items()}
        triages.append(Triage(prevalence, bands, _read(bands, prevalence)))
    return triages


def _band(of_low: Estimate, of_normal: Estimate, prevalence: float) -> Band:
    low_bmd = posterior(of_low, of_normal, prevalence)
    return Band(
        share=weighted_sum([of_low, of_normal], [prevalence, 1 - prevalence]),
        of_low=of_low,
        of_normal=of_normal,
        low_bmd=low_bmd,
        normal=complement(low_bmd),
    )


def _read(bands: dict[str, Band], prevalence: float) -> str:
    out, dxa, within = bands["rule_out"], bands["dxa"], bands["rule_in"]
    return (
        f"At a prevalence of {prevalence:.0%}: {_say(out.share)} ruled out, of whom "
        f"{_say(out.low_bmd)} have low BMD; {_say(dxa.share)} sent to DXA; {_say(within.share)} "
        f"ruled in, of whom {_say(within.normal)} are normal."
    )


def _say(share: Estimate) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "none"
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
