"""From a study to its cells. Without torch: workers try the settings out."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osteofusion.errors import ConfigError
from osteofusion.training.options import find_configs
from osteofusion.training.study.config import Study
from osteofusion.training.study.folds import Folds

# Settings that a study sets by a key of its own.
_AXES = {
    "config": "config",
    "model.arm": "arms",
    "data.fold": "folds",
    "data.folds": "folds",
    "data.repeat": "repeats",
    "seed_everything": "seeds",
    "trainer.default_root_dir": "--out",
    "ckpt_path": "--out (the same command goes on where it stopped)",
}
# What all variants share, since their test rows are compared.
_COMMON = frozenset(
    f"data.{name}"
    for name in ("manifest", "root", "table", "labels", "task", "splits", "split_seed", "copies")
)


@dataclass(frozen=True)
class Combination:
    """A variant's arm, and the options of `fit` that give it.

    Attributes:
        variant: Name of the variant.
        arm: Arm.
        arguments: Options.
        part: Region of a variant with a model for each; else empty.
    """

    variant: str
    arm: str
    arguments: list[str]
    part: str = ""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        variant: Name of the variant.
        arm: Arm.
        fold: Test fold.
        repeat: Repetition of the folds.
        seed: Seed of training.
        settings: All settings of its `fit`.
        part: Region of a variant with a model for each; else empty.
    """

    variant: str
    arm: str
    fold: int
    repeat: int
    seed: int
    settings: dict[str, Any]
    part: str = ""

    @property
    def name(self) -> str:
        """Name of its folder."""
        part = self.part and f".{self.part}"
        return f"{self.variant}{part}-{self.arm}-r{self.repeat}-f{self.fold}-s{self.seed}"


def plan_combinations(
    study: Study, base: Path, folds: Folds, given: Mapping[str, str]
) -> list[Combination]:
    """Variants x arms, each with its options; the first fold stands for all.

    Raises:
        ConfigError: a setting is one that the study sets itself, or is given twice.
    """
    _refuse_axes("settings", study.settings)
    _refuse_axes("the command line", given)
    for name, changed in study.variants.items():
        _refuse_axes(f"variants.{name}", changed)
        for key in changed:
            if key in _COMMON:
                raise ConfigError(
                    f"variants.{name}: {key} is the same for all cells, since their test rows are "
                    "compared; set it under settings, or make another study."
                )
            if key in given:
                raise ConfigError(
                    f"--{key} is what variants.{name} changes; leave one of them out."
                )
    repeat, fold = folds.pairs[0]
    return [
        Combination(
            variant,
            arm,
            [
                *("--config", str(base)),
                *_options(study.settings | dict(given) | changed | own),
                *folds.arguments,
                *(f"--data.repeat={repeat}", f"--data.fold={fold}", f"--model.arm={arm}"),
                "--ablation=readings",  # the arms are cells of their own
            ],
            part,
        )
        for variant, changed in study.variants.items()
        for part, own in _parts(variant, changed, folds.regions)
        for arm in study.arms
    ]


def _parts(
    variant: str, changed: Mapping[str, Any], regions: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """A variant as it is, or once a region where it has a model for each."""
    if "data.regions" not in changed:
        return [("", {})]
    if changed["data.regions"] != "each":
        raise ConfigError(
            f"variants.{variant}: data.regions can only be `each`, a model for each region, since "
            "all variants are tested on the same rows; set a choice of regions under settings."
        )
    # A part is in the name of a folder.
    return [(re.sub(r"\W+", "_", region), {"data.regions": [region]}) for region in regions]


def plan_cells(
    study: Study, folds: Folds, settings: Iterable[tuple[Combination, dict[str, Any]]]
) -> list[Cell]:
    """All cells, in an order that completes fold after fold.

    Args:
        study: The study.
        folds: Its folds.
        settings: Of each combination, for the first fold.
    """
    known = list(settings)
    return [
        Cell(
            combination.variant,
            combination.arm,
            fold,
            repeat,
            seed,
            _settings_of(resolved, fold, repeat, seed),
            combination.part,
        )
        for repeat, fold in folds.pairs
        for seed in study.seeds
        for combination, resolved in known
    ]


def base_config(study: Study, beside: Path) -> Path:
    """The base config: beside the study's file, from here, or shipped.

    Raises:
        ConfigError: there is none.
    """
    near = beside.parent / study.config
    name = str(near) if near.is_file() else study.config
    try:
        return Path(find_configs(["fit", "--config", name])[0][2])
    except ConfigError as error:
        raise ConfigError(f"Study {beside}: {str(error).removeprefix('--')}") from None


def read_given(arguments: Sequence[str]) -> dict[str, str]:
    """Settings of all cells from the rest of the command line.

    Raises:
        ConfigError: it is no list of ``--key value`` or ``--key=value``.
    """
    given: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or len(flag) < 3:
            raise ConfigError(f"{argument!r} belongs to no option; see osteofusion study --help.")
        if not equals:
            value = next(left, "--")
            if value.startswith("--"):
                raise ConfigError(f"{flag} lacks its value.")
        given[flag[2:]] = value
    return given


def _settings_of(resolved: dict[str, Any], fold: int, repeat: int, seed: int) -> dict[str, Any]:
    settings = copy.deepcopy(resolved)
    settings["data"].update(fold=fold, repeat=repeat)
    settings["seed_everything"] = seed
    return settings


def _options(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    ]


def _refuse_axes(where: str, settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key in _AXES:
            raise ConfigError(f"{where}: {key} is set by the study; use {_AXES[key]}.")
