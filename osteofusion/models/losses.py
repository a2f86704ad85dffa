"""Classification losses that honour class weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osteofusion.models.fusion import CLINICAL, IMAGE
from osteofusion.models.heads import Outputs
from osteofusion.models.registry import build


def balanced_class_weights(counts: Sequence[float]) -> list[float]:
    """Return ``n / (C * count)`` for each of C classes, scikit-learn's "balanced" weights.

    Raises:
        ValueError: A class has no rows.
    """
    if not counts or min(counts) <= 0:
        raise ValueError(f"class counts are {list(counts)}; expected at least one row per class")
    total = sum(counts)
    return [total / (len(counts) * count) for count in counts]


class FocalLoss(nn.Module):
    r"""Cross-entropy that fades for rows already classified well (Lin et al., arXiv 1708.02002).

    .. math:: L = \frac{\sum_i w_{y_i} \alpha_{y_i} (1 - p_{i y_i})^\gamma (-\log p_{i y_i})}
                       {\sum_i w_{y_i}}

    With ``gamma=0`` and no ``alpha`` this is `torch.nn.CrossEntropyLoss` with the same weights.
    Label smoothing replaces the one-hot target by a soft one and sums over classes.

    Args:
        gamma: Focusing exponent, at least 0.
        alpha: The paper's balance factor. A number means (1 - alpha, alpha) for two classes, as in
            the paper, and the same factor for every class beyond two, as in Keras; a list gives
            one factor per class. Unlike ``class_weights`` it does not enter the denominator.
        class_weights: One positive weight per class.
        label_smoothing: Share of the target spread evenly over all classes.

    Shape:
        logits (B, C), target (B,) int64 -> scalar

    Raises:
        ValueError: Negative gamma, or a list whose length is not C.
    """

    alpha: Tensor | None
    class_weights: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma is {gamma}; expected 0 or more")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; expected a share in [0, 1)")
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.register_buffer("alpha", _as_buffer("alpha", alpha), persistent=False)
        self.register_buffer(
            "class_weights", _as_buffer("class_weights", class_weights), persistent=False
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of (B, C) logits against (B,) class indices."""
        classes = logits.shape[1]
        weights = self._per_class("class_weights", self.class_weights, logits)
        log_p = F.log_softmax(logits, dim=1)
        # The floor keeps the gradient of the power finite where p rounds to 1 and gamma < 1.
        focus = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma
        terms = -focus * log_p * weights * self._alpha_per_class(logits)
        soft = F.one_hot(target, classes).to(log_p.dtype)
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / classes
        return (soft * terms).sum() / weights[target].sum()

    def _alpha_per_class(self, logits: Tensor) -> Tensor:
        alpha = self.alpha
        if alpha is not None and alpha.ndim == 0:
            two = logits.shape[1] == 2
            alpha = torch.stack([1 - alpha, alpha]) if two else alpha.expand(logits.shape[1])
        return self._per_class("alpha", alpha, logits)

    @staticmethod
    def _per_class(name: str, values: Tensor | None, logits: Tensor) -> Tensor:
        if values is None:
            return logits.new_ones(logits.shape[1])
        if len(values) != logits.shape[1]:
            raise ValueError(f"{name} has {len(values)} entries; expected {logits.shape[1]}")
        return values.to(logits)


class CrossEntropyLoss(FocalLoss):
    """Weighted cross-entropy, divided by the sum of the weights of the rows, as torch does.

    Shape:
        logits (B, C), target (B,) int64 -> scalar
    """

    def __init__(
        self,
        class_weights: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(gamma=0.0, class_weights=class_weights, label_smoothing=label_smoothing)


LOSSES: dict[str, type[FocalLoss]] = {"cross_entropy": CrossEntropyLoss, "focal": FocalLoss}


def build_loss(
    name: str,
    class_weights: Sequence[float] | Tensor | None = None,
    **options: float | Sequence[float] | None,
) -> nn.Module:
    """Build the loss called ``name``; ``options`` are the arguments of its class.

    Raises:
        ValueError: Unknown name, option or value.
    """
    return build("loss", LOSSES, name, class_weights=class_weights, **options)


def auxiliary_loss(outputs: Outputs, target: Tensor, criterion: nn.Module) -> Tensor:
    """Return the summed losses of the single modalities' own logits.

    Each counts the rows in which its modality was present, and is zero where there are none.

    Raises:
        ValueError: The model was built without ``auxiliary``.
    """
    losses = []
    for logits, column in ((outputs.image_logits, IMAGE), (outputs.clinical_logits, CLINICAL)):
        if logits is None:
            raise ValueError("the outputs hold no auxiliary logits; expected auxiliary=True")
        here = outputs.present[:, column]
        losses.append(criterion(logits[here], target[here]) if here.any() else logits.sum() * 0)
    return torch.stack(losses).sum()


def _as_buffer(name: str, values: float | Sequence[float] | Tensor | None) -> Tensor | None:
    if values is None:
        return None
    tensor = torch.as_tensor(values, dtype=torch.float64)
    if not bool(torch.isfinite(tensor).all()) or bool((tensor < 0).any()):
        raise ValueError(f"{name} is {values}; expected finite numbers, none negative")
    return tensor
