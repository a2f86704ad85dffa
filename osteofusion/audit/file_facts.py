"""Facts of an image file that may betray its label although no bone shows them."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin

from osteofusion.audit.sources import shown
from osteofusion.data.dicom import require_pydicom
from osteofusion.data.radiograph import Gray, decode_radiograph, is_dicom, read_bytes
from osteofusion.errors import RadiographError
from osteofusion.progress import in_threads

SIDE = 512  # pixels of the longer side on which border and burned-in text are looked for
_RARE = 5  # families of fewer images are pooled


@dataclass(frozen=True)
class Group:
    """Facts that are judged together.

    Attributes:
        name: As shown.
        visible: Whether a network that sees only the pixels may learn them.
        columns: Columns of the facts table.
    """

    name: str
    visible: bool
    columns: tuple[str, ...]


_EDGES = ("top", "bottom", "left", "right")
GROUPS = (
    Group("ID pattern", False, ("name_prefix", "name_shape", "name_digits", "name_number")),
    Group("file name", False, ("name_length", "extension")),
    Group("file size", False, ("file_bytes",)),
    Group("encoding and header", False, ("format", "mode", "coding", "quality", "tags", "device")),
    Group("pixel size", True, ("width", "height", "aspect")),
    Group("acquisition family", True, ("family",)),
    Group(
        "border", True, tuple(f"{kind}_{edge}" for kind in ("black", "white") for edge in _EDGES)
    ),
    Group("burned-in text", True, ("text_marks", "text_area")),
)


@dataclass(frozen=True)
class FileFacts:
    """Facts of N files.

    Attributes:
        table: (N,) rows with the columns of `GROUPS`: floats, or words as objects (None where
            the format has none).
        sha256: N digests of the files' bytes; empty where unreadable.
        unreadable: Reason by position.
    """

    table: pd.DataFrame
    sha256: list[str]
    unreadable: dict[int, str]


def read_file_facts(paths: Sequence[Path], *, progress: bool = False) -> FileFacts:
    """Read the facts of each file; every file is read once and decoded at about 512 pixels.

    Of a DICOM header only what the scanner is and how it stores is read: modality, manufacturer,
    model, bits, photometric interpretation and compression.
    """
    rows: list[dict[str, Any]] = []
    digests: list[str] = []
    unreadable: dict[int, str] = {}
    found = in_threads(_examine, paths, "Reading file facts", progress)
    for i, (facts, digest) in enumerate(found):
        if isinstance(facts, str):
            unreadable[i] = facts
        rows.append({} if isinstance(facts, str) else facts)
        digests.append(digest)
    columns = [column for group in GROUPS for column in group.columns if column != "family"]
    table = pd.DataFrame(rows, columns=columns, index=range(len(paths)))
    table["family"] = pd.Series(_families(table), index=table.index, dtype=object)
    return FileFacts(table, digests, unreadable)


def _families(table: pd.DataFrame) -> list[str | None]:
    """Format, mode, coding, quality and size in words; rare sizes and rare families pooled."""
    columns = ["format", "mode", "extension", "coding", "quality", "width", "height"]
    kinds, sizes = [], []
    for *words, quality, width, height in table[columns].itertuples(index=False):
        kind = " ".join(str(word) for word in words if not pd.isna(word) and word)
        kind += "" if pd.isna(quality) else f" quality {quality:.0f}"
        kinds.append(kind)
        sizes.append(f"{kind}, {width:g} x {height:g}")
    count = Counter(sizes)
    families = [
        size if count[size] >= _RARE else f"{kind}, other sizes"
        for kind, size in zip(kinds, sizes, strict=True)
    ]
    count = Counter(families)
    known = table["format"].notna()
    return [
        None if not there else family if count[family] >= _RARE else "any other"
        for family, there in zip(families, known, strict=True)
    ]


def _examine(path: Path) -> tuple[dict[str, Any] | str, str]:
    """Facts and digest of one file, or why it cannot be read."""
    try:
        data = read_bytes(path)
        header = _dicom_header(data, path) if is_dicom(path) else _header(data, path)
        gray = _small(data, path)
    except RadiographError as error:
        return str(error), ""
    facts = _name_facts(path) | header | _border(gray) | _text(gray)
    facts["file_bytes"] = len(data)
    return facts, hashlib.sha256(data).hexdigest()


def _name_facts(path: Path) -> dict[str, Any]:
    stem = shown(path.stem)
    numbers = re.findall(r"\d+", stem)
    prefix = re.match(r"\D*", stem)
    shape = re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", stem))
    return {
        "name_prefix": prefix.group().casefold() if prefix else "",
        "name_shape": shape[:40],
        "name_digits": float(sum(map(len, numbers))),
        "name_number": float(numbers[-1][-15:]) if numbers else np.nan,
        "name_length": float(len(stem)),
        "extension": shown(path.suffix),
    }


def _header(data: bytes, path: Path) -> dict[str, Any]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif()
            tags = sorted({*map(str, image.info), *(f"exif {tag}" for tag in exif)} - {"exif"})
            luma = (getattr(image, "quantization", None) or {}).get(0)
            coding = [str(image.info[key]) for key in ("compression",) if key in image.info]
            if image.format == "JPEG":
                sampling = JpegImagePlugin.get_sampling(image)
                coding += {0: ["4:4:4"], 1: ["4:2:2"], 2: ["4:2:0"]}.get(sampling, [])
                coding += ["progressive"] if "progressive" in image.info else []
            # 271 and 272 are maker and model of the device, 305 the software
            device = " ".join(str(exif[tag]) for tag in (271, 272, 305) if tag in exif)
            size = _size(image.width, image.height)
            return size | {
                "format": image.format,
                "mode": image.mode,
                "coding": " ".join(coding) or "plain",
                "quality": _quality(luma) if luma else np.nan,
                "tags": " ".join(tags) or "none",
                "device": shown(device.strip()) or "none",
            }
    except (RadiographError, MemoryError):
        raise
    except Exception:  # damaged files raise nearly anything; decoding says what is wrong
        height, width = decode_radiograph(data, path).shape
        return _size(width, height) | {"format": "damaged header"}


def _dicom_header(data: bytes, path: Path) -> dict[str, Any]:
    pydicom = require_pydicom(path)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)

        def words(*keywords: str) -> str:
            return " ".join(str(dataset.get(keyword) or "").strip() for keyword in keywords)

        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        return _size(int(dataset.Columns), int(dataset.Rows)) | {
            "format": "DICOM",
            "mode": words("PhotometricInterpretation", "BitsStored"),
            "coding": getattr(syntax, "name", "") or "plain",
            "quality": np.nan,
            "tags": words("Modality"),
            "device": shown(words("Manufacturer", "ManufacturerModelName").strip()) or "none",
        }
    except Exception:  # decoding says what is wrong
        height, width = decode_radiograph(data, path).shape
        return _size(width, height) | {"format": "DICOM"}


def _size(width: int, height: int) -> dict[str, float]:
    return {"width": float(width), "height": float(height), "aspect": width / height}


def _quality(luma: Sequence[int]) -> float:
    """Quality, 1 to 100, on the scale of the IJG's encoder, from the luminance table's mean.

    Its standard table has a mean of 57.6; q >= 50 scales it by (200 - 2 q) %, less by 5000 / q %.
    """
    percent = 100 * float(np.mean(luma)) / 57.625
    return round((200 - percent) / 2 if percent <= 100 else 5000 / percent)


def _small(data: bytes, path: Path) -> Gray:
    """The picture at a longer side of at most 512 pixels; JPEGs are decoded small."""
    if data.startswith(b"\xff\xd8\xff"):
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.draft("L", (SIDE, SIDE))
                gray = np.asarray(image.convert("L"))
        except Exception:  # the full decoder has the sentence that says what is wrong
            gray = decode_radiograph(data, path)
    else:
        gray = decode_radiograph(data, path)
    scale = SIDE / max(gray.shape)
    if scale < 1:
        size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        gray = cast("Gray", cv2.resize(gray, size, interpolation=cv2.INTER_AREA))
    return gray


def _border(gray: Gray) -> dict[str, float]:
    """Share of the height or width that is plain black or white, from each edge inwards."""
    facts = {}
    for edge, turned in zip(_EDGES, (gray, gray[::-1], gray.T, gray.T[::-1]), strict=True):
        for kind, plain in (("black", turned <= 12), ("white", turned >= 243)):
            rows = plain.mean(axis=1) > 0.98
            depth = len(rows) if rows.all() else int(rows.argmin())
            facts[f"{kind}_{edge}"] = depth / len(rows)
    return facts


def _text(gray: Gray) -> dict[str, float]:
    """Number and area of small, bright, sharp marks on dark ground in the outer fifth.

    Letters and side markers look so; a large or faint one may be missed.
    """
    height, width = gray.shape
    hat = cv2.morphologyEx(gray, cv2.MORPH_TOPHAT, np.ones((13, 13), np.uint8))
    bright = ((hat > 80) & (gray > 160)).astype(np.uint8)
    count, _, stats, centres = cv2.connectedComponentsWithStats(bright, connectivity=8)
    marks, area = 0, 0
    for (left, top, w, h, size), (x, y) in zip(stats[1:count], centres[1:count], strict=True):
        outer = min(x / width, 1 - x / width, y / height, 1 - y / height) < 0.2
        if outer and 4 <= h <= 32 and 2 <= w <= 32 and size >= 8:
            around = gray[max(0, top - h) : top + 2 * h, max(0, left - w) : left + 2 * w]
            if np.median(around) < 64:  # bone lies in soft tissue, a marker on the bare film
                marks, area = marks + 1, area + int(size)
    return {"text_marks": float(marks), "text_area": area / gray.size}
