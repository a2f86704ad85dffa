"""The data that settings name: manifests, roots, the demo cohort, and what an arm reads of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from osteofusion.data import demo
from osteofusion.data.radiograph import content_hash
from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.files import cache_root
from osteofusion.resources import find_shipped


def manifest_name(name_or_path: str | None) -> str | None:
    """The name of a shipped manifest as it is, or the full path of a file."""
    if name_or_path is None or not Path(name_or_path).is_file():
        return name_or_path
    return str(Path(name_or_path).resolve())


def absolute(path: str | None) -> str | None:
    """The full path, so that a checkpoint finds it from another folder."""
    return None if path is None else str(Path(path).expanduser().resolve())


def splits_file(name_or_path: str | None) -> str | None:
    """The full path of a splits file, which may be named as it ships: ``mendeley_folds.csv``."""
    if name_or_path is not None and not Path(name_or_path).expanduser().is_file():
        shipped = find_shipped("manifests", name_or_path)
        if shipped is not None and shipped.suffix == ".csv":
            return str(shipped.resolve())
    return absolute(name_or_path)


def one_or_all(
    value: str | list[str] | None, resolve: Callable[[str | None], str | None]
) -> str | list[str | None] | None:
    """Resolve one value or each of several; a list of one is the same as the value."""
    if not isinstance(value, list):
        return resolve(value)
    return resolve(value[0]) if len(value) == 1 else [resolve(each) for each in value]


def listed(value: str | list[str] | None) -> list[str]:
    """One value or several, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def demo_root(region: str = "knee") -> Path:
    """The demo cohort of a region, made once for each version of the code that draws it.

    Raises:
        OsteofusionError: nothing can draw the region.
    """
    code = sorted(Path(demo.__file__).parent.glob("*.py"))
    version = hashlib.sha256("".join(map(content_hash, code)).encode()).hexdigest()[:12]
    root = cache_root() / f"demo-{region}-{version}"
    if root.is_dir():
        return root
    try:
        return demo.write_demo(root, region=region)
    except OsteofusionError:
        if root.is_dir():  # another process was faster
            return root
        raise


def refuse_missing(arm: str, table: pd.DataFrame, features: Sequence[str]) -> None:
    """Refuse an arm that lacks what it reads.

    Raises:
        ConfigError: rows have no image, or there is no clinical column.
    """
    without = table["image"] == ""
    if arm != "tabular" and without.all():
        raise ConfigError(
            f"The {arm} arm needs images and the data have none; train with model.arm=tabular."
        )
    if arm == "image" and without.any():
        sites = ", ".join(table.loc[without, "site"].unique())
        raise ConfigError(
            f"The image arm needs an image in every row and site {sites} has rows without; train "
            "with model.arm=fused, or leave that data set out."
        )
    if arm != "image" and not features:
        raise ConfigError(
            f"The {arm} arm needs clinical columns and the data have none; train with "
            "model.arm=image."
        )


def of_regions(rows: pd.DataFrame, regions: Sequence[str] | None) -> pd.DataFrame:
    """The rows of some regions, of all by default, with their `split`.

    Raises:
        ConfigError: a region has no row, or training would not see one that is tested.
    """
    there = sorted(rows["region"].unique())
    if regions is not None:
        if absent := [region for region in regions if region not in there]:
            raise ConfigError(
                f"data.regions names {absent[0]!r}, of which there is no radiograph; the data "
                f"have {', '.join(there)}."
            )
        if not regions:
            raise ConfigError(f"data.regions is empty; name one or more of {', '.join(there)}.")
        rows = rows[rows["region"].isin(regions)].reset_index(drop=True)
    unseen = sorted(set(rows["region"]) - set(rows.loc[rows["split"] == "train", "region"]))
    if unseen and not (rows["split"] == "predict").all():
        raise ConfigError(
            f"No training row is of region {unseen[0]}, which other sides have, and a model knows "
            "nothing of a region it was not trained on; choose another split (data.folds=sites "
            "leaves whole data sets out), or leave the region out with data.regions."
        )
    return rows
