"""Fabricated predictions for the tests of this folder."""

import numpy as np
import pandas as pd

BINARY = ["normal", "low_bmd"]
THREE = ["normal", "osteopenia", "osteoporosis"]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def simulate(rng, shares, separation, groups, *, clustered=False):
    """Labels, probabilities and groups of an ordinal signal; clustered: 1 to 3 rows a group."""
    sizes = rng.integers(1, 4, groups) if clustered else np.ones(groups, dtype=int)
    group = np.repeat(np.arange(groups), sizes)
    labels = np.repeat(rng.choice(len(shares), groups, p=shares), sizes)
    shared = np.repeat(rng.normal(size=groups), sizes)
    noise = 0.8 * shared + 0.6 * rng.normal(size=len(group)) if clustered else shared
    centres = separation * np.arange(len(shares))
    signal = noise + centres[labels]
    return labels, softmax(-0.6 * (signal[:, None] - centres) ** 2), group


def table(labels, probabilities, classes, *, groups=None, arm="fused"):
    """A predictions table of one arm."""
    n = len(labels)
    columns = {
        "subject_id": [f"S{i}" for i in range(n)],
        "image": [f"S{i}.jpg" for i in range(n)],
        "group": np.arange(n) if groups is None else groups,
        "site": "knee",
        "region": "knee",
        "split": "test",
        "fold": 0,
        "repeat": 0,
        "arm": arm,
        "seed": 0,
        "label": [classes[code] for code in labels],
    }
    for code, name in enumerate(classes):
        columns[f"p_{name}"] = probabilities[:, code]
        columns[f"raw_{name}"] = probabilities[:, code]
    return pd.DataFrame(columns)
