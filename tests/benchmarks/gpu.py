"""What a GPU does with our training, beside what it does with tensors that lie there already.

    python tests/benchmarks/gpu.py [--backbones resnet50 ...] [--sizes 224 512] [--repeats 3]
                                   [--batch 64] [--device cuda] [--out FILE.json]

For each backbone and size, in bfloat16 with channels last, with and without torch.compile:

- resident: forward, loss, backward and update on random tensors on the device, images a second;
- ours: the same module under Trainer on decoded, augmented radiographs of the demo cohort, images
  a second of the last epoch, and the share of it in which training waits for a batch (Lightning's
  profiler); at least 0.95 of the resident rate.

Last, `osteofusion fit` with its ablation runs end to end on the device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pytorch_lightning.profilers import SimpleProfiler
from rich.progress import track
from training import EpochClock, data_of, module_of, trainer_of

from osteofusion.data.demo import write_demo
from osteofusion.files import write_text
from osteofusion.training.datamodule import RadiographDataModule

BACKBONES = ("resnet50", "efficientnet_b0", "tf_efficientnetv2_s", "convnext_tiny")
STEPS, EPOCHS, SUBJECTS = 20, 3, 1600


def resident(data: RadiographDataModule, module: Any, side: int, batch: int) -> float:
    """Images a second on tensors that lie on the device."""
    device = next(module.parameters()).device
    optimizer = module.configure_optimizers()
    width = len(data.schema.names)
    image = torch.randint(256, (batch, 1, side, side), dtype=torch.uint8, device=device)
    clinical = torch.randn(batch, width, dtype=torch.float64, device=device)
    present = torch.ones(batch, 2, dtype=torch.bool, device=device)
    label = torch.randint(len(data.class_names), (batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            outputs = module.model.outputs(image.float() / 255.0, clinical, present)
            loss = module.criterion(outputs.logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    _finish(device)
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    _finish(device)
    return batch * STEPS / (time.perf_counter() - begun)


def ours(data: RadiographDataModule, module: Any) -> tuple[float, float]:
    """Images a second of the last epoch under Trainer, and the share spent waiting for data."""
    # To a file: it would print a table after each fit.
    clock, profiler = EpochClock(), SimpleProfiler(data.hparams["cache_dir"], "profile")
    options = {"limit_val_batches": 0, "precision": "bf16-mixed", "profiler": profiler}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_of(EPOCHS, clock, **options).fit(module, datamodule=data)
    taken = profiler.recorded_durations
    waited = sum(sum(times) for key, times in taken.items() if "train_dataloader_next" in key)
    images = len(data.train_dataloader()) * data.hparams["batch_size"]
    return images / clock.seconds[-1], waited / sum(taken["run_training_epoch"])


def measure(
    root: Path, backbone: str, side: int, batch: int, device: str, *, compiled: bool
) -> dict[str, Any]:
    """Both rates of one setting."""
    data = data_of(root, image_size=side, batch_size=batch, num_workers=None)
    data.prepare_data()
    rates = []
    for work in ("resident", "ours"):
        module = module_of(data, backbone=backbone).to(device)
        if compiled:
            module.model.image_encoder.compile()
        if work == "resident":
            rates.append(resident(data, module, side, batch))
        else:
            rate, waits = ours(data, module)
    return {"resident": rates[0], "ours": rate, "ratio": rate / rates[0], "waiting": waits}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--sizes", type=int, nargs="+", default=(224, 512))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--subjects", type=int, default=SUBJECTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here")
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    settings = [
        (backbone, side, compiled)
        for backbone in options.backbones
        for side in options.sizes
        for compiled in (False, True)
    ]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = write_demo(Path(folder) / "demo", subjects=options.subjects)
        for backbone, side, compiled in track(settings, "Measuring"):
            torch.compiler.reset()
            repeats = [
                measure(root, backbone, side, options.batch, options.device, compiled=compiled)
                for _ in range(options.repeats)
            ]
            middle = {key: median(each[key] for each in repeats) for key in repeats[0]}
            found.append({"backbone": backbone, "side": side, "compiled": compiled, **middle})
        begun = time.perf_counter()
        accelerator = "gpu" if options.device == "cuda" else "cpu"
        command = [sys.executable, "-m", "osteofusion", "fit", "--config", "binary.yaml"]
        more = ["--data.root", str(root), "--trainer.accelerator", accelerator]
        short = ["--trainer.max_epochs", "2", "--data.image_size", str(min(options.sizes))]
        subprocess.run([*command, *more, *short], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        ablation = time.perf_counter() - begun
    print(f"{name}, torch {torch.__version__}, bfloat16, batches of {options.batch}")
    print("| backbone | px | compiled | resident, images/s | ours | ratio | waiting |")
    print("|---|---|---|---|---|---|---|")
    for each in found:
        rates = f"{each['resident']:.0f} | {each['ours']:.0f} | {each['ratio']:.2f}"
        what = f"{each['backbone']} | {each['side']} | {'yes' if each['compiled'] else 'no'}"
        print(f"| {what} | {rates} | {100 * each['waiting']:.0f} % |")
    print(f"fit with its ablation, {options.subjects} subjects, 2 epochs: {ablation:.0f} s")
    if options.out is not None:
        write_text(options.out, json.dumps({"device": name, "settings": found}, indent=2) + "\n")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
