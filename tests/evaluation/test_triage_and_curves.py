import numpy as np
import pytest
from decision_tables import folds_table
from fabricated import BINARY, THREE
from scipy.special import expit, logit

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.decision_curve import THRESHOLDS, decision_curve
from osteofusion.evaluation.out_of_fold import out_of_fold
from osteofusion.evaluation.triage import three_way_triage


def rows_of(classes=BINARY, **options):
    if len(classes) == 3:
        options.setdefault("shares", (0.3, 0.4, 0.3))
    return out_of_fold(folds_table(classes=classes, **options), classes, "fused")


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_bands_share_everybody_out_and_keep_their_targets(classes):
    rows = rows_of(classes, n=3000, arms=(("fused", 1.2),), repeats=1)
    (triage,) = three_way_triage(rows, [0.4], sensitivity=0.95, specificity=0.9)
    bands = triage.bands
    assert list(bands) == ["rule_out", "dxa", "rule_in"]
    for kind in ("share", "of_low", "of_normal"):
        total = sum(getattr(band, kind).value for band in bands.values())
        assert total == pytest.approx(1)
    assert bands["rule_out"].of_low.value == pytest.approx(0.05, abs=0.02)
    assert bands["rule_in"].of_normal.value == pytest.approx(0.1, abs=0.03)
    assert bands["dxa"].share.value > 0.2
    found = [bands[name].low_bmd.value for name in ("rule_out", "dxa", "rule_in")]
    assert found == sorted(found)
    assert "At a prevalence of 40%" in triage.reading


def test_errors_at_the_cohorts_prevalence_are_plain_counts():
    rows = rows_of(n=400, repeats=1, arms=(("fused", 1.0),))
    cohort = float(rows.low.mean())
    (triage,) = three_way_triage(rows, [cohort])
    for band in triage.bands.values():
        low = band.of_low.value * rows.low.sum()
        normal = band.of_normal.value * (~rows.low).sum()
        assert band.share.value == pytest.approx((low + normal) / 400)
        assert band.low_bmd.value == pytest.approx(low / (low + normal))
        assert band.normal.value == pytest.approx(normal / (low + normal))
        assert band.low_bmd.low < band.low_bmd.value < band.low_bmd.high


def test_a_clear_model_sends_nobody_to_dxa():
    rows = rows_of(n=400, arms=(("fused", 6.0),))
    (triage,) = three_way_triage(rows, [0.3])
    bands = triage.bands
    assert bands["dxa"].share.value == 0
    assert bands["dxa"].share.high > 0
    assert bands["dxa"].low_bmd.reason == "no row falls there"
    assert bands["rule_in"].of_low.value > 0.95


def test_a_triage_needs_folds_and_a_prevalence():
    with pytest.raises(EvaluationError, match="several test folds"):
        three_way_triage(rows_of(folds=1, repeats=1), [0.3])
    with pytest.raises(EvaluationError, match="prevalence is 30"):
        three_way_triage(rows_of(), [30])


def test_treat_all_follows_its_formula_and_crosses_zero_at_the_prevalence():
    curve = decision_curve({"fused": rows_of()}, 0.3, resamples=20)
    expected = 0.3 - 0.7 * THRESHOLDS / (1 - THRESHOLDS)
    np.testing.assert_allclose(curve.treat_all, expected)
    assert curve.treat_all[29] == pytest.approx(0)


def test_at_the_cohorts_prevalence_it_is_the_count_of_vickers_and_elkin():
    rows = rows_of(repeats=1, arms=(("fused", 1.2),))
    curve = decision_curve({"fused": rows}, float(rows.low.mean()), resamples=20)
    score = np.empty(len(rows.low))
    for fold in rows.folds:
        score[fold.rows] = fold.scores
    for threshold in (0.2, 0.5, 0.8):
        called = score >= threshold
        hits, alarms = (called & rows.low).sum(), (called & ~rows.low).sum()
        expected = hits / 240 - alarms / 240 * threshold / (1 - threshold)
        assert curve.arms["fused"][round(100 * threshold) - 1] == pytest.approx(expected)


def test_another_prevalence_moves_the_risks_and_the_weights():
    rows = rows_of(repeats=1, arms=(("fused", 1.2),))
    cohort, asked, threshold = float(rows.low.mean()), 0.2, 0.25
    curve = decision_curve({"fused": rows}, asked, resamples=20)
    score = np.empty(len(rows.low))
    for fold in rows.folds:
        score[fold.rows] = expit(logit(fold.scores) + logit(asked) - logit(cohort))
    called = score >= threshold
    expected = asked * called[rows.low].mean() - 0.8 * called[~rows.low].mean() / 3
    assert curve.arms["fused"][24] == pytest.approx(expected)


def test_a_sure_model_reaches_the_prevalence_and_a_blind_one_treats_all_or_none():
    sure = folds_table(n=100, repeats=1)
    right = sure["label"] == "low_bmd"
    sure["raw_low_bmd"], sure["raw_normal"] = np.where(right, 1.0, 0.0), np.where(right, 0.0, 1.0)
    blind = sure.assign(arm="age", raw_low_bmd=0.5, raw_normal=0.5)
    arms = {
        "fused": out_of_fold(sure, BINARY, "fused"),
        "age": out_of_fold(blind, BINARY, "age"),
    }
    curve = decision_curve(arms, 0.3, resamples=20)
    np.testing.assert_allclose(curve.arms["fused"][5:90], 0.3)
    np.testing.assert_allclose(curve.arms["age"][:20], curve.treat_all[:20])
    np.testing.assert_allclose(curve.arms["age"][45:], 0)


def test_the_band_holds_the_curve_and_widens_with_groups():
    table = folds_table(n=300, group_size=3, repeats=1, arms=(("fused", 1.2),))
    tied = decision_curve({"fused": out_of_fold(table, BINARY, "fused")}, 0.5)
    apart = table.assign(group=np.arange(300))
    free = decision_curve({"fused": out_of_fold(apart, BINARY, "fused")}, 0.5)
    middle = slice(20, 80)
    curve, low, high = (np.array(v)[middle] for v in (tied.arms["fused"], tied.low, tied.high))
    assert (low <= curve).all()
    assert (curve <= high).all()
    np.testing.assert_allclose(curve, np.array(free.arms["fused"])[middle])
    assert (high - low).mean() > (np.array(free.high) - free.low)[middle].mean()
    again = decision_curve({"fused": out_of_fold(table, BINARY, "fused")}, 0.5)
    assert again == tied


def test_a_curve_needs_both_kinds():
    rows = out_of_fold(folds_table(n=20).assign(label="normal"), BINARY, "fused")
    with pytest.raises(ValueError, match="both kinds"):
        decision_curve({"fused": rows}, 0.3)
