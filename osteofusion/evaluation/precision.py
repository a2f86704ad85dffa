"""How small a difference of AUROCs the rows at hand can show, and how many rows it would take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.auroc import Z95, clustered_auroc
from osteofusion.evaluation.metrics import Floats
from osteofusion.evaluation.out_of_fold import OutOfFold

_POWER = 0.8


@dataclass(frozen=True)
class Precision:
    """What a paired comparison of two arms can tell, and could.

    Attributes:
        first: One arm.
        second: The other.
        n_rows: Radiographs.
        n_normal: Those that are normal (the negative class).
        auroc: AUROC of both arms, within folds, then averaged.
        standard_error: Of their difference, paired, over split groups.
        correlation: Between the two AUROCs' errors; None where one has no error to see.
        detectable: Smallest true difference that 80 % of such cohorts would show at a two-sided
            5 % level; None where the rows show no spread.
        difference: A difference asked about.
        rows_needed: Radiographs that would show it, with the same mix; None likewise.
        normals_needed: Normal ones among them.
        reading: One sentence.
    """

    first: str
    second: str
    n_rows: int
    n_normal: int
    auroc: tuple[float, float]
    standard_error: float
    correlation: float | None
    detectable: float | None
    difference: float
    rows_needed: int | None
    normals_needed: int | None
    reading: str


def detectable_difference(
    first: tuple[str, OutOfFold], second: tuple[str, OutOfFold], *, difference: float = 0.02
) -> Precision:
    """Minimal detectable difference of two paired AUROCs, and the rows that one takes.

    The variance of the difference is DeLong's over split groups, with the correlation of the two
    arms in it; it falls with the number of rows, so a difference d takes
    ``((z_0.975 + z_0.8) / d)^2`` times the variance as many (Obuchowski 1998).

    Args:
        first: Name and test rows of an arm.
        second: Name and test rows of another arm on the same radiographs and folds.
        difference: The difference that one would like to see, positive.

    Raises:
        EvaluationError: The difference is not positive, the arms were asked about different
            radiographs, or a fold holds one class only.
    """
    if difference <= 0:
        raise EvaluationError(f"difference is {difference}; give a positive difference of AUROCs")
    names, arms = (first[0], second[0]), (first[1], second[1])
    if arms[0].images != arms[1].images or len(arms[0].folds) != len(arms[1].folds):
        raise EvaluationError(
            f"arms {names[0]!r} and {names[1]!r} were not asked about the same radiographs and "
            "folds; predict both on the same folds"
        )
    (one, errors_one), (two, errors_two) = (
        _averaged(*pair) for pair in zip(names, arms, strict=True)
    )
    variances = [float((errors**2).sum()) for errors in (errors_one, errors_two)]
    variance = float(((errors_one - errors_two) ** 2).sum())
    correlation = None
    if min(variances) > 0:
        correlation = float(errors_one @ errors_two / np.sqrt(variances[0] * variances[1]))
    n, normals = len(arms[0].low), int((~arms[0].low).sum())
    detectable = rows_needed = normals_needed = None
    said = f"{names[0]} and {names[1]} err alike on every row, so no difference can be seen"
    if variance > 1e-12:
        wanted = Z95 + float(norm.ppf(_POWER))
        detectable = wanted * variance**0.5
        factor = (wanted / difference) ** 2 * variance
        rows_needed, normals_needed = int(np.ceil(n * factor)), int(np.ceil(normals * factor))
        said = (
            f"With {normals} normal among {n} radiographs, a true difference in AUROC between "
            f"{names[0].replace('_', ' ')} and {names[1].replace('_', ' ')} of less than "
            f"{detectable:.3f} is missed by more than one in five such studies (80 % power, "
            "two-sided 5 %)"
        )
        if rows_needed > n:
            said += (
                f"; to see {difference:g} you would need about {rows_needed:,} radiographs, "
                f"{normals_needed:,} of them normal"
            )
    return Precision(
        *names,
        n_rows=n,
        n_normal=normals,
        auroc=(one, two),
        standard_error=variance**0.5,
        correlation=correlation,
        detectable=detectable,
        difference=difference,
        rows_needed=rows_needed,
        normals_needed=normals_needed,
        reading=f"{said}.",
    )


def _averaged(name: str, rows: OutOfFold) -> tuple[float, Floats]:
    """AUROC, mean over the cells, and the deviations (G,) of the groups."""
    values, errors = [], np.zeros(int(rows.groups.max()) + 1)
    for fold in rows.folds:
        low = rows.low[fold.rows]
        if low.all() or not low.any():
            raise EvaluationError(
                f"a test fold of arm {name!r} holds one class only, so its AUROC is not defined; "
                "use stratified folds"
            )
        groups, codes = np.unique(rows.groups[fold.rows], return_inverse=True)
        area = clustered_auroc(low, fold.scores, codes.astype(np.int64))
        values.append(area.value)
        errors[groups] += area.contributions
    return float(np.mean(values)), errors / len(values)
