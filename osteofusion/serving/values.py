"""Clinical values of a request: parsed as training cells are, refused where they make no sense."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from osteofusion.data.clinical import YES_NO, parse_cell
from osteofusion.data.dicom import DicomFacts
from osteofusion.data.manifest import Column, normalise_word
from osteofusion.serving.description import FeatureDescription
from osteofusion.serving.errors import InputError
from osteofusion.serving.prediction import ClinicalValue, QualityFlag, Value

_LONGEST = 100  # characters of a word
_SLACK = {"age": 1.0}  # a header says whole years, and a birthday may lie between
# What people write instead of a unit: its name and the factor to the unit.
_MISTAKEN = {
    "m": (("centimetres", 0.01), ("millimetres", 0.001), ("inches", 0.0254)),
    "kg": (("grams", 0.001),),
    "km": (("metres", 0.001),),
}
_UNITS = {"m": "metres", "kg": "kilograms", "km": "kilometres"}


@dataclass(frozen=True)
class ReadValues:
    """The clinical values of one patient.

    Attributes:
        values: One a feature, in the model's order.
        flags: What is odd about them.
    """

    values: list[ClinicalValue]
    flags: list[QualityFlag]


def read_values(
    features: Sequence[FeatureDescription],
    given: Mapping[str, object],
    facts: DicomFacts | None = None,
) -> ReadValues:
    """Read the values that were given, and those that a DICOM header has where none was given.

    A value outside the plausible range is refused; of the header it counts as missing. A value
    that contradicts another counts as missing, as it did in training.

    Args:
        features: What the model reads.
        given: Value by canonical name: a number in the canonical unit, a word, yes or no, or None.
        facts: Of the DICOM header.

    Raises:
        InputError: A name is unknown, or a value cannot be read.
    """
    _refuse_unknown(features, given)
    values, flags = [], []
    for feature in features:
        value, found = _read(feature, given.get(feature.name), facts)
        values.append(value)
        flags += found
    return _cross_checked(features, ReadValues(values, flags))


def _refuse_unknown(features: Sequence[FeatureDescription], given: Mapping[str, object]) -> None:
    names = [feature.name for feature in features]
    unknown = [name for name in given if name not in names]
    if not unknown:
        return
    if not names:
        raise InputError(
            "values",
            "This model reads the radiograph alone; leave the clinical values out.",
            "unused_modality",
        )
    close = difflib.get_close_matches(unknown[0], names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it reads {', '.join(names)}."
    name = unknown[0] if unknown[0].isidentifier() and len(unknown[0]) <= 40 else "a name given"
    raise InputError(name, f"{name} is no clinical value of this model; {hint}", "unknown_value")


def _read(
    feature: FeatureDescription, cell: object, facts: DicomFacts | None
) -> tuple[ClinicalValue, list[QualityFlag]]:
    value = parse_value(feature, cell)
    said = _from_header(feature, facts)
    plain = ClinicalValue(
        feature.name, feature.label, None, feature.unit, "missing", usual=_usual(feature)
    )
    if value is not None:
        found = replace(plain, value=value, source="form")
        flags = [_conflict(feature)] if said is not None and _differ(feature, value, said) else []
    elif said is None:
        return plain, []
    elif not _plausible(feature, said):
        message = (
            f"{feature.label} of the DICOM header is outside the plausible range and was left out."
        )
        odd = replace(plain, source="dicom", mark="outside_range")
        return odd, [QualityFlag("outside_range", message, feature.name)]
    else:
        found, flags = replace(plain, value=said, source="dicom"), []
    marked, odd_flags = _marked(feature, found)
    return marked, flags + odd_flags


def parse_value(feature: FeatureDescription, cell: object) -> Value:
    """Canonical value of what was given for a feature; None where it says it is missing.

    Raises:
        InputError: It cannot be read, or lies outside the plausible range.
    """
    if cell is None:
        return None
    name = feature.name
    if not isinstance(cell, (str, int, float)):
        raise InputError(
            name, f"{name} must be a single value, not a list or object.", "not_a_value"
        )
    if isinstance(cell, str) and len(cell) > _LONGEST:
        raise InputError(name, f"{name} is longer than {_LONGEST} characters.", "too_long")
    if isinstance(cell, float) and not math.isfinite(cell):
        raise InputError(name, f"{name} is not a finite number.", "not_finite")
    wanted, code = _WANTED[feature.kind]
    refused = InputError(name, f"{name} {wanted}.", code)
    if feature.kind == "presence" and not isinstance(cell, str) and cell not in (0, 1):
        raise refused
    try:
        value = parse_cell(cell, _column(feature))
    except (ValueError, OverflowError):
        raise refused from None
    if not _plausible(feature, value):
        assert isinstance(value, float)
        raise _out_of_range(feature, value)
    return value


_WANTED = {
    "numeric": ("must be a number with a decimal point", "not_a_number"),
    "binary": ("must be yes or no", "not_yes_or_no"),
    "presence": ("must be yes, no or words", "not_yes_or_no"),
    "categorical": ("must be a word", "not_a_word"),
}


def _column(feature: FeatureDescription) -> Column:
    """The feature as a manifest would describe a column in canonical values."""
    spellings = dict(feature.spellings)
    # A canonical word need not be spelt as words are compared.
    spellings |= {normalise_word(word): word for word in feature.vocabulary}
    if feature.kind == "binary":
        spellings = {**spellings, **YES_NO}
    absent = {"absent": ["no", "none", "0", "false", *feature.absent]}
    return Column(
        kind=feature.kind,
        values=spellings,
        **(absent if feature.kind == "presence" else {}),  # type: ignore[arg-type]
    )


def _plausible(feature: FeatureDescription, value: Value) -> bool:
    if feature.range is None or not isinstance(value, float):
        return True
    return feature.range[0] <= value <= feature.range[1]


def _out_of_range(feature: FeatureDescription, value: float) -> InputError:
    assert feature.range is not None
    low, high = feature.range
    mistaken = _mistaken_unit(feature, value, (low, high))
    if mistaken is not None:
        proper = _UNITS[str(feature.unit)]
        return InputError(
            feature.name,
            f"{feature.name} looks like {mistaken}; give {proper}, from {low:g} to {high:g}.",
            "suspected_unit",
        )
    return InputError(
        feature.name,
        f"{feature.name} must lie between {low:g} and {high:g} {feature.unit_words}".rstrip() + ".",
        "out_of_range",
    )


def _mistaken_unit(
    feature: FeatureDescription, value: float, usual: tuple[float, float]
) -> str | None:
    """Name of the unit in which the value would be ordinary."""
    units = _MISTAKEN.get(feature.unit or "", ())
    return next((name for name, factor in units if usual[0] <= value * factor <= usual[1]), None)


def _from_header(feature: FeatureDescription, facts: DicomFacts | None) -> Value:
    if facts is None or feature.dicom is None:
        return None
    said = getattr(facts, feature.dicom)
    return float(said) if isinstance(said, (int, float)) else said


def _differ(feature: FeatureDescription, value: Value, said: Value) -> bool:
    if isinstance(value, float) and isinstance(said, float):
        return abs(value - said) > _SLACK.get(feature.dicom or "", 0.0)
    return value != said


def _conflict(feature: FeatureDescription) -> QualityFlag:
    return QualityFlag(
        "dicom_conflict",
        f"{feature.label}: the DICOM header says otherwise than the form; the form's was used. "
        "Check that the radiograph is this patient's.",
        feature.name,
    )


def _usual(feature: FeatureDescription) -> tuple[float, float] | None:
    if feature.train.low is None or feature.train.high is None:
        return None
    return feature.train.low, feature.train.high


def _marked(
    feature: FeatureDescription, value: ClinicalValue
) -> tuple[ClinicalValue, list[QualityFlag]]:
    """The value with what is odd about it beside the training rows."""
    name, label, usual = feature.name, feature.label, _usual(feature)
    if feature.kind == "categorical":
        if value.value in feature.vocabulary:
            return value, []
        message = f"{label}: no training row had this word; it counts as any rare one."
        return replace(value, mark="unseen_word"), [QualityFlag("unseen_word", message, name)]
    if feature.kind in ("binary", "presence"):
        word = "yes" if value.value else "no"
        if feature.train.counts.get(word):
            return value, []
        message = f"{label}: no training row had {word}, so the model has not learnt what it means."
        mark = replace(value, mark="outside_training")
        return mark, [QualityFlag("outside_training", message, name)]
    number = value.value
    if usual is None or not isinstance(number, float) or usual[0] <= number <= usual[1]:
        return value, []
    mistaken = _mistaken_unit(feature, number, usual)
    if mistaken is not None:
        message = f"{label} looks like {mistaken}; it is read as {feature.unit_words}."
        return replace(value, mark="suspected_unit"), [QualityFlag("suspected_unit", message, name)]
    span = f"{usual[0]:.3g} to {usual[1]:.3g} {feature.unit_words}".rstrip()
    message = f"{label} lies outside {span}, the middle 98 % of the training rows."
    mark = replace(value, mark="outside_training")
    return mark, [QualityFlag("outside_training", message, name)]


def _cross_checked(features: Sequence[FeatureDescription], read: ReadValues) -> ReadValues:
    """Values that contradict another counted as missing, as the cohort's rows were."""
    values = {value.name: value for value in read.values}
    flags = list(read.flags)
    for feature in features:
        reason = _contradiction(feature, values)
        if reason is not None:
            flags = [flag for flag in flags if flag.field != feature.name]
            message = f"{feature.label} {reason} and was left out."
            flags.append(QualityFlag("contradiction", message, feature.name))
            values[feature.name] = replace(values[feature.name], value=None, mark=None)
    return ReadValues(list(values.values()), flags)


def _contradiction(feature: FeatureDescription, values: Mapping[str, ClinicalValue]) -> str | None:
    value = values[feature.name].value
    if value is None:
        return None
    limit = values.get(feature.at_most or "")
    if limit is not None and _exceeds(value, limit.value):
        return f"exceeds {limit.label.lower()}"
    for other, wanted in feature.only_if.items():
        if other in values and values[other].value not in (None, wanted):
            return f"makes no sense with the value of {values[other].label.lower()}"
    return None


def _exceeds(value: Value, limit: Value) -> bool:
    return isinstance(value, float) and isinstance(limit, float) and value > limit
