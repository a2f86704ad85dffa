"""What the runners of `peers.py` share.

Each runs in the virtual environment of its own package, where osteofusion is not installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Task:
    """One fit: the rows, what they mean, and how long to train.

    Attributes:
        folder: What all runners read: images, table, splits, manifest.
        out: Where this runner writes.
        table: `subject_id`, `image` (a path), `split`, `label` (0 or 1), then clinical columns.
        fold: Which fold of the splits the column `split` is.
        numeric: Clinical columns that hold numbers.
        categorical: Clinical columns that hold a word, or 0 and 1.
        image_size: Side of the images, px.
        backbone: Name of the image encoder.
        epochs: Number of epochs.
        batch_size: Rows a step.
        seed: Of weights and of the order of rows.
    """

    folder: Path
    out: Path
    table: pd.DataFrame
    fold: int
    numeric: list[str]
    categorical: list[str]
    image_size: int
    backbone: str
    epochs: int
    batch_size: int
    seed: int

    @property
    def clinical(self) -> list[str]:
        """All clinical columns."""
        return [*self.numeric, *self.categorical]

    def side(self, name: str) -> pd.DataFrame:
        """Rows of ``train``, ``val`` or ``test``."""
        return self.table[self.table["split"] == name].reset_index(drop=True)

    def filled(self) -> pd.DataFrame:
        """The table without gaps, for packages that take none: training median, or a word."""
        table = self.table.copy()
        medians = self.side("train")[self.numeric].median()
        table[self.numeric] = table[self.numeric].fillna(medians)
        table[self.categorical] = table[self.categorical].fillna("missing").astype(str)
        return table

    def matrix(self) -> pd.DataFrame:
        """Clinical columns as standardised numbers and one-hot words, for packages without any."""
        table = self.filled()
        train = table[table["split"] == "train"]
        spread = train[self.numeric].std().replace(0.0, 1.0)
        numbers = (table[self.numeric] - train[self.numeric].mean()) / spread
        words = pd.get_dummies(table[self.categorical], dtype=float)
        return pd.concat([numbers, words], axis=1)


def read_task() -> Task:
    """The task named on the command line: ``runner.py TASK.json OUT``."""
    path, out = (Path(argument) for argument in sys.argv[1:])
    settings = json.loads(path.read_text())
    table = pd.read_csv(path.parent / settings.pop("table"), dtype={"subject_id": str})
    return Task(path.parent, out, table, **settings)


def write_result(
    task: Task,
    subjects: Sequence[str],
    probabilities: Sequence[float],
    training_s: float,
    packages: Sequence[str],
) -> None:
    """Write the test side's probabilities of label 1, the time of training, and versions."""
    rows = {"subject_id": list(subjects), "p": list(probabilities)}
    pd.DataFrame(rows).to_csv(task.out / "predictions.csv", index=False)
    content = {"training_s": training_s, "versions": {name: version(name) for name in packages}}
    (task.out / "result.json").write_text(json.dumps(content))
