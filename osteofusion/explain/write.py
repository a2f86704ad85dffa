"""Everything that `osteofusion explain` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from osteofusion.data.clinical import ClinicalSchema
from osteofusion.data.radiograph import decode_radiograph, pixel_spacing_in, read_bytes
from osteofusion.explain.attribution import encode_rows
from osteofusion.explain.cohort import ExplainedRow, explain_cohort, maps_of
from osteofusion.explain.figures import Panel, save_importance, save_panels
from osteofusion.explain.importance import permutation_importance
from osteofusion.explain.overlay import overlay
from osteofusion.explain.sanity import LIMIT, sanity_check
from osteofusion.files import write_text
from osteofusion.models.classifier import FusionClassifier
from osteofusion.progress import shown
from osteofusion.training.datamodule import RadiographDataModule

CHECKED = 16  # radiographs that the sanity check compares maps of
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Wanted:
    """Kinds of saliency map, colours of the overlays, and shuffles of each input."""

    methods: Sequence[str]
    colormaps: Sequence[str]
    repeats: int


def write_explanations(
    model: FusionClassifier,
    data: RadiographDataModule,
    side: pd.DataFrame,
    chosen: pd.DataFrame,
    folder: Path,
    wanted: Wanted,
) -> list[str]:
    """Write overlays, attributions, importance and the sanity check into `folder`.

    Args:
        model: The model.
        data: Its data.
        side: Rows that importance is computed over and the check is made on.
        chosen: Those of them that are explained one by one.
        folder: An empty folder.
        wanted: What to make.

    Returns:
        What a reader should know, one sentence each.
    """
    stamp = data.cohort.manifest.synthetic_what or None
    notes = []
    rows, said = explain_cohort(model, data, chosen, wanted.methods)
    if model.preprocessing is not None:
        _write_attributions(rows, folder / "attributions.csv")
    else:
        notes.append("The image arm reads no clinical values, so there are no attributions.")
    if model.arm == "fused":
        _write_modalities(rows, folder / "modalities.csv")
    if model.image_encoder is None:
        notes.append("The tabular arm reads no radiograph, so there are no saliency maps.")
    else:
        notes += said
        notes += _write_sanity(model, data, side, wanted.methods, folder / "sanity.json")

    numbered = enumerate(shown(rows, len(rows), "Drawing overlays", progress=True), start=1)
    panels = (
        _panel(row, f"{number:03}", data, wanted.colormaps, folder / "overlays")
        for number, row in numbered
    )
    title = f"{data.cohort.manifest.title}: why the model answers what it answers"
    save_panels(panels, folder / "explanations.pdf", title=title, stamp=stamp)
    _write_importance(model, data, side, wanted.repeats, folder, stamp)
    return notes


def _write_attributions(rows: Sequence[ExplainedRow], path: Path) -> None:
    table = [
        {
            "subject_id": row.cells["subject_id"],
            "image": row.cells["image"],
            "feature": each.name,
            "value": row.cells[each.name],
            "log_odds": each.log_odds,
            "risk": row.risk,
            "risk_without": each.risk_without,
        }
        for row in rows
        for each in row.explanation.attributions
    ]
    columns = ["subject_id", "image", "feature", "value", "log_odds", "risk", "risk_without"]
    pd.DataFrame(table, columns=columns).to_csv(path, index=False)


def _write_modalities(rows: Sequence[ExplainedRow], path: Path) -> None:
    table = [
        {
            "subject_id": row.cells["subject_id"],
            "image": row.cells["image"],
            "risk": row.risk,
            "log_odds_image": row.explanation.modalities.get("image"),
            "log_odds_clinical": row.explanation.modalities.get("clinical"),
        }
        for row in rows
    ]
    pd.DataFrame(table).to_csv(path, index=False)


def _write_sanity(
    model: FusionClassifier,
    data: RadiographDataModule,
    side: pd.DataFrame,
    methods: Sequence[str],
    path: Path,
) -> list[str]:
    films = side[side["image"] != ""].head(CHECKED)
    if films.empty:
        return ["No row of this side has a radiograph, so there is no sanity check."]
    batches = list(data.loader(films))

    checks = []
    for method in methods:
        explain = partial(maps_of, batches=batches, method=method)
        checks.append(sanity_check(model, explain, method, progress=True))
    content = {
        "what": "Spearman correlation of maps with those of the same network with fresh weights "
        "(Adebayo et al., arXiv 1810.03292)",
        "passes_within": LIMIT,
        "checks": [asdict(check) | {"passed": check.passed} for check in checks],
    }
    write_text(path, json.dumps(content, indent=2))
    return [check.verdict for check in checks]


def _panel(
    row: ExplainedRow,
    number: str,
    data: RadiographDataModule,
    colormaps: Sequence[str],
    folder: Path,
) -> Panel:
    """Write the overlays of a row; return what the sheet shows of it."""
    overlays: dict[str, Picture] = {}
    name = re.sub(r"[^\w.-]+", "-", f"{number}_{row.cells['subject_id']}")
    for kind, picture in _overlays(row, data, colormaps).items():
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}_{kind.replace(', ', '_')}.png")
        overlays[kind] = picture
    said = [f"{row.cells['subject_id']} (labelled {str(row.cells['label']).replace('_', ' ')})"]
    said.append(f"risk of low BMD {row.risk:.0%} (not calibrated)")
    parts = {"image": "radiograph", "clinical": "clinical values"}
    moved = [f"{parts[part]} {by:+.2f}" for part, by in row.explanation.modalities.items()]
    if moved:
        said.append(f"log-odds moved by {', '.join(moved)}")
    effects = {
        _said(data.schema, each.name, row.cells[each.name]): each.log_odds
        for each in row.explanation.attributions
    }
    return Panel("   ".join(said), overlays, effects)


def _overlays(
    row: ExplainedRow, data: RadiographDataModule, colormaps: Sequence[str]
) -> dict[str, Picture]:
    if not row.explanation.saliency:
        return {}
    assert data.cache is not None
    path = data.cohort.files(pd.DataFrame([row.cells]))[0]
    content = read_bytes(path)
    film, spacing = decode_radiograph(content, path), pixel_spacing_in(content, path)
    square = data.cache.preprocessing
    return {
        f"{method}, {colormap}": overlay(film, found, square, colormap=colormap, spacing=spacing)
        for method, found in row.explanation.saliency.items()
        for colormap in colormaps
    }


def _said(schema: ClinicalSchema, name: str, value: Any) -> str:
    """A clinical value in words, such as "age 67 years"."""
    feature = schema.features[schema.names.index(name)]
    said = str(value)
    if feature.kind in ("binary", "presence"):
        said = "yes" if value else "no"
    elif feature.kind == "numeric":
        unit = "" if feature.unit in (None, "count") else f" {feature.unit}"
        said = f"{value:.4g}{unit}"
    return f"{name.replace('_', ' ')}: {said}"


def _write_importance(
    model: FusionClassifier,
    data: RadiographDataModule,
    side: pd.DataFrame,
    repeats: int,
    folder: Path,
    stamp: str | None,
) -> None:
    loader = data.loader(side)
    batches = shown(loader, len(loader), "Encoding radiographs", progress=True)
    found = permutation_importance(
        model,
        encode_rows(model, batches),
        data.codes(side) > 0,
        side["group"].tolist(),
        repeats=repeats,
        progress=True,
    )
    table = pd.DataFrame([asdict(each) for each in found])
    table.rename(columns={"name": "input", "lost": "auroc_lost"}).to_csv(
        folder / "importance.csv", index=False
    )
    save_importance(found, folder / "importance.png", stamp=stamp)
