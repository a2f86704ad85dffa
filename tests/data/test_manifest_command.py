"""`osteofusion manifest init` and `check` as typed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from osteofusion.data.manifest_command import run
from osteofusion.errors import OsteofusionError

LABELS = ("normal", "osteopenia", "osteoporosis")


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """24 films and rows; heights in cm, one of them nonsense."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "data" / "films").mkdir(parents=True)
    lines = ["id;age;height;smoker;diagnosis"]
    for i in range(24):
        Image.fromarray(np.full((20, 20), i, np.uint8)).save(tmp_path / f"data/films/A{i}.png")
        lines.append(f"A{i};{50 + i};{'17o' if i == 5 else 150 + i};{i % 2};{LABELS[i % 3]}")
    (tmp_path / "data" / "t.csv").write_text("\n".join(lines))
    return tmp_path


def init(*more):
    return run(["init", "--images", "data/films", "--table", "data/t.csv", *more])


def check(file="data.yaml"):
    return run(["check", file, "--root", "data"])


def edit(old, new):
    path = Path("data.yaml")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_init_writes_a_draft_that_passes_check(clinic, capsys):
    assert init() == 0
    out = capsys.readouterr().out
    assert "24 of 24 file names match" in out
    assert f"osteofusion manifest check data.yaml --root {clinic / 'data'}" in out
    assert f"--data.manifest data.yaml --data.root {clinic / 'data'}" in out
    assert check() == 0
    out = capsys.readouterr().out
    assert "joined 24 of 24: 8 normal, 8 osteopenia, 8 osteoporosis" in out
    assert "1.5 to 1.73 m" in out
    assert "unusable: '17o' (row 7)" in out
    assert "still to be filled in: title, region, license, citation" in out
    assert out.rstrip().endswith("ok: data.yaml fits the data under data")


def test_init_never_overwrites(clinic):
    init("--out", "own.yaml")
    before = (clinic / "own.yaml").read_bytes()
    with pytest.raises(OsteofusionError, match=r"own\.yaml exists"):
        init("--out", "own.yaml")
    init("--name", "own2")
    with pytest.raises(OsteofusionError, match=r"own2\.yaml exists"):
        init("--name", "own2")
    assert (clinic / "own.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scale: 0.01, ", "", r"23 of 24 cells are implausible.*scale: 0\.01"),
        ("smoker: { header: smoker", "smokes: { header: Raucher", r"no header 'Raucher'"),
        ("kind: binary", "kind: binary, values: {a: 1}", r"column smoker: 24 of 24 .* unparsable"),
        ("id: id", "id: age", "No image matches a row"),
        ("column: diagnosis", "column: smoker", "Unknown label '0'"),
        ("file: t.csv", "file: u.csv", "u.csv"),
        ("layout: folder", "layout: folders", "layout"),
    ],
)
def test_check_names_what_does_not_fit(clinic, old, new, message):
    init()
    edit(old, new)
    with pytest.raises(OsteofusionError) as caught:
        check()
    assert re.search(message, str(caught.value), re.DOTALL)
    assert "\n" not in str(caught.value).split("expected")[0]


def test_check_counts_the_problems_and_names_the_first(clinic):
    init()
    edit("scale: 0.01, ", "")
    edit("unit: years", "unit: years, scale: 0.01")
    with pytest.raises(OsteofusionError, match=r"column age: .*\(1 of 2 problems\)\."):
        check()


def test_check_says_which_line_of_a_draft_to_edit(clinic):
    table = clinic / "data" / "t.csv"
    text = table.read_text()
    for code, label in enumerate(LABELS):
        text = re.sub(f";{label}$", f";{code}", text, flags=re.MULTILINE)
    table.write_text(text)
    init()
    lines = (clinic / "data.yaml").read_text().splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if "EDIT:" in line)
    with pytest.raises(OsteofusionError, match=f"Unknown label.* Line {number} of data.yaml"):
        check()
    edit("# values: {", "values: {")
    assert check() == 0


def test_images_without_a_row_are_a_problem_when_they_are_many(clinic):
    init()
    for i in range(24, 60):
        Image.fromarray(np.full((20, 20), i, np.uint8)).save(clinic / f"data/films/A{i}.png")
    with pytest.raises(OsteofusionError, match="36 of 60 images match no row"):
        check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "init|check"),
        (["init"], "needs --images, --table or both"),
        (["init", "--images", "nowhere"], "no folder"),
        (["init", "--table", "nowhere.csv"], "does not exist"),
        (["init", "--images", "data/films", "--root", "data/films/x"], "not under --root"),
        (["init", "--images", "data"], None),
        (["check", "nothing", "--root", "data"], "neither a file nor one of ours"),
        (["check", "mendeley", "--root", "nowhere"], "nowhere does not exist"),
        (["check", "mendeley"], "--root"),
    ],
)
def test_mistakes_are_one_sentence(clinic, arguments, message):
    if message is None:
        assert run(arguments) == 0
        return
    with pytest.raises(OsteofusionError, match=re.escape(message)):
        run(arguments)
    assert not list(clinic.glob("*.yaml"))


def test_check_of_the_shipped_manifest_on_the_real_cohort(mendeley, capsys):
    assert run(["check", "mendeley", "--root", str(mendeley)]) == 0
    out = capsys.readouterr().out
    assert "1 rows without an image: N37" in out
    assert "3 rows without an ID" in out
