"""Fusions of image and clinical features, all under one contract."""

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

    Class attributes say what a fusion takes and gives: ``image_input`` a pooled vector or a feature
    map, ``clinical_input`` a vector or tokens, ``gives_scores`` whether the output already holds
    class scores (then ``out_dim`` is their number) instead of features for a head.

    Shape:
        - ``image``: (B, ``image_dim``), or (B, ``image_dim``, h, w) where a map is taken
        - ``clinical``: (B, ``clinical_dim``), or (B, T, ``clinical_dim``) where tokens are taken
        - ``present``: (B, 2) bool, column 0 image, column 1 clinical
        - output: (B, ``out_dim``)
    """

    image_input: ClassVar[Literal["vector", "map"]] = "vector"
    clinical_input: ClassVar[Literal["vector", "tokens"]] = "vector"
    gives_scores: ClassVar[bool] = False
    out_dim: int

    @abstractmethod
    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Fuse the features of each row."""

    def clinical_weight(self, present: Tensor) -> Tensor:
        """Return the factor, (B, 1) or (B, ``out_dim``), of scores added by a clinical model."""
        return present[:, CLINICAL, None].float()


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


class _AffineFusion(Fusion):
    """Scale and shift the channels of a feature map by what the clinical values say.

    The map is first reduced to ``out_dim`` normalised channels, which keeps wide backbones cheap;
    after the modulation come ReLU and the spatial mean. Subclasses fill ``affine``.
    """

    image_input = "map"
    affine: nn.Sequential

    def __init__(self, image_dim: int, clinical_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.missing_image = MissingToken(image_dim, IMAGE)
        self.clinical = SingleModality(clinical_dim, CLINICAL)
        self.reduce = nn.Sequential(
            nn.Conv2d(image_dim, out_dim, 1, bias=False), nn.GroupNorm(1, out_dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Fuse the features of each row."""
        channels = self.reduce(self.missing_image(image, present))
        condition = self._condition(channels, self.clinical(image, clinical, present))
        scale, shift = self.affine(condition)[:, :, None, None].chunk(2, dim=1)
        modulated = (channels * (1 + scale) + shift).relu()
        fused: Tensor = self.dropout(modulated.mean(dim=(2, 3)))
        return fused

    def _condition(self, channels: Tensor, clinical: Tensor) -> Tensor:
        raise NotImplementedError


class FiLMFusion(_AffineFusion):
    """Feature-wise linear modulation of the image's feature map (Perez et al., arXiv 1709.07871).

    The clinical values give a scale and a shift per channel; both start at zero effect.
    Arguments as in `ConcatFusion`, with the channels of the map as ``image_dim``.
    """

    def __init__(
        self, image_dim: int, clinical_dim: int, out_dim: int = 64, dropout: float = 0.2
    ) -> None:
        super().__init__(image_dim, clinical_dim, out_dim, dropout)
        self.affine = nn.Sequential(_zeroed(nn.Linear(clinical_dim, 2 * out_dim)))

    def _condition(self, channels: Tensor, clinical: Tensor) -> Tensor:
        return clinical


class DAFTFusion(_AffineFusion):
    """Dynamic affine feature map transform (Pölsterl et al., arXiv 2107.05990).

    Scale and shift depend on the clinical values and on the image itself, through a bottleneck a
    seventh as wide as its input, as in the paper. Departure: the last layer starts at zero, so the
    transform is the identity at initialisation. Arguments as in `FiLMFusion`.
    """

    def __init__(
        self, image_dim: int, clinical_dim: int, out_dim: int = 64, dropout: float = 0.2
    ) -> None:
        super().__init__(image_dim, clinical_dim, out_dim, dropout)
        width = out_dim + clinical_dim
        bottleneck = max(width // 7, 4)
        self.affine = nn.Sequential(
            nn.Linear(width, bottleneck, bias=False),
            nn.ReLU(),
            _zeroed(nn.Linear(bottleneck, 2 * out_dim, bias=False)),
        )

    def _condition(self, channels: Tensor, clinical: Tensor) -> Tensor:
        return torch.cat([channels.mean(dim=(2, 3)), clinical], dim=1)


class CrossAttentionFusion(Fusion):
    """Clinical tokens attend to image patches; a gated residual takes in what they find.

    The gate is tanh of a parameter that starts at zero (Alayrac et al., arXiv 2204.14198), so the
    fusion starts from the clinical tokens alone. Attention runs over the patches of one row, never
    across the batch.

    Args:
        image_dim: Channels of the feature map.
        clinical_dim: Width of a clinical token.
        out_dim: Width of the attention and of the output; a multiple of ``heads``.
        heads: Number of attention heads.
        dropout: Dropout of attention weights and outputs in training.
    """

    image_input = "map"
    clinical_input = "tokens"

    def __init__(
        self,
        image_dim: int,
        clinical_dim: int,
        out_dim: int = 64,
        heads: int = 4,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if out_dim % heads:
            raise ValueError(f"out_dim is {out_dim}; expected a multiple of heads ({heads})")
        self.out_dim = out_dim
        self.missing_image = MissingToken(image_dim, IMAGE)
        self.missing_clinical = MissingToken(clinical_dim, CLINICAL, feature_axis=2)
        self.patches = nn.Sequential(nn.Linear(image_dim, out_dim), nn.LayerNorm(out_dim))
        self.tokens = nn.Sequential(nn.Linear(clinical_dim, out_dim), nn.LayerNorm(out_dim))
        self.attention = nn.MultiheadAttention(out_dim, heads, dropout, batch_first=True)
        self.gate = nn.Parameter(torch.zeros(()))
        self.output = nn.Sequential(nn.LayerNorm(out_dim), nn.Dropout(dropout))

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Fuse the features of each row."""
        patches = self.patches(self.missing_image(image, present).flatten(2).mT)
        tokens = self.tokens(self.missing_clinical(clinical, present))
        found, _ = self.attention(tokens, patches, patches, need_weights=False)
        fused: Tensor = self.output((tokens + self.gate.tanh() * found).mean(dim=1))
        return fused


class LateFusion(Fusion):
    """One head per modality, and a weighted mean of their scores.

    Where a modality is absent, the other takes all the weight.

    Args:
        image_dim: Width of the image features.
        clinical_dim: Width of the clinical features.
        out_dim: Number of class scores.
        image_weight: Fixed share of the image in [0, 1]; learned, one per score, if None.
        dropout: Probability of dropping a feature before each head in training.
    """

    gives_scores = True

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
        self.image = score_head(image_dim, out_dim, dropout)
        self.clinical = score_head(clinical_dim, out_dim, dropout)
        self.weight_logit: nn.Parameter | None = None
        if image_weight is None:
            self.weight_logit = nn.Parameter(torch.zeros(out_dim))
            image_weight = 0.5
        self.fixed_share = 1 - image_weight

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Return the weighted mean of both modalities' scores."""
        share = self.clinical_weight(present)
        clinical_scores: Tensor = self.clinical(_blank(clinical, present[:, CLINICAL]))
        image_scores: Tensor = self.image(_blank(image, present[:, IMAGE]))
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


class ResidualLateFusion(Fusion):
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

    gives_scores = True

    def __init__(
        self, image_dim: int, clinical_dim: int, out_dim: int, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.clinical = SingleModality(clinical_dim, CLINICAL)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(clinical_dim, out_dim))
        self.correction = score_head(image_dim, out_dim, dropout)
        self.shrinkage = nn.Parameter(torch.zeros(out_dim))

    def forward(self, image: Tensor, clinical: Tensor, present: Tensor) -> Tensor:
        """Return the clinical scores, corrected where there is an image."""
        here = present[:, IMAGE]
        correction: Tensor = self.correction(_blank(image, here)) * self.shrinkage.tanh()
        scores: Tensor = self.head(self.clinical(image, clinical, present))
        return scores + correction * here[:, None]


FUSIONS: dict[str, type[Fusion]] = {
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "film": FiLMFusion,
    "daft": DAFTFusion,
    "cross_attention": CrossAttentionFusion,
    "late": LateFusion,
    "residual_late": ResidualLateFusion,
}


def _blank(features: Tensor, here: Tensor) -> Tensor:
    """Zero absent rows by `where`; a product would keep their NaN."""
    return torch.where(here[:, None], features, torch.zeros_like(features))


def _zeroed(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
