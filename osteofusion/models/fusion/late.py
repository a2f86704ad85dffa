"""Late fusions: scores of each modality, then one sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from osteofusion.models.fusion.base import CLINICAL, IMAGE, Fusion, SingleModality, score_head


class ScoreFusion(Fusion):
    """Base of late fusions: the output holds class scores, and ``out_dim`` is their number."""

    clinical_head: nn.Sequential

    def corrections(self) -> list[Tensor]:
        """Return the weights of the scores that the clinical encoder adds."""
        weight: Tensor = self.clinical_head[-1].weight  # type: ignore[assignment]
        return [weight]


class LateFusion(ScoreFusion):
    """One head per modality, and a weighted mean of their scores.

    Where a modality is absent, the other takes all the weight.

    Args:
        image_dim: Width of the image features.
        clinical_dim: Width of the clinical features.
        out_dim: Number of class scores.
        image_weight: Fixed share of the image in [0, 1]; learned, one per score, if None.
        dropout: Probability of dropping a feature before each head in training.
    """

    def __init__(
        self,
        image_dim: int,
        clinical_dim: int,
        out_dim: int,
        image_weight: float | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if image_weight is not None and not 0 <= image_weight <= 1:
            raise ValueError(f"image_weight is {image_weight}; expected a share in [0, 1]")
        self.out_dim = out_dim
        self.image_head = score_head(image_dim, out_dim, dropout)
        self.clinical_head = score_head(clinical_dim, out_dim, dropout)
        self.weight_logit: nn.Parameter | None = None
        if image_weight is None:
            self.weight_logit = nn.Parameter(torch.zeros(out_dim))
            image_weight = 0.5
        self.fixed_share = 1 - image_weight

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Return the weighted mean of both modalities' scores."""
        share = self.clinical_weight(present)
        clinical_scores: Tensor = self.clinical_head(_blank(clinical, present[:, CLINICAL]))
        image_scores: Tensor = self.image_head(_blank(image, present[:, IMAGE]))
        return clinical_scores * share + image_scores * (1 - share)

    def clinical_weight(self, present: Tensor) -> Tensor:
        """Return the share of the clinical values in each score, (B, ``out_dim``)."""
        if self.weight_logit is None:
            share = present.new_full((self.out_dim,), self.fixed_share, dtype=torch.float)
        else:
            share = 1 - self.weight_logit.sigmoid()
        image, clinical = present[:, IMAGE, None], present[:, CLINICAL, None]
        both_or_image = torch.where(clinical, share, torch.zeros_like(share))
        return torch.where(image, both_or_image, torch.ones_like(share))


class ResidualLateFusion(ScoreFusion):
    """The clinical arm, plus a correction by the image that starts at zero.

    A fused model that begins as a fitted clinical arm (`FusionClassifier.load_clinical_arm`) cannot
    start out worse than it. The correction is shrunk by tanh of one factor per score; weight decay
    pulls it back to the clinical arm.

    Args:
        image_dim: Width of the image features.
        clinical_dim: Width of the clinical features.
        out_dim: Number of class scores.
        dropout: Probability of dropping a feature before each head in training.
    """

    def __init__(
        self, image_dim: int, clinical_dim: int, out_dim: int, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.clinical = SingleModality(clinical_dim, CLINICAL)
        self.clinical_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(clinical_dim, out_dim))
        self.correction = score_head(image_dim, out_dim, dropout)
        self.shrinkage = nn.Parameter(torch.zeros(out_dim))

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Return the clinical scores, corrected where there is an image."""
        here = present[:, IMAGE]
        correction: Tensor = self.correction(_blank(image, here)) * self.shrinkage.tanh()
        scores: Tensor = self.clinical_head(self.clinical(image, clinical, present))
        return scores + correction * here[:, None]

    def corrections(self) -> list[Tensor]:
        """Return the weights of the scores that the clinical encoder and the image add."""
        weight: Tensor = self.correction[-1].weight  # type: ignore[assignment]
        return [*super().corrections(), weight * self.shrinkage.tanh()[:, None]]


def _blank(features: Tensor, here: Tensor) -> Tensor:
    """Zero absent rows by `where`; a product would keep their NaN."""
    return torch.where(here[:, None], features, torch.zeros_like(features))
