from __future__ import annotations

import pytest
import torch

# Ages, a coded occupation and a yes/no column; column 3 is never missing in training rows.
SPEC = {
    "features": ["age", "bmi", "occupation", "smoker"],
    "fill": [60.0, 25.0, 1.0, 0.0],
    "numeric": {"columns": [0, 1, 3], "mean": [58.0, 26.0, 0.25], "scale": [12.0, 4.0, 0.4]},
    "indicators": [1, 2],
    "one_hot": {"columns": [2, 2, 2], "codes": [[0.0], [1.0], [2.0, 3.0]]},
    "names": ["age", "bmi", "smoker", "bmi missing", "job missing", "job=a", "job=b", "job=other"],
}


@pytest.fixture(autouse=True)
def _one_seed_one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def spec():
    return SPEC


@pytest.fixture
def batch():
    """Eight rows: images, clinical values with gaps, and both modalities present."""
    image = torch.rand(8, 1, 64, 64)
    clinical = torch.rand(8, 4, dtype=torch.float64) * 3 + torch.tensor([60.0, 25.0, 0.0, 0.0])
    clinical[:, 2] = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0, torch.nan, 1.0, 0.0])
    clinical[1, 1] = torch.nan
    return image, clinical, torch.ones(8, 2, dtype=torch.bool)
