"""Whole commands in processes of their own: starting, memory, ablation and study."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from harness import Result, medians, result, seconds, turns

from osteofusion.data.demo import write_demo

SUBJECTS = 240  # as the public knee cohort
# What `fit` stands on; it cannot start faster than this.
STACK = (
    "import torch, pytorch_lightning, pytorch_lightning.cli, timm, torchmetrics, jsonargparse, "
    "pandas, sklearn.linear_model, sklearn.ensemble, scipy.stats, cv2, albumentations, openpyxl, "
    "matplotlib.figure, rich, pydantic"
)
# The first step of training ends the process, hard: what follows does not count.
FIRST_STEP = """
import os, sys
from osteofusion.cli import main
def step(*_): os._exit(0)
import osteofusion.training.module as module
module.FusionModule.training_step = step
sys.exit(main(sys.argv[1:]) or 1)
"""
# The default fused model in a plain loop, its radiographs decoded beforehand.
BARE = """
import sys
sys.path.insert(0, sys.argv[1])
from training import bare_epoch, data_of, module_of
data = data_of(__import__("pathlib").Path(sys.argv[2]))
module = module_of(data)
optimizer = module.configure_optimizers()
loader = data.train_dataloader()
for _ in range(int(sys.argv[3])):
    bare_epoch(module, loader, optimizer)
"""


def run(command: Sequence[object], folder: Path, **environment: str) -> float:
    """Peak memory of a process that must succeed, MB."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "OSTEOFUSION_CACHE": str(folder / "cache"), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command}: {said.decode()}")
    return usage.ru_maxrss / 1024


def fit(root: Path, *options: object) -> list[object]:
    """Command line of a fit on the demo cohort."""
    command = [sys.executable, "-m", "osteofusion", "fit", "--config", "binary.yaml"]
    return [*command, "--data.root", root, "--model.pretrained", "false", *options]


def starting(folder: Path, root: Path, rounds: int = 5) -> list[Result]:
    """`--help`, and `fit` to its first step."""
    first = [sys.executable, "-c", FIRST_STEP, *fit(root)[3:]]
    taken = turns(
        lambda: run(first, folder),
        lambda: run([sys.executable, "-c", STACK], folder),
        rounds,
    )
    own, other = medians(taken)
    helped = [
        seconds(lambda: run([sys.executable, "-m", "osteofusion", "--help"], folder))
        for _ in range(rounds)
    ]
    return [
        result(
            "start of fit to its first step",
            "importing the same libraries alone",
            [fast / slow for fast, slow in taken],
            1.2,
            at_least=False,
            detail=f"{own:.2f} and {other:.2f} s, demo cohort already decoded",
        ),
        result(
            "osteofusion --help",
            "a second",
            helped,
            0.3,
            at_least=False,
            detail="seconds",
        ),
    ]


def memory(folder: Path, root: Path, rounds: int = 2) -> Result:
    """Peak memory of `fit` against a bare loop of as many epochs."""
    here = Path(__file__).parent
    options = ("--ablation", "false", "--trainer.max_epochs", 2, "--data.num_workers", 0)
    pairs = [
        (
            run(fit(root, *options), folder),
            run([sys.executable, "-c", BARE, here, root, 2], folder),
        )
        for _ in range(rounds)
    ]
    own, other = medians(pairs)
    return result(
        "peak memory of fit",
        "a bare loop",
        [ours / bare for ours, bare in pairs],
        1.2,
        at_least=False,
        detail=f"{own:.0f} and {other:.0f} MB, batches of 16 at 224 px",
    )


def ablation(folder: Path, root: Path) -> list[Result]:
    """A fused fit and its two arms against the fused fit alone."""
    results = []
    turn = iter(range(1000))
    frozen = ("--model.frozen_backbone", "true", "--data.augmentation", "null")
    for name, options, target, rounds in (
        ("fine-tuned", ("--trainer.max_epochs", 2), 2.05, 1),
        ("frozen backbone", (*frozen, "--trainer.max_epochs", 12), 1.3, 3),
    ):

        def of(arms: str, options: tuple[object, ...] = options) -> Callable[[], float]:
            # Each with a cache of its own: nothing is there yet that the other has computed.
            cache = str(folder / f"cache{next(turn)}")
            command = fit(root, *options, "--ablation", arms, "--early_stopping.patience", 99)
            return lambda: run(command, folder, OSTEOFUSION_CACHE=cache)

        taken = [(seconds(of("true")), seconds(of("false"))) for _ in range(rounds)]
        own, other = medians(taken)
        results.append(
            result(
                f"fused model and two arms, {name}",
                "the fused fit alone",
                [fast / slow for fast, slow in taken],
                target,
                at_least=False,
                detail=f"{own:.1f} and {other:.1f} s, whole commands",
            )
        )
    return results


def study(folder: Path, root: Path) -> Result:
    """A study of 15 cells on one worker against the sum of its cells."""
    options = ("--data.root", root, "--model.pretrained", "false")
    command = [sys.executable, "-m", "osteofusion", "study", "--config", "studies/ablation.yaml"]
    started = time.perf_counter()
    run([*command, *options, "--out", folder / "study"], folder)
    whole = time.perf_counter() - started
    cells = pd.read_csv(folder / "study" / "cells.csv")
    own = float(cells["seconds"].sum())
    return result(
        f"study of {len(cells)} cells, one worker",
        "the sum of the cells",
        [whole / own],
        1.05,
        at_least=False,
        detail=f"{whole:.0f} and {own:.0f} s",
    )


def measure() -> list[Result]:
    """All of this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = write_demo(folder / "demo", subjects=SUBJECTS)
        return [
            *starting(folder, root),
            memory(folder, root),
            *ablation(folder, root),
            study(folder, root),
        ]
