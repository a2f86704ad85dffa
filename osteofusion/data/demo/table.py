"""The clinical rows of a synthetic cohort, and the latent bone density behind them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from openpyxl import Workbook
from scipy.special import expit, ndtri
from scipy.stats import rankdata

STAMP = "synthetic demo data"

_Floats = npt.NDArray[np.floating[Any]]

# Density = what the clinical columns explain + what they do not (own). The image shows mostly the
# own part, and noise: each arm alone reaches an AUROC of about 0.8, and fusion clearly more.
# Correlation with density: 0.69 (clinical), 0.74 (image).
_DENSITY_OF = {"clinical": 0.69, "own": 0.72}
_IMAGE_OF = {"clinical": 0.20, "own": 0.84, "noise": 0.50}

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
FOLDERS = {"N": "normal", "OP": "osteopenia", "OS": "osteoporosis"}


def _standard(values: _Floats) -> _Floats:
    return np.asarray((values - values.mean()) / values.std())


def _noise(rng: np.random.Generator, *others: _Floats) -> _Floats:
    """Standard noise (n,) uncorrelated in the sample with ``others``: no seed is harder by luck."""
    basis = np.column_stack([np.ones_like(others[0]), *others])
    noise = rng.standard_normal(len(basis))
    return _standard(noise - basis @ np.linalg.lstsq(basis, noise, rcond=None)[0])


def _yes(flags: npt.NDArray[np.bool_]) -> list[str]:
    return ["yes" if flag else "no" for flag in flags]


def clinical_table(
    rng: np.random.Generator, n: int, region: str
) -> tuple[pd.DataFrame, _Floats, _Floats]:
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
            "Site": region,
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
    prefix = table["Diagnosis"].map({folder: key for key, folder in FOLDERS.items()})
    table.insert(0, "Patient Id", prefix + (prefix.groupby(prefix).cumcount() + 1).astype(str))
    table.insert(0, "S.No", np.arange(1, n + 1))
    return table[list(_HEADERS)], density, view


def soil(table: pd.DataFrame, rng: np.random.Generator) -> None:
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


def write_workbook(table: pd.DataFrame, path: Path) -> None:
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
