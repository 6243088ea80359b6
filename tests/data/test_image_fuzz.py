"""Damaged image files: a ValueError of one short line, or an image; never another exception."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtljax.data.files.images import image_size, read_image, read_map

BANDS = np.random.default_rng(0).integers(0, 256, (6, 8, 6)).astype(np.uint8)


def encoded(form):
    file = io.BytesIO()
    if form.startswith("tiff"):
        settings = {"compression": "deflate"} if form == "tiff deflate" else {}
        values = BANDS.astype(np.uint16) * 257 if form == "tiff 16" else BANDS
        tifffile.imwrite(file, values, photometric="rgb", imagej=form == "tiff stack", **settings)
    elif form == "npy":
        np.save(file, BANDS)
    elif form == "png 16":
        Image.fromarray(BANDS[..., 0].astype(np.uint16)).save(file, "PNG")
    else:
        Image.fromarray(np.ascontiguousarray(BANDS[..., :3])).save(file, form)
    return file.getvalue()


FORMS = ("tiff", "tiff deflate", "tiff 16", "png 16", "PNG", "JPEG", "GIF", "WEBP", "BMP", "npy")
FILES = {form: encoded(form) for form in FORMS}
CHANGES = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=5)


def damaged(form, changes, length):
    content = bytearray(FILES[form])
    for position, value in changes:
        content[position % len(content)] = value
    return bytes(content[: max(1, len(content) - length)])


def result_of(read, path):
    """What a reader returns, or the message of its ValueError."""
    try:
        return read(path)
    except ValueError as error:
        return str(error)


def read_all(path):
    found = [result_of(lambda path, n=n: read_image(path, n), path) for n in (1, 3, 6)]
    found += [result_of(read_map, path), result_of(image_size, path)]
    for result in found:
        if isinstance(result, str):
            assert 0 < len(result) < 300
            assert "\n" not in result
    assert all(len(x) == 2 and min(x) > 0 for x in found[4:] if isinstance(x, tuple))


def check_damaged(folder, form, changes, length):
    path = folder / ("a.npy" if form == "npy" else "a.image")
    path.write_bytes(damaged(form, changes, length))
    read_all(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@given(st.sampled_from(FORMS), CHANGES, st.integers(0, 100))
@settings(max_examples=100)
def test_damaged_files(folder, form, changes, length):
    check_damaged(folder, form, changes, length)


def test_pages_without_end_are_refused(folder):
    path = folder / "a.image"  # the tags of this page refer to the page itself as the next one
    path.write_bytes(damaged("tiff 16", [(202, 16), (183, 4)], 0))
    with pytest.raises(ValueError, match="a TIFF of more than 10000 pages"):
        read_image(path, 3)


@pytest.mark.slow
@given(st.sampled_from(FORMS), CHANGES, st.integers(0, 100))
@settings(max_examples=2000)
def test_many_damaged_files(folder, form, changes, length):
    check_damaged(folder, form, changes, length)
