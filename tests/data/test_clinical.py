"""Cells to numbers, and scikit-learn's preprocessing as plain numbers in the model."""

from __future__ import annotations

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osteofusion.data.clinical import (
    RARE,
    ClinicalSchema,
    Feature,
    cross_check,
    fit_preprocessing,
    freeze,
    parse_cell,
    parse_column,
    select_features,
)
from osteofusion.data.manifest import Column, load_manifest
from osteofusion.errors import CohortError, ConfigError
from osteofusion.models import ClinicalPreprocessing

NUMERIC = Column(kind="numeric", range=(0, 200), unit="cm")
FEET = Column(kind="numeric", scale=30.48)
SCORE = Column(kind="numeric", values={"none": 0})
YES_NO = Column(kind="binary")
SEX = Column(kind="binary", values={"Female": 1, "m": 0})
JOB = Column(kind="categorical", values={"h.wife": "housewife"})
FRACTURE = Column(kind="presence")
DIET = Column(kind="presence", absent=["normal"], values={"once": 1})
COLUMNS = [
    NUMERIC,
    FEET,
    SCORE,
    YES_NO,
    SEX,
    JOB,
    FRACTURE,
    DIET,
    Column(kind="text", role="ignored"),
]


def parse(cells, column, mark="."):
    cells = pd.Series(cells, index=range(2, 2 + len(cells)), dtype=object)
    ids = pd.Series([f"S{row}" for row in cells.index], index=cells.index)
    return parse_column(cells, ids, "height", column, mark)


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        (NUMERIC, 61, 61.0),
        (NUMERIC, np.int64(61), 61.0),
        (NUMERIC, " 6.15E1 ", 61.5),
        (NUMERIC, "+61.", 61.0),
        (NUMERIC, decimal.Decimal("61.5"), 61.5),
        (NUMERIC, "n/a", None),
        (NUMERIC, " - ", None),
        (NUMERIC, "Unknown", None),
        (FEET, 5.5, 5.5 * 30.48),
        (FEET, "5.5", 5.5 * 30.48),
        (SCORE, "None", 0.0),
        (SCORE, "3", 3.0),
        (YES_NO, "Yes ", 1.0),
        (YES_NO, "N", 0.0),
        (YES_NO, True, 1.0),
        (YES_NO, 0, 0.0),
        (YES_NO, 1.0, 1.0),
        (YES_NO, "FALSE", 0.0),
        (SEX, "FEMALE", 1.0),
        (SEX, " m", 0.0),
        (JOB, "H.Wife", "housewife"),
        (JOB, "Cook  ", "cook"),
        (JOB, 3.0, "3"),
        (JOB, "?", None),
        (FRACTURE, "R.knee ", 1.0),
        (FRACTURE, "No", 0.0),
        (FRACTURE, 0, 0.0),
        (FRACTURE, False, 0.0),
        (FRACTURE, "na", None),
        (DIET, "Normal", 0.0),
        (DIET, "no sugar", 1.0),
        (DIET, "once", 1.0),
        (DIET, None, None),
    ],
)
def test_a_cell_means_what_the_manifest_says(column, cell, expected):
    values, unparsable, implausible = parse([cell], column)
    value = values.iloc[0]
    assert (None if pd.isna(value) else value) == (
        expected if isinstance(expected, (str, type(None))) else pytest.approx(expected)
    )
    assert unparsable == implausible == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1,5", 1.5), (",5", 0.5), ("-2", -2.0), ("1.500", None), ("1 500", None)],
)
def test_decimal_commas_are_never_guessed(text, expected):
    values, unparsable, _ = parse([text], FEET.model_copy(update={"scale": 1.0}), ",")
    assert bool(unparsable) == (expected is None)
    assert values.tolist() == [pytest.approx(np.nan if expected is None else expected, nan_ok=True)]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (NUMERIC, "sixty"),
        (NUMERIC, "1,5"),
        (NUMERIC, "60 kg"),
        (NUMERIC, "12/14"),
        (NUMERIC, True),
        (NUMERIC, np.True_),
        (NUMERIC, datetime.datetime(2020, 1, 2)),
        (NUMERIC, datetime.time(3, 4)),
        (NUMERIC, "#DIV/0!"),
        (NUMERIC, "=A1+1"),
        (NUMERIC, "inf"),
        (NUMERIC, float("inf")),
        (NUMERIC, "1" + 400 * "0"),
        (NUMERIC, 10**400),
        (FEET, 1e308),
        (YES_NO, "maybe"),
        (YES_NO, 2),
        (YES_NO, 0.5),
        (SEX, "yes"),
        (SEX, 1),
    ],
)
def test_an_unparsable_cell_is_missing_and_named(column, cell):
    values, unparsable, implausible = parse([None, cell], column)
    assert values.isna().all()
    assert implausible == []
    (problem,) = unparsable
    assert (problem.subject_id, problem.column, problem.row) == ("S3", "height", 3)
    assert problem.value == str(cell)
    assert problem.reason


def test_an_implausible_cell_is_missing_and_named():
    values, unparsable, implausible = parse([-0.1, 0, 200, 200.5], NUMERIC)
    assert values.isna().tolist() == [True, False, False, True]
    assert unparsable == []
    assert [(cell.row, cell.value) for cell in implausible] == [(2, "-0.1"), (5, "200.5")]
    assert implausible[0].reason == "outside 0 to 200 cm"
    feet = FEET.model_copy(update={"range": (100, 220)})  # judged in canonical units
    assert parse([5.5, 170], feet)[0].isna().tolist() == [False, True]


anything = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.sampled_from(
        ["yes", "no", "1,5", " 12 ", "1e5", "#N/A", "=A1", "\u00bd", "\u0663", "1e999"]
    ),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.datetimes(),
    st.decimals(),
    st.binary(max_size=4),
    st.complex_numbers(),
)


@settings(deadline=None)
@given(st.lists(anything, max_size=8), st.sampled_from(COLUMNS), st.sampled_from(".,"))
def test_no_cell_is_an_exception_and_every_value_is_usable(cells, column, mark):
    values, unparsable, implausible = parse(cells, column, mark)
    assert len(values) == len(cells)
    problems = {problem.row for problem in (*unparsable, *implausible)}
    assert problems <= set(values.index[values.isna()])
    for value in values.dropna():
        if column.kind in ("categorical", "text"):
            assert isinstance(value, str)
            assert value == value.strip()
        elif column.kind == "numeric":
            low, high = column.range or (-np.inf, np.inf)
            assert abs(value) < 1e15
            assert low <= value <= high
        else:
            assert value in (0.0, 1.0)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([True, 1, 1.0, "1", 0, -0.0, "0", False, "no", None, 300, "x", "m"])),
    st.sampled_from(COLUMNS),
)
def test_a_column_is_read_as_its_cells_are(cells, column):
    values, unparsable, implausible = parse(cells, column)
    low, high = column.range or (-np.inf, np.inf)
    wanted, refused, odd = [], [], []
    for row, cell in enumerate(cells, start=2):
        value = None
        try:
            value = None if cell is None else parse_cell(cell, column)
        except ValueError as error:
            refused.append((f"S{row}", row, str(cell), str(error)))
        if isinstance(value, float) and not low <= value <= high:
            odd.append((f"S{row}", row, str(cell), "outside 0 to 200 cm"))
            value = None
        wanted.append(value)
    assert [None if pd.isna(value) else value for value in values] == wanted
    assert values.dtype == (object if column.kind in ("categorical", "text") else np.float64)
    for found, expected in ((unparsable, refused), (implausible, odd)):
        assert [(p.subject_id, p.row, p.value, p.reason) for p in found] == expected


def test_contradicting_cells_are_missing_and_named(clinic):
    clinic.manifest["columns"] |= {
        "female": {"kind": "binary"},
        "menopause": {"kind": "numeric", "at_most": "age", "only_if": {"female": 1}},
        "method": {"kind": "categorical", "only_if": {"female": 1}},
    }
    manifest = load_manifest(clinic.write())
    table = pd.DataFrame(
        {
            "subject_id": list("ABCDE"),
            "age": [45.0, 45.0, 45.0, np.nan, 45.0],
            "female": [1.0, 1.0, 0.0, 1.0, np.nan],
            "menopause": [47.0, 44.0, 44.0, 47.0, 44.0],
            "method": ["x", None, "x", "x", "x"],
        },
        index=range(10, 15),
    )
    problems = cross_check(table, manifest)
    assert [(p.subject_id, p.column, p.row, p.value, p.reason) for p in problems] == [
        ("A", "menopause", 10, "47", "exceeds age"),
        ("C", "menopause", 12, "44", "given although female is not 1"),
        ("C", "method", 12, "x", "given although female is not 1"),
    ]
    assert table["menopause"].isna().tolist() == [True, False, True, False, False]
    assert table["method"].isna().tolist() == [False, True, True, False, False]
    assert cross_check(table, manifest) == []


# ---- features ----


def test_outcomes_and_unknown_names_are_no_features():
    manifest = load_manifest("mendeley")
    assert select_features(manifest, None) == manifest.features
    assert select_features(manifest, ["bmi", "age"]) == ["bmi", "age"]
    for name, message in [
        ("t_score", "'t_score', an outcome"),
        ("z_score", "'z_score', an outcome"),
        ("serial_number", "role in manifest 'mendeley' is identifier"),
        ("obesity", "is ignored"),
        ("T-score Value", "does not have; its features are age, female"),
    ]:
        with pytest.raises(ConfigError, match=message):
            select_features(manifest, ["age", name])
    for names in ([], ["age", "age"]):
        with pytest.raises(ConfigError, match="at least one column, and each once"):
            select_features(manifest, names)


def test_an_all_missing_feature_is_refused_by_name(clinic):
    manifest = load_manifest(clinic.write())
    train = pd.DataFrame({"age": [np.nan, np.nan], "smoker": [1.0, 0.0]})
    for name in ("age", "fracture"):
        with pytest.raises(CohortError, match=f"'{name}' has no usable value in the 2 training"):
            ClinicalSchema.fit(train, manifest, ["smoker", name])


def test_encoding_of_known_unseen_and_missing_words(clinic):
    manifest = load_manifest(clinic.write())
    train = pd.DataFrame({"age": [40.0, np.nan], "job": np.array(["smith", "cook"], object)})
    schema = ClinicalSchema.fit(train, manifest, ["job", "age"])
    assert schema.features[0].vocabulary == ("cook", "smith")
    new = pd.DataFrame({"job": np.array(["cook", "baker", None], object)})
    expected = [[0, np.nan], [2, np.nan], [np.nan, np.nan]]
    np.testing.assert_array_equal(schema.encode(new), expected)
    nothing = pd.DataFrame({"job": np.array([None, None], object)})
    assert np.isnan(schema.encode(nothing)).all()


# ---- scikit-learn and torch ----


@st.composite
def studies(draw):
    """A schema and matrices of training and new rows: gaps anywhere, codes rare and unseen."""
    words = st.integers(1, 6).map(lambda n: ("categorical", tuple(f"word {i}" for i in range(n))))
    others = st.sampled_from([("numeric", ()), ("binary", ()), ("presence", ())])
    columns = draw(st.lists(st.one_of(others, words), min_size=1, max_size=7))
    features = tuple(
        Feature(f"f{i}", kind, "u" if kind == "numeric" else None, None, vocabulary)
        for i, (kind, vocabulary) in enumerate(columns)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrices = []
    for rows, new in ((draw(st.integers(2, 40)), False), (12, True)):
        matrix = np.empty((rows, len(features)))
        for j, feature in enumerate(features):
            if feature.kind == "numeric":
                matrix[:, j] = rng.normal(rng.normal(0, 100), 10.0 ** rng.integers(-3, 4), rows)
                if rng.random() < 0.2 and not new:
                    matrix[:, j] = 7.0  # a constant
            else:
                codes = len(feature.vocabulary) + new if feature.vocabulary else 2
                matrix[:, j] = rng.geometric(0.5, rows).clip(1, codes) - 1
                if new and feature.vocabulary:
                    matrix[0, j] = codes - 1  # unseen
        gaps = rng.random(matrix.shape) < (
            0.3 if new else rng.choice([0.0, 0.3, 0.8], len(features))
        )
        matrix[gaps] = np.nan
        matrices.append(matrix)
    train, new = matrices
    assume(not np.isnan(train).all(axis=0).any())  # ClinicalSchema.fit refuses such a column
    return ClinicalSchema(features), train, new


@settings(max_examples=80, deadline=None)
@given(studies())
def test_torch_computes_what_scikit_learn_fitted(study):
    schema, train, new = study
    transformer = fit_preprocessing(train, schema)
    frozen = freeze(transformer, schema)
    assert json.loads(json.dumps(frozen)) == frozen
    module = ClinicalPreprocessing(frozen)
    for matrix in (train, new):
        expected = transformer.transform(matrix)
        actual = module(torch.from_numpy(matrix)).numpy()
        assert actual.shape == expected.shape == (len(matrix), len(frozen["names"]))
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert len(set(frozen["names"])) == len(frozen["names"])
    for name, output in zip(frozen["names"], actual.T, strict=True):  # a name says what it is
        feature, _, meaning = name.partition(" ")
        source = new[:, schema.names.index(feature)]
        if meaning == "missing":
            np.testing.assert_array_equal(output, np.isnan(source))
        elif meaning.startswith("= word"):
            known = ~np.isnan(source)
            np.testing.assert_array_equal(output[known], source[known] == int(meaning[-1]))
    assert ClinicalSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_names_say_what_an_output_is_and_rare_words_share_one():
    schema = ClinicalSchema(
        (
            Feature("age", "numeric", "years", (15.0, 105.0)),
            Feature("job", "categorical", vocabulary=("baker", "cook", "smith")),
            Feature("smoker", "binary"),
        )
    )
    codes = [0.0] * RARE + [1.0] * (RARE - 1) + [2.0] * (RARE + 1)
    train = np.column_stack([np.arange(len(codes)), codes, np.arange(len(codes)) % 2]).astype(float)
    train[0, 0] = np.nan
    frozen = freeze(fit_preprocessing(train, schema), schema)
    names = ["age", "smoker", "age missing", "job = baker", "job = smith", "job = any other"]
    assert frozen["names"] == names
    module = ClinicalPreprocessing(frozen)
    jobs = module(torch.tensor([[40.0, code, 0.0] for code in (0, 1, 2, 3)]).double())[:, 3:]
    assert jobs.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_only_training_rows_teach(clinic):
    """Gaps that appear only later are filled with the training median, and add no column."""
    schema = ClinicalSchema((Feature("age", "numeric"),))
    frozen = freeze(fit_preprocessing(np.array([[40.0], [50.0], [90.0]]), schema), schema)
    assert (frozen["fill"], frozen["names"], frozen["indicators"]) == ([50.0], ["age"], [])
    module = ClinicalPreprocessing(frozen)
    gap, median = module(torch.tensor([[np.nan], [50.0]]).double())
    assert gap == median
