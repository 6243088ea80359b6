"""Two items in one image."""

import dataclasses

import numpy as np
import pytest

from mtljax.build import load_source
from mtljax.config import Data, find_experiment
from mtljax.data import SOURCES, from_arrays, make_source, overlay
from mtljax.data.base import LabelRequest
from mtljax.tasks import Classification

LEFT, RIGHT = (Classification(name=name, num_classes=10) for name in ("left", "right"))
BOTH = (LabelRequest(LEFT, "left/digit"), LabelRequest(RIGHT, "right/digit"))


@pytest.fixture(scope="module")
def digits():
    return SOURCES["digits"]()


@pytest.fixture(scope="module")
def source():
    return make_source("multi:digits,canvas=16,images=3000", BOTH)


def items_of(split):
    """Every item's pixels -> its class."""
    return {
        image.tobytes(): label
        for image, label in zip(split.image, split.labels["digit"], strict=True)
    }


def test_each_half_is_an_item_of_the_same_split_with_its_label(source, digits):
    # On a canvas of twice the side the items do not overlap, so they can be read off.
    for part, made in source.splits().items():
        known = items_of(digits.splits()[part])
        for side, rows in (("left", slice(0, 8)), ("right", slice(8, 16))):
            halves = np.ascontiguousarray(made.image[:, rows, rows])
            assert [known[half.tobytes()] for half in halves] == made.labels[side].tolist()
            assert made.present[side].all()
    assert [len(s) for s in source.splits().values()] == [3000, 144, 360]


def test_every_item_is_used_as_often_as_any_other(source):
    for rows in (slice(0, 8), slice(8, 16)):
        _, counts = np.unique(source.train.image[:, rows, rows], axis=0, return_counts=True)
        assert counts.sum() == 3000
        assert counts.max() - counts.min() <= 1


def test_both_sides_are_drawn_apart(source):
    same = (source.train.labels["left"] == source.train.labels["right"]).mean()
    assert 0.05 < same < 0.15  # a tenth, if they are independent


def test_where_they_overlap_the_brighter_is_seen(digits):
    left, right = (
        dataclasses.replace(
            digits,
            **{
                part: dataclasses.replace(
                    split,
                    labels={side: split.labels["digit"]},
                    present={side: split.present["digit"]},
                )
                for part, split in digits.splits().items()
            },
        )
        for side in ("left", "right")
    )
    tight, wide = overlay(left, right, canvas=10).test, overlay(left, right, canvas=16).test
    apart = np.zeros((2, len(tight), 10, 10, 1), np.float32)
    apart[0, :, :8, :8] = wide.image[:, :8, :8]
    apart[1, :, 2:, 2:] = wide.image[:, 8:, 8:]
    np.testing.assert_array_equal(tight.image, apart.max(0))


def test_the_default_canvas_is_that_of_the_paper():
    image = np.random.default_rng(0).integers(0, 255, (20, 28, 28, 1), dtype=np.uint8)
    one, two = (from_arrays(image, {name: np.arange(20)}) for name in "ab")
    assert overlay(one, two).train.image.shape == (14, 36, 36, 1)


def test_items_of_another_range_are_brought_to_the_first_ones():
    rng = np.random.default_rng(0)
    dark = rng.uniform(0, 1, (20, 4, 4, 1)).astype(np.float32)
    bright = rng.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    made = overlay(from_arrays(dark, {}), from_arrays(bright, {}), canvas=8)
    assert made.train.image.dtype == np.float32
    assert made.train.image.max() <= made.high <= 1
    assert made.train.image[:, 4:, 4:].mean() == pytest.approx(0.5 * made.high, abs=0.1)


def test_one_task_alone_sees_the_same_images(source):
    alone = make_source("multi:digits,canvas=16,images=3000", BOTH[:1])
    np.testing.assert_array_equal(alone.train.image, source.train.image)
    assert set(alone.train.labels) == {"left"}


def test_statistics_are_of_the_training_images(source):
    np.testing.assert_allclose(source.mean, source.train.image.mean(), rtol=1e-5)
    np.testing.assert_allclose(source.std, source.train.image.std(), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("multi:digits", "digit", "requests label 'digit'; write left/"),
        ("multi:digits", "middle/digit", "write left/... or right/"),
        ("multi:digits", "left/digti", "no labels 'digti' for task 'left'; did you mean 'digit'"),
        ("multi:digits,canvas=7", "left/digit", "canvas must be >= 8"),
        ("multi:digits,images=0", "left/digit", "images must be >= 1"),
        ("multi:digti", "left/digit", "unknown source 'digti'; did you mean 'digits'"),
        ("multi", "left/digit", "needs first"),
    ],
)
def test_mistakes_are_named(text, key, message):
    with pytest.raises(ValueError, match=message):
        make_source(text, [LabelRequest(LEFT, key)])


def test_multi_digits_has_labels_for_both_tasks():
    experiment = find_experiment("multi_digits")
    train = load_source(experiment).train
    assert train.image.shape == (6000, 12, 12, 1)
    assert set(train.labels) == {"left", "right"}


def test_labels_that_are_called_otherwise_are_found():
    experiment = find_experiment("digits")
    data = Data(source="digits", labels={"what": "digit"})
    task = Classification(name="what", num_classes=10)
    made = load_source(dataclasses.replace(experiment, tasks=(task,), data=data))
    np.testing.assert_array_equal(
        made.train.labels["what"], load_source(experiment).train.labels["digit"]
    )
