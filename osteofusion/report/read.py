"""Read the folder of a run or of a study; nothing is computed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from osteofusion.data.manifest import Manifest, load_manifest
from osteofusion.data.unite import unite
from osteofusion.errors import ManifestError, OsteofusionError

Kind = Literal["run", "study", "stages"]
BETWEEN = "between variants"  # as a study calls the comparison of its variants
TRAINED = ("fused", "image", "tabular", "staged", "scratch")
_RUN_FILES = ("config.yaml", "metrics.json", "predictions.csv", "cohort.csv", "join_report.json")
_STUDY_FILES = ("study.json", "evaluation.json", "predictions.csv")
_STAGES_FILES = ("comparison.json", "predictions.csv")


class ReportError(OsteofusionError):
    """A folder cannot be reported on."""


@dataclass(frozen=True)
class Material:
    """What a run or a study left behind.

    Attributes:
        kind: ``run``, ``study`` or ``stages``.
        folder: Where it lies.
        name: As its title says.
        task: ``binary``, ``osteoporosis`` or ``three_class``.
        classes: Class names in order.
        data: Manifest names, citation, and whether the data are synthetic.
        arms: The trained arms, the main one first.
        evaluations: Variant (`""` of a run) to its evaluation, as in metrics.json.
        between: The evaluation that compares variants with each other; None where there is one.
        predictions: Test rows of all arms and variants, baselines with them.
        audits: audits.json; empty where there is none.
        study: study.json, or comparison.json of stages; empty for a run.
        cells: cells.csv; None for a run.
        looks: looks.csv; None for a run.
        config: Settings of the run, of the study's first finished cell, or of stage two.
        environment: environment.json; empty where there is none.
        join: join_report.json; empty where there is none.
        cohort: The joined table; None where it is not there.
        splits: The sides; None where they are not there.
        logs: Name of each training to its epochs.
        manifest: What the columns mean; None where it can no longer be read.
    """

    kind: Kind
    folder: Path
    name: str
    task: str
    classes: list[str]
    data: Mapping[str, Any]
    arms: list[str]
    evaluations: dict[str, dict[str, Any]]
    between: dict[str, Any] | None
    predictions: pd.DataFrame
    audits: Mapping[str, Any]
    study: Mapping[str, Any]
    cells: pd.DataFrame | None
    looks: pd.DataFrame | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    join: Mapping[str, Any]
    cohort: pd.DataFrame | None
    splits: pd.DataFrame | None
    logs: dict[str, pd.DataFrame]
    manifest: Manifest | None

    @property
    def stamp(self) -> str:
        """What of the data is synthetic, in words; empty where nothing is."""
        said = "" if self.manifest is None else str(self.manifest.synthetic_what)
        if said or not self.data.get("synthetic"):
            return said
        return "SYNTHETIC DATA: no patient stands behind some or all of it"

    @property
    def main(self) -> str:
        """The arm that the report is about: fused where there is one."""
        arms: list[str] = list(self.evaluation["arms"])
        return next(arm for arm in (*TRAINED, *arms) if arm in arms)

    @property
    def evaluation(self) -> dict[str, Any]:
        """Of the first variant."""
        return next(iter(self.evaluations.values()))

    @property
    def variant(self) -> str:
        """The first variant; empty for a run."""
        return next(iter(self.evaluations))

    @property
    def first_predictions(self) -> pd.DataFrame:
        """Test rows of the first variant."""
        if "variant" not in self.predictions:
            return self.predictions
        return self.predictions[self.predictions["variant"] == self.variant]

    @property
    def low(self) -> str:
        """Name of the side that the binary readings are about."""
        name = self.classes[-1] if len(self.classes) == 2 else "low_bmd"
        return name.replace("low_bmd", "low BMD").replace("_", " ")


def read_material(folder: Path) -> Material:
    """Read a run folder or a study folder.

    Raises:
        ReportError: it is neither, it is not finished, or a file is damaged.
    """
    if not folder.is_dir():
        raise ReportError(
            f"{folder} is no folder; give the run folder that `osteofusion fit` names at its end, "
            "or a study folder."
        )
    if (folder / "study.json").is_file() or (folder / "study.yaml").is_file():
        _require(folder, _STUDY_FILES, "study", "run `osteofusion study` again to finish it")
        return _read_study(folder)
    if (folder / "stages.json").is_file():
        _require(folder, _STAGES_FILES, "staged run", "run `osteofusion stages` again to finish it")
        return _read_stages(folder)
    if (folder / "config.yaml").is_file():
        last = folder / "checkpoints" / "last.ckpt"
        again = f"`osteofusion fit --config {folder / 'config.yaml'} --ckpt_path {last}`"
        _require(folder, _RUN_FILES, "run", f"finish it with {again}, or fit it again")
        return _read_run(folder)
    raise ReportError(
        f"{folder} is no run or study folder (it holds neither config.yaml nor study.yaml nor "
        "stages.json); give the folder that `osteofusion fit` or `study` names at its end."
    )


def _require(folder: Path, names: tuple[str, ...], what: str, mend: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ReportError(
            f"The {what} in {folder} is not finished (no {', '.join(missing)}); {mend}."
        )


def _read_run(folder: Path) -> Material:
    metrics = _json(folder / "metrics.json")
    need(metrics, folder / "metrics.json", "data", "task", "classes", "arms", "class_counts")
    predictions = _csv(folder / "predictions.csv", "subject_id", "image", "split", "arm", "label")
    test = predictions[predictions["split"] == "test"].copy()
    trained = list(dict.fromkeys(test["arm"]))
    if (folder / "baselines.csv").is_file():
        test = pd.concat([test, _csv(folder / "baselines.csv", "arm")], ignore_index=True)
    config = _yaml(folder / "config.yaml")
    logs = {_arm(config): _log(folder)}
    for part in ("image", "tabular"):
        if (folder / "ablation" / part).is_dir():
            logs[part] = _log(folder / "ablation" / part)
    return Material(
        kind="run",
        folder=folder,
        name=f"{metrics['task'].replace('_', ' ')}, {_arm(config)} model",
        task=metrics["task"],
        classes=list(metrics["classes"]),
        data=metrics["data"],
        arms=[arm for arm in trained if arm in TRAINED],
        evaluations={"": metrics},
        between=None,
        predictions=test,
        audits=_optional(folder / "audits.json"),
        study={},
        cells=None,
        looks=None,
        config=config,
        environment=_optional(folder / "environment.json"),
        join=_json(folder / "join_report.json"),
        cohort=_csv(folder / "cohort.csv", "subject_id", "label"),
        splits=_maybe_csv(folder / "splits.csv"),
        logs={name: log for name, log in logs.items() if log is not None},
        manifest=_manifest(config),
    )


def _read_study(folder: Path) -> Material:
    study = _json(folder / "study.json")
    need(study, folder / "study.json", "task", "classes", "arms")
    evaluations = _json(folder / "evaluation.json")
    between = evaluations.pop(BETWEEN, None)
    for variant, evaluation in evaluations.items():
        need(evaluation, folder / f"evaluation.json ({variant})", "arms", "class_counts")
    cells = _maybe_csv(folder / "cells.csv")
    finished = _finished(cells)
    runs = {cell: folder / "cells" / cell for cell in finished}
    runs = {cell: run for cell, run in runs.items() if (run / "config.yaml").is_file()}
    first = next(iter(runs.values()), folder)
    config = _yaml(first / "config.yaml") if runs else {}
    logs = {cell: _log(run) for cell, run in runs.items()}
    return Material(
        kind="study",
        folder=folder,
        name=f"study {study.get('name', folder.name)}",
        task=study["task"],
        classes=list(study["classes"]),
        data=study,
        arms=list(study["arms"]),
        evaluations=evaluations,
        between=between,
        predictions=_csv(folder / "predictions.csv", "subject_id", "image", "arm", "label"),
        audits=_optional(folder / "audits.json"),
        study=study,
        cells=cells,
        looks=_maybe_csv(folder / "looks.csv"),
        config=config,
        environment=_optional(first / "environment.json"),
        join=_optional(folder / "join_report.json"),
        cohort=_maybe_csv(folder / "cohort.csv"),
        splits=_maybe_csv(folder / "splits.csv"),
        logs={name: log for name, log in logs.items() if log is not None},
        manifest=_manifest(config),
    )


def _read_stages(folder: Path) -> Material:
    comparison = _json(folder / "comparison.json")
    need(comparison, folder / "comparison.json", "data", "tasks", "classes", "arms")
    parts = {part: folder / part for part in ("staged", "scratch", "binary")}
    if comparison.get("folds") is not None:
        parts = {
            f"{part} fold {fold}": folder / part / f"fold_{fold}"
            for part in parts
            for fold in comparison["folds"]
        }
    first = next(iter(parts.values()))
    config = _yaml(first / "config.yaml")
    logs = {name: _log(path) for name, path in parts.items()}
    return Material(
        kind="stages",
        folder=folder,
        name=" to ".join(task.replace("_", " ") for task in comparison["tasks"]) + " in stages",
        task=comparison["tasks"][-1],
        classes=list(comparison["classes"]),
        data=comparison["data"],
        arms=[arm for arm in TRAINED if arm in comparison["arms"]],
        evaluations={"": comparison},
        between=None,
        predictions=_csv(folder / "predictions.csv", "subject_id", "image", "arm", "label"),
        audits={},
        study=comparison,
        cells=None,
        looks=None,
        config=config,
        environment=_optional(first / "environment.json"),
        join=_optional(first / "join_report.json"),
        cohort=_maybe_csv(first / "cohort.csv"),
        splits=_maybe_csv(first / "splits.csv"),
        logs={name: log for name, log in logs.items() if log is not None},
        manifest=_manifest(config),
    )


def _finished(cells: pd.DataFrame | None) -> list[str]:
    """Names of the finished cells, those of the fused arm first: they read most."""
    if cells is None:
        return []
    done = cells[cells["status"] == "done"]
    order = {arm: place for place, arm in enumerate(TRAINED)}
    return done.sort_values("arm", key=lambda arm: arm.map(order), kind="stable")["cell"].tolist()


def need(content: Mapping[str, Any], path: Path, *keys: str) -> None:
    """Refuse a file that lacks what every report needs.

    Raises:
        ReportError: a key is missing.
    """
    missing = [key for key in keys if key not in content]
    if missing:
        raise ReportError(
            f"{path} has no {', '.join(map(repr, missing))}, so it was not written by this version "
            "of osteofusion; make it again."
        )


def _arm(config: Mapping[str, Any]) -> str:
    return str((config.get("model") or {}).get("arm", "fused"))


def _log(folder: Path) -> pd.DataFrame | None:
    """Epochs of a training, parts of an interrupted one joined; one row an epoch."""
    parts = [_csv(path, "epoch") for path in sorted(folder.glob("logs/*/metrics.csv"))]
    if not parts:
        return None
    return pd.concat(parts).groupby("epoch").last()  # the last that is known: a resumed epoch


def _manifest(config: Mapping[str, Any]) -> Manifest | None:
    named = (config.get("data") or {}).get("manifest")
    names: list[Any] = named if isinstance(named, list) else [named]
    try:
        return unite([load_manifest(name) for name in names])
    except (ManifestError, OSError, TypeError):
        return None


def _optional(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}


def _maybe_csv(path: Path) -> pd.DataFrame | None:
    return _csv(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = f" near line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ReportError(
            f"{path} is damaged{line}: it is no JSON; make the run or study again, or restore the "
            "file."
        ) from None
    if not isinstance(content, dict):
        raise ReportError(f"{path} is damaged: it holds no object; restore the file.")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise ReportError(f"{path} is damaged: it is no YAML of settings; restore the file.")
    return content


def _csv(path: Path, *needed: str) -> pd.DataFrame:
    try:
        # Identifiers such as 007 or "NA" stay what they are.
        text = {"subject_id": str, "image": str, "cell": str, "variant": str}
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except (ValueError, UnicodeDecodeError) as error:  # pandas' errors are ValueErrors
        raise ReportError(f"{path} is damaged: {error}; restore the file.") from None
    missing = [name for name in needed if name not in table]
    if missing:
        raise ReportError(
            f"{path} has no column {', '.join(map(repr, missing))}; restore the file."
        )
    if "image" in table:  # a cohort without radiographs
        table["image"] = table["image"].fillna("")
    return table
