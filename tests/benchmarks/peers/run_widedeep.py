"""pytorch-widedeep's turn: `TabMlp` and `Vision` added up by `WideDeep`, the last epoch."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch
from common import read_task, write_result
from pytorch_widedeep import Trainer
from pytorch_widedeep.models import TabMlp, Vision, WideDeep
from pytorch_widedeep.preprocessing import ImagePreprocessor, TabPreprocessor


def main() -> None:
    """Train, predict the test side, write."""
    task = read_task()
    start = time.perf_counter()
    torch.manual_seed(task.seed)
    table = task.filled()
    table["image"] = [path.rsplit("/", 1)[1] for path in table["image"]]
    sides = {name: table[table["split"] == name] for name in ("train", "val", "test")}
    tabular = TabPreprocessor(
        cat_embed_cols=task.categorical,
        continuous_cols=task.numeric,
        cols_to_scale=task.numeric,
    )
    images = ImagePreprocessor("image", str(task.folder / "images"), verbose=0)

    def inputs(side: pd.DataFrame) -> dict[str, np.ndarray]:
        return {"X_tab": tabular.transform(side), "X_img": images.transform(side)}

    tabular.fit(sides["train"])
    images.fit(sides["train"])
    given = {
        name: inputs(sides[name]) | {"target": sides[name]["label"].to_numpy()}
        for name in ("train", "val")
    }
    model = WideDeep(
        deeptabular=TabMlp(
            column_idx=tabular.column_idx,
            cat_embed_input=tabular.cat_embed_input,
            continuous_cols=task.numeric,
        ),
        deepimage=Vision(pretrained_model_setup={task.backbone: None}),
    )
    trainer = Trainer(model, objective="binary", seed=task.seed, verbose=0)
    trainer.fit(
        X_train=given["train"],
        X_val=given["val"],
        n_epochs=task.epochs,
        batch_size=task.batch_size,
    )
    seconds = time.perf_counter() - start
    p = trainer.predict_proba(X_test=inputs(sides["test"]), batch_size=task.batch_size)[:, 1]
    subjects = sides["test"]["subject_id"]
    write_result(task, subjects, p.tolist(), seconds, ["pytorch-widedeep", "torch"])


if __name__ == "__main__":
    main()
