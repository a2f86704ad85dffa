"""What copies and subjects tie together that should be apart: splits, labels, subjects, sources."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from osteofusion.audit.copies import CopyPair
from osteofusion.audit.findings import Copy, Finding
from osteofusion.audit.sources import Collection
from osteofusion.data.splits import connected_groups
from osteofusion.evaluation.metrics import Ints

_KINDS = ("re-encoded", "resized", "mirrored", "cropped", "altered")
_WORST_FIRST = ("splits", "labels", "subjects", "sources")


def film_groups(rows: int, pairs: Sequence[CopyPair]) -> Ints:
    """(N,) code of the film that each row shows, from pairs of copies."""
    ends: list[list[str | None]] = []
    for at, pair in enumerate(pairs):
        ends.append([None] * rows)
        ends[at][pair.a] = ends[at][pair.b] = "film"
    return connected_groups([str(i) for i in range(rows)], [None] * rows, *ends)
