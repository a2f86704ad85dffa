"""What was tried, how often test folds were looked at, and where it ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osteofusion.report.blocks import Block, Bullets, Grid, Heading, Paragraph, Section, absent
from osteofusion.report.read import Material

_SETTINGS = {
    "model": (
        "arm", "backbone", "pretrained", "frozen_backbone", "fusion", "clinical_encoder", "head",
        "loss", "class_weights", "optimizer", "learning_rate", "backbone_learning_rate",
        "weight_decay", "dropout", "modality_dropout",
    ),
    "data": (
        "task", "features", "image_size", "augmentation", "augmentation_views", "folds", "fold",
        "repeat", "validation", "test", "batch_size", "balanced_sampler",
    ),
    "trainer": ("max_epochs", "precision", "devices"),
}  # fmt: skip


def looks_section(material: Material) -> Section:
    """Configurations tried and looks at test folds."""
    section = Section("looks", "What was tried")
    if material.kind == "run":
        section.blocks.append(
            Paragraph(
                "This folder is one run and knows nothing of others. Whoever has run several and "
                "shows the best has chosen on the test side; say how many there were. A study "
                "counts them."
            )
        )
        return section
    study = material.study
    if material.kind == "stages":
        section.blocks += _carried(study)
        return section
    looks = study.get("looks_per_fold", [])
    counts = [each["looks"] for each in looks]
    total = len(material.looks) if material.looks is not None else sum(counts)
    section.blocks.append(
        Paragraph(
            f"{study.get('configurations_tried', 'An unknown number of')} configurations were "
            f"tried in this folder, and test folds were looked at {total} times"
            f"{_each(counts)}."
        )
    )
    if looks:
        rows = tuple((str(e["repeat"]), str(e["fold"]), str(e["looks"])) for e in looks)
        section.blocks.append(Grid("Looks at each test fold.", ("repeat", "fold", "looks"), rows))
    cells = study.get("cells", {})
    if cells and cells["done"] < cells["planned"]:
        text = f"{cells['done']} of {cells['planned']} cells are done."
        section.blocks.append(Paragraph(text, "wrong"))
    failed = study.get("failed") or {}
    if failed:
        items = tuple(f"{cell}: {error}" for cell, error in failed.items())
        section.blocks.append(Bullets(items, f"{len(failed)} failed cells"))
    variants = study.get("variants") or {}
    if len(variants) > 1:
        items = tuple(
            f"{name}: {', '.join(f'{k} = {v}' for k, v in keys.items()) or 'nothing changed'}"
            for name, keys in variants.items()
        )
        section.blocks += [Heading("Variants"), Bullets(items)]
    return section


def _carried(stages: Mapping[str, Any]) -> list[Block]:
    seen, tested = stages.get("test_rows_seen_in_stage_one"), stages.get("test_rows")
    return [
        Paragraph(
            f"Stage one: {stages['tasks'][0]}; stage two: {stages['tasks'][-1]}. Of {tested} test "
            f"rows, {seen} were trained or validated on in stage one."
        ),
        Bullets(tuple(map(str, stages.get("carried_parts", []))), "Carried over"),
        Bullets(tuple(map(str, stages.get("new_parts", []))), "Begun anew"),
    ]


def _each(counts: list[int]) -> str:
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    return f", {least if least == most else f'{least} to {most}'} times each"


def environment_section(material: Material) -> Section:
    """Settings, versions, hardware and hashes."""
    section = Section("environment", "Settings and environment")
    chosen = [
        (f"{part}.{name}", _shown(settings[name]))
        for part, names in _SETTINGS.items()
        if isinstance(settings := material.config.get(part), dict)
        for name in names
        if name in settings
    ]
    seed = material.config.get("seed_everything")
    of = " of the first finished cell" if material.kind == "study" else ""
    if chosen:
        rows = (("seed_everything", str(seed)), *chosen)
        caption = f"Main settings{of}; config.yaml has all of them."
        section.blocks.append(Grid(caption, ("setting", "value"), rows, frozenset({1})))
    else:
        section.blocks.append(absent("Settings", "No cell has a config.yaml."))
    if not material.environment:
        section.blocks.append(absent("Environment", "There is no environment.json."))
        return section
    found = tuple(_flat(material.environment))
    caption = "Versions, hardware, and hashes of data and weights."
    section.blocks.append(Grid(caption, ("what", "value"), found, frozenset({1})))
    return section


def _flat(content: Mapping[str, Any], start: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in content.items():
        if isinstance(value, dict):
            found += _flat(value, f"{start}{key}, ")
        else:
            found.append((f"{start}{key}", _shown(value)))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
