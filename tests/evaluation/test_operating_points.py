import numpy as np
import pandas as pd
import pytest
from decision_tables import folds_table
from fabricated import BINARY, THREE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import norm
from sklearn.metrics import roc_curve
from statsmodels.stats.proportion import proportion_confint

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.operating import choose_thresholds, operating_points
from osteofusion.evaluation.out_of_fold import out_of_fold


def choose_threshold(scores, low, *rule):
    return choose_thresholds(scores, low, np.ones((1, len(low))), *rule)[0]


scored = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.99, 1.0]), st.booleans()),
    min_size=2,
    max_size=40,
).filter(lambda rows: len({low for _, low in rows}) == 2)


@settings(max_examples=100, deadline=None)
@given(scored, st.floats(0.05, 0.95))
def test_thresholds_reach_their_target_on_their_own_rows_and_no_further(rows, target):
    scores, low = np.array([s for s, _ in rows]), np.array([b for _, b in rows])

    def reached(cut):
        return (scores[low] >= cut).mean(), (scores[~low] < cut).mean()

    cut = choose_threshold(scores, low, "fixed_sensitivity", target)
    assert reached(cut)[0] >= target - 1e-9
    above = scores[scores >= cut]
    assert reached(np.nextafter(above.min(), 2))[0] < target
    cut = choose_threshold(scores, low, "fixed_specificity", target)
    assert reached(cut)[1] >= target - 1e-9
    below = scores[scores < cut]
    assert not len(below) or reached(below.max())[1] < target
    cut = choose_threshold(scores, low, "youden")
    false_alarms, hits, _ = roc_curve(low, scores)
    assert sum(reached(cut)) == pytest.approx(1 + (hits - false_alarms).max())


def test_a_threshold_needs_rows_of_both_kinds_and_a_known_rule():
    scores = np.array([0.2, 0.8])
    with pytest.raises(ValueError, match="both kinds"):
        choose_threshold(scores, np.array([True, True]), "youden")
    with pytest.raises(ValueError, match="without its target"):
        choose_threshold(scores, np.array([True, False]), "fixed_sensitivity")


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_left_out_rows_come_close_to_the_target(classes):
    shares = (0.3, 0.7) if len(classes) == 2 else (0.3, 0.4, 0.3)
    table = folds_table(n=3000, classes=classes, shares=shares, repeats=1)
    points = {p.name: p for p in operating_points(out_of_fold(table, classes, "fused"))}
    assert list(points) == ["fixed_sensitivity", "fixed_specificity", "youden", "half"]
    assert points["fixed_sensitivity"].sensitivity.value == pytest.approx(0.9, abs=0.02)
    assert points["fixed_specificity"].specificity.value == pytest.approx(0.9, abs=0.02)
    total = {n: p.sensitivity.value + p.specificity.value for n, p in points.items()}
    assert total["youden"] > max(total["half"], 1.5) - 0.01
    assert all(len(p.thresholds) == 5 for p in points.values())


def test_a_fold_has_no_say_in_its_own_threshold():
    table = folds_table()
    own = (table["repeat"] == 0) & (table["fold"] == 3)
    changed = table.copy()
    changed.loc[own, "label"] = "normal"
    changed.loc[table["subject_id"].isin(table.loc[own, "subject_id"]), "label"] = "normal"
    before = operating_points(out_of_fold(table, BINARY, "fused"))[0].thresholds
    after = operating_points(out_of_fold(changed, BINARY, "fused"))[0].thresholds
    assert before[3] == after[3]
    assert before[0] != after[0]


def test_pooled_shares_and_wilson_intervals_by_hand():
    table = folds_table(n=100, repeats=1)
    rows = out_of_fold(table, BINARY, "fused")
    point = operating_points(rows)[0]
    called = np.zeros(100)
    for fold, cut in zip(rows.folds, point.thresholds, strict=True):
        called[fold.rows] = fold.scores >= cut
    hits, total = called[rows.low].sum(), rows.low.sum()
    assert point.sensitivity.value == pytest.approx(hits / total)
    assert point.sensitivity.n == total
    expected = proportion_confint(hits, total, method="wilson")
    assert (point.sensitivity.low, point.sensitivity.high) == pytest.approx(expected)


def test_repeats_are_averaged_by_row_and_do_not_count_as_more_rows():
    once = folds_table(n=100, repeats=1)
    twice = folds_table(n=100, repeats=1).assign(repeat=1)
    both = pd.concat([once, twice], ignore_index=True)
    single, double = (operating_points(out_of_fold(t, BINARY, "fused"))[0] for t in (once, both))
    assert double.sensitivity == single.sensitivity
    assert double.specificity == single.specificity
    assert len(double.thresholds) == 2 * len(single.thresholds)


def test_grouped_rows_widen_the_interval():
    table = folds_table(n=300, group_size=3, repeats=1)
    apart = table.assign(group=np.arange(300))
    tied, free = (operating_points(out_of_fold(t, BINARY, "fused"))[-1] for t in (table, apart))
    assert tied.sensitivity.value == free.sensitivity.value
    assert tied.sensitivity.high - tied.sensitivity.low > (
        free.sensitivity.high - free.sensitivity.low
    )


def test_seeds_are_averaged_first():
    table = folds_table(n=60, seeds=2, repeats=1)
    averaged = table[table["seed"] == 0].copy()
    for name in ("raw_low_bmd", "raw_normal"):
        both = [table.loc[table["seed"] == seed, name].to_numpy() for seed in (0, 1)]
        averaged[name] = np.mean(both, axis=0)
    one = out_of_fold(table, BINARY, "fused")
    other = out_of_fold(averaged, BINARY, "fused")
    np.testing.assert_allclose(one.folds[0].scores, other.folds[0].scores)
    np.testing.assert_allclose(one.folds[0].raw, other.folds[0].raw)


def test_a_miss_is_said():
    table = folds_table(n=60, seed=3, arms=(("fused", 0.5),), repeats=1)
    points = operating_points(out_of_fold(table, BINARY, "fused"))
    short = [p for p in points[:2] if "falls short" in p.reading]
    for point in points[:2]:
        reached = point.sensitivity if point.name == "fixed_sensitivity" else point.specificity
        assert (point in short) == (round(reached.value, 3) < 0.9)
    assert short


def test_a_single_fold_is_left_with_one_half():
    rows = out_of_fold(folds_table(folds=1, repeats=1), BINARY, "fused")
    assert [p.name for p in operating_points(rows)] == ["half"]


def test_one_class_gives_a_reason():
    table = folds_table(n=20).assign(label="low_bmd")
    (point,) = operating_points(out_of_fold(table, BINARY, "fused"))
    assert point.specificity.value is None
    assert point.specificity.reason == "no row is negative"
    assert "no row is negative" in point.reading


def test_two_rows_in_two_folds_are_left_with_one_half():
    table = folds_table(n=2, folds=2, repeats=1)
    table["label"], table["fold"] = BINARY, [0, 1]
    rows = out_of_fold(table, BINARY, "fused")
    assert not rows.cross_fitted
    assert [p.name for p in operating_points(rows)] == ["half"]


def test_what_cannot_be_read_is_refused():
    table = folds_table(n=20)
    with pytest.raises(EvaluationError, match="no test row of arm 'image'"):
        out_of_fold(table, BINARY, "image")
    with pytest.raises(EvaluationError, match="mixes 2 variants"):
        out_of_fold(table.assign(variant=np.arange(len(table)) % 2), BINARY, "fused")
    with pytest.raises(EvaluationError, match="sensitivity is 90"):
        operating_points(out_of_fold(table, BINARY, "fused"), sensitivity=90)
    table.loc[0, "label"] = "normal" if table.loc[0, "label"] == "low_bmd" else "low_bmd"
    with pytest.raises(EvaluationError, match="different labels or groups"):
        out_of_fold(table, BINARY, "fused")


def test_resamples_without_a_class_are_no_interval():
    table = folds_table(n=8, folds=4, repeats=1)
    table["label"], table["fold"] = ["normal"] * 2 + ["low_bmd"] * 6, [0, 1, 0, 1, 2, 2, 3, 3]
    point = operating_points(out_of_fold(table, BINARY, "fused"))[1]
    anew = point.chosen_anew["sensitivity"]
    assert anew.low is None
    assert "resamples lack a class" in anew.reason
    assert anew.reason in point.reading


def test_weights_of_the_choice_count_rows():
    rng = np.random.default_rng(0)
    scores, low = rng.random(40), np.arange(40) % 2 == 0
    weights = rng.integers(0, 3, (20, 40)).astype(float)
    for rule in (("fixed_sensitivity", 0.8), ("fixed_specificity", 0.8), ("youden", None)):
        cuts = choose_thresholds(scores, low, weights, *rule)
        for cut, weight in zip(cuts, weights.astype(int), strict=True):
            seen, kinds = np.repeat(scores, weight), np.repeat(low, weight)
            alone = choose_threshold(seen, kinds, *rule)
            # the cut may lie elsewhere in the same gap between two rows that are there
            np.testing.assert_array_equal(seen >= cut, seen >= alone)
    lacking = np.where(low, 1.0, 0.0)[None]
    assert np.isnan(choose_thresholds(scores, low, lacking, "youden")).all()


def test_choosing_anew_widens_what_the_rule_leaves_free():
    table = folds_table(n=239, shares=(0.15, 0.85), arms=(("fused", 1.6),))
    points = {p.name: p for p in operating_points(out_of_fold(table, BINARY, "fused"))}
    assert points["half"].chosen_anew == {}
    point = points["fixed_specificity"]
    anew = point.chosen_anew["sensitivity"]
    assert anew.value == point.sensitivity.value
    assert anew.high - anew.low > 1.5 * (point.sensitivity.high - point.sensitivity.low)
    assert f"sensitivity {anew.low:.3f} to {anew.high:.3f}" in point.reading
    assert "Had another cohort" not in points["half"].reading


@pytest.mark.slow
def test_coverage_of_both_intervals_with_36_normals():
    """Wilson's for the thresholds as they are, the bootstrap's for the mean over cohorts."""
    separation, as_they_are, anew, values = 1.9, [], [], []
    for seed in range(150):
        table = folds_table(seed=seed, n=239, shares=(0.15, 0.85), arms=(("fused", separation),))
        rows = out_of_fold(table[table["repeat"] == 0], BINARY, "fused")
        point = operating_points(rows, resamples=200)[1]
        true = []
        for fold, cut in zip(rows.folds, point.thresholds, strict=True):
            line = np.polyfit(logit(fold.scores), logit(fold.raw), 1)  # back to the raw scale
            signal = np.polyval(line, logit(cut)) / separation
            true.append(norm.sf(signal - separation / 2))
        found, again = point.sensitivity, point.chosen_anew["sensitivity"]
        as_they_are.append(found.low <= np.mean(true) <= found.high)
        anew.append((again.low, again.high))
        values.append(found.value)
    covered = np.mean([low <= np.mean(values) <= high for low, high in anew])
    assert 0.91 <= np.mean(as_they_are) <= 0.99
    assert 0.91 <= covered <= 0.99
