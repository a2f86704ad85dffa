"""Films whose signal is a spot, and a clinical row of each kind of column."""

from __future__ import annotations

import numpy as np
import torch

PREPROCESSING = {
    "features": ["age", "weight", "job"],
    "fill": [50.0, 70.0, 0.0],
    "numeric": {"columns": [0, 1], "mean": [50.0, 70.0], "scale": [10.0, 15.0]},
    "indicators": [1],
    "one_hot": {"columns": [2, 2], "codes": [[0.0], [1.0, 2.0]]},
    "names": ["age", "weight", "weight missing", "job = cook", "job = any other"],
}


def spots(n: int, seed: int, shape=(48, 64)) -> tuple[torch.Tensor, np.ndarray]:
    """Noise, every second one with a bright spot; where it is (x, y), off the middle."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.3, 0.05, (n, 1, *shape)).astype(np.float32)
    y, x = (rng.integers(4, side - 12, n) for side in shape)
    for i in range(0, n, 2):
        image[i, 0, y[i] : y[i] + 8, x[i] : x[i] + 8] += 0.5
    return torch.from_numpy(image.clip(0, 1)), np.stack([x + 3.5, y + 3.5], axis=1)
