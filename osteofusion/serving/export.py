"""A trained checkpoint becomes a bundle."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from osteofusion.data.clinical import ClinicalSchema
from osteofusion.data.manifest import Manifest, load_manifest
from osteofusion.data.radiograph import content_hash
from osteofusion.data.unite import unite
from osteofusion.errors import ManifestError, OsteofusionError
from osteofusion.files import atomic_folder, write_text
from osteofusion.report.model_card import model_card
from osteofusion.report.read import read_material
from osteofusion.serving.bundle import CARD, MODEL
from osteofusion.serving.choosing import Decisions, Side, choose
from osteofusion.serving.description import (
    DESCRIPTION_FILE,
    BundleDescription,
    PreprocessingDescription,
    TrainingDescription,
)
from osteofusion.serving.graphs import export_graphs
from osteofusion.serving.source import Run, read_run
from osteofusion.serving.summary import describe_features
from osteofusion.serving.training_data import embed, hold_to_predictions, training_data
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule

_PACKAGES = (
    "osteofusion", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "pandas", "pillow",
    "timm", "torch",
)  # fmt: skip
_POSITIVE = {"osteoporosis": ("other", "osteoporosis")}
_INTENDED = (
    "A screening aid for research, not a diagnosis and not a medical device: it estimates the "
    "risk of {positive} from {inputs} of the kind it was trained on ({regions}, {citation}). "
    "Bone density is measured by DXA. On other populations, devices, views or body parts it is "
    "untested; the risk holds at the prevalence of the cohort."
)
_INPUTS = {
    "fused": "a radiograph, clinical values or both",
    "image": "a radiograph",
    "tabular": "clinical values",
}


def export_bundle(checkpoint: Path, out: Path, run: Path | None = None) -> BundleDescription:
    """Write the bundle of a checkpoint; ``out`` appears whole or not at all.

    Args:
        checkpoint: A run folder, whose best checkpoint is meant, or a checkpoint file.
        out: Folder to make; it may be there if it is empty.
        run: Folder with the checkpoint's predictions, of `fit` or `test`; default: the one that
            the checkpoint lies in.

    Raises:
        OsteofusionError: The checkpoint or its predictions cannot be read or do not belong
            together, `out` holds something, or the model cannot be exported.
    """
    with atomic_folder(out) as folder:
        found = read_run(checkpoint, run)
        module = FusionModule.load_from_checkpoint(
            found.path, map_location="cpu", weights_only=True
        )
        model = module.model.eval()
        settings = found.content["datamodule_hyper_parameters"]
        kinds = _POSITIVE.get(settings["task"], ("normal", "low BMD"))
        decisions = _decide(found, kinds)
        _tell("Exporting the graphs and holding them to PyTorch.")
        model.save_pretrained(folder / "model")
        (folder / "model" / "README.md").unlink(missing_ok=True)  # the card lies above
        graphs = export_graphs(model, decisions.calibration, settings["image_size"], folder)
        _tell("Reading the training data for drift checks.")
        data, lacking = training_data(found)
        if data is not None:
            hold_to_predictions(found, data, decisions.calibration, folder / MODEL)
        embedding, embedding_note = embed(found, data, folder)
        write_text(folder / CARD, _card(found.folder))
        description = _describe(
            found,
            decisions,
            kinds,
            embedding=embedding,
            embedding_note=embedding_note,
            saliency_note=graphs.saliency_note,
            files=_hashes(folder),
        )
        text = json.dumps(description.model_dump(mode="json"), indent=2, allow_nan=False)
        write_text(folder / DESCRIPTION_FILE, text + "\n")
    notes = (decisions.note, decisions.calibration.note, embedding_note, lacking)
    for note in (*notes, graphs.saliency_note):
        if note:
            _tell(f"Note: {note}")
    return description


def _decide(found: Run, kinds: tuple[str, str]) -> Decisions:
    validation, test = (
        Side.of(found.predictions[found.side(name)], found.classes) for name in ("val", "test")
    )
    return choose(validation, test, kinds)


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _card(folder: Path) -> str:
    try:
        return model_card(read_material(folder))
    except OsteofusionError as error:
        return (
            "# Model card\n\nThe run folder did not allow a full card "
            f"({error})\n\nWhat is known stands in `{DESCRIPTION_FILE}`.\n"
        )


def _describe(
    found: Run, decisions: Decisions, kinds: tuple[str, str], **rest: Any
) -> BundleDescription:
    h, d = found.content["hyper_parameters"], found.content["datamodule_hyper_parameters"]
    schema = ClinicalSchema.from_dict(h["clinical"]["schema"] if found.arm != "image" else [])
    manifest = _manifest(d["manifest"])
    regions = list(found.content[RadiographDataModule.__qualname__]["regions"])
    environment = _environment(found.folder)
    digest = content_hash(found.path)
    citation = environment.get("data", {}).get("citation") or "source not recorded"
    fill = h["clinical"]["preprocessing"]["fill"] if found.arm != "image" else []
    return BundleDescription(
        name=f"{d['task'].replace('_', ' ')} {found.arm} {' and '.join(regions)}",
        version=f"{version('osteofusion')}+{digest[:8]}",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        task=d["task"],
        classes=found.classes,
        positive=kinds[1],
        arm=found.arm,  # type: ignore[arg-type]
        regions=regions,
        features=describe_features(schema, found.cohort[found.side("train")], manifest),
        preprocessing=PreprocessingDescription(
            size=d["image_size"], clahe=d["clahe"], pixel_spacing=d["pixel_spacing"]
        )
        if found.arm != "tabular"
        else None,
        clinical_baseline=fill,
        calibration=decisions.calibrated,
        operating_points=decisions.points,
        triage=decisions.triage,
        decision_note=decisions.note,
        cohort_prevalence=decisions.prevalence,
        intended_use=_INTENDED.format(
            positive=kinds[1],
            inputs=_INPUTS[found.arm],
            regions=" and ".join(regions),
            citation=citation.rstrip("."),
        ),
        training=_training(found, d, manifest, digest, environment),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        **rest,
    )


def _training(
    found: Run,
    settings: Mapping[str, Any],
    manifest: Manifest | None,
    digest: str,
    environment: Mapping[str, Any],
) -> TrainingDescription:
    named = settings["manifest"]
    labels = found.predictions["label"].value_counts()
    data = environment.get("data", {})
    synthetic = manifest.synthetic_what if manifest is not None else ""
    if data.get("synthetic") and not synthetic:
        synthetic = "SYNTHETIC DATA: no patient stands behind some or all of it"
    return TrainingDescription(
        manifest=[Path(name).name for name in (named if isinstance(named, list) else [named])],
        citation=data.get("citation") or "not recorded",
        synthetic_what=synthetic,
        class_counts={name: int(labels.get(name, 0)) for name in found.classes},
        rows={side: int(found.side(side).sum()) for side in ("train", "val", "test")},
        checkpoint_sha256=digest,
        initial_weights=environment.get("initial_weights"),
    )


def _manifest(named: str | list[str]) -> Manifest | None:
    try:
        return unite([load_manifest(n) for n in (named if isinstance(named, list) else [named])])
    except (ManifestError, OSError):
        return None


def _environment(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / "environment.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): content_hash(path) for path in files}
