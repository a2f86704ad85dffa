"""From predictions to metrics, intervals, baselines, tables and figures; no torch."""

from osteofusion.evaluation.auroc import (
    ClusteredAuroc,
    auroc_interval,
    clustered_auroc,
    newcombe_interval,
)
from osteofusion.evaluation.baselines import BaselineRows, Baselines, fit_baselines
from osteofusion.evaluation.calibration import Calibration, calibrate_folds, fit_calibration
from osteofusion.evaluation.decisions import Decisions, decide
from osteofusion.evaluation.differences import Difference
from osteofusion.evaluation.evaluate import ArmEvaluation, Evaluation, evaluate
from osteofusion.evaluation.figures import draw_sheet, save_figure
from osteofusion.evaluation.intervals import ClusterBootstrap, wilson_interval
from osteofusion.evaluation.metrics import Estimate, metric_names
from osteofusion.evaluation.paired_auroc import auroc_difference
from osteofusion.evaluation.points import point_metrics
from osteofusion.evaluation.predictions import add_arms, read_rows
from osteofusion.evaluation.reading import reading
from osteofusion.evaluation.subjects import Combine, combine_subjects
from osteofusion.evaluation.table import render_differences, render_table

__all__ = [
    "ArmEvaluation",
    "BaselineRows",
    "Baselines",
    "Calibration",
    "ClusterBootstrap",
    "ClusteredAuroc",
    "Combine",
    "Decisions",
    "Difference",
    "Estimate",
    "Evaluation",
    "add_arms",
    "auroc_difference",
    "auroc_interval",
    "calibrate_folds",
    "clustered_auroc",
    "combine_subjects",
    "decide",
    "draw_sheet",
    "evaluate",
    "fit_baselines",
    "fit_calibration",
    "metric_names",
    "newcombe_interval",
    "point_metrics",
    "read_rows",
    "reading",
    "render_differences",
    "render_table",
    "save_figure",
    "wilson_interval",
]
