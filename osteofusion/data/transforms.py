"""Random changes to training radiographs: the one place that knows albumentations."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import dataclass, fields

import numpy as np

from osteofusion.data.radiograph import Gray
from osteofusion.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """How far a training radiograph may be changed; 0 switches a change off.

    Args:
        rotation: largest angle in degrees, either way (0 to 180).
        horizontal_flip: probability of mirroring left and right (0 to 1).
        brightness: largest change as a fraction of the full scale (0 to 1).
        contrast: largest change of the gain as a fraction (0 to 1).
        shift: largest move along either axis as a fraction of the side (0 to 1).
        scale: largest change of size as a fraction (0 to 0.9).
        shear: largest angle in degrees along either axis (0 to 45).

    Raises:
        ConfigError: a value lies outside its range.
    """

    rotation: float = 10.0
    horizontal_flip: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.1
    shift: float = 0.05
    scale: float = 0.1
    shear: float = 0.0

    def __post_init__(self) -> None:
        largest = {"rotation": 180, "scale": 0.9, "shear": 45}
        for field in fields(self):
            value, limit = getattr(self, field.name), largest.get(field.name, 1)
            if not 0 <= value <= limit:  # false for NaN too
                raise ConfigError(
                    f"Augmentation {field.name} is {value}; choose a number from 0 to {limit}."
                )


class Augmenter:
    """Apply an `Augmentation` to (H, W) uint8 radiographs, in one resampling step.

    What leaves the frame is lost and what enters it is black. The result depends on the image and
    the seed alone, not on earlier calls, so it does not change with the number of workers. One
    instance serves one thread.

    Attributes:
        key: Names the settings and the library's version, fit for a file name: what it does to an
            image for a seed is the same wherever the key is.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        # Here and not above: it takes a second, and tables and predictions never need it.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for news
        import albumentations as A
        import cv2

        named = f"albumentations {A.__version__} {augmentation}"
        self.key = hashlib.sha256(named.encode()).hexdigest()[:16]

        def both_ways(limit: float) -> tuple[float, float]:
            return (-limit, limit)

        self._pipeline = A.Compose(
            [
                A.HorizontalFlip(p=augmentation.horizontal_flip),
                A.Affine(
                    rotate=both_ways(augmentation.rotation),
                    translate_percent=dict.fromkeys("xy", both_ways(augmentation.shift)),
                    scale=(1 - augmentation.scale, 1 + augmentation.scale),
                    shear=dict.fromkeys("xy", both_ways(augmentation.shear)),
                    keep_ratio=True,
                    interpolation=cv2.INTER_LINEAR,
                    border_mode=cv2.BORDER_CONSTANT,
                    fill=0,
                    p=1,
                ),
                # Last, so that the padding and what entered the frame keep one shade.
                A.RandomBrightnessContrast(
                    brightness_limit=augmentation.brightness,
                    contrast_limit=augmentation.contrast,
                    p=1,
                ),
            ]
        )
        # The three draw from Python's generator alone; to re-seed this one shared instance costs
        # 4 % of a call, set_random_seed 40 %.
        self._random = random.Random()
        self._pipeline.set_random_state(np.random.default_rng(0), self._random)

    def __call__(self, image: Gray, seed: int) -> Gray:
        """Augmented copy of ``image``, (H, W) uint8; ``seed`` is any integer from 0 on."""
        self._random.seed(seed)
        changed: Gray = self._pipeline(image=image)["image"]
        return changed
