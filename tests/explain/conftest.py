"""A network that finds a spot, and rows to explain."""

from __future__ import annotations

import pytest
import torch
from spot_films import PREPROCESSING, spots

from osteofusion.models import FusionClassifier


@pytest.fixture(scope="session")
def spotter() -> FusionClassifier:
    """An image arm that has learnt to tell films with a spot (class 1)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = {"name": "cnn", "channels": [8, 16], "num_features": 16, "dropout": 0.0}
    model = FusionClassifier(2, "image", image_encoder=encoder, head="sigmoid", dropout=0.0)
    image, _ = spots(64, seed=1)
    label = torch.tensor([1, 0] * 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


@pytest.fixture
def build():
    """A fused model with random weights, by backbone and fusion."""

    def make(backbone: str = "cnn", fusion: str = "concat", **options) -> FusionClassifier:
        torch.manual_seed(0)
        encoder = {"name": "timm", "backbone": backbone}
        if backbone == "cnn":
            encoder = {"name": "cnn", "channels": [8, 16], "num_features": 12}
        model = FusionClassifier(
            3,
            "fused",
            preprocessing=PREPROCESSING,
            image_encoder=encoder,
            fusion={"name": fusion},
            **options,
        )
        for name, parameter in model.named_parameters():  # some parts start at zero
            if not name.startswith("image_encoder"):
                torch.nn.init.normal_(parameter, std=0.3)
        return model.eval()

    return make


@pytest.fixture
def clinical() -> torch.Tensor:
    """Four rows, one without a weight."""
    nan = float("nan")
    rows = [[71, 52, 1], [44, nan, 0], [50, 70, 2], [63, 88, nan]]
    return torch.tensor(rows, dtype=torch.float64)
