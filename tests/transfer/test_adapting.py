"""Weights for other images: the function stays the same wherever it can."""

import numpy as np
import pytest
from support.models import init, quick_jit

from mtljax.models import TRUNKS
from mtljax.models.trunks.base import features_of
from mtljax.transfer.adapting import fit_channels, fit_positions, fit_statistics, in_unit

DRAW = np.random.default_rng(0)
KERNEL = DRAW.normal(size=(3, 3, 3, 5))
STD = np.array([0.2, 0.3, 0.5])


def seen(kernel, image, mean, std):
    """What one window of a convolution gives, [F]."""
    return np.einsum("hwc,hwcf->f", (image - mean) / std, kernel)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_an_image_that_repeats_its_channels_gives_the_same(channels):
    mean = np.full(3, 0.4)
    few = min(channels, 3)
    image = DRAW.normal(size=(3, 3, few))
    before, after = image[..., np.arange(3) % few], image[..., np.arange(channels) % few]
    kernel = fit_channels(KERNEL, STD, channels)
    found = seen(kernel, after, fit_statistics(mean, channels), fit_statistics(STD, channels))
    np.testing.assert_allclose(found, seen(KERNEL, before, mean, STD), rtol=1e-12)


def test_a_grey_network_sees_a_colour_image_as_the_mean_of_its_channels():
    kernel, image = DRAW.normal(size=(3, 3, 1, 5)), DRAW.normal(size=(3, 3, 3))
    gray = image.mean(-1, keepdims=True)
    found = seen(fit_channels(kernel, np.array(0.3), 3), image, 0.4, 0.3)
    np.testing.assert_allclose(found, seen(kernel, gray, 0.4, 0.3), rtol=1e-12)


def test_where_means_differ_a_grey_image_is_tinted_by_their_difference_and_no_more():
    mean, image = np.array([0.3, 0.4, 0.8]), DRAW.normal(size=(3, 3, 1))
    found = seen(
        fit_channels(KERNEL, STD, 1), image, fit_statistics(mean, 1), fit_statistics(STD, 1)
    )
    tinted = image + mean - mean.mean()
    np.testing.assert_allclose(found, seen(KERNEL, tinted, mean, STD), rtol=1e-12)


def test_statistics_of_one_number_are_those_of_every_channel():
    np.testing.assert_array_equal(fit_statistics(np.array(0.5), 3), [0.5, 0.5, 0.5])


def test_statistics_in_another_unit_normalise_the_same_image_to_the_same():
    image = DRAW.uniform(0, 255, (4, 4))
    mean, std = in_unit(np.array(127.0), np.array(128.0), (0.0, 255.0), (-1.0, 1.0))
    expected = (image - 127) / 128
    np.testing.assert_allclose((image / 127.5 - 1 - mean) / std, expected, rtol=1e-12)


def test_position_embeddings_fitted_to_a_size_are_those_that_images_of_it_see():
    options = {"width": 8, "heads": 2, "depth": 1, "stages": 1, "patch": 4}
    (large,), (small,) = (TRUNKS["vit_ti"](image_size=size, **options) for size in (32, 16))
    image = DRAW.normal(size=(2, 16, 16, 3)).astype(np.float32)
    params = init(large, image, train=False)["params"]
    fitted = {**params, "position": fit_positions(np.asarray(params["position"]), 1 + 4 * 4)}
    give = lambda stage, params: features_of(stage.apply({"params": params}, image, False))
    found, expected = quick_jit(lambda p, q: (give(small, p), give(large, q)))(fitted, params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_positions_that_are_no_square_are_not_fitted():
    assert fit_positions(np.zeros((1, 1 + 12, 8)), 1 + 16).shape == (1, 13, 8)
    assert fit_positions(np.zeros((1, 1 + 16, 8)), 16).shape == (1, 17, 8)
