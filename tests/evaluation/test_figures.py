import matplotlib
import numpy as np
import pytest
from fabricated import BINARY, THREE, simulate, table
from PIL import Image

from osteofusion.evaluation import add_arms, draw_sheet, save_figure


def predictions(classes):
    shares = [0.2, 0.8] if len(classes) == 2 else [0.2, 0.5, 0.3]
    labels, p, group = simulate(np.random.default_rng(0), shares, 1.5, 60)
    fused = table(labels, p, classes, groups=group)
    return add_arms(fused, {"majority": np.tile(shares, (60, 1))}, classes)


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_sheet_shows_the_arms_the_counts_and_the_stamp(classes, tmp_path):
    before = dict(matplotlib.rcParams)
    rows = predictions(classes)
    figure = draw_sheet(rows, classes, arm="fused", stamp="synthetic demo data")
    save_figure(figure, tmp_path / "sheet.svg")
    drawn = (tmp_path / "sheet.svg").read_text()
    assert "synthetic demo data" in drawn
    assert "majority: AUROC 0.500" in drawn
    assert "normal (rarer side)" in drawn
    assert "60 radiographs in 60 split groups" in drawn
    confusion = figure.axes[3]
    counted = sum(int(text.get_text().split("\n")[0]) for text in confusion.texts)
    assert counted == 60
    assert dict(matplotlib.rcParams) == before


def test_sheet_is_an_image_on_disk_and_nothing_else(tmp_path):
    save_figure(draw_sheet(predictions(BINARY), BINARY, arm="fused"), tmp_path / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000
        assert len(set(image.convert("L").tobytes())) > 50


def test_sheet_of_one_class_says_so(tmp_path):
    rows = predictions(BINARY)
    one = rows[rows["label"] == "normal"]
    save_figure(draw_sheet(one, BINARY, arm="fused"), tmp_path / "sheet.svg")
    assert "only one class on these rows" in (tmp_path / "sheet.svg").read_text()


def test_an_unknown_arm_is_refused():
    with pytest.raises(ValueError, match="'image' is not in the table; arms: fused, majority"):
        draw_sheet(predictions(BINARY), BINARY, arm="image")
