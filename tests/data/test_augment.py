"""Augmentation: a pure function of a key and an example."""

import jax
import numpy as np
import pytest

from mtljax.data import AUGMENTATIONS
from mtljax.data.augment import affine

KEYS = jax.random.split(jax.random.key(0), 6)
IMAGES = np.random.default_rng(0).uniform(0, 16, (6, 8, 9, 2)).astype(np.float32)


def batch(images=IMAGES, **labels):
    return {"image": images, "labels": {"digit": np.arange(len(images)), **labels}, "present": {}}


def test_an_example_depends_on_its_key_and_nothing_else():
    augment = jax.jit(affine())
    whole = augment(KEYS, batch())["image"]
    np.testing.assert_array_equal(whole, augment(KEYS, batch())["image"])
    backwards = augment(KEYS[::-1], batch(IMAGES[::-1]))["image"]
    # Another order of the batch vectorises differently: the same to rounding.
    np.testing.assert_allclose(backwards[::-1], whole, atol=1e-5)
    other = augment(jax.random.split(jax.random.key(1), 6), batch())["image"]
    assert (np.abs(other - whole).max((1, 2, 3)) > 0.1).all()


def test_no_strength_changes_nothing():
    still = affine(shift=0, rotate=0, zoom=0)(KEYS, batch())
    np.testing.assert_allclose(still["image"], IMAGES, atol=1e-5)


def test_labels_and_types_stay():
    made = affine()(KEYS, batch(IMAGES.astype(np.uint8)))
    assert made["image"].dtype == np.uint8
    assert made["image"].shape == IMAGES.shape
    np.testing.assert_array_equal(made["labels"]["digit"], np.arange(6))


def test_pixels_stay_between_the_darkest_and_the_brightest():
    made = affine(shift=3, rotate=90, zoom=0.5)(KEYS, batch())["image"]
    assert made.min() >= IMAGES.min() - 1e-4
    assert made.max() <= IMAGES.max() + 1e-4


def test_a_whole_pixel_is_moved_by_a_whole_pixel():
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 4, 4] = 1
    moved = [affine(shift=3, rotate=0, zoom=0)(k[None], batch(image))["image"][0] for k in KEYS]
    for picture in np.asarray(moved):
        assert picture.sum() == pytest.approx(1, abs=1e-5)
        centre = (np.argwhere(picture[..., 0] > 0) * picture[picture > 0][:, None]).sum(0)
        assert np.abs(centre - 4).max() <= 3 + 1e-5


@pytest.mark.parametrize(
    "label",
    [np.zeros((6, 8, 9), np.int32), {"boxes": np.zeros((6, 3, 4)), "classes": np.zeros((6, 3))}],
    ids=["mask", "boxes"],
)
def test_labels_that_have_positions_are_refused(label):
    with pytest.raises(ValueError, match="moves the image but not the labels of 'where'"):
        affine()(KEYS, batch(where=label))


def test_none_is_none():
    assert AUGMENTATIONS["none"]() is None


@pytest.mark.parametrize("bad", [{"shift": -1.0}, {"zoom": -1.0}, {"rotate": float("nan")}])
def test_impossible_strengths_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        affine(**bad)
