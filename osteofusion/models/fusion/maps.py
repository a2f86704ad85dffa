"""Fusions that let clinical values act on the feature map of the image."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from osteofusion.models.fusion.base import CLINICAL, IMAGE, Fusion, MissingToken, SingleModality


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

    @abstractmethod
    def _condition(self, channels: Tensor, clinical: Tensor) -> Tensor:
        """Return what scale and shift depend on."""


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


def _zeroed(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
