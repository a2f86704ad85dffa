"""Radiographs for the copy finder: textures that differ in everything, and copies of any film."""

import cv2
import numpy as np

WHOLE = {
    "png": lambda film, rng: film,
    "q90": lambda film, rng: film,
    "q50": lambda film, rng: film,
    "q20": lambda film, rng: film,
    "half": lambda film, rng: scaled(film, 0.5),
    "quarter": lambda film, rng: scaled(film, 0.25),
    "larger": lambda film, rng: scaled(film, 1.5),
    "brighter": lambda film, rng: np.clip(film * 1.1 + 25, 0, 255),
    "darker": lambda film, rng: np.clip(film * 0.8 - 10, 0, 255),
    "gamma": lambda film, rng: 255 * (film / 255) ** 0.7,
    "turned": lambda film, rng: turned(film, rng.choice([-2, 2])),
    "mirrored": lambda film, rng: film[:, ::-1],
}
PARTS = {
    "crop90": lambda film, rng: cropped(film, 0.9, rng),
    "crop70": lambda film, rng: cropped(film, 0.7, rng),
    "crop60": lambda film, rng: cropped(film, 0.6, rng),
    "crop50": lambda film, rng: cropped(film, 0.5, rng),
    "mirrored_crop": lambda film, rng: cropped(film, rng.uniform(0.6, 0.9), rng)[:, ::-1],
    "all_at_once": lambda film, rng: scaled(
        np.clip(
            cropped(turned(film, rng.uniform(-2, 2)), rng.uniform(0.7, 0.95), rng)
            * rng.uniform(0.85, 1.1)
            + rng.uniform(-15, 15),
            0,
            255,
        ),
        rng.uniform(0.5, 0.9),
    ),
    "one_knee": lambda film, rng: one_knee(film, rng),
    "one_knee_mirrored": lambda film, rng: one_knee(film, rng, mirror=True),
}
COPIES = WHOLE | PARTS
QUALITY = {"png": None, "q50": 50, "q20": 20, "all_at_once": 70}


def write_copy(film, kind, path, rng):
    """Path of the copy, or None where the film has no such copy, as a single knee has no half."""
    copy = COPIES[kind](film, rng)
    if copy is None:
        return None
    quality = QUALITY.get(kind, 90)
    path = path.with_suffix(".jpg" if quality else ".png")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else []
    pixels = np.ascontiguousarray(copy).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels, options)
    return path


def texture(seed, height=420, width=360):
    """A bright shape with structure of all sizes on black, unlike that of any other seed."""
    rng = np.random.default_rng([5, seed])
    film = np.full((height, width), 110, np.float32)
    for size, strength in ((60, 45), (16, 25), (5, 18), (1.5, 12)):
        noise = cv2.GaussianBlur(rng.standard_normal((height, width), np.float32), (0, 0), size)
        film += strength * noise / noise.std()
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (np.clip(film, 20, 255) * ((x / 0.85) ** 4 + (y / 0.95) ** 4 < 1)).astype(np.uint8)


def scaled(film, factor):
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(film, None, fx=factor, fy=factor, interpolation=how)


def turned(film, degrees):
    height, width = film.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(degrees), 1)
    return cv2.warpAffine(film, matrix, (width, height))


def cropped(film, share, rng):
    height, width = (int(length * share) for length in film.shape)
    y = rng.integers(0, film.shape[0] - height + 1)
    x = rng.integers(0, film.shape[1] - width + 1)
    return film[y : y + height, x : x + width]


def one_knee(film, rng, *, mirror=False):
    """One side of the dark valley between two knees."""
    small = np.median(cv2.resize(film, (128, 128), interpolation=cv2.INTER_AREA), axis=0)
    profile = np.convolve(small, np.ones(7) / 7, "same")
    valley = 52 + int(profile[52:76].argmin())
    if profile[valley] >= 0.6 * min(profile[10:52].max(), profile[76:118].max()):
        return None
    column = valley * film.shape[1] // 128
    knee = film[:, :column] if rng.random() < 0.5 else film[:, column:]
    return knee[:, ::-1] if mirror else knee
