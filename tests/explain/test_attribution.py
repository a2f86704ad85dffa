"""Attributions, importance and the sanity check on models whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from spot_films import PREPROCESSING, spots

from osteofusion.errors import OsteofusionError
from osteofusion.explain.attribution import EncodedRows, encode_rows, explain_rows
from osteofusion.explain.importance import CLINICAL_ROW, RADIOGRAPH, permutation_importance
from osteofusion.explain.saliency import saliency_maps
from osteofusion.explain.sanity import sanity_check
from osteofusion.models import FusionClassifier

MISSING_WEIGHT, MISSING_JOB = 1, 3  # rows of `clinical`


def _odds(model, image, clinical, present):
    with torch.no_grad():
        p = model(image, clinical, present).double().softmax(dim=1)
    return (p[:, 1:].sum(1) / p[:, 0]).log().numpy()


@pytest.mark.parametrize("fusion", ["concat", "film", "residual_late"])
def test_effects_are_the_change_when_one_value_alone_is_replaced(build, clinical, fusion):
    model = build("cnn", fusion)
    pixels = torch.randint(0, 256, (4, 1, 32, 48), dtype=torch.uint8)
    present = torch.tensor([[True, True], [True, True], [False, True], [True, True]])
    batch = {"image": pixels, "clinical": clinical, "present": present}
    explained = explain_rows(model, encode_rows(model, [batch]))
    image = pixels / 255.0
    whole = _odds(model, image, clinical, present)
    names = PREPROCESSING["features"]
    for i, explanation in enumerate(explained):
        given = {each.name: each for each in explanation.attributions}
        absent = {MISSING_WEIGHT: {"weight"}, MISSING_JOB: {"job"}}.get(i, set())
        assert set(given) == set(names) - absent
        sizes = [abs(each.log_odds) for each in explanation.attributions]
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) > 0.01 or i == 2  # row 2 holds the fill in all numbers
        for name, each in given.items():
            changed = clinical.clone()
            changed[i, names.index(name)] = PREPROCESSING["fill"][names.index(name)]
            without = _odds(model, image, changed, present)[i]
            assert each.log_odds == pytest.approx(whole[i] - without, abs=1e-4)
            assert each.risk_without == pytest.approx(1 / (1 + np.exp(-without)), abs=1e-4)
        if i == 2:
            assert explanation.modalities == {}
            continue
        for column, name in enumerate(("image", "clinical")):
            withheld = present.clone()
            withheld[i, column] = False
            without = _odds(model, image, clinical, withheld)[i]
            assert explanation.modalities[name] == pytest.approx(whole[i] - without, abs=1e-4)


def test_an_arm_of_one_modality_has_no_effects_of_the_other(spotter):
    image, _ = spots(2, seed=3)
    batch = {
        "image": (image * 255).to(torch.uint8),
        "clinical": torch.full((2, 3), torch.nan, dtype=torch.float64),
        "present": torch.tensor([[True, False]] * 2),
    }
    for explanation in explain_rows(spotter, encode_rows(spotter, [batch])):
        assert explanation.attributions == []
        assert explanation.modalities == {}


def _cohort(model, n=120):
    """Rows whose truth follows age alone; the model reads age and, in the image, nothing."""
    rng = np.random.default_rng(0)
    age = rng.normal(50, 10, n)
    clinical = torch.tensor(np.column_stack([age, rng.normal(70, 15, n), rng.integers(0, 3, n)]))
    low = age + rng.normal(0, 5, n) > 50
    present = torch.ones(n, 2, dtype=torch.bool)
    features = torch.from_numpy(rng.random((n, 12), dtype=np.float32))
    return EncodedRows(features, clinical, present), low


@pytest.fixture
def by_age(build):
    """A fused model whose only way to the scores is the age."""
    model = build("cnn", "concat")
    with torch.no_grad():
        for parameter in (*model.head.parameters(), *model.skip.parameters()):
            parameter.zero_()
        model.skip.weight[1:, 0] = 2.0
    return model


def test_importance_is_that_of_the_input_the_answers_rest_on(by_age):
    rows, low = _cohort(by_age)
    groups = list(range(len(low)))
    found = permutation_importance(by_age, rows, low, groups, repeats=20)
    by_name = {each.name: each for each in found}
    assert set(by_name) == {"age", "weight", "job", CLINICAL_ROW, RADIOGRAPH}
    for name in ("weight", "job", RADIOGRAPH):
        assert (by_name[name].lost, by_name[name].low, by_name[name].high) == (0, 0, 0)
    for name in ("age", CLINICAL_ROW):
        assert by_name[name].low > 0.2
        assert by_name[name].low <= by_name[name].lost <= by_name[name].high < 0.6
    assert [each.lost for each in found] == sorted((e.lost for e in found), reverse=True)
    assert found == permutation_importance(by_age, rows, low, groups, repeats=20)
    assert found != permutation_importance(by_age, rows, low, groups, repeats=20, seed=99)


def test_a_shuffled_row_takes_its_absence_along(by_age):
    """Ages that half of the rows lack are lost with the rows; nobody keeps a filled one."""
    rows, low = _cohort(by_age)
    present = rows.present.clone()
    present[::2, 1] = False
    found = permutation_importance(
        by_age, replace(rows, present=present), low, list(range(len(low))), repeats=10
    )
    by_name = {each.name: each for each in found}
    assert 0.05 < by_name[CLINICAL_ROW].lost < 0.35


def test_importance_refuses_rows_that_cannot_be_shuffled_or_scored(by_age):
    rows, low = _cohort(by_age)
    with pytest.raises(OsteofusionError, match="with and without low BMD"):
        permutation_importance(by_age, rows, np.ones_like(low), list(range(len(low))))
    with pytest.raises(OsteofusionError, match="one split group holds most"):
        permutation_importance(by_age, rows, low, [0] * len(low))


def test_maps_of_a_trained_network_pass_and_those_of_an_edge_filter_fail(spotter):
    image, _ = spots(16, seed=4)
    present = torch.ones(16, 2, dtype=torch.bool)
    before = {name: value.clone() for name, value in spotter.state_dict().items()}
    check = sanity_check(
        spotter, lambda model: saliency_maps(model, image, None, present), "gradcam"
    )
    assert check.n == 16
    assert check.passed
    assert "passed" in check.verdict
    # From the output to the input: the head, then the dense layer and both blocks.
    assert len(check.cascade) == 4
    assert list(check.cascade)[1] == "encoder stage 3 of 3"
    assert abs(list(check.cascade.values())[-1]) <= 0.5
    assert all(torch.equal(value, before[name]) for name, value in spotter.state_dict().items())

    edges = np.abs(np.diff(image.numpy()[:, 0], axis=1))
    failed = sanity_check(spotter, lambda model: edges, "edges")
    assert not failed.passed
    assert failed.randomised == pytest.approx(1)
    assert set(failed.cascade.values()) == {failed.randomised}
    assert failed.verdict.startswith("SANITY CHECK FAILED")


def test_flat_maps_do_not_pass(spotter):
    check = sanity_check(spotter, lambda model: np.ones((3, 4, 4), np.float32), "flat")
    assert check.n == 0
    assert not check.passed


def test_random_weights_whose_maps_are_flat_show_nothing(spotter):
    def explain(model):
        own = np.random.default_rng(0).random((3, 4, 4), dtype=np.float32)
        return own if model is spotter else np.zeros_like(own)

    check = sanity_check(spotter, explain, "gradcam")
    assert (check.n, check.flat, check.randomised) == (3, 3, 0)
    assert not check.passed
    assert "was not shown" in check.verdict


def test_the_cascade_ends_at_weights_that_were_never_trained(spotter):
    """After the last part nothing of the trained model is left."""
    seen: list[FusionClassifier] = []

    def explain(model):
        seen.append(model)
        return np.random.default_rng(len(seen)).random((2, 4, 4), dtype=np.float32)

    sanity_check(spotter, explain, "none", seed=5)
    torch.manual_seed(5)
    fresh = FusionClassifier.from_config(spotter.config).state_dict()
    cascaded = seen[-2].state_dict()
    torch.testing.assert_close(dict(cascaded), dict(fresh), rtol=0, atol=0)
