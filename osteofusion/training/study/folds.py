"""Which folds a study tests on: a number of them, sites, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from osteofusion.data.manifest import Manifest, load_manifest
from osteofusion.errors import ConfigError
from osteofusion.training.options import read_config
from osteofusion.training.study.config import Study

_DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class Folds:
    """The test folds of a study.

    Attributes:
        pairs: Repeat and fold of each.
        arguments: Options of `fit` that choose the kind of folds.
        regions: Regions of the data.
    """

    pairs: list[tuple[int, int]]
    arguments: list[str]
    regions: list[str] = field(default_factory=list)


def plan_folds(study: Study, base: Path, given: Mapping[str, str]) -> Folds:
    """The folds that a study means.

    Args:
        study: The study.
        base: Its base config.
        given: Settings from the command line.

    Raises:
        OsteofusionError: a manifest is wrong, or has no such folds.
    """
    content = read_config(base)
    names = _look_up("manifest", study, content, given)
    manifests = [load_manifest(name) for name in _listed(names)]
    regions = list(dict.fromkeys(manifest.region for manifest in manifests))
    splits = _look_up("splits", study, content, given)
    if splits is not None and study.folds is not None:
        raise ConfigError(f"folds={study.folds} and data.splits={splits} exclude each other.")
    canonical = manifests[0].splits if len(manifests) == 1 else None
    if study.folds == "canonical" and canonical is None:
        raise ConfigError(
            f"folds=canonical, but data.manifest={names} names no splits; give folds a number."
        )
    if study.folds in (None, "canonical") and (chosen := splits or canonical) is not None:
        pairs = _pairs_in(Path(chosen), study.repeats)
        return Folds(pairs, [f"--data.splits={chosen}", "--data.folds=null"], regions)
    number = _sites(manifests) if study.folds == "sites" else study.folds or _DEFAULT_FOLDS
    assert isinstance(number, int)
    kind = "sites" if study.folds == "sites" else str(number)
    pairs = [(repeat, fold) for repeat in range(study.repeats or 1) for fold in range(number)]
    return Folds(pairs, ["--data.splits=null", f"--data.folds={kind}"], regions)


def _look_up(name: str, study: Study, content: Mapping[str, Any], given: Mapping[str, str]) -> Any:
    """A setting of the data: from the command line, the study, or its base config."""
    if f"data.{name}" in given:
        return yaml.safe_load(given[f"data.{name}"])
    section = content.get("data")
    default = section.get(name) if isinstance(section, dict) else None
    return study.settings.get(f"data.{name}", default)


def _listed(manifest: Any) -> list[str]:
    return manifest if isinstance(manifest, list) else ["demo" if manifest is None else manifest]


def _sites(manifests: Sequence[Manifest]) -> int:
    sites = {manifest.site_name for manifest in manifests}
    if len(sites) < 2:
        raise ConfigError(
            f"folds=sites leaves one site out, and there is only {', '.join(sites)}; give "
            "data.manifest and data.root several data sets, as lists."
        )
    return len(sites)


def _pairs_in(path: Path, repeats: int | None) -> list[tuple[int, int]]:
    """Repeat and fold of each test fold in a file; the sides are checked when it is used.

    Raises:
        ConfigError: it is no file of folds, or has too few repeats.
    """
    try:
        table = pd.read_csv(path, usecols=["repeat", "fold"]).drop_duplicates()
    except (OSError, ValueError) as error:
        raise ConfigError(f"data.splits {path} holds no folds: {error}.") from None
    there = sorted(table["repeat"].unique())
    if repeats is not None and repeats > len(there):
        raise ConfigError(f"repeats is {repeats}, and {path} has {len(there)}; lower it.")
    kept = table[table["repeat"].isin(there[:repeats])].sort_values(["repeat", "fold"])
    return [(int(repeat), int(fold)) for repeat, fold in kept.to_numpy()]
