"""Shares, values and names as a patient report says them; the page says them alike."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal

from osteofusion.serving.description import FeatureDescription, Reached
from osteofusion.serving.prediction import ClinicalValue, Value

_NO_BREAK = "\u00a0"
MARKS = {
    "outside_range": "outside the plausible range, left out",
    "outside_training": "unlike the training cases",
    "unseen_word": "word not seen in training",
    "suspected_unit": "unit in doubt",
}
SOURCES = {"form": "form", "dicom": "DICOM", "missing": ""}
BANDS = {"rule_out": "Rule out", "dxa": "DXA advised", "rule_in": "Rule in"}


def condition(positive: str) -> str:
    """What the model looks for, as a patient would say it."""
    return positive.replace("low BMD", "low bone density")


def class_words(name: str) -> str:
    """A class as read."""
    return name.replace("low_bmd", "low BMD").replace("_", " ")


def percent(share: float) -> str:
    """A share as a whole percentage that never claims certainty."""
    if share < 0.005:
        return f"<1{_NO_BREAK}%"
    if share > 0.995:
        return f">99{_NO_BREAK}%"
    return f"{of(share, 100)}{_NO_BREAK}%"


def people(share: float) -> str:
    """A share as so many people out of 10, or of 100 where 10 would be too coarse."""
    if share < 0.005:
        return "fewer than 1 in 100"
    if share > 0.995:
        return "more than 99 in 100"
    if share < 0.1 or share > 0.9:
        return f"about {of(share, 100)} in 100"
    return f"about {of(share, 10)} in 10"


def of(share: float, total: int) -> int:
    """How many of `total` a share is, halves rounded up."""
    return math.floor(share * total + 0.5)


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, without an exponent where one can be spared."""
    said = f"{value:.{digits}g}"
    return format(Decimal(said), "f") if 1e-4 <= abs(value) < 1e9 else said


def value_words(feature: FeatureDescription, value: Value) -> str:
    """A canonical value of a feature: a quantity, a word, or yes and no."""
    if value is None:
        return "left out"
    if isinstance(value, str):
        return value
    if feature.kind == "numeric":
        return f"{number(value)}{_NO_BREAK}{feature.unit_words}".rstrip()
    return "yes" if value else "no"


def usual_words(value: ClinicalValue) -> str:
    """The middle 98 % of the training rows in the value's unit; empty where there is none."""
    if value.usual is None:
        return ""
    return " to ".join(number(end, 3) for end in value.usual)


def baseline_words(feature: FeatureDescription, baseline: float) -> str:
    """What an attribution replaces the value with."""
    if feature.kind == "categorical":
        code = int(baseline)
        return feature.vocabulary[code] if code < len(feature.vocabulary) else "a rare word"
    return value_words(feature, baseline)


def reached_words(reached: Reached) -> str:
    """A share with its 95 % interval and the number of cases behind it."""
    if reached.value is None:
        return "not known: no such case"
    interval = ""
    if reached.low is not None and reached.high is not None:
        interval = f"{percent(reached.low)} to {percent(reached.high)}; "
    return f"{percent(reached.value)} ({interval}n{_NO_BREAK}={_NO_BREAK}{reached.n})"


def sentence(text: str) -> str:
    """With a capital in front and a full stop behind."""
    text = text.strip()
    return (text[:1].upper() + text[1:]).rstrip(".") + "." if text else ""


def moment(created: datetime) -> str:
    """Date and time, with the zone where it is known."""
    return f"{created:%Y-%m-%d %H:%M} {created.tzname() or ''}".strip()
