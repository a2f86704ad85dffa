"""What clinical values of a request are read as, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osteofusion.data.clinical import ClinicalSchema, parse_column
from osteofusion.data.dicom import DicomFacts
from osteofusion.data.manifest import load_manifest
from osteofusion.serving.errors import InputError
from osteofusion.serving.summary import describe_features
from osteofusion.serving.values import read_values

_MANIFEST = load_manifest("mendeley")
_NAMES = [
    *("age", "female", "menopause_age", "height", "weight", "bmi", "smoker", "pregnancies"),
    *("occupation", "fracture_history", "walking_distance"),
]
_TRAIN = pd.DataFrame(
    {
        "age": np.linspace(30, 80, 51),
        "female": [0.0, 1.0, 1.0] * 17,
        "menopause_age": np.linspace(40, 55, 51),
        "height": np.linspace(1.45, 1.85, 51),
        "weight": np.linspace(45, 100, 51),
        "bmi": np.linspace(18, 40, 51),
        "smoker": np.zeros(51),
        "pregnancies": [0.0, 2.0, 4.0] * 17,
        "occupation": ["housewife", "teacher", "business"] * 17,
        "fracture_history": [0.0, 1.0, 0.0] * 17,
        "walking_distance": np.linspace(0, 8, 51),
    }
)
_SCHEMA = ClinicalSchema.fit(_TRAIN, _MANIFEST, _NAMES)
FEATURES = describe_features(_SCHEMA, _TRAIN, _MANIFEST)
_FACTS = DicomFacts(None, 61.0, 1, None, None, None, None)


def read(given_, facts=None):
    found = read_values(FEATURES, given_, facts)
    return {value.name: value for value in found.values}, {
        (flag.field, flag.code) for flag in found.flags
    }


def refused(given_) -> InputError:
    with pytest.raises(InputError) as caught:
        read_values(FEATURES, given_)
    return caught.value


@pytest.mark.parametrize(
    ("name", "cell", "code"),
    [
        ("age", "sixty", "not_a_number"),
        ("age", "61,5", "not_a_number"),
        ("age", True, "not_a_number"),
        ("age", [61], "not_a_value"),
        ("age", {"value": 61}, "not_a_value"),
        ("age", math.nan, "not_finite"),
        ("age", -math.inf, "not_finite"),
        ("age", 10**400, "not_a_number"),
        ("age", 1e300, "not_a_number"),
        ("age", "9" * 101, "too_long"),
        ("age", 400, "out_of_range"),
        ("age", 14.999, "out_of_range"),
        ("weight", -70, "out_of_range"),
        ("height", 170, "suspected_unit"),
        ("height", 1700, "suspected_unit"),
        ("height", "67", "suspected_unit"),
        ("height", 17, "out_of_range"),
        ("weight", 70_000, "suspected_unit"),
        ("walking_distance", 3_000, "suspected_unit"),
        ("female", "perhaps", "not_yes_or_no"),
        ("female", 2, "not_yes_or_no"),
        ("fracture_history", 7, "not_yes_or_no"),
    ],
)
def test_what_makes_no_sense_is_refused_by_field_and_without_the_value(name, cell, code):
    error = refused({name: cell})
    assert (error.field, error.code) == (name, code)
    message = str(error)
    assert message.startswith(name)
    assert message.endswith(".")
    assert str(cell) not in message


def test_units_are_said_as_a_reader_writes_them():
    assert str(refused({"bmi": 400})).endswith("70 kg/m².")
    assert str(refused({"pregnancies": 99})).endswith("20.")
    (flag,) = read_values(FEATURES, {"bmi": 60}).flags
    assert flag.message.startswith("Body mass index lies outside 18.2 to 39.8 kg/m², ")


def test_a_suspected_unit_is_named():
    assert "looks like centimetres; give metres" in str(refused({"height": 170}))
    assert "grams" in str(refused({"weight": 70_000}))


def test_an_unknown_name_is_refused_with_the_one_that_is_close():
    error = refused({"age": 61, "femal": 1})
    assert (error.field, error.code) == ("femal", "unknown_value")
    assert "did you mean 'female'?" in str(error)
    assert "t_score" not in {feature.name for feature in FEATURES}
    assert refused({"t_score": -2.6}).code == "unknown_value"


def test_a_name_that_is_no_name_is_not_repeated():
    error = refused({"Jane Doe, born 3 May": 1})
    assert "Jane" not in str(error)
    assert error.field == "a name given"


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("age", "61", 61.0),
        ("age", 61.5, 61.5),
        ("age", "unknown", None),
        ("age", "", None),
        ("age", None, None),
        ("female", "Yes", 1.0),
        ("female", "male", 0.0),
        ("female", False, 0.0),
        ("female", 1.0, 1.0),
        ("smoker", "n", 0.0),
        ("fracture_history", "left wrist", 1.0),
        ("fracture_history", "None", 0.0),
        ("fracture_history", True, 1.0),
        ("occupation", " Teacher ", "teacher"),
        ("occupation", "H.Wife", "housewife"),
        ("occupation", "pilot", "pilot"),
    ],
)
def test_values_are_read_as_the_cells_of_the_table(name, cell, value):
    found, _ = read({name: cell})
    assert found[name].value == value
    assert found[name].source == ("missing" if value is None else "form")
    column = _MANIFEST.columns[name]
    same_as_a_cell = not isinstance(cell, (bool, float)) and cell != "Yes"
    if same_as_a_cell:  # yes and no are words of the form, female and male those of the table
        cells = pd.Series([cell], index=[1], dtype=object)
        parsed = parse_column(cells, pd.Series(["A"], index=[1]), name, column)[0]
        expected = None if pd.isna(parsed[1]) else parsed[1]
        assert found[name].value == expected


def test_every_feature_is_listed_in_order_also_when_nothing_is_given():
    found, flags = read({})
    assert list(found) == _NAMES
    assert {value.source for value in found.values()} == {"missing"}
    assert flags == set()


def test_a_missing_body_mass_index_is_not_invented():
    found, _ = read({"height": 1.6, "weight": 70})
    assert found["bmi"].value is None


def test_values_outside_the_training_rows_are_flagged_and_kept():
    found, flags = read({"age": 100, "occupation": "pilot", "smoker": "yes", "weight": 70})
    assert found["age"].value == 100
    assert found["age"].mark == "outside_training"
    assert found["age"].usual == pytest.approx((30.5, 79.5))
    assert found["occupation"].mark == "unseen_word"
    assert found["smoker"].mark == "outside_training"  # nobody smoked
    assert found["weight"].mark is None
    assert flags == {
        ("age", "outside_training"),
        ("occupation", "unseen_word"),
        ("smoker", "outside_training"),
    }


def test_the_header_fills_what_the_form_leaves_out():
    found, flags = read({"weight": 70}, _FACTS)
    assert (found["age"].value, found["age"].source) == (61.0, "dicom")
    assert (found["female"].value, found["female"].source) == (1.0, "dicom")
    assert flags == set()


@pytest.mark.parametrize(("age", "female", "expected"), [
    (61.9, "yes", set()),
    (62.5, "yes", {("age", "dicom_conflict")}),
    (61, "no", {("female", "dicom_conflict")}),
])  # fmt: skip
def test_the_form_goes_first_and_a_contradiction_of_the_header_is_flagged(age, female, expected):
    found, flags = read({"age": age, "female": female}, _FACTS)
    assert (found["age"].value, found["age"].source) == (age, "form")
    assert found["female"].value == float(female == "yes")
    assert flags == expected


def test_an_implausible_header_counts_as_missing_and_is_flagged():
    found, flags = read({}, dataclasses.replace(_FACTS, age=3.0))
    assert found["age"].value is None
    assert found["age"].mark == "outside_range"
    assert ("age", "outside_range") in flags


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ({"age": 45, "menopause_age": 47}, "menopause_age"),
        ({"female": "no", "pregnancies": 2}, "pregnancies"),
    ],
)
def test_a_value_that_contradicts_another_is_left_out_as_in_training(given_, field):
    found, flags = read(given_)
    assert found[field].value is None
    assert flags == {(field, "contradiction")}


_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30),
    st.lists(st.integers(), max_size=2), st.sampled_from(["yes", "no", "female", "teacher", "1.7"]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(_NAMES), _CELLS))
def test_whatever_is_given_is_read_or_refused_and_what_is_read_is_plausible(given_):
    try:
        found, _ = read(given_)
    except InputError as error:
        refused_field = error.field
    else:
        refused_field = None
    if refused_field is not None:
        assert refused_field in given_
        return
    for feature in FEATURES:
        value = found[feature.name].value
        if feature.range is not None and value is not None:
            assert feature.range[0] <= value <= feature.range[1]
    json.dumps([dataclasses.asdict(value) for value in found.values()], allow_nan=False)
