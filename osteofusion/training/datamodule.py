"""The data module: images and spreadsheet rows in, batches out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from osteofusion.data.cache import RadiographCache
from osteofusion.data.clinical import (
    ClinicalSchema,
    Scaling,
    fit_preprocessing,
    freeze,
    select_features,
)
from osteofusion.data.cohort import Cohort, build_cohort, missing_root_message
from osteofusion.data.labels import TASKS, task_classes
from osteofusion.data.manifest import REGION, load_manifest
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.data.splits import (
    load_splits,
    make_splits,
    save_splits,
    select_fold,
)
from osteofusion.data.transforms import Augmentation, Augmenter
from osteofusion.data.unite import unite
from osteofusion.errors import CohortError, ConfigError, SplitError
from osteofusion.files import cache_root
from osteofusion.models.image import StagedEncoder
from osteofusion.training.dataset import UNLABELLED, EpochSampler, RadiographDataset
from osteofusion.training.features import FeatureStore, FrozenPhase, view_seeds
from osteofusion.training.sources import (
    absolute,
    demo_root,
    listed,
    manifest_name,
    of_regions,
    one_or_all,
    refuse_missing,
    splits_file,
)
from osteofusion.training.trained import FROZEN, TrainedData, inherited_settings

Batch = dict[str, Tensor]
Arm = Literal["fused", "image", "tabular"]


class RadiographDataModule(LightningDataModule):
    """Joins radiographs to clinical rows by subject ID, splits them, and serves batches.

    The properties are lazy: nothing is read before one of them, or a loader, is asked for.

    Args:
        manifest: Name of a shipped manifest, or the path of one; a list for several data sets in
            one cohort.
        root: Folder of the data set, or a list with one for each manifest; the demo cohort is
            made when it is left out.
        table: Another table file in place of the manifest's.
        labels: Another label file in place of the manifest's.
        task: ``binary`` (normal vs low BMD), ``osteoporosis`` (vs the rest) or ``three_class``.
        features: Canonical names of the clinical columns to use; default: all features. ``region``
            is one of them where the data sets are of several regions.
        regions: Regions whose rows are used, of a cohort of several; default: all.
        numeric_scaling: Of clinical numbers: ``standard`` (mean 0, variance 1) or ``minmax`` (the
            training rows in [0, 1]).
        arm: Which modalities are read (follows ``model.arm``).
        image_size: Side of the square that the model sees, px.
        clahe: Equalise contrast locally.
        pixel_spacing: Millimetres a pixel shall have, for DICOM files that say what theirs have;
            null scales every radiograph to the square.
        augmentation: Applied to training rows; null for none.
        augmentation_views: How many fixed augmentations of each training radiograph a frozen
            backbone sees, one after another from epoch to epoch, its features computed once each;
            null draws a new one every time, for which the backbone runs at every step.
        splits: A saved ``splits.csv`` to use in place of a new split; shipped ones by name.
        validation: Share of the radiographs on the validation side.
        test: Share on the test side; ignored with `folds`.
        folds: Number of cross-validation folds; ``sites`` to leave one site out a fold; null for
            one split by shares.
        fold: Which fold is the test side.
        repeat: Which repetition of the folds.
        split_seed: Seed of the split, apart from the seed of training.
        batch_size: Rows a step.
        num_workers: Loader processes; default: none on a CPU, which training keeps busy.
        balanced_sampler: Draw training rows so that classes are equally frequent.
        cache_dir: Folder of decoded images; default: the user's cache folder.
        copies: ``copies.csv`` of an audit, whose pairs then stay on one side of every split.
    """

    def __init__(
        self,
        manifest: str | list[str] = "demo",
        root: str | list[str] | None = None,
        table: str | None = None,
        labels: str | None = None,
        task: Literal["binary", "osteoporosis", "three_class"] = "binary",
        features: list[str] | None = None,
        regions: list[str] | None = None,
        numeric_scaling: Scaling = "standard",
        arm: Arm = "fused",
        image_size: int = 224,
        clahe: bool = False,
        pixel_spacing: float | None = None,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 (frozen dataclass)
        augmentation_views: int | None = None,
        splits: str | None = None,
        validation: float = 0.15,
        test: float = 0.2,
        folds: int | Literal["sites"] | None = None,
        fold: int = 0,
        repeat: int = 0,
        split_seed: int = 0,
        batch_size: int = 16,
        num_workers: int | None = None,
        balanced_sampler: bool = False,
        cache_dir: str | None = None,
        copies: str | None = None,
    ) -> None:
        super().__init__()
        settings: dict[str, Any] = {
            "manifest": one_or_all(manifest, manifest_name),
            "root": one_or_all(root, absolute),
            "table": absolute(table),
            "labels": absolute(labels),
            "task": task,
            "features": features,
            "regions": regions,
            "numeric_scaling": numeric_scaling,
            "arm": arm,
            "image_size": image_size,
            "clahe": clahe,
            "pixel_spacing": pixel_spacing,
            "augmentation": dataclasses.asdict(augmentation) if augmentation else None,
            "augmentation_views": augmentation_views,
            "splits": splits_file(splits),
            "validation": validation,
            "test": test,
            "folds": folds,
            "fold": fold,
            "repeat": repeat,
            "split_seed": split_seed,
            "batch_size": batch_size,
            "num_workers": num_workers,
            "balanced_sampler": balanced_sampler,
            "cache_dir": absolute(cache_dir),
            "copies": absolute(copies),
        }
        self.save_hyperparameters(settings)
        if image_size < 32:
            raise ConfigError(f"data.image_size is {image_size}; no backbone reads under 32 px.")
        if batch_size < 1:
            raise ConfigError(f"data.batch_size is {batch_size}; it must be at least 1.")
        if num_workers is not None and num_workers < 0:
            raise ConfigError(f"data.num_workers is {num_workers}; it must be 0 or more.")
        if augmentation_views is not None and (augmentation is None or augmentation_views < 1):
            raise ConfigError(
                f"data.augmentation_views is {augmentation_views}; it must be at least 1 and needs "
                "data.augmentation."
            )
        self.augmentation = augmentation
        self.need_labels = True
        self.frozen: FrozenPhase | None = None
        self._trained: TrainedData | None = None

    # ---- what the model is built from (lazy; resolved before `setup`) ----

    @cached_property
    def cohort(self) -> Cohort:
        """The joined cohort.

        Raises:
            OsteofusionError: as :func:`osteofusion.data.cohort.build_cohort`, or a column means
                something else than it did in training.
        """
        h = self.hparams
        manifests = [load_manifest(name) for name in listed(h["manifest"])]
        chosen = h["features"]
        if self._trained is not None and chosen is not None:  # one region alone has no such column
            chosen = [name for name in chosen if name != REGION] or None
        select_features(unite(manifests), chosen)  # refuse outcomes before anything is read
        roots = listed(h["root"])
        if not roots:
            for manifest in manifests:
                if not manifest.synthetic:
                    raise CohortError("data.root: " + missing_root_message(manifest, None))
            roots = [str(demo_root(manifest.region)) for manifest in manifests]
        cohort = build_cohort(
            manifests,
            roots,
            table=h["table"],
            labels=h["labels"],
            copies=h["copies"] if self._trained is None else None,
            need_labels=self.need_labels,
            progress=_is_rank_zero(),
        )
        refuse_missing(h["arm"], cohort.table, cohort.manifest.features)
        if self._trained is None:
            return cohort
        self.schema.refuse_other_meaning(cohort.manifest)
        return dataclasses.replace(cohort, table=self._trained.regroup(cohort.table))

    @property
    def class_names(self) -> list[str]:
        """Class names in order of falling bone density."""
        return task_classes(self.hparams["task"])

    @cached_property
    def schema(self) -> ClinicalSchema:
        """The clinical features: the trained model's, else fitted on the training rows."""
        if self._trained is not None:
            return self._trained.schema
        names = select_features(self.cohort.manifest, self.hparams["features"])
        if self.hparams["features"] is None:
            useless = self.empty_features
            if self.side("train")[REGION].nunique() == 1:
                useless = [*useless, REGION]
            names = [name for name in names if name not in useless]
            if self.hparams["arm"] != "image" and not names:
                raise CohortError(
                    "No training row has a value in any clinical column; use model.arm=image, or "
                    "another split."
                )
        return ClinicalSchema.fit(self.side("train"), self.cohort.manifest, names)

    @cached_property
    def empty_features(self) -> list[str]:
        """Features without a value in any training row; they are left out unless asked for."""
        train = self.side("train")
        return [
            name
            for name in self.cohort.manifest.features
            if name not in train or train[name].isna().all()
        ]

    @cached_property
    def clinical(self) -> dict[str, Any]:
        """Schema and frozen preprocessing as plain values, fitted on the training rows."""
        matrix = self.schema.encode(self.side("train"))
        fitted = fit_preprocessing(matrix, self.schema, self.hparams["numeric_scaling"])
        return {
            "schema": self.schema.to_dict(),
            "preprocessing": freeze(fitted, self.schema),
        }

    @property
    def class_counts(self) -> list[float]:
        """Training rows of each class, as the sampler draws them.

        Raises:
            CohortError: a class has none.
        """
        counts = self.row_counts
        if self.hparams["balanced_sampler"]:
            return [sum(counts) / len(counts)] * len(counts)
        return counts

    @property
    def row_counts(self) -> list[float]:
        """Training rows of each class, however often the sampler draws them.

        Raises:
            CohortError: a class has none.
        """
        counts = np.bincount(self.codes(self.side("train")), minlength=len(self.class_names))
        for name, count in zip(self.class_names, counts, strict=True):
            if not count:
                raise CohortError(
                    f"No training row is {name}, a class of data.task={self.hparams['task']}; "
                    "choose another task or add data."
                )
        return [float(count) for count in counts]

    @cached_property
    def seed(self) -> int:
        """Seed of the epochs: the trained model's, else PyTorch's when it is first asked for."""
        return int(torch.initial_seed() % 2**32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the cohort table: images, labels and clinical values."""
        rows = pd.util.hash_pandas_object(self.cohort.table.astype(str), index=False)
        return hashlib.sha256(rows.to_numpy().tobytes()).hexdigest()

    # ---- rows ----

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The cohort table with the task's ``label`` and the ``split``, ``fold``, ``repeat``."""
        table = self.cohort.table.copy()
        table["label"] = table["label"].map(TASKS[self.hparams["task"]])
        if self.need_labels:
            keys = ["subject_id", "image"]
            chosen = self.splits[[*keys, "split", "fold", "repeat"]]
            table = table.merge(chosen, on=keys, how="left", validate="one_to_one")
        else:
            table = table.assign(split="predict", fold=0, repeat=0)
        # Only now, so that models of one region share the folds of a model of all.
        regions = self.hparams["regions"]
        if self._trained is not None:
            return self._trained.of_regions(table, regions)
        return of_regions(table, regions)

    @cached_property
    def splits(self) -> pd.DataFrame:
        """The chosen fold: the trained model's, the file's, or a new one."""
        h = self.hparams
        table = self.cohort.table
        if self._trained is not None:
            return self._trained.match(table, list(self.cohort.roots))
        # Stratified by the cohort's own labels, so that every task can use the same split; but a
        # label that one site alone has must not forbid a task of fewer classes to leave it out.
        strata = table
        if h["folds"] == "sites" or (h["splits"] is not None and len(self.cohort.roots) > 1):
            strata = table.assign(label=table["label"].map(TASKS[h["task"]]))
        if h["splits"] is not None:
            made = load_splits(h["splits"], strata)
        else:
            made = make_splits(
                strata,
                seed=h["split_seed"],
                validation=h["validation"],
                test=h["test"],
                folds=h["folds"],
                repeats=h["repeat"] + 1,
            )
        chosen = select_fold(made, h["fold"], h["repeat"])
        keys = ["subject_id", "image"]
        own = chosen.drop(columns="label").merge(table[[*keys, "label"]], on=keys)
        return own[chosen.columns.tolist()]

    def side(self, split: str) -> pd.DataFrame:
        """The rows of one side: train, val, test or predict."""
        return self.rows[self.rows["split"] == split]

    # ---- a trained model's data ----

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Mapping[str, Any], *, need_labels: bool = True, **changed: Any
    ) -> RadiographDataModule:
        """The data module a checkpoint was trained with, its preprocessing and split kept.

        Args:
            checkpoint: Content of the file, from ``torch.load(path, weights_only=True)``.
            need_labels: False for new patients.
            **changed: Settings that differ from training, such as `root` or `batch_size`.

        Raises:
            ConfigError: a changed setting is one that the trained model fixes.
        """
        trained = checkpoint["datamodule_hyper_parameters"]
        for name in FROZEN:
            if name in changed and changed[name] != trained[name]:
                raise ConfigError(
                    f"{name}={changed[name]!r} would be ignored: the checkpoint was trained with "
                    f"{trained[name]!r}; leave it out."
                )
        settings = {**inherited_settings(checkpoint, changed), **changed}
        if isinstance(settings["augmentation"], Mapping):
            settings["augmentation"] = Augmentation(**settings["augmentation"])
        data = cls(**settings)
        data.adopt(checkpoint, need_labels=need_labels)
        return data

    def adopt(self, checkpoint: Mapping[str, Any], *, need_labels: bool = True) -> None:
        """Encode as the checkpoint's model does and keep its split; nothing is fitted any more."""
        self.need_labels = need_labels
        state = checkpoint[type(self).__qualname__]
        schema = checkpoint["hyper_parameters"]["clinical"]["schema"]
        self._trained = TrainedData.from_state(schema, state)
        self.seed = state["seed"]

    def save_splits(self, path: Path) -> None:
        """Write the split in use, re-usable as ``data.splits``."""
        save_splits(self.splits, path)

    def state_dict(self) -> dict[str, Any]:
        """Which rows a checkpoint has seen, on which sides, and the seed of its epochs."""
        return {
            "splits": self.splits.to_dict(orient="list"),
            "sites": list(self.cohort.roots),
            "regions": sorted(self.side("train")[REGION].unique())
            if self._trained is None
            else self._trained.regions,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the seed of the first part of a training.

        Raises:
            SplitError: the cohort or its split has changed since.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.refuse_changes(state_dict)
            self.seed = state_dict["seed"]

    def refuse_changes(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse to go on with other rows than a checkpoint was trained on.

        Raises:
            SplitError: the cohort or its split has changed.
        """
        now = self.state_dict()
        if any(state_dict[key] != now[key] for key in ("splits", "fingerprint")):
            raise SplitError(
                f"The cohort in {self.cohort.report.root} or its split has changed since the "
                "checkpoint was written, so training cannot go on from it; restore the data or "
                "start a new run."
            )

    # ---- Lightning ----

    def prepare_data(self) -> None:
        """Decode every image that is not cached yet."""
        if self.cache is not None:
            self.cache.fill(
                [image for image in self._images(self.rows) if image[1]],
                workers=os.cpu_count() or 1,
                progress=sys.stderr.isatty(),
            )

    def setup(self, stage: str) -> None:
        """Check that there are rows to work on."""
        side = {"fit": "train", "validate": "val", "test": "test"}.get(stage)
        if side is not None and self.side(side).empty:
            if self._trained is not None:
                raise SplitError(
                    f"No row of these data is on the {side} side of the checkpoint's split: the "
                    "model was trained on them; pass the whole cohort, or another one."
                )
            raise SplitError(f"No radiograph is on the {side} side; check data.splits.")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented training rows in an order that depends on the seed and the epoch alone."""
        rows, trainer = self.side("train"), self.trainer
        weights = None
        if self.hparams["balanced_sampler"]:
            codes = self.codes(rows)
            weights = 1.0 / np.bincount(codes)[codes]
        count, views = self.hparams["augmentation_views"], None
        if count is not None and self.frozen is not None and self.frozen.lasts(trainer):
            views = view_seeds(rows["image_sha256"].tolist(), self.seed, count)
        sampler = EpochSampler(
            weights,
            len(rows),
            seed=self.seed,
            num_replicas=trainer.world_size if trainer is not None else 1,
            rank=trainer.global_rank if trainer is not None else 0,
            views=views,
        )
        # A last batch of one row would be all there is to a batch norm's statistics.
        drop_last = len(sampler) > self.hparams["batch_size"]
        return self.loader(rows, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation rows as they are."""
        return self.loader(self.side("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """All rows as they are; the figures are taken from the test side alone."""
        return self.loader(self.rows)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """All rows as they are."""
        return self.loader(self.rows)

    def use_frozen(
        self, encoder: StagedEncoder, *, pooled: bool, epochs: int | None = None
    ) -> None:
        """Serve an encoder's features in place of pixels, wherever they are always the same.

        That is everywhere but in training rows that are augmented anew every time. Under several
        processes each encodes its share of those that are not on disk yet.

        Args:
            encoder: It must not change any more.
            pooled: Whether the model reads pooled vectors, not maps.
            epochs: How long it stays as it is; None for ever.
        """
        assert self.cache is not None
        folder = self.hparams["cache_dir"] or cache_root()
        views = self.hparams["augmentation_views"] is not None
        augmenter = Augmenter(self.augmentation) if views and self.augmentation else None
        store = FeatureStore(
            Path(folder) / "features", encoder, self.cache, pooled=pooled, augmenter=augmenter
        )
        self.frozen = FrozenPhase(store, epochs)

    def loader(
        self, rows: pd.DataFrame, sampler: EpochSampler | None = None, drop_last: bool = False
    ) -> DataLoader[Batch]:
        """Batches of rows of `self.rows`, augmented if a sampler chooses them."""
        augment = sampler is not None and self.augmentation is not None
        seeds = sampler.views if augment and sampler is not None else None
        always_same = seeds is not None or not augment
        features = None
        if self.frozen is not None and self.frozen.lasts(self.trainer) and always_same:
            features = self.frozen.read(self._images(rows), seeds, self.trainer)
        dataset = RadiographDataset(
            images=self._images(rows) if self.cache is not None else [(Path(), "")] * len(rows),
            clinical=self.schema.encode(rows),
            labels=self.codes(rows),
            t_scores=self.t_scores(rows),
            index=rows.index.to_numpy(),
            cache=self.cache,
            features=features,
            augmenter=Augmenter(self.augmentation) if augment and self.augmentation else None,
        )
        workers = self.hparams["num_workers"]
        if workers is None and features is not None:
            workers = 0  # there is nothing left to do
        elif workers is None:
            workers = min(8, os.cpu_count() or 1) if torch.cuda.is_available() else 0
        return DataLoader(
            dataset,
            batch_size=self.hparams["batch_size"],
            sampler=sampler,
            drop_last=drop_last,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    @cached_property
    def cache(self) -> RadiographCache | None:
        """Source of decoded images; None where the arm reads none."""
        h = self.hparams
        if h["arm"] == "tabular":
            return None
        folder = h["cache_dir"] or cache_root() / "radiographs"
        return RadiographCache(
            Path(folder),
            RadiographPreprocessing(h["image_size"], h["clahe"], h["pixel_spacing"]),
        )

    def _images(self, rows: pd.DataFrame) -> list[tuple[Path, str]]:
        return list(zip(self.cohort.files(rows), rows["image_sha256"], strict=True))

    def codes(self, rows: pd.DataFrame) -> np.ndarray:
        """Class codes (n,) int64 of cohort rows; -1 where the label is unknown."""
        codes = {name: code for code, name in enumerate(self.class_names)}
        labels = rows["label"].map(codes).fillna(UNLABELLED)
        return labels.to_numpy(dtype=np.int64, copy=True)  # PyTorch wants it writable

    def t_scores(self, rows: pd.DataFrame) -> np.ndarray:
        """T-scores (n,) float64 in SD of cohort rows; NaN where unknown."""
        name = self.cohort.manifest.label.t_score
        if name is None or name not in rows:
            return np.full(len(rows), np.nan)
        return rows[name].to_numpy(dtype=np.float64)


def _is_rank_zero() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"
