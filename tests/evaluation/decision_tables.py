"""Fabricated out-of-fold predictions: several folds, repeats and arms."""

import numpy as np
import pandas as pd
from fabricated import softmax
from scipy.special import expit


def probabilities(rng, labels, classes, separation):
    """Raw probabilities as of equal classes, so that the prior has to be put back."""
    if len(classes) == 2:
        signal = separation * (labels - 0.5) + rng.normal(size=len(labels))
        p = expit(separation * signal)
        return np.column_stack([1 - p, p])
    centres = separation * np.arange(len(classes))
    signal = rng.normal(size=len(labels)) + centres[labels]
    return softmax(-0.5 * (signal[:, None] - centres) ** 2)


def folds_table(
    seed=0,
    n=240,
    classes=("normal", "low_bmd"),
    shares=(0.3, 0.7),
    folds=5,
    repeats=2,
    arms=(("fused", 2.0),),
    seeds=1,
    group_size=1,
):
    """One row a radiograph, arm, repeat and seed; a group holds copies of one radiograph."""
    rng = np.random.default_rng(seed)
    distinct = rng.choice(len(shares), n // group_size, p=shares)
    group = np.repeat(np.arange(len(distinct)), group_size)
    labels = distinct[group]
    n = len(labels)
    tables = []
    for repeat in range(repeats):
        fold = (rng.permutation(group.max() + 1) % folds)[group]
        for arm, separation in arms:
            for number in range(seeds):
                raw = probabilities(rng, distinct, classes, separation)[group]
                columns = {
                    "subject_id": [f"S{i:04d}" for i in range(n)],
                    "image": [f"S{i:04d}.png" for i in range(n)],
                    "group": group,
                    "split": "test",
                    "fold": fold,
                    "repeat": repeat,
                    "arm": arm,
                    "seed": number,
                    "label": np.array(classes)[labels],
                }
                for kind in ("p", "raw"):
                    for code, name in enumerate(classes):
                        columns[f"{kind}_{name}"] = raw[:, code]
                tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
