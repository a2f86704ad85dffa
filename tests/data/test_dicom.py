"""DICOM files as radiographs: pydicom's own, files written here, and what is refused."""

import dataclasses
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import (
    RadiographPreprocessing,
    content_hash,
    is_dicom,
    read_radiograph,
)
from osteofusion.errors import RadiographError

pydicom = pytest.importorskip("pydicom", reason="needs the extra osteofusion[dicom]")

import imagecodecs  # noqa: E402
from pydicom import uid  # noqa: E402
from pydicom.data.data_manager import DATA_ROOT, external_data_sources  # noqa: E402
from pydicom.pixels.processing import apply_windowing  # noqa: E402

from osteofusion.data.dicom import (  # noqa: E402
    DicomFacts,
    dicomdir_images,
    read_dicom_facts,
    read_spacing,
)

ROOTS = [Path(DATA_ROOT) / "test_files", Path(DATA_ROOT) / "charset_files"]
ROOTS += [Path(source.data_path) for source in external_data_sources().values()]
FILES = sorted(path for root in ROOTS for path in root.rglob("*") if path.is_file())
DICOMDIR = ROOTS[0] / "dicomdirtests" / "DICOMDIR"

NOT_ENOUGH = {  # single frames of at most 16 bits, damaged on purpose or under 16 pixels
    "MR_truncated.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
}


def own(name):
    """One of pydicom's own files; most radiographs among them come with pydicom-data."""
    found = [path for path in FILES if path.name == name]
    if not found:
        pytest.skip(f"{name} comes with the package pydicom-data")
    return found[0]


def ramp(bits=12, signed=False, shape=(48, 64)):
    """Every shade that fits, from the darkest to the brightest."""
    lowest = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(lowest, lowest + 2**bits - 1, shape[0] * shape[1]).round()
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return values.astype(kind).reshape(shape)


def dataset(pixels, bits=None, photometric=None, **elements):
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = "1.2.3.4"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric or ("RGB" if pixels.ndim == 3 else "MONOCHROME2")
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated <= 8 else "OW"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def write(path, pixels, bits=None, photometric=None, **elements):
    dataset(pixels, bits, photometric, **elements).save_as(path, enforce_file_format=True)
    return path


def lut(first, entries, bits=16):
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.asarray(entries, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def refusal(path, reader=read_radiograph):
    with pytest.raises(RadiographError) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


# pydicom's own files


def refused_for(path, header, frames):
    """Pattern of the reason for which a file is no radiograph; None for one that is."""
    if not is_dicom(path):
        return "nor a DICOM file"
    if path.name == "badVR.dcm" or ("PixelData" in header and "BitsAllocated" not in header):
        return "damaged"
    if "DirectoryRecordSequence" in header:
        return "DICOMDIR"
    if not header.get("PixelData"):
        return "floating-point" if "FloatPixelData" in header else "holds no pixels"
    if frames > 1:
        return f"{frames} frames"
    if header.BitsAllocated > 16:
        return f"{header.BitsAllocated}-bit pixels"
    return "cut short|fewer than 16" if path.name in NOT_ENOUGH else None


@pytest.mark.filterwarnings("ignore")  # pydicom's words on its own test files, while we ask it
def test_every_file_of_pydicom_is_read_or_refused_with_a_reason():
    assert len(FILES) > 150
    for path in FILES:
        header = pydicom.dcmread(path, force=True, stop_before_pixels=False)
        try:
            frames = int(header.get("NumberOfFrames") or 1)
        except ValueError:  # badVR.dcm
            frames = 0
        reason = refused_for(path, header, frames)
        if reason is None:
            image = read_radiograph(path)
            assert image.dtype == np.uint8
            assert image.ndim == 2
            assert image.max() > image.min(), path
        else:
            assert re.search(rf": .*({reason}).*; ", refusal(path))  # and what to do
        try:
            facts = read_dicom_facts(path)
        except RadiographError:
            assert not is_dicom(path)
        else:
            assert facts.spacing == read_spacing(path)


def test_lossless_copies_among_them_are_equal():
    for names in (
        ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm"],
        ["MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_implicit.dcm"],
        ["SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm"],  # JPEG Lossless
        ["liver_1frame.dcm", "liver_expb_1frame.dcm"],  # 1 bit
    ):
        first, *others = [read_radiograph(own(name)) for name in names]
        for name, other in zip(names[1:], others, strict=True):
            np.testing.assert_array_equal(other, first, err_msg=name)


@pytest.mark.parametrize("name", ["RG1", "RG3", "MR2", "693", "US1"])
def test_jpeg_2000_of_real_radiographs_equals_its_uncompressed_copy(name):
    lossless, plain = (read_radiograph(own(f"{name}_{kind}.dcm")) for kind in ("J2KR", "UNCR"))
    # US1 is colour, transformed reversibly.
    np.testing.assert_array_equal(lossless, plain)
    lossy, plain = (read_radiograph(own(f"{name}_{kind}.dcm")) for kind in ("J2KI", "UNCI"))
    assert np.abs(lossy.astype(int) - plain).mean() < 1


def test_palettes_do_not_depend_on_the_byte_order():
    for little, big in (
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm"),
        ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"),
    ):
        np.testing.assert_array_equal(read_radiograph(own(little)), read_radiograph(own(big)))


def test_bone_is_bright_in_a_real_film_of_either_photometric_interpretation(tmp_path):
    path = own("RG3_UNCR.dcm")  # a lower leg, MONOCHROME1
    image = read_radiograph(path)
    height, width = image.shape
    bone, soft, air = (
        image[round(0.25 * height) :, round(x * width) :][:20, :20].mean() for x in (0.46, 0.6, 0.3)
    )
    assert bone > soft + 20
    assert soft > air + 20
    film = pydicom.dcmread(path)
    assert film.PhotometricInterpretation == "MONOCHROME1"
    white = 2**film.BitsStored - 1
    film.PixelData = (white - film.pixel_array).tobytes()
    film.PhotometricInterpretation = "MONOCHROME2"
    film.WindowCenter = white + 1 - film.WindowCenter
    film.save_as(tmp_path / "monochrome2.dcm")
    copy = read_radiograph(tmp_path / "monochrome2.dcm")
    assert np.abs(copy.astype(int) - image).max() <= 1


def test_nothing_is_written_to_stderr(tmp_path):
    code = "import sys\nfrom pathlib import Path\n"
    code += "from osteofusion.data.radiograph import read_radiograph\n"
    code += (
        "for name in sys.argv[1:]:\n    try: read_radiograph(name)\n    except Exception: pass\n"
    )
    odd = [path for path in FILES if path.stat().st_size < 60_000]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, odd)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout == ""


# Encodings


def encoded(pixels, bits, syntax):
    """Stream of a lossless compression, of which only RLE and JPEG 2000 know signed values."""
    raw = (pixels.astype(int) & (2**bits - 1)).astype(f"u{pixels.itemsize}")
    if syntax == uid.RLELossless:
        made = dataset(pixels, bits)
        made.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
        return next(pydicom.encaps.generate_frames(made.PixelData, number_of_frames=1))
    if syntax == uid.JPEG2000Lossless:
        kind = {"codecformat": "J2K", "reversible": True, "level": 0}
        return imagecodecs.jpeg2k_encode(pixels, bitspersample=bits, **kind)
    if syntax == uid.HTJ2KLossless:
        return imagecodecs.htj2k_encode(pixels, reversible=True)
    if syntax == uid.JPEGLSLossless:
        return imagecodecs.jpegls_encode(raw)
    return imagecodecs.jpeg8_encode(raw, lossless=True, bitspersample=bits)


def lossless_copies(folder, pixels, bits, **elements):
    """Files that hold one picture in every lossless encoding that can be written here."""
    for syntax in (
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.RLELossless,
        uid.JPEG2000Lossless,
        uid.JPEGLSLossless,
        uid.JPEGLosslessSV1,
        *([uid.HTJ2KLossless] if hasattr(imagecodecs, "htj2k_encode") else []),
    ):
        made = dataset(pixels, bits, **elements)
        made.file_meta.TransferSyntaxUID = syntax
        if syntax == uid.ExplicitVRBigEndian:
            made.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
        elif syntax.is_encapsulated:
            stream = encoded(pixels, bits, syntax)
            made.PixelData = pydicom.encaps.encapsulate([stream])
            made["PixelData"].VR = "OB"
            made["PixelData"].is_undefined_length = True
        path = folder / f"{syntax.keyword}.dcm"
        made.save_as(path, enforce_file_format=True)
        yield path


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lossless_encodings_of_one_picture_are_equal(tmp_path, bits, signed):
    pixels = ramp(bits, signed)
    expected = np.linspace(0, 255, pixels.size).reshape(pixels.shape)
    for path in lossless_copies(tmp_path, pixels, bits):
        image = read_radiograph(path)
        assert image.dtype == np.uint8
        assert np.abs(image - expected).max() <= 0.51 + 0.5 * 255 / (2**bits - 1), path.name
        np.testing.assert_array_equal(
            image, read_radiograph(tmp_path / "ExplicitVRLittleEndian.dcm"), err_msg=path.name
        )


def test_colour_becomes_itu_r_601_luminance(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = rgb @ [0.299, 0.587, 0.114]
    ybr = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    codes = np.arange(256, dtype="<u2")
    palette = {}
    for i, colour in enumerate(("Red", "Green", "Blue")):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = (codes * (257 - i * 64)).tobytes()
    gray = rgb[..., 0]
    painted = gray * ([257, 193, 129] @ np.array([0.299, 0.587, 0.114])) / 257
    copies = {
        write(tmp_path / "rgb.dcm", rgb): expected,
        write(tmp_path / "deep.dcm", rgb.astype(np.uint16) * 257): expected,
        write(tmp_path / "ybr.dcm", np.ascontiguousarray(ybr), photometric="YBR_FULL"): expected,
        write(tmp_path / "pal.dcm", gray, photometric="PALETTE COLOR", **palette): painted,
    }
    planes = np.ascontiguousarray(np.moveaxis(rgb, 2, 0)).tobytes()
    planar = dataset(rgb, PlanarConfiguration=1, PixelData=planes)
    planar.save_as(tmp_path / "planar.dcm", enforce_file_format=True)
    copies[tmp_path / "planar.dcm"] = expected
    for path, luminance in copies.items():
        assert np.abs(read_radiograph(path) - luminance).max() <= 1.5, path.name


def test_eight_bits_stay_as_a_png_has_them(tmp_path):
    gray = np.random.default_rng(0).integers(30, 200, (40, 50), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.png")
    for path in (
        write(tmp_path / "a.dcm", gray),
        write(tmp_path / "16.dcm", gray.astype(np.uint16), bits=8),
        write(tmp_path / "signed.dcm", (gray.astype(int) - 128).astype(np.int8)),
        write(tmp_path / "m1.dcm", 255 - gray, photometric="MONOCHROME1"),
        write(tmp_path / "rescaled.dcm", gray, RescaleSlope=2, RescaleIntercept=-7),
        write(tmp_path / "nowhere.DCM", gray, WindowCenter=9000, WindowWidth=10),
    ):
        np.testing.assert_array_equal(
            read_radiograph(path), read_radiograph(tmp_path / "a.png"), err_msg=path.name
        )


def test_one_bit_becomes_black_and_white(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, (16, 24), dtype=np.uint8)
    made = dataset(mask, BitsAllocated=1, BitsStored=1, HighBit=0)
    made.PixelData = np.packbits(mask, bitorder="little").tobytes()
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.dcm"), mask * 255)


def test_bits_above_those_stored_are_left_out(tmp_path):
    pixels = ramp()
    overlay = pixels | (np.arange(64) % 2 << 12).astype(np.uint16)
    np.testing.assert_array_equal(
        read_radiograph(write(tmp_path / "a.dcm", overlay, bits=12)),
        read_radiograph(write(tmp_path / "b.dcm", pixels, bits=12)),
    )


# From stored value to shade


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (900, 700), (1.3, 1), (100.5, 3.25)])
def test_windows_are_those_of_the_standard(tmp_path, function, center, width):
    pixels = ramp()
    path = write(
        tmp_path / "a.dcm",
        pixels,
        bits=12,
        WindowCenter=[center, 5],
        WindowWidth=[width, 5],
        VOILUTFunction=function,
        RescaleSlope=0.5,
        RescaleIntercept=-20,
    )
    header = pydicom.dcmread(path)
    reference = apply_windowing(pixels * 0.5 - 20, header)
    low, high = -20, 4095 * 0.5 - 20
    expected = (reference - low) / (high - low) * 255
    assert np.abs(read_radiograph(path) - expected).max() <= 0.51


def test_a_window_that_makes_no_sense_is_left_out(tmp_path):
    plain = read_radiograph(write(tmp_path / "a.dcm", ramp(), bits=12))
    for i, (center, width) in enumerate([(2000, 0), (2000, -5), (1e6, 10), (None, 100), ([], [])]):
        path = write(tmp_path / f"{i}.dcm", ramp(), bits=12, WindowCenter=center, WindowWidth=width)
        np.testing.assert_array_equal(read_radiograph(path), plain)


def test_the_first_voi_lut_goes_before_the_window(tmp_path):
    pixels = ramp()
    curve = np.round(4095 * np.sqrt(np.arange(3000) / 2999)).astype(int)
    path = write(
        tmp_path / "a.dcm",
        pixels,
        bits=12,
        WindowCenter=100,
        WindowWidth=10,
        VOILUTSequence=lut(500, curve, 12) + lut(0, np.arange(4096)[::-1], 12),
    )
    expected = curve[np.clip(pixels.astype(int) - 500, 0, 2999)] / 4095 * 255
    assert np.abs(read_radiograph(path) - expected).max() <= 0.51


def test_luts_with_packed_bytes_and_as_single_words_agree(tmp_path):
    pixels = ramp(8)
    entries = np.arange(256)[::-1]
    packed = lut(0, entries, 8)
    packed[0].LUTData = entries.astype(np.uint8).tobytes()
    words = lut(0, entries, 8)
    words[0].LUTData = entries.tolist()
    words[0]["LUTData"].VR = "US"
    for name, item in {"packed": packed, "words": words, "bytes": lut(0, entries, 8)}.items():
        path = write(tmp_path / f"{name}.dcm", pixels, VOILUTSequence=item)
        np.testing.assert_array_equal(read_radiograph(path), 255 - pixels, err_msg=name)


def test_the_modality_lut_goes_before_the_window(tmp_path):
    pixels = ramp()
    dense = np.arange(4096)[::-1] * 16
    path = write(
        tmp_path / "a.dcm",
        pixels,
        bits=12,
        ModalityLUTSequence=lut(0, dense),
        WindowCenter=32768,
        WindowWidth=65536,
    )
    assert np.abs(read_radiograph(path) - (4095 - pixels.astype(float)) / 4095 * 255).max() <= 0.6


def test_a_falling_rescale_turns_the_shades_over(tmp_path):
    plain = read_radiograph(write(tmp_path / "a.dcm", ramp(), bits=12))
    path = write(tmp_path / "b.dcm", ramp(), bits=12, RescaleSlope=-2, RescaleIntercept=9000)
    assert np.abs(255 - plain.astype(int) - read_radiograph(path)).max() <= 1
    assert "damaged or an unusual" in refusal(
        write(tmp_path / "c.dcm", ramp(), bits=12, RescaleSlope="1e309", RescaleIntercept=0)
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_takes_no_part_in_the_range(tmp_path, photometric):
    film = ramp(10)
    framed = np.pad(film, 10, constant_values=4095)
    framed[:5] = 4000
    plain = read_radiograph(write(tmp_path / "a.dcm", film, 12, photometric))
    image = read_radiograph(
        write(
            tmp_path / "b.dcm",
            framed,
            12,
            photometric,
            PixelPaddingValue=4095,
            PixelPaddingRangeLimit=4000,
        )
    )
    np.testing.assert_array_equal(image[10:-10, 10:-10], plain)
    image[10:-10, 10:-10] = 0
    assert image.max() == 0


def test_padding_noted_with_the_other_sign_is_found(tmp_path):
    film = ramp(12, signed=True)
    film[:4] = -2000
    film[5, 5] = -1999
    made = dataset(film, 16)
    made.add_new("PixelPaddingValue", "US", 63536)
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read_radiograph(tmp_path / "a.dcm")
    assert image[:4].max() == 0
    assert image[4:].max() == 255
    # A value that no pixel of 8 bits can hold marks none.
    small = write(tmp_path / "b.dcm", ramp(8), PixelPaddingValue=65535)
    np.testing.assert_array_equal(read_radiograph(small), ramp(8))


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_headers_in_any_combination_give_shades_in_the_order_of_the_values(tmp_path, data):
    bits = data.draw(st.integers(1, 16).filter(lambda bits: bits > 1))
    signed = data.draw(st.booleans())
    pixels = ramp(bits, signed, (16, 20))
    if bits <= 8 and data.draw(st.booleans()):
        pixels = pixels.astype(np.int16 if signed else np.uint16)
    number = st.floats(-5000, 5000).map(lambda value: round(value, 3))
    header = {}
    if data.draw(st.booleans()):
        header["RescaleSlope"] = data.draw(st.floats(0.01, 50).map(lambda value: round(value, 3)))
        header["RescaleIntercept"] = data.draw(number)
    if data.draw(st.booleans()):
        header["WindowCenter"] = data.draw(number)
        header["WindowWidth"] = data.draw(number)
        header["VOILUTFunction"] = data.draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    padding = data.draw(st.sampled_from([None, *map(int, pixels.ravel()[[0, 7, -1]])]))
    if padding is not None:
        header["PixelPaddingValue"] = padding
    header["PixelSpacing"] = data.draw(st.sampled_from([None, [0.1, 0.1], [0, 0], ["", ""]]))
    bright, dark = (
        read_radiograph(write(tmp_path / "a.dcm", pixels, bits, photometric, **header))
        for photometric in ("MONOCHROME2", "MONOCHROME1")
    )
    shown = pixels != padding
    order = np.argsort(pixels[shown], kind="stable")
    assert (np.diff(bright[shown][order].astype(int)) >= 0).all()
    assert bright[shown].max() > bright[shown].min()
    np.testing.assert_array_equal(dark[shown], 255 - bright[shown])
    assert not bright[~shown].any()
    assert not dark[~shown].any()


# Pixels that are not square


@pytest.mark.parametrize(
    ("header", "spacing", "shape"),
    [
        ({}, None, (40, 60)),
        ({"PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), (40, 60)),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), (80, 60)),
        ({"ImagerPixelSpacing": [0.1, 0.15]}, (0.1, 0.15), (40, 90)),
        ({"NominalScannedPixelSpacing": [0.3, 0.2]}, (0.3, 0.2), (60, 60)),
        ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.1]}, (0.1, 0.1), (40, 60)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), (80, 60)),
        ({"PixelAspectRatio": [3, 2]}, None, (60, 60)),
        ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": [3, 2]}, (0.1, 0.1), (40, 60)),
        ({"PixelSpacing": [0.1, 0.1005]}, (0.1, 0.1005), (40, 60)),
    ],
)
def test_oblong_pixels_become_squares(tmp_path, header, spacing, shape):
    gray = np.zeros((40, 60), np.uint8)
    gray[20:] = 200
    path = write(tmp_path / "a.dcm", gray, **header)
    image = read_radiograph(path)
    assert image.shape == shape
    assert (image[: shape[0] // 2 - 2] == 0).all()
    assert (image[shape[0] // 2 + 2 :] == 200).all()
    assert read_spacing(path) == spacing


def test_spacing_that_makes_no_sense_is_refused_and_other_files_have_none(tmp_path):
    path = write(tmp_path / "a.dcm", ramp(8), PixelSpacing=[0.1, 9])
    assert "0.0111 times as high as wide" in refusal(path)
    Image.fromarray(ramp(8)).save(tmp_path / "a.png")
    assert read_spacing(tmp_path / "a.png") is None
    assert "no such file" in refusal(tmp_path / "absent.dcm", read_spacing)


# Refusals


def test_what_holds_no_radiograph_is_refused(tmp_path):
    gray = ramp(8)
    frames = write(tmp_path / "frames.dcm", gray, NumberOfFrames=2, Rows=24)
    assert "holds 2 frames" in refusal(frames)
    assert "32-bit pixels" in refusal(write(tmp_path / "32.dcm", gray.astype(np.uint32)))
    assert "12 bits stored" in refusal(write(tmp_path / "high.dcm", ramp(), 12, HighBit=15))
    assert "HSV" in refusal(write(tmp_path / "hsv.dcm", np.dstack([gray] * 3), photometric="HSV"))
    assert "fewer than 16" in refusal(write(tmp_path / "tiny.dcm", gray[:8]))
    padded = write(tmp_path / "padding.dcm", np.zeros_like(gray), PixelPaddingValue=0)
    assert "all its pixels are padding" in refusal(padded)
    assert "100 million" in refusal(write(tmp_path / "big.dcm", gray, Rows=30000, Columns=30000))
    floating = dataset(gray)
    del floating.PixelData
    floating.FloatPixelData = gray.astype(np.float32).tobytes()
    floating.save_as(tmp_path / "float.dcm", enforce_file_format=True)
    assert "floating-point" in refusal(tmp_path / "float.dcm")
    del floating.FloatPixelData
    floating.save_as(tmp_path / "none.dcm", enforce_file_format=True)
    assert "holds no pixels (Digital X-Ray Image Storage" in refusal(tmp_path / "none.dcm")
    del floating.Rows
    floating.SOPClassUID = uid.BasicTextSRStorage
    floating.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    assert "it holds no pixels (Basic Text SR Storage)" in refusal(tmp_path / "report.dcm")
    assert "DICOMDIR" in refusal(DICOMDIR)
    (tmp_path / "text.dcm").write_text("Dear colleague, the film is in the post.\n" * 9)
    assert "nor a DICOM file" in refusal(tmp_path / "text.dcm")
    assert "not a DICOM file" in refusal(tmp_path / "text.dcm", read_dicom_facts)
    video = dataset(gray)
    video.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    video.PixelData = pydicom.encaps.encapsulate([b"\0\0"])
    video["PixelData"].is_undefined_length = True
    video.save_as(tmp_path / "video.dcm", enforce_file_format=True)
    assert "MPEG-4" in refusal(tmp_path / "video.dcm")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_truncated_files_are_refused(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 4096, (80, 60), dtype=np.uint16)
    paths = list(lossless_copies(tmp_path, noise, 12))
    paths += [own("SC_rgb_jpeg_gdcm.dcm"), own("MR_small_jpeg_ls_lossless.dcm")]
    for path in paths:
        data = path.read_bytes()
        cut = tmp_path / f"cut-{path.name}"
        cut.write_bytes(data[: int(len(data) * share)])
        message = refusal(cut)
        assert "cut short" in message or "holds no pixels" in message


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_gdcm.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
    ],
)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.filterwarnings("ignore")
def test_a_compressed_stream_cut_inside_a_whole_file_is_refused(tmp_path, name, share):
    film = pydicom.dcmread(own(name))
    stream = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=1))
    film.PixelData = pydicom.encaps.encapsulate([stream[: int(len(stream) * share)]])
    film.save_as(tmp_path / "cut.dcm")
    assert "cut short" in refusal(tmp_path / "cut.dcm")


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_jp2_around_a_stream_does_not_hang(tmp_path):
    film = pydicom.dcmread(own("GDCMJ2K_TextGBR.dcm"))
    whole = read_radiograph(own("GDCMJ2K_TextGBR.dcm"))
    stream = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=1))
    assert stream[4:8] == b"jP  "
    film.PixelData = pydicom.encaps.encapsulate([stream[:12] + bytes(4) + stream[16:]])
    film.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.dcm"), whole)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_no_damage_raises_anything_but_a_refusal(tmp_path, data):
    originals = sorted(tmp_path.glob("*.dcm")) or sorted(
        lossless_copies(
            tmp_path,
            ramp(),
            12,
            WindowCenter=900,
            WindowWidth=800,
            PatientAge="045Y",
            PixelSpacing=[0.1, 0.2],
            VOILUTSequence=lut(0, [1, 2, 3]),
        )
    )
    content = bytearray(data.draw(st.sampled_from(originals)).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[: data.draw(st.integers(132, len(content)))])
    for reader in (read_dicom_facts, read_spacing, read_radiograph):
        try:
            result = reader(damaged)
        except RadiographError:
            continue
        if reader is read_radiograph:
            assert result.dtype == np.uint8
            assert result.ndim == 2


WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from osteofusion.data.radiograph import read_radiograph
from osteofusion.errors import RadiographError
for path in sys.argv[2:]:
    try:
        print(read_radiograph(path).shape)
    except RadiographError as error:
        print(error)
"""


def without(modules, *paths):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, modules, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_without_pydicom_one_sentence_names_the_extra(tmp_path):
    dicom = write(tmp_path / "a", ramp(8))
    Image.fromarray(ramp(8)).save(tmp_path / "b.png")
    sentence, png = without("pydicom", dicom, tmp_path / "b.png")
    assert str(dicom) in sentence
    assert "run pip install 'osteofusion[dicom]'." in sentence
    assert png == "(48, 64)"


def test_without_its_decoder_a_compression_names_the_package():
    names = ["MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm"]
    names += ["MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
    *refused, rle, jpeg = without("imagecodecs,openjpeg,pylibjpeg", *map(own, names))
    for sentence in refused:
        assert "needs a decoder that is not installed" in sentence
        assert "run pip install 'osteofusion[dicom]'" in sentence
    assert (rle, jpeg) == ("(64, 64)", "(100, 100)")


# By content, not by name


def test_dicom_is_told_by_its_content(tmp_path):
    made = write(tmp_path / "IM0001", ramp(8))
    assert is_dicom(made)
    assert is_dicom(str(DICOMDIR))
    assert read_radiograph(made).shape == (48, 64)
    shutil.copy(made, tmp_path / "lies.png")
    assert read_radiograph(tmp_path / "lies.png").shape == (48, 64)
    Image.fromarray(ramp(8)).save(tmp_path / "lies.dcm", format="PNG")
    assert not is_dicom(tmp_path / "lies.dcm")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "lies.dcm"), ramp(8))
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "loop.dcm").symlink_to(tmp_path / "loop.dcm")
    for name in ("pipe.dcm", "empty.dcm", "loop.dcm", "absent.dcm", "."):
        assert not is_dicom(tmp_path / name)


def test_files_older_than_the_preamble_are_read_when_named_dcm(tmp_path):
    plain = read_radiograph(write(tmp_path / "a.dcm", ramp(), bits=12))
    header = pydicom.dcmread(tmp_path / "a.dcm")
    del header.file_meta, header.preamble
    bare = tmp_path / "bare.dcm"
    header.save_as(bare, implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_radiograph(bare), plain)
    assert is_dicom(bare)
    bare.rename(tmp_path / "bare")
    assert not is_dicom(tmp_path / "bare")
    assert "nor a DICOM file" in refusal(tmp_path / "bare")


def test_a_tiff_header_in_the_preamble_does_not_make_a_tiff(tmp_path):
    path = write(tmp_path / "a.dcm", ramp(8))
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + path.read_bytes()[8:])
    np.testing.assert_array_equal(read_radiograph(path), ramp(8))


# Facts


@pytest.mark.parametrize(
    ("header", "age"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "22Y"}, 22),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "026W"}, 0.498),
        ({"PatientAge": "007D"}, 0.019),
        ({"PatientAge": "045Y", "PatientBirthDate": "19000101", "StudyDate": "20200101"}, 45),
        ({"PatientAge": "000Y", "PatientBirthDate": "19500704", "StudyDate": "20061219"}, 56.46),
        ({"PatientBirthDate": "1950.07.04", "AcquisitionDate": "20061219"}, 56.46),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "old"}, None),
        ({"PatientAge": "999Y"}, None),
        ({"PatientBirthDate": "20200101", "StudyDate": "20100101"}, None),
        ({"PatientBirthDate": "19500704"}, None),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom on values that we write wrong on purpose
def test_age_in_years(tmp_path, header, age):
    path = write(tmp_path / "a.dcm", ramp(8), **header)
    assert read_dicom_facts(path).age == pytest.approx(age, abs=0.01)


def test_facts_are_read_and_nothing_that_identifies(tmp_path):
    secrets = {
        "PatientName": "Muster^Erika",
        "PatientBirthDate": "19500704",
        "AccessionNumber": "ACC4711",
        "InstitutionName": "Sankt Nirgendwo",
        "ReferringPhysicianName": "Weiss^Anna",
        "PatientAddress": "Heidestrasse 17",
        "StudyDate": "20061219",
        "StudyID": "S0815",
    }
    path = write(
        tmp_path / "a.dcm",
        ramp(8),
        **secrets,
        PatientID=" OP12 ",
        PatientAge="056Y",
        PatientSex="F",
        Laterality="R",
        ImageLaterality="L",
        BodyPartExamined="KNEE",
        Modality="DX",
        ImagerPixelSpacing=[0.14, 0.14],
    )
    facts = read_dicom_facts(path)
    assert facts == DicomFacts("OP12", 56.0, 1, "left", "knee", "DX", (0.14, 0.14))
    cache = RadiographCache(tmp_path / "cache", RadiographPreprocessing(64))
    cache.get(path, content_hash(path))
    stored = b"".join(p.read_bytes() for p in cache.folder.rglob("*") if p.is_file())
    assert stored
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(path.read_bytes()[:-500])
    told = f"{dataclasses.asdict(facts)} {refusal(cut)} {stored!r}"
    for secret in secrets.values():
        assert secret not in told


@pytest.mark.parametrize(("sex", "female"), [("F", 1), ("M", 0), ("O", None), ("", None)])
@pytest.mark.parametrize(
    ("side", "laterality"), [("L", "left"), ("R", "right"), ("B", "both"), ("U", None), ("", None)]
)
def test_sex_and_side(tmp_path, sex, female, side, laterality):
    path = write(tmp_path / "a.dcm", ramp(8), PatientSex=sex, Laterality=side)
    facts = read_dicom_facts(path)
    assert (facts.female, facts.laterality) == (female, laterality)
    assert (facts.patient_id, facts.body_part, facts.modality) == (None, None, None)


# DICOMDIR


def test_the_images_of_a_dicomdir_are_listed_in_its_order():
    images = dicomdir_images(DICOMDIR)
    assert len(images) == 31
    assert len(set(images)) == 31
    assert images[0].relative_to(DICOMDIR.parent) == Path("77654033/CR1/6154")
    for image in images:
        assert read_radiograph(image).shape[0] == 16
    facts = read_dicom_facts(images[0])
    assert (facts.modality, facts.age) == ("CR", 47)


def test_a_medium_in_lower_case_is_found_and_an_incomplete_one_refused(tmp_path):
    for image in dicomdir_images(DICOMDIR):
        target = tmp_path / str(image.relative_to(DICOMDIR.parent)).lower()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    index = shutil.copy(DICOMDIR, tmp_path / "dicomdir")
    assert len(dicomdir_images(index)) == 31
    (tmp_path / "77654033" / "cr2" / "6247").unlink()
    assert "lacks the '6247'" in refusal(index, dicomdir_images)
    image = write(tmp_path / "a.dcm", ramp(8))
    assert "not a DICOMDIR" in refusal(image, dicomdir_images)
    assert "no such file" in refusal(tmp_path / "absent", dicomdir_images)


@pytest.mark.filterwarnings("ignore")
def test_a_dicomdir_cannot_lead_out_of_its_folder(tmp_path):
    folder = tmp_path / "medium"
    folder.mkdir()
    write(tmp_path / "OUTSIDE", ramp(8))
    index = pydicom.dcmread(DICOMDIR)
    for record in index.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "OUTSIDE"]
    index.save_as(folder / "DICOMDIR")
    assert "lacks the '..'" in refusal(folder / "DICOMDIR", dicomdir_images)


# Cache


def test_the_cache_holds_dicom_under_its_content(tmp_path):
    paths = list(lossless_copies(tmp_path, ramp(shape=(60, 90)), 12))
    items = [(path, content_hash(path)) for path in paths]
    assert len({sha256 for _, sha256 in items}) == len(items)
    preprocessing = RadiographPreprocessing(64)
    cache = RadiographCache(tmp_path / "cache", preprocessing)
    cache.fill(items, 2, progress=False)
    expected = preprocessing(read_radiograph(paths[0]))
    for path, sha256 in items:
        path.write_bytes(b"gone")  # what is cached needs the file no more
        np.testing.assert_array_equal(cache.get(path, sha256), expected)


# Millimetres


def disc(side, diameter):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return (np.hypot(x, y) <= diameter / 2).astype(np.uint8) * 200


def in_millimetres(path, spacing, size=128):
    return RadiographPreprocessing(size, pixel_spacing=spacing).read(path.read_bytes(), path)


def test_one_film_at_two_spacings_comes_out_at_one_scale(tmp_path):
    # A disc of 20 mm on a film of 40 mm, digitised three times.
    fine = write(tmp_path / "fine.dcm", disc(400, 200), PixelSpacing=[0.1, 0.1])
    coarse = write(tmp_path / "coarse.dcm", disc(200, 100), ImagerPixelSpacing=[0.2, 0.2])
    oblong = write(tmp_path / "oblong.dcm", disc(400, 200)[::2], PixelSpacing=[0.2, 0.1])
    for wanted in (0.1, 0.25, 0.4):
        images = [in_millimetres(path, wanted, 256) for path in (fine, coarse, oblong)]
        for image in images:
            seen = np.flatnonzero((image > 100).any(axis=0)).size
            assert abs(seen - 20 / wanted) <= 2
            assert abs(seen - np.flatnonzero((image > 100).any(axis=1)).size) <= 2
        for other in images[1:]:
            assert (np.abs(other.astype(int) - images[0]) > 100).mean() < 0.01


def test_the_cache_keeps_each_scale_and_refuses_films_without_spacing(tmp_path):
    path = write(tmp_path / "a.dcm", disc(200, 100), PixelSpacing=[0.2, 0.2])
    sha256 = content_hash(path)
    scaled, fitted = (
        RadiographCache(tmp_path / "cache", RadiographPreprocessing(64, pixel_spacing=spacing))
        for spacing in (0.2, None)
    )
    np.testing.assert_array_equal(scaled.get(path, sha256), disc(200, 100)[68:132, 68:132])
    np.testing.assert_array_equal(
        fitted.get(path, sha256), RadiographPreprocessing(64)(read_radiograph(path))
    )
    without = write(tmp_path / "b.dcm", ramp(8))
    Image.fromarray(ramp(8)).save(tmp_path / "c.png")
    for film in (without, tmp_path / "c.png"):
        message = refusal(film, lambda path: scaled.get(path, content_hash(path)))
        assert "has no pixel spacing; leave data.pixel_spacing out" in message
    coarse = write(tmp_path / "d.dcm", disc(200, 100), PixelSpacing=[900, 900])
    assert "900 mm wide" in refusal(coarse, lambda path: in_millimetres(path, 0.01))
