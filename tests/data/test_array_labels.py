"""Labels of arrays in memory, in the forms that other programs use."""

import numpy as np
import pytest

from mtljax.build import load_source
from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.tasks import Classification, Depth, Regression, Segmentation

N = 20
IMAGE = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
WORDS = ["img2", "img10"] * (N // 2)


def load(labels, task, image=IMAGE):
    experiment = Experiment(name="e", tasks=(task,), data=Data(source="arrays"))
    return load_source(experiment, from_arrays(image, {"x": labels}))


def by_row(source):
    """Returns the labels by row of the arrays, None if missing."""
    found = {}
    for split in source.splits().values():
        for i in range(len(split)):
            example = split[i]
            label = example["labels"]["x"] if example["present"]["x"] else None
            found[int(example["image"][0, 0, 0])] = label
    return [found[row] for row in range(N)]


@pytest.mark.parametrize(
    "labels",
    [
        WORDS,
        np.array(WORDS),
        np.array(WORDS, object),
        np.array(WORDS, bytes),
        [" img2", "img10"] * 10,
    ],
)
def test_text_is_the_name_of_a_class(labels):
    source = load(labels, Classification(name="x"))
    assert source.tasks[0].class_names == ("img2", "img10")
    assert by_row(source) == [0, 1] * 10
    source = load(labels, Classification(name="x", class_names=("img10", "other", "img2")))
    assert by_row(source) == [2, 0] * 10


def test_text_of_an_npz_file(tmp_path):
    np.savez(tmp_path / "a.npz", image=IMAGE, x=np.array(WORDS))
    data = Data(source=f"arrays:{tmp_path}/a.npz")
    source = load_source(Experiment(name="e", tasks=(Classification(name="x"),), data=data))
    assert source.tasks[0].class_names == ("img2", "img10")
    assert by_row(source) == [0, 1] * 10


def test_a_word_that_is_no_class_is_named():
    with pytest.raises(ValueError, match=r"label of example \d+: unknown class 'img10'"):
        load(WORDS, Classification(name="x", class_names=("img2", "img1")))
    with pytest.raises(ValueError, match="'img10' is not a number"):
        load(WORDS, Regression(name="x"))


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([None, 1, 0, 1] * 5, Classification(name="x", num_classes=2)),
        (["", "b", "a", "b"] * 5, Classification(name="x")),
        ([None, "b", "a", "b"] * 5, Classification(name="x")),
        (np.array([np.nan, "b", "a", "b"] * 5, object), Classification(name="x")),
        ([None, 1.0, 0, 1] * 5, Regression(name="x")),
        (np.ma.array([7, 1, 0, 1] * 5, mask=[True, False, False, False] * 5), Regression(name="x")),
    ],
)
def test_elements_without_a_value_are_missing_and_counted(labels, task):
    source = load(labels, task)
    assert by_row(source) == [None, 1, 0, 1] * 5
    notes = [note for note in source.notes if note.kind == "missing"]
    assert [note.count for note in notes] == [5]


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        (Classification(name="x", num_classes=2), ()),
        (Regression(name="x"), ()),
        (Segmentation(name="x", num_classes=2), (4, 4)),
        (Depth(name="x"), (4, 4)),
    ],
)
def test_a_last_axis_of_one_is_left_out(task, shape):
    values = (np.arange(N) % 2).reshape(N, *[1] * len(shape)) * np.ones((N, *shape), int)
    values = values + (1 if isinstance(task, Depth) else 0)
    np.testing.assert_array_equal(by_row(load(values[..., None], task)), values)


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.eye(2)[np.arange(N) % 2], Classification(name="x"), "argmax"),
        (np.arange(N).astype("datetime64[D]"), Regression(name="x"), "type datetime64"),
        (np.arange(N) * 1j, Classification(name="x"), "type complex128"),
        ([["a"], ["a", "b"]] * 10, Classification(name="x"), "different lengths"),
        (np.full(N, 1e39), Regression(name="x"), "range of float32"),
        (3, Regression(name="x"), "a single value"),
    ],
)
def test_other_labels_are_refused(labels, task, message):
    with pytest.raises(ValueError, match=message):
        load(labels, task)


def test_images_with_nan_are_refused_and_channels_first_is_noted():
    labels = np.arange(N) % 2
    image = IMAGE.astype(float)
    image[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="image 3 has values that are NaN"):
        from_arrays(image, {"x": labels})
    (note,) = from_arrays(np.zeros((N, 3, 8, 8), np.uint8), {"x": labels}).notes
    assert "3 x 8 pixels with 8 channels; if the channels are first" in note.what
    assert not from_arrays(np.zeros((N, 8, 8, 3), np.uint8), {"x": labels}).notes
