"""Facts of files, what can be read from them, and how sides differ."""

from statistics import mean

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from osteofusion.audit.drift import compare_sides, find_drift, tell_apart
from osteofusion.audit.features import read_features
from osteofusion.audit.file_facts import GROUPS, read_file_facts
from osteofusion.audit.predictability import Target, encode, holm
from osteofusion.audit.sources import Collection
from osteofusion.audit.verdicts import family_finding
from osteofusion.data.manifest import Column


def picture(path, size=(300, 200), mode="L", **options):
    rng = np.random.default_rng(len(str(path)))
    array = rng.integers(20, 120, (size[1], size[0]), np.uint8)
    Image.fromarray(array).convert(mode).save(path, **options)
    return path


def test_facts_of_a_jpeg(tmp_path):
    path = picture(tmp_path / "OP012.JPEG", mode="RGB", quality=80, subsampling=0, progressive=True)
    facts = read_file_facts([path]).table.iloc[0]
    assert (facts["name_prefix"], facts["name_number"], facts["extension"]) == ("op", 12, ".JPEG")
    assert (facts["format"], facts["mode"], facts["coding"]) == ("JPEG", "RGB", "4:4:4 progressive")
    assert (facts["width"], facts["height"]) == (300, 200)
    assert facts["file_bytes"] == path.stat().st_size


@pytest.mark.parametrize("quality", [20, 40, 50, 75, 90, 95])
def test_jpeg_quality_is_that_of_the_encoder(tmp_path, quality):
    facts = read_file_facts([picture(tmp_path / "a.jpg", quality=quality)])
    assert facts.table["quality"].iloc[0] == pytest.approx(quality, abs=1)


def test_black_and_white_borders_are_measured(tmp_path):
    array = np.full((200, 100), 100, np.uint8)
    array[:20], array[:, 90:] = 0, 255
    Image.fromarray(array).save(tmp_path / "a.png")
    facts = read_file_facts([tmp_path / "a.png"]).table.iloc[0]
    array[:20] = 0
    assert facts["white_right"] == pytest.approx(0.1)
    assert facts["black_bottom"] == facts["white_left"] == 0
    Image.fromarray(array).save(tmp_path / "a.png")
    assert read_file_facts([tmp_path / "a.png"]).table["black_top"].iloc[0] == pytest.approx(0.1)


def test_burned_in_letters_are_noticed(tmp_path):
    plain = Image.new("L", (400, 400), 10)
    ImageDraw.Draw(plain).ellipse((100, 60, 300, 340), fill=180)
    plain.save(tmp_path / "plain.png")
    ImageDraw.Draw(plain).text((10, 10), "NORMAL", fill=255, font_size=16)
    plain.save(tmp_path / "text.png")
    facts = read_file_facts([tmp_path / "plain.png", tmp_path / "text.png"]).table
    assert facts["text_marks"].iloc[0] == 0
    assert facts["text_marks"].iloc[1] >= 4


def test_unreadable_files_are_named_and_hold_their_place(tmp_path):
    good = picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "c.png").write_bytes(b"")
    facts = read_file_facts([tmp_path / "b.jpg", good, tmp_path / "c.png", tmp_path / "d.png"])
    assert set(facts.unreadable) == {0, 2, 3}
    assert facts.sha256[1]
    assert facts.table["width"].notna().tolist() == [False, True, False, False]


def test_families_pool_rare_ones(tmp_path):
    paths = [picture(tmp_path / f"a{i}.png", size=(60, 50)) for i in range(6)]
    paths += [picture(tmp_path / f"b{i}.jpg", size=(60 + i, 50), quality=75) for i in range(6)]
    families = read_file_facts(paths).table["family"].value_counts().to_dict()
    assert list(families.values()) == [6, 6]
    assert any("60 x 50" in name for name in families)
    assert any("other sizes" in name for name in families)


def test_every_fact_stands_in_one_group(tmp_path):
    table = read_file_facts([picture(tmp_path / "a.png")]).table
    columns = [column for group in GROUPS for column in group.columns]
    assert sorted(columns) == sorted(table.columns)


def test_a_label_in_the_facts_is_read_and_noise_is_not():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 240, p=[0.2, 0.5, 0.3])
    target = Target(labels.tolist(), np.arange(240))
    words = pd.DataFrame({"prefix": labels}, dtype=object)
    perfect = target.read("prefix", words)
    assert perfect.auroc > 0.999
    assert perfect.low > 0.8
    assert perfect.p < 1e-6
    noise = target.read("noise", pd.DataFrame({"x": rng.normal(size=240)}))
    assert noise.chance
    assert target.read("constant", pd.DataFrame({"x": np.ones(240)})).auroc is None


def test_noise_is_called_chance_as_often_as_promised():
    rng = np.random.default_rng(1)
    readings = []
    for _ in range(8):
        labels = rng.choice(["a", "b"], 80, p=[0.3, 0.7])
        noise = pd.DataFrame({"x": rng.normal(size=80)})
        readings.append(Target(labels.tolist(), np.arange(80)).read("noise", noise))
    assert sum(not reading.chance for reading in readings) <= 1
    assert abs(mean(reading.auroc for reading in readings) - 0.5) < 0.1


def test_copies_of_one_film_do_not_teach_each_other():
    # Each film three times, with a number of its own: only a copy in the training folds tells.
    rng = np.random.default_rng(2)
    films = np.repeat(np.arange(60), 3)
    labels = rng.choice(["a", "b"], 60)[films]
    number = pd.DataFrame({"x": rng.permutation(60)[films].astype(float)})
    apart = Target(labels.tolist(), np.arange(180)).read("number", number)
    together = Target(labels.tolist(), films).read("number", number)
    assert apart.auroc > 0.8
    assert together.auroc < 0.65


def test_classes_too_small_are_left_out_and_named():
    target = Target(["a"] * 20 + ["b"] * 20 + ["c"] * 3 + [None], np.arange(44))
    assert (target.classes, target.left_out) == (["a", "b"], ["c"])
    alone = Target(["a"] * 50, np.arange(50))
    assert "two classes" in alone.reason
    assert alone.read("x", pd.DataFrame({"x": np.arange(50.0)})).auroc is None


def test_gaps_and_words_are_encoded():
    frame = pd.DataFrame({"x": [1.0, np.nan, 3.0], "w": ["u", "v", None], "same": [1, 1, 1]})
    matrix = encode(frame.astype({"w": object}))
    assert np.isfinite(matrix).all()
    assert matrix.shape == (3, 5)  # x, x missing, u, v, w missing


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_never_lowers_and_keeps_the_order(values):
    adjusted = holm(values)
    pairs = [(p, q) for p, q in zip(values, adjusted, strict=True) if p is not None]
    assert [p is None for p in values] == [q is None for q in adjusted]
    assert all(p <= q <= 1 for p, q in pairs)
    by_p = [q for _, q in sorted(pairs)]
    assert by_p == sorted(by_p)
    if pairs:
        assert min(q for _, q in pairs) == pytest.approx(
            min(1, len(pairs) * min(p for p, _ in pairs))
        )


def _clinical(labels, **columns):
    table = pd.DataFrame(
        {"label": labels, "name": [str(i) for i in range(len(labels))]}, dtype=object
    )
    frame = pd.DataFrame(columns)
    kinds = {
        name: Column(kind="categorical" if frame[name].dtype == object else "numeric")
        for name in frame
    }
    return Collection("c", table, frame, kinds, pd.DataFrame(index=table.index))


def test_features_that_are_the_label_are_named():
    rng = np.random.default_rng(0)
    labels = np.repeat(["normal", "osteopenia", "osteoporosis"], 30)
    ill = labels != "normal"
    collection = _clinical(
        labels,
        treated=np.where(labels == "osteoporosis", 1.0, 0.0),
        asked=np.where(ill, rng.normal(size=90), np.nan),
        word=pd.Series(labels, dtype=object),
        age=rng.normal(size=90) + ill,
    )
    found = read_features(collection, Target(labels.tolist(), np.arange(90)))
    leaks = {(reading.column, reading.what) for reading in found.columns if reading.leaks}
    assert leaks == {("treated", "value"), ("asked", "missing"), ("word", "value")}
    assert found.together.auroc > 0.95


def test_an_outcome_is_listed_and_no_leak():
    labels = np.repeat(["normal", "osteoporosis"], 30)
    collection = _clinical(labels, t_score=np.where(labels == "normal", 0.0, -3.0))
    collection.columns["t_score"] = Column(kind="numeric", role="outcome")
    found = read_features(collection, Target(labels.tolist(), np.arange(60)))
    assert [(r.auroc, r.leaks) for r in found.columns] == [(1.0, False)]


def test_drift_is_found_where_it_is():
    rng = np.random.default_rng(0)
    sides = np.repeat(["train", "test"], [150, 80])
    moved = pd.DataFrame(
        {
            "age": rng.normal(size=230) + 1.0 * (sides == "test"),
            "sex": rng.integers(0, 2, 230).astype(float),
            "word": pd.Series(
                np.where(sides == "test", "x", rng.choice(list("xyz"), 230)), dtype=object
            ),
            "gap": np.where(
                (sides == "test") & (rng.random(230) < 0.5), np.nan, rng.normal(size=230)
            ),
        }
    )
    comparisons = compare_sides(sides.tolist())
    assert [c.name for c in comparisons] == ["train against test"]
    tests = find_drift(comparisons, moved, np.arange(230))
    assert {t.column for t in tests if t.adjusted < 0.05} == {"age", "word", "gap missing"}
    apart = tell_apart(comparisons, {"all": moved, "sex": moved[["sex"]]}, np.arange(230))
    assert [reading.chance for reading in apart] == [False, True]


def test_rows_of_one_subject_count_once():
    # Ten subjects of 30 rows each: by rows the sides differ beyond doubt, by subjects not.
    subjects = np.repeat(np.arange(12), 30)
    sides = np.where(subjects < 6, "train", "test")
    column = pd.DataFrame({"x": np.repeat(np.random.default_rng(0).normal(size=12), 30)})
    tests = find_drift(compare_sides(sides.tolist()), column, subjects)
    assert tests[0].p > 0.05
    assert find_drift(compare_sides(sides.tolist()), column, np.arange(360))[0].p < 1e-6


def test_sides_without_a_training_side_are_compared_with_the_rest():
    names = [c.name for c in compare_sides(["1", "2", "3", "1", None])]
    assert names == [f"{i} against the others" for i in "123"]
    assert compare_sides(["train", "train", None]) == []


def test_a_cohort_names_a_feature_whose_gaps_are_the_label(clinic):
    labels = ["normal"] * 12 + ["osteoporosis"] * 12
    key = "Patient ID"
    clinic.rows = [
        {key: f"S{i}", "Diagnosis": label, "Age": 40 + i % 7 if label == "normal" else None}
        for i, label in enumerate(labels)
    ]
    clinic.images = {
        **clinic.images,
        **{
            f"{row['Diagnosis']}/{row[key]}.png": clinic.radiograph(str(row[key]))
            for row in clinic.rows
        },
    }
    leaks = clinic.build().report.suspected_leaks
    assert [leak["column"] for leak in leaks] == ["age"]
    assert "missing" in leaks[0]["why"]


def test_a_family_of_one_label_is_named_though_no_classifier_sees_it():
    rng = np.random.default_rng(0)
    labels = pd.Series(["normal"] * 20 + ["osteopenia"] * 20 + ["osteoporosis"] * 20)
    # Ten of the normal films came from another machine.
    shortcut = pd.DataFrame({"format": ["DICOM"] * 10 + ["PNG"] * 50, "family": ["x"] * 60})
    found = family_finding(shortcut, labels, np.arange(60))
    assert found.count == 1
    assert "format DICOM: all 10 are normal" in found.examples[0]
    # Films of one patient are one film; chance alone makes no family.
    assert family_finding(shortcut, labels, np.r_[np.zeros(10), np.arange(1, 51)]).count == 0
    flagged = sum(
        bool(family_finding(shortcut.sample(frac=1, random_state=i), labels, np.arange(60)).count)
        for i in rng.integers(0, 10**6, 200)
    )
    assert flagged <= 10
    assert family_finding(shortcut, pd.Series([None] * 60), np.arange(60)).count is None
