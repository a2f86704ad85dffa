"""Read radiographs of any ordinary file format and bring them to one size."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, TiffImagePlugin

from osteofusion.errors import ConfigError, RadiographError

Gray = NDArray[np.uint8]
Affine = NDArray[np.float64]

MIN_SIDE = 16
MAX_PIXELS = 100_000_000  # a film digitised at 50 um has 60 million
_ALGORITHM = 1  # raise it whenever the pixels that RadiographPreprocessing returns change

# Pillow and OpenCV warn about harmless oddities of EXIF blocks and TIFF tags, one line a file.
warnings.filterwarnings("ignore", module=r"PIL\.")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


def read_radiograph(path: str | os.PathLike[str]) -> Gray:
    """Read an image file as 8-bit luminance, (H, W) uint8, upright as its EXIF tag says.

    The format is told by the file's first bytes, never by its name: PNG, JPEG, TIFF and DICOM
    with 1 to 16 bits, gray, colour, palette or alpha. Colour becomes ITU-R 601 luminance,
    transparency becomes black. A 16-bit PNG or TIFF is divided by 257; one whose values all lie
    below 4096 is taken as 12-bit, the usual depth of a detector, and scaled by 255 / 4095. How a
    DICOM file becomes 8-bit is told by `osteofusion.data.dicom_pixels.decode_dicom`.

    Raises:
        RadiographError: the file is missing, empty, cut short, not a PNG, JPEG, TIFF or DICOM,
            holds several pictures or CMYK, float or 32-bit pixels, is implausibly small or
            large, or is a DICOM file and pydicom or its decoder is not installed.
    """
    path = Path(path)
    return decode_radiograph(read_bytes(path), path)


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        RadiographError: the file cannot be read.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        require_file(path)
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM, by its content; False too where it cannot be read.

    For folder scans, since DICOM files often have no suffix. It needs no pydicom and reads 132
    bytes. A file without the usual preamble counts if it is named like a DICOM file as well. A
    DICOMDIR is DICOM.
    """
    path = Path(path)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _is_dicom(file.read(_HEAD), path)
    except OSError:
        return False


def is_dicom_data(data: bytes, path: Path) -> bool:
    """As `is_dicom`, of a file's bytes; the name is looked at where they lack the preamble."""
    return _is_dicom(data[:_HEAD], path)


def is_dicom_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM and not an index, a report or what else holds no pixels by its kind.

    It needs no pydicom and reads 512 bytes.
    """
    path = Path(path)
    if not is_dicom(path):
        return False
    with path.open("rb") as file:
        kind = _SOP_CLASS.search(file.read(_META))
    return kind is None or not kind[1].startswith(_NO_PICTURES)


def read_bytes(path: Path) -> bytes:
    """Bytes of a file that may be a radiograph; of anything else no more than its head is read.

    Raises:
        RadiographError: the file is missing, empty, or not a PNG, JPEG, TIFF or DICOM.
    """
    try:
        require_file(path)
        with path.open("rb") as file:
            head = file.read(_HEAD)
            _format_of(head, path)
            return head + file.read()
    except OSError as error:
        raise unreadable(path, error) from error


def decode_radiograph(data: bytes, path: Path) -> Gray:
    """Decode the bytes of an image file as `read_radiograph` does; ``path`` is for messages."""
    form = _format_of(data[:_HEAD], path)
    gray = form.decode(data, path, form.name)
    height, width = gray.shape
    if min(height, width) < MIN_SIDE:
        raise refusal(
            path,
            f"it has {width} x {height} pixels, fewer than {MIN_SIDE} on a side",
            "replace it by the radiograph in full size",
        )
    return gray


@dataclass(frozen=True)
class RadiographPreprocessing:
    """Bring a radiograph to a square without distorting it.

    Args:
        size: side of the square in pixels.
        clahe: equalise local contrast (CLAHE, clip limit 2.0, 8 x 8 tiles) of the picture itself,
            not of the padding around it.
        pixel_spacing: millimetres that a pixel of the square covers; the picture is then brought
            to this scale, and what the square cannot hold is cut off on all sides. When left
            out, the picture is scaled to fit.
    """

    size: int
    clahe: bool = False
    pixel_spacing: float | None = None

    def __post_init__(self) -> None:
        if self.size < MIN_SIDE:
            raise ConfigError(
                f"Image size {self.size} is too small; choose at least {MIN_SIDE} pixels."
            )
        if self.pixel_spacing is not None and not 0 < self.pixel_spacing < math.inf:
            raise ConfigError(
                f"Pixel spacing {self.pixel_spacing} is no size in mm; choose a number above 0."
            )

    def read(self, data: bytes, path: Path) -> Gray:
        """Decode the bytes of an image file and preprocess it; ``path`` is for messages.

        Raises:
            RadiographError: it cannot be read, or `pixel_spacing` is set and it has none.
        """
        image = decode_radiograph(data, path)
        spacing = None if self.pixel_spacing is None else pixel_spacing_in(data, path)
        return self.prepare(image, spacing, path)

    def prepare(self, image: Gray, spacing: float | None, path: Path) -> Gray:
        """Preprocess a decoded radiograph as `read` does.

        Args:
            image: (H, W) uint8.
            spacing: what `pixel_spacing_in` says; not looked at where `pixel_spacing` is not set.
            path: for messages.

        Raises:
            RadiographError: `pixel_spacing` is set, and there is none or it is implausible.
        """
        if self.pixel_spacing is None:
            return self(image)
        if spacing is None:
            raise refusal(
                path,
                "it has no pixel spacing",
                "leave data.pixel_spacing out, or use DICOM files that have one",
            )
        if max(image.shape) * spacing / self.pixel_spacing > math.sqrt(MAX_PIXELS):
            raise refusal(
                path,
                f"its pixels are {spacing:g} mm wide, too many of {self.pixel_spacing:g} mm",
                "correct its pixel spacing or choose a larger data.pixel_spacing",
            )
        return self(image, spacing)

    def __call__(self, image: Gray, spacing: float | None = None) -> Gray:
        """Bring (H, W) uint8 to (size, size) uint8, centred and padded with 0.

        Args:
            image: the radiograph.
            spacing: millimetres from pixel to pixel; needed where `pixel_spacing` is set.
        """
        if image.ndim != 2 or image.dtype != np.uint8:
            raise ValueError(f"expected an (H, W) uint8 image, got {image.shape} {image.dtype}")
        height, width = self._scaled(image.shape, spacing)
        if (height, width) != image.shape:
            how = cv2.INTER_AREA if height + width < sum(image.shape) else cv2.INTER_LINEAR
            image = cast("Gray", cv2.resize(image, (width, height), interpolation=how))
        top, left = (max(0, (side - self.size) // 2) for side in image.shape)
        image = image[top : top + self.size, left : left + self.size]
        if self.clahe:
            image = cast("Gray", cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(image))
        height, width = image.shape
        top, left = (self.size - height) // 2, (self.size - width) // 2
        square = np.zeros((self.size, self.size), dtype=np.uint8)
        square[top : top + height, left : left + width] = image
        return square

    def _scaled(self, shape: tuple[int, int], spacing: float | None) -> list[int]:
        """Height and width before they are cut or padded to the square."""
        if self.pixel_spacing is None:
            return [max(1, round(side * self.size / max(shape))) for side in shape]
        if spacing is None:
            raise ValueError("pixel_spacing is set, so the spacing of the image is needed")
        return [max(1, round(side * spacing / self.pixel_spacing)) for side in shape]

    def to_square(self, shape: tuple[int, int], spacing: float | None = None) -> Affine:
        """Where the pixels of a radiograph come to lie in the square: (2, 3) float64.

        It takes (x, y, 1) to (x, y), both in pixels whose centres are whole numbers.

        Args:
            shape: height and width of the radiograph.
            spacing: as for `__call__`.
        """
        scaled = self._scaled(shape, spacing)
        rows = []
        for side, new in zip(shape, scaled, strict=True):
            factor = new / side
            shift = (self.size - new) // 2 if new < self.size else -((new - self.size) // 2)
            rows.append((factor, (factor - 1) / 2 + shift))
        (down, top), (across, left) = rows
        return np.array([[across, 0.0, left], [0.0, down, top]])

    @property
    def key(self) -> str:
        """Short name of these settings, fit for a folder; it changes whenever the pixels would."""
        scale = "" if self.pixel_spacing is None else f"-{float(self.pixel_spacing)}mm"
        return f"v{_ALGORITHM}-{self.size}{'-clahe' if self.clahe else ''}{scale}"


def _decode_pillow(data: bytes, path: Path, name: str) -> Gray:
    # Pillow and not OpenCV: OpenCV fills damaged compressed TIFFs in silence.
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            _check_kind(image, path, name)
            if name == "JPEG":
                image.draft("L", image.size)  # takes the luminance plane as stored; 2x faster
            image.load()
            deep = image.mode.startswith("I") or _bits(image, data) == 16
            gray = _from_16_bit(image, data) if deep else _from_8_bit(image)
            # After load(), since Pillow turns a TIFF by itself and then drops the tag.
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (RadiographError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except Exception as error:  # damaged files raise nearly anything from inside Pillow
        raise refusal(
            path,
            f"it is cut short, damaged or an unusual kind of {name}",
            "download it again or export it as an 8- or 16-bit grayscale PNG",
        ) from error
    return np.ascontiguousarray(turn(gray) if turn else gray)


def _check_kind(image: Image.Image, path: Path, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise too_large(path)
    # Phones store previews and gain maps behind the one picture of a JPEG.
    pictures = 1 if name == "JPEG" else getattr(image, "n_frames", 1)
    if pictures > 1:
        raise refusal(
            path, f"it holds {pictures} pictures", "save the radiograph alone in a file of its own"
        )
    kind = {"CMYK": "CMYK print colours", "F": "floating-point pixels", "LAB": "CIE Lab colours"}
    if name == "TIFF":
        kind["I"] = "signed or 32-bit pixels"
    if image.mode in kind:
        raise refusal(
            path, f"it holds {kind[image.mode]}", "export it as an 8- or 16-bit grayscale PNG"
        )


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))[0])


def _from_8_bit(image: Image.Image) -> Gray:
    gray = image.convert("L")
    if image.has_transparency_data:
        gray = ImageChops.multiply(gray, image.convert("RGBA").getchannel("A"))
    return np.array(gray)


def _from_16_bit(image: Image.Image, data: bytes) -> Gray:
    if image.mode.startswith("I"):
        values: NDArray[Any] = np.asarray(image).astype(np.uint16)
        opacity = None
    else:  # Pillow cuts 16-bit colour to 8 bits; it has read the file, so nothing is missing
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        colour = cast("NDArray[np.uint16]", raw)
        values = cv2.cvtColor(colour[..., :3], cv2.COLOR_BGR2GRAY)
        opacity = colour[..., 3] / 65535 if colour.shape[2] == 4 else None
    white = 4095 if values.max() < 4096 else 65535
    # Pillow inverts a TIFF whose zero is white at 8 bits, not at 16.
    if getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        values = white - values
    if opacity is not None:
        values = values * opacity
    return cast("Gray", cv2.convertScaleAbs(values, alpha=255 / white))


def _decode_dicom(data: bytes, path: Path, name: str) -> Gray:
    # Here and not above: that module builds on this one.
    from osteofusion.data.dicom_pixels import decode_dicom

    return decode_dicom(data, path)


def pixel_spacing_in(data: bytes, path: Path) -> float | None:
    """Millimetres from pixel to pixel of the square pixels that `decode_radiograph` returns.

    None where the file does not say, as only DICOM does.
    """
    if not _is_dicom(data[:_HEAD], path):
        return None
    from osteofusion.data.dicom import spacing_in

    sides = spacing_in(data, path)
    return min(sides) if sides is not None else None


def require_file(path: Path) -> None:
    """Refuse a path that is no file, before anything waits on a pipe."""
    if path.is_dir():
        raise refusal(path, "it is a folder", "name an image file")
    if not path.is_file():
        raise refusal(path, "there is no such file", "check the name")


def _format_of(head: bytes, path: Path) -> _Format:
    if not head:
        raise refusal(path, "it is empty (0 bytes)", "download or export it again")
    if _is_dicom(head, path):  # first: a DICOM preamble may pose as a TIFF header
        return _DICOM
    for form in _FORMATS:
        if head.startswith(form.magic):
            return form
    raise refusal(
        path,
        "its content is not a PNG, JPEG or TIFF image nor a DICOM file, whatever its name says",
        "export the radiograph in one of these formats",
    )


def _is_dicom(head: bytes, path: Path) -> bool:
    bare = path.suffix.lower() in _DICOM.suffixes and head.startswith(_DICOM.magic)
    return head[_PREAMBLE:] == b"DICM" or bare


def unreadable(path: Path, error: OSError) -> RadiographError:
    """Refusal of a file that the system does not let us read."""
    return refusal(path, error.strerror or "the system refuses it", "check permissions and disk")


def too_large(path: Path) -> RadiographError:
    """Refusal of a picture of more than `MAX_PIXELS` pixels."""
    return refusal(
        path, f"it has more than {MAX_PIXELS // 10**6} million pixels", "export it at a lower size"
    )


def refusal(path: Path, reason: str, remedy: str) -> RadiographError:
    """The one sentence in which every radiograph is refused."""
    return RadiographError(f"Cannot read the radiograph {path}: {reason}; {remedy}.")


@dataclass(frozen=True)
class _Format:
    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    decode: Callable[[bytes, Path, str], Gray]


_FORMATS = (
    _Format("PNG", (".png",), (b"\x89PNG\r\n\x1a\n",), _decode_pillow),
    _Format("JPEG", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), _decode_pillow),
    _Format("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _decode_pillow),
)
# What a DICOM file without its preamble starts with: group 2 or 8, as either byte order has it.
_DICOM = _Format(
    "DICOM", (".dcm", ".dicom"), (b"\2\0", b"\0\2", b"\x08\0", b"\0\x08"), _decode_dicom
)
_PREAMBLE = 128  # bytes before the magic word of a DICOM file
_HEAD = _PREAMBLE + 4  # bytes that tell the format
_META = 512  # bytes in which a DICOM file has said what it holds
_SOP_CLASS = re.compile(
    rb"\x02\x00\x02\x00UI..([0-9.]+)", re.DOTALL
)  # always explicit, little endian
# DICOMDIR; then reports, presentation states, documents, raw data, waveforms.
_NO_PICTURES = (
    b"1.2.840.10008.1.3.10",
    *(b"1.2.840.10008.5.1.4.1.1.%d." % family for family in (88, 11, 104, 66, 9)),
)

DICOM_SUFFIXES = frozenset(_DICOM.suffixes)
"""Those of them, in lower case, that DICOM files have."""

RADIOGRAPH_SUFFIXES = frozenset(suffix for form in (*_FORMATS, _DICOM) for suffix in form.suffixes)
"""Suffixes, in lower case, of the files that count as images when a folder is scanned."""

_TURNS: dict[int, Callable[[Gray], Gray]] = {  # EXIF orientation: what makes the picture upright
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).T,
    8: np.rot90,
}
