"""The page to look at a cohort: what it says is true, whole, safe and readable."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from osteofusion.cli import main
from osteofusion.data.cohort import Cohort, build_cohort
from osteofusion.data.manifest import LABELS, Manifest
from osteofusion.data.page import write_page
from osteofusion.data.page.families import acquisition_families
from osteofusion.data.page.films import MOST_FILMS, contact_sheets, copy_groups
from osteofusion.data.page.findings import without_folders
from osteofusion.data.page.missing import missing_by_class
from osteofusion.data.page.table_one import standardised_difference, table_one
from osteofusion.data.report import JoinReport

_VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements and texts of a page; an element that is not closed where it should be is refused."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def look(tmp_path):
    """Write the page of a cohort and read it."""

    def read(cohort: Cohort) -> Page:
        write_page(cohort, tmp_path / "page.html")
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return read


@pytest.fixture(scope="module")
def knees(mendeley, tmp_path_factory):
    """The real cohort and its page."""
    cohort = build_cohort("mendeley", mendeley)
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(cohort, path)
    return cohort, path


def test_the_page_of_the_real_cohort_says_what_is_known_of_it(knees):
    _, path = knees
    text = Page(path.read_text(encoding="utf-8")).text
    assert "Wani IM, Arora S." in text
    assert "CC BY 4.0" in text
    assert "239 image files, 240 table rows" in text
    assert "always osteopenia is right in 64 %" in text
    assert "always low BMD is right in 85 %" in text
    assert "21 films are there more than once" in text
    assert "Groups whose rows differ: in class 7," in text
    assert "osteopenia (24 of 154)" in text
    assert "JPEG RGB .JPEG, 1024 x 1024 63 12 (19 %) 44 (70 %) 7 (11 %)" in text
    assert "SYNTHETIC" not in text
    for finding in ("N37", "OS27 age '107' (row"):  # items of the report, in full
        assert finding in text
    assert path.stat().st_size < 5_000_000


def test_the_page_stands_alone_and_is_accessible(knees):
    _, path = knees
    page = Page(path.read_text(encoding="utf-8"))
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object"}
    for _, attributes in page.elements:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/"))
    assert all(image["alt"].startswith("Radiograph of subject ") for image in page.all("img"))
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in page.all("svg"))
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("h1")) == 1
    assert page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"][1:] for link in page.all("a")}
    assert targets <= set(ids)


def test_the_same_cohort_gives_the_same_page(clinic, tmp_path):
    cohort = clinic.build()
    for name in ("one.html", "two.html"):
        write_page(cohort, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_no_folder_of_this_machine_stands_in_the_page(clinic, look):
    clinic.images["normal/A1.png"] = b"\x89PNG\r\n\x1a\n, cut short"
    page = look(clinic.build(decode=True))
    assert "normal/A1.png: Cannot read the radiograph normal/A1.png: it is cut short" in page.text
    everything = page.text + str(page.elements)
    assert str(clinic.root) not in everything
    assert clinic.root.parent.name not in everything


def test_a_film_that_vanished_is_said_in_its_place(clinic, look):
    cohort = clinic.build()
    (clinic.root / "normal" / "A1.png").unlink()
    page = look(cohort)
    assert len(page.all("img")) == 2 * 5  # by class and by family
    assert "Cannot read the radiograph normal/A1.png: there is no such file" in page.text


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "o'\"&amp;", "пациент é 患者", "a b"]
)
def test_odd_names_are_shown_as_they_are(clinic, look, name):
    row = clinic.rows[0]
    clinic.images = {
        image.replace("A1", name.replace("/", "")): data for image, data in clinic.images.items()
    }
    row["Patient ID"] = name.replace("/", "")
    row["Job"] = name
    page = look(clinic.build())
    assert not page.all("script")
    assert row["Patient ID"] in page.texts
    assert name.casefold() in page.texts  # a word of Table 1
    alt = f"Radiograph of subject {row['Patient ID']}, normal"
    assert alt in [image["alt"] for image in page.all("img")]


def test_a_file_name_in_no_encoding_is_written(clinic, look):
    cohort = clinic.build()
    cohort.report.other_files.append("caf\udce9.txt")  # as os.fsdecode gives Latin-1 bytes
    assert "caf\\udce9.txt" in look(cohort).text


def test_a_synthetic_cohort_is_stamped(clinic, look):
    clinic.manifest["synthetic"] = True
    assert "SYNTHETIC DATA: no patient stands behind it" in look(clinic.build()).text


def test_a_table_without_images(clinic, look):
    del clinic.manifest["images"]
    clinic.images = {}
    page = look(clinic.build())
    assert "There are no radiographs" in page.text
    assert not page.all("img")
    assert "median [quartiles] 60 [52 to 68]" in page.text


def test_images_without_a_table(clinic, look):
    del clinic.manifest["table"]
    clinic.manifest["columns"] = {}
    clinic.manifest["label"] = {}
    clinic.rows = [{"nothing": 0}]
    manifest = Manifest.model_validate(clinic.manifest)
    clinic.manifest["table"] = {"file": "unused.csv", "id": "nothing"}
    clinic.write()
    page = look(build_cohort(manifest, clinic.root))
    assert "There are no clinical columns." in page.text
    assert len(page.all("img")) == 2 * 6


def test_rows_without_a_label_are_a_class_of_their_own(clinic, look):
    for row in clinic.rows[:1]:
        row["Diagnosis"], row["T-score"] = None, None
    clinic.manifest["images"] = {"layout": "folder"}
    page = look(clinic.build(need_labels=False))
    assert "unlabelled (1)" in page.text
    assert "always low BMD is right in 80 %" in page.text  # of the five that have one


def test_two_sites_are_told_apart(clinic, look):
    first = Manifest.model_validate(clinic.manifest | {"site": "north"})
    second = Manifest.model_validate(clinic.manifest | {"name": "other", "site": "south"})
    clinic.write()
    (clinic.root / "normal" / "extra.png").write_bytes(clinic.radiograph("extra"))
    page = look(build_cohort([first, second], [clinic.root, clinic.root]))
    assert "north 6 2 (33 %) 2 (33 %) 2 (33 %)" in page.text
    assert "all radiographs 12 4 (33 %)" in page.text
    assert page.text.count("images without a row: 1") == 2  # one a site
    assert "6 films are there more than once" in page.text  # both sites have them


def test_subjects_count_once_in_table_one(clinic, look):
    clinic.manifest["images"]["id_pattern"] = "([A-Z][0-9])"
    for name in ("A1_left", "A1_right"):
        clinic.images[f"normal/{name}.png"] = clinic.radiograph(name)
    page = look(clinic.build())
    assert "all radiographs 8 4 (50 %)" in page.text
    assert "all subjects 6 2 (33 %)" in page.text
    assert "normal n = 2" in page.text


def test_the_command_writes_the_page_whole_or_not_at_all(clinic, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    arguments = ["cohort", "--manifest", str(clinic.write()), "--root", str(clinic.root)]
    assert main([*arguments, "--html", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["joined"] == 6
    assert "A clinic" in Page(page.read_text(encoding="utf-8")).text
    assert list(page.parent.iterdir()) == [page]
    assert main([*arguments, "--html", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_table_one_agrees_with_counting_by_hand(knees):
    cohort, _ = knees
    lines = {
        (variable.name, line.name): line.cells
        for variable in table_one(cohort.table, cohort.manifest)
        for line in variable.lines
    }
    normal = cohort.table[cohort.table["label"] == "normal"]
    women = normal[normal["female"] == 1]
    assert lines["age", "mean (SD)"][1] == f"{normal['age'].mean():.0f} ({normal['age'].std():.0f})"
    assert lines["female", "yes"][1] == f"{len(women)} ({100 * len(women) / 36:.1f} %)"
    gaps = women["menopause_age"].isna().sum()
    assert lines["menopause age", "missing"][1] == f"{gaps} of {len(women)}"  # not of the men
    low, middle, high = np.percentile(normal["bmi"].dropna(), [25, 50, 75])
    assert lines["bmi", "median [quartiles]"][1] == f"{middle:.1f} [{low:.1f} to {high:.1f}]"
    jobs = sum(
        int(cells[0].split()[0])
        for (name, line), cells in lines.items()
        if name == "occupation" and line != "missing"
    )  # rare words are pooled, not lost
    assert jobs == cohort.table["occupation"].notna().sum()
    outcomes = {v.name for v in table_one(cohort.table, cohort.manifest) if v.outcome}
    assert outcomes == {"t score", "z score"}


def test_missing_cells_that_differ_by_class_come_first(knees):
    cohort, _ = knees
    first, *others = missing_by_class(cohort.table, ["age", "menopause_age"], cohort.manifest)
    assert first.name == "menopause age"
    assert first.uneven
    assert first.cells == (
        "50 of 132 (38 %)",
        "17 of 19 (89 %)",
        "33 of 95 (35 %)",
        "0 of 18 (0 %)",
    )
    assert [other.uneven for other in others] == [False]


shares = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=30)


@given(shares, shares)
def test_the_difference_of_two_words_is_that_of_their_shares(one, other):
    p, q = np.mean(one), np.mean(other)
    spread = (p * (1 - p) + q * (1 - q)) / 2
    expected = abs(p - q) / math.sqrt(spread) if spread else (0.0 if p == q else math.inf)
    found = standardised_difference(pd.Series(one), pd.Series(other), numeric=False)
    assert found == pytest.approx(expected)


numbers = st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=30)


@given(numbers, numbers, st.sampled_from([1e-6, 0.01, 100.0]))
def test_the_difference_of_numbers_has_no_unit_and_no_direction(one, other, scale):
    one, other = pd.Series(one), pd.Series(other)
    found = standardised_difference(one, other, numeric=True)
    assert found == standardised_difference(other, one, numeric=True)
    scaled = standardised_difference(scale * one, scale * other, numeric=True)
    assert scaled == pytest.approx(found, rel=1e-4, abs=1e-6)
    assert standardised_difference(one, one, numeric=True) == 0


def test_the_difference_of_many_words_sees_each_of_them():
    one, other = pd.Series(list("aabbcc")), pd.Series(list("aabbbb"))
    assert standardised_difference(one, one, numeric=False) == 0
    assert 0 < standardised_difference(one, other, numeric=False) < math.inf
    assert (
        standardised_difference(pd.Series(["a"] * 3), pd.Series(["b"] * 3), numeric=False)
        == math.inf
    )


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=400))
def test_a_contact_sheet_is_spread_evenly_over_its_kind(kinds):
    sheets = contact_sheets(pd.Series(kinds, dtype="category"))
    assert [sheet.title for sheet in sheets] == sorted(set(kinds))
    for sheet in sheets:
        own = [i for i, kind in enumerate(kinds) if kind == sheet.title]
        assert sheet.films == len(own)
        assert len(sheet.chosen) == min(MOST_FILMS, len(own))
        places = [own.index(i) for i in sheet.chosen]
        gaps = np.diff([-1, *places, len(own)])[1:-1]
        assert (gaps > 0).all()
        assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert sheets == contact_sheets(pd.Series(kinds, dtype="category"))


def test_rare_sizes_and_families_are_pooled(tmp_path):
    files = []

    def add(count, width, suffix, mode):
        for _ in range(count):
            files.append(tmp_path / f"{len(files)}{suffix}")
            Image.new(mode, (width, 20)).save(files[-1])

    add(6, 30, ".png", "L")
    add(7, 30, ".jpg", "RGB")
    add(3, 41, ".png", "L")
    add(3, 42, ".png", "L")
    add(2, 30, ".tif", "L")
    (tmp_path / "odd").write_bytes(b"no picture")
    families = acquisition_families([*files, tmp_path / "odd"])
    assert families.value_counts(sort=False).to_dict() == {
        "JPEG RGB .jpg, 30 x 20": 7,
        "PNG gray .png, 30 x 20": 6,
        "PNG gray .png, other sizes": 6,
        "any other": 3,
    }
    assert families.cat.categories[-1] == "any other"


def test_dicom_films_have_families_too(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    data = Path(pydicom.data.get_testdata_file("CT_small.dcm")).read_bytes()
    for i in range(5):
        (tmp_path / f"{i}").write_bytes(data)
    families = acquisition_families(sorted(tmp_path.iterdir()))
    assert set(families) == {"DICOM MONOCHROME2 16 bit no suffix, 128 x 128"}


@pytest.mark.parametrize(
    ("root", "text", "expected"),
    [
        ("/home/ann/knees", "radiograph /home/ann/knees/a.png: empty", "radiograph a.png: empty"),
        ("/home/ann/knees", "cannot list /home/ann/knees: no", "cannot list the folder: no"),
        ("/home/ann/knees", "/home/ann/knees2/a.png", "/home/ann/knees2/a.png"),
        ("a", "radiograph a/extra/b.png", "radiograph extra/b.png"),
        (".", "radiograph a/b.png is no picture.", "radiograph a/b.png is no picture."),
    ],
)
def test_folders_are_cut_off_messages(root, text, expected):
    assert without_folders(text, [Path(root)]) == expected


def test_copies_that_contradict_each_other_come_first(knees):
    cohort, _ = knees
    groups = copy_groups(cohort.table, cohort.manifest)
    assert [group.conflicting for group in groups] == [True] * 7 + [False] * 14
    subjects = cohort.table["subject_id"]
    shown = {tuple(subjects[group.rows]): group for group in groups}
    film = shown["N15", "OP73"]
    assert film.facts == [["34", "no"], ["75", "no"]]
    assert film.differs == ["age"]


cells = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 3))
text = st.one_of(st.none(), st.text(max_size=6))
rows = st.lists(
    st.tuples(st.text(min_size=1, max_size=5), st.sampled_from([*LABELS, None]), cells, text),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows, st.text(min_size=1, max_size=8).filter(lambda name: name not in ("label", "site")))
def test_any_table_gives_a_page(tmp_path, rows, name):
    columns = {
        name: {"kind": "numeric", "unit": name},
        f"{name} again": {"kind": "categorical"},
    }
    manifest = Manifest.model_validate(
        {
            **dict.fromkeys(("title", "region", "license", "citation"), name),
            "name": name,
            "table": {"file": "table.csv", "id": "id"},
            "label": {"column": "label"},
            "columns": columns,
        }
    )
    ids, labels, numbers, words = zip(*rows, strict=True)
    table = pd.DataFrame({"subject_id": ids, "image": "", "image_sha256": "", "group": 0})
    table = table.assign(site="here", region="knee", label=pd.Series(labels, dtype=object))
    table[name] = pd.Series(numbers, dtype=np.float64)
    table[f"{name} again"] = pd.Series(words, dtype=object)
    report = JoinReport.of(manifest, tmp_path)
    path = tmp_path / "page.html"
    write_page(Cohort(table, manifest, {"here": tmp_path}, report), path)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("h1")) == 1
    assert re.search(r"all rows \d", page.text)
