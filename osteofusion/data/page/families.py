"""Acquisition families: films of one format, mode, suffix and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from osteofusion.data.dicom import require_pydicom
from osteofusion.data.radiograph import is_dicom
from osteofusion.errors import RadiographError
from osteofusion.progress import in_threads

RARE = 5  # sizes and families of fewer films are pooled
MOST = 12  # families told apart; the smaller ones are pooled
OTHER = "any other"


def acquisition_families(files: Sequence[Path], *, progress: bool = False) -> pd.Series:
    """The family of each file, in words, as a category, the largest first; only headers are read.

    Sizes that fewer than 5 films of one kind have are pooled, and so are families of fewer than 5
    films and all but the 12 largest.

    Raises:
        RadiographError: a file is DICOM and pydicom is not installed.
    """
    facts = list(in_threads(_kind_and_size, files, "Reading image headers", progress))
    count = Counter(facts)
    families = [
        f"{kind}, {size}" if count[kind, size] >= RARE else f"{kind}, other sizes"
        for kind, size in facts
    ]
    ranked = [name for name, films in Counter(families).most_common() if films >= RARE][:MOST]
    pooled = [name if name in ranked else OTHER for name in families]
    ranked += [OTHER] if OTHER in pooled else []
    return pd.Series(pooled, dtype=pd.CategoricalDtype(ranked, ordered=True))


def _kind_and_size(path: Path) -> tuple[str, str]:
    suffix = path.suffix or "no suffix"
    try:
        if is_dicom(path):
            pydicom = require_pydicom(path)
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            mode = f"{header.get('PhotometricInterpretation')} {header.get('BitsStored')} bit"
            return f"DICOM {mode} {suffix}", f"{header.Columns} x {header.Rows}"
        with Image.open(path) as image:
            mode = "gray" if image.mode == "L" else image.mode
            return f"{image.format} {mode} {suffix}", f"{image.width} x {image.height}"
    except RadiographError:
        raise
    except Exception:  # damaged headers raise nearly anything; decoding says what is wrong
        return f"damaged header {suffix}", "size unknown"
