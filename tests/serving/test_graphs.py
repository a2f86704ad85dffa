from __future__ import annotations

import logging
import re
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from osteofusion.errors import EvaluationError, OsteofusionError
from osteofusion.evaluation.calibration import Calibration
from osteofusion.explain.saliency import saliency_maps
from osteofusion.models import FUSIONS, FusionClassifier
from osteofusion.serving import graphs
from osteofusion.serving.graphs import export_graphs

SPEC = {
    "features": ["age", "bmi", "occupation", "smoker"],
    "fill": [60.0, 25.0, 1.0, 0.0],
    "numeric": {"columns": [0, 1, 3], "mean": [58.0, 26.0, 0.25], "scale": [12.0, 4.0, 0.4]},
    "indicators": [1, 2],
    "one_hot": {"columns": [2, 2, 2], "codes": [[0.0], [1.0], [2.0, 3.0]]},
    "names": ["age", "bmi", "smoker", "bmi missing", "job missing", "job=a", "job=b", "job=other"],
}
PLATT = Calibration((1.7,), (-0.4,))
VECTOR = Calibration((1.2, 0.9, 1.4), (0.3, 0.0, -0.2))
CNN = {"name": "cnn", "channels": [4, 8], "num_features": 8}


def classifier(classes=3, **options):
    """A model as if trained: what starts at zero is drawn, so that each input matters."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = {"image_encoder": CNN, "head": "proportional_odds", "preprocessing": SPEC}
    model = FusionClassifier(classes, **{**encoder, **options})
    for part in (model.fusion, model.skip):
        for parameter in part.parameters() if part is not None else ():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def patients(rows, size=32, seed=1):
    rng = np.random.default_rng(seed)
    clinical = np.column_stack(
        [
            rng.normal(60, 10, rows),
            rng.normal(26, 4, rows),
            rng.integers(0, 5, rows),
            rng.random(rows) < 0.5,
        ]
    ).astype(np.float64)
    clinical[rng.random(clinical.shape) < 0.3] = np.nan
    present = np.ones((rows, 2), dtype=bool)
    present[1::3, 0] = present[2::3, 1] = False
    image = rng.random((rows, 1, size, size), dtype=np.float32)
    return {"image": image, "clinical": clinical, "present": present}


def run(path, inputs):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def expected(model, calibration, inputs):
    """Raw probabilities by torch, calibrated by the package's own NumPy code."""
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    return calibration.apply(logits.softmax(dim=1).numpy().astype(np.float64))


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    model, folder = classifier(), tmp_path_factory.mktemp("graphs")
    return model, folder, export_graphs(model, VECTOR, 32, folder)


def test_the_fused_arm_has_three_graphs_that_answer_as_torch_at_every_batch_size(fused):
    model, folder, exported = fused
    assert exported.files == ["model.onnx", "fusion.onnx", "saliency.onnx"]
    assert exported.saliency_note is None
    assert sorted(path.name for path in folder.iterdir()) == sorted(exported.files)
    for rows in (1, 3, 17):
        inputs = patients(rows)
        answer = run(folder / "model.onnx", inputs)
        assert np.abs(answer["probabilities"] - expected(model, VECTOR, inputs)).max() < 1e-4
        known = {"image_features": answer["image_features"], **inputs}
        again = run(folder / "fusion.onnx", {k: v for k, v in known.items() if k != "image"})
        assert again["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)
        assert answer["probabilities"].sum(axis=1) == pytest.approx(1)


def test_what_an_absent_modality_holds_changes_nothing(fused):
    _, folder, _ = fused
    inputs = patients(6)
    other = {name: values.copy() for name, values in inputs.items()}
    other["image"][1::3], other["clinical"][2::3] = np.nan, 1e9
    one, two = (run(folder / "model.onnx", each)["probabilities"] for each in (inputs, other))
    assert (one == two).all()


def test_saliency_is_that_of_captum_and_blank_without_a_radiograph(fused):
    model, folder, _ = fused
    _same_saliency(model, folder, 32)


def test_a_model_trained_with_its_channels_last_keeps_its_map(tmp_path):
    encoder = {"name": "timm", "backbone": "test_efficientnet.r160_in1k"}
    model = classifier(2, image_encoder=encoder).to(memory_format=torch.channels_last)
    exported = export_graphs(model, PLATT, 64, tmp_path)
    assert exported.saliency_note is None
    _same_saliency(model, tmp_path, 64)


def test_graphs_hold_no_path_no_external_file_and_one_opset(fused):
    _, folder, exported = fused
    for name in exported.files:
        content = (folder / name).read_bytes()
        assert not re.search(rb"osteofusion/|\.py\b|/home/|site-packages|File \"", content), name
        graph = onnx.load_from_string(content)
        onnx.checker.check_model(graph)
        assert [(each.domain, each.version) for each in graph.opset_import] == [("", 20)]
        weights = sum(parameter.numel() for parameter in fused[0].parameters()) * 4
        assert len(content) < 2 * weights + 200_000


def test_an_equal_model_has_equal_bytes_and_nothing_is_said(tmp_path, capfd, caplog):
    caplog.set_level(logging.WARNING)
    for name in ("one", "two"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            export_graphs(classifier(2, arm="tabular"), PLATT, 32, tmp_path / name)
        assert not told
    one, two = ((tmp_path / name / "model.onnx").read_bytes() for name in ("one", "two"))
    assert one == two
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_probabilities_at_the_edge_are_clipped_as_the_calibration_clips_them(tmp_path):
    model = classifier(2, arm="tabular", head="softmax")
    inputs = {name: values for name, values in patients(6).items() if name != "image"}
    inputs["clinical"][:, 0] = [-1e4, 1e4, 60, 200, -200, 1e3]  # far beyond 1e-6
    exported = export_graphs(model, PLATT, 32, tmp_path)
    assert exported.files == ["model.onnx"]
    wanted = expected(model, PLATT, inputs)
    assert wanted.min() < 1e-6
    answer = run(tmp_path / "model.onnx", inputs)
    assert list(answer) == ["probabilities"]
    assert answer["probabilities"] == pytest.approx(wanted, rel=1e-3, abs=1e-9)


def test_ft_transformer_exports_with_a_dynamic_batch(tmp_path):
    pytest.importorskip("rtdl_revisiting_models")
    model = classifier(arm="tabular", head="corn", clinical_encoder={"name": "ft_transformer"})
    export_graphs(model, VECTOR, 32, tmp_path)
    inputs = {name: values for name, values in patients(7).items() if name != "image"}
    answer = run(tmp_path / "model.onnx", inputs)["probabilities"]
    assert np.abs(answer - expected(model, VECTOR, inputs)).max() < 1e-4


def test_the_image_arm_takes_no_clinical_values(tmp_path):
    identity = Calibration((1.0,), (0.0,))
    model = classifier(2, arm="image", head="sigmoid")
    exported = export_graphs(model, identity, 32, tmp_path)
    assert exported.files == ["model.onnx", "saliency.onnx"]
    inputs = {name: values for name, values in patients(4).items() if name != "clinical"}
    answer = run(tmp_path / "model.onnx", inputs)
    assert np.abs(answer["probabilities"] - expected(model, identity, inputs)).max() < 1e-4


def test_a_calibration_of_another_task_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(EvaluationError, match="1 slopes cannot be applied"):
        export_graphs(classifier(3, arm="tabular"), PLATT, 32, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_does_not_answer_as_torch_is_refused(tmp_path):
    """The check sees one probability that is off by 2e-4, and a shape that is another."""
    truth = np.full((3, 2), 0.5)
    graphs._compare("model.onnx", "probabilities", truth + 5e-5, truth)
    with pytest.raises(OsteofusionError, match=r"differ by 0\.0002 in probabilities of model"):
        graphs._compare("model.onnx", "probabilities", truth + np.array([0, 2e-4]), truth)
    with pytest.raises(OsteofusionError, match="in shape or type"):
        graphs._compare("model.onnx", "probabilities", truth[:1], truth)


@pytest.mark.slow
def test_a_backbone_without_a_layer_to_explain_still_answers(tmp_path):
    model = classifier(2, arm="image", image_encoder={"name": "timm", "backbone": "levit_128s"})
    exported = export_graphs(model, PLATT, 224, tmp_path)
    assert exported.files == ["model.onnx"]
    assert "levit_128s has no layer" in exported.saliency_note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("tf_efficientnet_lite0", 64),
        ("resnet18", 64),
        ("convnext_atto", 64),
        ("vit_tiny_patch16_224", 224),
    ],
)
@pytest.mark.parametrize("fusion", ["concat", "daft", "cross_attention", "residual_late"])
def test_saliency_of_backbones_and_fusions_is_that_of_captum(tmp_path, backbone, size, fusion):
    image_encoder = {"name": "timm", "backbone": backbone}
    model = classifier(image_encoder=image_encoder, fusion={"name": fusion})
    exported = export_graphs(model, VECTOR, size, tmp_path)
    assert exported.saliency_note is None
    _same_saliency(model, tmp_path, size)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["softmax", "sigmoid", "corn", "proportional_odds"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_and_head_answers_as_torch(tmp_path, fusion, head):
    classes = 2 if head == "sigmoid" else 3
    calibration = PLATT if head == "sigmoid" else VECTOR
    encoder = "ft_transformer" if head == "corn" else "mlp"
    model = classifier(
        classes, fusion={"name": fusion}, head=head, clinical_encoder={"name": encoder}
    )
    exported = export_graphs(model, calibration, 32, tmp_path)
    assert exported.files == ["model.onnx", "fusion.onnx", "saliency.onnx"]
    inputs = patients(5)
    answer = run(tmp_path / "model.onnx", inputs)["probabilities"]
    assert np.abs(answer - expected(model, calibration, inputs)).max() < 1e-4


def _same_saliency(model, folder, size):
    inputs = patients(3, size)
    tensors = [torch.from_numpy(inputs[name]) for name in ("image", "clinical", "present")]
    wanted = {name: saliency_maps(model, *tensors, name) for name in ("gradcam", "hirescam")}
    for row in range(3):
        found = run(
            folder / "saliency.onnx",
            {name: values[row : row + 1] for name, values in inputs.items()},
        )
        for name, maps in wanted.items():
            assert found[name].dtype == np.float32
            assert np.abs(found[name] - maps[row]).max() < 1e-4, (name, row)
    assert wanted["hirescam"][0].max() == pytest.approx(1)  # else zeros would agree with zeros
    assert not wanted["gradcam"][1].any()
