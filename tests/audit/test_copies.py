"""Copies are found whatever was done to them, and different films are left apart."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from copy_films import COPIES, PARTS, cropped, texture, write_copy

from osteofusion.audit.copies import CopySearch, find_copies
from osteofusion.data.demo import write_demo
from osteofusion.data.radiograph import content_hash, read_radiograph

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
OF_TEXTURES = [kind for kind in COPIES if not kind.startswith("one_knee")]


def mendeley_films():
    """The different ones of the real films."""
    root = SHARED / "mendeley"
    if not root.is_dir():
        pytest.skip("the Mendeley radiographs are not beside this checkout")
    files = sorted(path for path in root.glob("*/*") if path.suffix.lower() in {".jpg", ".jpeg"})
    return list({content_hash(path): path for path in reversed(files)}.values())[::-1]


def save(film, path):
    assert cv2.imwrite(str(path), film)
    return path


class Copied:
    """Originals, copies of every n-th, and what a search among all of them found."""

    def __init__(self, originals, kinds, folder, every=1):
        rng = np.random.default_rng(0)
        self.paths = list(originals)
        self.origin = list(range(len(originals)))
        self.kinds = ["original"] * len(originals)
        for i, original in list(enumerate(originals))[::every]:
            film = read_radiograph(original)
            for kind in kinds:
                path = write_copy(film, kind, folder / f"{i}_{kind}", rng)
                if path is not None:
                    self.paths.append(path)
                    self.origin.append(i)
                    self.kinds.append(kind)
        self.search = find_copies(self.paths)
        self.film = {member: film for film in self.search.films for member in film}

    def recall(self, kind):
        of_kind = [i for i, other in enumerate(self.kinds) if other == kind]
        assert of_kind, f"no film has a copy of kind {kind}"
        return np.mean([self.origin[i] in self.film.get(i, []) for i in of_kind])

    def false_pairs(self):
        return [
            (self.paths[pair.a], self.paths[pair.b])
            for pair in self.search.pairs
            if self.origin[pair.a] != self.origin[pair.b]
        ]


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    return [save(texture(i), folder / f"{i}.png") for i in range(14)]


@pytest.fixture(scope="module")
def copied_textures(textures, tmp_path_factory):
    return Copied(textures[:6], OF_TEXTURES, tmp_path_factory.mktemp("copies"), every=3)


@pytest.fixture(scope="module")
def copied_knees(tmp_path_factory):
    films = mendeley_films()[::30]
    return Copied(films, COPIES, tmp_path_factory.mktemp("knees"), every=4)


@pytest.mark.parametrize("kind", OF_TEXTURES)
def test_a_copy_is_found_whatever_was_done_to_it(copied_textures, kind):
    assert copied_textures.recall(kind) == 1


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_a_real_film_is_found(copied_knees, kind):
    assert copied_knees.recall(kind) == 1


def test_copies_of_different_films_are_left_apart(copied_textures, copied_knees):
    assert copied_textures.false_pairs() == []
    assert copied_knees.false_pairs() == []


def test_different_films_are_left_apart(textures):
    assert find_copies(textures) == CopySearch([], [], [])


def test_drawings_of_one_outline_are_left_apart(tmp_path):
    """All demo knees share their outlines and a caption: what differs is inside the bones."""
    root = write_demo(tmp_path / "demo", subjects=40)
    paths = sorted(root.glob("*/*.*"))
    search = find_copies(paths)
    assert [pair.kind for pair in search.pairs] == ["identical"] * 4
    assert all(paths[p.a].read_bytes() == paths[p.b].read_bytes() for p in search.pairs)


def test_thumbnails_of_different_hands_are_left_apart():
    root = SHARED / "rsna_boneage" / "boneage-training-dataset"
    if not root.is_dir():
        pytest.skip("the RSNA radiographs are not beside this checkout")
    search = find_copies(sorted(root.iterdir())[:60])
    assert search.pairs == search.unreadable == []


def test_kinds_are_named_by_the_most_telling_change(tmp_path):
    film = texture(100)
    save(film, tmp_path / "a.png")
    rng = np.random.default_rng(0)
    told = {}
    for kind in ("q90", "half", "brighter", "turned", "crop70", "mirrored", "mirrored_crop"):
        path = write_copy(film, kind, tmp_path / kind, rng)
        (told[kind],) = find_copies([tmp_path / "a.png", path]).pairs
    assert {kind: pair.kind for kind, pair in told.items()} == {
        "q90": "re-encoded",
        "half": "resized",
        "brighter": "altered",
        "turned": "altered",
        "crop70": "cropped",
        "mirrored": "mirrored",
        "mirrored_crop": "mirrored",
    }
    assert abs(told["turned"].rotation) == pytest.approx(2, abs=0.1)
    assert told["crop70"].overlap == pytest.approx(0.49, abs=0.02)
    assert told["mirrored"].overlap == pytest.approx(1, abs=0.02)
    assert told["mirrored_crop"].overlap < 0.9
    assert told["q90"].correlation > 0.9


@pytest.mark.parametrize("mirror", [False, True])
def test_the_transform_leads_from_one_film_to_the_other(tmp_path, mirror):
    film = texture(101)
    y, x, height, width = 40, 70, 300, 250
    part = film[y : y + height, x : x + width]
    a = save(film, tmp_path / "a.png")
    b = save(np.ascontiguousarray(part[:, ::-1]) if mirror else part, tmp_path / "b.png")
    (pair,) = find_copies([a, b]).pairs
    assert pair.mirrored == mirror
    for place in ((100, 120), (280, 300)):  # column and row in the whole film
        column, row = place[0] - x, place[1] - y
        expected = (width - 1 - column if mirror else column, row, 1)
        assert np.array(pair.transform) @ (*place, 1) == pytest.approx(expected, abs=0.7)


def test_identical_files_are_each_paired_with_the_first(tmp_path):
    data = save(texture(102), tmp_path / "a.png").read_bytes()
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.jpg"]
    for path in paths[1:]:
        path.write_bytes(data)
    search = find_copies(paths)
    assert [(pair.a, pair.b, pair.kind) for pair in search.pairs] == [
        (0, 1, "identical"),
        (0, 2, "identical"),
    ]
    assert search.films == [[0, 1, 2]]


def test_copies_of_identical_files_are_one_film_with_both(tmp_path):
    film = texture(103)
    a = save(film, tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(a.read_bytes())
    c = save(cropped(film, 0.8, np.random.default_rng(0)), tmp_path / "c.png")
    d = save(texture(104), tmp_path / "d.png")
    assert find_copies([c, a, d, tmp_path / "b.png"]).films == [[0, 1, 3]]


def test_files_that_are_no_radiographs_are_named_with_a_reason(tmp_path, textures):
    broken = tmp_path / "broken.png"
    broken.write_bytes(textures[0].read_bytes()[:900])
    again = tmp_path / "again.png"
    again.write_bytes(broken.read_bytes())
    search = find_copies([tmp_path / "missing.png", textures[0], broken, again])
    assert [i for i, _ in search.unreadable] == [0, 2, 3]
    assert "missing.png" in search.unreadable[0][1]
    assert "cut short" in search.unreadable[1][1]
    assert search.pairs == search.undecided == []


def test_films_that_show_too_little_are_named_and_their_identical_copies_found(tmp_path):
    small = save(texture(105, 40, 30), tmp_path / "small.png")
    black = save(np.zeros((300, 300), np.uint8), tmp_path / "black.png")
    (tmp_path / "black2.png").write_bytes(black.read_bytes())
    search = find_copies([small, black, tmp_path / "black2.png"])
    assert [i for i, _ in search.undecided] == [0, 1, 2]
    assert "40 x 30" in search.undecided[0][1]
    assert "detail" in search.undecided[1][1]
    assert search.films == [[1, 2]]
    assert search.unreadable == []


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_no_copy_of_anything(textures, count):
    search = find_copies(textures[:count])
    assert search == CopySearch([], [], [])
    assert search.films == []


def test_the_result_does_not_depend_on_the_number_of_workers(copied_textures):
    some = copied_textures.paths[:20]
    assert find_copies(some, workers=1) == find_copies(some, workers=3)


@pytest.mark.slow
def test_untouched_films_have_the_known_identical_groups_and_no_other_copies():
    mendeley_films()  # skips where they are absent
    root = SHARED / "mendeley"
    paths = sorted(path for path in root.glob("*/*") if path.suffix.lower() in {".jpg", ".jpeg"})
    search = find_copies(paths)
    assert len(paths) == 239
    assert (len(search.films), sum(map(len, search.films))) == (21, 43)
    assert {pair.kind for pair in search.pairs} == {"identical"}
    assert search.undecided == search.unreadable == []


@pytest.mark.slow
def test_all_thumbnails_of_different_hands_are_left_apart():
    root = SHARED / "rsna_boneage" / "boneage-training-dataset"
    if not root.is_dir():
        pytest.skip("the RSNA radiographs are not beside this checkout")
    assert find_copies(sorted(root.iterdir())).pairs == []


@pytest.mark.slow
def test_copies_of_all_real_films(tmp_path):
    copied = Copied(mendeley_films(), COPIES, tmp_path)
    recall = {kind: copied.recall(kind) for kind in COPIES}
    assert min(recall.values()) >= 0.95, recall
    assert min(recall[kind] for kind in COPIES if kind not in PARTS) == 1, recall
    assert len(copied.false_pairs()) <= 0.02 * len(copied.search.pairs)
