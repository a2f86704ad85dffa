"""Plain penalised regression, fitted in closed steps, as the starting point of a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from osteofusion.models.losses import CrossEntropyLoss

# What every simple screening rule for low bone density is made of (OST, OSTA, ORAI, SCORE): a wide
# prior. Other columns must show their worth in the rows at hand.
ESTABLISHED = ("age", "female", "height", "weight", "bmi")
ESTABLISHED_SD = 1.0
OTHER_SD = 0.25
MAX_ITERATIONS = 500


def prior_deviations(names: Sequence[str]) -> list[float]:
    """Deviations for `fit_regression`, by the names of the preprocessed values."""
    return [ESTABLISHED_SD if name in ESTABLISHED else OTHER_SD for name in names]


def fit_regression(
    values: Tensor,
    target: Tensor,
    link: nn.Module,
    num_scores: int,
    class_weights: Sequence[float] | Tensor | None = None,
    prior_sd: float | Sequence[float] = OTHER_SD,
) -> tuple[Tensor, Tensor, nn.Module]:
    """Fit ``link(values @ weight.T + bias)`` by penalised maximum likelihood.

    The penalty is that of a normal prior with mean 0 on each weight, for standardised values; the
    bias and the link's own parameters are free. Deterministic.

    Class weights move the bias and the link alone, after the fit: in the weights of the values they
    would count the few rows of a rare class several times over.

    Args:
        values: (n, D) preprocessed clinical values.
        target: (n,) int64 class indices.
        link: A head of `osteofusion.models.heads`; it is not changed.
        num_scores: Number of scores that the link takes.
        class_weights: One weight per class.
        prior_sd: Deviation of the prior, positive: one for all values, or one a value.

    Returns:
        Weight (``num_scores``, D), bias (``num_scores``,) and fitted link, all float64.

    Raises:
        ValueError: A deviation is not positive, or rows or deviations are not as many as needed.
    """
    if len(values) != len(target):
        raise ValueError(f"values have {len(values)} rows, target {len(target)}; expected as many")
    sd = torch.as_tensor(prior_sd, dtype=torch.float64, device=values.device)
    if bool((sd <= 0).any()):
        raise ValueError(f"prior_sd is {prior_sd}; expected positive numbers")
    if sd.ndim and len(sd) != values.shape[1]:
        raise ValueError(f"prior_sd has {len(sd)} entries; expected {values.shape[1]}")
    values = values.detach().double()
    link = copy.deepcopy(link).double()
    weight = values.new_zeros(num_scores, values.shape[1]).requires_grad_()
    bias = values.new_zeros(num_scores).requires_grad_()

    def minimise(parameters: Sequence[Tensor], criterion: nn.Module) -> None:
        optimiser = torch.optim.LBFGS(
            parameters,
            max_iter=MAX_ITERATIONS,
            tolerance_grad=1e-8,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            optimiser.zero_grad()
            penalty = (weight / sd).square().sum() / (2 * len(values))
            loss: Tensor = criterion(link(values @ weight.T + bias), target) + penalty
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(objective)  # type: ignore[no-untyped-call]

    link.requires_grad_(True)  # also where the model keeps it as it is
    minimise([weight, bias, *link.parameters()], CrossEntropyLoss())
    if class_weights is not None:
        weight = weight.detach()
        minimise([bias, *link.parameters()], CrossEntropyLoss(class_weights).to(values.device))
    return weight.detach(), bias.detach(), link
