"""The run that a bundle is made from: a checkpoint, what it predicted, and on whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osteofusion.errors import ConfigError
from osteofusion.serving.errors import BundleError
from osteofusion.training.checkpoints import load_checkpoint
from osteofusion.training.predictions import read_predictions
from osteofusion.training.run import run_dir_of


@dataclass(frozen=True)
class Run:
    """A checkpoint and the run that scored it.

    Attributes:
        path: The checkpoint.
        content: Its plain values and tensors.
        folder: Run folder with predictions.csv and cohort.csv.
        arm: Arm of the model.
        classes: Class names in order.
        predictions: Rows of the arm, every side.
        cohort: The joined table, rows in the order of `predictions`.
    """

    path: Path
    content: dict[str, Any]
    folder: Path
    arm: str
    classes: list[str]
    predictions: pd.DataFrame
    cohort: pd.DataFrame

    def side(self, *names: str) -> NDArray[np.bool_]:
        """(n,) the rows of these sides."""
        return self.predictions["split"].isin(names).to_numpy()


def read_run(checkpoint: Path, run: Path | None) -> Run:
    """Read a checkpoint with its predictions and cohort.

    Raises:
        OsteofusionError: A file is missing, damaged or of another model.
    """
    path = checkpoint / "checkpoints" / "best.ckpt" if checkpoint.is_dir() else checkpoint
    if not path.is_file():
        raise BundleError(
            f"{path} does not exist; give the run folder that `osteofusion fit` names at its end, "
            "or a checkpoint file."
        )
    try:
        content = load_checkpoint(path)
    except ConfigError as error:
        raise BundleError(str(error).replace("--ckpt_path ", "")) from None
    arm, classes = (content["hyper_parameters"][key] for key in ("arm", "class_names"))
    folder = run or run_dir_of(path)
    if run is None and path.name != "best.ckpt":
        raise BundleError(
            f"{path} is not the checkpoint that its run scored (best.ckpt); run `osteofusion test "
            f"--ckpt_path {path}` and name the folder it makes with --run."
        )
    table = folder / "predictions.csv"
    for name in ("predictions.csv", "cohort.csv"):
        if not (folder / name).is_file():
            raise BundleError(
                f"{folder} has no {name}, so nothing can be calibrated or chosen; run `osteofusion "
                f"test --ckpt_path {path}` and name the folder it makes with --run."
            )
    try:
        predictions = read_predictions(table)
        rows = predictions[predictions["arm"] == arm].reset_index(drop=True)
        sides = set(rows["split"])
    except (KeyError, ValueError) as error:
        raise BundleError(f"{table} is damaged ({error}); score the checkpoint again.") from None
    if missing := {"val", "test"} - sides:
        named = " or ".join(sorted({"val": "validation", "test": "test"}[s] for s in missing))
        raise BundleError(
            f"{table} has no {named} row of the {arm} model, and thresholds are chosen on "
            "validation rows and tested on test rows; use the run that trained it."
        )
    if "train" not in sides:
        raise BundleError(f"{table} has no training row; use the run that trained the checkpoint.")
    cohort = _cohort(folder, content["hyper_parameters"]["clinical"]["schema"], rows)
    return Run(path, content, folder, arm, list(classes), rows, cohort)


def _cohort(folder: Path, schema: list[dict[str, Any]], rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of cohort.csv in the order of the predictions."""
    words = {item["name"]: str for item in schema if item["kind"] == "categorical"}
    text: dict[str, Any] = {"subject_id": str, "image": str, **words}
    table = pd.read_csv(
        folder / "cohort.csv", dtype=text, keep_default_na=False, na_values=[""],
        float_precision="round_trip",
    )  # fmt: skip
    keys = ["subject_id", "image"]
    table["image"] = table["image"].fillna("")
    matched = rows[keys].merge(table, on=keys, how="left", validate="one_to_one", indicator=True)
    if (matched["_merge"] != "both").any():
        raise BundleError(
            f"{folder} has predictions of rows that its cohort.csv lacks; restore the file."
        )
    return matched
