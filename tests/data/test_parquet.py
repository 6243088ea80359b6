"""Parquet tables: class names, images in cells, several files, and unusable columns."""

import json

import pytest

from mtljax.data.files import encoded
from mtljax.data.files.encoded import EncodedImage
from mtljax.data.notes import NoteCounter
from mtljax.data.tables.table import read_table, read_tables

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PNG = b"\x89PNG secret"


def write(path, columns, features=None, **settings):
    table = pa.table(columns)
    if features is not None:
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    parquet.write_table(table, path, **settings)
    return path


def cells(path):
    return [row.cells for row in read_table(path).rows]


LABEL = {"names": ["cat", "dog"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        (LABEL, [1, 0, None, -1], ["dog", "cat", None, None]),
        (LABEL, [2, -2], [2, -2]),  # refused by the task
        (LABEL, [1.0, True], [1.0, 1.0]),
        (
            {"feature": LABEL, "_type": "Sequence"},
            [[1], [], [0, 1]],
            [{"cat": 0, "dog": 1}, {"cat": 0, "dog": 0}, {"cat": 1, "dog": 1}],
        ),
        ({"feature": LABEL, "_type": "List"}, [[0]], [{"cat": 1, "dog": 0}]),
        ([LABEL], [[0]], [{"cat": 1, "dog": 0}]),
        (
            {"feature": {"x": {"_type": "Value"}, "y": LABEL}, "_type": "Sequence"},
            [{"x": [3, 4], "y": [0, 1]}, {"x": [], "y": []}],
            [{"x": [3, 4], "y": ["cat", "dog"]}, {"x": [], "y": []}],
        ),
        (
            {"feature": {"x": {"_type": "Value"}, "y": LABEL}, "_type": "List"},
            [[{"x": 3, "y": 1}], [], None],
            [[{"x": 3, "y": "dog"}], [], None],
        ),
        ({"x": {"_type": "Value"}, "y": [LABEL]}, [{"x": 1, "y": [0]}], [{"x": 1, "y": ["cat"]}]),
        ({"dtype": "int64", "_type": "Value"}, [1, 0], [1, 0]),
    ],
)
def test_indices_have_the_names_that_hugging_face_recorded(feature, values, expected, tmp_path):
    path = write(tmp_path / "t.parquet", {"label": values}, {"label": feature})
    assert [row["label"] for row in cells(path)] == expected
    has_names = "ClassLabel" in str(feature)
    assert read_table(path).class_names == ({"label": ("cat", "dog")} if has_names else {})


@pytest.mark.parametrize(
    "features", [{}, [], None, "x", {"label": None}, {"label": {"names": 3}}, {"other": LABEL}]
)
def test_damaged_metadata_is_ignored(features, tmp_path):
    path = write(tmp_path / "t.parquet", {"label": [1, 0]}, features)
    assert [row["label"] for row in cells(path)] == [1, 0]


def structs(values):
    return [{"bytes": value, "path": f"{i}.png"} for i, value in enumerate(values)]


@pytest.mark.parametrize("rows_per_group", [1, 2, 100])
@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_images_in_cells_are_read_on_access(kind, rows_per_group, tmp_path):
    data = [PNG + bytes([i]) for i in range(5)]
    types = {"binary": pa.binary(), "large_binary": pa.large_binary()}
    column = pa.array(data, types[kind]) if kind in types else structs(data)
    columns = {"image": column, "label": range(5)}
    path = write(tmp_path / "t.parquet", columns, row_group_size=rows_per_group)
    rows = read_table(path).rows
    for i, row in enumerate(rows):
        assert row.number == i + 1
        assert row.cells["image"].open().read() == data[i]
        assert row.cells["image"].name == ("image" if kind in types else f"{i}.png")
        assert row.cells["label"] == i
        assert "secret" not in repr(row)


def test_images_without_bytes(tmp_path):
    images = [
        None,
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": None},
        *structs([PNG]),
    ]
    path = write(tmp_path / "t.parquet", {"image": images, "mask": [PNG, None, PNG, None]})
    found = cells(path)
    assert [row["image"] for row in found[:3]] == [None, "a.png", None]
    assert isinstance(found[3]["image"], EncodedImage)
    assert [row["mask"] is None for row in found] == [False, True, False, True]


def test_memory_of_images_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "CACHE_BYTES", 4000)
    data = [bytes([i]) * 1000 for i in range(20)]
    path = write(tmp_path / "t.parquet", {"image": data}, row_group_size=1)
    cache = encoded.GroupCache()
    monkeypatch.setattr(encoded, "_groups", cache)
    images = [row["image"] for row in cells(path)]
    for order in (range(20), (19, 0, 19, 5)):
        for i in order:
            assert images[i].open().read() == data[i]
            assert 0 < cache.size() <= 4000


def test_a_file_that_is_replaced_is_read_again(tmp_path):
    path = write(tmp_path / "t.parquet", {"image": [b"old"]})
    image = cells(path)[0]["image"]
    assert image.open().read() == b"old"
    write(path, {"image": [b"newer"]})
    assert image.open().read() == b"newer"
    path.unlink()
    with pytest.raises(ValueError, match="t.parquet cannot be read: No such file"):
        image.open()


def test_columns_with_other_bytes_are_unusable(tmp_path):
    path = write(tmp_path / "t.parquet", {"a": [[PNG]], "b": [{"x": PNG}], "c": [1]})
    table = read_table(path)
    assert [row.cells for row in table.rows] == [{"c": 1}]
    assert table.columns == ("a", "b", "c")
    assert table.unusable == {
        "a": "list<element: binary>",
        "b": "struct<x: binary>",
    }


@pytest.mark.parametrize("content", [b"", b"PAR1", b"secret" * 99, b"PAR1secretPAR1"])
def test_damaged_files_are_refused_in_one_line(content, tmp_path):
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="t.parquet cannot be read as a Parquet file") as error:
        read_table(tmp_path / "t.parquet")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_text_that_is_not_utf_8(tmp_path):
    text = pa.array([b"\xffsecret"], pa.binary()).view(pa.string())
    with pytest.raises(ValueError, match="has text that is not encoded in UTF-8$"):
        read_table(write(tmp_path / "t.parquet", {"label": text}))


def test_several_files_have_one_list_of_classes(tmp_path):
    files = [tmp_path / f"train-{i}.parquet" for i in range(2)]
    for file in files:
        write(file, {"label": [0, 1]}, {"label": LABEL})
    table = read_tables(files, "", NoteCounter())
    assert [str(row) for row in table.rows] == [f"{f} row {i}" for f in files for i in (1, 2)]
    assert table.class_names == {"label": ("cat", "dog")}
    write(files[1], {"label": [0]}, {"label": {**LABEL, "names": ["dog", "cat"]}})
    with pytest.raises(ValueError, match="train-1.parquet: column 'label' has other class names"):
        read_tables(files, "", NoteCounter())


def test_large_row_groups_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("mtljax.data.tables.parquet.CACHE_BYTES", 2**21)
    monkeypatch.setattr("mtljax.data.tables.parquet.LARGE_GROUP", 2**21)
    notes = NoteCounter()
    data = [bytes([i]) * 2**20 for i in range(4)]
    settings = {"use_dictionary": False, "compression": "none"}
    read_table(write(tmp_path / "t.parquet", {"image": data}, **settings), "", notes)
    (note,) = notes.notes()
    assert str(note).startswith("warning: t.parquet has up to 4 MiB of images in a row group")
    notes = NoteCounter()
    path = write(tmp_path / "t.parquet", {"image": data}, row_group_size=1, **settings)
    read_table(path, "", notes)
    assert not notes.notes()
