"""The digits: split as tutorials do, and no peeking."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mtljax.data import SOURCES


@pytest.fixture(scope="module")
def source():
    return SOURCES["digits"]()


def test_sizes(source):
    assert [len(s) for s in (source.train, source.validation, source.test)] == [1293, 144, 360]


def test_the_test_part_is_that_of_the_tutorials(source):
    images, classes = load_digits(return_X_y=True)
    _, test, _, labels = train_test_split(images, classes, test_size=0.2, random_state=42)
    np.testing.assert_array_equal(source.test.image.reshape(360, 64), test)
    np.testing.assert_array_equal(source.test.labels["digit"], labels)


def test_every_image_is_in_exactly_one_part(source):
    parts = (source.train, source.validation, source.test)
    rows = np.concatenate([part.image.reshape(len(part), 64) for part in parts])
    images = load_digits().data.astype(np.float32)
    assert sorted(map(bytes, rows)) == sorted(map(bytes, images))
    assert len(set(map(bytes, rows))) == len(rows)  # no duplicates that could leak


def test_statistics_are_of_the_training_part_alone(source):
    np.testing.assert_allclose(source.mean, source.train.image.mean(dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(source.std, source.train.image.std(dtype=np.float64), rtol=1e-5)


def test_both_labels_say_the_same(source):
    for part in (source.train, source.validation, source.test):
        np.testing.assert_array_equal(part.labels["digit"], part.labels["value"])
        assert part.labels["digit"].dtype == np.int32
        assert part.labels["value"].dtype == np.float32
        assert all(flags.all() for flags in part.present.values())
        assert (part.image.min(), part.image.max()) == (source.low, source.high)
