"""Plain penalised regression, fitted in closed steps, as the starting point of a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from osteofusion.models.losses import CrossEntropyLoss

MAX_ITERATIONS = 500


def fit_regression(
    values: Tensor,
    target: Tensor,
    link: nn.Module,
    num_scores: int,
    class_weights: Sequence[float] | Tensor | None = None,
    prior_sd: float = 0.25,
) -> tuple[Tensor, Tensor, nn.Module]:
    """Fit ``link(values @ weight.T + bias)`` by penalised maximum likelihood.

    The penalty is that of a normal prior with mean 0 and deviation ``prior_sd`` on each weight, for
    standardised values; the bias and the link's own parameters are free. Deterministic.

    Args:
        values: (n, D) preprocessed clinical values.
        target: (n,) int64 class indices.
        link: A head of `osteofusion.models.heads`; it is not changed.
        num_scores: Number of scores that the link takes.
        class_weights: One weight per class.
        prior_sd: Deviation of the prior, positive.

    Returns:
        Weight (``num_scores``, D), bias (``num_scores``,) and fitted link, all float64.

    Raises:
        ValueError: ``prior_sd`` is not positive, or rows differ.
    """
    if prior_sd <= 0:
        raise ValueError(f"prior_sd is {prior_sd}; expected a positive number")
    if len(values) != len(target):
        raise ValueError(f"values have {len(values)} rows, target {len(target)}; expected as many")
    values = values.detach().double()
    link = copy.deepcopy(link).double()
    weight = values.new_zeros(num_scores, values.shape[1]).requires_grad_()
    bias = values.new_zeros(num_scores).requires_grad_()
    criterion = CrossEntropyLoss(class_weights).to(values.device)
    optimiser = torch.optim.LBFGS(
        [weight, bias, *link.parameters()],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-8,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        penalty = weight.square().sum() / (2 * prior_sd**2 * len(values))
        loss: Tensor = criterion(link(values @ weight.T + bias), target) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach(), link.requires_grad_(True)
