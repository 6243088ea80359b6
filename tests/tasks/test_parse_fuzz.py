"""Any cell or value of a table is a valid label, or a ValueError of one line; never a traceback."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtljax.data.lazy import clean_label
from mtljax.tasks import Classification, Detection, Keypoints, MultiLabel, Regression

NAMES = ("cat", "dog", "0")
TASKS = [
    Classification(name="t", class_names=NAMES),
    Classification(name="t"),
    MultiLabel(name="t", class_names=NAMES, uncertain="missing"),
    MultiLabel(name="t", num_classes=3),
    Regression(name="t", size=2),
    Keypoints(name="t", num_keypoints=2),
    Keypoints(name="t", num_keypoints=2, order="xy"),
    Detection(name="t", class_names=NAMES, most=3),
    Detection(name="t", num_classes=1, most=3, order="xywh"),
]
WORDS = st.sampled_from(
    [*NAMES, "", " ", "-1", "1", "2.0", "nan", "true", "cat;dog", "cat|0", "1;0", "1 0 1", "[1, 0"]
)
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.integers(-2, 40), st.floats())
CELLS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=8))
KEYS = st.sampled_from([*NAMES, "boxes", "bbox", "classes", "category", "size"])
VALUES = st.recursive(
    st.one_of(CELLS, st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
BOXES = st.fixed_dictionaries(
    {"boxes": st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=4)},
    optional={"classes": st.lists(CELLS, max_size=4), "label": st.lists(CELLS, max_size=4)},
)


ANY = st.one_of(VALUES, BOXES, st.lists(CELLS, min_size=2, max_size=6))
EVERY_TASK = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)


@EVERY_TASK
@settings(max_examples=60, deadline=None)
@given(ANY)
@example({"boxes": [[0, 0, 1, 1]], "classes": None})
@example("[" * 2000)
@example(b"\xff")
@example([float("inf"), "cat"])
@example([False, None, 3.41e38, None])
def test_a_cell_is_a_valid_label_or_one_line(task, value):
    _read(task, value)


@pytest.mark.slow
@EVERY_TASK
@settings(max_examples=2000, deadline=None)
@given(ANY)
def test_thousands_of_cells_are_valid_labels_or_one_line(task, value):
    _read(task, value)


def _read(task, value):
    if value is None:
        return
    try:
        label, changed = clean_label(task, value, (24, 32), "row 7")
        list(task.classes_in(value))
    except ValueError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 400
        return
    assert all(count > 0 for count in changed.values())
    if label is not None and not isinstance(label, dict):
        assert np.isfinite(label).all()
    if isinstance(task, MultiLabel):
        assert set(np.unique(label)) <= {-1, 0, 1}
