"""Could the label be told from the files, and does the image arm do better than that?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from osteofusion.audit.assess import read_labels
from osteofusion.audit.file_facts import FileFacts
from osteofusion.audit.predictability import Target
from osteofusion.audit.results.estimates import in_words
from osteofusion.evaluation.metrics import Estimate, Ints


def audit_shortcut(
    facts: FileFacts, labels: list[str], groups: Ints, image: Estimate | None
) -> dict[str, Any]:
    """Label read from facts of the file, beside what the image arm reaches.

    Args:
        facts: Facts of the n files.
        labels: n class names of the task.
        groups: (n,) codes of the split groups.
        image: AUROC of the image arm; None where there is no such arm.
    """
    target = Target(labels, groups)
    if target.reason is not None:
        return {"reason": target.reason}
    readings = read_labels(target, facts, pd.Series([""] * len(labels)))
    rows = [
        asdict(item.reading)
        | {"in_pixels": item.visible, "p_adjusted": item.adjusted, "readable": item.above_chance}
        for item in readings
    ]
    return {"reason": None, "verdict": _verdict(rows, image), "rows": rows}


def _verdict(rows: list[dict[str, Any]], image: Estimate | None) -> list[str]:
    seen = [row for row in rows if row["in_pixels"] and row["readable"]]
    unseen = [row["what"] for row in rows if not row["in_pixels"] and row["readable"]]
    said = []
    if seen:
        best = max(seen, key=lambda row: row["auroc"])
        value = in_words(Estimate(best["auroc"], best["rows"], best["low"], best["high"]))
        said.append(
            f"A network may tell the label without looking at bone: from {best['what']}, AUROC "
            f"{value}."
        )
    else:
        said.append("The label cannot be told from what a network sees of the file beside bone.")
    if image is not None and image.value is not None:
        said.append(f"The image arm reaches {in_words(image)} on the test rows.")
    if unseen:
        said.append(f"Outside the pixels the label shows in: {', '.join(unseen)}.")
    return said
