"""Whether saliency maps depend on what the model has learnt (Adebayo et al., arXiv 1810.03292)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from osteofusion.models.classifier import FusionClassifier
from osteofusion.progress import shown

Maps = NDArray[np.float32]
Explain = Callable[[FusionClassifier], Maps]

# Unrelated maps correlate by chance, the more the coarser they are: of 4 x 4 cells, with a standard
# deviation of 0.26.
LIMIT = 0.5


@dataclass(frozen=True)
class SanityCheck:
    """How alike maps stay when the weights are randomised.

    Attributes:
        method: Of the maps.
        cascade: Part whose weights were drawn anew last, from the output backwards, and the mean
            Spearman correlation of the maps with the trained model's.
        randomised: The same with all weights drawn anew at once, by another seed.
        n: Maps that were compared; those that are flat in the trained model are not.
        flat: How many of them are flat with all weights drawn anew, which counts as 0.
    """

    method: str
    cascade: dict[str, float]
    randomised: float
    n: int
    flat: int

    @property
    def passed(self) -> bool:
        """Whether maps of random weights are unlike the trained model's: within `LIMIT` of 0.

        If not, the maps show the film and not what the model learnt of it; or most maps of random
        weights are flat, and nothing was compared.
        """
        return 2 * self.flat < self.n and abs(self.randomised) <= LIMIT

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if not self.n:
            return f"{self.method}: all maps are flat, so there is nothing to check."
        if 2 * self.flat >= self.n:
            return (
                f"{self.method}: {self.flat} of {self.n} maps of random weights are flat, so "
                "whether maps depend on what was learnt was not shown."
            )
        found = (
            f"{self.method}: maps of random weights correlate {self.randomised:.2f} with its own"
        )
        if self.passed:
            return f"{found}; they depend on what was learnt (sanity check passed)."
        return f"SANITY CHECK FAILED: {found}; they show the film, not what was learnt: do not use."


def sanity_check(
    model: FusionClassifier, explain: Explain, method: str, *, seed: int = 0, progress: bool = False
) -> SanityCheck:
    """Compare maps with those of the same network whose weights are drawn anew.

    The weights are those that the network would start training with, batch norm's running
    statistics included. A map that comes out flat has a correlation of 0.

    Args:
        model: The trained model; it is not changed.
        explain: Maps (n, h, w) of a model, always of the same rows.
        method: What to call them.
        seed: Of the first weights.
        progress: Whether to draw a progress bar on stderr.
    """
    trained = explain(model)
    kept = np.ptp(trained, axis=(1, 2)) > 0
    fresh, other = (_fresh(model, each) for each in (seed, seed + 1))
    partly = _copy(model)
    parts = _parts(partly)
    cascade = {}
    for name in shown(list(parts), len(parts), f"Randomising weights ({method})", progress):
        _take(parts[name], _parts(fresh)[name])
        cascade[name] = _likeness(trained[kept], explain(partly)[kept])
    drawn = explain(other)[kept]
    flat = int((np.ptp(drawn, axis=(1, 2)) == 0).sum())
    return SanityCheck(method, cascade, _likeness(trained[kept], drawn), int(kept.sum()), flat)


def _likeness(maps: Maps, others: Maps) -> float:
    """Mean Spearman correlation of maps (n, h, w); with a flat map it is 0."""
    values = []
    for one, other in zip(maps, others, strict=True):
        varies = np.ptp(other) > 0
        values.append(float(spearmanr(one.ravel(), other.ravel()).statistic) if varies else 0.0)
    return float(np.mean(values)) if values else 0.0


def _fresh(model: FusionClassifier, seed: int) -> FusionClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FusionClassifier.from_config(model.config).eval()


def _copy(model: FusionClassifier) -> FusionClassifier:
    copied = _fresh(model, 0)
    copied.load_state_dict(model.state_dict())
    return copied


def _parts(model: FusionClassifier) -> dict[str, list[nn.Module]]:
    """Modules that hold weights of their own, from the output backwards."""
    encoder = model.image_encoder
    assert encoder is not None
    inside = {id(module) for module in encoder.modules()}
    parts = {"scores and fusion": [m for m in model.modules() if id(m) not in inside]}
    stages = encoder.stages()
    stage_of = {id(p): number for number, stage in enumerate(stages) for p in stage}
    for number in reversed(range(len(stages))):
        parts[f"encoder stage {number + 1} of {len(stages)}"] = [
            module
            for module in encoder.modules()
            if any(stage_of.get(id(p)) == number for p in module.parameters(recurse=False))
        ]
    return parts


def _take(modules: list[nn.Module], fresh: list[nn.Module]) -> None:
    """Give modules the weights, and the running statistics, of their fresh counterparts."""
    with torch.no_grad():
        for module, other in zip(modules, fresh, strict=True):
            for mine, new in (
                *zip(
                    module.parameters(recurse=False), other.parameters(recurse=False), strict=True
                ),
                *zip(module.buffers(recurse=False), other.buffers(recurse=False), strict=True),
            ):
                mine.copy_(new)
