"""What read_radiograph accepts, what it refuses and how, and what preprocessing keeps."""

import hashlib
import os
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from osteofusion.data.radiograph import (
    RADIOGRAPH_SUFFIXES,
    RadiographPreprocessing,
    content_hash,
    read_radiograph,
)
from osteofusion.errors import ConfigError, RadiographError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def picture(height=60, width=90):
    """A smooth picture without symmetry."""
    y, x = np.mgrid[:height, :width]
    return (20 + 150 * x / width + 60 * y / height).astype(np.uint8)


def colour(gray):
    return np.dstack([gray] * 3)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def save_cv2(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


def tiff(pixels, **tags):
    """Bytes of an uncompressed little-endian TIFF; for what no writer at hand can produce."""
    height, width, channels = (*pixels.shape, 1)[:3]
    bits = pixels.dtype.itemsize * 8
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [tags.get("photometric", 2 if channels == 3 else 1)]),
        273: (4, [0]),
        274: (3, [tags.get("orientation", 1)]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [pixels.nbytes]),
        339: (3, [tags.get("sample_format", 1)] * channels),
    }
    after = 8 + 2 + 12 * len(entries) + 4
    start = after + sum(2 * len(v) for t, v in entries.values() if t == 3 and len(v) > 2)
    entries[273] = (4, [start])
    directory, extra = struct.pack("<H", len(entries)), b""
    for tag, (kind, values) in entries.items():
        value = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(value) > 4:
            extra, value = extra + value, struct.pack("<I", after + len(extra))
        directory += struct.pack("<HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4) + extra + pixels.tobytes()


def refusal(path):
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


# Formats


def test_lossless_copies_are_equal(tmp_path):
    gray = picture()
    deep = gray.astype(np.uint16) * 257
    opaque = np.full_like(gray, 255)
    exact = Image.fromarray(gray)
    copies = [
        save(tmp_path / "gray.png", gray),
        save(tmp_path / "gray.tif", gray),
        save(tmp_path / "lzw.tiff", gray, compression="tiff_lzw"),
        save(tmp_path / "white_is_zero.tif", gray, tiffinfo={262: 1}),
        save(tmp_path / "rgb.png", colour(gray)),
        save(tmp_path / "rgb.tif", colour(gray), compression="tiff_adobe_deflate"),
        save(tmp_path / "rgba.png", np.dstack([colour(gray), opaque])),
        save(tmp_path / "rgba.tif", np.dstack([colour(gray), opaque])),
        save(tmp_path / "la.png", np.dstack([gray, opaque])),
        save(tmp_path / "la.tif", np.dstack([gray, opaque])),
        save(tmp_path / "deep.png", deep),
        save(tmp_path / "deep.tif", deep),
        save(tmp_path / "deep_lzw.tif", deep, compression="tiff_lzw"),
        save_cv2(tmp_path / "deep_rgb.png", colour(deep)),
        save_cv2(tmp_path / "deep_rgb.tif", colour(deep)),
        save_cv2(tmp_path / "deep_rgba.png", np.dstack([colour(deep), opaque * np.uint16(257)])),
        save(tmp_path / "name_lies.jpg", gray, format="PNG"),
    ]
    exact.convert("P").save(tmp_path / "palette.png")
    exact.convert("P").save(tmp_path / "palette.tif")
    (tmp_path / "hand.tif").write_bytes(tiff(deep))
    (tmp_path / "big_endian.tif").write_bytes(big_endian := _big_endian(deep))
    assert big_endian[:2] == b"MM"
    # Pillow inverts an 8-bit TIFF whose zero is white and not a 16-bit one: both must agree.
    (tmp_path / "inverted_8.tif").write_bytes(tiff(255 - gray, photometric=0))
    (tmp_path / "inverted_16.tif").write_bytes(tiff(65535 - deep, photometric=0))
    copies += [
        tmp_path / name
        for name in (
            "palette.png",
            "palette.tif",
            "hand.tif",
            "big_endian.tif",
            "inverted_8.tif",
            "inverted_16.tif",
        )
    ]
    for path in copies:
        image = read_radiograph(path)
        assert image.dtype == np.uint8, path.name
        np.testing.assert_array_equal(image, gray, err_msg=path.name)


def _big_endian(deep):
    """Byte-swap what `tiff` writes for a gray picture: all its fields are 16 or 32 bits wide."""
    data = tiff(deep)
    count = struct.unpack_from("<H", data, 8)[0]
    out = b"MM" + struct.pack(">HI", 42, 8) + struct.pack(">H", count)
    for i in range(count):
        tag, kind, n = struct.unpack_from("<HHI", data, 10 + 12 * i)
        value = struct.unpack_from("<H" if kind == 3 else "<I", data, 18 + 12 * i)[0]
        out += struct.pack(">HHI", tag, kind, n)
        out += struct.pack(">H2x" if kind == 3 else ">I", value)
    return out + bytes(4) + deep.astype(">u2").tobytes()


def test_jpeg_is_read_as_its_luminance(tmp_path):
    gray = picture()
    for name, pixels in {"l.jpg": gray, "rgb.JPEG": colour(gray)}.items():
        for progressive in (False, True):
            path = save(tmp_path / name, pixels, quality=100, progressive=progressive)
            assert np.abs(read_radiograph(path).astype(int) - gray).max() <= 2
    stored_as_rgb = save(tmp_path / "keep.jpg", colour(gray), quality=100, keep_rgb=True)
    assert np.abs(read_radiograph(stored_as_rgb).astype(int) - gray).max() <= 2


def test_colour_becomes_itu_r_601_luminance(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    expected = rgb @ [0.299, 0.587, 0.114]
    for path in (
        save(tmp_path / "a.png", rgb),
        save(tmp_path / "a.tif", rgb),
        save_cv2(tmp_path / "deep.png", rgb[..., ::-1].astype(np.uint16) * 257),
    ):
        assert np.abs(read_radiograph(path) - expected).max() <= 1


def test_16_bits_below_4096_are_read_as_12_bits(tmp_path):
    deep = np.linspace(0, 4095, 32 * 32).astype(np.uint16).reshape(32, 32)
    expected = np.round(deep / 4095 * 255)
    for path in (
        save(tmp_path / "12.png", deep),
        save(tmp_path / "12.tif", deep),
        save_cv2(tmp_path / "12rgb.png", colour(deep)),
    ):
        np.testing.assert_array_equal(read_radiograph(path), expected)
    deep[0, 0] = 4096
    np.testing.assert_array_equal(
        read_radiograph(save(tmp_path / "16.png", deep)), np.round(deep / 257)
    )


def test_transparency_becomes_black(tmp_path):
    gray = np.full((20, 30), 200, np.uint8)
    alpha = np.zeros_like(gray)
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    deep = colour(gray.astype(np.uint16) * 257)
    for path in (
        save(tmp_path / "la.png", np.dstack([gray, alpha])),
        save(tmp_path / "rgba.png", np.dstack([colour(gray), alpha])),
        save(tmp_path / "rgba.tif", np.dstack([colour(gray), alpha])),
        save_cv2(tmp_path / "deep.png", np.dstack([deep, alpha.astype(np.uint16) * 257])),
    ):
        image = read_radiograph(path)
        assert (image[:, :10] == 0).all()
        assert (np.abs(image[:, 10:20].astype(int) - 100) <= 1).all()
        assert (image[:, 20:] == 200).all()
    keyed = gray.copy()
    keyed[:5] = 7
    image = read_radiograph(save(tmp_path / "key.png", keyed, transparency=7))
    assert (image[:5] == 0).all()
    assert (image[5:] == 200).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    gray = picture()
    deep = colour(gray.astype(np.uint16) * 257)
    # What a viewer must show, written as EXIF defines it: where stored row 0 and column 0 lie.
    upright = {
        1: gray,
        2: gray[:, ::-1],
        3: gray[::-1, ::-1],
        4: gray[::-1],
        5: gray.T,
        6: gray.T[:, ::-1],
        7: gray.T[::-1, ::-1],
        8: gray.T[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    for path in (
        save(tmp_path / "a.png", gray, exif=exif),
        save(tmp_path / "a.tif", gray, exif=exif, compression="tiff_lzw"),
        save(tmp_path / "a.jpg", gray, exif=exif, quality=100),
        save(tmp_path / "deep.png", deep[..., 0], exif=exif),
    ):
        image = read_radiograph(path)
        assert image.shape == upright.shape, path.name
        assert np.abs(image.astype(int) - upright).max() <= 2, path.name
    for name, pixels in {"8": gray, "16": deep[..., 0], "16rgb": deep}.items():
        path = tmp_path / f"{name}.tif"
        path.write_bytes(tiff(np.ascontiguousarray(pixels), orientation=orientation))
        np.testing.assert_array_equal(read_radiograph(path), upright, err_msg=name)
    plain = save_cv2(tmp_path / "rgb16.png", deep).read_bytes()
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + block))
    (tmp_path / "rgb16.png").write_bytes(plain[:33] + chunk + plain[33:])  # behind the header
    np.testing.assert_array_equal(read_radiograph(tmp_path / "rgb16.png"), upright)


def test_a_jpeg_with_a_preview_behind_it_is_read(tmp_path):
    gray = picture()
    path = tmp_path / "phone.jpg"
    Image.fromarray(gray).save(
        path, format="MPO", save_all=True, append_images=[Image.fromarray(gray[::2, ::2])]
    )
    assert read_radiograph(path).shape == gray.shape


def test_suffixes_are_lower_case_with_a_dot():
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"} == RADIOGRAPH_SUFFIXES


# Refusals


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {}),
        ("progressive.jpg", {"progressive": True}),
        ("a.png", {}),
        ("a.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("deflate.tif", {"compression": "tiff_adobe_deflate"}),
    ],
)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.97])
def test_truncated_files_are_refused(tmp_path, name, options, share):
    noise = np.random.default_rng(0).integers(0, 256, (200, 150), dtype=np.uint8)
    path = save(tmp_path / name, noise, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message = refusal(path)
    assert "cut short" in message
    assert "download it again" in message


def test_truncated_16_bit_colour_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 65536, (100, 100, 3), dtype=np.uint16)
    path = save_cv2(tmp_path / "a.png", noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "cut short" in refusal(path)


def test_damaged_compressed_tiff_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 150), dtype=np.uint8)
    path = save(tmp_path / "a.tif", noise, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "empty.png")

    (tmp_path / "text.png").write_text("Dear colleague, the film is in the post.\n")
    assert "not a PNG, JPEG or TIFF" in refusal(tmp_path / "text.png")

    (tmp_path / "short.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "cut short" in refusal(tmp_path / "short.png")

    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.png")
    assert "no such file" in refusal(tmp_path / "absent.png")
    assert "no such file" in refusal(tmp_path / "text.png" / "below.png")

    os.mkfifo(tmp_path / "pipe.png")
    assert "no such file" in refusal(tmp_path / "pipe.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path):
    path = save(tmp_path / "a.png", picture())
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_other_picture_formats_are_refused(tmp_path):
    frame = Image.fromarray(picture())
    other = Image.fromarray(255 - picture())
    frame.save(tmp_path / "animated.gif", save_all=True, append_images=[other])
    frame.save(tmp_path / "gif.png", format="GIF")
    frame.save(tmp_path / "a.bmp")
    frame.save(tmp_path / "a.webp")
    for name in ("animated.gif", "gif.png", "a.bmp", "a.webp"):
        assert "not a PNG, JPEG or TIFF" in refusal(tmp_path / name)

    frame.save(tmp_path / "animated.png", save_all=True, append_images=[other])
    frame.save(tmp_path / "pages.tif", save_all=True, append_images=[other])
    for name in ("animated.png", "pages.tif"):
        assert "holds 2 pictures" in refusal(tmp_path / name)


def test_pixels_that_are_no_intensities_are_refused(tmp_path):
    cmyk = Image.fromarray(colour(picture())).convert("CMYK")
    cmyk.save(tmp_path / "a.jpg")
    cmyk.save(tmp_path / "a.tif")
    assert "CMYK" in refusal(tmp_path / "a.jpg")
    assert "CMYK" in refusal(tmp_path / "a.tif")
    save(tmp_path / "float.tif", picture().astype(np.float32))
    assert "floating-point" in refusal(tmp_path / "float.tif")
    save(tmp_path / "int.tif", picture().astype(np.int32))
    assert "32-bit" in refusal(tmp_path / "int.tif")
    (tmp_path / "signed.tif").write_bytes(tiff(picture().astype(np.int16), sample_format=2))
    assert "signed" in refusal(tmp_path / "signed.tif")


@pytest.mark.parametrize("shape", [(1, 1), (15, 100), (100, 15)])
def test_tiny_images_are_refused(tmp_path, shape):
    message = refusal(save(tmp_path / "a.png", np.zeros(shape, np.uint8)))
    assert f"{shape[1]} x {shape[0]} pixels" in message
    assert read_radiograph(save(tmp_path / "b.png", np.zeros((16, 16), np.uint8))).shape == (16, 16)


@pytest.mark.parametrize("side", [11_000, 20_000, 60_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, side):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    assert "more than 100 million pixels" in refusal(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_damage_raises_anything_but_a_refusal(tmp_path, data):
    name = data.draw(st.sampled_from(["a.jpg", "a.png", "a.tif", "lzw.tif", "deep.png"]))
    path = tmp_path / name
    if not path.exists():
        pixels = picture(24, 32)
        if name == "deep.png":
            save_cv2(path, colour(pixels.astype(np.uint16) * 257))
        else:
            save(path, pixels, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged{path.suffix}"
    damaged.write_bytes(content[: data.draw(st.integers(4, len(content)))])
    try:
        image = read_radiograph(damaged)
    except RadiographError:
        return
    assert image.ndim == 2
    assert image.dtype == np.uint8


# Content hash


def test_content_hash_is_sha256_of_the_bytes(tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "a.png").write_bytes(content)
    assert content_hash(tmp_path / "a.png") == hashlib.sha256(content).hexdigest()
    for path in (tmp_path, tmp_path / "absent.png"):
        with pytest.raises(RadiographError, match=re.escape(str(path))):
            content_hash(path)


# Preprocessing

shapes = st.tuples(st.integers(16, 500), st.integers(16, 500))
sizes = st.integers(16, 300)


def content_box(square):
    rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


@settings(max_examples=150, deadline=None)
@given(shape=shapes, size=sizes, clahe=st.booleans())
def test_aspect_ratio_is_kept_and_the_picture_is_centred(shape, size, clahe):
    # Brightness must not reach 0, which is how the picture is told from the padding.
    image = np.random.default_rng(0).integers(100, 200, shape, dtype=np.uint8)
    square = RadiographPreprocessing(size, clahe)(image)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    if clahe:  # which may map the darkest pixels to 0
        return
    top, bottom, left, right = content_box(square)
    height, width = bottom - top, right - left
    assert max(height, width) == size
    scale = size / max(shape)
    assert abs(height - shape[0] * scale) <= 1
    assert abs(width - shape[1] * scale) <= 1
    assert abs(top - (size - bottom)) <= 1
    assert abs(left - (size - right)) <= 1


@settings(max_examples=60, deadline=None)
@given(shape=shapes, size=st.integers(64, 300))
def test_no_side_is_cut_off(shape, size):
    """Four quadrants of different brightness keep their brightness and their share."""
    height, width = shape
    image = np.full(shape, 50, np.uint8)
    image[: height // 2, width // 2 :] = 100
    image[height // 2 :, : width // 2] = 150
    image[height // 2 :, width // 2 :] = 200
    square = RadiographPreprocessing(size)(image)
    top, bottom, left, right = content_box(square)
    content = square[top:bottom, left:right]
    for corner, value in {(0, 0): 50, (0, -1): 100, (-1, 0): 150, (-1, -1): 200}.items():
        assert abs(int(content[corner]) - value) <= 1 or min(content.shape) < 4
    assert content.mean() == pytest.approx(image.mean(), abs=8 if min(content.shape) > 16 else 30)


def test_a_square_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    np.testing.assert_array_equal(RadiographPreprocessing(64)(image), image)


def test_clahe_changes_the_picture_and_not_the_padding():
    image = np.random.default_rng(0).integers(100, 130, (100, 50), dtype=np.uint8)
    plain, equalised = (RadiographPreprocessing(128, clahe)(image) for clahe in (False, True))
    left, right = content_box(plain)[2:]
    assert equalised[:, left:right].std() > 1.5 * plain[:, left:right].std()
    assert not equalised[:, :left].any()
    assert not equalised[:, right:].any()
    alone = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(
        np.ascontiguousarray(plain[:, left:right])
    )
    np.testing.assert_array_equal(equalised[:, left:right], alone)


def test_the_key_tells_settings_apart():
    keys = {RadiographPreprocessing(size, clahe).key for size in (64, 224) for clahe in (0, 1)}
    assert len(keys) == 4
    assert RadiographPreprocessing(224).key == "v1-224"


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match="size 8"):
        RadiographPreprocessing(8)
    with pytest.raises(ValueError, match="float64"):
        RadiographPreprocessing(64)(np.zeros((20, 20)))
    with pytest.raises(ValueError, match=r"\(20, 20, 3\)"):
        RadiographPreprocessing(64)(np.zeros((20, 20, 3), np.uint8))


# Real files


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
def test_real_files_are_read_at_their_size():
    paths = [
        *sorted((SHARED / "mendeley_full_resolution").glob("*/*"))[:3],
        *sorted((SHARED / "mendeley" / "normal").glob("*"))[:5],
        *sorted((SHARED / "rsna_boneage" / "boneage-training-dataset").glob("704*.png")),
    ]
    assert len(paths) > 10
    for path in paths:
        image = read_radiograph(path)
        with Image.open(path) as reference:
            assert image.shape == reference.size[::-1]
            difference = np.abs(image.astype(int) - np.asarray(reference.convert("L")))
        assert difference.max() <= 1


# Millimetres


@settings(max_examples=100, deadline=None)
@given(
    shape=shapes,
    size=sizes,
    spacing=st.floats(0.05, 0.5),
    wanted=st.floats(0.05, 0.5),
    clahe=st.booleans(),
)
def test_a_film_brought_to_millimetres_is_centred_and_cut_or_padded(
    shape, size, spacing, wanted, clahe
):
    image = np.random.default_rng(0).integers(100, 200, shape, dtype=np.uint8)
    square = RadiographPreprocessing(size, clahe, wanted)(image, spacing)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    if clahe:
        return
    top, bottom, left, right = content_box(square)
    for side, start, end in ((shape[0], top, bottom), (shape[1], left, right)):
        assert abs(end - start - min(size, side * spacing / wanted)) <= 1
        assert abs(start - (size - end)) <= 1


def test_a_square_of_millimetres_shows_the_middle_of_the_film():
    image = picture(200, 300)
    square = RadiographPreprocessing(64, pixel_spacing=0.1)(image, 0.1)
    np.testing.assert_array_equal(square, image[68:132, 118:182])


def test_millimetres_are_part_of_the_key():
    spacings = (None, 0.1, 0.2, 0.1 + 1e-9)
    assert len({RadiographPreprocessing(64, True, each).key for each in spacings}) == 4
    assert RadiographPreprocessing(224, True, 0.2).key == "v1-224-clahe-0.2mm"


@pytest.mark.parametrize("spacing", [0, -0.1, float("nan"), float("inf")])
def test_a_spacing_that_is_no_size_is_refused(spacing):
    with pytest.raises(ConfigError, match="Pixel spacing"):
        RadiographPreprocessing(64, pixel_spacing=spacing)
    with pytest.raises(ValueError, match="spacing of the image"):
        RadiographPreprocessing(64, pixel_spacing=0.1)(picture())
