"""The trained arms and their baselines on the Mendeley cohort, on its canonical 5 x 3 folds.

    python tests/benchmarks/mendeley_targets.py --root DIR [--task binary] [--out targets.json]

Every cell is an ordinary fit on frozen EfficientNet-Lite0 features, without T- and Z-score: at most
40 epochs, stopped 8 epochs after the best validation loss, whose epoch is scored. Settings are the
package's defaults, but for the fusion, `residual_late`, and the head of the image arm, `softmax`.
Nothing is chosen on test rows. `image_ridge` is ridge regression on the same features, standardised
within acquisition family (the training rows', shrunk to those of all families). `within_family` is
the AUROC for low bone density among pairs of one family, which reading the family cannot raise.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping
from rich.progress import track
from sklearn.metrics import roc_auc_score

from osteofusion.data.page.families import acquisition_families
from osteofusion.evaluation import BaselineRows, evaluate, fit_baselines
from osteofusion.files import write_text
from osteofusion.models import ClinicalPreprocessing
from osteofusion.training.callbacks import RunCheckpoint, StepSeed
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule

FOLDS, REPEATS, SEED = 5, 3, 42
ARMS = {
    "tabular": {},
    "fused": {"fusion": "residual_late"},
    "image": {"head": "softmax"},
}
KEYS = ["subject_id", "image", "group", "site", "region", "split", "fold", "repeat", "label"]


def data_of(root: Path, task: str, arm: str, repeat: int, fold: int) -> RadiographDataModule:
    return RadiographDataModule(
        manifest="mendeley",
        root=str(root),
        task=task,
        arm=arm,
        augmentation=None,
        folds=FOLDS,
        fold=fold,
        repeat=repeat,
        num_workers=0,
    )


def train(data: RadiographDataModule, arm: str) -> np.ndarray:
    """Probabilities of the test rows."""
    seed_everything(SEED, verbose=False)
    assert data.seed == SEED  # taken now: a step of training changes PyTorch's
    module = FusionModule(
        class_names=data.class_names,
        clinical=data.clinical,
        class_counts=data.class_counts,
        arm=arm,
        frozen_backbone=True,
        **ARMS[arm],
    )
    with tempfile.TemporaryDirectory() as folder:
        best = RunCheckpoint(folder, monitor="val_loss", filename="best")
        trainer = Trainer(
            max_epochs=40,
            callbacks=[StepSeed(), EarlyStopping("val_loss", patience=8), best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
        state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    module.eval()
    rows, found = [], []
    with torch.inference_mode():
        for batch in data.test_dataloader():
            rows.append(batch["index"])
            found.append(module(batch).double().softmax(dim=1))
    index, p = torch.cat(rows).numpy(), torch.cat(found).numpy()
    return pd.DataFrame(p, index=index).loc[data.side("test").index].to_numpy()


def facts(data: RadiographDataModule, split: str) -> BaselineRows:
    rows = data.side(split)
    design = ClinicalPreprocessing(data.clinical["preprocessing"])(
        torch.tensor(data.schema.encode(rows))
    )
    columns = {
        name: rows[name].to_numpy(dtype=np.float64)
        for name in ("age", "weight", "female", "estrogen")
    }
    return BaselineRows(design.numpy(), data.codes(rows), columns["age"], columns=columns)


def image_ridge(data: RadiographDataModule, family: np.ndarray) -> np.ndarray:
    """Class scores of the test rows, as probabilities that sum to one."""
    features, rows = data.features, data.rows
    assert features is not None
    x = torch.stack([features.get(sha) for sha in rows["image_sha256"]]).double().numpy()
    train_rows = (rows["split"] == "train").to_numpy()
    mean, var = x[train_rows].mean(axis=0), x[train_rows].var(axis=0)
    z = (x - mean) / np.sqrt(var + 1e-12)
    for name in np.unique(family):
        here = train_rows & (family == name)
        n, prior = here.sum(), 5
        if n < prior:
            continue
        centre = (x[here].sum(axis=0) + prior * mean) / (n + prior)
        spread = (((x[here] - centre) ** 2).sum(axis=0) + prior * var) / (n + prior)
        z[family == name] = (x[family == name] - centre) / np.sqrt(spread + 1e-12)
    codes = data.codes(data.side("train"))
    target = np.eye(len(data.class_names))[codes]
    kernel = z @ z.T / z.shape[1]
    inner = kernel[np.ix_(train_rows, train_rows)]
    weights = np.linalg.solve(inner + np.eye(len(inner)), target - target.mean(axis=0))
    test = (rows["split"] == "test").to_numpy()
    scores = kernel[np.ix_(test, train_rows)] @ weights + target.mean(axis=0)
    scores = np.clip(scores, 1e-3, None)
    return scores / scores.sum(axis=1, keepdims=True)


def within_family(rows: pd.DataFrame, family: dict[str, str]) -> float:
    """AUROC for low bone density among pairs of one fold and family."""
    low, p = rows["label"] != "normal", 1 - rows["p_normal"]
    won = pairs = 0.0
    for _, index in rows.groupby(["repeat", "fold", rows["image"].map(family)]).groups.items():
        positive = int(low[index].sum())
        n = positive * (len(index) - positive)
        if n:
            won, pairs = won + n * roc_auc_score(low[index], p[index]), pairs + n
    return won / pairs


def study(task: str, root: Path) -> dict[str, object]:
    """All arms of one task."""
    tables, seconds, family = [], [], None
    cells = [(repeat, fold) for repeat in range(REPEATS) for fold in range(FOLDS)]
    for repeat, fold in track(cells, description=task):
        found: dict[str, np.ndarray] = {}
        for arm in ARMS:
            began = time.monotonic()
            data = data_of(root, task, arm, repeat, fold)
            found[arm] = train(data, arm)
            seconds.append(time.monotonic() - began)
        if family is None:
            named = acquisition_families(data.cohort.files(data.rows)).astype(str)
            family = dict(zip(data.rows["image"], named, strict=True))
        found["image_ridge"] = image_ridge(data, data.rows["image"].map(family).to_numpy())
        data = data_of(root, task, "tabular", repeat, fold)
        found |= fit_baselines(
            facts(data, "train"), facts(data, "test"), data.class_names
        ).probabilities
        test = data.side("test")
        for arm, p in found.items():
            table = test[KEYS].assign(arm=arm, seed=SEED)
            for code, name in enumerate(data.class_names):
                table[f"p_{name}"] = table[f"raw_{name}"] = p[:, code]
            tables.append(table)
    predictions = pd.concat(tables, ignore_index=True)
    arms = list(predictions["arm"].unique())
    compare = [("fused", arm) for arm in arms if arm not in ("fused", "image")]
    compare += [("tabular", arm) for arm in arms if arm not in ("fused", "tabular")]
    result = evaluate(predictions, data.class_names, compare=compare)
    assert family is not None
    return {
        "within_family": {
            arm: within_family(predictions[predictions["arm"] == arm], family) for arm in arms
        },
        "seconds_a_fit": {"mean": float(np.mean(seconds)), "most": float(np.max(seconds))},
        "evaluation": result.to_dict(),
    }


def main() -> None:
    """Run, print AUROCs and differences, and write the rest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the Mendeley data set")
    parser.add_argument("--task", action="append", choices=["binary", "three_class"])
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    results: dict[str, Any] = {
        task: study(task, options.root) for task in options.task or ["binary", "three_class"]
    }
    if options.out is not None:
        write_text(options.out, json.dumps(results, indent=2) + "\n")
    for task, result in results.items():
        print(task)
        metric = "auroc" if task == "binary" else "macro_auroc"
        for arm, each in result["evaluation"]["arms"].items():
            value, family = each["metrics"][metric], result["within_family"][arm]
            interval = f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
            print(f"  {arm:22s} {interval}  within family {family:.3f}")
        for each in result["evaluation"]["differences"]:
            if each["metric"] == metric:
                value = each["estimate"]
                interval = f"{value['value']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
                print(f"  {each['first']} minus {each['second']:22s} {interval}")


if __name__ == "__main__":
    main()
