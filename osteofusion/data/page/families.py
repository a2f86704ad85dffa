"""Acquisition families: films of one format, mode, suffix and size."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import track

from osteofusion.data.dicom import require_pydicom
from osteofusion.data.radiograph import is_dicom

RARE = 5  # sizes and families of fewer films are pooled
MOST = 12  # families told apart; the smaller ones are pooled
OTHER = "any other"


def acquisition_families(files: Sequence[Path], *, progress: bool = False) -> list[str]:
    """The family of each file, in words; only headers are read.

    Sizes that fewer than 5 films of one kind have are pooled, and all but the 12 largest families.

    Raises:
        RadiographError: a file is DICOM and pydicom is not installed.
    """
    console = Console(stderr=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        facts = list(
            track(
                pool.map(_kind_and_size, files),
                description="Reading image headers",
                total=len(files),
                console=console,
                transient=True,
                disable=not progress or not console.is_terminal,
            )
        )
    count = Counter(facts)
    families = [
        f"{kind}, {size}" if count[kind, size] >= RARE else f"{kind}, other sizes"
        for kind, size in facts
    ]
    ranked = Counter(families).most_common()
    kept = {name for name, films in ranked[:MOST] if films >= RARE}
    if len(ranked) - len(kept) == 1:  # a pool of one would only hide its name
        kept.add(ranked[-1][0])
    return [name if name in kept else OTHER for name in families]


def _kind_and_size(path: Path) -> tuple[str, str]:
    suffix = path.suffix or "no suffix"
    try:
        if is_dicom(path):
            pydicom = require_pydicom(path)
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            mode = f"{header.get('PhotometricInterpretation')} {header.get('BitsStored')} bit"
            return f"DICOM {mode} {suffix}", f"{header.Columns} × {header.Rows}"
        with Image.open(path) as image:
            return f"{image.format} {image.mode} {suffix}", f"{image.width} × {image.height}"
    except (AttributeError, OSError, SyntaxError, ValueError):  # a damaged header
        return f"damaged header {suffix}", "size unknown"
