"""From predictions to metrics, intervals, baselines, tables and figures; no torch."""

from osteofusion.evaluation.auroc import (
    ClusteredAuroc,
    auroc_difference,
    auroc_interval,
    clustered_auroc,
    newcombe_interval,
)
from osteofusion.evaluation.baselines import BaselineRows, Baselines, fit_baselines
from osteofusion.evaluation.evaluate import ArmEvaluation, Evaluation, evaluate
from osteofusion.evaluation.figures import draw_sheet, save_figure
from osteofusion.evaluation.intervals import ClusterBootstrap, wilson_interval
from osteofusion.evaluation.metrics import Estimate, metric_names, point_metrics
from osteofusion.evaluation.predictions import add_arms, read_rows
from osteofusion.evaluation.subjects import Combine, combine_subjects
from osteofusion.evaluation.table import render_table

__all__ = [
    "ArmEvaluation",
    "BaselineRows",
    "Baselines",
    "ClusterBootstrap",
    "ClusteredAuroc",
    "Combine",
    "Estimate",
    "Evaluation",
    "add_arms",
    "auroc_difference",
    "auroc_interval",
    "clustered_auroc",
    "combine_subjects",
    "draw_sheet",
    "evaluate",
    "fit_baselines",
    "metric_names",
    "newcombe_interval",
    "point_metrics",
    "read_rows",
    "render_table",
    "save_figure",
    "wilson_interval",
]
