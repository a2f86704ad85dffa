"""Carrying a trained model over to another task: what is taken, what starts anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer

from osteofusion.errors import ConfigError, SplitError
from osteofusion.training.checkpoints import load_checkpoint
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.run import write_json

if TYPE_CHECKING:
    from osteofusion.training.module import FusionModule

_PREFIX = "model."
# Scores, and what turns them into classes, mean something else in another task.
_OF_THE_CLASSES = (
    "link.", "skip.", "head.", "image_head.", "clinical_head.", "fusion.image_head.",
    "fusion.clinical_head.", "fusion.correction.", "fusion.shrinkage", "fusion.weight_logit",
)  # fmt: skip
_OF_THE_ROWS = "preprocessing."  # fitted on this run's training rows
BUILT_ALIKE = (
    "arm", "backbone", "image_encoder", "image_options", "clinical_encoder", "clinical_options",
    "fusion", "fusion_options",
)  # fmt: skip


@dataclass(frozen=True)
class Carried:
    """What a model took from a checkpoint.

    Attributes:
        checkpoint: Its file.
        carried: Names of the tensors that were taken.
        new: Names of those that were not: the scores of the classes, and what they are read by.
    """

    checkpoint: str
    carried: list[str]
    new: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the number of tensors of each part."""
        counts = {
            f"{kind}_parts": dict(Counter(name.partition(".")[0] for name in names))
            for kind, names in (("carried", self.carried), ("new", self.new))
        }
        return {**counts, **asdict(self)}

    def sentence(self) -> str:
        """What was carried, part by part."""
        said = self.to_dict()
        parts = [
            ", ".join(f"{part} ({count})" for part, count in said[f"{kind}_parts"].items())
            for kind in ("carried", "new")
        ]
        return (
            f"Carried over from {self.checkpoint}: {len(self.carried)} tensors of {parts[0]}; "
            f"new: {len(self.new)} of {parts[1]}."
        )


class CarriedWriter(Callback):
    """Prints what a fit was started with, and writes it to `carried.json`.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, where weights were carried over: a resumed run has its own."""
        carried = getattr(pl_module, "carried", None)
        if isinstance(carried, Carried) and trainer.is_global_zero:
            print(carried.sentence())
            write_json(self.folder / "carried.json", carried.to_dict())


def carry_over(module: FusionModule, data: RadiographDataModule) -> Carried:
    """Start encoders, fusion and T-score head from the checkpoint in ``model.start_from``.

    The classes' scores (head, auxiliary heads, linear path, link) stay as they are, even where
    shapes agree: they are another task's. So a regression start, which sets them alone, overwrites
    nothing that was carried. The clinical preprocessing is that of this run's training rows.

    Raises:
        ConfigError: the file is no checkpoint of ours, or its model is built otherwise.
        SplitError: a test row of these data was trained or validated on.
    """
    checkpoint = check_start(module, data)
    known = {
        name.removeprefix(_PREFIX): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    own = module.model.state_dict()
    candidates = [name for name in own if not name.startswith(_OF_THE_ROWS)]
    taken = [
        name
        for name in candidates
        if name in known
        and known[name].shape == own[name].shape
        and not name.startswith(_OF_THE_CLASSES)
    ]
    module.model.load_state_dict({name: known[name] for name in taken}, strict=False)
    new = [name for name in candidates if name not in set(taken)]
    return Carried(str(Path(module.hparams["start_from"]).resolve()), taken, new)


def check_start(module: FusionModule, data: RadiographDataModule) -> dict[str, Any]:
    """Content of the checkpoint in ``model.start_from``, once it is known to fit.

    Raises:
        ConfigError, SplitError: as :func:`carry_over`.
    """
    path = Path(module.hparams["start_from"])
    if not path.is_file():
        raise ConfigError(
            f"model.start_from: {path} does not exist; give the checkpoint of a run, such as "
            "RUN/checkpoints/best.ckpt."
        )
    checkpoint = load_checkpoint(path)
    before, now = checkpoint["hyper_parameters"], module.hparams
    for name in BUILT_ALIKE:
        if before[name] != now[name]:
            raise ConfigError(
                f"model.start_from: {path} was built with {name}={before[name]!r} and this model "
                f"has {now[name]!r}; make them alike."
            )
    features = [
        [feature["name"] for feature in settings["clinical"]["schema"]]
        for settings in (before, now)
    ]
    if now["arm"] != "image" and features[0] != features[1]:
        differing = ", ".join(sorted(set(features[0]) ^ set(features[1]))) or "their order"
        raise ConfigError(
            f"model.start_from: {path} reads other clinical columns ({differing}); make "
            "data.features alike."
        )
    state: Mapping[str, Any] = checkpoint[RadiographDataModule.__qualname__]
    same_people = state["sites"] == list(data.cohort.roots)
    seen = seen_before(pd.DataFrame(state["splits"]), data.splits, by_subject=same_people)
    if len(seen):
        first = seen.iloc[0]
        raise SplitError(
            f"{len(seen)} test rows, such as {first['image'] or first['subject_id']!r}, were "
            f"trained or validated on by {path}; use its split, data.splits=RUN/splits.csv."
        )
    return checkpoint


def seen_before(
    first: pd.DataFrame, second: pd.DataFrame, *, by_subject: bool = True
) -> pd.DataFrame:
    """Test rows of a second split whose subject or film the first trained or validated on.

    Args:
        first: Split of the model that is started from.
        second: Split of the model that goes on.
        by_subject: Whether equal subject IDs are the same person; films always tell.
    """
    known, test = first[first["split"] != "test"], second[second["split"] == "test"]
    films = set(known["image_sha256"]) - {""}
    again = test["image_sha256"].isin(films)
    if by_subject:
        again |= test["subject_id"].isin(set(known["subject_id"]))
    return test[again]
