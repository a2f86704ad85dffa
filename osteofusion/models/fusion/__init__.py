"""Fusions of image and clinical features, all under one contract."""

from __future__ import annotations

from osteofusion.models.fusion.base import CLINICAL, IMAGE, Fusion, SingleModality, score_head
from osteofusion.models.fusion.late import LateFusion, ResidualLateFusion, ScoreFusion
from osteofusion.models.fusion.maps import CrossAttentionFusion, DAFTFusion, FiLMFusion
from osteofusion.models.fusion.vector import ConcatFusion, GatedFusion

FUSIONS: dict[str, type[Fusion]] = {
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "film": FiLMFusion,
    "daft": DAFTFusion,
    "cross_attention": CrossAttentionFusion,
    "late": LateFusion,
    "residual_late": ResidualLateFusion,
}

__all__ = [
    "CLINICAL",
    "FUSIONS",
    "IMAGE",
    "ConcatFusion",
    "CrossAttentionFusion",
    "DAFTFusion",
    "FiLMFusion",
    "Fusion",
    "GatedFusion",
    "LateFusion",
    "ResidualLateFusion",
    "ScoreFusion",
    "SingleModality",
    "score_head",
]
