"""Fusions of two feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from osteofusion.models.fusion.base import CLINICAL, IMAGE, Fusion, SingleModality


class ConcatFusion(Fusion):
    """Normalise each modality, concatenate, and mix with one hidden layer.

    The layer norms keep a wide image encoding from drowning a narrow clinical one by its scale.

    Args:
        image_dim: Width of the image features.
        clinical_dim: Width of the clinical features.
        out_dim: Width of the output.
        dropout: Probability of dropping an output in training.
    """

    def __init__(
        self, image_dim: int, clinical_dim: int, out_dim: int = 64, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.image = SingleModality(image_dim, IMAGE)
        self.clinical = SingleModality(clinical_dim, CLINICAL)
        self.mix = nn.Sequential(
            nn.Linear(image_dim + clinical_dim, out_dim), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Fuse the features of each row."""
        both = [part(image, clinical, present) for part in (self.image, self.clinical)]
        fused: Tensor = self.mix(torch.cat(both, dim=1))
        return fused


class GatedFusion(Fusion):
    """Gated multimodal unit: per output, a gate weighs image against clinical values.

    Arevalo et al., arXiv 1702.01992. Departure: each modality passes a layer norm first.
    Arguments as in `ConcatFusion`.
    """

    def __init__(
        self, image_dim: int, clinical_dim: int, out_dim: int = 64, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.image = SingleModality(image_dim, IMAGE)
        self.clinical = SingleModality(clinical_dim, CLINICAL)
        self.from_image = nn.Linear(image_dim, out_dim)
        self.from_clinical = nn.Linear(clinical_dim, out_dim)
        self.gate = nn.Linear(image_dim + clinical_dim, out_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Fuse the features of each row."""
        gate = self.gates(image, clinical, present)
        image_part = self.from_image(self.image(image, clinical, present)).tanh()
        clinical_part = self.from_clinical(self.clinical(image, clinical, present)).tanh()
        fused: Tensor = self.dropout(gate * image_part + (1 - gate) * clinical_part)
        return fused

    def gates(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Return the share of the image in each output, (B, ``out_dim``) in (0, 1)."""
        both = [part(image, clinical, present) for part in (self.image, self.clinical)]
        gate: Tensor = self.gate(torch.cat(both, dim=1)).sigmoid()
        return gate
