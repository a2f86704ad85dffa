"""How far each clinical value, and each modality, moved the answer for a patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from captum.attr import FeatureAblation
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from osteofusion.explain.saliency import evaluating, log_odds
from osteofusion.models.classifier import FusionClassifier
from osteofusion.models.fusion import CLINICAL, IMAGE
from osteofusion.models.image import encode_present
from osteofusion.serving.prediction import Attribution, Explanation


@dataclass(frozen=True)
class EncodedRows:
    """Rows whose radiographs are encoded already: asking again costs no pass of the encoder.

    Attributes:
        image_features: What the fusion reads of the radiographs, (n, D) or (n, C, h, w); None in
            the tabular arm.
        clinical: (n, F) float64 in canonical units, NaN where missing.
        present: (n, 2) bool, image and clinical.
    """

    image_features: Tensor | None
    clinical: Tensor
    present: Tensor

    def log_odds(self, model: FusionClassifier) -> NDArray[np.float64]:
        """Log-odds of low BMD (n,)."""
        with torch.no_grad(), evaluating(model):
            return _log_odds(self.clinical, model, self).double().numpy()


def encode_rows(model: FusionClassifier, batches: Iterable[dict[str, Tensor]]) -> EncodedRows:
    """Encode the radiographs of all batches.

    Args:
        model: The model.
        batches: ``image`` (B, 1, H, W) uint8, ``clinical`` and ``present``.
    """
    features, clinical, present = [], [], []
    with torch.no_grad(), evaluating(model):
        for batch in batches:
            clinical.append(batch["clinical"])
            present.append(batch["present"])
            if model.image_encoder is not None:
                features.append(
                    encode_present(
                        model.image_encoder,
                        batch["image"].float() / 255.0,
                        batch["present"][:, IMAGE],
                        as_map=model.fusion.image_input == "map",
                    )
                )
    return EncodedRows(
        torch.cat(features) if features else None, torch.cat(clinical), torch.cat(present)
    )


def clinical_effects(model: FusionClassifier, rows: EncodedRows) -> NDArray[np.float64]:
    """How far each clinical value moved the log-odds of low BMD: (n, F), NaN where none was given.

    Feature ablation: each value alone is replaced by the training rows' median (numbers) or most
    frequent value (the others), which the model keeps as the fill of a missing one. Effects of
    values that act together do not add up to the whole.

    Raises:
        ValueError: The image arm has no clinical values.
    """
    if model.preprocessing is None:
        raise ValueError("the image arm reads no clinical values, so there is nothing to attribute")
    with torch.no_grad(), evaluating(model):
        effects: Tensor = FeatureAblation(_log_odds).attribute(
            rows.clinical,
            baselines=model.preprocessing.fill[None],
            additional_forward_args=(model, rows),
        )
    given = ~rows.clinical.isnan() & rows.present[:, CLINICAL, None]
    return torch.where(given, effects.double(), torch.nan).numpy()


def modality_effects(model: FusionClassifier, rows: EncodedRows) -> NDArray[np.float64]:
    """How far each modality moved the log-odds of low BMD: (n, 2), image and clinical.

    The log-odds as they are, less those with the modality withheld; NaN unless both are there and
    the model reads both. What both say alike counts for neither: the one stands in for the other.
    """
    effects = np.full((len(rows.clinical), 2), np.nan)
    if model.arm != "fused":
        return effects
    both = rows.present.all(dim=1).numpy()
    whole = rows.log_odds(model)
    for modality in (IMAGE, CLINICAL):
        present = rows.present.clone()
        present[:, modality] = False
        without = replace(rows, present=present).log_odds(model)
        effects[both, modality] = (whole - without)[both]
    return effects


def explain_rows(model: FusionClassifier, rows: EncodedRows) -> list[Explanation]:
    """Attributions and modalities of each row, without maps.

    They are of the model's own log-odds and risks, where a bundle's are of calibrated ones.
    """
    whole = rows.log_odds(model)
    names = [] if model.preprocessing is None else model.preprocessing.feature_names
    effects = clinical_effects(model, rows) if names else np.empty((len(whole), 0))
    modalities = modality_effects(model, rows)
    explanations = []
    for odds, moved, parts in zip(whole, effects, modalities, strict=True):
        attributions = [
            Attribution(name, float(effect), float(expit(odds - effect)))
            for name, effect in zip(names, moved, strict=True)
            if not np.isnan(effect)
        ]
        attributions.sort(key=lambda each: -abs(each.log_odds))
        by_name = zip(("image", "clinical"), parts.tolist(), strict=True)
        explanations.append(
            Explanation(attributions, {name: part for name, part in by_name if not np.isnan(part)})
        )
    return explanations


def _log_odds(clinical: Tensor, model: FusionClassifier, rows: EncodedRows) -> Tensor:
    return log_odds(model.outputs(None, clinical, rows.present, rows.image_features).logits)
