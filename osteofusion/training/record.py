"""What a run folder holds from the start: settings, cohort, split and surroundings."""

from __future__ import annotations

from pathlib import Path

from osteofusion.files import atomic_path, write_text
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.run import environment, write_json


def record_run(
    folder: Path, data: RadiographDataModule, settings: str, weights: str | None
) -> None:
    """Write what a new run knows before it begins.

    Args:
        folder: The run folder.
        data: Its data.
        settings: Content of ``config.yaml``.
        weights: Where the model's first weights come from.
    """
    write_text(folder / "config.yaml", settings)
    with atomic_path(folder / "cohort.csv") as temporary:
        data.cohort.table.to_csv(temporary, index=False)
    write_json(folder / "join_report.json", data.cohort.report.to_dict())
    write_json(folder / "environment.json", environment(data.cohort, data.fingerprint, weights))
    if data.need_labels:
        data.save_splits(folder / "splits.csv")


def record_resumption(folder: Path, settings: str) -> None:
    """Write the settings with which a run goes on, and clear what its interruption left."""
    write_text(folder / "config.yaml", settings)
    for abandoned in folder.rglob("checkpoints/.*.ckpt"):
        abandoned.unlink()  # by a process that was killed while it wrote
