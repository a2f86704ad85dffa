"""Several radiographs of a subject, one prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from osteofusion.evaluation import combine_subjects, evaluate

CLASSES = ["normal", "osteopenia", "osteoporosis"]


def predictions(seed, films, arms=("fused", "age")):
    """Random predictions; `films` are the radiographs of each subject."""
    rng = np.random.default_rng(seed)
    rows = [
        {"subject_id": f"s{i}", "image": f"s{i}_{j}.png", "group": i, "label": CLASSES[i % 3]}
        for i, count in enumerate(films)
        for j in range(count)
    ]
    tables = []
    for arm in arms:
        values = rng.dirichlet(np.ones(3), len(rows))
        table = pd.DataFrame(rows).assign(arm=arm, split="test", fold=0)
        for code, name in enumerate(CLASSES):
            table[f"p_{name}"] = table[f"raw_{name}"] = values[:, code]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    films=st.lists(st.integers(1, 4), min_size=3, max_size=12),
    how=st.sampled_from(["mean", "max"]),
)
def test_each_subject_counts_once_and_probabilities_stay_probabilities(seed, films, how):
    table = predictions(seed, films)
    names = [f"p_{name}" for name in CLASSES]
    combined = combine_subjects(table, CLASSES, how)
    assert combined.columns.tolist() == table.columns.tolist()
    assert len(combined) == 2 * len(films)
    assert not combined.duplicated(["arm", "subject_id"]).any()
    assert np.allclose(combined[names].sum(axis=1), 1)
    for _, row in combined.iterrows():
        own = table[(table["arm"] == row["arm"]) & (table["subject_id"] == row["subject_id"])]
        values = own[names].to_numpy()
        worst = values[np.argmax(values @ [0, 1, 2])]
        expected = values.mean(axis=0) if how == "mean" else worst
        assert np.allclose(row[names].astype(float), expected)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    films=st.lists(st.integers(1, 4), min_size=6, max_size=12),
    how=st.sampled_from(["mean", "max"]),
)
def test_arms_that_differ_on_the_worst_film_are_compared(seed, films, how):
    combined = combine_subjects(predictions(seed, films), CLASSES, how)
    assert evaluate(combined, CLASSES, resamples=20).to_dict()["n_rows"] == len(films)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), how=st.sampled_from(["mean", "max"]))
def test_one_radiograph_a_subject_changes_nothing(seed, how):
    table = predictions(seed, [1] * 9)
    combined = combine_subjects(table, CLASSES, how)
    assert evaluate(combined, CLASSES, resamples=20) == evaluate(table, CLASSES, resamples=20)


def test_two_knees_with_labels_of_their_own_stay_two():
    table = predictions(0, [2, 1, 1], arms=["image"])
    table.loc[1, "label"] = "osteoporosis"
    assert len(combine_subjects(table, CLASSES, "mean")) == 4
