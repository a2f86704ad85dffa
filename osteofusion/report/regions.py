"""Every arm in each anatomical region apart."""

from __future__ import annotations

from typing import Any

from osteofusion.evaluation.curves import words
from osteofusion.report.blocks import Block, Heading
from osteofusion.report.tables import headline_metrics, metric_grid, ordered_arms


def region_blocks(evaluation: dict[str, Any]) -> list[Block]:
    """A table of headline metrics for each region; nothing where there is one region."""
    found: list[Block] = []
    for region, apart in (evaluation.get("regions") or {}).items():
        name = words(region)
        counts = ", ".join(f"{n} {words(each)}" for each, n in apart["class_counts"].items())
        caption = (
            f"The {apart['n_rows']} test rows of {name} ({counts}); below each value its 95 % "
            "interval over split groups."
        )
        arms, classes = ordered_arms(apart), list(apart["classes"])
        found += [
            Heading(f"{name[:1].upper()}{name[1:]} alone"),
            metric_grid(apart, arms, headline_metrics(apart), classes, caption),
        ]
    return found
