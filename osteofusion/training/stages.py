"""`osteofusion stages`: two classes first, three from there, beside three from scratch."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osteofusion.data.labels import TASKS, task_classes
from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.parser import Parser
from osteofusion.training.carrying import BUILT_ALIKE
from osteofusion.training.cli import InterruptedFitError, resolve
from osteofusion.training.cli import run as run_training
from osteofusion.training.options import find_configs
from osteofusion.training.run import RUNS, new_run_dir, write_json
from osteofusion.training.stage_results import compare_stages

_FOLDER = "OSTEOFUSION_STAGES_DIR"
_REQUEST = "stages.json"
_SAME_DATA = (
    "manifest", "root", "table", "labels", "copies", "features", "regions", "numeric_scaling",
    "image_size", "clahe", "pixel_spacing", "splits", "validation", "test", "folds", "repeat",
    "split_seed",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        configs: Files of the two configs.
        options: Options of `fit` for all parts.
        folds: Folds to run; None for the one that the options name.
        settings: All settings of both stages.
    """

    configs: tuple[str, str]
    options: list[str]
    folds: list[int] | None
    settings: tuple[dict[str, Any], dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """What must be the same when a folder is gone on with."""
        return {"folds": self.folds, "first": self.settings[0], "second": self.settings[1]}


def run(arguments: list[str]) -> int:
    """Run ``osteofusion stages FIRST SECOND [--out DIR] [options of fit]``.

    Returns:
        The exit status.

    Raises:
        OsteofusionError: any mistake that the user can mend.
    """
    parser = Parser(
        prog="osteofusion stages",
        usage="osteofusion stages FIRST SECOND [--out DIR] [options of osteofusion fit]",
        description="Train config FIRST (two classes), carry encoders and fusion over to config "
        "SECOND (three classes), train SECOND from scratch on the same split, and compare the "
        "two. With --data.folds and without --data.fold all folds are run and pooled.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, help="folder to make, or to go on with")
    if {"-h", "--help"} & set(arguments):
        parser.parse_args(["--help"])
    configs = arguments[:2]
    if len(configs) < 2 or any(name.startswith("-") for name in configs):
        raise ConfigError(
            "osteofusion stages takes two configs first: osteofusion stages binary.yaml "
            "three_class.yaml."
        )
    given, options = parser.parse_known_args(arguments[2:])
    request = _resolve(configs, options)
    folder, ours = _folder(given.out, request)
    if _is_first_process() and not (folder / _REQUEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _REQUEST, request.to_dict())
    try:
        for fold in [None] if request.folds is None else request.folds:
            if status := _run_fold(request, folder, fold):
                return status
    except InterruptedFitError:
        raise OsteofusionError(
            f"Interrupted; what was done is kept: go on with the same command and --out {folder}."
        ) from None
    except OsteofusionError:
        if ours and not any(folder.rglob("*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if _is_first_process():
        compare_stages(folder, request.folds, request.settings)
    return 0


def _run_fold(request: Request, folder: Path, fold: int | None) -> int:
    """Both stages and the fresh start, each unless it is finished."""
    first, staged, scratch = (
        folder / part / ("" if fold is None else f"fold_{fold}")
        for part in ("binary", "staged", "scratch")
    )
    where = "" if fold is None else f", fold {fold}"
    options = [*request.options, "--ablation=false"]
    if fold is not None:
        options.append(f"--data.fold={fold}")
    second = [*options, f"--data.splits={(first / 'splits.csv').resolve()}"]
    start = f"--model.start_from={(first / 'checkpoints' / 'best.ckpt').resolve()}"
    parts = (
        ("Stage one", request.configs[0], first, options),
        ("Stage two, from stage one", request.configs[1], staged, [*second, start]),
        ("Stage two, from scratch", request.configs[1], scratch, second),
    )
    for name, config, own, arguments in parts:
        if status := _run_part(f"{name}{where}", config, own, arguments):
            return status
    return 0


def _run_part(name: str, config: str, folder: Path, options: Sequence[str]) -> int:
    if (folder / "metrics.json").is_file():
        _say(f"{name}: finished in {folder}.")
        return 0
    _say(f"\n{name}: {Path(config).name}")
    arguments = ["fit", "--config", config, *options]
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        arguments += ["--ckpt_path", str(last)]
    elif _is_first_process():
        if folder.exists():
            shutil.rmtree(folder)  # it was interrupted before its first checkpoint
        folder.mkdir(parents=True)
    return run_training(arguments, folder)


def _resolve(names: Sequence[str], options: list[str]) -> Request:
    """Try both configs before anything is written.

    Raises:
        ConfigError: one cannot be, or they do not belong together.
    """
    for flag in ("config", "ckpt_path", "data.task", "model.start_from", "ablation"):
        if any(text == f"--{flag}" or text.startswith(f"--{flag}=") for text in options):
            raise ConfigError(f"--{flag} is set by the stages themselves; leave it out.")
    configs = [find_configs(["fit", "--config", name])[0][2] for name in names]
    settings = []
    for config in configs:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            settings.append(resolve(["--config", config, *options], Path(folder)))
    first, second = settings
    _refuse_coarser(names, first["data"]["task"], second["data"]["task"])
    for section, keys in (("model", BUILT_ALIKE), ("data", _SAME_DATA)):
        for key in keys:
            one, other = first[section][key], second[section][key]
            if one != other:
                raise ConfigError(
                    f"{section}.{key} is {one!r} in {names[0]} and {other!r} in {names[1]}; both "
                    "stages need the same."
                )
    return Request((configs[0], configs[1]), options, _folds(first, options), (first, second))


def _refuse_coarser(names: Sequence[str], first: str, second: str) -> None:
    coarser = {
        finer: {TASKS[first][label] for label, name in TASKS[second].items() if name == finer}
        for finer in task_classes(second)
    }
    more = len(task_classes(second)) > len(task_classes(first))
    if not more or any(len(held) > 1 for held in coarser.values()):
        raise ConfigError(
            f"The task of {names[1]} ({second}) is not finer than that of {names[0]} ({first}); "
            "name a config of two classes first and one of three after it."
        )


def _folds(settings: Mapping[str, Any], options: Sequence[str]) -> list[int] | None:
    """All folds, where folds were asked for and none was named."""
    folds = settings["data"]["folds"]
    if folds is None or any(text.partition("=")[0] == "--data.fold" for text in options):
        return None
    manifests = settings["data"]["manifest"]
    sites = len(manifests) if isinstance(manifests, list) else 1
    return list(range(sites if folds == "sites" else folds))


def _folder(out: Path | None, request: Request) -> tuple[Path, bool]:
    """The folder, and whether it was made here.

    Raises:
        ConfigError: it holds something else.
    """
    inherited = os.environ.get(_FOLDER)
    if inherited is not None and not _is_first_process():
        return Path(inherited), False
    made = out is None or not out.exists()
    base = request.settings[0]["trainer"]["default_root_dir"] or RUNS
    folder = out if out is not None else new_run_dir(Path(base), "stages")
    os.environ[_FOLDER] = str(folder.resolve())
    if made or not any(folder.iterdir()):
        return folder, made
    try:
        known = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(
            f"--out {folder} is not empty and was not made by osteofusion stages; give another "
            "folder."
        ) from None
    asked = json.loads(json.dumps(request.to_dict()))
    if (key := _differing(known, asked)) is not None:
        raise ConfigError(
            f"--out {folder} was made with another {key}; repeat its command, or give another "
            "folder."
        )
    return folder, False


def _differing(one: Any, other: Any, key: str = "") -> str | None:
    """Name of the first setting that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            inner = name if key in ("", "first", "second") else f"{key}.{name}"
            if (found := _differing(one.get(name), other.get(name), inner)) is not None:
                return found
        return None
    return None if one == other else key


def _say(sentence: str) -> None:
    if _is_first_process():
        print(sentence)


def _is_first_process() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"
