"""Parameters and forward time of each fusion, relative to plain concatenation.

All fusions take the same feature maps and clinical tokens, as the default encoders give them for a
batch of 16 radiographs of 224 px, and run in turn, round after round, so that whatever else the
machine does meets all of them alike. Prints JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from osteofusion.models import FUSIONS, FusionClassifier

ROUNDS = 30
BATCH, FEATURES, SIDE = 16, 12, 224


def classifier(fusion: str) -> FusionClassifier:
    """A fused classifier with the default encoders."""
    names = [f"x{i}" for i in range(FEATURES)]
    return FusionClassifier(
        num_classes=2,
        preprocessing={
            "features": names,
            "fill": [0.0] * FEATURES,
            "numeric": {
                "columns": list(range(FEATURES)),
                "mean": [0.0] * FEATURES,
                "scale": [1.0] * FEATURES,
            },
            "indicators": [],
            "one_hot": {"columns": [], "codes": []},
            "names": names,
        },
        image_encoder={"backbone": "tf_efficientnet_lite0", "pretrained": False},
        fusion={"name": fusion},
    ).eval()


def step(model: FusionClassifier) -> Callable[[], Tensor]:
    """The fusion's own forward pass on what its encoders give."""
    image = torch.rand(BATCH, 1, SIDE, SIDE)
    clinical = torch.randn(BATCH, FEATURES, dtype=torch.float64)
    present = torch.ones(BATCH, 2, dtype=torch.bool)
    seen: list[tuple[Tensor, ...]] = []
    hook = model.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    model(image, clinical, present)
    hook.remove()
    (inputs,) = seen
    return lambda: model.fusion(*inputs)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {name: classifier(name) for name in FUSIONS}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    whole: dict[str, list[float]] = {name: [] for name in models}
    image = torch.rand(BATCH, 1, SIDE, SIDE)
    clinical = torch.randn(BATCH, FEATURES, dtype=torch.float64)
    with torch.inference_mode():
        steps = {name: step(model) for name, model in models.items()}
        for turn in range(ROUNDS + 1):
            for name, model in models.items():
                start = time.perf_counter()
                steps[name]()
                middle = time.perf_counter()
                if turn % 10 == 1:  # the encoders take much longer
                    model(image, clinical)
                    whole[name].append(time.perf_counter() - middle)
                if turn:  # the first round warms up
                    seconds[name].append(middle - start)
    base = statistics.median(seconds["concat"])
    base_whole = statistics.median(whole["concat"])
    size = {name: sum(p.numel() for p in m.fusion.parameters()) for name, m in models.items()}
    total = {name: sum(p.numel() for p in m.parameters()) for name, m in models.items()}
    report = {
        name: {
            "fusion_parameters": size[name],
            "model_parameters_relative": round(total[name] / total["concat"], 3),
            "fusion_time_relative": round(statistics.median(seconds[name]) / base, 2),
            "model_time_relative": round(statistics.median(whole[name]) / base_whole, 3),
        }
        for name in models
    }
    print(json.dumps({"relative_to": "concat", "rounds": ROUNDS, "fusions": report}, indent=2))


if __name__ == "__main__":
    main()
