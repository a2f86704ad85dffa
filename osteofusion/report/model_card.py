"""The model card, in the layout of the Hugging Face hub, as honest as the report."""

from __future__ import annotations

from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from osteofusion.evaluation.curves import words
from osteofusion.report.read import Material
from osteofusion.report.reading import fusion_verdict, limits, sentences
from osteofusion.report.tables import headline_metrics, ordered_arms
from osteofusion.report.words import arm_words, inline, metric_words

_CHECKPOINTS = {"run": "checkpoints/best.ckpt", "study": "cells/CELL", "stages": "staged"}


def model_card(material: Material) -> str:
    """The card as Markdown with a YAML head."""
    evaluation = material.evaluation
    metrics = headline_metrics(evaluation)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; nothing of it is put into a page by us
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    counts = ", ".join(f"{n} {words(name)}" for name, n in evaluation["class_counts"].items())
    folds = evaluation.get("n_folds", 1)
    hardware = material.environment.get("hardware", {})
    text: str = environment.get_template("model_card.md.j2").render(
        material=material,
        evaluation=evaluation,
        environment={"osteofusion": None, "initial_weights": None, **material.environment},
        front=yaml.safe_dump(_front(material), sort_keys=False),
        verdict=fusion_verdict(evaluation),
        model={
            key: (material.config.get("model") or {}).get(key, "not recorded")
            for key in ("backbone", "fusion", "clinical_encoder", "head")
        },
        region=material.manifest.region if material.manifest else "the one trained on",
        counts=counts,
        folds=folds,
        metric=metric_words(metrics[0], material.classes),
        metrics=[metric_words(name, material.classes) for name in metrics],
        rows=[
            [
                arm_words(arm),
                *(inline(evaluation["arms"][arm]["metrics"].get(name)) for name in metrics),
            ]
            for arm in ordered_arms(evaluation)
        ],
        readings=sentences(material),
        limits=limits(material),
        tried=_tried(material),
        checkpoint=_CHECKPOINTS[material.kind],
        hardware=f"Trained on {hardware.get('platform', 'a machine that was not recorded')}, "
        f"{', '.join(hardware.get('gpus') or []) or 'no GPU'}.",
        arm_words=arm_words,
    )
    return text


def _front(material: Material) -> dict[str, object]:
    return {
        "library_name": "osteofusion",
        "license": "other",
        "pipeline_tag": "image-classification",
        "tags": [
            "medical-imaging", "radiography", "osteoporosis", "bone-mineral-density", "multimodal",
            *(["synthetic-data"] if material.stamp else []),
        ],
        "metrics": ["roc_auc", "accuracy", "f1", "matthews_correlation"],
    }  # fmt: skip


def _tried(material: Material) -> str:
    if material.kind != "study":
        return "AUTHOR: how many configurations were tried in all."
    tried = material.study.get("configurations_tried")
    looks = 0 if material.looks is None else len(material.looks)
    return f"{tried} configurations were tried; test folds were looked at {looks} times."
