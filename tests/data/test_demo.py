from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from osteofusion.data.demo import STAMP, write_demo
from osteofusion.errors import OsteofusionError

CLASSES = ["normal", "osteopenia", "osteoporosis"]
MENDELEY = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "mendeley"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "cohort", seed=3, subjects=120)


def read_table(root: Path) -> pd.DataFrame:
    table = pd.read_excel(root / "patient details.xlsx", sheet_name="Sheet2")
    return table[table["Patient Id"].notna()].set_index("Patient Id")


def films(root: Path) -> dict[str, Path]:
    return {path.stem: path for folder in CLASSES for path in sorted((root / folder).iterdir())}


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes_whatever_the_global_generator(tmp_path: Path) -> None:
    first = digests(write_demo(tmp_path / "a", seed=1, subjects=40))
    np.random.seed(7)  # noqa: NPY002 (the global state is what must not matter)
    assert digests(write_demo(tmp_path / "b", seed=1, subjects=40)) == first
    other = digests(write_demo(tmp_path / "c", seed=2, subjects=40))
    assert not set(other.values()) & set(first.values())


def test_workbook_carries_no_time_of_writing(demo: Path) -> None:
    with zipfile.ZipFile(demo / "patient details.xlsx") as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {1980}
    properties = openpyxl.load_workbook(demo / "patient details.xlsx").properties
    assert properties.created == properties.modified == datetime(2000, 1, 1)


def test_layout_and_counts(demo: Path) -> None:
    assert sorted(path.name for path in demo.iterdir()) == sorted(
        [*CLASSES, "patient details.xlsx", "ground_truth.csv", "README.txt"]
    )
    table, images = read_table(demo), films(demo)
    assert len(table) == 120
    assert table.index.is_unique
    (missing,) = set(table.index) - set(images)
    assert missing.startswith("N")
    assert set(images) <= set(table.index)
    assert all(path.parent.name == table.loc[key, "Diagnosis"] for key, path in images.items())
    shares = table["Diagnosis"].value_counts(normalize=True)
    assert shares[CLASSES].tolist() == pytest.approx([0.30, 0.45, 0.25], abs=0.02)
    assert STAMP in (demo / "README.txt").read_text()
    assert not list(demo.parent.glob(".*"))


def test_folder_follows_the_t_score_by_the_who_thresholds(demo: Path) -> None:
    t_score = read_table(demo)["T-score Value"]
    for subject, path in films(demo).items():
        score = t_score[subject]
        expected = CLASSES[0 if score >= -1 else 2 if score <= -2.5 else 1]
        assert path.parent.name == expected


def test_workbook_has_the_dirt_of_the_original(demo: Path) -> None:
    book = openpyxl.load_workbook(demo / "patient details.xlsx")
    assert book.sheetnames[0] == "Sheet2"
    assert book.properties.title == STAMP
    assert STAMP in str(book["Note"]["A1"].value)
    rows = list(book["Sheet2"].iter_rows(values_only=True))
    column = {name: i for i, name in enumerate(rows[0])}
    assert [row[column["Menopause Age"]] for row in rows[-3:]] == ["max", "min", "avg"]
    assert all(row[column["Patient Id"]] is None for row in rows[-3:])

    table = read_table(demo)
    age, menopause = table["Age"], pd.to_numeric(table["Menopause Age"])
    assert (age == 107).sum() == 1
    assert (menopause > age).sum() == 1
    assert {"over weight", "overweight", "obesity "} <= set(table["Obesity"])
    assert {"businesman", "bussinesman"} & set(table["Occupation "])
    assert table["History of Fracture"].nunique() > 5
    for constant in ("Alcoholic", "Site"):
        assert table[constant].nunique() == 1
    missing = table.isna().mean()
    assert missing["Menopause Age"] == pytest.approx(0.65, abs=0.12)
    assert missing["Number of Pregnancies"] == pytest.approx(0.48, abs=0.05)
    for rare in ("Occupation ", "Daily Eating habits", "Maximum Walking distance (km)"):
        assert 0 < missing[rare] < 0.04


def test_headers_are_those_of_the_original(demo: Path) -> None:
    if not MENDELEY.is_dir():
        pytest.skip("the Mendeley workbook is not on this machine")
    workbook = "patient details.xlsx"
    ours = pd.read_excel(demo / workbook, sheet_name="Sheet2", nrows=0)
    theirs = pd.read_excel(MENDELEY / workbook, sheet_name="Sheet2", nrows=0)
    assert ours.columns.tolist() == theirs.columns.tolist()


def test_some_films_are_filed_twice_within_and_across_classes(demo: Path) -> None:
    groups: dict[str, list[Path]] = {}
    for path in films(demo).values():
        groups.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path)
    twice = [group for group in groups.values() if len(group) > 1]
    assert sum(len(group) - 1 for group in twice) == 4
    assert sum(len({path.parent for path in group}) > 1 for group in twice) == 2


def test_acquisition_families_do_not_tell_the_class(demo: Path) -> None:
    families: dict[str, Counter[tuple[object, ...]]] = {}
    for path in films(demo).values():
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert max(pixels.shape) <= 512
        key = (path.suffix, pixels.ndim, pixels.shape[:2])
        families.setdefault(path.parent.name, Counter())[key] += 1
    assert {key[1] for key in families["normal"]} == {2, 3}  # gray and RGB
    assert len({key[2] for key in families["normal"]}) >= 3  # sizes
    for counts in families.values():
        assert max(counts.values()) / sum(counts.values()) < 0.36  # four, about a quarter each


@pytest.mark.parametrize("seed", range(3))
def test_brightness_alone_does_not_tell_low_density(demo: Path, tmp_path: Path, seed: int) -> None:
    root = demo if seed == 0 else write_demo(tmp_path / "d", seed=seed, subjects=60)
    images = films(root).values()
    low = [path.parent.name != "normal" for path in images]
    mean = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).mean() for path in images]
    auroc = roc_auc_score(low, mean)
    assert max(auroc, 1 - auroc) <= 0.6


def cortex_share(crop: np.ndarray) -> float:
    """Share of the box that is as bright as its cortex; free of exposure."""
    smooth = cv2.GaussianBlur(crop, (0, 0), 1).astype(float)
    low, high = np.quantile(smooth, [0.02, 0.98])
    return float((smooth > low + 0.75 * (high - low)).mean())


def roughness(crop: np.ndarray) -> float:
    """Steepness along the bone per contrast: high where trabeculae are dense and cross-linked."""
    smooth = cv2.GaussianBlur(crop.astype(float), (0, 0), 1)
    texture = smooth - cv2.GaussianBlur(smooth, (0, 0), 6)
    height, width = texture.shape
    inner = texture[height // 5 : -height // 5, width // 5 : -width // 5]
    return float(np.diff(inner, axis=0).std() / inner.std())


@pytest.mark.parametrize(
    ("region", "measure"), [("_cortex", cortex_share), ("_trabecular", roughness)]
)
def test_boxes_hold_the_density(
    demo: Path, region: str, measure: Callable[[np.ndarray], float]
) -> None:
    truth = pd.read_csv(demo / "ground_truth.csv")
    assert set(truth["subject_id"]) == set(films(demo))
    truth = truth[truth["region"].str.endswith(region)]
    values = []
    for row in truth.itertuples():
        pixels = cv2.imread(str(demo / row.image), cv2.IMREAD_GRAYSCALE)
        height, width = pixels.shape
        assert 0 <= row.x0 < row.x1 <= width
        assert 0 <= row.y0 < row.y1 <= height
        values.append(measure(pixels[row.y0 : row.y1, row.x0 : row.x1]))
    means = truth.assign(value=values).groupby("subject_id")[["density", "value"]].mean()
    assert spearmanr(means["density"], means["value"]).statistic > 0.4


def test_clinical_columns_point_in_published_directions(demo: Path) -> None:
    table = read_table(demo)
    density = pd.read_csv(demo / "ground_truth.csv").groupby("subject_id")["density"].first()
    table = table.join(density, how="inner")
    assert (table["Age"] < 100).sum() == len(table) - 1
    known = table[table["Age"] < 100]
    assert spearmanr(known["Age"], known["density"]).statistic < -0.3
    assert spearmanr(table["Weight (KG) "], table["density"]).statistic > 0.1
    for column, risk in {"Gender": "female", "Family History of Osteoporosis": "yes"}.items():
        at_risk = table[column] == risk
        assert table["density"][at_risk].mean() < table["density"][~at_risk].mean()


def test_an_existing_non_empty_folder_or_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "kept.txt"):
        with pytest.raises(OsteofusionError, match="not an empty folder"):
            write_demo(out, subjects=40)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (write_demo(tmp_path / "empty", subjects=40) / "README.txt").is_file()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OsteofusionError, match="cannot be written"):
        write_demo(tmp_path / "file" / "demo", subjects=40)


@pytest.mark.parametrize(("kwargs", "said"), [({"subjects": 39}, "39"), ({"seed": -1}, "-1")])
def test_settings_out_of_range_are_refused(
    tmp_path: Path, kwargs: dict[str, int], said: str
) -> None:
    with pytest.raises(OsteofusionError, match=said):
        write_demo(tmp_path / "demo", **kwargs)
    assert not list(tmp_path.iterdir())
