from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from osteofusion.models import (
    CornHead,
    ProportionalOddsHead,
    SigmoidHead,
    TScoreHead,
    build_loss,
    classes_from_t_score,
)


def draw(seed, columns, classes, rows=20):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 3
    return scores, torch.randint(classes, (rows,), generator=generator)


def test_sigmoid_head_trains_as_binary_cross_entropy():
    scores, target = draw(0, 1, 2)
    logits = SigmoidHead(2)(scores)
    expected = binary_cross_entropy_with_logits(scores[:, 0], target.double())
    torch.testing.assert_close(build_loss("cross_entropy")(logits, target), expected)
    torch.testing.assert_close(logits.softmax(1)[:, 1], scores[:, 0].sigmoid())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_corn_agrees_with_coral_pytorch(seed, classes):
    corn_loss = pytest.importorskip("coral_pytorch.losses").corn_loss
    scores, target = draw(seed, classes - 1, classes)
    logits = CornHead(classes)(scores)
    # Ours is a mean over rows, theirs over the examples of all conditional tasks.
    examples = sum(int((target > task - 1).sum()) for task in range(classes - 1))
    ours = build_loss("cross_entropy")(logits, target) * len(target) / examples
    torch.testing.assert_close(ours, corn_loss(scores, target, classes), atol=1e-6, rtol=1e-6)
    above = logits.softmax(1).flip(1).cumsum(1).flip(1)[:, 1:]
    torch.testing.assert_close(above, scores.sigmoid().cumprod(1))  # as corn_label_from_logits


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_proportional_odds_cumulate_to_sigmoids_of_one_score(seed, classes):
    scores, target = draw(seed, 1, classes)
    head = ProportionalOddsHead(classes).double()
    probabilities = head(scores).softmax(1)
    above = probabilities.flip(1).cumsum(1).flip(1)[:, 1:]
    cumulative = scores - head.cuts()
    torch.testing.assert_close(above, cumulative.sigmoid())
    if classes == 2:  # with one cut there is one task, and the losses agree too
        expected = binary_cross_entropy_with_logits(cumulative[:, 0], target.double())
        torch.testing.assert_close(build_loss("cross_entropy")(head(scores), target), expected)


def test_cut_points_start_with_equal_classes_and_cannot_cross():
    head = ProportionalOddsHead(4)
    torch.testing.assert_close(head(torch.zeros(1, 1)).softmax(1), torch.full((1, 4), 0.25))
    with torch.no_grad():
        head.log_steps.copy_(torch.tensor([-20.0, 3.0]))
    assert (head.cuts().diff() >= 0).all()


@pytest.mark.parametrize("head", [CornHead(3), ProportionalOddsHead(3)])
def test_ordinal_heads_are_finite_far_out(head):
    scores = torch.tensor([[-300.0], [300.0]]).expand(2, head.num_scores).clone()
    scores.requires_grad_()
    logits = head(scores)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert scores.grad.isfinite().all()
    assert logits.argmax(1).tolist() == [0, 2]


def test_t_scores_are_read_by_the_who_thresholds():
    t_score = torch.tensor([0.3, -1.0, -1.01, -2.49, -2.5, -4.0])
    assert classes_from_t_score(t_score, "three_class").tolist() == [0, 0, 1, 1, 2, 2]
    assert classes_from_t_score(t_score, "binary").tolist() == [0, 0, 1, 1, 1, 1]
    assert classes_from_t_score(t_score, "osteoporosis").tolist() == [0, 0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="'four_class'"):
        classes_from_t_score(t_score, "four_class")


@pytest.mark.parametrize("task", ["binary", "osteoporosis", "three_class"])
def test_t_score_probabilities_follow_the_normal_distribution(task):
    head = TScoreHead(4)
    with torch.no_grad():
        head.log_scale.fill_(-0.4)
    expected = torch.tensor([-3.0, -1.2, 0.5])
    probabilities = head.probabilities(expected, task)
    torch.manual_seed(0)
    draws = torch.randn(200_000, 1) * head.log_scale.exp() + expected
    classes = classes_from_t_score(draws.flatten(), task).view(draws.shape)
    for column in range(probabilities.shape[1]):
        share = (classes == column).float().mean(0)
        torch.testing.assert_close(probabilities[:, column], share, atol=5e-3, rtol=0)


def test_t_score_head_learns_mean_and_deviation_and_skips_unknown_rows():
    torch.manual_seed(0)
    features = torch.randn(400, 3)
    t_score = features @ torch.tensor([0.5, -1.0, 0.0]) - 1.5 + 0.7 * torch.randn(400)
    t_score[::4] = torch.nan
    head = TScoreHead(3)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        head.loss(head(features), t_score.double()).backward()
        optimiser.step()
    torch.testing.assert_close(head.mean.weight[0], torch.tensor([0.5, -1, 0]), atol=0.1, rtol=0)
    assert 0.6 < head.log_scale.exp().item() < 0.8
    unknown = torch.full((4,), torch.nan)
    assert head.loss(head(features[:4]), unknown).item() == 0
