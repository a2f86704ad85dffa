"""The folder of one run, and what it records of its surroundings."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from osteofusion import __version__
from osteofusion.data.cohort import Cohort
from osteofusion.data.radiograph import content_hash
from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.files import write_text

RUNS = "runs"
_RUN_DIR = "OSTEOFUSION_RUN_DIR"
_PACKAGES = (
    "albumentations", "numpy", "opencv-python-headless", "pandas", "pytorch-lightning",
    "scikit-learn", "timm", "torch", "torchmetrics",
)  # fmt: skip


def new_run_dir(base: Path, name: str) -> Path:
    """Make ``base/name/version_N`` with the first free N.

    Other processes of the same run (DDP) find the folder in the environment.

    Raises:
        OsteofusionError: the folder cannot be written.
    """
    inherited = os.environ.get(_RUN_DIR)
    if inherited is not None and os.environ.get("LOCAL_RANK", "0") != "0":
        return Path(inherited)
    parent = base / name
    number = 1 + max((_version_of(path) for path in _versions(parent)), default=-1)
    while True:
        path = parent / f"version_{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.exists():  # a file stands where a folder should
                raise OsteofusionError(
                    f"Cannot make the run folder {path}; choose another folder with "
                    "--trainer.default_root_dir."
                ) from None
            number += 1
            continue
        except OSError as error:
            raise OsteofusionError(
                f"Cannot make the run folder {path} ({error.strerror}); choose another folder "
                "with --trainer.default_root_dir."
            ) from None
        return use_run_dir(path)


def use_run_dir(path: Path) -> Path:
    """Make `path` the folder of this run for the processes it starts."""
    os.environ[_RUN_DIR] = str(path)
    return path


def newest_checkpoint(base: Path, name: str, which: str) -> Path:
    """``last.ckpt`` or ``best.ckpt`` of the newest run of that config that has one.

    Raises:
        ConfigError: no run of that config has a checkpoint.
    """
    for folder in sorted(_versions(base / name), key=_version_of, reverse=True):
        path = folder / "checkpoints" / f"{which}.ckpt"
        if path.is_file():
            return path
    found = sorted(path.parent.parent.parent.name for path in base.glob(f"*/*/*/{which}.ckpt"))
    others = f" There are runs of {', '.join(dict.fromkeys(found))}." if found else ""
    raise ConfigError(
        f"--ckpt_path {which}: no run under {base / name} has a checkpoint; run `osteofusion fit` "
        f"with that config first, name another --config, or give the file's path.{others}"
    )


def run_dir_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint file lies in."""
    return checkpoint.resolve().parent.parent


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def environment(cohort: Cohort, digest: str, weights: str | None) -> dict[str, Any]:
    """Versions, hardware, data and weight hashes, and git state, for ``environment.json``."""
    return {
        "osteofusion": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hardware": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cpu_count": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "data": {
            "manifest": cohort.manifest.name,
            "citation": cohort.manifest.citation,
            "synthetic": bool(cohort.manifest.synthetic_what),
            "radiographs": len(cohort.table),
            "sha256": digest,
        },
        "initial_weights": weights,
        "git": _git_state(),
    }


def weights_description(pretrained: bool | str) -> str | None:
    """Where a model's first weights came from; a local file with its hash."""
    if isinstance(pretrained, bool):
        return "published ImageNet weights" if pretrained else None
    return f"{pretrained} sha256:{content_hash(Path(pretrained))}"


def _versions(parent: Path) -> list[Path]:
    return [path for path in parent.glob("version_*") if path.name[8:].isdigit()]


def _version_of(path: Path) -> int:
    return int(path.name.removeprefix("version_"))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from; None when it was installed."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        if not (top / "osteofusion").samefile(here.parent):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
