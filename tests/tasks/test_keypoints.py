"""Keypoints in tables: order of coordinates, visibility, empty points, points outside the image."""

import numpy as np
import pytest

from mtljax.data.lazy import clean_label
from mtljax.tasks import Keypoints
from mtljax.tasks.warps import Mirror, Resize

SIZE = (32, 64)


def task(count=2, **options):
    return Keypoints(name="p", num_keypoints=count, **options)


@pytest.mark.parametrize(
    "value",
    [
        *([40, 10, 2, 50, 20, 1], [40.0, 10.0, 50.0, 20.0], [[40, 10], [50, 20]]),
        *("40 10 50 20", "[[40, 10, 2], [50, 20, 2]]", ["40", "10", "2", "50", "20", "1"]),
    ],
    ids=str,
)
def test_both_orders_of_coordinates_give_the_same_label(value):
    found = task(order="xy").parse(value)
    assert found.tolist() == [[10, 40, 1], [20, 50, 1]]
    for other in ([10, 40, 2, 20, 50, 1], [[10, 40], [20, 50]], "10 40 20 50"):
        assert task().parse(other).tolist() == found.tolist()


@pytest.mark.parametrize(
    "value",
    [
        *([None, None, 5, 6], ["", " ", "5", "6"], [float("nan")] * 2 + [5, 6]),
        *(["", "", "", "5", "6", "2"], [0, 0, 0, 5, 6, 1], [3, None, 0, 5, 6, 2]),
        *([[None, None], [5, 6]], "[[null, null, 0], [5, 6, 2]]", "nan nan 5 6"),
    ],
    ids=str,
)
def test_an_empty_point_and_visibility_0_are_not_visible(value):
    label = task().parse(value)
    assert label.tolist() == [[0, 0, 0], [5, 6, 1]]
    task().check(label[None])
    assert task().num_unknown(label) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2, 3, 4, 5, 1], "visibility of point 0 is 3; must be 0, 1 or 2"),
        ([1, 2, 0.7, 4, 5, 1], "visibility of point 0 is 0.7"),
        ([1, 2, 1, 4, 5, None], "visibility of point 1 is nan"),
        ([1, None, 4, 5], "point 0 has no y or no x"),
        ([1, 2, 1, None, None, 2], "point 1 has no y or no x"),
        ([1, 2, 3], "3 numbers for 2 points; each point needs y, x or y, x, visible"),
    ],
)
def test_impossible_points_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        task().parse(value)


def cleaned(value, **options):
    return clean_label(task(len(value) // 2, **options), value, SIZE, "row 1")


def test_points_outside_of_the_image_are_not_visible_and_counted():
    label, changed = cleaned([10, 20, -3, 5, 31, 64.5, 34, 63])
    assert label[:, 2].tolist() == [1, 0, 0, 0]
    assert changed == {("dropped", "points outside of their image"): 3}
    label, changed = cleaned([0, 0, 32, 64])  # the edge is inside
    assert label[:, 2].tolist() == [1, 1]
    assert not changed


@pytest.mark.parametrize("order", ["yx", "xy"])
def test_exchanged_coordinates_are_an_error_that_names_the_order(order):
    right = [5, 50, 20, 60] if order == "yx" else [50, 5, 60, 20]
    other = {"yx": "xy", "xy": "yx"}[order]
    cleaned(right, order=order)
    with pytest.raises(ValueError, match=f"row 1: task 'p': .*inside with .*order='{order}'"):
        cleaned(right, order=other)
    # A point a little outside of the image is no reason to suspect the order.
    assert cleaned([33, 20])[1] == {("dropped", "points outside of their image"): 1}


@pytest.mark.parametrize(
    "columns",
    ["x,y", "x,y,v", "nose_x,nose_y,eye_x,eye_y", "x0,y0,x1,y1", "noseX,noseY", "X,Y,V,X2,Y2,V2"],
)
def test_names_of_columns_contradict_an_order(columns):
    names = columns.split(",")
    count = len(names) // (3 if len(names) % 3 == 0 else 2)
    exchanged = [name.translate(str.maketrans("xyXY", "yxYX")) for name in names]
    task(count, order="xy").check_columns(names)
    task(count).check_columns(exchanged)
    with pytest.raises(ValueError, match=r"have x before y.*set order='xy'"):
        task(count).check_columns(names)
    with pytest.raises(ValueError, match=r"have y before x.*set order='yx'"):
        task(count, order="xy").check_columns(exchanged)


@pytest.mark.parametrize("columns", ["a,b,c,d", "y0,x0,y1,x1", "row,column,taxi,yes"])
def test_other_names_of_columns_say_nothing(columns):
    task(2).check_columns(columns.split(","))


def test_points_on_the_edge_survive_a_resize_and_a_mirror():
    label = np.asarray([[0, 0, 1], [32, 64, 1]], np.float32)
    small = task().warp(label, Resize(old=SIZE, size=(8, 16)))
    assert small.tolist() == [[0, 0, 1], [8, 16, 1]]
    mirrored = task(mirror="keep").warp(label, Mirror(size=SIZE))
    assert mirrored.tolist() == [[0, 64, 1], [32, 0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "zx"}, "order must be one of yx, xy"),
        ({"mirror": "negate"}, "mirror must be keep or none"),
        ({"pairs": ((0, 0),)}, "pairs must be pairs of different points"),
        ({"pairs": ((0, 1), (1, 0))}, "pairs must be pairs of different points"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        task(**options)


@pytest.mark.parametrize(
    "columns", ["x0,x1,y0,y1", "eye_x,mouth_x,eye_y,mouth_y", "y0,x0,x1,y1", "v0,x0,y0,v1,x1,y1"]
)
@pytest.mark.parametrize("order", ["xy", "yx"])
def test_columns_that_are_not_point_by_point_are_refused(columns, order):
    with pytest.raises(ValueError, match=f"{order[0]}, {order[1]} of one point"):
        Keypoints(name="p", num_keypoints=2, order=order).check_columns(columns.split(","))


def test_fractions_of_the_image_are_refused():
    task = Keypoints(name="p", num_keypoints=2)
    with pytest.raises(ValueError, match="not fractions of the image"):
        task.parse([0.25, 0.5, 1.0, 0.0])
    with pytest.raises(ValueError, match="not fractions of the image"):
        task.parse([0.25, 0.5, 1, 7.0, 9.0, 0])
    assert task.parse([0, 1, 1, 0])[:, :2].tolist() == [[0, 1], [1, 0]]
    assert task.parse([0.25, 0.5, 1.5, 0.0])[:, :2].tolist() == [[0.25, 0.5], [1.5, 0]]


@pytest.mark.parametrize(
    "text", ["[[1, 2], [3, 4]]", "[(1, 2), (3, 4)]", "(1, 2), (3, 4)", "[1. 2. 3. 4.]", "1 2 3 4"]
)
def test_points_may_be_written_by_json_python_or_numpy(text):
    points = Keypoints(name="p", num_keypoints=2).parse(text)
    assert points.tolist() == [[1, 2, 1], [3, 4, 1]]
