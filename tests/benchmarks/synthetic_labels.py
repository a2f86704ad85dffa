"""Invents bone-status labels for the RSNA bone-age radiographs, which have none.

An exercise of the pipeline on real films, never a finding: the file says of itself that it is
synthetic, and so does everything that is made with it. A label follows bone age and sex, with
noise, so that there is something to learn from the columns and from the hand.

    python tests/benchmarks/synthetic_labels.py ROOT FILE
    osteofusion fit --config seeds/osteoai.yaml --data.root ROOT --data.labels FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

SHARES = {"osteoporosis": 0.2, "osteopenia": 0.3, "normal": 0.5}


def write_synthetic_labels(root: Path, out: Path, seed: int = 0) -> Path:
    """Write a label file for the radiographs under `root`, in the layout of the challenge."""
    rows = pd.read_csv(root / "boneage-training-dataset.csv")
    there = {path.stem for path in (root / "boneage-training-dataset").glob("*.png")}
    rows = rows[rows["id"].astype(str).isin(there)].sort_values("id")
    rng = np.random.default_rng(seed)
    months = rows["boneage"].rank(pct=True) + 0.1 * rows["male"] + rng.normal(0, 0.3, len(rows))
    ends = np.cumsum(list(SHARES.values()))[:-1]
    label = np.array(list(SHARES))[np.searchsorted(ends, months.rank(pct=True))]
    table = pd.DataFrame({"id": rows["id"], "label": label, "synthetic": "yes"})
    table.to_csv(out, index=False)
    return out


if __name__ == "__main__":
    print(write_synthetic_labels(Path(sys.argv[1]), Path(sys.argv[2])))
