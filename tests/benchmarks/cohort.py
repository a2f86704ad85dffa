"""What joining a hospital costs beside pandas: time and memory of 10^4 to 10^6 rows.

A made-up hospital of n rows: a CSV table of 14 columns with what real ones have (missing cells,
spellings, words among numbers, impossible values, IDs with spaces, rows twice, wrong labels, a
trailing average) and a folder of n radiographs, of which some have no row. Both sides read that
file and list that folder:

- pandas: ``read_csv`` as it comes, the names of the folder from ``os.scandir``, the ID of each
  (the name without its suffix), and ``merge``. It checks nothing, so it loses rows in silence.
- ours: :func:`osteofusion.data.cohort.build_cohort`, all of it, but for the bytes of the images:
  `content_hash` is replaced, here alone, by the end of the path, since how fast a disk is read and
  SHA-256 computed says nothing of the join. Grouping by digest and the look for copies remain. The
  program has no such switch: a cohort without digests could leak copies into the test side.

Each run has a process of its own, so that its peak memory can be read, that of the imports, which
both sides make, included; their time is not counted. The two take turns, and medians count. Time is
the processor's: the files are in the page cache, so neither side waits for anything else, and what
other programs do is left out of it.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from harness import Result, result

from osteofusion.data import cohort

SIZES, ROUNDS = (10_000, 100_000, 1_000_000), 3
RATIO, LINEAR = 3.0, 1.2
_ROWS = 2_000_000  # that a size may cost: the largest has two rounds
_WEIGHS = 100_000  # rows from which on a join needs about as much memory as the imports before it
_LINKS = 50_000  # to one file; ext4 allows 65,000
_MANIFEST = """
name: hospital
title: A made-up hospital
region: knee
license: none
citation: Nobody.
synthetic: true
images: { layout: folder, folder: films }
table: { file: patients.csv, id: Patient Id }
label: { column: Diagnosis, t_score: t_score }
columns:
  t_score: { header: T-score Value, kind: numeric, unit: SD, range: [-8, 6], role: outcome }
  age: { header: Age, kind: numeric, unit: years, range: [15, 105] }
  female: { header: Gender, kind: binary, values: { female: 1, male: 0 } }
  menopause_age:
    header: Menopause Age
    kind: numeric
    unit: years
    range: [20, 65]
    at_most: age
    only_if: { female: 1 }
  height: { header: height (meter), kind: numeric, unit: m, range: [1.2, 2.2] }
  weight: { header: Weight (KG), kind: numeric, unit: kg, range: [25, 250] }
  smoker: { header: Smoker, kind: binary }
  diabetes: { header: Diabetic, kind: binary }
  occupation: { header: Occupation, kind: categorical, values: { h.wife: housewife } }
  fracture_history: { header: History of Fracture, kind: presence }
  walking_distance: { header: Walking distance (km), kind: numeric, unit: km, range: [0, 50] }
"""


def make_hospital(root: Path, n: int) -> None:
    """Manifest, table and image folder of `n` rows."""
    rng = np.random.default_rng(n)
    (root / "manifest.yaml").write_text(_MANIFEST)
    columns = _columns(rng, n)
    with (root / "patients.csv").open("w", encoding="utf-8") as stream:
        stream.write(",".join(columns) + "\n")
        lines = map(",".join, zip(*columns.values(), strict=True))
        stream.writelines(line + "\n" for line in lines)
        stream.write("," * (len(columns) - 4) + "Average,,53.2,\n")
    films = root / "films"
    films.mkdir()
    (films / "Thumbs.db").touch()
    for i in range(n):  # every hundredth row has no film, and as many films no row
        if i % _LINKS == 0:
            source = root / f"film{i}"
            source.touch()
        os.link(source, films / f"P{i + n // 100:08}.png")


def _columns(rng: np.random.Generator, n: int) -> dict[str, list[str]]:
    """Cells of each column, by header as hospitals write it."""

    def numbers(mean: float, spread: float, places: int) -> list[str]:
        return [f"{value:.{places}f}" for value in rng.normal(mean, spread, n)]

    def words(choices: str, weights: Sequence[float]) -> list[str]:
        cells = rng.choice(choices.split("|"), n, p=np.array(weights) / sum(weights))
        return [str(cell) for cell in cells]

    def spoilt(cells: list[str], share: float, *instead: str) -> list[str]:
        for i in rng.choice(n, int(share * n), replace=False).tolist():
            cells[i] = instead[i % len(instead)]
        return cells

    score = numbers(-1.5, 1.2, 2)
    label = np.select([np.array(score, float) >= -1, np.array(score, float) <= -2.5], [0, 2], 1)
    names = np.array(["normal", "Osteopenia ", "osteoporosis"])
    gender = words("female|male|Female", [6, 3, 1])
    menopause = [
        cell if sex != "male" else "" for cell, sex in zip(numbers(48, 4, 0), gender, strict=True)
    ]
    ids = [f"P{i:08}" for i in range(n)]
    for i in range(500, n, 1000):
        ids[i] = f" {ids[i]} "
        ids[i + 1] = ids[i + 2]  # two rows that differ
    return {
        "S.No": [str(i + 1) for i in range(n)],
        "Patient Id": ids,
        "T-score Value": spoilt(score, 0.02, ""),
        "Age ": spoilt(numbers(62, 11, 0), 0.002, "107", "sixty", "unknown"),
        "Gender": gender,
        "Menopause Age": spoilt(menopause, 0.3, ""),
        "height  (meter)": spoilt(numbers(1.62, 0.08, 2), 0.002, "162", '"1,62"'),
        "Weight (KG) ": numbers(70, 14, 1),
        "Smoker": spoilt(words("no|yes|No ", [7, 2, 1]), 0.01, "", "perhaps"),
        "Diabetic": words("no|yes", [8, 2]),
        "Occupation ": words("Teacher|teacher|h.wife|farmer|business|", [2, 2, 3, 2, 1, 1]),
        "History of Fracture": words("no|l.leg|R.knee |wrist|none", [8, 1, 1, 1, 1]),
        "Walking distance (km)": spoilt(numbers(3, 1, 1), 0.05, ""),
        "Diagnosis": spoilt(names[label].tolist(), 0.001, "normal", ""),
    }


def join_with_pandas(root: Path) -> pd.DataFrame:
    """The same join by pandas alone."""
    table = pd.read_csv(root / "patients.csv")
    with os.scandir(root / "films") as entries:
        names = [entry.name for entry in entries]
    images = pd.DataFrame({"image": names, "Patient Id": [os.path.splitext(n)[0] for n in names]})
    return images.merge(table, on="Patient Id")


def join_with_ours(root: Path) -> pd.DataFrame:
    """The cohort, with 64 characters of each image's path in place of its digest."""
    with patch.object(cohort, "content_hash", lambda path: os.fspath(path)[-64:].rjust(64, "0")):
        return cohort.build_cohort(root / "manifest.yaml", root).table


def timed(work: Callable[[Path], pd.DataFrame], root: Path) -> tuple[float, float, float]:
    """Seconds of the processor and of the clock, and peak memory of the process in MB."""
    begun, processor = time.perf_counter(), time.process_time()
    work(root)
    return time.process_time() - processor, time.perf_counter() - begun, _peak()


def measure(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Result]:
    """Ratio and memory at each size, and time a row of the largest over the second largest."""
    results: list[Result] = []
    a_row: list[tuple[float, float]] = []
    for n in sorted(sizes):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            _apart(make_hospital, root, n)
            runs = [
                (_apart(timed, join_with_ours, root), _apart(timed, join_with_pandas, root))
                for _ in range(min(rounds, max(1, _ROWS // n)))
            ]
            shutil.rmtree(root / "films")
        ours, alone = (
            [statistics.median(figures) for figures in zip(*side, strict=True)]
            for side in zip(*runs, strict=True)
        )
        a_row.append((1e6 * ours[0] / n, 1e6 * alone[0] / n))
        against = "read, list and merge with pandas alone"
        results.append(
            result(
                f"cohort of {n:,} rows, processor time",
                against,
                [own[0] / other[0] for own, other in runs],
                RATIO,
                at_least=False,
                detail=f"{ours[0]:.2f} and {alone[0]:.2f} s",
            )
        )
        if n >= _WEIGHS:
            results.append(
                result(
                    f"cohort of {n:,} rows, peak memory",
                    against,
                    [own[2] / other[2] for own, other in runs],
                    None,
                    at_least=False,
                    detail=f"{ours[2]:.0f} and {alone[2]:.0f} MB",
                )
            )
    if len(a_row) > 1:
        (own_before, alone_before), (own, alone) = a_row[-2:]
        results.append(
            result(
                "cohort, time a row",
                "a tenth as many rows",
                [own / own_before],
                LINEAR,
                at_least=False,
                detail=f"{own:.1f} and {own_before:.1f} µs; pandas' own {alone / alone_before:.2f}",
            )
        )
    return results


def _apart(work: Callable[..., Any], *arguments: object) -> Any:
    """The result of `work` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _peak() -> float:
    """Peak memory of this process, MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts what the parent had before this one began in ru_maxrss
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
