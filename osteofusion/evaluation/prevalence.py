"""What sensitivity and specificity mean at another prevalence than the cohort's.

Intervals come from those of sensitivity and specificity by MOVER, "square and add" (Zou and Donner
2008), on the log odds for predictive values, as Mercaldo et al. (2007) put them, and as they are
for sums. Unlike the delta method it has limits where one of the two is 0 or 1, and it takes over
Wilson's limits with their allowance for split groups. Sensitivity and specificity count as
independent, the prevalence as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Estimate, Floats


@dataclass(frozen=True)
class AtPrevalence:
    """A decision rule in a population with a given share of low BMD.

    Attributes:
        prevalence: Share of low BMD.
        ppv: Low BMD among those called so.
        npv: Normal among those called normal.
        threshold: Risk at which a DXA is worth its trouble, behind the net benefit: the rule's own
            threshold, moved to this prevalence. None where the rule calls everybody or nobody.
        net_benefit: True calls less false calls at the odds of the threshold, per person (Vickers
            and Elkin 2006).
        net_benefit_treat_all: That of calling everybody.
        dxa_avoided_per_1000: Persons per 1,000 called normal, who would get no DXA.
        missed_per_1000: Persons per 1,000 with low BMD among them.
    """

    prevalence: float
    ppv: Estimate
    npv: Estimate
    threshold: float | None
    net_benefit: Estimate
    net_benefit_treat_all: float | None
    dxa_avoided_per_1000: Estimate
    missed_per_1000: Estimate


def at_prevalence(
    sensitivity: Estimate, specificity: Estimate, prevalence: float, threshold: float | None = None
) -> AtPrevalence:
    """Carry a rule over to a prevalence, with 95 % intervals.

    Args:
        sensitivity: Of the rule, with its interval.
        specificity: Of the rule, with its interval.
        prevalence: Share of low BMD, between 0 and 1.
        threshold: Risk at this prevalence that the net benefit weighs calls with; None for none.

    Raises:
        EvaluationError: The prevalence is not between 0 and 1.
    """
    check_prevalence(prevalence)
    false_alarm, miss = complement(specificity), complement(sensitivity)
    npv = complement(posterior(miss, specificity, prevalence))
    if threshold is not None and 0 < threshold < 1:
        odds = threshold / (1 - threshold)
        net = weighted_sum([sensitivity, false_alarm], [prevalence, -(1 - prevalence) * odds])
        treat_all = prevalence - (1 - prevalence) * odds
    else:
        net = Estimate(None, sensitivity.n, reason="the rule has no threshold between 0 and 1")
        threshold = treat_all = None
    return AtPrevalence(
        prevalence=prevalence,
        ppv=posterior(sensitivity, false_alarm, prevalence),
        npv=npv,
        threshold=threshold,
        net_benefit=net,
        net_benefit_treat_all=treat_all,
        dxa_avoided_per_1000=weighted_sum(
            [miss, specificity], [1000 * prevalence, 1000 * (1 - prevalence)]
        ),
        missed_per_1000=weighted_sum([miss], [1000 * prevalence]),
    )


def check_prevalence(prevalence: float) -> None:
    """Refuse what is no prevalence.

    Raises:
        EvaluationError: The prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise EvaluationError(
            f"prevalence is {prevalence}; give the share of low BMD as a number between 0 and 1, "
            "such as 0.3"
        )


def shift_odds(
    probabilities: npt.ArrayLike, cohort: float, prevalence: float
) -> npt.NDArray[np.float64]:
    """Probabilities for a cohort, moved to another prevalence by Bayes' rule on the odds."""
    with np.errstate(divide="ignore"):  # 0 and 1 stay where they are
        moved: Floats = expit(
            logit(np.asarray(probabilities, dtype=np.float64)) + logit(prevalence) - logit(cohort)
        )
    return moved


def complement(share: Estimate) -> Estimate:
    """One minus a proportion, with its interval."""
    if share.value is None or share.low is None or share.high is None:
        return share
    return Estimate(
        1 - share.value, share.n, 1 - share.high, 1 - share.low, share.method, share.reason
    )


def posterior(in_low: Estimate, in_normal: Estimate, prevalence: float) -> Estimate:
    """Probability of low BMD among those in a band, such as those called low BMD.

    Args:
        in_low: Share of low BMD that falls in the band, with its interval.
        in_normal: Share of normal that falls in the band.
        prevalence: Share of low BMD.
    """
    n = in_low.n + in_normal.n
    first, second = _limits(in_low), _limits(in_normal)
    if first is None or second is None:
        return Estimate(None, n, reason=in_low.reason or in_normal.reason)
    if not first[0] and not second[0]:
        return Estimate(None, n, reason="no row falls there")
    ratio = _log_ratio(first, second)
    value, low, high = (float(expit(each + logit(prevalence))) for each in ratio)
    return Estimate(value, n, low, high, "mover")


def weighted_sum(shares: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Sum of independent proportions times weights, with its 95 % interval by MOVER."""
    n = sum(share.n for share in shares)
    value, below, above = 0.0, 0.0, 0.0
    for share, weight in zip(shares, weights, strict=True):
        limits = _limits(share)
        if limits is None:
            return Estimate(None, n, reason=share.reason)
        middle, *ends = (weight * limit for limit in limits)
        value += middle
        below += (middle - min(ends)) ** 2
        above += (max(ends) - middle) ** 2
    return Estimate(value, n, value - below**0.5, value + above**0.5, "mover")


def _limits(share: Estimate) -> tuple[float, float, float] | None:
    if share.value is None or share.low is None or share.high is None:
        return None
    return share.value, share.low, share.high


def _log_ratio(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Value, low and high of log(first / second); where one is 0, the limits MOVER runs to."""
    with np.errstate(divide="ignore"):
        value1, low1, high1 = np.log(first)
        value2, low2, high2 = np.log(second)
    if not first[0]:
        return -np.inf, -np.inf, float(high1 - value2)
    if not second[0]:
        return np.inf, float(value1 - high2), np.inf
    value = value1 - value2
    low = value - np.hypot(value1 - low1, high2 - value2)
    high = value + np.hypot(high1 - value1, value2 - low2)
    return float(value), float(low), float(high)
