"""Boxes in tables: order of coordinates, names of parts, and boxes that leave their image."""

import json

import numpy as np
import pytest

from mtljax.data.lazy import clean_label
from mtljax.tasks import Detection

SIZE = (32, 64)
BOXES = {"yxyx": [4, 10, 8, 30], "xyxy": [10, 4, 30, 8], "xywh": [10, 4, 20, 4]}


def task(**options):
    return Detection(name="b", class_names=("cat", "dog"), most=3, **options)


def boxes_of(label):
    known = label["classes"] >= 0
    return label["boxes"][known].tolist(), label["classes"][known].tolist()


@pytest.mark.parametrize("order", BOXES)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda box: {"boxes": [box], "classes": ["dog"]},
        lambda box: {"bbox": [box], "category": [1], "area": [80]},
        lambda box: {"boxes": np.asarray([box], np.float32), "labels": np.asarray([1])},
        lambda box: [{"bbox": box, "category_id": "dog", "id": 7}],
        lambda box: json.dumps([{"bbox": box, "label": "dog"}]),
        lambda box: json.dumps({"bboxes": [box], "class": ["dog"]}),
    ],
    ids=range(6),
)
def test_all_notations_and_orders_of_a_box_are_equal(wrap, order):
    label = task(order=order).parse(wrap(BOXES[order]))
    assert boxes_of(label) == ([[4, 10, 8, 30]], [1])


@pytest.mark.parametrize("order", BOXES)
def test_boxes_of_one_class_are_numbers(order):
    one = Detection(name="b", num_classes=1, most=3, order=order)
    for value in (BOXES[order], [BOXES[order]], " ".join(map(str, BOXES[order]))):
        assert boxes_of(one.parse(value)) == ([[4, 10, 8, 30]], [0])
    assert boxes_of(one.parse({"boxes": [], "classes": []})) == ([], [])


@pytest.mark.parametrize("order", BOXES)
def test_sources_of_annotations_have_an_order_of_their_own(order):
    label = task(order=order).parse({"boxes": [[4, 10, 8, 30]], "classes": [1], "size": SIZE})
    assert boxes_of(label) == ([[4, 10, 8, 30]], [1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"boxes": [[1, 2, 3, 4]]}, "boxes need exactly one of classes, class, .*has boxes"),
        ({"boxes": [[1, 2, 3, 4]], "bbox": [], "class": []}, "exactly one of boxes"),
        ({"boxes": [[1, 2, 3, 4]], "classes": []}, "1 boxes, but 0 classes"),
        ({"boxes": [[1, 2, 3]], "classes": [0]}, "3 numbers; a box needs four"),
        ({"boxes": [[1, 2, 3, 4]], "classes": "cat"}, "classes of boxes must be a list"),
        ({"boxes": [[1, 2, 3, 4]], "classes": ["cow"]}, "unknown class 'cow'"),
        ([1, 2, 3, 4], "boxes need a class if there are several"),
        ("{boxes", "is not JSON"),
        ([{"bbox": [1, 2, 3, 4], "class": 0}] * 4, "4 boxes; set `most`"),
        (None, "is not a list of numbers|a box needs four"),
    ],
)
def test_wrong_boxes_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        task().parse(value)


def cleaned(*boxes, **options):
    value = {"boxes": boxes, "classes": [0] * len(boxes)}
    label, changed = clean_label(task(**options), value, SIZE, "row 1")
    return boxes_of(label)[0], changed


def test_boxes_are_clipped_and_those_without_area_dropped_and_both_are_counted():
    found, changed = cleaned([-3, 60, 8, 67], [5, 5, 5, 9], [40, 5, 50, 9])
    assert found == [[0, 60, 8, 64]]
    assert changed == {
        ("dropped", "boxes without area inside their image"): 2,
        ("clipped", "boxes that exceed their image"): 1,
    }
    assert cleaned([0, 0, 32, 64]) == ([[0, 0, 32, 64]], {})
    assert cleaned([0, 0, 32.001, 64]) == ([[0, 0, 32, 64]], {})


def test_boxes_with_exchanged_sides_or_without_numbers_are_errors():
    with pytest.raises(ValueError, match=r"row 1: task 'b': .*must be .y0, x0, y1, x1. with y0 <"):
        cleaned([8, 5, 4, 9])
    with pytest.raises(ValueError, match="a box must be finite"):
        cleaned([8, float("nan"), 9, 9])


def test_exchanged_coordinates_are_an_error_that_names_the_order():
    with pytest.raises(ValueError, match="exchanged: set order='xyxy' or 'xywh'"):
        cleaned([10, 4, 50, 8])
    with pytest.raises(ValueError, match="exchanged: set order='yxyx'"):
        cleaned([4, 10, 8, 50], order="xyxy")


@pytest.mark.parametrize(
    ("columns", "right"),
    [
        ("x0,y0,x1,y1", {"xyxy"}),
        ("xmin,ymin,xmax,ymax", {"xyxy"}),
        ("x_min,y_min,x_max,y_max", {"xyxy"}),
        ("x,y,w,h", {"xywh"}),
        ("x,y,width,height", {"xywh"}),
        ("left x,top y,a,b", {"xywh", "xyxy"}),
        ("y0,x0,y1,x1", {"yxyx"}),
        ("a,b,c,d", {*BOXES}),
    ],
)
def test_names_of_columns_contradict_an_order(columns, right):
    for order in BOXES:
        if order in right:
            task(order=order).check_columns(columns.split(","))
        else:
            with pytest.raises(ValueError, match="contradict order"):
                task(order=order).check_columns(columns.split(","))


def test_fractions_of_the_image_are_refused():
    task = Detection(name="b", class_names=("cat", "dog"), order="xywh")
    for box in ([0.1, 0.2, 0.5, 0.6], [0, 0, 0.5, 1]):
        with pytest.raises(ValueError, match="not fractions of the image"):
            task.parse({"boxes": [box], "classes": ["cat"]})
    assert task.parse({"boxes": [[0, 0, 1, 1]], "classes": ["cat"]})["boxes"][0].tolist() == [
        *(0, 0, 1, 1)
    ]
    mixed = {"boxes": [[0.1, 0.2, 0.5, 0.6], [1, 1, 3, 3]], "classes": [0, 1]}
    assert (task.parse(mixed)["classes"] >= 0).sum() == 2


def test_labels_may_be_written_by_python():
    task = Detection(name="b", class_names=("cat", "dog"))
    label = task.parse("[{'bbox': [1, 2, 5, 6], 'category': 'dog'}]")
    assert (label["boxes"][0].tolist(), int(label["classes"][0])) == ([1, 2, 5, 6], 1)


def test_columns_that_fit_no_order_are_named():
    with pytest.raises(ValueError, match="contradict order='yxyx': list them in this order"):
        Detection(name="b").check_columns(["xmin", "xmax", "ymin", "ymax"])
