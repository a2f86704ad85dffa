"""What a study found: tables, decisions and audits, written beside its cells and shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape

from osteofusion.data.labels import task_classes
from osteofusion.errors import OsteofusionError
from osteofusion.evaluation import (
    Combine,
    Evaluation,
    calibrate_folds,
    combine_subjects,
    decide,
    evaluate,
    reading,
    render_differences,
    render_table,
)
from osteofusion.evaluation.classification import accuracy_gap, gaps_in_json
from osteofusion.evaluation.regions import evaluate_regions
from osteofusion.evaluation.variants import REFERENCES, model_words, render_variants
from osteofusion.files import atomic_path, write_text
from osteofusion.training.study.collect import Collected, collect, comparable
from osteofusion.training.study.config import Study
from osteofusion.training.study.executors import Executor
from osteofusion.training.study.records import Records

BETWEEN = "between variants"  # no variant's name: it has a space
_FIRST = ("fused", "image", "tabular")
_SAME_RUN = ["variant", "repeat", "fold", "seed"]


@dataclass(frozen=True)
class Found:
    """What a study's rows say.

    Attributes:
        evaluations: Variant, and :data:`BETWEEN`, to the evaluation of all rows.
        regions: The same keys to the evaluation of each region; empty where there is one.
        gaps: Variant to its arms' accuracy on their training rows less that on the test rows.
    """

    evaluations: dict[str, Evaluation]
    regions: dict[str, dict[str, Evaluation]]
    gaps: dict[str, pd.DataFrame]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {
            name: evaluation.to_dict()
            | {"regions": {key: each.to_dict() for key, each in self.regions[name].items()}}
            | ({"accuracy_gap": gaps_in_json(self.gaps[name])} if name in self.gaps else {})
            for name, evaluation in self.evaluations.items()
        }


def report(study: Study, name: str, records: Records, executor: Executor) -> None:
    """Write and show what the finished cells found.

    Args:
        study: The study.
        name: Its name.
        records: Its cells.
        executor: Audits run there, beside the evaluation.

    Raises:
        OsteofusionError: nothing can be compared yet.
    """
    collected = collect(records)
    facts = _facts(records)
    classes = task_classes(facts["task"])
    predictions = collected.predictions
    if study.calibrate:
        predictions = calibrate_folds(predictions, classes)
    with atomic_path(records.out / "predictions.csv") as temporary:
        predictions.to_csv(temporary, index=False)
    for file in ("cohort.csv", "join_report.json", "splits.csv"):
        shutil.copyfile(records.folder(records.finished[0]) / file, records.out / file)
    _write(records, "study", _description(study, name, records, facts, classes))
    single = comparable(records, predictions)
    compared = _combined(single, classes, facts["combine"])
    if compared.empty:
        raise OsteofusionError(
            f"No test fold has every arm yet ({collected.notes[0]}); nothing is compared: see the "
            f"logs in {records.out / 'cells'}, and run the same command again."
        )
    audits = _start_audits(study, compared, records, executor) if study.audits else None
    found = Found(
        _evaluate(study, compared, classes, collected.notes),
        _evaluate_regions(study, single, classes, facts["combine"]),
        # As the models call: calibration is fitted on test folds, so training rows have none.
        _gaps(study, records, collected, classes, facts["combine"]),
    )
    _write(records, "evaluation", found.to_dict())
    _write(records, "decisions", _decide(study, compared, classes))
    said = _write_audits(records, audits) if audits is not None else []
    _show(study, records, facts, found, said)


def _facts(records: Records) -> dict[str, Any]:
    """Task, data and the way subjects are combined; the same in every cell."""
    cell = records.finished[0]
    metrics = json.loads((records.folder(cell) / "metrics.json").read_text(encoding="utf-8"))
    return {**metrics["data"], "task": metrics["task"], "combine": cell.settings["combine"]}


def _description(
    study: Study, name: str, records: Records, facts: dict[str, Any], classes: list[str]
) -> dict[str, Any]:
    folds = dict.fromkeys((cell.repeat, cell.fold) for cell in records.cells)
    looks = records.looks().groupby(["repeat", "fold"]).size().to_dict()
    return {
        "name": name,
        "task": facts["task"],
        "classes": classes,
        "manifest": facts["manifest"],
        "citation": facts["citation"],
        "synthetic": facts["synthetic"],
        "synthetic_what": facts["synthetic_what"],
        "arms": list(study.arms),
        "variants": study.variants,
        "seeds": list(study.seeds),
        "repeats": len({repeat for repeat, _ in folds}),
        "folds": len({fold for _, fold in folds}),
        "calibrated": study.calibrate,
        "cells": {"done": len(records.finished), "planned": len(records.cells)},
        "failed": records.failed,
        "configurations_tried": records.tried,
        "looks_per_fold": [
            {"repeat": repeat, "fold": fold, "looks": int(looks.get((repeat, fold), 0))}
            for repeat, fold in folds
        ],
    }


def _combined(rows: pd.DataFrame, classes: Sequence[str], how: Any) -> pd.DataFrame:
    """One row a subject where a subject has several radiographs, as `fit` counts them."""
    if how is None or not rows.duplicated([*_SAME_RUN, "arm", "subject_id"]).any():
        return rows
    parts = [combine_subjects(part, classes, how) for _, part in rows.groupby(_SAME_RUN)]
    return pd.concat(parts, ignore_index=True)


def _evaluate(
    study: Study, rows: pd.DataFrame, classes: Sequence[str], notes: Sequence[str]
) -> dict[str, Evaluation]:
    found = {
        variant: evaluate(_of_variant(rows, variant).drop(columns="variant"), classes, notes=notes)
        for variant in study.variants
    }
    if len(study.variants) > 1:
        found[BETWEEN] = evaluate(_named(study, rows), classes, notes=notes, compare=_pairs(study))
    return found


def _evaluate_regions(
    study: Study, rows: pd.DataFrame, classes: Sequence[str], how: Combine | None
) -> dict[str, dict[str, Evaluation]]:
    found = {
        variant: evaluate_regions(
            _of_variant(rows, variant).drop(columns="variant"),
            classes,
            arms=[*study.arms, *REFERENCES],
            combine=how,
        )
        for variant in study.variants
    }
    if len(study.variants) > 1:
        found[BETWEEN] = evaluate_regions(
            _named(study, rows), classes, combine=how, compare=_pairs(study)
        )
    return found


def _named(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """The trained arms of all variants, called variant/arm."""
    trained = rows[rows["arm"].isin(study.arms)]
    return trained.assign(arm=trained["variant"] + "/" + trained["arm"]).drop(columns="variant")


def _pairs(study: Study) -> list[tuple[str, str]]:
    """Each arm of each variant with that of the first."""
    first, *others = study.variants
    return [
        (f"{other}/{arm}", f"{first}/{arm}") for other in others for arm in _in_order(study.arms)
    ]


def _gaps(
    study: Study, records: Records, collected: Collected, classes: Sequence[str], how: Any
) -> dict[str, pd.DataFrame]:
    """Of the rows that are compared, subjects combined on either side as on the other."""
    sides = [
        _combined(rows[rows["arm"].isin(study.arms)], classes, how)
        for rows in (
            comparable(records, collected.training),
            comparable(records, collected.predictions),
        )
    ]
    both = pd.concat(sides, ignore_index=True)
    return {
        variant: accuracy_gap(_of_variant(both, variant).drop(columns="variant"), classes)
        for variant in study.variants
    }


def _decide(study: Study, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Variant and arm to its decisions; the arm that has most to say first."""
    return {
        variant: {
            arm: decide(
                _of_variant(rows, variant), classes, arm=arm, prevalence=study.prevalence
            ).to_dict()
            for arm in _in_order(study.arms)
        }
        for variant in study.variants
    }


def _start_audits(
    study: Study, rows: pd.DataFrame, records: Records, executor: Executor
) -> Future[tuple[dict[str, Any], str]]:
    """Of the first variant, with the settings of the arm that reads most."""
    variant = next(iter(study.variants))
    arm = _in_order(study.arms)[0]
    own = (cell for cell in records.cells if (cell.variant, cell.arm) == (variant, arm))
    return executor.submit(_audit, next(own).settings, _of_variant(rows, variant))


def _audit(settings: dict[str, Any], rows: pd.DataFrame) -> tuple[dict[str, Any], str]:
    from osteofusion.training.study.audits import audit

    return audit(settings, rows)


def _write_audits(records: Records, audits: Future[tuple[dict[str, Any], str]]) -> list[str]:
    """Write them; their verdicts for the terminal."""
    found, error = audits.result()
    if error:
        return [f"The audits could not be run: {error}"]
    _write(records, "audits", found)
    said = [
        f"{each['title']}: {' '.join(each['verdict']) or each['reason'] or 'nothing found'}"
        for each in found.values()
    ]
    return [*said, f"All of it: {records.out / 'audits.json'}"]


def _of_variant(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    """A variant's rows, the fused arm first, since the first arm is what others are compared to."""
    own = rows[rows["variant"] == variant]
    arms = own["arm"].unique().tolist()
    ordered = dict.fromkeys([*_in_order(arms), *arms])
    order = {arm: place for place, arm in enumerate(ordered)}
    return own.sort_values("arm", key=lambda arm: arm.map(order), kind="stable")


def _in_order(arms: Sequence[str]) -> list[str]:
    return [arm for arm in _FIRST if arm in arms]


def _show(
    study: Study, records: Records, facts: dict[str, Any], found: Found, audits: Sequence[str]
) -> None:
    console = Console()
    if len(study.variants) > 1:
        _show_variants(console, study, records, found)
    else:
        evaluation = next(iter(found.evaluations.values()))
        console.print(render_table(evaluation))
        console.print(render_differences(evaluation))
        for region, apart in next(iter(found.regions.values())).items():
            console.print(f"{region} alone", style="bold")
            console.print(render_table(apart))
        console.print(escape(reading(evaluation)), style="bold")
    for sentence in audits:
        console.print(sentence, markup=False)
    looks = len(records.looks())
    console.print(
        f"{records.tried} configurations were tried, and test folds were looked at {looks} times."
    )
    if facts["synthetic"]:
        console.print(f"These figures are from {facts['synthetic_what']}.", style="bold red")
    console.print(f"Source: {facts['citation']}", style="dim")
    print(f"Study folder: {records.out}")


def _show_variants(console: Console, study: Study, records: Records, found: Found) -> None:
    """One table of all variants; the rest of each stands in the study's files."""
    arms = _in_order(study.arms)
    own = {variant: found.evaluations[variant] for variant in study.variants}
    console.print(render_variants(own, arms, found.gaps))
    for region in found.regions[next(iter(study.variants))]:
        apart = {variant: found.regions[variant][region] for variant in study.variants}
        console.print(render_variants(apart, arms, title=f"Variants, {region} alone"))
    between = found.evaluations[BETWEEN]
    differences = [
        replace(each, first=model_words(each.first, arms), second=model_words(each.second, arms))
        for each in between.differences
    ]
    console.print(render_differences(replace(between, differences=differences)))
    for variant, evaluation in own.items():
        if {"fused", "tabular"} <= {*study.arms}:
            console.print(escape(f"{variant}: {reading(evaluation)}"), style="bold")
    console.print(
        f"Every metric of every variant is in {records.out / 'evaluation.json'}, every prediction "
        f"of every model in {records.out / 'predictions.csv'} (column `variant`); `osteofusion "
        f"report {records.out}` shows both.",
        markup=False,
    )


def _write(records: Records, name: str, content: Any) -> None:
    text = json.dumps(content, indent=2, allow_nan=False)
    write_text(records.out / f"{name}.json", text + "\n")
