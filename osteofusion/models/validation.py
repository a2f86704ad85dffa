"""Checks of model inputs, made where data comes in and not inside ``forward``."""

from __future__ import annotations

import torch
from torch import Tensor

from osteofusion.models.fusion import CLINICAL, IMAGE

TOLERANCE = 1e-3  # resampling and contrast changes overshoot [0, 1] by rounding


def check_inputs(
    image: Tensor | None,
    clinical: Tensor | None,
    present: Tensor | None,
    *,
    arm: str,
    num_features: int | None,
) -> None:
    """Check one batch for the arm ``fused``, ``image`` or ``tabular``.

    Raises:
        ValueError: Shows the offending value and what was expected.
    """
    used = {"fused": (IMAGE, CLINICAL), "image": (IMAGE,), "tabular": (CLINICAL,)}[arm]
    if IMAGE in used:
        _check_image_shape(image, arm)
    if CLINICAL in used:
        _check_clinical_shape(clinical, arm, num_features)
    given = {"image": image, "clinical": clinical, "present": present}
    rows = {name: len(values) for name, values in given.items() if values is not None}
    if len(set(rows.values())) > 1:
        raise ValueError(f"rows differ: {rows}; expected one row per subject in each")
    if present is None:
        present = torch.ones(next(iter(rows.values())), 2, dtype=torch.bool)
    elif present.dtype != torch.bool or present.ndim != 2 or present.shape[1] != 2:
        raise ValueError(f"present is {_describe(present)}; expected (B, 2) bool")
    present = present.cpu()
    empty = (~present[:, list(used)].any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"rows {empty} have no modality; expected image or clinical values"
            if arm == "fused"
            else f"rows {empty} lack the only modality of the {arm} arm; expected it present"
        )
    if image is not None and IMAGE in used:
        _check_intensities(image.detach().cpu()[present[:, IMAGE]])
    if clinical is not None and CLINICAL in used:
        infinite = clinical.detach().cpu()[present[:, CLINICAL]].isinf()
        if infinite.any():
            columns = infinite.any(dim=0).nonzero().flatten().tolist()
            raise ValueError(
                f"clinical columns {columns} hold infinite values; expected numbers, or NaN"
            )


def _check_image_shape(image: Tensor | None, arm: str) -> None:
    if image is None:
        raise ValueError(f"image is None; the {arm} arm needs (B, 1, H, W)")
    if image.ndim != 4 or image.shape[1] != 1 or not image.is_floating_point():
        raise ValueError(f"image is {_describe(image)}; expected (B, 1, H, W) float")


def _check_clinical_shape(clinical: Tensor | None, arm: str, num_features: int | None) -> None:
    expected = f"(B, {num_features}) float64"
    if clinical is None:
        raise ValueError(f"clinical is None; the {arm} arm needs {expected}")
    if clinical.ndim != 2 or clinical.shape[1] != num_features or clinical.dtype != torch.float64:
        raise ValueError(f"clinical is {_describe(clinical)}; expected {expected}")


def _check_intensities(images: Tensor) -> None:
    if not images.isfinite().all():
        raise ValueError("a present image holds NaN or infinite values; expected [0, 1]")
    if images.numel() and (images.min() < -TOLERANCE or images.max() > 1 + TOLERANCE):
        raise ValueError(
            f"present images span {float(images.min()):.4g} to {float(images.max()):.4g}; "
            "expected intensities in [0, 1]"
        )


def _describe(values: Tensor) -> str:
    return f"{tuple(values.shape)} {str(values.dtype).removeprefix('torch.')}"
