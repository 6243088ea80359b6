"""Image files, as training and prediction read them: nothing is lost or reinterpreted."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from mtljax.data.files.images import image_size, read_image, read_map
from mtljax.screening.appearance import to_pil

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (6, 8, 3)).astype(np.uint16)
BANDS = RNG.integers(0, 256, (6, 8, 6)).astype(np.uint8)


def write_png(path, values):
    """Writes a PNG of 16 bits, gray or color, with or without transparency."""
    height, width, count = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + check
    path.write_bytes(content)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_images_lie_on_white(mode, channels, tmp_path):
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:, :4] = 255
    gray = Image.fromarray(np.full((6, 8), 51, np.uint8))
    image = Image.merge("LA", [gray, Image.fromarray(alpha)])
    if mode == "P":
        image = Image.fromarray(np.where(alpha, 51, 0).astype(np.uint8)).convert("P")
        image.info["transparency"] = image.getpixel((7, 0))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png", channels)
    assert found.shape == (6, 8, channels)
    np.testing.assert_array_equal(found, np.where(alpha, 51, 255)[..., None].repeat(channels, -1))


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_16_bits_are_kept_in_every_format(name, channels, tmp_path):
    path, values = tmp_path / name, DEEP[..., :channels]
    if name == "a.tif":
        tifffile.imwrite(path, values.squeeze(), photometric="rgb" if channels == 3 else None)
    elif name == "a.png":
        write_png(path, values)
    else:
        np.save(path, values)
    found = read_image(path, channels)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.round(found.astype(np.float64) * 257), values)
    np.testing.assert_array_equal(read_map(path), values if name == "a.npy" else values.squeeze())
    # A file of 8 bits with the high bytes is the same picture, up to its precision.
    np.save(tmp_path / "low.npy", (values >> 8).astype(np.uint8))
    assert abs(read_image(tmp_path / "low.npy", channels) - found).max() <= 1


def test_16_bits_with_transparency_lie_on_white(tmp_path):
    opacity = np.where(np.arange(8) < 4, 65535, 13107).astype(np.uint16)
    opacity = np.broadcast_to(opacity, (6, 8))[..., None]
    for values in (DEEP, DEEP[..., :1]):
        write_png(tmp_path / "a.png", np.concatenate([values, opacity], -1))
        part = opacity / 65535
        expected = values / 257 * part + 255 * (1 - part)
        found = read_image(tmp_path / "a.png", values.shape[-1])
        np.testing.assert_allclose(found, expected, atol=1e-3)
        if values.shape[-1] == 3:
            found = np.round(read_image(tmp_path / "a.png", 4).astype(np.float64) * 257)
            np.testing.assert_array_equal(found, np.concatenate([values, opacity], -1))


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [4, 6])
def test_further_bands_of_a_tiff_are_channels_and_never_transparency(bands, dtype, extra, tmp_path):
    path, values = tmp_path / "a.tif", BANDS[..., :bands] * dtype(np.iinfo(dtype).max // 255)
    for layout in ("contig", "separate"):
        data = values if layout == "contig" else np.moveaxis(values, -1, 0)
        samples = [extra] + ["unspecified"] * (bands - 4)
        tifffile.imwrite(path, data, photometric="rgb", planarconfig=layout, extrasamples=samples)
        np.testing.assert_array_equal(read_image(path, bands), BANDS[..., :bands])
        for channels in (1, 3, 5):
            with pytest.raises(ValueError, match=f"has {bands} channels, not {channels}; channels"):
                read_image(path, channels)
        assert image_size(path) == (6, 8)


def test_declared_transparency_of_a_tiff_is_accepted_where_it_is_opaque(tmp_path):
    values = np.concatenate([BANDS[..., :3], np.full((6, 8, 1), 255, np.uint8)], -1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 3), BANDS[..., :3])


@pytest.mark.parametrize("compression", [None, "deflate", "packbits"])
def test_compressed_bands_are_read(compression, tmp_path):
    if compression == "packbits":
        pytest.importorskip("imagecodecs", reason="tifffile writes PackBits by imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", BANDS, photometric="rgb", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 6), BANDS)


def pages(path):
    tifffile.imwrite(path, np.stack([BANDS[..., :3]] * 5), photometric="rgb")


def animation(path):
    frames = [Image.fromarray(BANDS[..., i]) for i in range(5)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.tif", pages, "a TIFF of 5 pages"),
        ("a.tif", lambda path: tifffile.imwrite(path, BANDS, imagej=True), "a TIFF of 6 pages"),
        ("a.gif", animation, "a GIF of 5 frames"),
        ("a.webp", animation, "a WEBP of 5 frames"),
        ("a.png", animation, "a PNG of 5 frames"),
    ],
)
def test_the_pages_of_a_file_are_not_ignored(name, write, message, tmp_path):
    write(tmp_path / name)
    for read in (lambda path: read_image(path, 3), read_map):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / name)


def test_previews_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(BANDS, photometric="rgb")
        file.write(BANDS[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 6), BANDS)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.int64, np.float32, bool])
@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_numbers_of_unknown_scale_are_refused(name, dtype, tmp_path):
    path, values = tmp_path / name, np.arange(48).reshape(6, 8)
    black = functools.partial(tifffile.imwrite, photometric="minisblack")
    write = np.save if name == "a.npy" else black
    write(path, values.astype(dtype))
    scale = 255 if dtype is bool else 1
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], values.astype(dtype) * scale)
    write(path, (values * 100).astype(dtype))
    if dtype in (bool, np.float32):
        np.testing.assert_array_equal(
            read_image(path, 1)[..., 0], (values * 100).astype(dtype) * scale
        )
    else:
        with pytest.raises(ValueError, match=f"type {np.dtype(dtype)} in 0..4700, of which black"):
            read_image(path, 1)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_pixels_that_are_no_numbers_are_refused(name, tmp_path):
    write = np.save if name == "a.npy" else tifffile.imwrite
    write(tmp_path / name, np.full((6, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match="NaN"):
        read_image(tmp_path / name, 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_pictures_of_other_modes_have_the_colors_that_viewers_show(name, mode, tmp_path):
    if (name, mode) in {("a.png", "CMYK"), ("a.png", "YCbCr"), ("a.tif", "YCbCr"), ("a.jpg", "P")}:
        pytest.skip("no such files")
    picture = Image.new("RGB", (8, 6), "white")
    picture.paste("black", (0, 0, 4, 6))
    picture.convert(mode).save(tmp_path / name)
    found = read_image(tmp_path / name, 3)
    np.testing.assert_allclose(found, np.asarray(picture), atol=3)


def test_a_white_zero_is_inverted(tmp_path):
    values = DEEP[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", 65535 - values, photometric="miniswhite")
    np.testing.assert_array_equal(np.round(read_image(tmp_path / "a.tif", 1)[..., 0] * 257), values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "bands.tif"])
def test_images_are_upright(name, orientation, tmp_path):
    path, exif = tmp_path / name, Image.Exif()
    exif[0x0112] = orientation
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:8, :8], picture[:8, 8:16] = 255, 128
    if name == "bands.tif":
        tag = (274, 3, 1, orientation, True)
        deep = picture.astype(np.uint16) * 257
        tifffile.imwrite(path, deep, photometric="rgb", extratags=[tag])
    else:
        Image.fromarray(picture).save(path, exif=exif)
    turns = {
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.swapaxes(0, 1),
        6: np.rot90(picture, -1),
        7: picture[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(picture),
    }
    expected = turns.get(orientation, picture)
    np.testing.assert_allclose(read_image(path, 3), expected, atol=3)
    assert image_size(path) == expected.shape[:2]


def test_a_large_photo_is_decoded_at_a_reduced_size_only(tmp_path):
    Image.new("RGB", (320, 160)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", 3, (10, 20)).shape < (160, 320, 3)
    assert image_size(tmp_path / "a.jpg") == (160, 320)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "LA", "I;16"])
def test_maps_are_read_as_stored(mode, tmp_path):
    values = np.asarray([[0, 1], [1, 0]], np.uint8) * (255 if mode == "1" else 1)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values, "P")
        image.putpalette([9, 9, 9, 128, 64, 0])
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    found = np.asarray(read_map(tmp_path / "a.png"))
    assert (found if found.ndim == 2 else found[..., 0]).tolist() == [[0, 1], [1, 0]]
    if mode == "P":
        colors = read_map(tmp_path / "a.png", has_colors=True)
        assert colors[0].tolist() == [[9, 9, 9], [128, 64, 0]]


def test_a_label_in_a_jpeg_is_refused(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(ValueError, match="a JPEG, whose compression changes the values"):
        read_map(tmp_path / "a.png")
    assert read_map(tmp_path / "a.png", is_lossy=True).shape == (8, 8)


@pytest.mark.parametrize("length", [0, 3, 8, 40, 100, 200])
def test_a_tiff_that_is_cut_off_is_a_value_error(length, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", BANDS, photometric="rgb")
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:length])
    with pytest.raises(ValueError, match="cannot be read|TIFF"):
        read_image(tmp_path / "b.tif", 6)


def test_a_tiff_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", BANDS, photometric="rgb", compression="deflate")
    content = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    bomb = zlib.compress(bytes(10_000), 9)
    assert len(bomb) <= count
    (tmp_path / "a.tif").write_bytes(content[:start] + bomb.ljust(count) + content[start + count :])
    with pytest.raises(ValueError, match="unpacks to more"):
        read_image(tmp_path / "a.tif", 6)


def test_an_encoded_image_in_memory_is_read_as_from_a_file(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    write_png(tmp_path / "a.png", DEEP)
    for name in ("a.tif", "a.png"):
        encoded = io.BytesIO((tmp_path / name).read_bytes())
        np.testing.assert_array_equal(read_image(encoded, 3), read_image(tmp_path / name, 3))
        assert image_size(encoded) == (6, 8)
        np.testing.assert_array_equal(read_map(encoded), DEEP)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_images_with_any_number_of_channels_are_drawn(channels):
    image = BANDS[..., :channels].astype(np.float32)
    drawn = np.asarray(to_pil(image, 0.0, 255.0))
    expected = BANDS[..., :3] if channels >= 3 else BANDS[..., 0]
    np.testing.assert_array_equal(drawn, expected)
