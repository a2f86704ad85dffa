from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from osteofusion.data.cohort import build_cohort
from osteofusion.data.demo import write_demo
from osteofusion.errors import OsteofusionError


@pytest.fixture(scope="module")
def cohort(spine):
    return build_cohort("demo_spine", spine)


def test_films_of_a_subject_are_told_by_the_shipped_manifest(cohort):
    assert not cohort.report.images_without_row
    views = cohort.table["image"].str.extract(r"_(AP|LAT)\.jpe?g$", flags=2)[0]
    films = views.groupby(cohort.table["subject_id"]).agg("".join)
    assert set(films) == {"AP", "LAT", "APLAT"}
    assert (films == "APLAT").mean() > 0.6
    assert set(cohort.table["region"]) == {"spine"}


def test_films_of_a_subject_and_copies_stay_together(cohort):
    table = cohort.table
    assert (table.groupby("subject_id")["group"].nunique() == 1).all()
    assert (table.groupby("image_sha256")["group"].nunique() == 1).all()
    assert table["image_sha256"].duplicated().any()


def test_no_person_is_in_both_regions(tmp_path, spine):
    knees = write_demo(tmp_path / "knees", subjects=40, seed=1)
    both = [build_cohort(name, root).table for name, root in
            (("demo", knees), ("demo_spine", spine))]  # fmt: skip
    facts = ["age", "height", "weight", "walking_distance"]
    assert not set(map(tuple, both[0][facts].to_numpy())) & set(
        map(tuple, both[1][facts].to_numpy())
    )
    assert not set(both[0]["image_sha256"]) & set(both[1]["image_sha256"])


def thickness(crop: np.ndarray) -> float:
    """Share of the box across which the endplate is brighter than halfway to the body's inside."""
    smooth = cv2.GaussianBlur(crop, (0, 0), 0.7).astype(float)
    inside = np.median(smooth[3 * len(smooth) // 4 :], axis=0)
    return float(np.median((smooth > (inside + smooth.max(axis=0)) / 2).mean(axis=0)))


def grain(crop: np.ndarray) -> float:
    """Steepness across the bone per contrast: high where trabeculae are dense."""
    smooth = cv2.GaussianBlur(crop.astype(float), (0, 0), 1)
    texture = smooth - cv2.GaussianBlur(smooth, (0, 0), 6)
    return float(np.diff(texture, axis=0).std() / texture.std())


@pytest.mark.parametrize(("region", "measure"), [("_cortex", thickness), ("_trabecular", grain)])
@pytest.mark.parametrize("view", ["AP", "LAT"])
def test_boxes_of_each_view_hold_the_density(spine, region, measure, view):
    truth = pd.read_csv(spine / "ground_truth.csv")
    truth = truth[truth["region"].str.endswith(region) & truth["image"].str.contains(f"_{view}.")]
    values = []
    for row in truth.itertuples():
        pixels = cv2.imread(str(spine / row.image), cv2.IMREAD_GRAYSCALE)
        values.append(measure(pixels[row.y0 : row.y1, row.x0 : row.x1]))
    means = truth.assign(value=values).groupby("subject_id")[["density", "value"]].mean()
    assert len(means) > 30
    assert spearmanr(means["density"], means["value"]).statistic > 0.4


def test_a_region_that_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(OsteofusionError, match="'hip'; it draws knee and spine"):
        write_demo(tmp_path / "demo", region="hip")
    assert not list(tmp_path.iterdir())


def test_the_command_draws_a_spine(cli, tmp_path):
    result = cli("demo", "--region", "spine", "--subjects", 40, "--out", "spine", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "--data.manifest demo_spine" in result.out
    assert list((tmp_path / "spine" / "normal").glob("*_LAT.*"))
