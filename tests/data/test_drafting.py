# ruff: noqa: RUF001
"""Manifests drafted from foreign tables: what is found by looking, up to the cohort."""

from __future__ import annotations

import numpy as np
import openpyxl
import pytest
from PIL import Image

from osteofusion.data.cohort import build_cohort
from osteofusion.data.drafting import draft_manifest
from osteofusion.data.manifest import load_manifest
from osteofusion.errors import CohortError

N = 40
RNG = np.random.default_rng(0)


def png(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (24, 20), dtype=np.uint8)).save(path)


def dicom(path, **facts):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    film = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = "DX", "MONOCHROME2", 1
    film.Rows, film.Columns = 24, 20
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    for name, value in facts.items():
        setattr(film, name, value)
    film.PixelData = RNG.integers(0, 4096, (24, 20), dtype=np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)


GERMAN = {
    "encoding": "cp1252",
    "headers": ["Lfd. Nr.", "Fallnummer", "Geschlecht", "Alter (Monate)", "Größe [cm]", "Gewicht",
                "Raucher", "Menopausenalter", "Frühere Brüche", "T-Wert", "Bisphosphonate",
                "Befund"],
    "sex": ("w", "m"),
    "answers": ("ja", "nein"),
    "labels": {"normal": "Normalbefund", "osteopenia": "Osteopenie", "osteoporosis": "Osteoporose"},
    "none": "keine",
}  # fmt: skip
POLISH = {
    "encoding": "cp1250",
    "headers": ["Lp.", "Numer pacjenta", "Płeć", "Wiek (miesiące)", "Wzrost (cm)", "Masa ciała",
                "Palenie", "Wiek menopauzy", "Przebyte złamania", "Wskaźnik T", "Alendronian",
                "Rozpoznanie"],
    "sex": ("kobieta", "mężczyzna"),
    "answers": ("tak", "nie"),
    "labels": {"normal": "norma", "osteopenia": "osteopenia", "osteoporosis": "osteoporoza"},
    "none": "brak",
}  # fmt: skip
TURKISH = {
    "encoding": "cp1254",
    "headers": ["Sıra", "Hasta No", "Cinsiyet", "Yaş (ay)", "Boy (cm)", "Kilo", "Sigara",
                "Menopoz yaşı", "Kırık öyküsü", "T skoru", "Denosumab", "Tanı"],
    "sex": ("K", "E"),
    "answers": ("evet", "hayır"),
    "labels": {"normal": "normal", "osteopenia": "osteopeni", "osteoporosis": "osteoporoz"},
    "none": "yok",
}  # fmt: skip


def comma(value, digits=1):
    return f"{value:.{digits}f}".replace(".", ",")


def rows_of(language, n=N, seed=1):
    """Rows of text as a clinic exports them, and the truth behind them."""
    rng = np.random.default_rng(seed)
    rows, truth = [language["headers"]], []
    wordings = ["Handgelenk", "Wirbel", "Hüfte li.", "Hüfte re.", "Rippe", "Oberarm", "Knöchel"]
    if language["encoding"] != "cp1252":
        wordings = ["ręka", "kręg", "biodro l.", "biodro p.", "żebro", "noga", "kostka"]
    if language["encoding"] == "cp1254":
        wordings = ["bilek", "omurga", "kalça sağ", "kalça sol", "kaburga", "kol", "ayak bileği"]
    for i in range(1, n + 1):
        score = float(rng.normal(-1.6, 1.2))
        label = "normal" if score >= -1 else "osteoporosis" if score <= -2.5 else "osteopenia"
        # The score as written decides, as in a clinic's table.
        score = round(min(max(score, -5), 3), 1)
        label = "normal" if score >= -1 else "osteoporosis" if score <= -2.5 else "osteopenia"
        female = bool(rng.random() < 0.6)
        age, height = int(rng.integers(40, 85)), float(rng.uniform(150, 190))
        fracture = wordings[i % len(wordings)] if rng.random() < 0.5 else language["none"]
        yes, no = language["answers"]
        rows.append(
            [str(i), f"{i * 7:05d}", language["sex"][0 if female else 1], str(age * 12 + i % 12),
             comma(height), comma(rng.uniform(50, 95)), yes if rng.random() < 0.3 else no,
             str(int(rng.integers(44, 55))) if female and rng.random() < 0.8 else "", fracture,
             comma(score), yes if label == "osteoporosis" else no, language["labels"][label]]
        )  # fmt: skip
        truth.append({"id": str(i * 7), "female": female, "height": height / 100, "label": label})
    return rows, truth


def clinic(folder, language, n=N):
    """A semicolon CSV and a folder of PNG and DICOM named `knee_7_L`, `knee_14_L` ..."""
    rows, truth = rows_of(language, n)
    text = "\r\n".join(";".join(row) for row in rows) + "\r\n"
    (folder / "Patienten.csv").write_bytes(text.encode(language["encoding"]))
    for i, subject in enumerate(truth):
        name = f"knee_{subject['id']}_L"
        if i % 3:
            png(folder / "films" / f"{name}.png")
        else:
            sex = "F" if subject["female"] else "M"
            dicom(folder / "films" / f"{name}.dcm", PatientSex=sex, PatientAge="060Y")
    return truth


@pytest.mark.parametrize("language", [GERMAN, POLISH, TURKISH], ids=lambda each: each["encoding"])
def test_a_foreign_table_beside_films_needs_no_edit(tmp_path, language):
    truth = clinic(tmp_path, language)
    draft = draft_manifest(tmp_path / "films", tmp_path / "Patienten.csv")
    file = tmp_path / "drafted.yaml"
    file.write_text(draft.text, encoding="utf-8")
    manifest = load_manifest(file)
    assert manifest == draft.manifest
    assert draft.problem is None
    assert manifest.region == "knee"
    table = manifest.table
    assert (table.delimiter, table.decimal, table.encoding) == (";", ",", language["encoding"])
    roles = {name: column.role for name, column in manifest.columns.items()}
    kinds = {name: column.kind for name, column in manifest.columns.items()}
    assert [name for name in roles if roles[name] == "outcome"] == ["t_score", "treatment"]
    features = ["female", "age", "height", "weight", "smoker", "menopause_age", "fracture_history"]
    assert manifest.features == features
    assert kinds["fracture_history"] == "presence"
    assert kinds["female"] == kinds["smoker"] == "binary"
    cohort = build_cohort(manifest, tmp_path)
    assert cohort.report.joined == N
    assert not cohort.report.unparsable_cells
    assert not cohort.report.images_without_row
    joined = cohort.table.set_index("subject_id").loc[[each["id"] for each in truth]]
    assert joined["label"].tolist() == [each["label"] for each in truth]
    assert joined["female"].tolist() == [float(each["female"]) for each in truth]
    assert joined["age"].between(40, 86).all()
    np.testing.assert_allclose(joined["height"], [each["height"] for each in truth], atol=1e-3)


def table(path, rows, delimiter=",", encoding="utf-8"):
    text = "\n".join(delimiter.join(map(str, row)) for row in rows) + "\n"
    path.write_bytes(text.encode(encoding))
    return path


def labelled(ids, header="id", **columns):
    """Rows with an ID and a label column, and more columns."""
    labels = ["normal", "osteopenia", "osteoporosis"]
    rows = [[header, *columns, "diagnosis"]]
    for i, identifier in enumerate(ids):
        rows.append([identifier, *(cells[i] for cells in columns.values()), labels[i % 3]])
    return rows


def drafted(tmp_path, names, rows, **options):
    for name in names:
        png(tmp_path / "films" / name)
    return draft_manifest(tmp_path / "films", table(tmp_path / "t.csv", rows, **options))


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["A1", "A2", "B1", "B2"], ["A1.png", "A2.png", "B1.png", "B2.png"]),
        (["7", "12", "104"], ["0007.png", "0012.png", "0104.png"]),
        (["007", "012", "104"], ["7.png", "12.png", "104.png"]),
        (["007", "012", "104"], ["00007.png", "00012.png", "00104.png"]),
        (["P-007", "P-012", "P-104"], ["knee_7_L.png", "knee_12_R.png", "knee_104_L.png"]),
        (["P-007", "P-012", "P-104"], ["P-007_L.png", "P-012_R.png", "P-104_L.png"]),
        (["12", "13", "104"], ["site3_0012_L.png", "site3_0013_L.png", "site3_0104_R.png"]),
        (["12", "13", "104"], ["12_L.png", "12_R.png", "13-1.png", "104 (2).png"]),
        (["AB12", "CD13", "EF14"], ["scan.AB12.png", "scan.CD13.png", "scan.EF14.png"]),
        (["HOSP-AB", "HOSP-CX", "HOSP-DZ"], ["AB.png", "CX.png", "DZ.png"]),
        (["p1", "p2", "p3"], ["P001.png", "P002.png", "P003.png"]),
        (["films/12.png", "films/13.png", "films/14.png"], ["12.png", "13.png", "14.png"]),
        (["12.png", "13.png", "14.png"], ["12.png", "13.png", "14.png"]),
        (["1.0", "2.0", "30.0"], ["1.png", "02.png", "30.png"]),
        (["Öz 1", "Šá 2", "李 3"], ["Öz 1.png", "Šá 2.png", "李 3.png"]),
    ],
)
def test_ids_meet_file_names(tmp_path, ids, names):
    draft = drafted(tmp_path, names, labelled(ids))
    assert draft.problem is None
    cohort = build_cohort(draft.manifest, tmp_path)
    assert cohort.report.joined == len(names)
    assert cohort.report.subjects == len(ids)
    assert not cohort.report.rows_without_image


def test_a_running_number_is_not_taken_for_the_id(tmp_path):
    ids = [f"N{i}" for i in range(1, 6)] + [f"OP{i}" for i in range(1, 6)]
    rows = labelled(ids, number=range(1, 11))
    draft = drafted(tmp_path, [f"{each}.png" for each in ids], rows)
    assert draft.manifest.table.id == "id"
    assert draft.manifest.columns["number"].role == "identifier"


def test_ids_that_differ_in_case_alone_are_told(tmp_path):
    draft = drafted(tmp_path, ["ab.png", "cd.png", "EF.png"], labelled(["AB", "CD", "EF"]))
    assert "2 more would match but for case" in " ".join(draft.text.replace("#", "").split())


def test_of_several_sheets_the_one_with_the_ids_is_taken(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Legend"
    for row in [["code", "meaning"], ["a", "b"], ["c", "d"], ["e", "f"]]:
        book.active.append(row)
    for title, ids in (("Old", ["A9"]), ("Data", ["A1", "A2", "A3"])):
        sheet = book.create_sheet(title)
        for row in labelled(ids):
            sheet.append(row)
    book["Old"].sheet_state = "hidden"
    book.save(tmp_path / "t.xlsx")
    for name in ("A1.png", "A2.png", "A3.png"):
        png(tmp_path / "films" / name)
    draft = draft_manifest(tmp_path / "films", tmp_path / "t.xlsx")
    assert draft.manifest.table.sheet == "Data"
    assert "hidden: 'Old'" in draft.text
    assert build_cohort(draft.manifest, tmp_path).report.joined == 3


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("utf-8", "Größe"),
        ("utf-8-sig", "Größe"),
        ("utf-16", "Größe"),
        ("cp1252", "Größe"),
        ("cp1252", "Età, età, però, già"),
        ("cp1252", "Âge, né, déjà opéré, sœur"),
        ("cp1250", "Płeć, Wzrost, wysokość, źródło"),
        ("cp1250", "Věk, Výška, žádné léky, příjmení"),
        ("iso8859_2", "Płeć, wysokość, źródło, świeży ślad"),
        ("cp1254", "Yaş, Ağırlık, kırık öyküsü, doğum"),
        ("cp1251", "Возраст, Пол, Рост, Диагноз"),
        ("cp1253", "Ηλικία, Ύψος, Βάρος"),
        ("gb18030", "年龄, 身高, 体重"),
    ],
)
def test_the_encoding_is_the_one_that_makes_words(tmp_path, encoding, word):
    rows = labelled(["A", "B", "C"], **{word.replace(", ", " "): ["x", "y", "z"]})
    draft = drafted(tmp_path, ["A.png", "B.png", "C.png"], rows, encoding=encoding)
    headers = {column.header for column in draft.manifest.columns.values()}
    assert headers == {word.replace(", ", " ")}
    assert draft.problem is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_makes_columns(tmp_path, delimiter):
    rows = labelled(["A", "B", "C"], weight=["70.5", "62.25", "80"])
    draft = drafted(tmp_path, ["A.png", "B.png", "C.png"], rows, delimiter=delimiter)
    assert (draft.manifest.table.delimiter or ",") == delimiter
    assert draft.manifest.columns["weight"].kind == "numeric"


IDS = [f"A{i}" for i in range(24)]


def column(tmp_path, header, cells):
    """The entry and the text of a draft with one more column."""
    cells = [cells[i % len(cells)] for i in range(len(IDS))]
    rows = labelled(IDS, **{header: cells, "BMI": ["21.5", "30.1", "25.3", "27.1"] * 6})
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows, delimiter=";")
    assert len(draft.manifest.columns) == 2
    name, entry = next(iter(draft.manifest.columns.items()))
    assert draft.problem is None
    return name, entry, draft.text


@pytest.mark.parametrize(
    ("header", "cells", "name", "unit", "scale"),
    [
        ("height", ["170", "181", "165", "158"], "height", "m", 0.01),
        ("height (m)", ["1.70", "1.81", "1.65"], "height", "m", 1.0),
        ("height (m)", ["170", "181", "165"], "height", "m", 0.01),
        ("Height in", ["67", "70", "62"], "height", "m", 0.0254),
        ("taille_cm", ["170", "181", "165"], "height", "m", 0.01),
        ("Körpergröße in cm", ["170", "181", "165"], "height", "m", 0.01),
        ("Weight (lbs)", ["150", "181", "165"], "weight", "kg", 0.45359237),
        ("PatientWeight", ["70", "81", "65"], "weight", "kg", 1.0),
        ("poids (kg)", ["70", "81", "65"], "weight", "kg", 1.0),
        ("Edad (meses)", ["700", "810", "650"], "age", "years", 1 / 12),
        ("Возраст", ["70", "81", "65"], "age", "years", 1.0),
        ("âge", ["70", "81", "65"], "age", "years", 1.0),
        ("Indice masa corporal (kg/m2)", ["27.5", "21.4"], "indice_masa_corporal", "kg/m2", 1.0),
        ("Walking distance (km)", ["1", "2.5", "10"], "walking_distance", "km", 1.0),
    ],
)
def test_units_come_from_header_and_size(tmp_path, header, cells, name, unit, scale):
    found, entry, _ = column(tmp_path, header, cells)
    assert (found, entry.kind, entry.unit) == (name, "numeric", unit)
    assert entry.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["yes", "no"], {}),
        (["Y", "N"], {}),
        (["1", "0"], {}),
        (["TRUE", "FALSE"], {}),
        (["Ja", "Nein"], {"ja": 1, "nein": 0}),
        (["oui", "non"], {"oui": 1, "non": 0}),
        (["sí", "no"], {"sí": 1, "no": 0}),
        (["sim", "não"], {"sim": 1, "não": 0}),
        (["tak", "nie"], {"tak": 1, "nie": 0}),
        (["evet", "hayır"], {"evet": 1, "hayır": 0}),
        (["да", "нет"], {"да": 1, "нет": 0}),
        (["+", "-"], {"+": 1, "-": 0}),
        (["是", "否"], {"是": 1, "否": 0}),
    ],
)
def test_yes_and_no_in_many_languages(tmp_path, words, values):
    name, entry, _ = column(tmp_path, "asthma", words)
    assert (name, entry.kind, entry.values) == ("asthma", "binary", values)
    parsed = build_cohort(load_text(tmp_path), tmp_path).table["asthma"]
    assert sorted(parsed.unique()) == [0.0, 1.0]


def load_text(folder):
    draft = draft_manifest(folder / "films", folder / "t.csv")
    (folder / "m.yaml").write_text(draft.text, encoding="utf-8")
    return load_manifest(folder / "m.yaml")


@pytest.mark.parametrize(
    ("header", "words", "female"),
    [
        ("Gender", ["male", "female"], "female"),
        ("Geschlecht", ["m", "w"], "w"),
        ("x", ["M", "F"], "f"),
        ("Sexe", ["H", "F"], "f"),
        ("Sexo", ["H", "M"], "m"),
        ("Płeć", ["mężczyzna", "kobieta"], "kobieta"),
        ("Cinsiyet", ["E", "K"], "k"),
        ("Пол", ["муж.", "жен."], "жен."),
        ("性别", ["男", "女"], "女"),
    ],
)
def test_sex_becomes_female(tmp_path, header, words, female):
    name, entry, _ = column(tmp_path, header, words)
    assert (name, entry.kind) == ("female", "binary")
    assert entry.values[female] == 1
    assert sum(entry.values.values()) == 1


@pytest.mark.parametrize(("header", "female"), [("male", 0), ("weiblich", 1)])
def test_a_header_may_say_which_sex_is_one(tmp_path, header, female):
    name, entry, _ = column(tmp_path, header, ["1", "0"])
    assert name == "female"
    assert entry.values == {"1": female, "0": 1 - female}


def test_codes_of_the_sex_are_not_guessed(tmp_path):
    name, entry, text = column(tmp_path, "sex", ["1", "2"])
    assert (name, entry.kind, entry.role) == ("sex", "categorical", "feature")
    assert "if you know them" in text


@pytest.mark.parametrize(
    ("header", "cells", "kind", "role", "told"),
    [
        ("T-Score LWS", ["-2.5", "-1", "0.3"], "numeric", "outcome", "defines the label"),
        ("BMD (g/cm2)", ["0.8", "0.95", "1.1"], "numeric", "outcome", "bone status"),
        ("FRAX", ["8.5", "12", "3"], "numeric", "outcome", "label"),
        ("Alendronate", ["yes", "no", "no"], "binary", "outcome", "treatment"),
        ("Vitamin D intake", ["yes", "no", "no"], "binary", "outcome", "because of the diagnosis"),
        ("Family history of osteoporosis", ["yes", "no"], "binary", "feature", ""),
        ("date of film", ["2020-01-05", "2021-03-04"], "text", "ignored", "dates"),
        ("date of birth", ["01.02.1950", "13.04.1961"], "text", "ignored", "identify a patient"),
        ("Name", ["Meier A.", "Huber, B."], "text", "ignored", "may name a person"),
        ("blood group", ["A", "B", "0", "AB", "A"], "categorical", "feature", "'a', 'b'"),
        ("ward", ["3b"], "categorical", "ignored", "'3b' in every row"),
        ("notes", [f"came {i} times, fell {i * 7}" for i in range(24)], "text", "ignored", "24 "),
        ("x ray", ["", ""], "text", "ignored", "empty"),
        ("weight", [*["70", "80", "k.A."] * 5, "ca. 80"], "numeric", "feature", "'ca. 80'"),
        ("crp", ["1,5", "2,25", "0,3", "12,1", "4"], "numeric", "ignored", "decimal mark is not"),
    ],
)  # fmt: skip
def test_kinds_and_roles(tmp_path, header, cells, kind, role, told):
    _, entry, text = column(tmp_path, header, cells)
    assert (entry.kind, entry.role) == (kind, role)
    assert told in " ".join(line.removeprefix("  # ") for line in text.splitlines())


def test_numbers_that_a_spreadsheet_made_dates_are_told(tmp_path):
    import datetime

    book = openpyxl.Workbook()
    cells = [datetime.datetime(2021, 5, 1) if i == 7 else 20 + i / 2 for i in range(24)]
    for row in labelled(IDS, bmi=cells):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    for each in IDS:
        png(tmp_path / "films" / f"{each}.png")
    draft = draft_manifest(tmp_path / "films", tmp_path / "t.xlsx")
    assert draft.manifest.columns["bmi"].kind == "numeric"
    assert "1 are dates" in draft.text
    report = build_cohort(draft.manifest, tmp_path).report
    assert [cell.row for cell in report.unparsable_cells] == [9]


def test_equal_columns_are_told_and_used_once(tmp_path):
    rows = labelled(IDS, weight=range(50, 74), kilos=range(50, 74))
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert [column.role for column in draft.manifest.columns.values()] == ["feature", "ignored"]
    assert "the same cells as 'weight'" in draft.text


def test_what_separates_the_label_is_no_feature(tmp_path):
    marker = [[1.0, 2.0, 3.0][i % 3] + i / 100 for i in range(24)]
    rows = labelled(IDS, marker=marker, weight=[60 + i % 7 for i in range(24)])
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert draft.manifest.columns["marker"].role == "outcome"
    assert "AUROC 1.000" in draft.text
    assert draft.manifest.features == ["weight"]


def coded(scores=None, header="class"):
    cells = [i % 3 for i in range(24)]
    rows = [["id", header, *(["T-score"] if scores else [])]]
    return rows + [[each, cells[i], *([scores[i]] if scores else [])] for i, each in enumerate(IDS)]


def test_codes_of_the_label_are_proposed_and_not_taken(tmp_path):
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], coded())
    assert draft.manifest.label.column == "class"
    assert not draft.manifest.label.values
    assert "Unknown label '0'" in draft.problem
    # As the comment says: delete the # of the next line.
    assert '  # values: { "0": normal, "1": osteopenia, "2": osteoporosis }' in draft.text
    (tmp_path / "m.yaml").write_text(draft.text.replace("# values:", "values:"))
    labels = build_cohort(tmp_path / "m.yaml", tmp_path).report.by_label
    assert labels == {"normal": 8, "osteopenia": 8, "osteoporosis": 8}


def test_codes_are_taken_where_t_scores_prove_them(tmp_path):
    scores = [[-3.1, -0.2, -1.7][i % 3] for i in range(24)]
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], coded(scores))
    meaning = {"0": "osteoporosis", "1": "normal", "2": "osteopenia"}
    assert draft.manifest.label.values == meaning
    assert draft.manifest.label.t_score == "t_score"
    assert draft.problem is None


def test_a_t_score_alone_is_a_label(tmp_path):
    rows = [["id", "T-Wert"], *([each, [-3, 0, -2][i % 3]] for i, each in enumerate(IDS))]
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert draft.manifest.label.t_score == "t_score"
    assert draft.problem is None


def test_a_label_that_nobody_knows_is_missing(tmp_path):
    rows = labelled(IDS, age=[50 + i % 9 for i in range(24)])
    rows[3][-1], rows[4][-1] = "k.A.", "-"
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert draft.problem is None
    report = build_cohort(draft.manifest, tmp_path).report
    assert (report.joined, report.rows_without_label) == (22, ["A2", "A3"])


def test_a_label_we_do_not_know_is_to_be_edited(tmp_path):
    rows = labelled(IDS, age=[50 + i % 9 for i in range(24)])
    rows[3][-1] = "severe"
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert "Unknown label 'severe'" in draft.problem
    assert "'severe' in this column: give each its class under values" in draft.text


def test_without_a_label_the_draft_says_what_to_bring(tmp_path):
    rows = [["id", "age"], *([each, 50 + i] for i, each in enumerate(IDS))]
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert "bring a CSV" in draft.problem
    table(tmp_path / "films" / ".." / "labels.csv", labelled(IDS, header="id"))
    lines = (tmp_path / "labels.csv").read_text().replace("diagnosis", "label")
    (tmp_path / "labels.csv").write_text(lines)
    assert build_cohort(draft.manifest, tmp_path).report.joined == 24


@pytest.mark.parametrize(
    "folders",
    [
        ("normal", "osteopenia", "osteoporosis"),
        ("Normal", "OSTEOPENIA", "Osteoporosis"),
        ("1. Normalbefund", "2. Osteopenie", "3. Osteoporose"),
        ("knees/Healthy", "knees/Osteopenic", "knees/Osteoporotic"),
        ("Норма", "Остеопения", "Остеопороз"),
    ],
)
def test_class_folders_alone(tmp_path, folders):
    for i in range(6):
        png(tmp_path / folders[i % 3] / f"{i}.png")
    draft = draft_manifest(tmp_path, None)
    assert draft.problem is None
    assert draft.manifest.table is None
    labels = build_cohort(draft.manifest, tmp_path).report.by_label
    assert labels == {"normal": 2, "osteopenia": 2, "osteoporosis": 2}


def test_coded_folders_are_told_and_not_taken(tmp_path):
    for i in range(6):
        png(tmp_path / "films" / str(i % 3) / f"{i}.png")
    draft = draft_manifest(tmp_path / "films", None)
    assert draft.manifest.images.layout == "folder"
    assert "EDIT: if the folders '0', '1', '2' are classes" in draft.text
    assert "Label file" in draft.problem


def test_a_scanner_s_number_is_no_patient_s(tmp_path):
    """Files IM1 to IM24 of patients P24 to P1: the numbers meet, and mean others."""
    ids = [f"P{i}" for i in range(1, 25)]
    for i, patient in enumerate(reversed(ids), start=1):
        dicom(tmp_path / "films" / f"IM{i}", PatientID=patient)
    dicom(tmp_path / "films" / "IM99")  # a phantom, without an ID
    draft = draft_manifest(tmp_path / "films", table(tmp_path / "t.csv", labelled(ids)))
    assert draft.manifest.images.id == "header"
    assert draft.manifest.images.id_pattern == "(.+)"


def test_a_flat_folder_of_dicom_alone(tmp_path):
    for i in range(4):
        dicom(tmp_path / "films" / f"{i}.dcm", PatientSex="F", PatientAge="061Y")
    draft = draft_manifest(tmp_path / "films", None)
    assert draft.manifest.columns["age"].dicom == "age"
    assert draft.manifest.columns["female"].dicom == "female"
    assert "bring a CSV" in draft.problem


def test_the_patient_id_of_dicom_headers_may_be_the_id(tmp_path):
    ids = ["A12", "B7", "C9"]
    for i, each in enumerate(ids):
        dicom(tmp_path / "films" / f"IM{i:04d}", PatientID=each)
    draft = draft_manifest(tmp_path / "films", table(tmp_path / "t.csv", labelled(ids)))
    assert draft.manifest.images.id == "header"
    assert draft.problem is None
    assert build_cohort(draft.manifest, tmp_path).report.joined == 3


def test_a_table_alone(tmp_path):
    rows = labelled(IDS, age=[50 + i % 9 for i in range(24)])
    draft = draft_manifest(None, table(tmp_path / "t.csv", rows))
    assert draft.manifest.images is None
    assert draft.manifest.table.id == "id"
    assert draft.problem is None
    assert build_cohort(draft.manifest, tmp_path).report.joined == 24


def test_one_row_a_film_names_its_image(tmp_path):
    rows = [["patient", "film", "diagnosis"]]
    for i in range(6):
        png(tmp_path / "films" / f"x{i}.png")
        rows.append([f"P{i // 2}", f"films/x{i}.png", ["normal", "osteoporosis"][i // 2 % 2]])
    draft = draft_manifest(tmp_path / "films", table(tmp_path / "t.csv", rows))
    assert draft.manifest.images.layout == "column"
    assert draft.manifest.table.id == "patient"
    report = build_cohort(draft.manifest, tmp_path).report
    assert (report.joined, report.subjects) == (6, 3)


ODD = [
    "a: b",
    "# x",
    "{y}",
    "'q'",
    '"dq"',
    "yes",
    "null",
    "1.5",
    "- z",
    "Größe\nzwei",
    "&a",
    "%",
    "?",
]


def test_odd_headers_survive_yaml(tmp_path):
    book = openpyxl.Workbook()
    columns = {header: [f"{i % 5 + j}" for i in range(24)] for j, header in enumerate(ODD)}
    for row in labelled(IDS, **columns):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    for each in IDS:
        png(tmp_path / "films" / f"{each}.png")
    draft = draft_manifest(tmp_path / "films", tmp_path / "t.xlsx")
    (tmp_path / "m.yaml").write_text(draft.text, encoding="utf-8")
    assert load_manifest(tmp_path / "m.yaml") == draft.manifest
    report = build_cohort(tmp_path / "m.yaml", tmp_path).report
    assert not report.absent_columns
    assert not report.unmapped_columns


def test_a_header_given_twice_is_told(tmp_path):
    rows = [["id", "Age", "age ", "diagnosis"]]
    rows += [[each, 50 + i, 60 + i, ["normal", "osteopenia"][i % 2]] for i, each in enumerate(IDS)]
    draft = drafted(tmp_path, [f"{each}.png" for each in IDS], rows)
    assert not draft.manifest.columns
    assert "'Age' stand above several columns" in draft.text


def test_a_title_above_the_header_is_a_sentence(tmp_path):
    rows = [["Studie Osteo 2021"], [], ["id", "age", "diagnosis"], ["A1", 50, "normal"]]
    with pytest.raises(CohortError, match="first row is a title"):
        drafted(tmp_path, ["A1.png"], rows)


def test_the_draft_of_the_real_cohort_is_close_to_ours(mendeley):
    draft = draft_manifest(mendeley, mendeley / "patient details.xlsx").manifest
    ours = load_manifest("mendeley")
    assert (draft.label, draft.images, draft.table.id) == (ours.label, ours.images, ours.table.id)
    assert draft.region == "knee"
    shared = set(draft.columns) & set(ours.columns)
    shared -= {"obesity"}  # that it is BMI once more takes a person
    assert len(shared) >= 18
    for name in shared:
        one, other = draft.columns[name], ours.columns[name]
        assert (one.kind, one.role, one.unit) == (other.kind, other.role, other.unit), name
        assert (one.range, one.scale, one.at_most) == (other.range, other.scale, other.at_most)
        assert one.only_if == other.only_if
    cohort = build_cohort(draft, mendeley)
    assert cohort.report.joined == 239
