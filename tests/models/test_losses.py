from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from torchvision.ops import sigmoid_focal_loss

from osteofusion.models import FocalLoss, balanced_class_weights, build_loss


def draw(seed, classes, rows=16):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(classes, (rows,), generator=generator)
    weights = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1
    return logits, target, weights


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 5), st.floats(0, 0.5))
def test_focal_without_focus_is_weighted_cross_entropy(seed, classes, smoothing):
    logits, target, weights = draw(seed, classes)
    expected = cross_entropy(logits, target, weights, label_smoothing=smoothing)
    for name, options in (("focal", {"gamma": 0.0}), ("cross_entropy", {})):
        loss = build_loss(name, weights.tolist(), label_smoothing=smoothing, **options)
        torch.testing.assert_close(loss(logits, target), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.floats(0, 5), st.floats(0.05, 0.95))
def test_binary_focal_agrees_with_torchvision(seed, gamma, alpha):
    logits, target, _ = draw(seed, 2)
    expected = sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], target.double(), alpha=alpha, gamma=gamma, reduction="mean"
    )
    torch.testing.assert_close(
        FocalLoss(gamma, alpha)(logits, target), expected, atol=1e-6, rtol=1e-6
    )


def test_alpha_beyond_two_classes():
    logits, target, _ = draw(1, 3)
    plain = FocalLoss(2.0)(logits, target)
    torch.testing.assert_close(FocalLoss(2.0, 0.25)(logits, target), 0.25 * plain)
    alpha = torch.tensor([0.2, 0.5, 0.9])
    rows = torch.stack(
        [
            FocalLoss(2.0)(row[None], label[None]) * alpha[label]
            for row, label in zip(logits, target, strict=True)
        ]
    )
    torch.testing.assert_close(FocalLoss(2.0, alpha.tolist())(logits, target), rows.mean())


def test_balanced_class_weights_agree_with_scikit_learn():
    labels = np.repeat([0, 1, 2], [36, 154, 49])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_class_weights([36, 154, 49]), expected)
    with pytest.raises(ValueError, match=r"\[3, 0\].*at least one"):
        balanced_class_weights([3, 0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradient_is_finite_where_the_model_is_certain(gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    for target in ([0, 1], [1, 0]):
        (gradient,) = torch.autograd.grad(FocalLoss(gamma)(logits, torch.tensor(target)), logits)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FocalLoss(gamma=-1.0), "gamma is -1.0"),
        (lambda: FocalLoss(label_smoothing=1.0), "label_smoothing is 1.0"),
        (lambda: FocalLoss(class_weights=[1.0, -1.0]), "none negative"),
        (lambda: build_loss("hinge"), "'hinge'; expected one of"),
        (lambda: build_loss("cross_entropy", gamma=2.0), "argument 'gamma'"),
        (lambda: FocalLoss(alpha=[1.0, 2.0])(torch.zeros(1, 3), torch.zeros(1).long()), "alpha.*3"),
        (
            lambda: build_loss("focal", [1.0, 2.0])(torch.zeros(1, 3), torch.zeros(1).long()),
            "class_weights has 2 entries; expected 3",
        ),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
