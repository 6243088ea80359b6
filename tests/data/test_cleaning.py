"""Arrays in memory have the labels that files with the same content give."""

import dataclasses

import numpy as np
import pytest

from mtljax.build import load_source, open_source
from mtljax.config import Data, Experiment
from mtljax.data.base import Arrays
from mtljax.data.cleaning import clean_arrays
from mtljax.data.sources.arrays import from_arrays
from mtljax.tasks import Depth, Detection, Keypoints, Normals

N, H, W = 20, 8, 16


def opened(task, labels, load=open_source):
    source = from_arrays(np.zeros((N, H, W, 1), np.uint8), {"t": labels})
    return load(Experiment(name="e", tasks=(task,), data=Data(source="arrays")), source)


def points():
    return np.tile(np.asarray([[2, 12, 1], [7, 3, 1]], np.float32), (N, 1, 1))


def splits(source):
    return list(source.splits().values())


def test_points_outside_of_their_image_are_not_visible_and_counted():
    labels = points()
    labels[:, 1, 0] = 8.5
    source = opened(Keypoints(name="t", num_keypoints=2), labels, load_source)
    for split in splits(source):
        assert (split.labels["t"] == [[2, 12, 1], [0, 0, 0]]).all()
    assert [(note.kind, note.count) for note in source.notes] == [("dropped", N)]
    assert "points outside of their image of task 't'" in source.notes[0].what
    assert labels[0, 1, 2] == 1  # the caller's array is unchanged


def test_exchanged_coordinates_are_an_error_that_names_the_example():
    labels = points()[..., [1, 0, 2]]
    with pytest.raises(ValueError, match="task 't': label of example 0: y = 12.*put y first"):
        opened(Keypoints(name="t", num_keypoints=2), labels)


def test_boxes_are_clipped_or_dropped():
    boxes = np.tile(
        np.asarray([[-2, 3, 5, 20], [9, 1, 12, 4], [0, 0, 0, 0]], np.float32), (N, 1, 1)
    )
    labels = {"boxes": boxes, "classes": np.tile(np.int32([0, 1, -1]), (N, 1))}
    source = opened(Detection(name="t", num_classes=2, most=5), labels)
    for split in splits(source):
        assert (split.labels["t"]["boxes"][:, 0] == [0, 3, 5, 16]).all()
        assert (split.labels["t"]["classes"] == [0, -1, -1]).all()
    assert {(note.kind, note.count) for note in source.notes} == {("dropped", N), ("clipped", N)}


@pytest.mark.parametrize(("task", "shape"), [(Depth, (N, H, W)), (Normals, (N, H, W, 3))])
def test_maps_without_a_measured_pixel_are_missing(task, shape):
    labels = np.ones(shape, np.float32)
    labels[::4] = 0
    source = opened(task(name="t"), labels, load_source)
    assert sum(int(split.present["t"].sum()) for split in splits(source)) == N - N // 4
    assert [(note.kind, note.count) for note in source.notes] == [("missing", N // 4)]


def test_valid_labels_are_not_copied_and_wrong_shapes_are_left_to_the_check():
    source = opened(Keypoints(name="t", num_keypoints=2), points())
    again = open_source(
        Experiment(
            name="e", tasks=(Keypoints(name="t", num_keypoints=2),), data=Data(source="arrays")
        ),
        source,
    )
    assert again.train.labels["t"] is source.train.labels["t"]
    assert not again.notes
    with pytest.raises(ValueError, match=r"labels of shape .*must be \[N, 2, 3\]"):
        opened(Keypoints(name="t", num_keypoints=2), points()[..., 0], load_source)


def test_empty_splits_are_left_as_they_are():
    source = from_arrays(np.zeros((N, H, W, 1), np.uint8), {"t": points()})
    none = np.arange(0)
    empty = Arrays(source.test.image[none], {"t": points()[none]}, {"t": np.ones(0, bool)})
    task = Keypoints(name="t", num_keypoints=2)
    assert not len(clean_arrays(dataclasses.replace(source, test=empty), [task]).test)
