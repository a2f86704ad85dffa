"""Writes a synthetic cohort: its table, its films, and where the truth was drawn."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.data.demo.drawing import FAMILIES, View, draw
from osteofusion.data.demo.knee import KNEE
from osteofusion.data.demo.spine import SPINE
from osteofusion.data.demo.table import FOLDERS, STAMP, clinical_table, soil, write_workbook
from osteofusion.errors import OsteofusionError
from osteofusion.progress import shown

_MIN_SUBJECTS = 40  # fewer cannot hold every kind of dirt
_ONE_VIEW = 0.15  # share of subjects of whom one film of several is lost
# Entropy of each region's generator: another region, other invented people.
_VIEWS: dict[str, tuple[tuple[View, ...], tuple[int, ...]]] = {
    "knee": (KNEE, ()),
    "spine": (SPINE, (5,)),
}
REGIONS = tuple(_VIEWS)


def write_demo(out: Path, *, seed: int = 0, subjects: int = 400, region: str = "knee") -> Path:
    """Write a synthetic cohort in the Mendeley layout and return its folder.

    ``out`` receives ``patient details.xlsx``, the class folders ``normal/``, ``osteopenia/`` and
    ``osteoporosis/`` of drawn radiographs (JPEG, at most 512 px a side, gray and RGB),
    ``ground_truth.csv`` and ``README.txt``. One subject has no image and four share the film of
    another, as in the original. The same seed gives the same bytes.

    A knee is one film a subject, ``OP12.jpg``. A lumbar spine is two, ``OP12_AP.jpg`` from the
    front and ``OP12_LAT.jpg`` from the side, of which one is missing in about one subject of seven.

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
        region: What is drawn, ``knee`` or ``spine``; the two cohorts have no person in common.

    Raises:
        OsteofusionError: If ``out`` exists and is not an empty folder, if it cannot be written, or
            if another argument is out of range.
    """
    out = Path(out).resolve()
    if subjects < _MIN_SUBJECTS:
        raise OsteofusionError(
            f"a demo cohort needs at least {_MIN_SUBJECTS} subjects, got {subjects}"
        )
    if seed < 0:
        raise OsteofusionError(f"the demo seed must not be negative, got {seed}")
    if region not in REGIONS:
        raise OsteofusionError(
            f"the demo cannot draw the region {region!r}; it draws {' and '.join(REGIONS)}"
        )
    staging = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise OsteofusionError(
                f"{out} already exists and is not an empty folder; remove it or name another folder"
            )
        staging.mkdir(parents=True)
        _write_cohort(staging, seed, subjects, region)
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


def _write_cohort(root: Path, seed: int, subjects: int, region: str) -> None:
    views, entropy = _VIEWS[region]
    rng = np.random.default_rng([seed, subjects, *entropy])
    table, density, seen = clinical_table(rng, subjects, region)
    soil(table, rng)
    order = np.argsort(density)
    means = _spread(rng, order, np.linspace(0.27, 0.40, 10))
    families = _spread(rng, order, np.arange(len(FAMILIES)))

    ids, labels = table["Patient Id"].tolist(), table["Diagnosis"].to_numpy()
    members = {key: rng.permutation(np.flatnonzero(labels == key)) for key in FOLDERS.values()}
    normal, low, porous = members.values()
    copied_from = {low[0]: low[1], porous[0]: porous[1], low[2]: normal[1], porous[2]: low[3]}

    films = {}
    drawn = [row for row in range(subjects) if row not in copied_from and row != normal[0]]
    for row in shown(drawn, len(drawn), f"Drawing demo {region}s", progress=True):
        family, own = (
            FAMILIES[int(families[row])],
            np.random.default_rng([seed, subjects, row, *entropy]),
        )
        chosen = list(views)
        if len(views) > 1 and own.random() < _ONE_VIEW:
            del chosen[int(own.integers(len(views)))]
        films[row] = [(view, *draw(own, view, seen[row], family, means[row])) for view in chosen]
    truth = []
    for folder in FOLDERS.values():
        (root / folder).mkdir()
    for row in range(subjects):
        if row == normal[0]:
            continue  # as N37 of the original: a row without an image
        source = copied_from.get(row, row)
        suffix = FAMILIES[int(families[source])].suffix
        for view, encoded, boxes in films[source]:
            image = f"{labels[row]}/{ids[row]}{view.name and '_'}{view.name}.{suffix}"
            (root / image).write_bytes(encoded)
            truth += [(ids[row], density[row], image, name, *box) for name, box in boxes.items()]

    columns = ["subject_id", "density", "image", "region", "x0", "y0", "x1", "y1"]
    pd.DataFrame(truth, columns=columns).to_csv(
        root / "ground_truth.csv", index=False, float_format="%.4f", lineterminator="\n"
    )
    write_workbook(table, root / "patient details.xlsx")
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
