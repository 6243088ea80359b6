"""Maps as files have them: markers of unknown pixels, units, and thin lines in smaller images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from mtljax.tasks import Depth, Edges, Normals, Saliency, Segmentation
from mtljax.tasks.warps import Resize


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_markers_of_pixels_that_are_not_measured_become_0(dtype):
    stored = np.asarray([[0, 500, 65535], [12345, 9000, 10001]]).astype(dtype)
    task = Depth(name="d", unit=0.001, ignore=(65535, 12345), max_value=10.0)
    found = task.parse(stored)
    np.testing.assert_allclose(found, [[0, 0.5, 0], [0, 9, 0]], rtol=1e-6)
    assert found.dtype == np.float32
    plain = Depth(name="d").parse(stored)
    np.testing.assert_array_equal(plain, stored.astype(np.float32))


def test_what_is_never_a_depth_is_not_measured():
    stored = np.asarray([[np.nan, -1.0, np.inf, 2.0]], np.float32)
    assert Depth(name="d").parse(stored).tolist() == [[0, 0, 0, 2]]


@pytest.mark.parametrize(
    ("task", "empty", "one"),
    [
        (Depth(name="m"), np.zeros((2, 3), np.uint16), np.eye(2, 3, dtype=np.uint16)),
        (Depth(name="m", ignore=(7,)), np.full((2, 3), 7), np.arange(6).reshape(2, 3) + 4),
        (Normals(name="m"), np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 255, np.uint8)),
    ],
)
def test_a_map_without_a_measured_pixel_is_missing_and_counted(task, empty, one):
    label, counts = task.clean(task.parse(empty), (2, 3))
    assert label is None
    assert [*counts.values()] == [1]
    label, counts = task.clean(task.parse(one), (2, 3))
    assert label is not None
    assert not counts


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unit": 0.0}, "unit must be > 0"), ({"max_value": -1.0}, "max_value must be > 0")],
)
def test_markers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Depth(name="d", **options)


def test_center_and_scale_are_those_of_the_measured_training_pixels():
    labels = np.random.default_rng(0).uniform(800, 9000, (5, 6, 7)).astype(np.float32)
    labels[:, 2] = 0
    task = Depth(name="d").resolve(labels)
    known = labels[labels > 0].astype(np.float64)
    assert task.center == pytest.approx(known.mean(), rel=1e-5)
    assert task.scale == pytest.approx(known.std(), rel=1e-5)
    assert Depth(name="d", scale=2.0).resolve(labels).scale == 2.0
    assert Depth(name="d").resolve(np.full((1, 2, 2), 5, np.float32)).scale == 5.0
    # Without it, a network that predicts 1 has a loss of thousands, which other tasks suffer from.
    present = np.ones(5, bool)
    untrained = np.full(labels.shape, task.center, np.float32)
    total, count = task.loss(untrained, labels, present)
    assert 0.5 < total / count < 1
    empty = Depth(name="d").resolve(np.zeros((2, 3, 3), np.float32))
    assert (empty.center, empty.is_resolved) == (None, True)


TASKS = [Edges(name="e"), Saliency(name="s")]


@pytest.mark.parametrize("kind", [Edges, Saliency])
def test_balanced_positive_and_negative_pixels_count_equally(kind):
    labels = (np.random.default_rng(0).random((4, 20, 20)) < 0.03).astype(np.int32)
    task = kind(name="t", positive_weight="balanced")
    assert task.derived == ("positive_weight",)
    with pytest.raises(ValueError, match="positive_weight='balanced' is computed from"):
        task.constant_output(labels, (20, 20))
    resolved = task.resolve(labels)
    assert resolved.positive_weight == pytest.approx(1 - labels.mean(), rel=1e-3)
    losses, _ = resolved.pixel_losses(np.zeros(labels.shape, np.float32), labels)
    losses = np.asarray(losses)
    assert losses[labels == 1].sum() == pytest.approx(losses[labels == 0].sum(), rel=0.05)
    with pytest.raises(ValueError, match="in .0, 1., or 'balanced', not 'even'"):
        kind(name="t", positive_weight="even")


def reduced(task, label, size):
    return task.warp(label, Resize(old=label.shape, size=size))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("line", ["row", "column", "diagonal"])
@pytest.mark.parametrize("offset", range(4))
def test_thin_lines_survive_a_reduction_by_4(task, line, offset):
    label = np.zeros((64, 96), np.int32)
    label |= {
        "row": np.arange(64)[:, None] == 20 + offset,
        "column": np.arange(96) == 40 + offset,
        "diagonal": np.arange(64)[:, None] == np.arange(96) - offset,
    }[line]
    small = reduced(task, label, (16, 24))
    assert ndimage.label(small, np.ones((3, 3)))[1] == 1  # one line, without gaps
    length = {"row": 24, "column": 16, "diagonal": 16}[line]
    assert length <= small.sum() <= 2 * length
    if line != "diagonal":
        assert small.sum() == length  # no wider than one pixel


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_positive_pixel_vanishes_and_none_appears(data):
    sizes = st.tuples(st.integers(1, 13), st.integers(1, 13))
    old, new = data.draw(sizes), data.draw(sizes)
    label = data.draw(arrays.arrays(np.int32, old, elements=st.integers(0, 1)))
    found = reduced(TASKS[0], label, new)
    assert found.shape == new
    # By definition: the new pixels that a pixel covers, or that take their value from it.
    expected = np.zeros(new, np.int32)
    maps = []
    for a, b in zip(old, new, strict=True):
        larger = [(int((j + 0.5) * a / b), j) for j in range(b)]
        maps.append([(i, i * b // a) for i in range(a)] if b <= a else larger)
    for y, new_y in maps[0]:
        for x, new_x in maps[1]:
            expected[new_y, new_x] |= label[y, x]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("settings", "stored", "expected"),
    [
        ({"first": 1, "ignore": 0}, [[0, 1, 3]], [[-1, 0, 2]]),  # as in ADE20K
        ({"values": (3, 7, 9), "ignore": 0}, [[0, 3, 9]], [[-1, 0, 2]]),
        ({"values": (0, 7, 9), "ignore": 1}, [[0, 1, 9]], [[0, -1, 2]]),
        ({"colors": ((9, 9, 9), (1, 1, 1), (2, 2, 2)), "ignore": 1}, [[9, 2, 1]], [[0, 2, 1]]),
        ({"first": 1}, [[255, 1, 3]], [[255, 0, 2]]),
        ({"first": 1, "ignore": None}, [[2, 1, 3]], [[1, 0, 2]]),
    ],
)
def test_pixels_without_a_class_are_no_class_whatever_their_value(settings, stored, expected):
    task = Segmentation(name="mask", num_classes=3, **settings)
    label = task.parse(np.asarray(stored, np.uint8))
    assert label.tolist() == expected
    task.check(label[None])
    classes = [value for value in np.ravel(expected) if 0 <= value < 3]
    assert task.label_values(label).tolist() == classes
    assert not task.label_values(task.placeholder((2, 2))).size


@pytest.mark.parametrize(
    ("settings", "stored", "message"),
    [
        ({}, [[0, 128, 255]], r"the values 128 are not classes; must be 0..2, or 255 for pixels"),
        ({}, [[0.5, 1.0]], "the values 0.5 are not classes"),
        ({"first": 1}, [[0, 1]], "the values 0 are not classes; must be 1..3"),
        ({"first": 1, "num_classes": 0}, [[0, 7]], "the values 0 are not classes; must be 1.., or"),
        ({"ignore": None}, [[7, -1]], r"the values -1, 7 are not classes; must be 0..2; if"),
        ({"values": (0, 1, 2), "ignore": None}, [[3.0]], "the values 3 are not in `values`"),
    ],
)
def test_values_that_are_no_class_are_refused(settings, stored, message):
    task = Segmentation(name="mask", **{"num_classes": 3, **settings})
    with pytest.raises(ValueError, match=message):
        task.parse(np.asarray(stored))
