"""The patient report: real PDFs, read back."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from osteofusion.errors import ConfigError
from osteofusion.serving.description import (
    BandReached,
    BundleDescription,
    CalibrationDescription,
    FeatureDescription,
    OperatingPointDescription,
    PreprocessingDescription,
    Reached,
    TrainingDescription,
    TrainingValues,
    TriageDescription,
)
from osteofusion.serving.patient_report import patient_report_bytes
from osteofusion.serving.prediction import (
    Attribution,
    Call,
    ClinicalValue,
    Explanation,
    Prediction,
    QualityFlag,
)
from osteofusion.serving.report_graphics import RAISED, icon_array
from osteofusion.serving.report_texts import load_texts
from osteofusion.serving.report_words import number, people, percent

CREATED = datetime(2031, 4, 5, 6, 7, 8, tzinfo=timezone.utc)
STAMP = "TRAINED ON SYNTHETIC DATA"
FEATURES = [
    FeatureDescription(
        name="age",
        label="Age",
        kind="numeric",
        unit="years",
        range=(15, 105),
        train=TrainingValues(n=40, missing=0, low=35.38, median=53, high=77.86),
    ),
    FeatureDescription(
        name="bmi",
        label="Body mass index",
        kind="numeric",
        unit="kg/m2",
        train=TrainingValues(n=40, missing=0, low=20.8297, median=26.9598, high=36.4279),
    ),
    FeatureDescription(
        name="smoker",
        label="Smoker",
        kind="binary",
        train=TrainingValues(n=40, missing=0, counts={"no": 30, "yes": 10}),
    ),
    FeatureDescription(
        name="occupation",
        label="Occupation",
        kind="categorical",
        vocabulary=["farmer", "teacher"],
        train=TrainingValues(n=40, missing=0, counts={"farmer": 10, "teacher": 30}),
    ),
]
SENSITIVITY = Reached(value=0.64, low=0.35, high=0.85, n=11)
SPECIFICITY = Reached(value=0.8, low=0.38, high=0.96, n=5)
DESCRIPTION = BundleDescription(
    name="binary fused knee",
    version="1.2.3+abc",
    created="2031-01-01T00:00:00+00:00",
    task="binary",
    classes=["normal", "low_bmd"],
    positive="low BMD",
    arm="fused",
    regions=["knee"],
    features=FEATURES,
    preprocessing=PreprocessingDescription(size=64, clahe=True, pixel_spacing=None),
    clinical_baseline=[53, 26.9598, 0, 1],
    calibration=CalibrationDescription(
        slope=[1.0], intercept=[0.0], fitted_on="24 validation rows", n=24, note=None
    ),
    operating_points=[
        OperatingPointDescription(
            name="fixed_sensitivity",
            target=0.9,
            threshold=0.33,
            sensitivity=SENSITIVITY,
            specificity=SPECIFICITY,
            chosen_on="24 validation rows",
        ),
        OperatingPointDescription(
            name="youden",
            target=None,
            threshold=1.2,
            sensitivity=Reached(value=None, low=None, high=None, n=0),
            specificity=SPECIFICITY,
            chosen_on="24 validation rows",
        ),
    ],
    triage=TriageDescription(
        rule_out=0.33,
        rule_in=0.77,
        chosen_on="24 validation rows",
        reached={
            band: BandReached(of_low=SENSITIVITY, of_normal=SPECIFICITY)
            for band in ("rule_out", "dxa", "rule_in")
        },
    ),
    decision_note=None,
    cohort_prevalence=0.71,
    embedding=None,
    embedding_note="whether a radiograph is unlike those of training was not measured",
    saliency_note=None,
    intended_use="A screening aid for research; bone density is measured by DXA.",
    training=TrainingDescription(
        manifest=["mendeley"],
        citation="Wani and Arora 2021.",
        synthetic_what="",
        class_counts={"normal": 23, "low_bmd": 57},
        rows={"train": 39, "val": 24, "test": 16},
        checkpoint_sha256="c" * 64,
        initial_weights=None,
    ),
    versions={},
    files={},
)
VALUES = [
    ClinicalValue("age", "Age", 67.0, "years", "dicom", None, (35.38, 77.86)),
    ClinicalValue("bmi", "Body mass index", 42.79, "kg/m2", "form", "outside_training", (20.8, 36)),
    ClinicalValue("smoker", "Smoker", 1.0, None, "form"),
    ClinicalValue("occupation", "Occupation", None, None, "missing"),
]
PREDICTION = Prediction(
    label="normal",
    probabilities={"normal": 0.66, "low_bmd": 0.34},
    risk=0.34,
    band="dxa",
    calls=[Call("fixed_sensitivity", 0.33, True), Call("youden", 1.2, False)],
    image_present=True,
    clinical_present=True,
    values=VALUES,
    flags=[],
    model={"name": DESCRIPTION.name, "version": DESCRIPTION.version, "sha256": "5ea1" * 16},
)
FLAG = QualityFlag("unlike_training_images", "The radiograph is unlike the others.", "image")
FILM = np.full((60, 90), 90, dtype=np.uint8)
HOT = np.zeros((8, 8), dtype=np.float32)
HOT[3:5, :2] = 1  # on the left, half-way up
EXPLANATION = Explanation(
    attributions=[
        Attribution("bmi", -0.61, 0.48),
        Attribution("age", 0.3, 0.28),
        Attribution("smoker", 0.0, 0.34),
    ],
    modalities={"image": -0.42, "clinical": 0.713},
    saliency={"hirescam": 0 * HOT, "gradcam": HOT},
    radiograph=FILM,
)
NO_IMAGE = replace(EXPLANATION, modalities={}, saliency={}, radiograph=None)


def made(prediction=PREDICTION, explanation=EXPLANATION, description=DESCRIPTION, **changes):
    options = {"reference": None, "texts": load_texts(), "created": CREATED} | changes
    data = patient_report_bytes(prediction, explanation, description, **options)
    return PdfReader(io.BytesIO(data))


def said(report: PdfReader) -> str:
    """All text with single spaces."""
    return " ".join(" ".join(page.extract_text() for page in report.pages).split())


def with_description(**changes) -> BundleDescription:
    return DESCRIPTION.model_copy(update=changes)


def test_says_what_a_reader_must_know():
    report = made(reference="P-0412")
    text = said(report)
    assert len(report.pages) == 2
    for wanted in (
        "Reference: P-0412. Made on 2031-04-05 06:07 UTC",
        "Model: binary fused knee, version 1.2.3+abc, hash 5ea15ea15ea15ea1",
        "SHA-256 " + "5ea1" * 16,
        "Screening aid, not a diagnosis",
        "34 % risk of low bone density",
        "About 3 in 10 people with such findings have low bone density.",
        "of whom 71 % had low bone density",
        "Rule out: below 33 %",
        "DXA advised: 33 % to 77 %",
        "Rule in: from 77 %",
        "Recommendation: DXA advised",
        "Of test cases with low bone density, 64 % (35 % to 85 %; n = 11) fell into this band",
        "Most probable class: normal normal 66 % low BMD 34 %",
        "Age 67 years DICOM 35.4 to 77.9 53 years 28 % → 34 %",
        "⚠ unlike the training cases 42.79 kg/m² form 20.8 to 36 26.96 kg/m² 48 % → 34 %",
        "Smoker yes form no 34 % → 34 %",
        "Not given: Occupation.",
        "replaced by the baseline",
        "Radiograph lowered the risk, by 0.42",
        "Clinical values together raised the risk, by 0.71",
        "Made to find 90 % of cases called low BMD 33 % 64 % (35 % to 85 %; n = 11)",
        "Best balance (Youden) not called low BMD calls nobody not known: no such case",
        "those of the bands too, were chosen on 24 validation rows.",
        "Trained on 39 cases (knee; mendeley: Wani and Arora 2021)",
        "The figures are from 16 test cases",
        "Whether a radiograph is unlike those of training was not measured.",
        "Page 1 of 2",
    ):
        assert wanted in text, wanted
    assert "Be careful" not in text
    assert "warnings" not in text
    assert STAMP not in text
    assert text.index("Body mass index") < text.index("Age 67")  # largest effect first


def test_of_a_real_bundle(clinic_run, predictor):
    film = min((clinic_run / "demo" / "osteoporosis").iterdir())
    patient = predictor.read(film.read_bytes(), {"age": 71, "female": "yes", "weight": 48.5})
    prediction, explanation = predictor.predict(patient), predictor.explain(patient)
    report = made(prediction, explanation, predictor.description, reference=film.stem)
    text = said(report)
    assert len(report.pages) == 2
    assert len(report.pages[0].images) == 1 + bool(explanation.saliency)
    assert text.count(STAMP) == 2
    assert "SYNTHETIC DEMO DATA: no patient stands behind it." in text
    assert f"{percent(prediction.risk)} risk of low bone density".replace("\u00a0", " ") in text
    assert "71 years form" in text
    assert "48.5 kg form" in text
    assert prediction.model["sha256"] in text


def test_metadata_names_no_patient_and_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = made(reference="P-0412")
    assert report.metadata.title == "Bone density screening report"
    assert report.metadata.creation_date == CREATED
    assert report.trailer["/Root"]["/Lang"] == "en"
    assert "P-0412" not in str(report.metadata)
    assert str(tmp_path).encode() not in report.stream.getvalue()


def test_touches_no_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made()
    assert not list(tmp_path.rglob("*"))


def test_same_arguments_same_bytes_also_in_threads():
    def one(_):
        return made(reference="P").stream.getvalue()

    with ThreadPoolExecutor(4) as pool:
        alone, *together = [one(0), *pool.map(one, range(8))]
    assert all(each == alone for each in together)
    later = made(reference="P", created=CREATED + timedelta(minutes=1))
    assert later.stream.getvalue() != alone


def test_radiograph_and_overlay_stand_side_by_side():
    film, coloured = (image.image for image in made().pages[0].images)
    assert film.size == coloured.size == (90, 60)
    assert film.mode == "L"
    red, _, blue = np.asarray(coloured, dtype=int).transpose(2, 0, 1)
    heat = red - blue
    assert heat[30, 10] > 30  # where the map is hot, mapped back to the film's own shape
    assert abs(heat[30, 80]) < 10


def test_large_film_is_made_smaller():
    film = np.zeros((2600, 1300), dtype=np.uint8)
    report = made(explanation=replace(EXPLANATION, radiograph=film))
    assert [image.image.size for image in report.pages[0].images] == [(500, 1000)] * 2
    assert len(report.pages) == 2


def test_without_radiograph():
    report = made(replace(PREDICTION, image_present=False), NO_IMAGE)
    assert "No radiograph was given: the answer rests on the clinical values alone." in said(report)
    assert not any(page.images for page in report.pages)
    assert "Radiograph or clinical values?" not in said(report)


def test_without_map_says_why():
    bare = replace(EXPLANATION, saliency={})
    report = made(explanation=bare, description=with_description(saliency_note="no gradient."))
    assert len(report.pages[0].images) == 1
    assert "No map of the image: no gradient." in said(report)


def test_without_clinical_values():
    values = [replace(v, value=None, source="missing", mark=None) for v in VALUES]
    explanation = replace(EXPLANATION, attributions=[], modalities={})
    prediction = replace(PREDICTION, clinical_present=False, values=values)
    text = said(made(prediction, explanation))
    assert "No clinical value was given: the answer rests on the radiograph alone." in text
    assert "Baseline" not in text


def test_arms_of_one_modality():
    image = with_description(arm="image", features=[], clinical_baseline=[])
    shown = replace(EXPLANATION, attributions=[], modalities={})
    text = said(made(replace(PREDICTION, values=[], clinical_present=False), shown, image))
    assert "it takes no clinical values" in text
    tabular = with_description(arm="tabular", preprocessing=None)
    text = said(made(replace(PREDICTION, image_present=False), NO_IMAGE, tabular))
    assert "it looks at no radiograph" in text


def test_value_left_out_is_marked():
    left_out = replace(VALUES[0], value=None, mark="outside_range")
    text = said(made(replace(PREDICTION, values=[left_out, *VALUES[1:]])))
    assert "outside the plausible range, left out left out DICOM" in text


def test_without_bands_and_operating_points():
    description = with_description(
        triage=None, operating_points=[], decision_note="the validation side is too small"
    )
    text = said(made(replace(PREDICTION, band=None, calls=[]), description=description))
    assert "Rule out" not in text
    assert "This model has no thresholds that say whom to refer." in text
    assert text.count("The validation side is too small.") == 2


def test_three_classes():
    classes = {"normal": 0.03, "osteopenia": 0.6, "osteoporosis": 0.37}
    prediction = replace(
        PREDICTION, label="osteopenia", probabilities=classes, risk=0.97, band="rule_in"
    )
    text = said(made(prediction, description=with_description(classes=list(classes))))
    assert "Most probable class: osteopenia normal 3 % osteopenia 60 % osteoporosis 37 %" in text
    assert "About 97 in 100 people" in text


def test_flags_come_before_the_recommendation():
    flags = [FLAG, replace(FLAG, message="Age lies outside 35 to 78 years.")]
    text = said(made(replace(PREDICTION, flags=flags)))
    places = [
        text.index(part)
        for part in (
            "Be careful with this answer",
            *(flag.message for flag in flags),
            "Recommendation: DXA advised",
            "The warnings above come first",
        )
    ]
    assert places == sorted(places)


def test_synthetic_stamp_on_every_page():
    training = DESCRIPTION.training.model_copy(update={"synthetic_what": "SYNTHETIC DEMO DATA"})
    flags = [replace(FLAG, message=f"Warning {i}. " * 30) for i in range(20)]
    report = made(replace(PREDICTION, flags=flags), description=with_description(training=training))
    assert len(report.pages) >= 3
    assert all(STAMP in page.extract_text() for page in report.pages)
    assert all("Screening aid, not a diagnosis" in page.extract_text() for page in report.pages)


def test_two_pages_with_everything_given():
    features = [
        FEATURES[0].model_copy(update={"name": f"value_{i}", "label": f"Clinical value {i}"})
        for i in range(20)
    ]
    values = [replace(VALUES[0], name=f.name, label=f.label) for f in features]
    values[:2] = [replace(value, mark="outside_training") for value in values[:2]]
    explanation = replace(
        EXPLANATION, attributions=[Attribution(f.name, 0.2, 0.3) for f in features]
    )
    prediction = replace(PREDICTION, values=values, flags=[FLAG, FLAG])
    description = with_description(features=features, clinical_baseline=[53.0] * 20)
    report = made(prediction, explanation, description)
    assert len(report.pages) == 2
    text = said(report)
    assert all(value.label in text for value in values)


HOSTILE = "Zażółć gęślą jaźń, Größe <b>&amp; </para> %s \x00\x1b[96m\ud800"


def test_hostile_text_stays_text():
    training = DESCRIPTION.training.model_copy(update={"citation": HOSTILE, "manifest": [HOSTILE]})
    description = with_description(training=training, intended_use=HOSTILE)
    values = [replace(value, label=HOSTILE) for value in VALUES]
    word = "Donaudampfschifffahrt" * 30
    prediction = replace(
        PREDICTION,
        values=[*values[:3], replace(values[3], value=word, source="form", label=word)],
        flags=[replace(FLAG, message=HOSTILE), replace(FLAG, message=word)],
    )
    report = made(prediction, description=description, reference=f"{HOSTILE} {9 * word}")
    text = said(report)
    assert text.count("Zażółć gęślą jaźń, Größe <b>&amp; </para> %s [96m") >= 6
    assert re.sub(r"\s", "", text).count(word) >= 2


@st.composite
def patients(draw):
    """A prediction with its explanation, as odd as the contract allows."""
    words = st.text(max_size=60)
    share = st.floats(0, 1)
    numbers = st.floats(-1e12, 1e12)
    risk = draw(share)
    marks = ["outside_range", "outside_training", "unseen_word", "suspected_unit", None]
    values = []
    for value in VALUES:
        source = draw(st.sampled_from(["form", "dicom", "missing"]))
        kind = words if value.name == "occupation" else numbers
        read = None if source == "missing" else draw(st.none() | kind)
        usual = draw(st.none() | st.tuples(numbers, numbers))
        mark = draw(st.sampled_from(marks))
        values.append(replace(value, label=draw(words), value=read, source=source, mark=mark))
        values[-1] = replace(values[-1], usual=usual)
    present = [value.name for value in values if value.source != "missing"]
    prediction = replace(
        PREDICTION,
        probabilities={"normal": 1 - risk, "low_bmd": risk},
        risk=risk,
        band=draw(st.sampled_from(["rule_out", "dxa", "rule_in", None])),
        calls=[
            Call(p.name, p.threshold, draw(st.booleans())) for p in DESCRIPTION.operating_points
        ],
        values=values,
        flags=[replace(FLAG, message=message) for message in draw(st.lists(words, max_size=9))],
    )
    shape = draw(st.none() | st.tuples(st.integers(8, 200), st.integers(8, 200)))
    effects = st.floats(-20, 20)
    explanation = Explanation(
        attributions=[Attribution(name, draw(effects), draw(share)) for name in present],
        modalities=draw(st.sampled_from([{}, EXPLANATION.modalities])),
        saliency={"gradcam": HOT} if shape and draw(st.booleans()) else {},
        radiograph=None if shape is None else np.full(shape, draw(st.integers(0, 255)), np.uint8),
    )
    edges = sorted([draw(share), draw(share)])
    triage = DESCRIPTION.triage.model_copy(update={"rule_out": edges[0], "rule_in": edges[1]})
    return prediction, explanation, with_description(triage=triage), draw(st.none() | words)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(patients())
def test_any_prediction_becomes_a_report(patient):
    prediction, explanation, description, reference = patient
    report = made(prediction, explanation, description, reference=reference)
    text = said(report)
    assert f"{percent(prediction.risk)} risk of low bone density".replace("\u00a0", " ") in text
    assert f"Page {len(report.pages)} of {len(report.pages)}" in text
    assert sum(len(page.images) for page in report.pages) == (
        (explanation.radiograph is not None) + bool(explanation.saliency)
    )


@pytest.mark.parametrize(
    ("risk", "figure", "words"),
    [
        (0, "<1 %", "fewer than 1 in 100"),
        (0.0049, "<1 %", "fewer than 1 in 100"),
        (0.045, "5 %", "about 5 in 100"),
        (0.1, "10 %", "about 1 in 10"),
        (0.25, "25 %", "about 3 in 10"),
        (0.91, "91 %", "about 91 in 100"),
        (0.996, ">99 %", "more than 99 in 100"),
        (1, ">99 %", "more than 99 in 100"),
    ],
)
def test_risk_in_plain_words(risk, figure, words):
    assert percent(risk).replace("\u00a0", " ") == figure
    assert people(risk) == words


@given(st.floats(0, 1))
def test_icon_array_colours_as_many_as_the_risk_says(risk):
    shapes = icon_array(risk, 100).contents
    assert len(shapes) == 200  # a head and a body each
    coloured = sum(shape.fillColor == RAISED for shape in shapes) / 2
    assert abs(coloured - 100 * risk) <= 0.5 + 1e-9


@given(st.floats(-1e300, 1e300))
def test_numbers_keep_their_size(value):
    assert float(number(value)) == pytest.approx(value, rel=5e-4)


@pytest.mark.parametrize("band", ["rule_out", "dxa", "rule_in", None])
def test_recommendations_of_the_clinic(tmp_path, band):
    texts = {
        name: f"Text {name} on {{condition}}" for name in ("rule_out", "dxa", "rule_in", "no_band")
    }
    path = tmp_path / "texts.yaml"
    path.write_text("".join(f"{name}: {text!r}\n" for name, text in texts.items()))
    text = said(made(replace(PREDICTION, band=band), texts=load_texts(path)))
    assert f"Text {band or 'no_band'} on low bone density" in text
    assert sum(f"Text {name}" in text for name in texts) == 1


FULL = "rule_out: a\ndxa: b\nrule_in: c\nno_band: d\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("rule_out: a\ndxa: b\nrule_in: c\n", "no_band is missing; every band needs its text."),
        (FULL + "rule_on: e\n", "rule_on is no band; they are rule_out, dxa, rule_in, no_band."),
        (FULL.replace("c", "' '"), "rule_in cannot be used: string should have at least 1 char"),
        (FULL.replace("c", "[c]"), "rule_in cannot be used: input should be a valid string."),
        (FULL.replace(" c", " '{risk} is high'"), "{risk} means nothing; the one placeholder is"),
        (FULL.replace("d\n", "d" * 1201), "no_band cannot be used: string should have at most"),
        (FULL + "dxa: again\n", "near line 5: key 'dxa' is given twice."),
        ("- a\n", "hold no `band: text` lines"),
        ("rule_out: [\n", "are not valid YAML near line 2"),
    ],
)
def test_wrong_recommendations_are_refused(tmp_path, content, reason):
    path = tmp_path / "texts.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(reason)) as refusal:
        load_texts(path)
    assert str(path) in str(refusal.value)


def test_predict_writes_reports_in_the_words_of_the_clinic(
    cli, clinic_run, bundle_folder, tmp_path
):
    film = min((clinic_run / "demo" / "normal").iterdir())
    texts = tmp_path / "texts.yaml"
    texts.write_text(re.sub(r": \w", ": Ask Dr Nowak.", FULL))
    words = ("predict", "--bundle", bundle_folder, "--image", film, "--value", "age=71")
    words = (*words, "--out", "out.csv", "--recommendations", texts)
    refused = cli(*words, cwd=tmp_path)
    assert refused.code == 2
    assert "--recommendations words the reports; give --report DIR too." in refused.err
    done = cli(*words, "--report", "reports", cwd=tmp_path)
    assert done.code == 0, done.err
    (path,) = (tmp_path / "reports").iterdir()
    assert "Ask Dr Nowak." in said(PdfReader(path))
    texts.write_text("dxa: a\n")
    wrong = cli(*words, "--report", "others", cwd=tmp_path)
    assert wrong.code == 2
    assert "rule_out is missing" in wrong.err
    assert not (tmp_path / "others").exists()


def test_missing_recommendations_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_texts(tmp_path / "texts.yaml")
    (tmp_path / "latin.yaml").write_bytes(FULL.replace("a\n", "ä\n").encode("latin-1"))
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        load_texts(tmp_path / "latin.yaml")


def test_needs_neither_torch_nor_training():
    code = (
        "import sys, osteofusion.serving.patient_report; print({m.split('.')[0] for m in "
        "sys.modules} & {'torch', 'timm', 'captum', 'pytorch_lightning', 'sklearn', 'fastapi'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
