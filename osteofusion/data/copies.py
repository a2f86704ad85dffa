"""Copies that an audit found, as ties between radiographs."""

from __future__ import annotations

import os

import pandas as pd

from osteofusion.data.splits import connected_groups
from osteofusion.errors import CohortError

DIGESTS = ("sha256_a", "sha256_b")


def tied_digests(path: str | os.PathLike[str]) -> dict[str, int]:
    """Which radiographs show one film: the number of the film for each SHA-256 digest.

    Args:
        path: ``copies.csv`` as `osteofusion audit` writes it: one row a pair, with the digests in
            ``sha256_a`` and ``sha256_b``. Rows that are no copies may be deleted from it.

    Raises:
        CohortError: the file cannot be read or lacks the columns.
    """
    try:
        pairs = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise CohortError(f"Copies {path} cannot be read as CSV: {str(error).strip()}.") from error
    missing = [name for name in DIGESTS if name not in pairs]
    if missing:
        raise CohortError(
            f"Copies {path} has no column {', '.join(missing)}; give the copies.csv of an audit."
        )
    digests = pd.concat([pairs[name] for name in DIGESTS], ignore_index=True).tolist()
    pair = [str(i) for i in range(len(pairs))] * 2
    films = dict(zip(digests, connected_groups(pair, digests).tolist(), strict=True))
    films.pop("", None)  # an emptied cell is no file, and a row without an image no copy of it
    return films
