"""Image and clinical fusion in plain PyTorch: usable without the rest of the package."""

from osteofusion.models.classifier import FusionClassifier
from osteofusion.models.embeddings import (
    CLINICAL_ENCODERS,
    EmbeddedMLP,
    FTTransformer,
    build_clinical_encoder,
)
from osteofusion.models.fusion import (
    FUSIONS,
    ConcatFusion,
    CrossAttentionFusion,
    DAFTFusion,
    FiLMFusion,
    Fusion,
    GatedFusion,
    LateFusion,
    ResidualLateFusion,
)
from osteofusion.models.heads import (
    HEADS,
    CornHead,
    Outputs,
    ProportionalOddsHead,
    SigmoidHead,
    SoftmaxHead,
    TScoreHead,
    classes_from_t_score,
)
from osteofusion.models.image import IMAGE_ENCODERS, ImageEncoder, SimpleCNN
from osteofusion.models.losses import (
    LOSSES,
    CrossEntropyLoss,
    FocalLoss,
    auxiliary_loss,
    balanced_class_weights,
    build_loss,
)
from osteofusion.models.tabular import ClinicalEncoder, ClinicalPreprocessing

__all__ = [
    "CLINICAL_ENCODERS",
    "FUSIONS",
    "HEADS",
    "IMAGE_ENCODERS",
    "LOSSES",
    "ClinicalEncoder",
    "ClinicalPreprocessing",
    "ConcatFusion",
    "CornHead",
    "CrossAttentionFusion",
    "CrossEntropyLoss",
    "DAFTFusion",
    "EmbeddedMLP",
    "FTTransformer",
    "FiLMFusion",
    "FocalLoss",
    "Fusion",
    "FusionClassifier",
    "GatedFusion",
    "ImageEncoder",
    "LateFusion",
    "Outputs",
    "ProportionalOddsHead",
    "ResidualLateFusion",
    "SigmoidHead",
    "SimpleCNN",
    "SoftmaxHead",
    "TScoreHead",
    "auxiliary_loss",
    "balanced_class_weights",
    "build_clinical_encoder",
    "build_loss",
    "classes_from_t_score",
]
