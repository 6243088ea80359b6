"""Arrays of any form as a source."""

import typing

import numpy as np
import pytest

from mtljax import train
from mtljax.build import load_source
from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.tasks import Regression

N = 40
LABELS = {"a": np.arange(N, dtype=np.float32)}
RANDOM = np.random.default_rng(0)


class Views(typing.NamedTuple):
    left: typing.Any
    right: typing.Any


def test_a_dict_of_inputs_has_statistics_per_array():
    image = RANDOM.random((N, 4, 4, 2)) * [1, 10]
    inputs = {"left": image, "meta": RANDOM.normal(3, 2, (N, 5)), "id": np.arange(N)}
    source = from_arrays(inputs, LABELS)
    train, rows = source.train.image, source.train.labels["a"].astype(int)
    assert {name: x.dtype.name for name, x in train.items()} == {
        "left": "float32", "meta": "float32", "id": "int32",
    }  # fmt: skip
    np.testing.assert_array_equal(train["id"], rows)
    np.testing.assert_allclose(source.mean["left"], image[rows].mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(source.std["meta"], inputs["meta"][rows].std(0), rtol=1e-5)
    np.testing.assert_allclose(source.mean["id"], rows.mean())
    np.testing.assert_allclose(source.high["left"], image[rows].max(), rtol=1e-6)
    example = source.test[0]
    assert {name: np.shape(x) for name, x in example["image"].items()} == {
        "left": (4, 4, 2), "meta": (5,), "id": (),
    }  # fmt: skip
    assert len(source.train), len(source.test) == (28, 8)


def test_a_named_tuple_of_inputs_keeps_its_type():
    source = from_arrays(Views(np.zeros((N, 2, 2, 1), np.uint8), np.ones((N, 3))), LABELS)
    assert isinstance(source.train.image, Views)
    assert (source.low, source.high) == (Views(0.0, 0.0), Views(255.0, 1.0))


@pytest.mark.parametrize(
    ("dtype", "value", "high"),
    [
        ("uint8", 7, 255),
        ("uint16", 4095, 65535),
        ("int16", 4095, 4095),
        ("float64", 0.5, 0.5),
    ],
)
def test_white_is_the_maximum_of_an_unsigned_type(dtype, value, high):
    source = from_arrays(np.full((N, 2, 2, 1), value, dtype), LABELS)
    assert (source.low, source.high) == (0.0, high)
    assert source.train.image.dtype == ("uint8" if dtype == "uint8" else "float32")
    assert source.train.image.max() == value


def test_clips_have_statistics_per_channel():
    clips = RANDOM.random((N, 5, 4, 4, 3), np.float32)
    source = from_arrays(clips, LABELS)
    rows = source.train.labels["a"].astype(int)
    np.testing.assert_allclose(source.mean, clips[rows].mean((0, 1, 2, 3)), rtol=1e-5)
    assert source.train[0]["image"].shape == (5, 4, 4, 3)


def test_a_list_of_images_is_one_array():
    assert from_arrays(list(np.zeros((N, 2, 2, 1), np.uint8)), LABELS).high == 255.0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((N, 8, 8)), r"of shape \(40, 8, 8\) and type float64; must be \[N, H, W, C\]"),
        (np.full((N, 2, 2, 1), "a"), r"images of shape .* must be \[N, H, W, C\]"),
        ([np.zeros((2, 2, 1)), np.zeros((3, 2, 1))], "images of different shapes"),
        ({"left": np.zeros((N, 2)), "right": np.zeros((N - 1, 2))}, r"left \(40, 2\), right \(39"),
        ({"left": np.zeros((N, 2)), "n": np.zeros(())}, r"different numbers of examples: left"),
        ({"left": np.zeros((N, 2)), "text": np.full(N, "x")}, r"images 'text' of shape \(40,\)"),
        ({}, "there are no images"),
        (np.zeros((0, 2, 2, 1)), "there are no images"),
    ],
)
def test_other_inputs_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(image, LABELS)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"left": np.zeros((N, 2, 2, 1), np.uint8)}, "the data has several inputs"),
        (np.zeros((N, 5, 2, 2, 1), np.uint8), r"the data has inputs of shape \(5, 2, 2, 1\)"),
    ],
)
def test_an_experiment_takes_one_image_per_example(image, message, tmp_path):
    tasks = (Regression(name="a", center=0.0, scale=1.0),)
    experiment = Experiment(name="e", tasks=tasks, data=Data(source="arrays"))
    for use in (load_source, lambda e, source: train(e, tmp_path / "run", source=source)):
        with pytest.raises(ValueError, match=message + ".*mtljax.make_train_step"):
            use(experiment, from_arrays(image, LABELS))
    assert not (tmp_path / "run").exists()
