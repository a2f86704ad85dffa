"""What a worker does: try out settings, and run one cell."""

from __future__ import annotations

import difflib
import inspect
import io
import re
import shutil
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Trainer

from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.files import write_text
from osteofusion.training.cli import resolve, run
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule
from osteofusion.training.study.plan import Cell, Combination
from osteofusion.training.study.records import SETTINGS, settings_of


def resolve_arm(combination: Combination) -> tuple[dict[str, Any], str]:
    """Build model and data of a variant's arm once, so that mistakes are found before any run.

    Returns:
        All settings as `config.yaml` of a run has them, and the sentence that says why they
        cannot be; empty where they can.
    """
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        try:
            settings = resolve(combination.arguments, Path(folder))
            _one_process(settings["trainer"])
            if (arm := settings["model"]["arm"]) != combination.arm:
                raise ConfigError(f"the data allow the {arm} arm only; name it alone under arms.")
        except OsteofusionError as error:
            return {}, _with_hint(str(error))
    return settings, ""


def run_cell(cell: Cell, run_folder: str, threads: int) -> tuple[float, str]:
    """Run a cell in its folder, from its last checkpoint where there is one.

    Everything it says goes to `log.txt` there.

    Returns:
        The time it took, s, and the sentence that says why it failed; empty where it is done.
    """
    folder = Path(run_folder)
    started = time.perf_counter()
    torch.set_num_threads(threads)
    try:
        resumes = _prepare(cell, folder)
    except OSError as failure:
        error = f"Cannot write {failure.filename or folder}: {failure.strerror}."
        return time.perf_counter() - started, error
    arguments = ["fit", "--config", str(folder / SETTINGS)]
    if resumes:
        arguments += ["--ckpt_path", str(folder)]
    error = ""
    with (
        (folder / "log.txt").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            if status := run(arguments, folder):
                error = f"The run ended with exit status {status}."
        except OsteofusionError as mistake:
            error = str(mistake)
            print(error)
        except Exception as failure:  # one cell's crash is not the study's
            traceback.print_exc()
            error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    return time.perf_counter() - started, error


def _prepare(cell: Cell, folder: Path) -> bool:
    """Whether training can go on in the folder; else it is made anew."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file() and settings_of(folder) == cell.settings:
        return True
    if folder.exists():
        shutil.rmtree(folder)
    write_text(folder / SETTINGS, yaml.safe_dump(cell.settings, sort_keys=False))
    return False


def _with_hint(sentence: str) -> str:
    """The parser's sentence about an unknown option, with the one that may be meant."""
    unknown = re.search(r"unrecognized arguments: --([\w.]+)", sentence)
    if unknown is None:
        return sentence
    sections = {"data": RadiographDataModule, "model": FusionModule, "trainer": Trainer}
    known = [
        f"{section}.{name}"
        for section, owner in sections.items()
        for name in inspect.signature(owner).parameters
    ]
    close = difflib.get_close_matches(unknown.group(1), known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ", see osteofusion fit --help."
    return f"{unknown.group(1)} is no setting of fit{hint}"


def _one_process(trainer: dict[str, Any]) -> None:
    """A cell is one process on one device; several cells run beside each other."""
    devices = trainer["devices"]
    if devices == "auto":
        trainer["devices"] = 1
    elif str(devices) != "1" and not (isinstance(devices, list) and len(devices) == 1):
        raise ConfigError(
            f"trainer.devices={devices} is not possible: a cell runs on one device; raise the "
            "number of workers."
        )
