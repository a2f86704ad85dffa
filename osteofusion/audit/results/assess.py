"""All audits of a result, as plain values for ``audits.json``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from osteofusion.audit.file_facts import read_file_facts
from osteofusion.audit.results.arms import Arms, read_arms
from osteofusion.audit.results.estimates import area, auroc_estimate
from osteofusion.audit.results.gain import audit_gain
from osteofusion.audit.results.leakage import audit_leakage
from osteofusion.audit.results.learning import audit_learning
from osteofusion.audit.results.pairing import audit_pairing
from osteofusion.audit.results.people import read_people
from osteofusion.audit.results.shortcut import audit_shortcut
from osteofusion.audit.results.simple import AuditRows, rotate
from osteofusion.audit.results.subgroups import audit_subgroups
from osteofusion.data.cohort import Cohort
from osteofusion.data.labels import TASKS, task_classes
from osteofusion.data.page.families import acquisition_families
from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

_NO_IMAGES = {"reason": "the cohort has no radiographs"}


def assess_results(
    cohort: Cohort,
    task: str,
    features: Floats | None,
    design: Floats | None,
    predictions: pd.DataFrame,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """Audit a result.

    Args:
        cohort: The cohort of the result.
        task: ``binary``, ``osteoporosis`` or ``three_class``.
        features: (n, D) frozen image features, row i of the cohort's table; None without images.
        design: (n, F) encoded clinical columns, imputed and scaled without the label; None
            without clinical columns.
        predictions: Predictions table of one variant, as a study or run writes it.
        progress: Show progress bars on standard error.

    Returns:
        ``leakage``, ``shortcut``, ``subgroups``, ``pairing``, ``gain`` and ``learning_curve``,
        each with ``title``, ``reason`` (why it could not be run, or None), ``verdict`` and
        ``notes`` (sentences) and ``rows``; an estimate is ``{value, n, low, high, method,
        reason}``.

    Raises:
        EvaluationError: features, design or predictions are not of this cohort.
        RadiographError: a file is DICOM and pydicom is not installed.
    """
    labelled = cohort.table["label"].notna().to_numpy()
    table = cohort.table[labelled].reset_index(drop=True)
    matrices = {}
    for name, matrix in (("tabular", design), ("image", features)):
        if matrix is None or not matrix.shape[1]:
            continue
        if len(matrix) != len(cohort.table):
            raise EvaluationError(
                f"The audits were given {len(matrix)} rows of {name} features for a cohort of "
                f"{len(cohort.table)}; compute them from the same cohort."
            )
        # The clinical columns are scaled already, and a rare word should stay a rare word.
        values = matrix[labelled].astype(np.float64)
        matrices[name] = rotate(values) if name == "image" else values
    classes = task_classes(task)
    labels = table["label"].map(TASKS[task]).tolist()
    y = np.array([classes.index(label) for label in labels], dtype=np.int64)
    groups = np.unique(table["group"], return_inverse=True)[1].astype(np.int64)
    rows = AuditRows(y, groups, matrices, classes)
    arms = read_arms(predictions, table, classes)
    side = "low BMD" if task != "osteoporosis" else "osteoporosis"
    images = bool((table["image"] != "").all())
    files = cohort.files(table) if images else []
    families = acquisition_families(files, progress=progress).tolist() if images else None
    image = matrices.get("image")
    read = None if image is None else read_people(table, image, groups, progress=progress)
    copied = table["image_sha256"].duplicated(keep=False).to_numpy() & images
    facts = read_file_facts(files, progress=progress) if images else None
    found = {
        "leakage": audit_leakage(rows, copied, progress=progress),
        "shortcut": _NO_IMAGES
        if facts is None
        else audit_shortcut(facts, labels, groups, _image_auroc(arms, groups)),
        "subgroups": audit_subgroups(arms, table, groups, families, side),
        "pairing": audit_pairing(table, read, groups, families=families) if images else _NO_IMAGES,
        "gain": audit_gain(arms, read, table, groups),
        "learning_curve": audit_learning(rows, progress=progress),
    }
    return {
        name: {"title": title, "verdict": [], "rows": [], "notes": list(_NOTES.get(name, ()))}
        | found[name]
        for name, title in _TITLES.items()
    }


_TITLES = {
    "leakage": "What a split by row would have bought",
    "shortcut": "Label told from the files alone",
    "subgroups": "Subgroups: acquisition family, sex, age",
    "pairing": "Do radiographs and rows belong together?",
    "gain": "Where the gain of fusion comes from",
    "learning_curve": "Would more radiographs help?",
}


_SIMPLE = (
    "Not the trained arms but simple models: ridge regression on the clinical columns and on "
    "features of the radiograph from a network that was not trained on it, and late fusion of both."
)
_ONE_SCALE = (
    "AUROCs here compare the rows of all test folds, log-odds standardised within each fold, so "
    "they differ a little from means over folds."
)
_NOTES = {
    "leakage": (_SIMPLE,),
    "learning_curve": (_SIMPLE,),
    "subgroups": (_ONE_SCALE,),
    "gain": (_ONE_SCALE,),
    "pairing": (
        "Read by ridge regression on features of the radiograph, trained on films of all classes, "
        "never on the film in question or a copy of it.",
    ),
}


def _image_auroc(arms: Arms, groups: Ints) -> Estimate | None:
    if "image" not in arms.scores or arms.positive.all() or not arms.positive.any():
        return None
    found = area(arms.positive, arms.scores["image"], groups[arms.rows])
    return auroc_estimate([found], len(arms.rows))
