from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from osteofusion.models import FusionClassifier, build_loss

ARMS = ["fused", "image", "tabular"]
IMAGE = {"backbone": "resnet10t"}


def build(spec, arm="fused", **options):
    return FusionClassifier(3, arm=arm, preprocessing=spec, image_encoder=IMAGE, **options)


@pytest.mark.parametrize("arm", ARMS)
def test_arms_hold_only_what_they_use(spec, batch, arm):
    model = build(spec, arm).eval()
    assert (model.image_encoder is None) == (arm == "tabular")
    assert (model.clinical_encoder is None) == (arm == "image")
    image, clinical, present = batch
    logits = model(image, clinical, present)
    assert logits.shape == (8, 3)
    torch.testing.assert_close(model.probabilities(logits).sum(1), torch.ones(8))
    alone = model(image if arm != "tabular" else None, clinical if arm != "image" else None)
    assert torch.equal(alone, logits)


@pytest.mark.parametrize("arm", ARMS)
def test_rebuilds_from_json_and_weights(spec, batch, arm):
    model = build(spec, arm).eval()
    again = FusionClassifier.from_config(json.loads(json.dumps(model.config))).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*batch), model(*batch))


def test_config_never_asks_for_weights_again(spec):
    model = FusionClassifier(
        2,
        preprocessing=spec,
        image_encoder={"backbone": "tf_efficientnet_lite0", "pretrained": True},
    )
    assert "pretrained" not in model.config["image_encoder"]


@pytest.mark.parametrize("column", [0, 1])
def test_absent_modality_leaks_neither_values_nor_gradients(spec, batch, column):
    image, clinical, present = batch
    present[2:5, column] = False
    poisoned = [image.clone(), clinical.clone()]
    poisoned[column][2:5] = torch.nan if column == 0 else torch.inf
    for training in (False, True):
        results = []
        for inputs in ((image, clinical), poisoned):
            torch.manual_seed(0)
            model = build(spec)
            model.train(training)
            torch.manual_seed(1)
            logits = model(*inputs, present)
            logits.square().sum().backward()
            results.append([logits, *[p.grad for p in model.parameters()]])
        for clean, dirty in zip(*results, strict=True):
            assert torch.equal(clean, dirty)


def test_present_images_alone_reach_batch_norm(spec, batch):
    image, clinical, present = batch
    present[4:, 0] = False
    torch.manual_seed(3)
    some = build(spec)
    torch.manual_seed(3)
    half = build(spec)
    some(image, clinical, present)
    half(image[:4], clinical[:4], present[:4])
    for ours, theirs in zip(some.buffers(), half.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_batch_without_any_image_still_trains_every_parameter(spec, batch):
    image, clinical, present = batch
    present[:, 0] = False
    model = build(spec)
    model(image, clinical, present).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_linear_path_starts_at_zero_and_learns(spec, batch):
    model = build(spec, "tabular")
    assert not model.skip.weight.any()
    _, clinical, _ = batch
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    target = (clinical[:, 0] > clinical[:, 0].median()).long()
    for _ in range(150):
        optimiser.zero_grad()
        loss = build_loss("cross_entropy")(model(clinical=clinical), target)
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    assert model.skip.weight.any()


def test_start_from_regression_agrees_with_scikit_learn(spec):
    torch.manual_seed(0)
    clinical = torch.randn(120, 4, dtype=torch.float64) * 8 + 60
    clinical[:, 2:] = torch.randint(3, (120, 2))
    clinical[::7, 1] = torch.nan
    target = (clinical[:, 0] + 8 * torch.randn(120) > 62).long()
    model = FusionClassifier(2, arm="tabular", preprocessing=spec, head="sigmoid").eval()
    model.start_from_regression(clinical, target, class_weights=None, prior_sd=0.5)
    values = model.preprocessing(clinical).numpy()
    values[:, :3] /= values[:, :3].std(axis=0)
    reference = LogisticRegression(C=0.5**2, max_iter=10_000, tol=1e-10)
    expected = reference.fit(values, target.numpy()).predict_proba(values)
    with torch.no_grad():
        probabilities = model.probabilities(model(clinical=clinical)).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


@pytest.mark.parametrize("head", ["softmax", "corn", "proportional_odds"])
@pytest.mark.parametrize("fusion", ["concat", "residual_late"])
def test_fused_model_starts_as_the_regression_whatever_the_image(spec, batch, head, fusion):
    image, clinical, _ = batch
    target = torch.arange(8) % 3
    options = {"preprocessing": spec, "image_encoder": IMAGE, "head": head}
    tabular = FusionClassifier(3, arm="tabular", **options).eval()
    fused = FusionClassifier(3, fusion={"name": fusion}, **options).eval()
    for model in (tabular, fused):
        model.start_from_regression(clinical, target, class_weights=[1.0, 2.0, 3.0])
    expected = tabular(clinical=clinical)
    assert len(expected.unique(dim=0)) == 8
    for other in (image, 1 - image):
        torch.testing.assert_close(fused(other, clinical), expected)


def test_start_from_regression_refuses(spec, batch):
    with pytest.raises(ValueError, match="no clinical values"):
        build(spec, "image").start_from_regression(batch[1], torch.zeros(8).long())
    with pytest.raises(ValueError, match="prior_sd is 0"):
        build(spec).start_from_regression(batch[1], torch.zeros(8).long(), prior_sd=0)
    with pytest.raises(ValueError, match="8 rows, target 3"):
        build(spec).start_from_regression(batch[1], torch.zeros(3).long())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, c, p: (i[:, 0], c, p), r"image is \(8, 64, 64\) float32; expected \(B, 1, H, W"),
        (lambda i, c, p: (i.expand(-1, 3, -1, -1), c, p), r"image is \(8, 3, 64, 64\)"),
        (lambda i, c, p: ((i * 255).byte(), c, p), r"uint8; expected"),
        (lambda i, c, p: (i * 255, c, p), r"span .* expected intensities in \[0, 1\]"),
        (lambda i, c, p: (i * torch.nan, c, p), "NaN"),
        (lambda i, c, p: (i, c[:, :3], p), r"clinical is \(8, 3\) float64; expected \(B, 4\)"),
        (lambda i, c, p: (i, c.float(), p), "float32; expected .* float64"),
        (lambda i, c, p: (i, c * torch.inf, p), r"columns \[0, 1, 2, 3\] hold infinite"),
        (lambda i, c, p: (i, None, p), "clinical is None"),
        (lambda i, c, p: (None, c, p), "image is None"),
        (lambda i, c, p: (i[:7], c, p), r"rows differ: \{'image': 7, 'clinical': 8"),
        (lambda i, c, p: (i, c, p.int()), r"present is \(8, 2\) int32; expected \(B, 2\) bool"),
        (lambda i, c, p: (i, c, p & (torch.arange(8) != 5)[:, None]), r"rows \[5\] have no modal"),
    ],
)
def test_boundary_refuses(spec, batch, change, message):
    with pytest.raises(ValueError, match=message):
        build(spec).validate(*change(*batch))


def test_boundary_lets_through_what_forward_can_use(spec, batch):
    image, clinical, present = batch
    build(spec).validate(image, clinical, present)
    present[0, 0] = False
    image[0] = torch.nan
    build(spec).validate(image, clinical, present)
    build(spec, "tabular").validate(None, clinical)
    with pytest.raises(ValueError, match=r"rows \[0\] lack the only modality of the image arm"):
        build(spec, "image").validate(image, None, present)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 2, "arm": "both"}, "arm is 'both'"),
        ({"num_classes": 2, "arm": "tabular"}, "preprocessing is None"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier(**options)


def test_import_needs_neither_lightning_nor_pandas_nor_opencv():
    banned = ("lightning", "pytorch_lightning", "pandas", "cv2", "sklearn", "albumentations")
    code = f"import sys; sys.modules |= dict.fromkeys({banned}); import osteofusion.models"
    subprocess.run([sys.executable, "-c", code], check=True)
