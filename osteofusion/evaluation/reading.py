"""What the intervals show of fusion, in one sentence or two."""

from __future__ import annotations

from osteofusion.evaluation.differences import Difference
from osteofusion.evaluation.evaluate import Evaluation

# One number a row, with nothing fitted but the place of the threshold.
SINGLE_COLUMNS = ("age", "ost", "osta", "orai", "frax", "brightness")


def reading(evaluation: Evaluation) -> str:
    """Say whether fusion helps, by the AUROC (the macro average of three classes).

    "Fusion helps" only where the fused arm beats both the tabular arm and the best single column,
    each with the lower end of the interval of the paired difference above 0.
    """
    if "fused" not in evaluation.arms:
        return "No fused model is among the arms, so nothing is said about fusion."
    metric = "auroc" if len(evaluation.classes) == 2 else "macro_auroc"
    single = best_single_column(evaluation)
    missing = [
        name
        for name, there in (
            ("the tabular arm", "tabular" in evaluation.arms),
            ("a single column such as age", single is not None),
        )
        if not there
    ]
    found = {(d.first, d.second): d for d in evaluation.differences if d.metric == metric}
    others = [arm for arm in ("tabular", single) if arm is not None and arm in evaluation.arms]
    compared = [found.get(("fused", arm)) for arm in others]
    better = [d for d in compared if d is not None and (d.estimate.low or 0) > 0]
    name = "AUROC" if metric == "auroc" else "macro AUROC"
    where = "" if evaluation.n_folds > 1 else " on this one split"
    if len(better) == 2:
        both = " and ".join(f"{_numbers(d)} over {_named(d.second)}" for d in better)
        return f"Fusion helps{where}: the difference in {name} is {both}."
    said = [
        _sentence(arm, difference, name, where)
        for arm, difference in zip(others, compared, strict=True)
    ]
    if missing:
        said.append(
            f"The fused model is not compared with {' nor with '.join(missing)}, so it cannot be "
            "said whether fusion helps."
        )
    return " ".join(said)


def best_single_column(evaluation: Evaluation) -> str | None:
    """Name of the single-column baseline with the highest AUROC; None where there is none."""
    metric = "auroc" if len(evaluation.classes) == 2 else "macro_auroc"
    reached = {
        arm: value
        for arm in SINGLE_COLUMNS
        if arm in evaluation.arms
        and (value := evaluation.arms[arm].metrics[metric].value) is not None
    }
    return max(reached, key=lambda arm: reached[arm]) if reached else None


def _sentence(arm: str, difference: Difference | None, name: str, where: str) -> str:
    other = _named(arm)
    if difference is None or difference.estimate.low is None or difference.estimate.high is None:
        why = "" if difference is None else f" ({difference.estimate.reason})"
        return f"The fused model could not be compared with {other}{why}."
    if difference.estimate.low > 0:
        verdict = "better than"
    elif difference.estimate.high < 0:
        verdict = "worse than"
    else:
        return (
            f"The fused model is not shown to be better than {other}{where}: difference in {name} "
            f"{_numbers(difference)}."
        )
    return (
        f"The fused model is {verdict} {other}{where}: difference in {name} {_numbers(difference)}."
    )


def _numbers(difference: Difference) -> str:
    found = difference.estimate
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _named(arm: str) -> str:
    names = {"tabular": "the tabular arm", "age": "age alone", "brightness": "brightness alone"}
    return names.get(arm, arm.upper())
