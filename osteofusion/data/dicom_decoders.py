"""Decompress the pixels of a DICOM file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from osteofusion.data.dicom import INSTALL
from osteofusion.data.radiograph import refusal
from osteofusion.errors import RadiographError

if TYPE_CHECKING:
    from pydicom import Dataset

_J2K = b"\xff\x4f\xff\x51"  # what a JPEG 2000 stream starts with


def stored_values(dataset: Dataset, path: Path) -> NDArray[Any]:
    """Stored values of a single-frame file, (H, W) or (H, W, 3), YBR colours as RGB.

    The decoder of each compression is one that neither aborts nor fills gaps on damaged files.
    Left to itself, pydicom tries whatever is installed: GDCM, which ends the process on damage,
    pylibjpeg's RLE, which panics, and its libjpeg, which fills a frame cut short in silence.

    Raises:
        RadiographError: the decoder is not installed, there is none, or the stream is cut short;
            whatever else is wrong raises what pydicom raises.
    """
    from pydicom import uid
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return pixel_array(dataset)
    try:
        available = get_decoder(syntax).available_plugins
    except NotImplementedError as error:
        raise refusal(
            path, f"nothing decodes its compression ({syntax.name})", "export it uncompressed"
        ) from error
    if syntax == uid.RLELossless:
        return pixel_array(dataset, decoding_plugin="pydicom")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    jpeg_2000 = syntax in uid.JPEG2000TransferSyntaxes
    if jpeg_2000 and (start := frame.index(_J2K)):  # in a JP2; damaged, it hangs pydicom
        frame = frame[start:]
        dataset.PixelData = encapsulate([frame])
    if _stream_shape(frame) != (dataset.Rows, dataset.Columns):  # before it takes the memory
        raise ValueError("header and compressed stream differ in size")
    if jpeg_2000:
        if "pylibjpeg" not in available:
            raise _no_decoder(syntax.name, path)
        return pixel_array(dataset, decoding_plugin="pylibjpeg")
    if syntax == uid.JPEGBaseline8Bit or (
        syntax == uid.JPEGExtended12Bit and dataset.BitsStored <= 8
    ):
        return pixel_array(dataset, decoding_plugin="pillow")
    _decompress(dataset, frame, path)
    return pixel_array(dataset)


def _decompress(dataset: Dataset, frame: bytes, path: Path) -> None:
    """Replace a lossless, 12-bit or JPEG-LS ``frame`` by its pixels."""
    from pydicom import uid

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        import imagecodecs
    except ImportError as error:
        raise _no_decoder(syntax.name, path) from error
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise refusal(path, "it is cut short", "export it again")
    jpeg_ls = syntax in uid.JPEGLSTransferSyntaxes
    pixels = (imagecodecs.jpegls_decode if jpeg_ls else imagecodecs.jpeg8_decode)(frame)
    content = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = content + bytes(len(content) % 2)
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.PlanarConfiguration = 0
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian


def _stream_shape(frame: bytes) -> tuple[int, int]:
    """Height and width in the header of a JPEG, JPEG-LS or JPEG 2000 stream."""
    if frame.startswith(_J2K):
        width, height, left, top = struct.unpack_from(">4I", frame, 8)
        return height - top, width - left
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker in (0xFFC0, 0xFFC1, 0xFFC2, 0xFFC3, 0xFFF7):
            height, width = struct.unpack_from(">HH", frame, position + 5)
            return height, width
        position += 2 + length


def _no_decoder(compression: str, path: Path) -> RadiographError:
    return refusal(
        path,
        f"its compression ({compression}) needs a decoder that is not installed",
        f"run {INSTALL}, or export it uncompressed",
    )
