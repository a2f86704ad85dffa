"""A synthetic cohort in the Mendeley layout: drawn knees and a workbook, both from one latent.

Nothing here is a patient. A latent bone density follows clinical risk factors in published
directions, and an image-visible view of it (with noise of its own) sets the cortical thickness and
the trabecular texture of a drawn knee; so each modality carries signal that the other lacks.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from openpyxl import Workbook
from scipy.special import expit, ndtri
from scipy.stats import rankdata

from osteofusion.errors import OsteofusionError
from osteofusion.progress import shown

STAMP = "synthetic demo data"

_Floats = npt.NDArray[np.floating[Any]]
_Image = npt.NDArray[Any]  # (H, W); OpenCV's annotations leave the element type open
_MIN_SUBJECTS = 40  # fewer cannot hold every kind of dirt

# Density = what the clinical columns explain + what they do not (own). The image shows mostly the
# own part, and noise: each arm alone reaches an AUROC of about 0.8, and fusion clearly more.
# Correlation with density: 0.69 (clinical), 0.74 (image).
_DENSITY_OF = {"clinical": 0.69, "own": 0.72}
_IMAGE_OF = {"clinical": 0.20, "own": 0.84, "noise": 0.50}

# --------------------------------------------------------------------------- the table

_HEADERS = (
    "S.No", "Patient Id", "Joint Pain:", "Gender", "Age", "Menopause Age", "height  (meter)",
    "Weight (KG) ", "Smoker", "Alcoholic", "Diabetic", "Hypothyroidism", "Number of Pregnancies",
    "Seizer Disorder", "Estrogen Use", "Occupation ", "History of Fracture", "Dialysis:",
    "Family History of Osteoporosis", "Maximum Walking distance (km)", "Daily Eating habits",
    "Medical History", "T-score Value", "Z-Score Value", "BMI: ", "Site", "Obesity", "Diagnosis",
)  # fmt: skip

_FRACTURES = (
    "yes", "R.arm", "R.foot", "knee fracture", "vertebral fracture", "L.knee", "l.leg", "R.knee ",
    "wrist fracture", "hip fracture", "left leg", "ankle", "collar bone ", "R. wrist ",
)  # fmt: skip
_ILLNESSES = (
    "B.P", "b.p", "disk", "G.B removed", "G.B rem", "uterus rem", "low B.P", "hypertnsn",
    "fatty liver, cholestrol ", "B.P, disk", "gout", "scizerian", "stomach",
)  # fmt: skip
_STEROID_ILLNESSES = ("asthma, steroids", "R.arthritis, steroids", "steroid treatment")
_DIETS = ("low protiens", "low fats", "no protiens", "low sugar", "no red meat", "low peotien")
_JOBS = {
    "male": ("farmer", "G.E", "R.G.E", "businesman", "bussinesman", "businessman", "shopkeeper",
             "teacher", "labour", "R.g.e"),
    "female": ("h.wife", "h.wife", "h.wife", "h.wife", "h.wife", "h.wife", "h.wife", "teacher",
               "Teacher", "G.E"),
}  # fmt: skip
_FOLDERS = {"N": "normal", "OP": "osteopenia", "OS": "osteoporosis"}


def _standard(values: _Floats) -> _Floats:
    return np.asarray((values - values.mean()) / values.std())


def _noise(rng: np.random.Generator, *others: _Floats) -> _Floats:
    """Standard noise (n,) uncorrelated in the sample with ``others``: no seed is harder by luck."""
    basis = np.column_stack([np.ones_like(others[0]), *others])
    noise = rng.standard_normal(len(basis))
    return _standard(noise - basis @ np.linalg.lstsq(basis, noise, rcond=None)[0])


def _yes(flags: npt.NDArray[np.bool_]) -> list[str]:
    return ["yes" if flag else "no" for flag in flags]


def _clinical_table(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, _Floats, _Floats]:
    """Clean clinical rows under the sheet's headers, the latent density and its image view, (n,).

    Both are in standard deviations; the density has exact normal quantiles.
    """
    female = rng.permutation(n) < round(0.55 * n)
    age = rng.normal(52, 12, n).clip(20, 85).round()
    height = np.where(female, rng.normal(1.54, 0.06, n), rng.normal(1.67, 0.06, n)).round(2)
    weight = (rng.normal(27.5, 4.3, n).clip(16, 43) * height**2).round()
    menopause = rng.normal(46, 4, n).clip(30, 56).round()
    after_menopause = female & (menopause <= age)
    smoker = rng.random(n) < np.where(female, 0.06, 0.32)
    hypothyroid = rng.random(n) < np.where(female, 0.2, 0.06)
    family = rng.random(n) < 0.27
    estrogen = after_menopause & (rng.random(n) < 0.1)
    steroids = rng.random(n) < 0.08
    low_protein = rng.random(n) < 0.2
    protection = (
        -1.0 * _standard(age)
        + 0.6 * _standard(weight)
        - 0.4 * after_menopause
        - 0.2 * female
        - 0.4 * family
        - 0.3 * smoker
        - 0.3 * hypothyroid
        - 0.4 * steroids
        - 0.2 * low_protein
        + 0.3 * estrogen
    )
    clinical = _standard(protection)
    own = _noise(rng, clinical)
    latent = _DENSITY_OF["clinical"] * clinical + _DENSITY_OF["own"] * own
    density = ndtri((rankdata(latent) - 0.5) / n)  # exact quantiles fix every seed's class shares
    view = _IMAGE_OF["clinical"] * clinical + _IMAGE_OF["own"] * own
    view = view + _IMAGE_OF["noise"] * _noise(rng, clinical, own)
    fracture = rng.random(n) < expit(-0.9 - 0.6 * density)
    walking = np.exp(rng.normal(0.4, 0.8, n) - 0.02 * (age - 52) + 0.1 * density)

    t_score = (-1.656 + 1.252 * density).round(2)  # WHO thresholds cut it at 30 / 45 / 25 %
    bmi = weight / height**2
    table = pd.DataFrame(
        {
            "Joint Pain:": "yes",
            "Gender": np.where(female, "female", "male"),
            "Age": age,
            "Menopause Age": np.where(after_menopause, menopause, np.nan),
            "height  (meter)": height,
            "Weight (KG) ": weight,
            "Smoker": _yes(smoker),
            "Alcoholic": "no",
            "Diabetic": _yes(rng.random(n) < 0.05),
            "Hypothyroidism": _yes(hypothyroid),
            "Number of Pregnancies": np.where(female, rng.integers(1, 8, n), np.nan),
            "Seizer Disorder": _yes(rng.random(n) < 0.03),
            "Estrogen Use": _yes(estrogen),
            "Occupation ": [rng.choice(_JOBS["female" if f else "male"]) for f in female],
            "History of Fracture": np.where(fracture, rng.choice(_FRACTURES, n), "no"),
            "Dialysis:": "no",
            "Family History of Osteoporosis": _yes(family),
            "Maximum Walking distance (km)": walking.clip(0.2, 10).round(1),
            "Daily Eating habits": np.where(low_protein, rng.choice(_DIETS, n), "normal"),
            "Medical History": np.select(
                [steroids, rng.random(n) < 0.45],
                [rng.choice(_STEROID_ILLNESSES, n), rng.choice(_ILLNESSES, n)],
                "no",
            ),
            "T-score Value": t_score,
            "Z-Score Value": (t_score + 0.025 * (age - 30) + rng.normal(0, 0.3, n)).round(2),
            "BMI: ": bmi,
            "Site": "knee",
            "Obesity": np.select(
                [bmi < 18.5, bmi < 25, bmi < 30],
                ["under weight", "normal weight", "over weight"],
                "obesity ",
            ),
            "Diagnosis": np.select(
                [t_score >= -1, t_score <= -2.5], ["normal", "osteoporosis"], "osteopenia"
            ),
        }
    )
    prefix = table["Diagnosis"].map({folder: key for key, folder in _FOLDERS.items()})
    table.insert(0, "Patient Id", prefix + (prefix.groupby(prefix).cumcount() + 1).astype(str))
    table.insert(0, "S.No", np.arange(1, n + 1))
    return table[list(_HEADERS)], density, view


def _soil(table: pd.DataFrame, rng: np.random.Generator) -> None:
    """Put the real workbook's kinds of dirt into ``table``, in place, at about its rates."""
    n = len(table)

    def pick(rows: pd.Index[int], share: float) -> npt.NDArray[Any]:
        return rng.choice(rows, size=max(1, round(share * n)), replace=False)

    women = table.index[table["Gender"] == "female"]
    oldest = pick(table.index[table["Diagnosis"] == "osteoporosis"], 0)
    table.loc[oldest, "Age"] = 107
    early = pick(women.difference(pd.Index(oldest)), 0)
    table.loc[early, "Menopause Age"] = table.loc[early, "Age"] + 2
    table.loc[pick(table.index, 2 / 240), "Joint Pain:"] = "no"
    table.loc[pick(table.index, 0), "Dialysis:"] = "yes"
    table.loc[pick(table.index[table["Obesity"] == "over weight"], 2 / 240), "Obesity"] = (
        "overweight"
    )
    table.loc[pick(women.difference(pd.Index(early)), 2 / 240), "Menopause Age"] = np.nan
    table.loc[pick(women, 9 / 240), "Number of Pregnancies"] = np.nan
    table.loc[pick(table.index, 4 / 240), "Occupation "] = None
    table.loc[pick(table.index, 2 / 240), "Daily Eating habits"] = None
    table.loc[pick(table.index, 1 / 240), "Maximum Walking distance (km)"] = np.nan


def _write_workbook(table: pd.DataFrame, path: Path) -> None:
    """Write ``table`` to ``Sheet2`` with three trailing summary rows; the same bytes each time."""
    book = Workbook()
    sheet = book.worksheets[0]
    sheet.title = "Sheet2"
    sheet.append(table.columns.tolist())
    for row in table.itertuples(index=False):
        sheet.append([None if pd.isna(value) else _plain(value) for value in row])
    for word, function in (("max", "max"), ("min", "min"), ("avg", "mean")):
        summary: dict[str, Any] = {
            column: _plain(getattr(table[column], function)())
            for column in ("Age", "height  (meter)", "Weight (KG) ")
        }
        sheet.append([(summary | {"Menopause Age": word}).get(column) for column in table.columns])
    book.create_sheet("Note").append([f"{STAMP}: drawn and simulated, no row is a patient"])
    book.properties.title = book.properties.description = STAMP
    book.properties.creator = "osteofusion"
    book.save(path)

    # openpyxl stamps the present time into the properties and on every zip member.
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+Z", b"2000-01-01T00:00:00Z", content)
            archive.writestr(
                zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED
            )


def _plain(value: object) -> object:
    """A workbook cell: whole numbers as int, as in the real sheet."""
    if isinstance(value, float | np.floating):
        return int(value) if float(value).is_integer() else float(value)
    return value.item() if isinstance(value, np.generic) else value


# --------------------------------------------------------------------------- the radiographs

# An anteroposterior knee in drawing units, x to the fibula's side, y down, joint line at y = 0.
_FEMUR = (
    (-46, -420), (-45, -200), (-52, -150), (-77, -100), (-94, -62), (-92, -26), (-70, -7),
    (-40, -6), (-18, -22), (0, -42), (18, -22), (40, -5), (72, -5), (94, -26), (96, -64),
    (76, -106), (52, -152), (45, -202), (46, -420),
)  # fmt: skip
_TIBIA = (
    (-42, 420), (-44, 200), (-54, 130), (-76, 85), (-93, 46), (-90, 15), (-60, 10), (-25, 14),
    (-10, 0), (0, 8), (10, 0), (25, 14), (62, 10), (91, 15), (94, 42), (78, 82), (54, 132),
    (44, 202), (42, 420),
)  # fmt: skip
_FIBULA = (
    (74, 420), (76, 140), (68, 96), (72, 68), (88, 54), (106, 66), (108, 94), (98, 138), (94, 420),
)  # fmt: skip
_SKIN = (
    (-165, -420), (-158, -250), (-132, -110), (-126, 0), (-124, 70), (-136, 200), (-120, 420),
    (128, 420), (146, 200), (138, 70), (128, 0), (134, -110), (160, -250), (168, -420),
)  # fmt: skip
_CANVAS = (660, 400)  # height, width: room for every pose of a 512-unit field
_ORIGIN = np.array([_CANVAS[1] / 2, _CANVAS[0] / 2])

# Where density is drawn, as x0, y0, x1, y1 in drawing units. Fixed, so that no box tells it.
_REGIONS = {
    "femur_medial_cortex": (-51, -235, -25, -150),
    "femur_lateral_cortex": (25, -235, 51, -150),
    "tibia_medial_cortex": (-50, 150, -24, 235),
    "tibia_lateral_cortex": (24, 150, 50, 235),
    "femur_trabecular": (-80, -105, 80, -20),
    "tibia_trabecular": (-80, 20, 80, 105),
}


@dataclass(frozen=True)
class _Family:
    """An acquisition family: file suffix, colour mode and film size in pixels."""

    suffix: str
    rgb: bool
    width: int
    height: int


_FAMILIES = (
    _Family("JPEG", True, 480, 480),
    _Family("jpg", False, 512, 420),
    _Family("jpg", True, 420, 512),
    _Family("jpg", False, 400, 480),
)


def _depth(points: Sequence[tuple[int, int]], rng: np.random.Generator) -> _Image:
    """Depth below a slightly varied outline in drawing units, 0 outside: (H, W)."""
    corners = np.asarray(points) + rng.normal(0, 1.2, (len(points), 2))
    for _ in range(3):  # Chaikin's corner cutting
        ahead = np.roll(corners, -1, axis=0)
        corners = np.stack([0.75 * corners + 0.25 * ahead, 0.25 * corners + 0.75 * ahead], 1)
        corners = corners.reshape(-1, 2)
    mask = np.zeros(_CANVAS, np.uint8)
    cv2.fillPoly(mask, [np.round((corners + _ORIGIN) * 16).astype(np.int32)], 1, shift=4)
    return cv2.distanceTransform(mask, cv2.DIST_L2, 5)


def _strands(rng: np.random.Generator, spacing: float, elongation: float) -> _Image:
    """Trabecular pattern of zero mean and unit deviation, elongated along the bone: (H, W)."""
    noise = rng.standard_normal(_CANVAS, np.float32)
    across, along = 0.3 * spacing, 0.3 * spacing * elongation
    fine = cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=along)
    fine = fine - cv2.GaussianBlur(fine, (0, 0), sigmaX=2 * across, sigmaY=2 * along)
    return np.asarray(fine / fine.std())


def _attenuation(rng: np.random.Generator, view: float) -> _Image:
    """Draw a knee whose cortices and trabeculae show ``view``, a density in SD: (H, W).

    Thin cortices (Barnett and Nordin 1960) and few, widely spaced trabeculae of which only the
    weight-bearing ones are left (Singh 1970) stand for low density. The fibula carries no signal.
    """
    view = float(np.clip(view, -2.4, 2.4))
    y = np.abs(np.arange(_CANVAS[0], dtype=np.float32)[:, None] - _ORIGIN[1])
    shaft = expit((y - 120) / 12)
    metaphysis = np.exp(-(((y - 62) / 48) ** 2))

    skin = _depth(_SKIN, rng)
    film = 0.34 * (1 - np.exp(-skin / 40)) + 0.05 * (skin > 0) * np.exp(-(((skin - 9) / 7) ** 2))
    pattern = _strands(rng, 5.6 - 1.0 * view, 2.2 - 0.4 * view)
    for points, thickness, contrast in (
        (_FEMUR, 9.0 + 2.6 * view, 0.036 + 0.010 * view),
        (_TIBIA, 9.0 + 2.6 * view, 0.036 + 0.010 * view),
        (_FIBULA, rng.uniform(4, 7), 0.02),
    ):
        depth = _depth(points, rng)
        cortex = 2.4 + (thickness - 2.4) * shaft
        shell = np.minimum(depth, 1) * expit((cortex - depth) / 0.9)
        body = 1 - np.exp(-depth / 9)
        film += (0.20 - 0.05 * shaft) * body + 0.24 * shell * (0.6 + 0.4 * shaft)
        film += contrast * metaphysis * body * pattern
    patella = ((np.arange(_CANVAS[1]) - _ORIGIN[0] - rng.normal(2, 6)) / 44) ** 2
    top = np.arange(_CANVAS[0])[:, None] - _ORIGIN[1]
    disc = 1 - patella[None, :] - ((top + rng.normal(96, 10)) / 46) ** 2
    film += 0.07 * expit(12 * disc)
    return film.astype(np.float32)


def _expose(film: _Image, mean: float, rng: np.random.Generator) -> _Image:
    """Film as 8-bit gray levels of the given mean, so that brightness says nothing of density."""
    film = cv2.GaussianBlur(film, (0, 0), rng.uniform(0.4, 1.0))
    film = (film - film.min()) / (np.quantile(film, 0.999) - film.min())
    film = film.clip(0.0, 1.0)
    low, high = np.log(0.2), np.log(6.0)
    for _ in range(20):  # the gamma of this mean, by bisection on every 16th pixel
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (film[::4, ::4] ** np.exp(middle)).mean() > mean else (low, middle)
        )
    film = film ** np.exp(low)
    film = mean + rng.uniform(0.75, 1.0) * (film - mean)
    film = 255 * film + rng.uniform(1.5, 5.0) * rng.standard_normal(film.shape, np.float32)
    return np.asarray(film.clip(0, 255).round().astype(np.uint8))


def _draw(
    rng: np.random.Generator, view: float, family: _Family, mean: float
) -> tuple[bytes, dict[str, tuple[int, int, int, int]]]:
    """One radiograph as encoded bytes, and where its density was drawn: x0, y0, x1, y1 pixels."""
    side = rng.choice(["L", "R"])
    angle = np.deg2rad(rng.uniform(-6, 6))
    scale = family.height / 512 * rng.uniform(0.92, 1.12, 2) * [1 if side == "L" else -1, 1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    size = np.array([family.width, family.height])
    linear = turn * scale
    shift = size * (0.5 + rng.uniform(-0.05, 0.05, 2))
    to_film = np.column_stack([linear, shift - linear @ _ORIGIN])

    film = cv2.warpAffine(_attenuation(rng, view), to_film, size.tolist(), flags=cv2.INTER_AREA)
    pixels = _expose(film, mean, rng)
    height, width = pixels.shape
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(pixels, STAMP, (8, height - 8), font, 0.4, 190, 1, cv2.LINE_AA)
    cv2.putText(pixels, str(side), (width - 34, 34), font, 0.9, 230, 2, cv2.LINE_AA)
    if family.rgb:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])

    boxes = {}
    for region, (x0, y0, x1, y1) in _REGIONS.items():
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) @ linear.T + shift
        first = np.clip(np.floor(corners.min(0)), 0, size - 1).astype(int)
        last = np.clip(np.ceil(corners.max(0)), first + 1, size).astype(int)
        boxes[region] = (int(first[0]), int(first[1]), int(last[0]), int(last[1]))
    return encoded.tobytes(), boxes


# --------------------------------------------------------------------------- the cohort


def write_demo(out: Path, *, seed: int = 0, subjects: int = 400) -> Path:
    """Write a synthetic cohort in the Mendeley layout and return its folder.

    ``out`` receives ``patient details.xlsx``, the class folders ``normal/``, ``osteopenia/`` and
    ``osteoporosis/`` of drawn knee radiographs (JPEG, at most 512 px a side, gray and RGB),
    ``ground_truth.csv`` and ``README.txt``. One subject has no image and four share the film of
    another, as in the original. The same seed gives the same bytes.

    The clinical columns drive the latent density (normal quantiles, mean 0, SD 1, higher is
    denser) in published directions: lower with age and lower weight (OST: Koh 2001; ORAI:
    Cadarette 2000, which adds missing estrogen), in women and after menopause, with a family
    history, smoking, steroids (FRAX: Kanis 2008) and thyroid disease; earlier fractures follow low
    density. The T-score is a linear function of the density, and the class follows it by the WHO
    thresholds (1994): about 30 % normal, 45 % osteopenia, 25 % osteoporosis. The radiograph
    shows a noisy view of the density, mostly of the part that the columns do not explain, in its
    cortices and trabeculae; mean brightness and acquisition family are balanced over the density.

    ``ground_truth.csv`` has one row a radiograph and region: ``subject_id, density, image, region,
    x0, y0, x1, y1``. ``density`` is the subject's latent; the box is in pixels of the image file,
    ``x1`` and ``y1`` exclusive. Where a film was copied from another subject, the boxes are the
    film's and the density is the row's.

    Args:
        out: Folder to create; it may exist when it is empty.
        seed: Non-negative seed.
        subjects: Number of subjects, at least 40.

    Raises:
        OsteofusionError: If ``out`` exists and is not an empty folder, if it cannot be written, or
            if ``seed`` or ``subjects`` is out of range.
    """
    out = Path(out).resolve()
    if subjects < _MIN_SUBJECTS:
        raise OsteofusionError(
            f"a demo cohort needs at least {_MIN_SUBJECTS} subjects, got {subjects}"
        )
    if seed < 0:
        raise OsteofusionError(f"the demo seed must not be negative, got {seed}")
    staging = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise OsteofusionError(
                f"{out} already exists and is not an empty folder; remove it or name another folder"
            )
        staging.mkdir(parents=True)
        _write_cohort(staging, seed, subjects)
        if out.exists():
            out.rmdir()  # Windows does not rename over an empty folder
        os.replace(staging, out)
    except OSError as error:
        raise OsteofusionError(
            f"the demo cohort cannot be written to {out}: {error.strerror or error}; "
            "name another folder"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return out


def _write_cohort(root: Path, seed: int, subjects: int) -> None:
    rng = np.random.default_rng([seed, subjects])
    table, density, view = _clinical_table(rng, subjects)
    _soil(table, rng)
    order = np.argsort(density)
    means = _spread(rng, order, np.linspace(0.27, 0.40, 10))
    families = _spread(rng, order, np.arange(len(_FAMILIES)))

    ids, labels = table["Patient Id"].tolist(), table["Diagnosis"].to_numpy()
    members = {key: rng.permutation(np.flatnonzero(labels == key)) for key in _FOLDERS.values()}
    normal, low, porous = members.values()
    copied_from = {low[0]: low[1], porous[0]: porous[1], low[2]: normal[1], porous[2]: low[3]}

    films = {}
    drawn = [row for row in range(subjects) if row not in copied_from and row != normal[0]]
    for row in shown(drawn, len(drawn), "Drawing demo radiographs", progress=True):
        own = np.random.default_rng([seed, subjects, row])
        films[row] = _draw(own, view[row], _FAMILIES[int(families[row])], means[row])
    truth = []
    for folder in _FOLDERS.values():
        (root / folder).mkdir()
    for row in range(subjects):
        if row == normal[0]:
            continue  # as N37 of the original: a row without an image
        source = copied_from.get(row, row)
        encoded, boxes = films[source]
        image = f"{labels[row]}/{ids[row]}.{_FAMILIES[int(families[source])].suffix}"
        (root / image).write_bytes(encoded)
        truth += [(ids[row], density[row], image, region, *box) for region, box in boxes.items()]

    columns = ["subject_id", "density", "image", "region", "x0", "y0", "x1", "y1"]
    pd.DataFrame(truth, columns=columns).to_csv(
        root / "ground_truth.csv", index=False, float_format="%.4f", lineterminator="\n"
    )
    _write_workbook(table, root / "patient details.xlsx")
    (root / "README.txt").write_text(
        f"{STAMP}\n\n"
        f"Drawn by osteofusion (seed {seed}, {subjects} subjects): no film, no row is a patient.\n"
        "The layout, headers and kinds of dirt follow the Knee X-ray Osteoporosis Database (Wani\n"
        "and Arora 2021, DOI 10.17632/fxjm8fb6mw.2); none of its content is here.\n"
        "ground_truth.csv: latent density and, in pixels of each image, where it was drawn.\n",
        encoding="utf-8",
        newline="\n",
    )


def _spread(
    rng: np.random.Generator, order: npt.NDArray[np.intp], values: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Shuffle ``values`` into each run of neighbours along ``order``: (n,), independent of it."""
    blocks = [rng.permutation(values) for _ in range(-(-len(order) // len(values)))]
    spread = np.empty(len(order), values.dtype)
    spread[order] = np.concatenate(blocks)[: len(order)]
    return spread
