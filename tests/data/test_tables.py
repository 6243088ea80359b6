"""Tables as people have them: encodings, delimiters, headers and damaged rows."""

import codecs
import csv
import io
import json

import pytest

from mtljax.data.notes import NoteCounter
from mtljax.data.tables.table import find_tables, read_table, read_tables

ROWS = [["image", "kind", "size"], ["a.png", "café", "1.5"], ["b, c; d.png", "thé\nvert", "2"]]
CELLS = [
    {"image": "a.png", "kind": "café", "size": "1.5"},
    {"image": "b, c; d.png", "kind": "thé\nvert", "size": "2"},
]


def csv_text(rows=ROWS, delimiter=","):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


def read(folder, content, encoding="", name="t.csv"):
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    notes = NoteCounter()
    return read_table(folder / name, encoding, notes), [str(note) for note in notes.notes()]


def cells(table):
    return [row.cells for row in table.rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "argument"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("utf-32", ""),
        ("cp1252", "cp1252"),
        ("latin-1", "latin-1"),
        ("utf-16-le", "utf-16-le"),
        ("utf-8-sig", "cp1252"),  # the byte order mark is certain
    ],
)
def test_the_same_table_in_every_delimiter_and_encoding(delimiter, encoding, argument, tmp_path):
    table, notes = read(tmp_path, csv_text(delimiter=delimiter).encode(encoding), argument)
    assert cells(table) == CELLS
    assert notes == []
    assert table.columns == ("image", "kind", "size")


def test_utf_16_of_both_byte_orders(tmp_path):
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        assert cells(read(tmp_path, mark + csv_text().encode(name))[0]) == CELLS


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("image,kind\na.png,café\n", "cp1252", "'café' in cp1252"),
        ("image,kind\na.png,кот\n", "cp1251", "'кот' in cp1251"),
        ("image,kind\na.png,犬\n", "shift_jis", "'犬' in shift_jis"),
    ],
)
def test_another_encoding_is_an_error_that_shows_how_words_read(text, encoding, shown, tmp_path):
    message = f"line 2 is not encoded in UTF-8; name the encoding by encoding=NAME: .*{shown}"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text.encode(encoding))
    assert cells(read(tmp_path, text.encode(encoding), encoding)[0])[0]["kind"] in text


def test_wrong_encodings(tmp_path):
    with pytest.raises(ValueError, match="encoding 'cp9999' is not known"):
        read(tmp_path, "image\n", "cp9999")
    with pytest.raises(ValueError, match="line 2 is not encoded in ascii"):
        read(tmp_path, csv_text(), "ascii")
    with pytest.raises(ValueError, match="NUL characters.*encoding=utf-16-le"):
        read(tmp_path, csv_text().replace("é", "e").encode("utf-16-le"))
    table, notes = read(tmp_path, csv_text(), "cp1252")
    assert cells(table)[0]["kind"] == "cafÃ©"
    assert notes == ["warning: t.csv is valid UTF-8, but is read with encoding=cp1252"]


def test_byte_order_marks_inside_are_dropped_and_counted(tmp_path):
    table, notes = read(tmp_path, "image,kind\n\ufeffa.png,c\ufeffat\nb.png,\u200bcat \u00a0\n")
    assert [row["kind"] for row in cells(table)] == ["cat", "cat"]
    assert notes == ["dropped 2 byte order marks inside a table, first: t.csv"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a,b;c"\n1\n', {"a,b;c": "1"}),  # the only delimiters are inside quotes
        ("image\na.png\n", {"image": "a.png"}),
        ("sep=;\nimage;b,c\na.png;1,2\n", {"image": "a.png", "b,c": "1,2"}),
        ('image,"pose; angle"\na.png,1;2\n', {"image": "a.png", "pose; angle": "1;2"}),
        ("image;tags\na.png;x,y\nb.png;x\n", {"image": "a.png", "tags": "x,y"}),
        ("\n\nimage,b\n,\na.png,1\n", {"image": "a.png", "b": "1"}),  # empty rows
        (",image,kind\n0,a.png,cat\n", {"image": "a.png", "kind": "cat"}),  # index of pandas
        ("image,kind,,\na.png,cat,,\n", {"image": "a.png", "kind": "cat"}),
        ("image,kind\na.png,cat,,\n", {"image": "a.png", "kind": "cat"}),  # empty ends of rows
        ('image, kind\na.png, "cat, dog"\n', {"image": "a.png", "kind": "cat, dog"}),
        ("image,kind\ra.png,cat\r", {"image": "a.png", "kind": "cat"}),
    ],
)
def test_headers_and_delimiters(text, expected, tmp_path):
    assert cells(read(tmp_path, text)[0])[0] == expected


def test_a_delimiter_is_not_guessed(tmp_path):
    text = "image;weight,kg\na.png;1,5\n"
    with pytest.raises(ValueError, match="may have cells between ';' or between ','|first line"):
        read(tmp_path, text)
    assert cells(read(tmp_path, "sep=;\n" + text)[0]) == [{"image": "a.png", "weight,kg": "1,5"}]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("b.png", "1 cells, but the header has 2"),
        ("b.png,cat,dog", "3 cells, but the header has 2"),
        ("b.png,cat,,dog", "4 cells, but the header has 2"),
    ],
)
def test_a_row_with_other_cells_is_a_fault_of_this_row(line, fault, tmp_path):
    table, _ = read(tmp_path, f"image,kind\na.png,cat\n{line}\nc.png,cat\n")
    assert [row.fault for row in table.rows] == ["", fault, ""]
    assert [row.number for row in table.rows] == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,kind,kind\n", "row 1: two columns have the name 'kind'"),
        ('image,kind\na.png,"cat\nb.png,dog\n', "line 3: unexpected end of data; check the quotes"),
        ('image,kind\na.png,"cat" x\n', "line 2: .* expected after .*; check the quotes"),
        ("image,kind\na.png," + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
        ("", "is empty: it has no rows"),
        ("image,kind\n", "is empty: it has no rows"),
        ("\n\n", "is empty: it has no rows"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, text)
    assert len(str(error.value).replace(str(tmp_path), "").splitlines()) == 1
    assert len(str(error.value).replace(str(tmp_path), "")) < 300


def test_json_lines(tmp_path):
    lines = [
        '{"image": "a.png", "kind": " cafe\u0301 ", "size": NaN}',
        "",
        '{"image": "b.png", "kind": ["x", null], "size": null}',
        '{"image": "c.png", "kind": "x", "kind": "y"}',
        '{"image": "d.png"',
        '["e.png"]',
        "[" * 100_000,
        '{"image": "f.png", "kind": {"x": 1, " x": 0}}',
    ]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        table, _ = read(tmp_path, "\n".join(lines).encode(encoding), name="t.jsonl")
        assert table.rows[0].cells["kind"] == "café"
        assert table.rows[1].cells == {"image": "b.png", "kind": ["x", None], "size": None}
        assert [row.number for row in table.rows] == [1, 3, 4, 5, 6, 7, 8]
        faults = [row.fault for row in table.rows[2:]]
        assert faults[0] == faults[4].replace("'x'", "'kind'") == "two values have the name 'kind'"
        assert faults[1].startswith("invalid JSON: Expecting ',' delimiter")
        assert faults[2] == "must be a JSON object, one in each line"
        assert faults[3] == "invalid JSON: nested too deeply"


@pytest.mark.parametrize("text", ['[{"image": "a.png"}]', '[\n  {\n    "image": 1\n  }\n]', "1"])
def test_a_file_without_json_lines_is_refused_with_the_reason(text, tmp_path):
    with pytest.raises(
        ValueError, match="t.jsonl row 1: (must be a JSON object, one|invalid JSON)"
    ):
        read(tmp_path, text, name="t.jsonl")


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"image,kind\n{name}.png,cat\n")


@pytest.mark.parametrize(
    ("names", "table", "splits"),
    [
        (["labels.csv"], None, [""]),
        (["train.csv"], None, [""]),
        (["test.csv", "train.csv", "val.csv"], None, ["test", "train", "validation"]),
        (
            ["data/test-00000-of-00001.csv", "data/train-0.csv", "data/train-1.csv"],
            None,
            ["test", "train", "train"],
        ),
        (["a.csv", "b.csv"], "b.csv", [""]),
        (["a-0.csv", "a-1.csv", "b.csv"], "a-*.csv", ["", ""]),
        (["data/train-0.csv", "data/test-0.csv"], "data/*.csv", ["test", "train"]),
    ],
)
def test_several_files_are_one_table(names, table, splits, tmp_path):
    write(tmp_path / "d", *names)
    found = find_tables(tmp_path / "d", table)
    assert list(found.values()) == splits
    rows = read_tables(list(found), "", NoteCounter()).rows
    assert [row.cells["image"] for row in rows] == [
        f"{file.relative_to(tmp_path / 'd').as_posix()}.png" for file in found
    ]
    assert [row.file for row in rows] == list(found)


def test_files_that_are_no_tables(tmp_path):
    write(tmp_path / "d", "labels.csv", "._labels.csv", ".hidden.csv", "labels.xlsx", "a.txt")
    assert list(find_tables(tmp_path / "d", None)) == [tmp_path / "d" / "labels.csv"]
    write(tmp_path / "e", "labels.xlsx")
    with pytest.raises(ValueError, match="no table of labels .*; labels.xlsx is not read: save"):
        find_tables(tmp_path / "e", None)


def test_other_tables_are_not_mixed(tmp_path):
    write(tmp_path / "d", "train.csv", "labels.csv")
    with pytest.raises(ValueError, match="several tables .labels.csv, train.csv.: select one with"):
        find_tables(tmp_path / "d", None)
    for name in ("x.csv", "x-*.csv"):
        with pytest.raises(ValueError, match="has no table x"):
            find_tables(tmp_path / "d", name)


def test_the_text_of_json_equals_that_of_csv(tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in CELLS)
    assert cells(read(tmp_path, lines, name="t.ndjson")[0]) == cells(read(tmp_path, csv_text())[0])
