"""The arms in each anatomical region apart, where a cohort has several."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from osteofusion.evaluation.evaluate import Evaluation, evaluate
from osteofusion.evaluation.subjects import Combine, combine_subjects


def evaluate_regions(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    *,
    arms: Sequence[str] | None = None,
    combine: Combine | None = None,
    compare: Sequence[tuple[str, str]] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate the rows of each region on their own, as all of them are evaluated together.

    A model that reads knees well and spines not at all looks fair on the average of both.

    Args:
        predictions: As for :func:`osteofusion.evaluation.evaluate`, one row a radiograph, with
            `region`.
        classes: Class names in order.
        arms: Arms to evaluate; default: all.
        combine: How several radiographs of a subject, here of one region, are taken together.
        compare: Arms whose difference to report, as for :func:`evaluate`.

    Returns:
        Region to evaluation, by name; empty where there is one region or none is named.
    """
    if "region" not in predictions:
        return {}
    if arms is not None:
        predictions = predictions[predictions["arm"].isin(arms)]
    regions = sorted(predictions["region"].dropna().unique())
    if len(regions) < 2:
        return {}
    found = {}
    for region in regions:
        rows = predictions[predictions["region"] == region]
        if combine is not None:
            rows = combine_subjects(rows, classes, combine)
        found[str(region)] = evaluate(rows, classes, compare=compare)
    return found
