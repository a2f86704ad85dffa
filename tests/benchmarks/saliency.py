"""Whether saliency peaks where the demo cohort draws its signal.

    python tests/benchmarks/saliency.py DIR       draw a cohort and train in DIR first (minutes)
    python tests/benchmarks/saliency.py --run RUN     a run folder of an image arm on a demo cohort

Each test radiograph's map is brought to the film's own geometry. A hit is a map whose peak lies in
a box that ``ground_truth.csv`` names: cortices of the shafts and trabeculae at the joint. Beside
the trained model stand the share of the film that the boxes cover (what a peak anywhere would
hit), a map that knows no more than where films are centred, and the same network with fresh
weights.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from osteofusion.cli import main as fit
from osteofusion.data.demo import write_demo
from osteofusion.data.radiograph import read_radiograph
from osteofusion.explain.command import load_run
from osteofusion.explain.overlay import in_radiograph
from osteofusion.explain.saliency import METHODS, saliency_maps
from osteofusion.models import FusionClassifier

UNTRAINED = 5  # networks with fresh weights


@dataclass(frozen=True)
class Localisation:
    """Share of test radiographs whose map peaks in the signal's region.

    Attributes:
        n: Radiographs with a map that is not zero everywhere; the others count as misses.
        hits: By method, of the trained model.
        mass: By method, share of the map's sum that lies in the region, for comparison.
        untrained: By method, mean over networks with fresh weights.
        centre: Of a Gaussian at the centre of the film.
        area: Mean share of the film that the region covers.
    """

    n: dict[str, int]
    hits: dict[str, float]
    mass: dict[str, float]
    untrained: dict[str, float]
    centre: float
    area: float


def options(demo: Path) -> list[str]:
    """Of `osteofusion fit`: an image arm that learns the cohort in a few minutes.

    At 224 px a map has 7 x 7 cells; at 128 px it has 4 x 4, too coarse for cortices.
    """
    return [
        *("--config", "binary.yaml", "--data.root", str(demo), "--model.arm", "image"),
        *("--ablation", "false", "--trainer.max_epochs", "6"),
    ]


def regions(root: Path, image: str, shape: tuple[int, int]) -> np.ndarray:
    """Where the signal of a film was drawn, (H, W) bool."""
    truth = pd.read_csv(root / "ground_truth.csv")
    region = np.zeros(shape, dtype=bool)
    for box in truth[truth["image"] == image].itertuples():
        region[box.y0 : box.y1, box.x0 : box.x1] = True
    return region


def gaussian(shape: tuple[int, int]) -> np.ndarray:
    """A map that has its peak at the centre, whatever the film shows."""
    y, x = (np.linspace(-1, 1, side)[:, None] for side in shape)
    return np.exp(-2 * (y**2 + x.T**2)).astype(np.float32)


def measure(run: Path) -> Localisation:
    """Localisation of an image arm on its test rows."""
    model, data = load_run(str(run))
    rows = data.side("test")
    root = Path(next(iter(data.cohort.roots.values())))
    files = data.cohort.files(rows)
    films = [read_radiograph(file) for file in files]
    where = [
        regions(root, file.relative_to(root).as_posix(), film.shape)
        for file, film in zip(files, films, strict=True)
    ]
    batches = list(data.loader(rows))
    preprocessing = data.cache.preprocessing

    def score(model: FusionClassifier, method: str) -> tuple[int, float, float]:
        maps = np.concatenate(
            [
                saliency_maps(
                    model, batch["image"] / 255.0, batch["clinical"], batch["present"], method
                )
                for batch in batches
            ]
        )
        hits, mass = [], []
        for small, region in zip(maps, where, strict=True):
            heat = in_radiograph(small, region.shape, region.shape, preprocessing)
            if heat.max() > 0:
                hits.append(bool(region.flat[heat.argmax()]))
                mass.append(heat[region].sum() / heat.sum())
        return len(hits), float(np.sum(hits) / len(where)), float(np.mean(mass or [0.0]))

    trained = {method: score(model, method) for method in METHODS}
    fresh = []
    for seed in range(UNTRAINED):
        torch.manual_seed(seed)
        fresh.append(FusionClassifier.from_config(model.config).eval())
    return Localisation(
        n={method: n for method, (n, _, _) in trained.items()},
        hits={method: hits for method, (_, hits, _) in trained.items()},
        mass={method: mass for method, (_, _, mass) in trained.items()},
        untrained={
            method: float(np.mean([score(each, method)[1] for each in fresh])) for method in METHODS
        },
        centre=float(np.mean([r.flat[gaussian(r.shape).argmax()] for r in where])),
        area=float(np.mean([region.mean() for region in where])),
    )


def main(arguments: list[str]) -> None:
    if arguments[0] == "--run":
        run = Path(arguments[1])
    else:
        folder = Path(arguments[0])
        demo = write_demo(folder / "demo")
        output = f"--trainer.default_root_dir={folder / 'runs'}"
        if fit(["fit", *options(demo), output]):
            sys.exit(2)
        run = folder / "runs" / "binary" / "version_0"
    found = measure(run)
    print(f"area share of the region {found.area:.3f}; centre prior {found.centre:.3f}")
    for method in METHODS:
        print(
            f"{method}: peak in the region {found.hits[method]:.3f} "
            f"({found.hits[method] / found.area:.2f} x area; {found.n[method]} maps), "
            f"untrained {found.untrained[method]:.3f}; mass in the region {found.mass[method]:.3f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
