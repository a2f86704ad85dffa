"""Numbers and names as a report says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osteofusion.evaluation.curves import words

METRICS = {
    "auroc": "AUROC",
    "macro_auroc": "macro AUROC",
    "low_bmd_auroc": "low-BMD AUROC",
    "auprc": "AUPRC, {positive}",
    "auprc_negative": "AUPRC, {negative}",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "low_bmd_sensitivity": "low-BMD sensitivity",
    "low_bmd_specificity": "low-BMD specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1, {positive}",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "quadratic_kappa": "quadratic kappa",
    "brier": "Brier (0 is best)",
    "calibration_intercept": "calibration intercept (0 is best)",
    "calibration_slope": "calibration slope (1 is best)",
    "ece": "ECE (0 is best)",
}
ARMS = {
    "fused": "fused",
    "image": "image only",
    "tabular": "tabular only",
    "fused_without_image": "fused, image withheld",
    "fused_without_clinical": "fused, clinical withheld",
    "fused_shuffled_images": "fused, images shuffled",
    "staged": "in stages",
    "scratch": "from scratch",
    "majority": "always the majority",
    "age": "age alone",
    "ost": "OST",
    "osta": "OSTA",
    "orai": "ORAI",
    "frax": "FRAX column",
    "brightness": "mean brightness",
}
WITHHELD = ("fused_without_image", "fused_without_clinical", "fused_shuffled_images")
SINGLE = ("age", "ost", "osta", "orai", "frax", "brightness")  # one number a row


def arm_words(name: str) -> str:
    """An arm as read."""
    return ARMS.get(name, words(name))


def metric_words(name: str, classes: list[str]) -> str:
    """A metric as read."""
    said = METRICS.get(name)
    if said is not None:
        return said.format(positive=words(classes[-1]), negative=words(classes[0]))
    for start, meaning in (("auroc_", "AUROC"), ("auprc_", "AUPRC"), ("f1_", "F1")):
        if name.startswith(start):
            return f"{meaning}, {words(name.removeprefix(start))}"
    return words(name).replace("auroc", "AUROC").replace("auprc", "AUPRC")


def estimate(found: Mapping[str, Any] | None, *, signed: bool = False, scale: float = 1) -> str:
    """A value over its interval; what is not defined says so."""
    if found is None or found.get("value") is None:
        return "n/a"
    low, high = found.get("low"), found.get("high")
    said = number(found["value"], signed=signed, scale=scale)
    if low is None or high is None or found.get("method") == "constant":
        return said
    ends = (number(end, signed=signed, scale=scale) for end in (low, high))
    return f"{said}\n{' to '.join(ends)}"


def inline(found: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """A value and its interval in a sentence."""
    said = estimate(found, signed=signed)
    return said.replace("\n", " (") + ")" if "\n" in said else said


def number(value: float, *, signed: bool = False, scale: float = 1) -> str:
    """Three decimals, or none of what counts persons."""
    digits = 3 if scale == 1 else 0
    return f"{scale * value:{'+' if signed else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def persons(found: Mapping[str, Any] | None) -> str:
    """A number of persons with its interval."""
    if found is None or found.get("value") is None:
        return "n/a"
    ends = [max(0.0, float(found[key])) for key in ("value", "low", "high")]
    return f"{ends[0]:.0f}\n{ends[1]:.0f} to {ends[2]:.0f}"


def percent(share: float) -> str:
    """A share as read: 20 %, 2.5 %."""
    return f"{100 * share:.3g} %"
