"""Decoders of JPEG files: libjpeg-turbo returns the pixels and the errors of Pillow."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from mtljax.config import Data, Experiment, from_json, to_json
from mtljax.data import LabelRequest, make_source
from mtljax.data.files.images import image_size, read_content, read_image
from mtljax.tasks import Classification

RNG = np.random.default_rng(0)
TASK = Classification(name="label", num_classes=2)


def photo(height, width):
    """Returns an image with gradients and some noise."""
    ramp = np.linspace(0, 255, height)[:, None] * 0.5 + np.linspace(0, 255, width) * 0.5
    image = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1) + RNG.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def variant(name, path):
    """Writes a JPEG of this kind."""
    image = photo(150, 211)
    exif = Image.Exif()
    if name.startswith("turned"):
        exif[0x0112] = int(name[-1])
    options = {
        "4:4:4": {"subsampling": 0},
        "4:2:2": {"subsampling": 1},
        "4:2:0": {"subsampling": 2},
        "progressive": {"progressive": True},
        "stored as RGB": {"keep_rgb": True},
    }.get(name, {"exif": exif})
    mode = {"gray": "L", "CMYK": "CMYK"}.get(name, "RGB")
    image.convert(mode).save(path, quality=87, **options)


VARIANTS = ["4:4:4", "4:2:2", "4:2:0", "progressive", "stored as RGB", "gray", "CMYK"]
VARIANTS += [f"turned {orientation}" for orientation in range(1, 9)]


@pytest.mark.parametrize("size", [None, (40, 50), (20, 20), (9, 30)])
@pytest.mark.parametrize("name", VARIANTS)
def test_libjpeg_turbo_returns_the_pixels_of_pillow(name, size, tmp_path):
    path = tmp_path / "a.jpg"
    variant(name, path)
    for channels in (1, 3):
        expected = read_content(path, channels, size, "pillow")
        for file in (path, io.BytesIO(path.read_bytes())):
            result = read_content(file, channels, size, "turbo")
            np.testing.assert_array_equal(result.values, expected.values)
            assert result.size == expected.size == image_size(path)


@pytest.mark.parametrize("decoder", ["turbo", "pillow"])
def test_a_damaged_jpeg_has_the_same_message_with_each_decoder(decoder, tmp_path):
    photo(200, 200).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as an image: image file is truncated"):
        read_image(tmp_path / "cut.jpg", 3, decoder=decoder)
    with pytest.raises(ValueError, match="cannot be read as an image: its format is not known"):
        read_image(tmp_path / "text.jpg", 3, decoder=decoder)
    with pytest.raises(ValueError, match="No such file"):
        read_image(tmp_path / "none.jpg", 3, decoder=decoder)


def test_scaled_decoding_stops_at_the_requested_size(tmp_path):
    photo(320, 160).save(tmp_path / "a.jpg", quality=95)
    shape = lambda size, decoder: read_image(tmp_path / "a.jpg", 3, size, decoder).shape[:2]
    assert shape((80, 40), "turbo_scaled") == (80, 40)
    assert shape((80, 40), "turbo") == (160, 80)
    assert shape((90, 40), "turbo_scaled") == (160, 80)  # the next power of two would be too small
    scaled = read_image(tmp_path / "a.jpg", 3, (80, 40), "turbo_scaled").astype(float)
    full = read_image(tmp_path / "a.jpg", 3).astype(float)
    averaged = full.reshape(80, 4, 40, 4, 3).mean((1, 3))
    assert np.abs(scaled - averaged).mean() < 2  # of 255; chroma is interpolated differently


def write_folder(folder):
    (folder / "images").mkdir()
    for i in range(8):
        photo(16, 16).save(folder / "images" / f"{i}.jpg")
    rows = [f"{i}.jpg,{i % 2}" for i in range(8)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))


def test_a_missing_decoder_is_an_error_that_names_the_command(tmp_path, monkeypatch):
    write_folder(tmp_path)
    open_with = lambda decoder: make_source(
        f"folder:{tmp_path}", [LabelRequest(TASK, "label")], decoder=decoder
    )
    expected = open_with("turbo").train[0]["image"]
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ValueError, match="data.decoder=turbo needs .*: pip install simplejpeg"):
        open_with("turbo")
    np.testing.assert_array_equal(open_with("pillow").train[0]["image"], expected)


def test_a_configuration_without_a_decoder_means_pillow():
    experiment = Experiment(name="a", tasks=(TASK,), data=Data(source="digits"))
    assert experiment.data.decoder == "turbo"
    config = to_json(experiment)
    assert from_json(config).data.decoder == "turbo"
    del config["data"]["decoder"]
    assert from_json(config).data.decoder == "pillow"


def test_each_source_gets_the_decoder_of_the_experiment(tmp_path):
    write_folder(tmp_path)
    request = [LabelRequest(TASK, "label")]
    text = f"join:{{'a':'folder:{tmp_path}','b':'folder:{tmp_path}'}}"
    source = make_source(text, request, decoder="turbo_scaled")
    decoders = {split.examples.decoder for split in source.train.splits}
    assert decoders == {"turbo_scaled"}
