"""What a run says of its data before it begins."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.panel import Panel

from osteofusion.training.datamodule import RadiographDataModule


def announce(
    data: RadiographDataModule, *, command: str, said: str = "", from_checkpoint: bool = False
) -> None:
    """Print the cohort, its sides, and what was left out of either.

    Args:
        data: The data of the run.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        said: A sentence on the choice of the arm.
        from_checkpoint: Whether a trained model meets the data.
    """
    console = Console()
    _say_cohort(console, data)
    if said:
        console.print(said, style="yellow")
    if left_out := len(data.cohort.table) - len(data.rows):
        regions = " and ".join(data.hparams["regions"])
        console.print(f"Of {regions} alone: {left_out} radiographs are left out.")
    if command == "fit":
        _say_left_out(console, data)
    if from_checkpoint and data.hparams["arm"] != "image":
        there = data.cohort.table.dropna(axis=1, how="all")
        if gone := [name for name in data.schema.names if name not in there]:
            console.print(
                f"No row has a value of {', '.join(gone)}, which the model was trained with; "
                "they count as missing.",
                style="yellow",
            )
    report = data.cohort.report
    if without := report.rows_without_label:
        console.print(
            f"{len(without)} subjects have no label, such as {without[0]}: they are left out.",
            style="yellow",
            markup=False,
        )
    problems = [name for name in report.problems if name != "rows_without_label"]
    if problems:
        named = ", ".join(name.replace("_", " ") for name in problems)
        console.print(f"The join found: {named}. See join_report.json.", style="yellow")


def _say_cohort(console: Console, data: RadiographDataModule) -> None:
    manifest = data.cohort.manifest
    if manifest.synthetic_what:
        said = f"This run uses {manifest.synthetic_what}."
        if manifest.synthetic:
            said += "\nReal data is two flags away:  --data.manifest mendeley --data.root DIR"
        console.print(Panel(said, style="bold red", expand=False))
    counts = data.rows["label"].value_counts()
    shown = ", ".join(
        f"{counts[name]} {name.replace('_', ' ')}" for name in data.class_names if name in counts
    )
    if len(counts) > 1:
        shown += f"; imbalance {counts.max() / counts.min():.1f} to 1"
    console.print(
        f"{manifest.title}: {len(data.rows)} radiographs of "
        f"{data.rows['subject_id'].nunique()} subjects ({shown or 'no labels'}); "
        f"{_counted(data.rows['split'])}"
    )
    if data.rows["region"].nunique() > 1:
        console.print(f"Regions: {_counted(data.rows['region'])}.", markup=False)


def _counted(column: pd.Series) -> str:
    """Values of a column with their numbers, the commonest first."""
    return ", ".join(f"{name} {count}" for name, count in column.value_counts().items())


def _say_left_out(console: Console, data: RadiographDataModule) -> None:
    if data.hparams["folds"] == "sites" and not data.hparams["splits"]:
        tested = data.side("test")["site"]
        left_out = sorted(data.rows["site"].unique())[data.hparams["fold"]]
        console.print(f"Left out for the test: site {left_out}")
        if tied := int((tested != left_out).sum()):
            console.print(
                f"and {tied} radiographs of other sites that are tied to it.", style="yellow"
            )
    if data.hparams["features"] is None and data.empty_features:
        console.print(
            f"Left out, as no training row has a value: {', '.join(data.empty_features)}.",
            style="yellow",
        )
