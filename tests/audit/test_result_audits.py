"""Audits of a result: what is planted must be found, what is not must not."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from osteofusion.audit.results import (
    assess_results,
    draw_learning_curve,
    draw_pairing,
    draw_subgroups,
)
from osteofusion.audit.results.arms import Arms, read_arms
from osteofusion.audit.results.estimates import (
    area,
    auroc_gap,
    concordance,
    difference,
    mean_area,
    mean_value,
    within_strata,
)
from osteofusion.audit.results.films import disagreeing_films
from osteofusion.audit.results.gain import audit_gain
from osteofusion.audit.results.leakage import audit_leakage
from osteofusion.audit.results.learning import audit_learning
from osteofusion.audit.results.pairing import audit_pairing
from osteofusion.audit.results.people import Read, read_people
from osteofusion.audit.results.simple import AuditRows, rotate
from osteofusion.audit.results.subgroups import audit_subgroups
from osteofusion.data.clinical import ClinicalSchema, fit_preprocessing, select_features
from osteofusion.data.cohort import build_cohort
from osteofusion.data.manifest import LABELS
from osteofusion.errors import EvaluationError

CLASSES = ["normal", "low_bmd"]


def own_groups(n):
    return np.arange(n, dtype=np.int64)


def people(n=240, seed=0):
    """A cohort's rows: classes in turn, sex and age drawn at random."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "subject_id": [f"S{i}" for i in range(n)],
            "image": [f"S{i}.png" for i in range(n)],
            "image_sha256": [f"{i:064x}" for i in range(n)],
            "group": range(n),
            "label": [LABELS[i % 3] for i in range(n)],
            "female": rng.integers(0, 2, n).astype(float),
            "age": rng.uniform(30, 80, n).round(),
        }
    )


def films(table, seed=0, noise=1.0):
    """Features that show sex and age, among others that show nothing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(table), 30))
    features[:, :5] = noise * features[:, :5] + (2 * table["female"].to_numpy() - 1)[:, None]
    features[:, 5:10] += ((table["age"].to_numpy() - 55) / 15)[:, None]
    return features


def predictions_of(table, odds, repeats=2, folds=4, offset=0.0):
    """A predictions table from log-odds of low BMD by arm; folds may score on other scales."""
    parts = []
    rng = np.random.default_rng(0)
    for repeat in range(repeats):
        fold = rng.permutation(np.arange(len(table)) % folds)
        for arm, values in odds.items():
            p = expit(values + offset * fold)
            part = table[["subject_id", "image", "group"]].assign(
                split="test", fold=fold, repeat=repeat, arm=arm, seed=0
            )
            part["label"] = np.where(table["label"] == "normal", *CLASSES)
            parts.append(part.assign(p_normal=1 - p, p_low_bmd=p))
    return pd.concat(parts, ignore_index=True)


# Estimates


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(6, 60))
def test_concordance_with_two_values_is_the_auroc(seed, n):
    rng = np.random.default_rng(seed)
    target = np.arange(n) % 2.0
    scores = rng.integers(0, 6, n).astype(float)  # with ties
    groups = rng.integers(0, max(2, n // 2), n)
    rows = np.ones(n, dtype=bool)
    found = concordance(target, scores, groups, rows)
    assert found.value == pytest.approx(roc_auc_score(target, scores))
    assert found.contributions.sum() == pytest.approx(0, abs=1e-9)
    assert concordance(target, -scores, groups, rows).value == pytest.approx(1 - found.value)


def test_the_error_of_concordance_is_that_of_repeated_samples():
    values, errors = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        target = rng.normal(size=60)
        scores = target + 1.5 * rng.normal(size=60)
        # Pairs of rows are the same film twice.
        target, scores = np.repeat(target, 2), np.repeat(scores, 2)
        groups = np.repeat(np.arange(60), 2)
        found = concordance(target, scores, groups, np.ones(120, dtype=bool))
        values.append(found.value)
        errors.append(np.sqrt((found.contributions**2).sum()))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


def test_a_difference_covers_zero_as_often_as_it_says():
    misses = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        positive = np.arange(90) % 3 > 0
        common = positive + rng.normal(size=90)
        gap = auroc_gap(
            positive, common + rng.normal(size=90), common + rng.normal(size=90), own_groups(90)
        )
        misses += not gap.low <= 0 <= gap.high
    assert 0.02 <= misses / 400 <= 0.08


def test_copies_of_every_row_do_not_make_a_difference_more_certain():
    rng = np.random.default_rng(0)
    values = (rng.random(50) < 0.6).astype(float)
    once = mean_value(values, own_groups(50))
    twice = mean_value(np.repeat(values, 2), np.repeat(own_groups(50), 2))
    assert (once.contributions**2).sum() == pytest.approx((twice.contributions**2).sum())


def test_what_a_stratum_tells_is_gone_within_it():
    rng = np.random.default_rng(0)
    strata = rng.integers(0, 3, 300)
    positive = rng.random(300) < np.array([0.1, 0.5, 0.9])[strata]
    scores = strata.astype(float)
    assert area(positive, scores, own_groups(300)).value > 0.75
    found = within_strata(positive, scores, own_groups(300), strata)
    assert found.value == pytest.approx(0.5)
    assert within_strata(positive, scores, own_groups(300), positive) is None


def test_measures_of_different_rows_of_one_group_are_not_independent():
    rng = np.random.default_rng(1)
    half, scores = rng.random(40) < 0.5, rng.normal(size=40)
    both = np.concatenate([half, half]), np.concatenate([scores, scores])
    groups = np.concatenate([own_groups(40), own_groups(40)])
    first = np.arange(80) < 40
    parts = [mean_area([area(*both, groups, rows)]) for rows in (first, ~first)]
    estimate, p = difference(*parts, 80)  # the same people: no difference, and no doubt
    assert (estimate.value, p) == (0.0, None)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_turning_features_keeps_all_distances(seed):
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.normal(size=(12, 40)), np.full(12, 3.0)])
    turned = rotate(features)
    assert turned.shape == (12, 12)
    standard = (features[:, :40] - features[:, :40].mean(0)) / features[:, :40].std(0)
    assert turned @ turned.T == pytest.approx(standard @ standard.T)


# Leakage


def copied_rows(copies, seed=0, n=80):
    """Films that show nothing of the label, some of them filed twice under one label."""
    rng = np.random.default_rng(seed)
    features, y = rng.normal(size=(n, 20)), np.arange(n, dtype=np.int64) % 2
    again = np.arange(copies)
    rows = AuditRows(
        np.concatenate([y, y[again]]),
        np.concatenate([own_groups(n), again]),
        {"image": np.vstack([features, features[again]])},
        CLASSES,
    )
    return rows, np.concatenate([np.arange(n) < copies, np.ones(copies, dtype=bool)])


def test_leakage_through_copies_is_measured():
    audit = audit_leakage(*copied_rows(60))
    by_name = {(row["model"], row["metric"], row["on"]): row for row in audit["rows"]}
    nearest = by_name["nearest_film", "accuracy", "copied films"]
    assert nearest["by_row"] > 0.8 > 0.65 > nearest["by_group"]
    assert nearest["difference"]["low"] > 0
    image = by_name["image", "auroc", "all"]
    assert image["by_row"] - image["by_group"] == pytest.approx(image["difference"]["value"])
    assert image["difference"]["low"] > 0
    assert 0.3 < image["by_group"] < 0.65  # nothing to read
    assert audit["verdict"][0].startswith("60 of 140 rows")
    assert "More than chance explains" in audit["verdict"][-1]


def test_without_copies_there_is_no_leakage_to_measure():
    audit = audit_leakage(*copied_rows(0))
    assert "leaks nothing" in audit["reason"]


# Pairing


def test_films_shuffled_among_the_normals_are_noticed():
    table = people()
    features = films(table)
    audit = audit_pairing(table, read_people(table, features, own_groups(240)), own_groups(240))
    assert audit["suspect"] == []
    assert "No class stands out" in audit["verdict"][-1]
    assert all(row["estimate"]["low"] > 0.6 for row in audit["rows"])
    normal = np.flatnonzero(table["label"] == "normal")
    features[normal] = features[np.random.default_rng(1).permutation(normal)]
    audit = audit_pairing(table, read_people(table, features, own_groups(240)), own_groups(240))
    assert audit["suspect"] == ["normal"]
    assert any("may not belong together in the class normal" in said for said in audit["verdict"])
    sex = {row["class"]: row for row in audit["rows"] if row["target"] == "sex"}
    assert sex["normal"]["stands_out"]
    assert not sex["osteopenia"]["stands_out"]
    assert sex["normal"]["difference"]["high"] < 0


def test_films_that_show_nothing_accuse_nobody():
    table = people()
    features = np.random.default_rng(0).normal(size=(240, 30))
    audit = audit_pairing(table, read_people(table, features, own_groups(240)), own_groups(240))
    assert audit["suspect"] == []
    assert "Neither sex nor age can be plainly read" in audit["verdict"][-1]


def test_sex_told_by_the_scanner_alone_is_gone_within_families():
    table = people()
    scanner = np.where(table["female"] == 1, "A", "B")
    scanner[::10] = "A"
    features = np.random.default_rng(0).normal(size=(240, 10))
    features[:, 0] = 5 * (scanner == "A")
    read = read_people(table, features, own_groups(240))
    audit = audit_pairing(table, read, own_groups(240), families=scanner)
    for row in (row for row in audit["rows"] if row["target"] == "sex"):
        assert row["estimate"]["low"] > 0.7
        assert row["within_families"]["low"] < 0.6


def test_what_the_cohort_does_not_know_is_not_read():
    table = people().drop(columns="female")
    read = read_people(table, films(people()), own_groups(240))
    assert read.sex is None
    assert read.reasons == {"sex": "the cohort has no sex"}
    audit = audit_pairing(table, read, own_groups(240))
    assert {row["target"] for row in audit["rows"]} == {"age"}
    few = people(60)
    few.loc[few["label"] == "normal", "female"] = 1.0
    read = read_people(few, films(few), own_groups(60))
    audit = audit_pairing(few, read, own_groups(60))
    sex = {row["class"]: row for row in audit["rows"] if row["target"] == "sex"}
    assert sex["normal"]["reason"] == "20 women and 0 men: too few"
    assert sex["normal"]["estimate"]["value"] is None


def test_films_with_rows_of_different_people_are_listed():
    table = people(12)
    table.loc[[0, 1], "image_sha256"] = "a"
    table.loc[[0, 1], ["female", "age"]] = [[1.0, 40.0], [0.0, 40.0]]
    table.loc[[2, 3, 4], "image_sha256"] = "b"
    table.loc[[2, 3, 4], "female"] = 1.0
    table.loc[[2, 3, 4], "age"] = [34.0, 75.0, np.nan]
    table.loc[[5, 6], "image_sha256"] = "c"  # one person, a birthday between
    table.loc[[5, 6], ["female", "age"]] = [[1.0, 50.0], [1.0, 51.0]]
    table.loc[[7, 8], "image_sha256"] = ""  # no films at all
    found = disagreeing_films(table)
    assert [[row["subject_id"] for row in film["rows"]] for film in found] == [
        ["S0", "S1"],
        ["S2", "S3", "S4"],
    ]
    assert [(film["sexes_differ"], film["years_apart"]) for film in found] == [
        (True, 0),
        (False, 41),
    ]
    assert found[1]["rows"][2]["age"] is None
    audit = audit_pairing(table, None, own_groups(12))
    assert audit["reason"]
    assert "S0 (normal, female, 40 years)" in audit["verdict"][0]


# Trained arms


def test_folds_on_different_scales_are_brought_together():
    table = people()
    odds = np.where(table["label"] == "normal", -1.0, 1.0)
    odds += np.random.default_rng(0).normal(size=240)
    plain = read_arms(predictions_of(table, {"fused": odds}, offset=0), table, CLASSES)
    far = read_arms(predictions_of(table, {"fused": odds}, offset=3), table, CLASSES)
    assert far.scores["fused"] == pytest.approx(plain.scores["fused"], abs=1e-6)
    assert roc_auc_score(plain.positive, plain.scores["fused"]) == pytest.approx(
        roc_auc_score(table["label"] != "normal", odds), abs=0.02
    )
    assert plain.rows.tolist() == list(range(240))


def test_rows_are_found_by_name_and_repeats_averaged():
    table = people(60)
    odds = np.random.default_rng(0).normal(size=60)
    frame = predictions_of(table, {"fused": odds, "tabular": -odds})
    shuffled = frame.sample(frac=1, random_state=0)
    first, second = (read_arms(each, table, CLASSES) for each in (frame, shuffled))
    assert first.scores["tabular"] == pytest.approx(second.scores["tabular"])
    assert first.probabilities["fused"] == pytest.approx(expit(odds))
    part = frame[~((frame["arm"] == "tabular") & (frame["subject_id"] == "S7"))]
    assert 7 not in read_arms(part, table, CLASSES).rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(subject_id="X" + t["subject_id"]), "not in the cohort"),
        (lambda t: t.assign(variant=np.arange(len(t)) % 2), "2 variants"),
        (lambda t: t.assign(split="train"), "no test row"),
        (lambda t: t.assign(arm="age"), "no test row"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, said):
    table = people(60)
    frame = change(predictions_of(table, {"fused": np.zeros(60)}))
    with pytest.raises(EvaluationError, match=said):
        read_arms(frame, table, CLASSES)


def test_subgroups_add_up_and_small_ones_say_so():
    table = people()
    odds = np.where(table["label"] == "normal", -1.0, 1.0)
    odds += np.random.default_rng(0).normal(size=240)
    table.loc[table["label"] == "normal", "age"] = 35.0
    arms = read_arms(predictions_of(table, {"fused": odds, "image": -odds}), table, CLASSES)
    families = np.where(np.arange(240) < 238, "big", "small")
    audit = audit_subgroups(arms, table, own_groups(240), families, "low BMD")
    rows = [row for row in audit["rows"] if row["arm"] == "fused"]
    for by in ("acquisition family", "sex", "age band"):
        part = [row for row in rows if row["by"] == by]
        assert sum(row["positive"] for row in part) == 160
        assert sum(row["negative"] for row in part) == 80
    small = next(row for row in rows if row["subgroup"] == "small")
    assert small["auroc"]["value"] is None
    assert "too few" in small["auroc"]["reason"]
    assert small["sensitivity"]["n"] + small["specificity"]["n"] == 2
    women = next(row for row in rows if row["subgroup"] == "women")
    members = (table["female"] == 1).to_numpy()
    assert women["auroc"]["value"] == pytest.approx(
        roc_auc_score(arms.positive[members], arms.scores["fused"][members])
    )
    assert next(row["subgroup"] for row in rows if row["by"] == "age band") == "under 40"
    assert audit["verdict"][0].startswith("AUROC of fused for low BMD: 0.")
    assert "Too few rows" in audit["verdict"][-1]
    assert "60 to 69" in audit["verdict"][-1]


def gain_case(*, from_sex, seed=0, n=600):
    """Fusion gains from sex as the film shows it, or from bone; the clinical arm knows neither."""
    rng = np.random.default_rng(seed)
    table = people(n, seed)
    table["label"] = np.where(np.arange(n) % 3 == 0, "normal", "osteopenia")
    low = (table["label"] != "normal").to_numpy().astype(float)
    shown = rng.normal(size=n) + (2 * low - 1 if from_sex else 0)  # sex in the film
    bone = rng.normal(size=n) + (0 if from_sex else 2 * low - 1)
    tabular = 2 * low + 2 * rng.normal(size=n)
    image = shown if from_sex else bone
    odds = {"tabular": tabular, "fused": tabular + 2 * image, "image": image}
    arms = Arms(np.arange(n), low > 0, {k: (v - v.mean()) / v.std() for k, v in odds.items()}, {})
    return arms, Read(shown, rng.normal(size=n), {}), table, own_groups(n)


@pytest.mark.parametrize("from_sex", [True, False])
def test_where_the_gain_of_fusion_comes_from(from_sex):
    audit = audit_gain(*gain_case(from_sex=from_sex))
    rows = {(row["first"], row["among"]): row["difference"] for row in audit["rows"]}
    assert rows["fused", "women"]["low"] > 0
    bare = rows["fused, with what is read of the person taken out", "all"]
    person = rows["tabular with sex and age as read", "all"]
    if from_sex:
        assert "no evidence of bone" in audit["verdict"][-1]
        assert bare["low"] < 0.01
        assert person["low"] > 0
        assert audit["explained"] > 0.95
    else:
        assert "is left without" in audit["verdict"][-1]
        assert bare["low"] > 0.02
        assert person["low"] < 0
        assert audit["explained"] < 0.05


def test_no_gain_is_not_explained_and_few_rows_say_so():
    arms, read, table, groups = gain_case(from_sex=True)
    arms.scores["fused"] = arms.scores["tabular"]
    assert "no gain to explain" in audit_gain(arms, read, table, groups)["verdict"][-1]
    few = Arms(arms.rows[:12], arms.positive[:12], {k: v[:12] for k, v in arms.scores.items()}, {})
    assert "4 negative split groups" in audit_gain(few, read, table, groups)["reason"]
    del arms.scores["tabular"]
    assert audit_gain(arms, read, table, groups)["reason"] == "the predictions have no tabular arm"


# Learning curve


def test_a_learning_curve_of_what_can_be_learnt_rises():
    rng = np.random.default_rng(0)
    y = np.arange(120, dtype=np.int64) % 2
    image = rng.normal(size=(120, 60)) + 0.15 * (2 * y - 1)[:, None] * (np.arange(60) % 2)
    groups = np.repeat(np.arange(60), 2)
    rng.shuffle(groups)
    audit = audit_learning(AuditRows(y, groups, {"image": image}, CLASSES))
    values = [row["auroc"]["value"] for row in audit["rows"]]
    assert values[-1] > values[0] + 0.05
    sizes = [row["training_rows"] for row in audit["rows"]]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(96, abs=0.1)
    assert sizes[0] == pytest.approx(0.2 * 96, abs=6)
    noise = AuditRows(y, groups, {"image": rng.normal(size=(120, 20))}, CLASSES)
    assert "cannot be told" in audit_learning(noise)["verdict"][0]


def test_too_few_of_a_class_is_said():
    y = (np.arange(60) > 52).astype(np.int64)
    rows = AuditRows(y, own_groups(60), {"image": np.zeros((60, 3))}, CLASSES)
    assert audit_learning(rows)["reason"] == "7 split groups hold a low bmd; 10 are needed"


# All of them


def test_all_audits_of_a_cohort_are_plain_and_drawn(demo):
    cohort = build_cohort("demo", demo)
    table = cohort.table
    rng = np.random.default_rng(0)
    low = (table["label"] != "normal").to_numpy()
    odds = {arm: low + rng.normal(size=len(table)) for arm in ("fused", "image", "tabular")}
    frame = predictions_of(table, odds)
    features, design = rng.normal(size=(len(table), 100)), rng.normal(size=(len(table), 6))
    audits = assess_results(cohort, "binary", features, design, frame)
    again = json.loads(json.dumps(audits, allow_nan=False))
    assert list(again) == [
        "leakage", "shortcut", "subgroups", "pairing", "gain", "learning_curve"
    ]  # fmt: skip
    for audit in again.values():
        assert audit["title"]
        assert audit["reason"] or (audit["verdict"] and audit["rows"])
    pairing = draw_pairing(again["pairing"])
    assert [axes.get_title(loc="left") for axes in pairing.axes] == [
        "sex as read from the radiograph",
        "age as read from the radiograph",
    ]
    figure = draw_subgroups(again["subgroups"], "tabular")
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names[0].startswith("all rows (")
    assert names[-1] == "within one sex and age band"
    curve = draw_learning_curve(again["learning_curve"])
    assert curve.axes[0].get_legend_handles_labels()[1] == ["tabular", "image", "fused"]
    with pytest.raises(EvaluationError, match="3 rows of image features"):
        assess_results(cohort, "binary", features[:3], design, frame)


def test_a_cohort_without_radiographs_says_what_cannot_be_audited(clinic):
    clinic.manifest["images"] = None
    clinic.rows = [
        row | {"Patient ID": f"{row['Patient ID']}_{i}"} for i in range(12) for row in clinic.rows
    ]
    cohort = clinic.build()
    n = len(cohort.table)
    rng = np.random.default_rng(0)
    frame = predictions_of(cohort.table, {"tabular": rng.normal(size=n)})
    audits = assess_results(cohort, "three_class", None, rng.normal(size=(n, 4)), three(frame))
    assert audits["shortcut"]["reason"] == "the cohort has no radiographs"
    assert audits["pairing"]["reason"] == "the cohort has no radiographs"
    assert {row["model"] for row in audits["learning_curve"]["rows"]} == {"tabular"}
    assert audits["subgroups"]["not_known"] == ["acquisition family", "sex"]
    json.dumps(audits, allow_nan=False)


def three(frame):
    """The same table of three classes."""
    halves = {"p_osteopenia": frame["p_low_bmd"] / 2, "p_osteoporosis": frame["p_low_bmd"] / 2}
    return frame.drop(columns="p_low_bmd").assign(**halves)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "three_class"])
def test_mendeley(mendeley, task):
    from osteofusion.data.radiograph import RadiographPreprocessing
    from osteofusion.training.features import frozen_features

    cohort = build_cohort("mendeley", mendeley)
    table = cohort.table
    features = frozen_features(
        list(zip(cohort.files(table), table["image_sha256"], strict=True)),
        "tf_efficientnet_lite0",
        True,
        RadiographPreprocessing(224),
    )
    names = select_features(cohort.manifest, None)
    schema = ClinicalSchema.fit(table, cohort.manifest, names)
    clinical = schema.encode(table)
    design = fit_preprocessing(clinical, schema).transform(clinical)
    age = (table["age"].fillna(50).to_numpy() - 48) / 6
    frame = predictions_of(table, {"fused": age, "tabular": age, "image": np.zeros(len(table))})
    frame = frame if task == "binary" else three(frame)
    start = time.perf_counter()
    audits = assess_results(cohort, task, features, design, frame)
    assert time.perf_counter() - start < 180
    pairing = audits["pairing"]
    assert pairing["suspect"] == ["normal"]
    sex = {r["class"]: r["estimate"] for r in pairing["rows"] if r["target"] == "sex"}
    assert sex["osteopenia"]["low"] > 0.75
    assert sex["osteoporosis"]["low"] > 0.7
    assert sex["normal"]["low"] < 0.5
    listed = [{row["subject_id"] for row in film["rows"]} for film in pairing["films"]]
    assert {"N15", "OP73"} in listed
    assert {"OP144", "OS32"} not in listed  # two women of 60
    assert len(listed) == 20
    assert audits["leakage"]["verdict"][0].startswith("22 of 239 rows")
    arm = [r for r in audits["subgroups"]["rows"] if r["arm"] == "tabular"]
    assert arm[0]["auroc"]["value"] == pytest.approx(0.945, abs=0.015)
    within = {r["within"]: r["auroc"] for r in audits["subgroups"]["within"]}
    assert within["age band"]["value"] < 0.85  # age is most of what there is
