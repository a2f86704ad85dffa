"""What lies between a radiograph's file and a batch: decoding, the cache, augmentation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
from harness import Result, medians, result, turns

from osteofusion.data.cache import RadiographCache
from osteofusion.data.demo import write_demo
from osteofusion.data.radiograph import RadiographPreprocessing, content_hash, read_bytes
from osteofusion.data.transforms import Augmentation, Augmenter

HEIGHT, WIDTH = 2430, 1994  # px, as the originals of the Mendeley knees
FILMS, CALLS = 48, 1500


def full_resolution(folder: Path, films: int) -> list[Path]:
    """Different films of five megapixels, from drawn ones with noise of their own, as JPEG."""
    demo = write_demo(folder / "drawn", subjects=max(40, films))
    drawn = sorted(demo.rglob("*.jpg")) + sorted(demo.rglob("*.JPEG"))
    rng = np.random.default_rng(0)
    written = []
    for i in range(films):
        small = cv2.imread(str(drawn[i % len(drawn)]), cv2.IMREAD_GRAYSCALE)
        large = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, 4, large.shape)
        path = folder / f"{i:04d}.jpg"
        cv2.imwrite(str(path), np.clip(large + noise, 0, 255).astype(np.uint8))
        written.append(path)
    return written


def cached(folder: Path, films: int = FILMS, rounds: int = 5) -> Result:
    """The cache against decoding and resizing."""
    preprocessing = RadiographPreprocessing(224)
    cache = RadiographCache(folder / "cache", preprocessing)
    files = [(path, content_hash(path)) for path in full_resolution(folder, films)]
    cache.fill(files, workers=2, progress=False)

    def decode() -> None:
        for path, _ in files:
            preprocessing.read(read_bytes(path), path)

    def load() -> None:
        for file in files:
            cache.get(*file)

    taken = turns(load, decode, rounds)
    ours, other = medians(taken)
    return result(
        "cached loader before augmentation",
        "decode and resize each epoch",
        [slow / fast for fast, slow in taken],
        50,
        at_least=True,
        detail=f"{1e6 * ours / films:.0f} µs and {1e3 * other / films:.0f} ms a film of five "
        "megapixels, one thread",
    )


def augmented(calls: int = CALLS, rounds: int = 7) -> Result:
    """Our augmenter against the bare albumentations pipeline, both in this thread."""
    cv2.setNumThreads(0)
    settings = Augmentation()
    ours = Augmenter(settings)
    bare = A.Compose(
        [
            A.HorizontalFlip(p=settings.horizontal_flip),
            A.Affine(
                rotate=(-settings.rotation, settings.rotation),
                translate_percent=dict.fromkeys("xy", (-settings.shift, settings.shift)),
                scale=(1 - settings.scale, 1 + settings.scale),
                shear=dict.fromkeys("xy", (-settings.shear, settings.shear)),
                keep_ratio=True,
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                p=1,
            ),
            A.RandomBrightnessContrast(settings.brightness, settings.contrast, p=1),
        ]
    )
    image = np.random.default_rng(0).integers(256, size=(224, 224), dtype=np.uint8)

    def with_ours() -> None:
        for seed in range(calls):
            ours(image, seed)

    def with_bare() -> None:
        for _ in range(calls):
            bare(image=image)

    taken = turns(with_ours, with_bare, rounds)
    fast, slow = medians(taken)
    return result(
        "augmentation per core, throughput",
        "the same albumentations pipeline alone",
        [other / own for own, other in taken],
        0.9,
        at_least=True,
        detail=f"{calls / fast:.0f} and {calls / slow:.0f} images a second at 224 px",
    )


def measure() -> list[Result]:
    """Both."""
    with tempfile.TemporaryDirectory() as folder:
        return [cached(Path(folder)), augmented()]
