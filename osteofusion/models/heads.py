"""From scores to class logits, and a regression of the T-score.

Whatever a head models, its logits have one column a class, and their softmax gives the class
probabilities. So every loss, class weight and metric works with every head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Task = Literal["binary", "osteoporosis", "three_class"]


class Outputs(NamedTuple):
    """All that one pass of the classifier yields; None where it has no such head.

    ``present`` is what the pass made use of, after modality dropout.
    """

    logits: Tensor
    present: Tensor
    image_logits: Tensor | None = None
    clinical_logits: Tensor | None = None
    t_score: Tensor | None = None


class SoftmaxHead(nn.Module):
    """One score a class. Shape: (B, C) -> (B, C)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_scores = num_classes

    def forward(self, scores: Tensor) -> Tensor:
        """Return the scores as they are."""
        return scores


class SigmoidHead(nn.Module):
    """A single score for two classes; cross-entropy then equals binary cross-entropy.

    Shape:
        (B, 1) -> (B, 2)

    Raises:
        ValueError: More than two classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes != 2:
            raise ValueError(f"num_classes is {num_classes}; the sigmoid head expects 2")
        self.num_scores = 1

    def forward(self, scores: Tensor) -> Tensor:
        """Return (0, score), whose softmax is the sigmoid of the score."""
        return torch.cat([torch.zeros_like(scores), scores], dim=1)


class CornHead(nn.Module):
    """Ordered classes by conditional probabilities (CORN; Shi et al., arXiv 2111.08851).

    Score k is the logit of P(y > k | y >= k). Cross-entropy on these logits is the sum of the
    paper's conditional tasks, divided by the rows instead of by all task examples.

    Shape:
        (B, C - 1) -> (B, C)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_scores = num_classes - 1

    def forward(self, scores: Tensor) -> Tensor:
        """Return the logarithms of the class probabilities."""
        passed = F.pad(F.logsigmoid(scores).cumsum(dim=1), (1, 0))
        return passed + F.pad(F.logsigmoid(-scores), (0, 1))


class ProportionalOddsHead(nn.Module):
    """Ordered classes by one score and ordered cut points (McCullagh 1980).

    P(y > k) = sigmoid(score - cut_k). As in CORAL one score serves all cuts, but here the cuts
    cannot cross, so the class probabilities are never negative.

    Shape:
        (B, 1) -> (B, C)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_scores = 1
        shares = torch.arange(1, num_classes) / num_classes  # equal classes at a score of zero
        cuts = shares.logit()
        self.first_cut = nn.Parameter(cuts[:1].clone())
        self.log_steps = nn.Parameter(cuts.diff().log())

    def cuts(self) -> Tensor:
        """Return the C - 1 increasing cut points."""
        return torch.cat([self.first_cut, self.log_steps.exp()]).cumsum(0)

    def forward(self, scores: Tensor) -> Tensor:
        """Return the logarithms of the class probabilities."""
        above = scores - self.cuts()
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), exact in the tails
        steps = torch.log(-torch.expm1(-self.log_steps.exp()))
        middle = F.logsigmoid(above[:, :-1]) + F.logsigmoid(-above[:, 1:]) + steps
        return torch.cat([F.logsigmoid(-above[:, :1]), middle, F.logsigmoid(above[:, -1:])], dim=1)


Head = SoftmaxHead | SigmoidHead | CornHead | ProportionalOddsHead
HEADS: dict[str, Callable[..., Head]] = {
    "softmax": SoftmaxHead,
    "sigmoid": SigmoidHead,
    "corn": CornHead,
    "proportional_odds": ProportionalOddsHead,
}


class TScoreHead(nn.Module):
    """A normal distribution of the T-score: its mean per row, and one deviation for all rows.

    It trains beside the classifier, with the T-score as target, never as input.

    Shape:
        (B, ``dim``) -> (B,)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, 1)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return the expected T-score of each row."""
        mean: Tensor = self.mean(features)
        return mean.squeeze(1)

    def loss(self, expected: Tensor, t_score: Tensor) -> Tensor:
        """Return the mean negative log-likelihood; rows whose ``t_score`` is NaN do not count."""
        known = ~t_score.isnan()
        target = torch.where(known, t_score.to(expected.dtype), expected.detach())
        error = (target - expected) / self.log_scale.exp()
        rows = known.sum().clamp(min=1)
        return ((error.square() / 2 + self.log_scale) * known).sum() / rows

    def probabilities(self, expected: Tensor, task: Task) -> Tensor:
        """Return class probabilities (B, C) of ``task`` by the WHO thresholds."""
        below = [
            ((threshold - expected) / (self.log_scale.exp() * math.sqrt(2))).erf() / 2 + 0.5
            for threshold in who_thresholds(task)
        ]
        edges = [torch.ones_like(expected), *below, torch.zeros_like(expected)]
        return torch.stack([a - b for a, b in pairwise(edges)], dim=1)


def who_thresholds(task: Task) -> tuple[float, ...]:
    """Return the T-scores that part the classes of ``task``, from normal downwards."""
    thresholds = {"binary": (-1.0,), "osteoporosis": (-2.5,), "three_class": (-1.0, -2.5)}
    if task not in thresholds:
        raise ValueError(f"task is {task!r}; expected one of {list(get_args(Task))}")
    return thresholds[task]


def classes_from_t_score(t_score: Tensor, task: Task) -> Tensor:
    """Read T-scores as class indices: T >= -1 is normal, T <= -2.5 osteoporosis (WHO).

    Shape:
        (B,) -> (B,) int64
    """
    reached = [
        t_score <= threshold if threshold == -2.5 else t_score < threshold
        for threshold in who_thresholds(task)
    ]
    return torch.stack(reached).sum(dim=0)
