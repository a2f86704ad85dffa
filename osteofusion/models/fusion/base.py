"""The contract of all fusions, and the parts they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

IMAGE, CLINICAL = 0, 1  # columns of `present`


class Fusion(nn.Module, ABC):
    """Base of all fusions: ``forward(image, clinical, present) -> (B, out_dim)``.

    Row i of the output depends on row i of the inputs alone. Values passed for an absent modality,
    NaN included, change nothing.

    Class attributes say what a fusion takes: ``image_input`` a pooled vector or a feature map,
    ``clinical_input`` a vector or tokens.

    Shape:
        - ``image``: (B, ``image_dim``), or (B, ``image_dim``, h, w) where a map is taken
        - ``clinical``: (B, ``clinical_dim``), or (B, T, ``clinical_dim``) where tokens are taken
        - ``present``: (B, 2) bool, column 0 image, column 1 clinical
        - output: (B, ``out_dim``)
    """

    image_input: ClassVar[Literal["vector", "map"]] = "vector"
    clinical_input: ClassVar[Literal["vector", "tokens"]] = "vector"
    out_dim: int

    @abstractmethod
    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Fuse the features of each row."""

    def clinical_weight(self, present: Tensor) -> Tensor:
        """Return the factor, (B, 1) or (B, ``out_dim``), of scores added by a clinical model."""
        return present[:, CLINICAL, None].float()

    def corrections(self) -> list[Tensor]:
        """Return weights (``out_dim``, D) of scores that are added to a clinical model's."""
        return []


class MissingToken(nn.Module):
    """A learned stand-in for the features of an absent modality.

    Args:
        dim: Width of the features.
        column: Column of ``present`` that belongs to the modality.
        feature_axis: Axis of the features that ``dim`` counts.
    """

    def __init__(self, dim: int, column: int, feature_axis: int = 1) -> None:
        super().__init__()
        self.column = column
        self.feature_axis = feature_axis
        self.token = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Return the features with the token wherever the modality is absent."""
        here, token = [1] * features.ndim, [1] * features.ndim
        here[0], token[self.feature_axis] = -1, -1
        return torch.where(
            present[:, self.column].view(here), features, self.token.to(features.dtype).view(token)
        )


class SingleModality(Fusion):
    """One modality's normalised features; the other is not looked at.

    It stands in for a fusion in the single arms, and prepares a modality inside other fusions.

    Args:
        dim: Width of the features.
        column: Column of ``present`` that belongs to the modality.
    """

    def __init__(self, dim: int, column: int) -> None:
        super().__init__()
        self.out_dim = dim
        self.missing = MissingToken(dim, column)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Normalise the features of each row, or the learned token where they are absent."""
        features = (image, clinical)[self.missing.column]
        normalised: Tensor = self.norm(self.missing(features, present))
        return normalised


def score_head(dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Return layers that turn features of one modality into scores."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, out_dim))
