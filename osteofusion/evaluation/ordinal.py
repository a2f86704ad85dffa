"""Proportional-odds regression with a free column and shrinkage on the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from osteofusion.evaluation.metrics import Floats, Ints


@dataclass(frozen=True)
class ProportionalOdds:
    """A fitted model P(y <= k) = sigmoid(cut_k - x @ weight) (McCullagh 1980).

    Attributes:
        weight: (D,) weights; a positive one raises the class.
        cuts: (K - 1,) rising cut points.
    """

    weight: Floats
    cuts: Floats

    def probabilities(self, design: Floats) -> Floats:
        """Class probabilities (n, K) of rows (n, D)."""
        below = expit(self.cuts - (design @ self.weight)[:, None])
        return np.diff(below, axis=1, prepend=0, append=1)


def fit_proportional_odds(
    design: Floats, y: Ints, weights: Floats, penalty: Floats
) -> ProportionalOdds:
    """Fit by penalised maximum likelihood.

    Args:
        design: (n, D) columns, on comparable scales.
        y: (n,) codes 0 to K - 1, with a row of each.
        weights: (n,) weights of the rows.
        penalty: (D,) added as ``penalty @ weight**2 / 2``; 0 leaves a column free. Under a normal
            prior around 0 it is one over the prior's variance.
    """
    columns, count = design.shape[1], int(y.max()) + 1
    shares = np.cumsum(np.bincount(y, weights=weights))[:-1] / weights.sum()
    cuts = np.log(shares / (1 - shares))
    # The cut points as the first and the logarithms of the steps, so that they rise.
    start = np.concatenate([np.zeros(columns), cuts[:1], np.log(np.diff(cuts))])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weight, steps = parameters[:columns], np.exp(parameters[columns + 1 :])
        cuts = _cuts(parameters[columns:])
        score = design @ weight
        upper = np.append(cuts, np.inf)[y] - score
        lower = np.insert(cuts, 0, -np.inf)[y] - score
        # s(u) - s(l) = (1 - exp(l - u)) s(u) s(-l), whose first factor knows no row
        inner = np.bincount(y, weights=weights)[1:-1]
        value = weights @ (log_expit(upper) + log_expit(-lower)) + inner @ np.log(-np.expm1(-steps))
        push_up, push_down = weights * expit(-upper), weights * expit(lower)
        by_cut = np.bincount(y, push_up, count)[:-1] - np.bincount(y, push_down, count)[1:]
        by_step = np.cumsum(by_cut[::-1])[::-1][1:] * steps + inner * steps / np.expm1(steps)
        gradient = np.concatenate(
            [
                design.T @ (push_down - push_up) - penalty * weight,
                by_cut.sum(keepdims=True),
                by_step,
            ]
        )
        return float(-value + penalty @ weight**2 / 2), -gradient

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return ProportionalOdds(found[:columns], _cuts(found[columns:]))


def _cuts(parameters: Floats) -> Floats:
    cuts: Floats = np.cumsum(np.concatenate([parameters[:1], np.exp(parameters[1:])]))
    return cuts
