"""What a checkpoint fixes of its data, and how rows met later are held to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from osteofusion.data.clinical import ClinicalSchema
from osteofusion.data.splits import connected_groups
from osteofusion.errors import ConfigError, SplitError
from osteofusion.training.sources import absolute, manifest_name, one_or_all

# What a checkpoint fixes; everything else may differ when its model meets data again.
FROZEN = (
    "task", "features", "arm", "image_size", "clahe", "pixel_spacing", "augmentation",
    "augmentation_views", "balanced_sampler", "numeric_scaling", "regions", "splits", "validation",
    "test", "folds", "fold", "repeat", "split_seed",
)  # fmt: skip


@dataclass(frozen=True)
class TrainedData:
    """The rows that a model was trained with.

    Attributes:
        schema: Its clinical features.
        splits: Its split, one row a radiograph.
        sites: The sites of its cohort.
        regions: The regions that it has learnt.
    """

    schema: ClinicalSchema
    splits: pd.DataFrame
    sites: list[str]
    regions: list[str]

    @classmethod
    def from_state(cls, schema: Any, state: Mapping[str, Any]) -> TrainedData:
        """Read back what a checkpoint holds as plain values."""
        splits = pd.DataFrame(state["splits"])
        sites, regions = list(state["sites"]), list(state["regions"])
        return cls(ClinicalSchema.from_dict(schema), splits, sites, regions)

    def of_regions(self, rows: pd.DataFrame, regions: Sequence[str] | None) -> pd.DataFrame:
        """The rows of the regions that the model was made for.

        Args:
            rows: Of a cohort.
            regions: The regions that were chosen in training; None for all there were.

        Raises:
            ConfigError: a row is of a region that the model was not trained on.
        """
        chosen = rows if regions is None else rows[rows["region"].isin(regions)]
        rows = rows if chosen.empty else chosen.reset_index(drop=True)
        other = rows[~rows["region"].isin(self.regions)]
        if not other.empty:
            first = other.iloc[0]
            raise ConfigError(
                f"The model was trained on {' and '.join(self.regions)} radiographs, and "
                f"{len(other)} of {len(rows)} rows are {first['region']}, such as "
                f"{first['image'] or first['subject_id']!r}; leave that data set out, train with "
                "it, or correct `region` in its manifest."
            )
        return rows

    def regroup(self, table: pd.DataFrame) -> pd.DataFrame:
        """The cohort table with films kept together that were together in training.

        The checkpoint knows which; the audit's file that said so may be gone.
        """
        film = dict(zip(self.splits["image_sha256"], self.splits["group"], strict=True))
        film |= {"": None}
        digests = table["image_sha256"].tolist()
        known = [film.get(digest) for digest in digests]
        return table.assign(group=connected_groups(table["subject_id"].tolist(), digests, known))

    def match(self, table: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
        """The rows of a cohort with their side in training; all ``test`` where none was in it.

        Raises:
            SplitError: some rows were in training and others were not.
        """
        keys = ["who", "image_sha256"]
        known = self.splits.assign(who=_identity(self.splits, self.sites))
        # A subject's copy of its own film is a second row with the same key and the same side.
        sides = known.drop_duplicates(keys)[[*keys, "split", "fold", "repeat"]]
        cohort = table[["subject_id", "image", "image_sha256", "group", "label"]]
        who = _identity(cohort, sites)
        matched = cohort.assign(who=who).merge(sides, on=keys, how="left").drop(columns="who")
        unknown = matched["split"].isna()
        # The same film under another ID would be tested by a model that has learnt it.
        seen = matched["image_sha256"].isin(set(known["image_sha256"]) - {""})
        if unknown.all() and not seen.any():
            return matched.assign(split="test", fold=0, repeat=0)
        if unknown.any():
            first = matched[unknown].iloc[0]
            raise SplitError(
                f"{int(unknown.sum())} of {len(matched)} rows, such as "
                f"{first['image'] or first['subject_id']!r}, are not in the checkpoint's split "
                f"while {int((seen | ~unknown).sum())} are; pass the training cohort or an "
                "external one, not a mixture."
            )
        return matched.astype({"fold": int, "repeat": int})


def inherited_settings(checkpoint: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Data settings of training; a data set that is given anew brings its own files along.

    Raises:
        ConfigError: another manifest comes without a root of its own.
    """
    settings = dict(checkpoint["datamodule_hyper_parameters"])
    manifest = one_or_all(changed.get("manifest", settings["manifest"]), manifest_name)
    root = one_or_all(changed.get("root", settings["root"]), absolute)
    if manifest != settings["manifest"] and "root" not in changed:
        raise ConfigError(
            f"data.manifest={manifest} without data.root: the checkpoint was trained on "
            f"{settings['manifest']}; give both or neither (a config may have set one)."
        )
    if (manifest, root) != (settings["manifest"], settings["root"]):
        settings.update(table=None, labels=None, copies=None)
    return settings


def _identity(rows: pd.DataFrame, sites: Sequence[str]) -> pd.Series:
    """Whose a row is, in a form that a cohort of several sites and one of them alone share.

    Beside an image's digest the ID within its site is enough, whatever the manifest's name; without
    one, the same number at another site is another person.
    """
    ids = rows["subject_id"]
    if len(sites) == 1:
        whole, within = f"{sites[0]}/" + ids, ids
    else:
        names = "|".join(re.escape(site) for site in sorted(sites, key=len, reverse=True))
        whole, within = ids, ids.str.replace(f"^(?:{names})/", "", regex=True)
    return within.where(rows["image_sha256"] != "", whole)
