"""From bytes and values to an answer: what is read, what is refused, what comes out."""

from __future__ import annotations

import io
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless

from osteofusion.data.manifest import load_manifest
from osteofusion.data.radiograph import RadiographPreprocessing, content_hash
from osteofusion.evaluation.calibration import Calibration
from osteofusion.explain.attribution import encode_rows, explain_rows
from osteofusion.models import FusionClassifier
from osteofusion.serving.bundle import Bundle
from osteofusion.serving.errors import BundleError, InputError
from osteofusion.serving.graphs import export_graphs
from osteofusion.serving.predictor import Predictor
from osteofusion.serving.radiographs import read_image
from osteofusion.training.datamodule import RadiographDataModule

VALUES = {"age": 61, "female": "yes", "height": 1.6, "weight": 70, "occupation": "teacher"}


@pytest.fixture(scope="module")
def films(clinic_run) -> list[bytes]:
    paths = sorted((clinic_run / "demo").rglob("*.jp*g")) + sorted(
        (clinic_run / "demo").rglob("*.png")
    )
    return [path.read_bytes() for path in paths]


@pytest.fixture(scope="module")
def training_data(run_folder) -> RadiographDataModule:
    checkpoint = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    return RadiographDataModule.from_checkpoint(checkpoint)


def refused(predictor: Predictor, image: bytes | None, name: str = "image", **values) -> InputError:
    with pytest.raises(InputError) as caught:
        predictor.read(image, values, image_name=name)
    return caught.value


# ---- one preprocessing path ----


def test_patients_are_read_bit_for_bit_as_training_read_them(predictor, training_data):
    rows = training_data.rows
    batches = training_data.predict_dataloader()
    image = torch.cat([batch["image"].to(torch.float32) / 255.0 for batch in batches]).numpy()
    clinical = torch.cat([batch["clinical"] for batch in batches]).numpy()
    present = torch.cat([batch["present"] for batch in batches]).numpy()
    names = [feature.name for feature in predictor.description.features]
    for i, path in enumerate(training_data.cohort.files(rows)):
        values = {name: cell for name, cell in rows.iloc[i][names].items() if cell == cell}
        patient = predictor.read(path.read_bytes(), values)
        assert patient.image.dtype == np.float32
        np.testing.assert_array_equal(patient.image, image[i])
        np.testing.assert_array_equal(patient.clinical, clinical[i])
        np.testing.assert_array_equal(patient.present, present[i])
    assert len(rows) > 70
    assert np.isnan(clinical).any()


@pytest.mark.parametrize("clahe", [False, True])
def test_pixel_spacing_is_honoured_as_in_training(clahe):
    data, path = dicom(ImagerPixelSpacing=[0.2, 0.2]), Path("film.dcm")
    preprocessing = RadiographPreprocessing(96, clahe, 1.7)
    scaled = RadiographPreprocessing(96, clahe)
    read = read_image(data, path.name, preprocessing)
    np.testing.assert_array_equal(
        read.image[0], preprocessing.read(data, path).astype(np.float32) / np.float32(255)
    )
    assert read.spacing == 0.2
    assert not np.array_equal(read.image, read_image(data, path.name, scaled).image)


def test_a_model_with_a_pixel_spacing_refuses_a_picture_without_one(films):
    with pytest.raises(InputError, match="pixel spacing") as caught:
        read_image(films[0], "image", RadiographPreprocessing(64, pixel_spacing=0.2))
    assert caught.value.code == "no_spacing"


# ---- answers ----


def test_an_answer_is_whole(predictor, films):
    answer = predictor.predict(predictor.read(films[0], VALUES))
    d = predictor.description
    assert list(answer.probabilities) == d.classes
    assert math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-12)
    assert answer.risk == pytest.approx(1 - answer.probabilities[d.classes[0]])
    assert answer.label == max(answer.probabilities, key=answer.probabilities.get)
    assert [value.name for value in answer.values] == [feature.name for feature in d.features]
    assert answer.model == d.identity
    assert {call.name: call.low_bmd for call in answer.calls} == {
        point.name: answer.risk >= point.threshold for point in d.operating_points
    }
    assert answer.image_present
    assert answer.clinical_present


def test_bands_follow_the_thresholds(predictor, films):
    triage = predictor.description.triage
    bands = {}
    for age in range(20, 90, 2):
        answer = predictor.predict(predictor.read(films[0], {"age": age, "female": age > 50}))
        bands[answer.band] = answer.risk
        below, within = answer.risk < triage.rule_out, answer.risk >= triage.rule_in
        assert answer.band == ("rule_out" if below else "rule_in" if within else "dxa")
    assert set(bands) == {"rule_out", "dxa", "rule_in"}


def test_any_subset_of_modalities_is_answered_and_they_differ(predictor, films):
    both, image, clinical = (
        predictor.predict(predictor.read(film, values))
        for film, values in ((films[0], VALUES), (films[0], {}), (None, VALUES))
    )
    assert (image.image_present, image.clinical_present) == (True, False)
    assert (clinical.image_present, clinical.clinical_present) == (False, True)
    assert len({both.risk, image.risk, clinical.risk}) == 3


def test_a_batch_and_threads_answer_as_single_calls_do(predictor, films):
    patients = [
        predictor.read(film, VALUES if i % 2 else {}) for i, film in enumerate(films[:12])
    ] + [predictor.read(None, VALUES)]
    single = [predictor.predict(patient) for patient in patients]
    batch = predictor.predict_many(patients)
    with ThreadPoolExecutor(8) as pool:
        threads = list(pool.map(predictor.predict, patients * 4))
    assert predictor.predict_many([]) == []
    for i, one in enumerate(single):
        assert batch[i].risk == pytest.approx(one.risk, abs=1e-6)
        assert all(other == one for other in threads[i :: len(patients)])


def test_attributions_are_the_differences_that_replaced_values_make(predictor, films):
    def score(patient) -> float:
        risk = predictor.predict(patient).risk
        return math.log(risk / (1 - risk))

    d = predictor.description
    patient = predictor.read(films[0], VALUES)
    found = predictor.explain(patient)
    assert {item.name for item in found.attributions} == set(VALUES)
    sizes = [abs(item.log_odds) for item in found.attributions]
    assert sizes == sorted(sizes, reverse=True)
    for item in found.attributions:
        column = [feature.name for feature in d.features].index(item.name)
        fill = d.clinical_baseline[column]
        words = d.features[column].vocabulary
        changed = {**VALUES, item.name: words[int(fill)] if words else fill}
        other = predictor.read(films[0], changed)
        assert item.log_odds == pytest.approx(score(patient) - score(other), abs=1e-4)
        assert item.risk_without == pytest.approx(predictor.predict(other).risk, abs=1e-5)
    alone = {
        "image": predictor.read(None, VALUES),
        "clinical": predictor.read(films[0], {}),
    }
    assert found.modalities == pytest.approx(
        {name: score(patient) - score(other) for name, other in alone.items()}, abs=1e-4
    )
    np.testing.assert_array_equal(found.radiograph, patient.radiograph)


def test_attributions_are_those_of_the_checkpoint_times_the_slope_of_the_calibration(
    predictor, bundle_folder, films
):
    patient = predictor.read(films[0], VALUES)
    model = FusionClassifier.from_pretrained(bundle_folder / "model")
    batch = {
        "image": torch.from_numpy(patient.image[None] * 255).round().to(torch.uint8),
        "clinical": torch.from_numpy(patient.clinical[None]),
        "present": torch.from_numpy(patient.present[None]),
    }
    (raw,) = explain_rows(model, encode_rows(model, [batch]))
    found = predictor.explain(patient)
    (slope,) = predictor.description.calibration.slope
    assert abs(slope - 1) > 0.01
    effects = {item.name: item.log_odds for item in found.attributions}
    assert max(map(abs, effects.values())) > 0.01
    assert effects == pytest.approx(
        {item.name: slope * item.log_odds for item in raw.attributions}, abs=1e-4
    )
    assert found.modalities == pytest.approx(
        {name: slope * effect for name, effect in raw.modalities.items()}, abs=1e-4
    )


def test_a_single_modality_is_not_said_to_move_the_answer(predictor, films):
    assert predictor.explain(predictor.read(films[0], {})).modalities == {}
    clinical = predictor.explain(predictor.read(None, VALUES))
    assert clinical.modalities == {}
    assert clinical.saliency == {}
    assert clinical.radiograph is None


@pytest.fixture(scope="module")
def image_predictor(predictor, tmp_path_factory) -> Predictor:
    """Of a bundle whose model reads radiographs alone."""
    folder = tmp_path_factory.mktemp("image_arm")
    torch.manual_seed(0)
    cnn = {"name": "cnn", "channels": [4, 8], "num_features": 8}
    model = FusionClassifier(2, arm="image", image_encoder=cnn, head="sigmoid")
    exported = export_graphs(model, Calibration((1.5,), (0.2,)), 64, folder)
    changes = {
        "arm": "image",
        "features": [],
        "clinical_baseline": [],
        "embedding": None,
        "files": {name: content_hash(folder / name) for name in exported.files},
    }
    described = predictor.description.model_copy(update=changes)
    (folder / "bundle.json").write_text(described.model_dump_json())
    return Predictor(Bundle.load(folder), threads=1)


def test_a_model_of_radiographs_alone_answers_and_explains(image_predictor, films):
    patient = image_predictor.read(films[0], {})
    assert 0 < image_predictor.predict(patient).risk < 1
    found = image_predictor.explain(patient)
    assert (found.attributions, found.modalities) == ([], {})
    assert set(found.saliency) == {"gradcam", "hirescam"}
    assert refused(image_predictor, films[0], age=61).code == "unused_modality"
    assert refused(image_predictor, None).code == "no_modality"


def test_saliency_maps_lie_in_the_unit_interval(predictor, films):
    if predictor.bundle.path("saliency.onnx") is None:
        pytest.fail(str(predictor.description.saliency_note))
    maps = predictor.explain(predictor.read(films[0], VALUES)).saliency
    assert set(maps) == {"gradcam", "hirescam"}
    for values in maps.values():
        assert values.ndim == 2
        assert values.min() >= 0
        assert 0.5 < values.max() <= 1


# ---- DICOM ----


def dicom(**changed) -> bytes:
    dataset = pydicom.dcmread(get_testdata_file("RG3_UNCR.dcm"))
    for keyword, value in changed.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_one_film_in_three_compressions_gives_one_answer(predictor):
    run_length = pydicom.dcmread(get_testdata_file("RG3_UNCR.dcm"))
    run_length.compress(RLELossless, encoding_plugin="pydicom")
    stream = io.BytesIO()
    run_length.save_as(stream)
    copies = [
        Path(get_testdata_file("RG3_UNCR.dcm")).read_bytes(),
        Path(get_testdata_file("RG3_J2KR.dcm")).read_bytes(),
        stream.getvalue(),
    ]
    assert len(set(copies)) == 3
    answers = [predictor.predict(predictor.read(data, VALUES)).to_dict() for data in copies]
    assert answers[0] == answers[1] == answers[2]


def test_the_header_fills_age_and_sex_and_the_form_goes_first(predictor):
    data = dicom(PatientAge="071Y", PatientSex="F")
    values = {value.name: value for value in predictor.read(data, {}).values}
    assert (values["age"].value, values["age"].source) == (71.0, "dicom")
    assert (values["female"].value, values["female"].source) == (1.0, "dicom")
    patient = predictor.read(data, {"age": 50, "female": "yes"})
    assert {value.name: value.value for value in patient.values}["age"] == 50
    assert ("age", "dicom_conflict") in {(flag.field, flag.code) for flag in patient.flags}
    assert ("female", "dicom_conflict") not in {(f.field, f.code) for f in patient.flags}


@pytest.mark.parametrize(
    ("part", "flagged"), [("KNEE", False), ("HAND", True), ("LEFT KNEE", False), ("LEG", False)]
)
def test_another_body_part_in_the_header_is_flagged(predictor, part, flagged):
    flags = predictor.read(dicom(BodyPartExamined=part), {}).flags
    assert ("other_region" in {flag.code for flag in flags}) == flagged


# ---- what bad input gets ----


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, height), (279, 1000))  # fmt: skip
    entries = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(1004)


def jpeg(width: int, height: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("L", (64, 64)).save(encoded, "jpeg")
    data = bytearray(encoded.getvalue())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">2H", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(40_000, 40_000), id="png"),
        pytest.param(tiff(40_000, 40_000), id="tiff"),
        pytest.param(jpeg(40_000, 40_000), id="jpeg"),
        pytest.param(png(12_000, 12_000), id="below Pillow's own limit"),
        pytest.param(dicom(Rows=40_000, Columns=40_000), id="dicom"),
    ],
)
def test_a_huge_picture_is_refused_before_it_is_decoded(predictor, data):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    error = refused(predictor, data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert error.code == "too_large"
    assert "100 million pixels" in str(error)
    assert time.process_time() - start < 1
    assert grown < 100_000  # KiB; decoded it would be 144 MB at least


def _frames() -> bytes:
    encoded = io.BytesIO()
    pages = [Image.new("L", (32, 32), shade) for shade in (10, 200)]
    pages[0].save(encoded, "tiff", save_all=True, append_images=pages[1:])
    return encoded.getvalue()


def _deflated() -> bytes:
    return Path(get_testdata_file("image_dfl.dcm")).read_bytes()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda film: b"", "empty"),
        (lambda film: b"%PDF-1.7 not a picture" * 20, "not_an_image"),
        (lambda film: b"<svg onload=alert(1)>", "not_an_image"),
        (lambda film: film[: len(film) // 2], "damaged"),
        (lambda film: film[:40], "damaged"),
        (lambda film: dicom()[:4000], "damaged"),
        (lambda film: _frames(), "several_frames"),
        (lambda film: Path(get_testdata_file("emri_small.dcm")).read_bytes(), "several_frames"),
        (lambda film: Path(get_testdata_file("rtplan.dcm")).read_bytes(), "unsupported_image"),
        (lambda film: _deflated(), "unsupported_image"),
    ],
)
def test_what_is_no_single_radiograph_is_refused_in_one_clean_sentence(
    predictor, films, make, code
):
    error = refused(predictor, make(films[0]), name="Jane_Doe_1950.dcm")
    assert (error.field, error.code) == ("image", code)
    assert str(error).startswith("The image cannot be read: ")
    assert str(error).endswith(".")
    assert "Jane" not in str(error)
    assert "\n" not in str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of the long identifier
def test_a_compressed_header_is_not_inflated_however_late_it_says_so(predictor):
    dataset = pydicom.dcmread(get_testdata_file("image_dfl.dcm"))
    dataset.file_meta.MediaStorageSOPInstanceUID = "1." + "2" * 5000
    dataset.add_new(0x00091010, "UN", bytes(200_000_000))
    stream = io.BytesIO()
    dataset.save_as(stream)
    del dataset
    assert len(stream.getvalue()) < 300_000
    start = time.process_time()
    assert refused(predictor, stream.getvalue()).code == "unsupported_image"
    assert time.process_time() - start < 0.5  # inflated, it takes seconds and 400 MB


def test_nothing_at_all_is_refused(predictor):
    assert refused(predictor, None).code == "no_modality"
    assert refused(predictor, None, age=None, female="").code == "no_modality"


def test_a_bad_value_is_refused_beside_a_good_film(predictor, films):
    error = refused(predictor, films[0], age=400)
    assert (error.field, error.code) == ("age", "out_of_range")


@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")  # the package's own filter, undone
@pytest.mark.parametrize("start", range(4))
def test_mutated_uploads_are_read_or_refused(predictor, films, start):
    rng = np.random.default_rng(start)
    sources = [films[0], dicom(), png(64, 64), jpeg(64, 64)]
    fields = set()
    for _ in range(25):
        data = bytearray(sources[start][:60_000])
        for position in rng.integers(0, min(len(data), 2_000), 8):
            data[position] = rng.integers(256)
        try:
            predictor.predict(predictor.read(bytes(data), {}))
        except InputError as error:
            fields.add(error.field)
    assert fields <= {"image"}


# ---- the folder ----


def copied(bundle_folder, tmp_path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


def test_a_changed_file_is_refused_by_name(bundle_folder, tmp_path):
    folder = copied(bundle_folder, tmp_path)
    data = bytearray((folder / "fusion.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "fusion.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"fusion\.onnx is not the file"):
        Bundle.load(folder)


def test_a_missing_file_is_refused_by_name(bundle_folder, tmp_path):
    folder = copied(bundle_folder, tmp_path)
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"format": 1', '"format": 2', "another format"),
        ('"task"', '"tusk"', "is damaged"),
        ('"model.onnx"', '"../model.onnx"', "outside it"),
        ("{", "", "is damaged"),
    ],
)
def test_a_description_that_cannot_be_trusted_is_refused(bundle_folder, tmp_path, old, new, said):
    folder = copied(bundle_folder, tmp_path)
    text = (folder / "bundle.json").read_text()
    assert old in text
    (folder / "bundle.json").write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError, match=said):
        Bundle.load(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is no bundle"):
        Bundle.load(tmp_path)


_ALONE = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in (
            "torch", "timm", "pytorch_lightning", "lightning_fabric", "captum", "torchvision",
            "torchmetrics", "sklearn", "albumentations", "matplotlib", "pickle5", "onnx",
        ):
            raise ImportError(f"{name} is forbidden here")

sys.meta_path.insert(0, Forbidden())
from osteofusion.serving.bundle import Bundle
from osteofusion.serving.predictor import Predictor
predictor = Predictor(Bundle.load(sys.argv[1]), threads=1)
patient = predictor.read(open(sys.argv[2], "rb").read(), {"age": 61})
print(predictor.predict(patient).risk, len(predictor.explain(patient).attributions))
from osteofusion.cli import main
who = ["--image", sys.argv[2], "--value", "age=61"]
sys.exit(main(["predict", "--bundle", sys.argv[1], *who, "--out", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    "module", ["training.module", "training.datamodule", "report.model_card", "explain.saliency"]
)
def test_onnxruntime_is_imported_by_serving_alone_which_turns_telemetry_off(module):
    code = (
        "import os, sys\n"
        f"import osteofusion.cli, osteofusion.{module}\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "import osteofusion.serving.predictor\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    bare = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare)
    assert done.returncode == 0, done.stderr


def test_a_bundle_answers_without_torch_lightning_timm_and_scikit_learn(
    predictor, bundle_folder, films, tmp_path
):
    film = tmp_path / "film"
    film.write_bytes(films[0])
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(bundle_folder), str(film), str(tmp_path / "answer.csv")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    risk, attributions = done.stdout.splitlines()[0].split()
    assert "Risk of low BMD: " in done.stdout
    assert (tmp_path / "answer.csv").is_file()
    expected = predictor.predict(predictor.read(films[0], {"age": 61})).risk
    assert float(risk) == pytest.approx(expected, abs=1e-6)
    assert attributions == "1"


def test_the_manifest_of_the_demo_has_the_outcome_that_no_bundle_reads(predictor):
    outcomes = [n for n, c in load_manifest("demo").columns.items() if c.role == "outcome"]
    assert outcomes
    assert not {feature.name for feature in predictor.description.features} & set(outcomes)
