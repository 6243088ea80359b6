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


def test_the_validation_part_is_that_of_scikit_learn(source):
    images, _ = load_digits(return_X_y=True)
    remaining, _ = train_test_split(images, test_size=0.2, random_state=42)
    train, validation = train_test_split(remaining, test_size=0.1, random_state=42)
    np.testing.assert_array_equal(source.validation.image.reshape(144, 64), validation)
    np.testing.assert_array_equal(source.train.image.reshape(1293, 64), train)


def test_the_data_are_the_same_if_the_file_is_not_found(source, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    other = SOURCES["digits"]()
    np.testing.assert_array_equal(other.train.image, source.train.image)
    np.testing.assert_array_equal(other.train.labels["digit"], source.train.labels["digit"])


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


@pytest.mark.parametrize("per_class", [1, 10, 100])
def test_few_are_so_many_of_each_class_and_all_of_them_training_images(source, per_class):
    few = SOURCES["digits"](per_class=per_class)
    np.testing.assert_array_equal(np.bincount(few.train.labels["digit"]), [per_class] * 10)
    assert pixels(few.train) <= pixels(source.train)
    np.testing.assert_allclose(few.mean, few.train.image.mean(dtype=np.float64), rtol=1e-5)


def test_whoever_has_few_is_tested_on_the_same_images(source):
    few = SOURCES["digits"](per_class=10)
    for name in ("validation", "test"):
        np.testing.assert_array_equal(few.splits()[name].image, source.splits()[name].image)


def test_fewer_are_among_the_few_and_another_seed_draws_others():
    draw = lambda **arguments: pixels(SOURCES["digits"](**arguments).train)
    assert draw(per_class=3) < draw(per_class=10) < draw(per_class=40)
    assert draw(per_class=10) == draw(per_class=10, seed=0)
    assert len(draw(per_class=10) & draw(per_class=10, seed=1)) < 30


@pytest.mark.parametrize("per_class", [0, 200])
def test_no_more_can_be_few_than_there_are(per_class):
    with pytest.raises(ValueError, match=f"per_class must be in 1..1[0-9][0-9], not {per_class}$"):
        SOURCES["digits"](per_class=per_class)


def pixels(split):
    return set(map(bytes, split.image))
