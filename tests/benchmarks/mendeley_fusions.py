"""The seven fusions on the Mendeley cohort, on frozen EfficientNet-Lite0 features.

    python tests/benchmarks/mendeley_fusions.py --root DIR [--out results.json]

Same grouped, stratified 5 folds for all; nothing is chosen on test rows. Each model is trained
until its validation loss has not improved for 15 epochs (at most 150), and the best epoch is
scored. AUROC is taken within each fold and averaged, since folds score on different scales; the
interval is DeLong's over split groups. Every fused model starts, as by default, from penalised
regression on the clinical values.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from osteofusion.data.cache import RadiographCache
from osteofusion.data.clinical import ClinicalSchema, fit_preprocessing, freeze, select_features
from osteofusion.data.cohort import build_cohort
from osteofusion.data.labels import TASKS, task_classes
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.data.splits import make_splits, select_fold
from osteofusion.evaluation import BaselineRows, fit_baselines
from osteofusion.evaluation.auroc import ClusteredAuroc, auroc_interval, clustered_auroc
from osteofusion.files import cache_root, write_text
from osteofusion.models import (
    FUSIONS,
    FusionClassifier,
    ImageEncoder,
    balanced_class_weights,
    build_loss,
)
from osteofusion.models.image import StagedEncoder

FOLDS, BATCH, EPOCHS, PATIENCE = 5, 16, 150, 15
BACKBONE = "tf_efficientnet_lite0"


class Ready(StagedEncoder):
    """Passes feature maps on in place of a backbone that is not trained."""

    num_features = map_features = 1280

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))

    def forward_map(self, image: Tensor) -> Tensor:
        return image

    def stages(self) -> list[list[torch.nn.Parameter]]:
        return []


def feature_maps(files: list[tuple[Path, str]]) -> Tensor:
    """(n, 1280, 7, 7) of all radiographs at 224 px."""
    cache = RadiographCache(cache_root() / "radiographs", RadiographPreprocessing(224))
    encoder = ImageEncoder(BACKBONE, pretrained=True).eval()
    maps = []
    with torch.inference_mode():
        for file in track(files, description="Features"):
            pixels = torch.tensor(cache.get(*file), dtype=torch.float32) / 255
            maps.append(encoder.forward_map(pixels[None, None])[0])
    return torch.stack(maps).clone()


def train(
    arm: str,
    fusion: str,
    clinical: np.ndarray,
    schema: ClinicalSchema,
    maps: Tensor,
    y: np.ndarray,
    sides: dict[str, np.ndarray],
    classes: int,
) -> tuple[np.ndarray, int]:
    """Probabilities of the test rows, and the epoch that was best on the validation rows."""
    torch.manual_seed(0)
    preprocessing = freeze(fit_preprocessing(clinical[sides["train"]], schema), schema)
    model = FusionClassifier(
        classes,
        arm=arm,
        preprocessing=preprocessing,
        image_encoder={"backbone": BACKBONE, "pretrained": False},
        fusion={"name": fusion},
    )
    images = maps
    if arm != "tabular":
        model.image_encoder = Ready()
        if model.fusion.image_input == "vector":
            images = maps.mean(dim=(2, 3), keepdim=True)
    values, target = torch.tensor(clinical), torch.tensor(y)
    weights = balanced_class_weights(np.bincount(y[sides["train"]], minlength=classes).tolist())
    criterion = build_loss("cross_entropy", weights)
    rows = {name: torch.tensor(index) for name, index in sides.items()}
    if arm != "image":
        model.start_from_regression(values[rows["train"]], target[rows["train"]], weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)

    def loss_of(index: Tensor) -> Tensor:
        loss: Tensor = criterion(model(images[index], values[index]), target[index])
        return loss

    best, best_state, best_epoch = np.inf, copy.deepcopy(model.state_dict()), 0
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for index in rows["train"][torch.randperm(len(rows["train"]))].split(BATCH):
            optimizer.zero_grad()
            loss_of(index).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            loss = loss_of(rows["val"]).item()
        if loss < best:
            best, best_state, best_epoch = loss, copy.deepcopy(model.state_dict()), epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    model.load_state_dict(best_state)
    with torch.inference_mode():
        logits = model(images[rows["test"]], values[rows["test"]])
        return model.probabilities(logits).double().numpy(), best_epoch


def fold_auroc(
    y: np.ndarray, p: np.ndarray, group: np.ndarray, fold: np.ndarray, positives: list[int]
) -> list[ClusteredAuroc]:
    """AUROC of each fold and positive class; groups keep their place, so that errors add up."""
    found = []
    size = group.max() + 1
    for number in np.unique(fold):
        here = fold == number
        for code in positives:
            each = clustered_auroc(y[here] == code, p[here, code], group[here])
            pad = [(0, size - len(each.positive))]
            found.append(
                ClusteredAuroc(
                    each.value,
                    np.pad(each.positive, pad),
                    np.pad(each.negative, pad),
                    each.clusters,
                )
            )
    return found


def paired(first: list[ClusteredAuroc], second: list[ClusteredAuroc]) -> tuple[float, float]:
    """Difference of two mean AUROCs and half the width of its 95 % interval."""
    parts = [a.contributions - b.contributions for a, b in zip(first, second, strict=True)]
    gap = np.mean([a.value - b.value for a, b in zip(first, second, strict=True)])
    return float(gap), float(1.96 * np.sqrt((np.mean(parts, axis=0) ** 2).sum()))


def study(task: str, root: Path) -> dict[str, dict[str, object]]:
    """All models of one task."""
    cohort = build_cohort("mendeley", root)
    table, classes = cohort.table, task_classes(task)
    y = table["label"].map(TASKS[task]).map(classes.index).to_numpy(dtype=np.int64)
    maps = feature_maps(list(zip(cohort.files(table), table["image_sha256"], strict=True)))
    splits = make_splits(table, seed=0, folds=FOLDS)
    group = table["group"].to_numpy()
    names = select_features(cohort.manifest, None)
    models = {"tabular": ("tabular", "concat"), "image": ("image", "concat")}
    models |= {f"fused {name}": ("fused", name) for name in FUSIONS}
    out: dict[str, np.ndarray] = {}
    epochs: dict[str, list[int]] = {name: [] for name in models}
    fold_of = np.zeros(len(table), dtype=np.int64)
    for fold in range(FOLDS):
        keys = ["subject_id", "image"]
        side = table[keys].merge(select_fold(splits, fold, 0), on=keys)["split"].to_numpy()
        sides = {name: np.flatnonzero(side == name) for name in ("train", "val", "test")}
        fold_of[sides["test"]] = fold
        train_rows = table.iloc[sides["train"]]
        schema = ClinicalSchema.fit(train_rows, cohort.manifest, names)
        clinical = schema.encode(table)
        for name, (arm, fusion) in track(models.items(), description=f"{task}, fold {fold}"):
            p, epoch = train(arm, fusion, clinical, schema, maps, y, sides, len(classes))
            out.setdefault(name, np.zeros((len(table), len(classes))))[sides["test"]] = p
            epochs[name].append(epoch)
        design = fit_preprocessing(clinical[sides["train"]], schema).transform(clinical)
        facts = {
            name: BaselineRows(design[i], y[i], table["age"].to_numpy(dtype=np.float64)[i])
            for name, i in sides.items()
        }
        for name, p in fit_baselines(facts["train"], facts["test"], classes).probabilities.items():
            out.setdefault(name, np.zeros((len(table), len(classes))))[sides["test"]] = p
    positives = [1] if len(classes) == 2 else list(range(len(classes)))
    scored = {name: fold_auroc(y, p, group, fold_of, positives) for name, p in out.items()}
    report: dict[str, dict[str, object]] = {}
    for name, folds in scored.items():
        low, high, _ = auroc_interval(folds)
        gap, half = paired(folds, scored["tabular"])
        report[name] = {
            "auroc": round(float(np.mean([each.value for each in folds])), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "minus_tabular": [round(gap, 4), round(gap - half, 4), round(gap + half, 4)],
            "best_epochs": epochs.get(name),
        }
    return report


def main() -> None:
    """Run both tasks and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the Mendeley data set")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    results = {task: study(task, options.root) for task in ("binary", "three_class")}
    for task, report in results.items():
        print(task)
        print(pd.DataFrame(report).T.drop(columns="best_epochs").to_string())
    if options.out is not None:
        write_text(options.out, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
