from __future__ import annotations

import hashlib
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osteofusion.data.splits import (
    connected_groups,
    load_splits,
    make_splits,
    save_splits,
    select_fold,
)
from osteofusion.errors import SplitError

MENDELEY = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "mendeley"
quick = settings(max_examples=60, deadline=None)


def cohort(rows):
    """A cohort table of (subject, digest, label) rows."""
    table = pd.DataFrame(rows, columns=["subject_id", "image_sha256", "label"])
    table["image"] = [f"films/{number:05d}.jpg" for number in range(len(table))]
    table["group"] = connected_groups(table["subject_id"], table["image_sha256"])
    return table


def simple_cohort(per_class, films=1):
    return cohort(
        (f"{label}{number}", f"{label}{number}.{film}", label)
        for label, subjects in per_class.items()
        for number in range(subjects)
        for film in range(films)
    )


@st.composite
def cohorts(draw, mixed=True):
    """Subjects with several films, shared films, and classes of very different size.

    Every class has ten single films besides, so that up to ten sides can hold it.
    """
    n_classes = draw(st.integers(1, 3))
    most = draw(st.integers(1, 6))
    rows = [
        (f"single{c}-{i}", f"single{c}-{i}", f"c{c}") for c in range(n_classes) for i in range(10)
    ]
    for subject in range(draw(st.integers(0, 40))):
        own = draw(st.integers(0, n_classes - 1))
        for film in range(draw(st.integers(1, most))):
            label = draw(st.integers(0, n_classes - 1)) if mixed else own
            digest = f"own{subject}-{film}"
            if draw(st.integers(0, 9)) == 0:
                digest = draw(st.none() | st.integers(0, 20).map(lambda i: f"copy{i}"))
            if digest is not None and digest.startswith("copy") and not mixed:
                digest += f"-{own}"
            rows.append((f"subject{subject}", digest, f"c{label}"))
    return cohort(rows)


requests = st.one_of(
    st.fixed_dictionaries(
        {"validation": st.floats(0.02, 0.4), "test": st.floats(0.02, 0.4), "folds": st.none()}
    ),
    st.fixed_dictionaries({"validation": st.floats(0.05, 0.4), "folds": st.integers(2, 8)}),
)


def shares_of_rows(splits, request):
    """(held, share asked for) of every side and class of every fold."""
    for _, one in splits.groupby(["repeat", "fold"]):
        count = pd.crosstab(one["label"], one["split"])
        total = count.sum(axis=1)
        if request["folds"] is None:
            asked = {"val": request["validation"] * total, "test": request["test"] * total}
            asked["train"] = total - asked["val"] - asked["test"]
        else:
            rest = total - count["test"]
            asked = {"test": total / request["folds"], "val": request["validation"] * rest}
            asked["train"] = rest - asked["val"]
        for side, share in asked.items():
            yield from zip(count[side], share, strict=True)


# --- components --------------------------------------------------------------------------------


def test_groups_join_subjects_through_a_shared_film():
    subject = ["b", "a", "c", "a", "d", "e", "f", "g", "h", "i"]
    digest = ["1", "2", "2", "3", None, None, float("nan"), float("nan"), "", ""]
    assert connected_groups(subject, digest).tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 6, 7]


def test_groups_join_by_a_further_key():
    near = [None, 7, None, 7]
    assert connected_groups(["a", "b", "c", "d"], [None] * 4, near).tolist() == [0, 1, 2, 1]


@quick
@given(st.lists(st.tuples(st.integers(0, 8), st.none() | st.integers(0, 8)), max_size=30))
def test_groups_equal_a_fixed_point_of_merging(pairs):
    expected = list(range(len(pairs)))
    for _ in pairs:
        for (i, a), (j, b) in itertools.combinations(enumerate(pairs), 2):
            if a[0] == b[0] or (a[1] is not None and a[1] == b[1]):
                expected[i] = expected[j] = min(expected[i], expected[j])
    got = connected_groups(
        [str(s) for s, _ in pairs], [None if h is None else str(h) for _, h in pairs]
    )
    assert got.tolist() == pd.factorize(np.array(expected, dtype=int))[0].tolist()


# --- making ------------------------------------------------------------------------------------


@quick
@given(cohorts(), requests, st.integers(0, 1000), st.integers(1, 2))
def test_nothing_crosses_nothing_is_empty_and_shares_are_kept(table, request, seed, repeats):
    splits = make_splits(table, seed=seed, repeats=repeats, **request)

    folds = request["folds"] or 1
    assert len(splits) == len(table) * repeats * folds
    assert set(zip(splits["repeat"], splits["fold"], strict=True)) == set(
        itertools.product(range(repeats), range(folds))
    )
    for key in ("subject_id", "image_sha256", "group"):
        assert (splits.groupby(["repeat", "fold", key])["split"].nunique() < 2).all()
    held = splits.groupby(["repeat", "fold", "split"])["label"].nunique()
    assert len(held) == 3 * repeats * folds
    assert (held == table["label"].nunique()).all()
    if request["folds"]:
        tested = splits[splits["split"] == "test"].groupby("repeat")["image"]
        assert (tested.nunique() == len(table)).all()
        assert (tested.size() == len(table)).all()

    largest = table["group"].value_counts().max()
    tolerance = 1 + 2 * largest * max(1, table["label"].nunique() - 1)
    assert all(abs(n - share) <= tolerance + 1e-9 for n, share in shares_of_rows(splits, request))


@quick
@given(cohorts(mixed=False), requests, st.integers(0, 1000))
def test_shares_are_kept_more_closely_where_components_hold_one_class(table, request, seed):
    splits = make_splits(table, seed=seed, **request)
    tolerance = 1 + 2 * table["group"].value_counts().max()
    assert all(abs(n - share) <= tolerance + 1e-9 for n, share in shares_of_rows(splits, request))


@quick
@given(st.lists(st.integers(12, 200), min_size=1, max_size=4), requests, st.integers(0, 99))
def test_single_films_are_split_to_the_row(sizes, request, seed):
    table = simple_cohort({f"c{c}": n for c, n in enumerate(sizes)})
    pairs = list(shares_of_rows(make_splits(table, seed=seed, **request), request))
    assume(all(share >= 1 for _, share in pairs))
    assert all(abs(n - share) <= 1 + 1e-9 for n, share in pairs)


@quick
@given(cohorts(), requests, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_same_seed_same_splits_in_any_row_order(table, request, seed, random):
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = table.iloc[order].copy()
    shuffled["group"] = connected_groups(shuffled["subject_id"], shuffled["image_sha256"])
    first = make_splits(table, seed=seed, **request).drop(columns="group")
    second = make_splits(shuffled, seed=seed, **request).drop(columns="group")
    pd.testing.assert_frame_equal(first, second)


def test_seeds_and_repeats_differ():
    table = simple_cohort({"normal": 30, "low": 60}, films=2)
    splits = make_splits(table, seed=1, folds=5, repeats=2)
    other = make_splits(table, seed=2, folds=5)
    sides = [
        select_fold(splits, 0, 0)["split"].tolist(),
        select_fold(splits, 0, 1)["split"].tolist(),
        select_fold(other, 0, 0)["split"].tolist(),
    ]
    assert sides[0] != sides[1]
    assert sides[0] != sides[2]


def test_a_repeat_does_not_depend_on_how_many_follow():
    table = simple_cohort({"normal": 30, "low": 60})
    alone = make_splits(table, seed=1, folds=3)
    pd.testing.assert_frame_equal(
        alone, make_splits(table, seed=1, folds=3, repeats=3).query("repeat == 0")
    )


def test_a_group_wider_than_the_subject_is_respected():
    table = simple_cohort({"normal": 20, "low": 20})
    table["group"] = np.arange(len(table)) // 4
    splits = make_splits(table, seed=0)
    assert (splits.groupby("group")["split"].nunique() < 2).all()


@quick
@given(
    st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=3, max_size=6),
    st.sampled_from([None, 2, 3, 4]),
)
def test_refused_exactly_where_no_division_exists(subjects, folds):
    table = cohort(
        (f"s{s}", f"{s}-{label}", f"c{label}")
        for s, labels in enumerate(subjects)
        for label in labels
    )
    # Two folds: what one leaves must again be divided into training and validation.
    sides = {None: 3, 2: 4}.get(folds, folds)
    wanted = set().union(*subjects)
    possible = any(
        all(
            set().union(*(k for k, at in zip(subjects, where, strict=True) if at == side)) == wanted
            for side in range(sides)
        )
        for where in itertools.product(range(sides), repeat=len(subjects))
    )
    if possible:
        make_splits(table, seed=0, folds=folds)
    else:
        with pytest.raises(SplitError, match=r"fewer folds|more data"):
            make_splits(table, seed=0, folds=folds)


def test_too_few_groups_are_named():
    table = simple_cohort({"normal": 30, "osteoporosis": 2}, films=4)
    with pytest.raises(
        SplitError,
        match="class 'osteoporosis' has 2 subject groups but 5 folds with a validation side need "
        "at least 5; use more data or a coarser task",
    ):
        make_splits(table, seed=0, folds=5)
    with pytest.raises(SplitError, match="train, val and test need at least 3; use more data"):
        make_splits(table, seed=0)


def test_two_folds_need_four_groups():
    # Balanced by rows alone, a fold here cannot be divided into training and validation.
    subjects = [(0, 3), (2, 1), (1, 1), (3, 0), (1, 3)]
    table = cohort(
        (f"s{s}", f"{s}-{c}-{film}", f"c{c}")
        for s, films in enumerate(subjects)
        for c in range(2)
        for film in range(films[c])
    )
    for seed in range(5):
        make_splits(table, seed=seed, folds=2)
    with pytest.raises(SplitError, match=r"3 subject groups but 2 folds .* at least 4"):
        make_splits(simple_cohort({"normal": 3, "low": 4}), seed=0, folds=2)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"validation": 0.0}, "validation share is 0.0"),
        ({"validation": 0.6, "test": 0.4}, "test share is 0.4 beside"),
        ({"folds": 1}, "1 folds"),
        ({"repeats": 0}, "0 repeats"),
    ],
)
def test_impossible_requests_are_refused(request_, message):
    with pytest.raises(SplitError, match=message):
        make_splits(simple_cohort({"a": 20}), **{"seed": 0, **request_})


def test_unusable_tables_are_refused():
    table = simple_cohort({"a": 20})
    with pytest.raises(SplitError, match="no rows"):
        make_splits(table.iloc[:0], seed=0)
    with pytest.raises(SplitError, match=r"subject 'a0', image 'films/00000.jpg' is listed twice"):
        make_splits(pd.concat([table, table.iloc[:1]]), seed=0)
    table["label"] = table["label"].astype(object)
    table.loc[3, "label"] = None
    with pytest.raises(SplitError, match=r"subject 'a3', .* has no label"):
        make_splits(table, seed=0)


def test_a_hundred_thousand_rows_take_seconds():
    rng = np.random.default_rng(0)
    subject = rng.integers(0, 40_000, 100_000)
    table = pd.DataFrame(
        {
            "subject_id": subject.astype(str),
            "image": np.arange(100_000).astype(str),
            "image_sha256": rng.integers(0, 5_000_000, 100_000).astype(str),
            "label": rng.choice(
                ["normal", "osteopenia", "osteoporosis"], 100_000, p=[0.2, 0.6, 0.2]
            ),
        }
    )
    table["group"] = connected_groups(table["subject_id"], table["image_sha256"])
    start = time.perf_counter()
    make_splits(table, seed=0)
    assert time.perf_counter() - start < 10


# --- folds -------------------------------------------------------------------------------------


def test_select_fold_returns_its_rows_or_names_the_folds():
    table = simple_cohort({"normal": 12, "low": 12})
    splits = make_splits(table, seed=0, folds=3, repeats=2)
    one = select_fold(splits, 2, 1)
    assert len(one) == len(table)
    assert set(one["fold"]) == {2}
    assert set(one["repeat"]) == {1}
    with pytest.raises(SplitError, match=r"no fold 3 in repeat 0; .* repeat 0: 0, 1, 2; repeat 1"):
        select_fold(splits, 3, 0)


# --- files -------------------------------------------------------------------------------------

awkward = st.sampled_from(
    [
        "007",
        "7",
        "1e5",
        " x",
        "x ",
        "NA",
        "nan",
        "a,b",
        'a"b',
        "a\nb",
        "a\rb",
        "\r\n",
        "Ü",
        "患者",
        "-",
        "0",
    ]
) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6
)


@quick
@given(st.lists(awkward, min_size=8, max_size=20, unique=True), st.sampled_from([None, 3]))
def test_round_trip_keeps_every_id(tmp_path_factory, ids, folds):
    table = cohort((name, f"{i:064x}", f"class {i % 2}") for i, name in enumerate(ids))
    table["image"] = [f"{name}/{name}.jpg" for name in ids]
    splits = make_splits(table, seed=3, folds=folds)
    path = tmp_path_factory.mktemp("splits") / "splits.csv"
    save_splits(splits, path)
    pd.testing.assert_frame_equal(load_splits(path, table), splits)
    for key in ("image", "image_sha256"):
        save_columns(splits, path, [key])
        pd.testing.assert_frame_equal(load_splits(path, table), splits)


def save_columns(splits, path, keys):
    columns = ["subject_id", *keys, "repeat", "fold", "split"]
    splits[columns].to_csv(path, index=False, quoting=2)


@quick
@given(cohorts(), requests)
def test_round_trip_of_random_cohorts(tmp_path_factory, table, request):
    splits = make_splits(table, seed=0, repeats=2, **request)
    path = tmp_path_factory.mktemp("splits") / "splits.csv"
    save_splits(splits, path)
    pd.testing.assert_frame_equal(load_splits(path, table.sample(frac=1, random_state=1)), splits)


@pytest.fixture
def saved(tmp_path):
    """A cohort with a subject of two films, its splits, and their file."""
    rows = [(f"{label}{i}", f"{label}{i}", label) for label in ("low", "normal") for i in range(9)]
    table = cohort([*rows, ("low0", "low0 again", "low"), ("normal0", "low1", "normal")])
    splits = make_splits(table, seed=0, folds=3)
    path = tmp_path / "splits.csv"
    save_splits(splits, path)
    return table, splits, path


def test_moved_films_match_by_digest(saved):
    table, splits, path = saved
    table["image"] = "elsewhere/" + table["image"]
    loaded = load_splits(path, table)
    assert loaded["split"].tolist() == splits["split"].tolist()
    assert loaded["image"].str.startswith("elsewhere/").all()


def test_changed_films_match_by_name_once_the_digests_are_gone(saved):
    table, splits, path = saved
    table["image_sha256"] = [f"{i}" for i in range(len(table))]
    table["group"] = connected_groups(table["subject_id"], table["image_sha256"])
    with pytest.raises(SplitError, match=r"row 2: .*nor are 59 more.* delete the column image_sha"):
        load_splits(path, table)
    save_columns(splits, path, ["image"])
    assert load_splits(path, table)["split"].tolist() == splits["split"].tolist()


def test_two_identical_films_of_one_subject_are_two_rows(tmp_path):
    table = cohort([(f"{c}{i // 2}", f"{c}{i // 2}", c) for c in "ab" for i in range(12)])
    splits = make_splits(table, seed=0)
    save_splits(splits, tmp_path / "splits.csv")
    pd.testing.assert_frame_equal(load_splits(tmp_path / "splits.csv", table), splits)


def test_a_coarser_label_agrees(saved):
    table, splits, path = saved
    finer = table.assign(label=table["label"].where(table.index % 2 == 0, "sub" + table["label"]))
    finer.loc[finer["label"].str.startswith("subnormal"), "label"] = "normal"
    fine_path = path.with_name("fine.csv")
    save_splits(make_splits(finer, seed=0), fine_path)
    coarse = finer.assign(label=np.where(finer["label"] == "normal", "normal", "low BMD"))
    assert set(load_splits(fine_path, coarse)["label"]) == {"normal", "low BMD"}
    table["label"] = table["label"].map({"low": "low BMD", "normal": "normal"})
    assert load_splits(path, table)["split"].tolist() == splits["split"].tolist()


def change(column, value, where=0):
    def tamper(splits):
        splits[column] = splits[column].astype(object)
        splits.loc[where, column] = value
        return splits

    return tamper


def swap_one(splits):
    """Put one of low0's two films on another side."""
    row = splits.index[(splits["subject_id"] == "low0") & (splits["fold"] == 0)][0]
    splits.loc[row, "split"] = "val" if splits.loc[row, "split"] != "val" else "train"
    return splits


def swap_shared_film(splits):
    """Put normal0, who shares a film with low1, on another side."""
    rows = splits["subject_id"].eq("normal0") & splits["fold"].eq(0)
    splits.loc[rows, "split"] = "val" if splits.loc[rows, "split"].iloc[0] != "val" else "train"
    return splits


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda s: s.drop(index=5), r"repeat 0, fold 0 .*'low4'.* is missing \(1 rows in all\)"),
        (lambda s: pd.concat([s, s.iloc[[7]]]), "row 62: .* more than once in repeat 0, fold 0"),
        (change("subject_id", "X1", 3), "row 5: subject 'X1'.* is not in the cohort"),
        (change("split", "validation", 3), "row 5: split 'validation' must be one of train, val"),
        (change("fold", "1.0", 3), "row 5: fold '1.0' must be a whole number"),
        (change("repeat", "", 3), "row 5: repeat '' must be a whole number"),
        (change("label", "normal", 3), "row 5: subject 'low2' has the label 'normal' and 'low'"),
        (change("label", "other", 3), "row 5: subject 'low2' has the label 'other' and 'low'"),
        (swap_one, "fold 0 subject 'low0' is on the side .* though they are one subject"),
        (swap_shared_film, "'normal0' .*'low1' .* share an image"),
        (lambda s: s.assign(split="train"), "fold 0 the side val has no row of class 'low'"),
        (lambda s: s.drop(columns=["fold", "split"]), "no column fold, split"),
        (lambda s: s.drop(columns=["image", "image_sha256"]), "neither image_sha256 nor image"),
        (lambda s: s.iloc[:0], "no rows"),
    ],
)
def test_tampered_files_are_refused(saved, tamper, message):
    table, splits, path = saved
    tamper(splits).to_csv(path, index=False)
    with pytest.raises(SplitError, match=message) as caught:
        load_splits(path, table)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cohort_that_grew_is_refused(saved):
    table, _, path = saved
    grown = cohort(
        [
            *table[["subject_id", "image_sha256", "label"]].itertuples(index=False),
            ("new", "n", "low"),
        ]
    )
    with pytest.raises(SplitError, match=r"subject 'new'.* is missing \(3 rows in all\)"):
        load_splits(path, grown)


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00binary", b'subject_id,image\n"open', b"a\n1,2\n1,2,3"]
)
def test_unreadable_files_are_refused(saved, content):
    table, _, path = saved
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SplitError, match=r"splits\.csv") as caught:
        load_splits(path, table)
    assert "\n" not in str(caught.value)


# --- real data ---------------------------------------------------------------------------------


@pytest.mark.skipif(
    not MENDELEY.is_dir(), reason="the Mendeley radiographs are not beside the repo"
)
def test_mendeley_folds(tmp_path):
    files = sorted(p for p in MENDELEY.glob("*/*") if p.is_file())
    table = cohort(
        (p.stem, hashlib.sha256(p.read_bytes()).hexdigest(), p.parent.name) for p in files
    )
    assert table["label"].value_counts().to_dict() == {
        "osteopenia": 154,
        "osteoporosis": 49,
        "normal": 36,
    }
    sizes = table["group"].value_counts()
    assert (sizes > 1).sum() == 21
    assert sizes[sizes > 1].sum() - 21 == 22
    assert table.groupby("group")["label"].nunique().ge(2).sum() == 7

    splits = make_splits(table, seed=0, folds=5, repeats=3)
    for key in ("subject_id", "image_sha256"):
        assert (splits.groupby(["repeat", "fold", key])["split"].nunique() < 2).all()
    tested = pd.crosstab(
        [splits["repeat"], splits["fold"]], splits["label"].where(splits["split"] == "test")
    )
    assert (tested - table["label"].value_counts() / 5).abs().to_numpy().max() <= 1
    save_splits(splits, tmp_path / "splits.csv")
    pd.testing.assert_frame_equal(load_splits(tmp_path / "splits.csv", table), splits)
