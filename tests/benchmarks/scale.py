"""Training as the cohort grows to the size of RSNA's: time an epoch and memory.

    python tests/benchmarks/scale.py [--sizes 1000 4000 12611] [--epochs 3] [--out FILE.json]

The cohort is made for the purpose: that many different gray PNG of 256 px, an `id, boneage, male`
table as RSNA's and labels that are drawn by lot (synthetic, and said so wherever they show). Each
size is trained on in a process of its own, with a plain CNN at 64 px and augmentation, by the
package's own data module and module.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.progress import track

from osteofusion.files import write_text

SIZES, EPOCHS = (1_000, 4_000, 12_611), 3
MANIFEST = """
name: scale
title: A cohort made for size alone
region: hand
license: none
citation: Nobody.
synthetic: true
images: { layout: folder, folder: films }
table: { file: table.csv, id: id }
label: { column: label, values: { normal: normal, osteopenia: osteopenia } }
columns:
  bone_age: { header: boneage, kind: numeric, unit: months, range: [0, 240] }
  male: { header: male, kind: binary, values: { true: 1, false: 0 } }
"""


def make_cohort(folder: Path, films: int) -> None:
    """Smooth noise as films, each its own; a table; labels by lot."""
    rng = np.random.default_rng(0)
    (folder / "films").mkdir()
    (folder / "manifest.yaml").write_text(MANIFEST)
    for i in range(films):
        small = rng.integers(256, size=(32, 32), dtype=np.uint8)
        film = cv2.resize(small, (256, 256), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / "films" / f"{i}.png"), film)
    pd.DataFrame(
        {
            "id": range(films),
            "boneage": rng.integers(1, 229, films),
            "male": rng.choice(["True", "False"], films),
            "label": rng.choice(["normal", "osteopenia"], films),
        }
    ).to_csv(folder / "table.csv", index=False)


def train(folder: Path, epochs: int) -> dict[str, Any]:
    """Seconds of the cohort, of the first decoding and of each epoch; memory after each, MB."""
    import torch
    from pytorch_lightning import Callback, Trainer, seed_everything

    from osteofusion.training.callbacks import StepSeed
    from osteofusion.training.datamodule import RadiographDataModule
    from osteofusion.training.module import FusionModule

    seconds: list[float] = []
    memory: list[float] = []

    class Clock(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.begun = time.perf_counter()

        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            seconds.append(time.perf_counter() - self.begun)
            memory.append(_resident())

    begun = time.perf_counter()
    seed_everything(0, verbose=False)
    data = RadiographDataModule(
        manifest=str(folder / "manifest.yaml"),
        root=str(folder),
        image_size=64,
        batch_size=32,
        num_workers=0,
        cache_dir=str(folder / "cache"),
    )
    module = FusionModule(
        class_names=data.class_names,
        clinical=data.clinical,
        class_counts=data.class_counts,
        image_encoder="cnn",
        image_options={"channels": [8, 16, 32]},
    )
    joined = time.perf_counter() - begun
    begun = time.perf_counter()
    data.prepare_data()
    decoded = time.perf_counter() - begun
    before = _resident()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[StepSeed(), Clock()],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    return {
        "rows": len(data.side("train")),
        "join": joined,
        "decode": decoded,
        "epochs": seconds,
        "memory_before": before,
        "memory": memory,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {}
    for films in track(sorted(options.sizes), "Measuring"):
        with tempfile.TemporaryDirectory() as name:
            make_cohort(Path(name), films)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found[films] = pool.submit(train, Path(name), options.epochs).result()
    columns = ("films", "join, s", "decode, s", "a film in later epochs, ms", "MB by epoch", "peak")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for films, each in found.items():
        later = float(np.median(each["epochs"][1:]))
        shown = ", ".join(f"{megabytes:.0f}" for megabytes in each["memory"])
        print(
            f"| {films:,} | {each['join']:.1f} | {each['decode']:.1f} | "
            f"{1e3 * later / each['rows']:.2f} | {shown} | {each['peak']:.0f} MB |"
        )
    if options.out is not None:
        write_text(options.out, json.dumps(found, indent=2) + "\n")


def _resident() -> float:
    """Memory of this process now, MB; its peak where the system does not say."""
    statm = Path("/proc/self/statm")
    if sys.platform == "linux":
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
