"""`osteofusion audit` from the folder to the files it writes."""

import csv
import hashlib
import json

import cv2
import numpy as np
import pytest
from copy_films import texture
from matplotlib.figure import Figure

from osteofusion.audit.assess import assess
from osteofusion.audit.command import run
from osteofusion.audit.figures import draw_page
from osteofusion.audit.findings import Copy
from osteofusion.audit.sources import from_cohort, from_folders
from osteofusion.audit.split_file import add_splits
from osteofusion.errors import CohortError, ConfigError


@pytest.fixture(scope="module")
def films():
    return [texture(seed) for seed in range(8)]


def write(root, images):
    for name, pixels in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / name), pixels)
    return root


@pytest.fixture
def leaking(tmp_path, films):
    """A split with an identical, a mirrored and a cropped copy, two of them across its sides."""
    return write(
        tmp_path / "knees",
        {
            **{f"train/normal/{i}.png": films[i] for i in range(3)},
            **{f"train/osteoporosis/{i}.png": films[i] for i in range(3, 6)},
            "test/normal/0 again.png": films[0],
            "test/osteoporosis/[red]one.png": films[1][:, ::-1],
            "train/normal/part.png": films[2][60:380, 40:320],
            "test/normal/6.png": films[6],
        },
    )


def counts(report):
    return {finding.name: finding.count for finding in report.findings}


def test_copies_are_found_across_splits_and_labels(leaking):
    report, _ = assess(from_folders([leaking]))
    found = counts(report)
    assert found["identical_groups"] == found["mirrored_copies"] == found["cropped_copies"] == 1
    assert found["copies_across_splits"] == 2
    assert found["copies_across_labels"] == 1
    assert found["copies_across_subjects"] is None
    assert found["unreadable_images"] == 0
    assert [copy.across for copy in report.copies] == [("splits", "labels"), ("splits",), ()]
    assert report.splits == {"train": 7, "test": 3}


def test_all_files_are_written_and_agree(leaking, tmp_path, capsys):
    out = tmp_path / "found"
    assert run([str(leaking), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert sorted(path.name for path in out.iterdir()) == [
        "copies.csv",
        "copies.pdf",
        "report.json",
        "report.txt",
    ]
    assert (out / "copies.pdf").read_bytes().startswith(b"%PDF")
    assert "[red]one" in (out / "report.txt").read_text(encoding="utf-8")
    with (out / "copies.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["mirrored", "identical", "cropped"]
    for row in rows:
        for side in "ab":
            data = (leaking / row[f"image_{side}"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row[f"sha256_{side}"]
    assert (rows[0]["split_a"], rows[0]["split_b"]) == ("test", "train")


def test_strict_names_the_findings_after_writing(leaking, tmp_path):
    with pytest.raises(CohortError, match="copies across splits") as refused:
        run([str(leaking), "--out", str(tmp_path / "found"), "--strict"])
    assert str(refused.value).count(".") == 1
    assert (tmp_path / "found" / "report.json").is_file()


def test_a_clean_folder_passes_strict_and_removes_the_old_sheet(tmp_path, films):
    root = write(tmp_path / "clean", {f"{i}.png": films[i] for i in range(4)})
    out = tmp_path / "found"
    out.mkdir()
    (out / "copies.pdf").write_bytes(b"of an earlier run")
    assert run([str(root), "--out", str(out), "--strict"]) == 0
    assert not (out / "copies.pdf").exists()
    assert (out / "copies.csv").read_text().count("\n") == 1


def test_two_folders_are_searched_for_copies_between_them(tmp_path, films):
    first = write(tmp_path / "whole", {f"{i}.png": films[i] for i in range(3)})
    second = write(tmp_path / "parts", {"x.png": films[1][:300, 50:], "y.png": films[5]})
    report, _ = assess(from_folders([first, second]))
    assert counts(report)["copies_across_sources"] == 1
    (copy,) = report.copies
    assert (copy.image_a, copy.image_b, copy.kind) == ("whole/1.png", "parts/x.png", "cropped")


def test_a_csv_tells_the_sides_and_the_subjects(tmp_path, films):
    root = write(tmp_path / "d", {f"{i}.png": films[i] for i in range(4)})
    (tmp_path / "s.csv").write_text(
        "file,set,patient\n0.png,train,A\n1.png,test,A\n2.png,train,B\n3.png,test,C\n"
    )
    collection = from_folders([root])
    add_splits(collection, tmp_path / "s.csv", [root])
    report, _ = assess(collection)
    (finding,) = (item for item in report.findings if item.name == "subjects_across_splits")
    assert (finding.count, finding.examples) == (1, ["A in test and train"])


def test_unreadable_images_are_named_and_the_others_audited(leaking):
    (leaking / "train" / "normal" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    report, collection = assess(from_folders([leaking]))
    assert counts(report)["unreadable_images"] == 1
    assert counts(report)["copies_across_splits"] == 2
    for copy in report.copies:
        assert collection.table["name"][copy.a] == copy.image_a
        assert collection.table["name"][copy.b] == copy.image_b


def test_a_cohort_with_a_split_and_a_height(clinic, tmp_path):
    """The patient's height is one column, the picture's another."""
    clinic.manifest["columns"]["height"] = {"kind": "numeric"}
    clinic.rows = [
        {"Patient ID": f"S{i}", "Diagnosis": "normal" if i % 2 else "osteopenia", "Height": i}
        for i in range(24)
    ]
    clinic.images |= {
        f"{row['Diagnosis']}/{row['Patient ID']}.png": clinic.radiograph(str(row["Patient ID"]))
        for row in clinic.rows
    }
    collection = from_cohort([str(clinic.write())], [clinic.root], progress=False)
    sides = "".join(f"S{i},{'train' if i < 14 else 'test'}\n" for i in range(24))
    (tmp_path / "s.csv").write_text(f"subject,split\n{sides}")
    add_splits(collection, tmp_path / "s.csv", [clinic.root])
    report, _ = assess(collection)
    moved = {test.column for test in report.drift if test.adjusted < 0.05}
    assert moved == {"height"}
    assert counts(report)["splits_differ"] >= 1
    assert counts(report)["subjects_across_splits"] == 0


def test_nothing_readable_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(CohortError, match="None of the images"):
        assess(from_folders([tmp_path]))


def test_a_border_that_gives_the_label_away_is_found(tmp_path):
    rng = np.random.default_rng(0)
    images = {}
    for label, depth in (("normal", 0), ("osteoporosis", 12)):
        for i in range(20):
            pixels = rng.integers(60, 200, (80, 80), np.uint8)
            pixels[:depth] = 0
            images[f"{label}/{label[0]}{i}.png"] = pixels
    report, _ = assess(from_folders([write(tmp_path, images)]))
    named = {item.reading.what: item for item in report.label_readings}
    assert named["border"].above_chance
    assert named["border"].visible
    assert named["pixel size"].reading.auroc is None
    assert any(name.startswith("all of these outside, without ID pattern") for name in named)
    assert "label_in_pixels" in report.problems
    assert "label_outside_pixels" not in report.problems


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "either folders"),
        (["d", "--manifest", "demo"], "either folders"),
        (["--manifest", "demo"], "go together"),
        (["d", "--root", "r"], "go together"),
        (["d", "--out", __file__], "is a file"),
        (["d", "--nonsense"], "--help"),
    ],
)
def test_wrong_options_get_a_sentence(arguments, says):
    with pytest.raises(ConfigError, match=says):
        run(arguments)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_page_is_drawn_whatever_the_names(tmp_path, films):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, pixels in zip(paths, (films[0], films[0][50:300, 30:300]), strict=True):
        cv2.imwrite(str(path), pixels)
    copy = Copy(
        **dict.fromkeys(("sha256_a", "sha256_b", "source_a", "source_b"), "x"),
        **dict.fromkeys(("subject_a", "subject_b", "label_a", "split_a"), None),
        a=0,
        b=1,
        image_a="$x_1$ 膝 [b]",
        image_b="y" * 200,
        kind="cropped",
        mirrored=False,
        correlation=0.9,
        overlap=0.4,
        rotation=0.0,
        across=("labels",),
        label_b="normal",
        split_b="test",
        transform=((1.0, 0.0, -30.0), (0.0, 1.0, -50.0), (0.0, 0.0, 1.0)),
    )
    figure = draw_page([copy], paths, title="$ of 1")
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    outlines = [len(axis.patches) for axis in figure.axes]
    assert outlines[:2] == [1, 0]  # the part in the whole; all of the part is in the whole
    corners = figure.axes[0].patches[0].get_xy()
    assert corners.min(axis=0) == pytest.approx([30, 50], abs=2)


def test_mendeley(mendeley):
    """What its readme says: 21 groups of identical files, seven of them across classes."""
    collection = from_cohort(["mendeley"], [mendeley], progress=False)
    names = collection.table["name"].str.extract(r"(N|OP|OS)(\d+)\.")
    few = np.flatnonzero(
        collection.table["path"].map(lambda p: p.stat().st_size).duplicated(keep=False)
        | (names[1].astype(int) < 8)
    )
    report, _ = assess(collection.keep(few.tolist()))
    found = counts(report)
    assert found["identical_groups"] == found["copies_across_subjects"] == 21
    assert found["copies_across_labels"] == 7
    assert all(copy.kind == "identical" for copy in report.copies)
    pattern = next(r for r in report.label_readings if r.reading.what == "ID pattern")
    assert pattern.above_chance
    assert pattern.reading.auroc > 0.98
    assert not pattern.visible
    assert found["perfect_features"] == 0
    assert "t_score" in [r.column for r in report.features.columns if r.auroc == 1.0]
