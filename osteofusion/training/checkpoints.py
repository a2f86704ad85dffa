"""Checkpoints: written whole, found by name, read without pickle."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from osteofusion.errors import ConfigError
from osteofusion.files import atomic_path
from osteofusion.training.datamodule import FROZEN, RadiographDataModule
from osteofusion.training.run import newest_checkpoint

_NEEDED = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, also when the process is killed.

    Lightning moves them in from the system's temporary folder, which may be another file system.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write beside `path`, then rename."""
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            # The rename must not reach the disk before the bytes do.
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())


def find_checkpoint(text: str, base: Path, config_name: str) -> Path:
    """The file meant by ``--ckpt_path``: a file, a run folder (its best), ``best`` or ``last``.

    Raises:
        ConfigError: there is no such file.
    """
    if text in ("best", "last"):
        return newest_checkpoint(base, config_name, text)
    path = Path(text)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise ConfigError(
            f"--ckpt_path {text}: {path} does not exist; give a checkpoint file, a run folder, "
            "best or last."
        )
    return path.resolve()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint of ours, on the CPU: plain values and tensors only.

    Raises:
        ConfigError: the file is damaged or another program's.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"--ckpt_path {path} cannot be read as a checkpoint ({reason[:120]}); "
            "it is damaged or not one."
        ) from None
    missing = [
        key
        for key in (*_NEEDED, RadiographDataModule.__qualname__)
        if not isinstance(content, dict) or key not in content
    ]
    if missing:
        raise ConfigError(
            f"--ckpt_path {path} is not a checkpoint of osteofusion fit: it has no {missing[0]}."
        )
    return dict(content)


def trained_settings(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the module and of the data module that a checkpoint was trained with."""
    model = {**checkpoint["hyper_parameters"], "pretrained": checkpoint["pretrained"]}
    return model, dict(checkpoint["datamodule_hyper_parameters"])


def refuse_ignored(
    checkpoint: Mapping[str, Any], model: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Refuse settings that a checkpoint overrules, rather than ignore them.

    Raises:
        ConfigError: a setting differs from what the model was trained with.
    """
    trained_model, trained_data = trained_settings(checkpoint)
    checked = [(f"model.{name}", value, trained_model[name]) for name, value in model.items()]
    checked += [(f"data.{name}", data[name], trained_data[name]) for name in FROZEN]
    for name, value, trained in checked:
        if value != trained:
            raise ConfigError(
                f"{name}={value!r} would be ignored: the checkpoint was trained with {trained!r}; "
                "leave it out, or pass the run's own config.yaml."
            )
