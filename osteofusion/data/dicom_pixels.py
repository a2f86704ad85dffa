"""Decode the picture of a DICOM file to 8-bit luminance in which bone is bright."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from osteofusion.data.dicom import (
    is_dicomdir,
    pixel_spacing,
    positive_numbers,
    require_pydicom,
    stored_numbers,
)
from osteofusion.data.dicom_decoders import stored_values
from osteofusion.data.radiograph import MAX_PIXELS, Gray, refusal, too_large
from osteofusion.errors import RadiographError

if TYPE_CHECKING:
    from pydicom import Dataset

Values = NDArray[np.floating[Any]]

_GRAYS = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_AS_PNG = "export it as a 16-bit grayscale PNG"
_SQUARE = 0.01  # relative difference of a pixel's sides up to which it is taken as square
_OBLONG = 5.0  # beyond it, the spacing is a typing error and not a detector


def decode_dicom(data: bytes, path: Path) -> Gray:
    """Decode the bytes of a single-frame DICOM file as 8-bit luminance, (H, W) uint8.

    Stored values pass the modality LUT or rescale, then the first VOI LUT; where there is none,
    the first window (linear, linear exact or sigmoid); where there is none either, or it would
    leave one shade, they are scaled from the darkest to the brightest value (of up to 8 bits:
    over the full range, so that a secondary capture stays as it is). MONOCHROME1 is then
    inverted. Pixel padding takes no part and becomes black. Palette, RGB and YBR colours become
    ITU-R 601 luminance without VOI transformation. Pixels whose sides differ by more than 1 %
    are resampled to squares of the shorter side. Overlays, presentation LUTs and ICC profiles
    are not applied.

    Args:
        data: the whole file.
        path: where it comes from, for messages.

    Raises:
        RadiographError: pydicom or the decoder of the compression is not installed, or the file
            is cut short, damaged, holds no picture or several, or pixels of over 16 bits.
    """
    pydicom = require_pydicom(path)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        _check_kind(dataset, path)
        _check_pixels(dataset, path)
        return _square_pixels(_luminance(dataset, path), dataset, path)
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # damaged files raise nearly anything from inside pydicom
        raise refusal(
            path,
            "it is cut short, damaged or an unusual kind of DICOM",
            "export it again, uncompressed, or as a 16-bit grayscale PNG",
        ) from error


def _check_kind(dataset: Dataset, path: Path) -> None:
    if is_dicomdir(dataset):
        raise refusal(path, "it is a DICOMDIR, an index of other files", "name the image itself")
    if dataset.get("FloatPixelData") or dataset.get("DoubleFloatPixelData"):
        raise refusal(path, "it holds floating-point pixels", _AS_PNG)
    if not dataset.get("PixelData"):
        kind = getattr(dataset.get("SOPClassUID"), "name", "no SOP class")
        cut = "is cut short or " if "Rows" in dataset else ""
        raise refusal(path, f"it {cut}holds no pixels ({kind})", "export the radiograph itself")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise refusal(
            path, f"it holds {frames} frames", "save the radiograph alone in a file of its own"
        )


def _check_pixels(dataset: Dataset, path: Path) -> None:
    from pydicom import uid

    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise too_large(path)
    if dataset.BitsAllocated > 16:
        raise refusal(path, f"it holds {dataset.BitsAllocated}-bit pixels", _AS_PNG)
    if "TransferSyntaxUID" not in dataset.file_meta:  # older than the file format
        implicit, little = dataset.original_encoding
        syntax = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax if little else uid.ExplicitVRBigEndian
    native = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if native and dataset.HighBit != dataset.BitsStored - 1:
        raise refusal(
            path,
            f"its high bit is {dataset.HighBit} for {dataset.BitsStored} bits stored, a layout "
            "that the standard has retired",
            _AS_PNG,
        )


def _luminance(dataset: Dataset, path: Path) -> Gray:
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in (*_GRAYS, *_COLOURS, _PALETTE):
        raise refusal(path, f"its pixels are {photometric}", _AS_PNG)
    pixels = stored_values(dataset, path)
    if pixels.ndim != (3 if photometric in _COLOURS else 2):
        raise ValueError(f"{photometric} pixels of shape {pixels.shape}")
    if photometric in _GRAYS:
        return _windowed(pixels, dataset, path, inverted=photometric == "MONOCHROME1")
    white = 2**dataset.BitsStored - 1
    if photometric == _PALETTE:
        pixels = _painted(pixels, dataset)
        white = 65535 if pixels.max() > 255 else 255
    gray = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY)
    return cast("Gray", cv2.convertScaleAbs(gray, alpha=255 / white))


def _painted(stored: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_color_lut

    if not dataset.original_encoding[1]:  # pydicom swaps the words of segmented palettes only
        for colour in ("Red", "Green", "Blue"):
            keyword = f"{colour}PaletteColorLookupTableData"
            if keyword in dataset:
                dataset[keyword].value = (
                    np.frombuffer(dataset[keyword].value, "<u2").byteswap().tobytes()
                )
    return apply_color_lut(stored, dataset)


def _windowed(stored: NDArray[Any], dataset: Dataset, path: Path, *, inverted: bool) -> Gray:
    padding = _padding(stored, dataset)
    shown = stored if padding is None else stored[~padding]
    if shown.size == 0:
        raise refusal(path, "all its pixels are padding", "export it again")
    low, high = int(shown.min()), int(shown.max())
    # At most 16 bits: what happens to a value is worked out once, not once a pixel.
    shades = _shades(np.arange(low, high + 1), dataset)
    if inverted:
        shades = 255 - shades
    image = np.take(shades, stored.astype(np.int32) - low, mode="clip")
    if padding is not None:
        image[padding] = 0
    return image


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = np.array([value, value if limit is None else limit])
    bits = 8 * stored.dtype.itemsize
    if ends.min() < -(2 ** (bits - 1)) or ends.max() >= 2**bits:
        return None  # no pixel can hold it
    ends = ends.astype(stored.dtype)  # wraps on purpose: writers note -2000 as 63536
    return cast("NDArray[np.bool_]", (stored >= ends.min()) & (stored <= ends.max()))


def _shades(stored: NDArray[np.int64], dataset: Dataset) -> Gray:
    """Shade, 0 to 255, of each of the ``stored`` values, before inversion."""
    values = _modality(stored, dataset)
    shares = _voi(values, dataset)
    if shares is not None and np.ptp(shades := _eight_bits(shares)):
        return shades
    span = values
    if (bits := dataset.BitsStored) <= 8:
        lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
        span = _modality(np.arange(lowest, lowest + 2**bits), dataset)
    return _eight_bits(_stretched(values, span))


def _eight_bits(shares: Values) -> Gray:
    return cast("Gray", np.rint(255 * shares.clip(0, 1)).astype(np.uint8))


def _modality(stored: NDArray[np.int64], dataset: Dataset) -> Values:
    if dataset.get("ModalityLUTSequence"):
        return _look_up(stored, dataset.ModalityLUTSequence[0], dataset)[0]
    slope = float(dataset.get("RescaleSlope") or 1)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise ValueError(f"rescale slope {slope} and intercept {intercept}")
    return stored * slope + intercept


def _voi(values: Values, dataset: Dataset) -> Values | None:
    if dataset.get("VOILUTSequence"):
        return _stretched(*_look_up(values, dataset.VOILUTSequence[0], dataset))
    centers = stored_numbers(dataset, "WindowCenter")
    widths = positive_numbers(dataset, "WindowWidth")
    if not centers or not widths:
        return None
    center, width = centers[0], widths[0]
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        return cast("Values", expit(4 * (values - center) / width))
    if function == "LINEAR":  # PS3.3 C.11.2.1.2.1
        center, width = center - 0.5, max(width - 1, 1e-9)
    shares: Values = ((values - center) / width + 0.5).clip(0, 1)
    return shares


def _look_up(values: NDArray[Any], item: Dataset, dataset: Dataset) -> tuple[Values, Values]:
    """What a LUT makes of ``values``, and the LUT; pydicom's own fails on 12 bits and on 8."""
    count, first, bits = item.LUTDescriptor
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, "<u2" if dataset.original_encoding[1] else ">u2")
    else:
        table = np.atleast_1d(np.asarray(data, np.uint16))
    if bits <= 8 and table.size == (count + 1) // 2:  # two entries in a word
        table = table.astype("<u2").view(np.uint8)[:count]
    index = np.clip(np.rint(values) - first, 0, table.size - 1).astype(np.intp)
    return table[index].astype(np.float64), table.astype(np.float64)


def _stretched(values: Values, span: Values) -> Values:
    low, high = float(span.min()), float(span.max())
    return (values - low) / ((high - low) or 1.0)


def _square_pixels(image: Gray, dataset: Dataset, path: Path) -> Gray:
    sides = pixel_spacing(dataset) or positive_numbers(dataset, "PixelAspectRatio")
    ratio = sides[0] / sides[1] if len(sides) == 2 else 1.0
    if abs(ratio - 1) <= _SQUARE:
        return image
    if not 1 / _OBLONG <= ratio <= _OBLONG:
        raise refusal(
            path,
            f"its pixels are said to be {ratio:.3g} times as high as wide",
            "correct its pixel spacing or aspect ratio",
        )
    height, width = image.shape
    height, width = round(height * max(1, ratio)), round(width * max(1, 1 / ratio))
    if height * width > MAX_PIXELS:
        raise too_large(path)
    return cast("Gray", cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
