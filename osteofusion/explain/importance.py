"""What the answers for a whole cohort rest on: permutation importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from osteofusion.errors import OsteofusionError
from osteofusion.evaluation.metrics import auroc
from osteofusion.explain.attribution import EncodedRows
from osteofusion.models.classifier import FusionClassifier
from osteofusion.models.fusion import CLINICAL, IMAGE
from osteofusion.progress import shown
from osteofusion.training.readings import shuffled_partners

CLINICAL_ROW, RADIOGRAPH = "all clinical values", "radiograph"
CAVEAT = (
    "AUROC lost when values are shuffled between subjects. Columns that say the same share their "
    "importance: each looks dispensable while the other is there, and shuffling one makes patients "
    "who do not exist. The interval is over shuffles, not over patients."
)


@dataclass(frozen=True)
class Importance:
    """What is lost when one input is shuffled.

    Attributes:
        name: The clinical column, `CLINICAL_ROW` or `RADIOGRAPH`.
        lost: Mean loss of AUROC of low BMD; negative where the shuffled one does better.
        low: 2.5th percentile over the repeats.
        high: 97.5th percentile.
    """

    name: str
    lost: float
    low: float
    high: float


def permutation_importance(
    model: FusionClassifier,
    rows: EncodedRows,
    low_bmd: NDArray[np.bool_],
    groups: Sequence[int],
    *,
    repeats: int = 30,
    seed: int = 0,
    progress: bool = False,
) -> list[Importance]:
    """AUROC of low BMD lost when an input is shuffled between subjects, largest loss first.

    The radiograph takes its absence along, and so do all clinical values. See `CAVEAT`.

    Args:
        model: The model.
        rows: The rows.
        low_bmd: (n,) the truth.
        groups: (n,) split group of each row; nobody is given the values of their own group.
        repeats: Shuffles of each input.
        seed: Of the first shuffle.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        OsteofusionError: The rows are all of one class, or one group holds most of them.
    """
    if low_bmd.all() or not low_bmd.any():
        raise OsteofusionError(
            "Permutation importance needs rows with and without low BMD; choose another --side."
        )
    partners = [shuffled_partners(groups, seed + i) for i in range(repeats)]
    shuffles = [torch.from_numpy(each) for each in partners if each is not None]
    if not shuffles:
        raise OsteofusionError(
            "Permutation importance cannot shuffle between subjects, since one split group holds "
            "most of the rows; choose another --side."
        )
    whole = auroc(low_bmd, rows.log_odds(model))
    inputs: list[str | int] = []
    if model.preprocessing is not None:
        inputs += [*range(rows.clinical.shape[1]), CLINICAL_ROW]
    if rows.image_features is not None:
        inputs.append(RADIOGRAPH)
    found = []
    for each in shown(inputs, len(inputs), "Shuffling", progress):
        lost = [
            whole - auroc(low_bmd, _shuffled(rows, each, order).log_odds(model))
            for order in shuffles
        ]
        name = each
        if isinstance(each, int) and model.preprocessing is not None:
            name = model.preprocessing.feature_names[each]
        low, high = np.percentile(lost, [2.5, 97.5])
        found.append(Importance(str(name), float(np.mean(lost)), float(low), float(high)))
    return sorted(found, key=lambda each: -each.lost)


def _shuffled(rows: EncodedRows, which: str | int, order: torch.Tensor) -> EncodedRows:
    """The rows with one input of other subjects: a clinical column, all of them, or the image."""
    clinical, present = rows.clinical.clone(), rows.present.clone()
    if isinstance(which, int):
        clinical[:, which] = rows.clinical[order, which]
        present[:, CLINICAL] = ~clinical.isnan().all(dim=1)
        return replace(rows, clinical=clinical, present=present)
    if which == CLINICAL_ROW:
        present[:, CLINICAL] = rows.present[order, CLINICAL]
        return replace(rows, clinical=rows.clinical[order], present=present)
    assert rows.image_features is not None
    present[:, IMAGE] = rows.present[order, IMAGE]
    return replace(rows, image_features=rows.image_features[order], present=present)
