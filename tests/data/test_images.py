"""Image files, as training and prediction read them."""

import numpy as np
import pytest
from PIL import Image

from mtljax.data.images import read_image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_images_lie_on_white(mode, channels, tmp_path):
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:, :4] = 255
    grey = Image.fromarray(np.full((6, 8), 51, np.uint8))
    image = Image.merge("LA", [grey, Image.fromarray(alpha)])
    if mode == "P":
        image = Image.fromarray(np.where(alpha, 51, 0).astype(np.uint8)).convert("P")
        image.info["transparency"] = image.getpixel((7, 0))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png", channels)
    assert found.shape == (6, 8, channels)
    np.testing.assert_array_equal(found, np.where(alpha, 51, 255)[..., None].repeat(channels, -1))
