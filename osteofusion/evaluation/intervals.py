"""95 % intervals of proportions and of bootstrapped metrics, on clustered rows."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import t

from osteofusion.evaluation.auroc import Z95
from osteofusion.evaluation.metrics import (
    LOWER_IS_BETTER,
    Estimate,
    Floats,
    Ints,
    calibration_gaps,
    metric_bounds,
    metric_values,
)

_CHUNK = 2_000_000  # elements of a weight matrix at a time: 16 MB
_LONGEST_STEP = 2.0  # odds 7 times as large: keeps resamples at a bound from counting as infinite


def wilson_interval(
    chosen: npt.NDArray[np.bool_], success: npt.NDArray[np.bool_] | Floats, clusters: Ints
) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion, on the effective number of rows.

    The design effect is the cluster-robust variance of the ratio over the binomial one (Rao and
    Scott 1992), at least 1, and raised for few clusters as Korn and Graubard (1998) do. Where all
    rows agree it cannot be seen, and is taken as large as clusters can make it: every row of a
    cluster a copy. One row a cluster gives Wilson's interval itself.

    Args:
        chosen: (n,) rows in the denominator, at least one.
        success: (n,) rows in the numerator, where chosen; or the share that each row counts there.
        clusters: (n,) codes of the split groups.
    """
    sizes = np.bincount(clusters[chosen])
    hits = np.bincount(clusters[chosen], weights=success[chosen])
    hits, sizes = hits[sizes > 0], sizes[sizes > 0]
    n, groups = int(sizes.sum()), len(sizes)
    share = float(hits.sum() / n)
    effect = float((sizes**2).sum() / n)
    if 0 < share < 1 and groups > 1:
        spread = ((hits - sizes * share) ** 2).sum() / (n * share * (1 - share))
        effect = max(1.0, float(spread) * groups / (groups - 1) * (n - 1) / n)
        if n > groups:
            effect *= (float(t.ppf(0.975, groups - 1)) / Z95) ** 2
    effective = n / effect
    centre = (share + Z95**2 / (2 * effective)) / (1 + Z95**2 / effective)
    half = Z95 * np.sqrt(share * (1 - share) / effective + (Z95 / (2 * effective)) ** 2)
    half /= 1 + Z95**2 / effective
    low, high = float(centre - half), float(centre + half)
    return (low if share > 0 else 0.0), (high if share < 1 else 1.0)  # exact at the ends


def balanced_accuracy_interval(
    labels: Ints, decisions: Ints, clusters: Ints
) -> tuple[float, float]:
    """95 % interval of the mean recall: Wilson's intervals of the classes, added in squares.

    Newcombe's (1998) way for independent proportions: unlike the bootstrap it sees that a class
    without an error may have some.

    Args:
        labels: (n,) class codes, with a row of every class.
        decisions: (n,) called class codes.
        clusters: (n,) codes of the split groups.
    """
    right = labels == decisions
    below, above, recalls = [], [], []
    for code in np.unique(labels):
        recall = float(right[labels == code].mean())
        low, high = wilson_interval(labels == code, right, clusters)
        recalls.append(recall)
        below.append(recall - low)
        above.append(high - recall)
    value = float(np.mean(recalls))
    low = value - float(np.linalg.norm(below)) / len(recalls)
    high = value + float(np.linalg.norm(above)) / len(recalls)
    return max(low, 0.0), min(high, 1.0)


class ClusterBootstrap:
    """Resamples of whole clusters with replacement; the same seed draws the same clusters.

    Args:
        labels: (n,) class codes.
        probabilities: (n, C) probabilities.
        clusters: (n,) codes 0 to G - 1.
        resamples: Number of resamples B.
        seed: Seed of the draws.

    Attributes:
        values: Metric name to (B,) values; NaN where a resample left the metric undefined.
        fewest: Clusters of the rarest class that is there.
        degenerate: Number of resamples without a row of some class.
    """

    def __init__(
        self,
        labels: Ints,
        probabilities: Floats,
        clusters: Ints,
        *,
        resamples: int = 2000,
        seed: int = 0,
    ) -> None:
        self.rows = (labels, probabilities, clusters)
        self.resamples = resamples
        self.seed = seed
        self.values = self._resample(*self.rows)
        self.degenerate = int(np.isnan(self.values["balanced_accuracy"]).sum())
        self.fewest = min(len(np.unique(clusters[labels == c])) for c in np.unique(labels))

    def interval(self, name: str, point: Estimate) -> Estimate:
        """Return ``point`` with its 95 % interval.

        Within the metric's range: symmetric on the logit scale of that range, from the spread of
        the resamples and a t quantile. (Percentiles cover too little for skewed metrics such as
        the area under the precision-recall curve.) At the end of the range, where all resamples
        agree: one row a class is added that is called wrong for certain (right, if everything was
        wrong), each a cluster; resampling shows it up to three times, the rule of three. ECE has
        rules of its own, since chance can only raise it.
        """
        if point.value is None:
            return point
        if self.fewest < 2:
            return replace(point, reason="no interval: a class has a single split group")
        values = self.values[name]
        kept = values[~np.isnan(values)]
        if 2 * len(kept) < len(values):
            reason = (
                f"no interval: {len(values) - len(kept)} of {len(values)} resamples lack a class"
            )
            return replace(point, reason=reason)
        bounds = metric_bounds(name, self.rows[1].shape[1])
        if point.value in bounds:
            low, high = self._at_bound(name, point.value, bounds)
            return replace(point, low=low, high=high, method="pseudo-rows")
        if np.ptp(kept) < 1e-12:
            return replace(point, reason="no interval: every resample gives the same value")
        if name == "ece":
            low, high = self._ece(point.value, kept)
        else:
            low, high = self._on_logit_scale(name, point.value, kept, bounds)
        return replace(point, low=low, high=high, method="bootstrap")

    def _on_logit_scale(
        self, name: str, value: float, kept: Floats, bounds: tuple[float, float]
    ) -> tuple[float, float]:
        low, high = bounds
        centre = float(logit((value - low) / (high - low)))
        with np.errstate(divide="ignore"):  # a resample may stand at the bound
            steps = logit((kept - low) / (high - low)) - centre
        error = np.clip(steps, -_LONGEST_STEP, _LONGEST_STEP).std()
        count = int(self.rows[2].max()) + 1
        if name.startswith("auprc") and (others := self._rarer_others(name)):
            # the curve of a frequent class hangs on the few other rows, whose resamples show
            # (n - 1) / n of the variance
            count = others
            error *= np.sqrt(count / (count - 1))
        half = t.ppf(0.975, count - 1) * error
        ends = low + (high - low) * expit(centre + np.array([-half, half]))
        return float(ends[0]), float(ends[1])

    def _rarer_others(self, name: str) -> int | None:
        """Clusters of the rows outside an area's class, if fewer than those of the class."""
        code = {"auprc": 1, "auprc_negative": 0}.get(name)
        code = int(name.removeprefix("auprc_")) if code is None else code
        labels, _, clusters = self.rows
        own, others = (len(np.unique(clusters[(labels == code) == side])) for side in (True, False))
        return others if others < own else None

    def _ece(self, value: float, kept: Floats) -> tuple[float, float]:
        """Return the union of the basic and the t interval, from 0 if calibration may be perfect.

        Resampling adds the same upward bias once more, which the basic bootstrap mirrors away. An
        ECE that a calibrated model reaches by chance (its gaps with the signs of whole clusters
        drawn at random) cannot exclude 0.
        """
        labels, probabilities, clusters = self.rows
        half = float(t.ppf(0.975, clusters.max()) * kept.std())
        basic_low, basic_high = 2 * value - np.quantile(kept, [0.975, 0.025])
        low, high = min(float(basic_low), value - half), max(float(basic_high), value + half)
        rows = calibration_gaps(labels, probabilities)
        gaps = np.array([np.bincount(clusters, weights=column) for column in rows.T])
        signs = np.random.default_rng(self.seed).choice(
            [-1.0, 1.0], (self.resamples, gaps.shape[1])
        )
        by_chance = np.abs(signs @ gaps.T).sum(axis=1) / len(labels)
        calibrated = value <= np.quantile(by_chance, 0.975)
        return 0.0 if calibrated else max(low, 0.0), min(high, 1.0)

    def _at_bound(
        self, name: str, value: float, bounds: tuple[float, float]
    ) -> tuple[float, float]:
        perfect = bounds[0] if name in LOWER_IS_BETTER else bounds[1]
        resampled = self._wrong_added if value == perfect else self._right_added
        low, high = np.nanquantile(resampled[name], [0.025, 0.975])
        return (value, float(high)) if value == bounds[0] else (float(low), value)

    @cached_property
    def _wrong_added(self) -> dict[str, Floats]:
        return self._with_pseudo_rows(right=False)

    @cached_property
    def _right_added(self) -> dict[str, Floats]:
        return self._with_pseudo_rows(right=True)

    def _with_pseudo_rows(self, *, right: bool) -> dict[str, Floats]:
        labels, probabilities, clusters = self.rows
        codes = np.arange(probabilities.shape[1])
        called = codes if right else np.where(codes == 0, codes[-1], 0)
        return self._resample(
            np.append(labels, codes),
            np.vstack([probabilities, np.eye(len(codes))[called]]),
            np.append(clusters, clusters.max() + 1 + codes),
        )

    def _resample(self, labels: Ints, probabilities: Floats, clusters: Ints) -> dict[str, Floats]:
        rng = np.random.default_rng(self.seed)
        groups = int(clusters.max()) + 1
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=self.resamples)
        step = max(1, _CHUNK // len(labels))
        parts = [
            metric_values(
                labels, probabilities, drawn[start : start + step, clusters].astype(np.float64)
            )
            for start in range(0, self.resamples, step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
