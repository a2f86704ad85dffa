"""Checkpoints: written whole, found by name, read without pickle."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.files import atomic_path
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.run import newest_checkpoint, run_dir_of
from osteofusion.training.trained import FROZEN, inherited_settings

_NEEDED = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, also when the process is killed or the disk is full.

    Lightning moves them in from the system's temporary folder, which may be another file system,
    and swallows a missing permission.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write beside `path`, then rename.

        Raises:
            OsteofusionError: it cannot be written.
        """
        try:
            with _uninterrupted(), atomic_path(path) as temporary, temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
                # The rename must not reach the disk before the bytes do.
                stream.flush()
                os.fsync(stream.fileno())
        except (OSError, RuntimeError) as error:
            # PyTorch's writer puts an error of its own before the system's.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OsteofusionError(
                f"The checkpoint {path} cannot be written ({cause.strerror}); what was there "
                "before is kept: make room or access, then go on with --ckpt_path last."
            ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back: in the middle of its writer PyTorch turns it into a crash."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed and callable(before):
        before(*pressed[0])


def find_checkpoint(text: str, base: Path, config_name: str, *, resume: bool = False) -> Path:
    """The file meant by ``--ckpt_path``: a file, a run folder, ``best`` or ``last``.

    Of a run folder it is the best checkpoint, or the last one to go on from.

    Raises:
        ConfigError: there is no such file, or training cannot go on in its folder.
    """
    if text in ("best", "last"):
        return newest_checkpoint(base, config_name, text).resolve()
    path = Path(text)
    if path.is_dir():
        path = path / "checkpoints" / ("last.ckpt" if resume else "best.ckpt")
    if not path.is_file():
        raise ConfigError(
            f"--ckpt_path {text}: {path} does not exist; give a checkpoint file, a run folder, "
            "best or last."
        )
    path = path.resolve()
    if resume and not (run_dir_of(path) / "config.yaml").is_file():
        raise ConfigError(
            f"--ckpt_path {text} lies outside a run folder, so training cannot go on there; give "
            "RUN/checkpoints/last.ckpt."
        )
    return path


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


def trained_settings(
    checkpoint: Mapping[str, Any], sources: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Settings of the module and of the data module, and the seed, that a checkpoint has.

    Args:
        checkpoint: Its content.
        sources: `manifest` and `root` where they are given anew.
    """
    model = {**checkpoint["hyper_parameters"], "pretrained": checkpoint["pretrained"]}
    data = inherited_settings(checkpoint, sources)
    return model, data, checkpoint[RadiographDataModule.__qualname__]["seed"]


def refuse_ignored(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings that a checkpoint overrules, rather than ignore them.

    Raises:
        ConfigError: a setting differs from what the model was trained with.
    """
    model, _, seed = trained_settings(checkpoint, {})
    checked = [(f"model.{name}", settings["model"][name], model[name]) for name in model]
    data = checkpoint["datamodule_hyper_parameters"]
    checked += [(f"data.{name}", settings["data"][name], data[name]) for name in FROZEN]
    checked.append(("seed_everything", settings["seed_everything"], seed))
    for name, value, trained in checked:
        if value != trained:
            raise ConfigError(
                f"{name}={value!r} would be ignored: the checkpoint was trained with {trained!r}; "
                "leave it out, or pass the run's own config.yaml."
            )
