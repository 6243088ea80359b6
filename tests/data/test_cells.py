"""Missing markers and decimal commas."""

from pathlib import Path

import pytest

from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row, Table
from mtljax.data.tables.cells import MISSING, MissingMarkers, note_sentinels, with_decimal_points
from mtljax.tasks import Classification, Keypoints, Regression

KIND = Classification(name="kind", num_classes=2)
SIZE = Regression(name="size")


def table_of(cells, has_decimal_commas=True):
    rows = tuple(Row(i + 2, {"size": cell}, Path("t.csv")) for i, cell in enumerate(cells))
    return Table(Path("t.csv"), rows, ("size",), has_decimal_commas=has_decimal_commas)


def without_markers(cells, markers=MISSING, classes=(), task=KIND):
    notes = NoteCounter()
    reader = MissingMarkers(markers, notes)
    table = table_of(cells)
    values = [
        reader.value(cell, task, classes, row) for cell, row in zip(cells, table.rows, strict=True)
    ]
    return values, [str(note) for note in notes.notes()]


def test_markers_are_missing_and_counted():
    values, notes = without_markers(["cat", "NA", "nan", "NA", None, float("nan"), "-", "none"])
    assert values == ["cat", None, None, None, None, None, None, "none"]
    assert notes == [
        "missing 2 labels of task 'kind' marked 'NA', first: t.csv row 3",
        "missing 1 labels of task 'kind' marked 'nan', first: t.csv row 4",
        "missing 1 labels of task 'kind' marked 'NaN', first: t.csv row 7",
        "missing 1 labels of task 'kind' marked '-', first: t.csv row 8",
    ]


@pytest.mark.parametrize("name", ["NA", "None", "-", "nan"])
def test_a_class_with_the_name_of_a_marker_is_a_class(name):
    assert without_markers([name, "NULL"], classes=("cat", name))[0] == [name, None]


def test_markers_of_the_user_replace_the_default():
    assert without_markers(["NA", "?"], ("?",))[0] == ["NA", None]
    assert without_markers(["-", None], ())[0] == ["-", None]
    cells = ["-999", -999, -999.0, "-999.00", "-99", -99, True, "x"]
    assert without_markers(cells, (-999.0,))[0] == [None] * 4 + ["-99", -99, True, "x"]


def converted(cells, task=SIZE, has_decimal_commas=True):
    notes = NoteCounter()
    values = with_decimal_points(cells, task, table_of(cells, has_decimal_commas), notes)
    return values, [str(note) for note in notes.notes()]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["3,14", "2", None], ["3.14", "2", None]),
        (["-0,5", "1,2e3"], ["-0.5", "1.2e3"]),
        (["1,234", "1,5"], ["1.234", "1.5"]),  # 1,5 has no thousands
        (["0,234"], ["0.234"]),
    ],
)
def test_decimal_commas_are_converted_and_counted(cells, expected):
    values, notes = converted(cells)
    assert values == expected
    count = sum("," in (cell or "") for cell in cells)
    assert notes == [
        f"converted {count} decimal commas of task 'size' to points, first: t.csv row 2"
    ]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["5", "1,234"], "t.csv row 3: task 'size': '1,234' may have a decimal comma or a comma b"),
        (["1,5", "1,234,567"], "row 3: .* '1,234,567' may have"),
        (["1,5", "2.5"], "'1,5' may have .*, and other cells have points, such as 2.5"),
    ],
)
def test_thousands_are_not_guessed(cells, message):
    with pytest.raises(ValueError, match=message):
        converted(cells)


def test_other_commas_are_not_changed():
    for cells in (["1,5,2", "x"], ["1.234,5"], [",5"], ["1, 5"], [[1, 2]], [1.5]):
        assert converted(cells) == (cells, [])
    assert converted(["1,5"], has_decimal_commas=False) == (["1,5"], [])
    assert converted(["38,5"], KIND) == (["38,5"], [])  # the name of a class
    assert converted(["1,5 2 1"], Keypoints(name="k", num_keypoints=1))[0] == ["1.5 2 1"]


@pytest.mark.parametrize(
    ("cells", "marker"),
    [
        (["1", "-999", "2.5", None, "-999"], "-999"),
        ([-1, 30, 41, "n"], "-1"),
        (["0", "-99.0", "7"], "-99"),
        ([1.5, 2, 9999], "9999"),
        (["-999", "-3", "2", "5"], None),  # has other negative numbers
        (["-5", "1", "2"], None),
        (["900", "950", "999"], None),
        (["-1", "0"], None),  # two values may be classes
        ([[1, -999], True, "x"], None),
    ],
)
def test_a_number_that_may_mark_missing_labels_is_a_warning(cells, marker):
    notes = NoteCounter()
    note_sentinels(table_of(cells).rows, cells, SIZE, notes)
    found = [(note.kind, note.what.rpartition("=")[2]) for note in notes.notes()]
    assert found == ([("warning", marker)] if marker else [])
    if marker == "-999":
        assert str(notes.notes()[0]).endswith("missing=-999 (2 of them), first: t.csv row 3")
