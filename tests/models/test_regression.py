"""The regression that the clinical side starts from: its priors, and that training keeps it."""

from __future__ import annotations

import pytest
import torch

from osteofusion.models import FUSIONS, FusionClassifier
from osteofusion.models.heads import ProportionalOddsHead, SigmoidHead
from osteofusion.models.regression import fit_regression, prior_deviations


@pytest.fixture
def rows():
    torch.manual_seed(0)
    values = torch.randn(150, 4, dtype=torch.float64)
    target = (values[:, 0] + values[:, 1] + torch.randn(150) > 0.8).long()
    return values, target


def test_a_prior_on_each_value_is_the_same_prior_on_scaled_values(rows):
    values, target = rows
    sd = torch.tensor([1.0, 0.25, 0.1, 2.0], dtype=torch.float64)
    link = SigmoidHead(2)
    weight, bias, _ = fit_regression(values, target, link, 1, None, sd.tolist())
    scaled, same, _ = fit_regression(values * sd, target, link, 1, None, 1.0)
    # The optimiser stops where the loss no longer changes, which leaves 3e-5 of the weights open.
    torch.testing.assert_close(weight, scaled * sd, atol=1e-4, rtol=0)
    torch.testing.assert_close(bias, same, atol=1e-4, rtol=0)


def test_established_risk_factors_are_shrunk_less():
    assert prior_deviations(["age", "hobby", "age missing", "bmi"]) == [1.0, 0.25, 0.25, 1.0]


def test_by_default_age_outweighs_an_equally_good_stranger(rows):
    values, target = rows
    names = ["age", "hobby"]
    spec = {
        "features": names,
        "fill": [0.0, 0.0],
        "numeric": {"columns": [0, 1], "mean": [0.0, 0.0], "scale": [1.0, 1.0]},
        "indicators": [],
        "one_hot": {"columns": [], "codes": []},
        "names": names,
    }
    twice = values[:, :1].repeat(1, 2)
    model = FusionClassifier(2, arm="tabular", preprocessing=spec, head="proportional_odds")
    model.start_from_regression(twice, target)
    age, hobby = model.skip.weight[0].tolist()
    assert age == pytest.approx(16 * hobby, rel=1e-3)  # as the variances of their priors


@pytest.mark.parametrize("head", [SigmoidHead, ProportionalOddsHead])
def test_class_weights_move_the_threshold_and_not_the_order(rows, head):
    values, target = rows
    plain, bias, link = fit_regression(values, target, head(2), 1)
    weighted, other, moved = fit_regression(values, target, head(2), 1, [5.0, 1.0])
    torch.testing.assert_close(plain, weighted, atol=1e-6, rtol=0)
    with torch.no_grad():
        before = link(values @ plain.T + bias).softmax(1)[:, 1].mean()
        after = moved(values @ weighted.T + other).softmax(1)[:, 1].mean()
    assert after < before - 0.1


def test_as_many_deviations_as_values(rows):
    with pytest.raises(ValueError, match="prior_sd has 2 entries; expected 4"):
        fit_regression(*rows, SigmoidHead(2), 1, None, [1.0, 1.0])


@pytest.mark.parametrize("arm", ["tabular", "fused"])
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_training_keeps_the_regression_and_can_still_correct_it(spec, batch, arm, fusion):
    image, clinical, present = batch
    target = torch.arange(8) % 2
    model = FusionClassifier(
        2,
        arm=arm,
        preprocessing=spec,
        image_encoder={"name": "cnn", "channels": [4], "num_features": 8},
        fusion={"name": fusion},
        head="proportional_odds",
        dropout=0.0,
    )
    model.start_from_regression(clinical, target)
    model.keep_regression()
    kept = [p.clone() for part in (model.skip, model.link) for p in part.parameters()]
    model.eval()
    before = model(image, clinical, present).detach()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(image, clinical, present), target).backward()
        optimiser.step()
    for parameter, was in zip(
        [*model.skip.parameters(), *model.link.parameters()], kept, strict=True
    ):
        assert torch.equal(parameter, was)
    assert not torch.allclose(model(image, clinical, present), before, atol=0.05)


@pytest.mark.parametrize(
    ("arm", "fusion"), [("tabular", "concat"), ("fused", "late"), ("fused", "residual_late")]
)
def test_the_penalty_is_of_what_is_added_to_the_regression(spec, batch, arm, fusion):
    options = {"preprocessing": spec, "fusion": {"name": fusion}, "head": "proportional_odds"}
    options["image_encoder"] = {"name": "cnn", "channels": [4], "num_features": 8}
    model = FusionClassifier(2, arm=arm, **options)
    model.start_from_regression(batch[1], torch.arange(8) % 2)
    assert model.correction_penalty() == 0
    layer = model.head[1] if arm == "tabular" else model.fusion.clinical_head[-1]
    with torch.no_grad():
        layer.weight.fill_(0.1)
    # Features of unit variance then have a score of deviation 0.1 sqrt(D); its prior is 1.
    width = layer.weight.shape[1]
    assert float(model.correction_penalty().detach()) == pytest.approx(0.01 * width**2 / 2)


def test_fusions_that_mix_both_modalities_are_not_penalised(spec):
    model = FusionClassifier(2, preprocessing=spec, image_encoder={"name": "cnn"})
    assert model.correction_penalty() == 0
