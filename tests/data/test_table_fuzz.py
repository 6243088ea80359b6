"""Random tables: never another exception than a short ValueError, never a changed label."""

import csv
import io
import json
import math
import re
import unicodedata

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.data.tables.cells import MISSING
from mtljax.tasks import (
    Classification,
    Depth,
    Detection,
    Edges,
    Keypoints,
    MultiLabel,
    Normals,
    Reconstruction,
    Regression,
    Saliency,
    Segmentation,
)

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COUNT = 6
SPLITS = ("train", "train", "train", "train", "val", "test")
TASKS = (
    Classification(name="t", num_classes=3),
    Classification(name="t"),
    Classification(name="t", class_names=("a", "NA", "1")),
    Classification(name="t", class_names=("a", "b")),
    Regression(name="t"),
    Regression(name="t", size=2),
    MultiLabel(name="t", num_classes=2),
    MultiLabel(name="t"),
    MultiLabel(name="t", class_names=("a", "-")),
    Segmentation(name="t", num_classes=3),
    Depth(name="t"),
    Edges(name="t"),
    Saliency(name="t"),
    Normals(name="t"),
    Keypoints(name="t", num_keypoints=1),
    Detection(name="t", num_classes=2),
    Reconstruction(name="t"),
)
TEXT = st.text(max_size=12) | st.sampled_from(
    ["", " ", "a", "b", "NA", "-", "nan", "0", "1", "-1", "2", "1,5", "1,234", "1 2", "[1, 2]", "["]
    + ["0.png", "0", "x.png", "../x", "C:\\0.png", "http://a/0.png", "a;b", "a|b", "1e999", "\0"]
    + ["é", "e\u0301", "\ufeffa", '"', "'", "a,b", "train", "inf", "{}", "1_0", "\u0661", "x" * 99]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
NESTED = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(TEXT, x, max_size=3)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    for i in range(COUNT):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(root / f"{i}.png")
    return root


def opened(folder, name, content, task, arguments="", key="t"):
    for old in folder.glob("t.*"):
        old.unlink()
    (folder / name).write_bytes(content)
    return make_source(f"folder:'{folder}'{arguments}", [LabelRequest(task, key)])


def source_or_error(*arguments, **settings):
    """A source, or the message of the ValueError."""
    try:
        return opened(*arguments, **settings)
    except ValueError as error:
        return str(error)


def read_or_refuse(folder, *arguments, **settings):
    """Reads all examples; an error is one short line."""
    source = source_or_error(folder, *arguments, **settings)
    errors = [source] if isinstance(source, str) else []
    for split in () if errors else source.splits().values():
        for row in range(len(split)):
            try:
                split[row]
            except ValueError as error:
                errors.append(str(error))
    for text in errors:
        assert 0 < len(text) < 500 + 3 * len(str(folder)), text
        assert text.isprintable(), text


def csv_bytes(rows, delimiter=",", encoding="utf-8"):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue().encode(encoding, "replace")


def parquet_bytes(columns):
    file = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), file, row_group_size=4)
    return file.getvalue().to_pybytes()


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck)}
FEW = settings(max_examples=15, **SETTINGS)
MANY = settings(max_examples=700, **SETTINGS)
TASK = st.sampled_from(TASKS)
IMAGES = [f"{i}.png" for i in range(COUNT)]


ARGUMENTS = st.just("") | st.sampled_from(
    [",encoding=cp1252", ",encoding=x", ",missing=()", ",missing=-1", ",group=t", ",stratify=t"]
    + [",split=t", ",image=t", ",size=(8,8)", ",channels=1", ",validation=0.4,test=0.4"]
)


def text_tables(folder, task, header, rows, delimiter, encoding, arguments, key):
    content = csv_bytes([header, *rows], delimiter, encoding)
    read_or_refuse(folder, "t.csv", content, task, arguments, key=key)


HEADERS = st.just(["image", "t", "split"]) | st.lists(TEXT, min_size=1, max_size=4)
ROWS = st.lists(st.lists(TEXT, max_size=4), max_size=8) | st.lists(
    st.tuples(st.sampled_from(IMAGES), TEXT, st.sampled_from(SPLITS)), min_size=3, max_size=8
)
TEXT_TABLES = given(
    task=TASK,
    header=HEADERS,
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252", "utf-16-le", "utf-32", "shift_jis"]),
    arguments=ARGUMENTS,
    key=st.sampled_from(["t", "t", "t", "t,split", "x.json", "", ","]),
)


def json_tables(folder, task, lines, arguments):
    content = "\n".join(json.dumps(line) for line in lines)
    read_or_refuse(folder, "t.jsonl", content.encode(), task, arguments)


JSON_TABLES = given(
    task=TASK,
    arguments=ARGUMENTS,
    lines=st.lists(
        st.fixed_dictionaries(
            {"image": st.sampled_from(IMAGES) | NESTED, "t": NESTED},
            optional={"split": st.sampled_from(SPLITS)},
        )
        | NESTED,
        max_size=8,
    ),
)


def parquet_tables(folder, task, images, labels, arguments):
    try:
        content = parquet_bytes({"image": images, "t": labels, "split": list(SPLITS)})
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError):
        assume(False)
    read_or_refuse(folder, "t.parquet", content, task, arguments)


def column(values):
    return st.lists(values, min_size=COUNT, max_size=COUNT)


CELLS = [st.binary(max_size=9), TEXT, st.integers(-3, 3), st.floats(), st.booleans(), st.none()]
CELLS += [st.dates(), st.datetimes(), st.decimals(-9, 9, places=2), st.timedeltas()]
CELLS += [st.lists(kind, max_size=3) for kind in CELLS[:4]]
CELLS += [st.fixed_dictionaries({"bytes": st.binary(), "path": TEXT | st.none()})]
CELLS += [st.fixed_dictionaries({"x": kind}) for kind in CELLS[:4]]
COLUMNS = st.sampled_from(CELLS).flatmap(lambda kind: column(kind | st.none()))
PARQUET_TABLES = given(
    task=TASK, images=st.just(IMAGES) | COLUMNS, labels=COLUMNS, arguments=ARGUMENTS
)


@FEW
@TEXT_TABLES
def test_random_csv(folder, **table):
    text_tables(folder, **table)


@FEW
@JSON_TABLES
def test_random_json_lines(folder, **table):
    json_tables(folder, **table)


@FEW
@PARQUET_TABLES
def test_random_parquet(folder, **table):
    parquet_tables(folder, **table)


@pytest.mark.slow
@MANY
@TEXT_TABLES
def test_many_random_csv(folder, **table):
    text_tables(folder, **table)


@pytest.mark.slow
@MANY
@JSON_TABLES
def test_many_random_json_lines(folder, **table):
    json_tables(folder, **table)


@pytest.mark.slow
@MANY
@PARQUET_TABLES
def test_many_random_parquet(folder, **table):
    parquet_tables(folder, **table)


def expected_text(cell):
    """A cell as it should be read: in Unicode normal form C, without outer white space."""
    return unicodedata.normalize("NFC", cell.strip())


def written(form, labels, delimiter, encoding):
    """The file of a table with these labels, as trusted writers make it."""
    rows = list(zip(IMAGES, labels, SPLITS, strict=True))
    names = ("image", "t", "split")
    if form == "csv":
        return "t.csv", csv_bytes([names, *rows], delimiter, encoding)
    if form == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        return "t.jsonl", "\n".join(lines).encode()
    return "t.parquet", parquet_bytes(
        dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    )


def labels_of(source):
    """The label of each row, None if it is missing; "fault" if the row is refused."""
    found = []
    for name in ("train", "validation", "test"):
        split = source.splits()[name]
        for row in range(len(split)):
            try:
                example = split[row]
            except ValueError:
                found.append("fault")
                continue
            found.append(example["labels"]["t"] if example["present"]["t"] else None)
    return found


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\ufeff\u200b\u2060"), max_size=9
)
WORDS = NAMES | st.sampled_from(["cat", "dog", "0", "1", "01", "1.0", "1e0", "NA", "-", "1,5", "é"])
WRITERS = {
    "form": st.sampled_from(["csv", "jsonl", "parquet"]),
    "delimiter": st.sampled_from(",;\t|"),
    "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
}
NAME_TABLES = given(labels=column(WORDS), are_declared=st.booleans(), **WRITERS)


def check_names(folder, labels, are_declared, form, delimiter, encoding):
    expected = [expected_text(label) for label in labels]
    if not are_declared:  # tables with empty cells have 1.0 for 1
        expected = [re.sub(r"^(-?[0-9]+)\.0+$", r"\1", text) for text in expected]
    known = tuple(dict.fromkeys(filter(None, expected)))
    assume(len(known) > 1)
    task = Classification(name="t", class_names=known if are_declared else ())
    source = source_or_error(folder, *written(form, labels, delimiter, encoding), task)
    if isinstance(source, str):
        assert "no label in any training row" in source or not are_declared, source
        return
    (task,) = source.tasks
    for label, text in zip(labels_of(source), expected, strict=True):
        is_marker = text in MISSING and text not in known
        if not text or (text in MISSING and not are_declared):
            assert label is None, (label, text)
        elif not (isinstance(label, str) and not are_declared):
            assert not is_marker
            if task.class_names:
                assert task.class_names[int(label)] == text
            else:  # all names are numbers
                assert int(label) == float(text)


NUMBERS = (
    st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.sampled_from([math.nan, None, 0.0, -0.0, 1e-40])
)
NUMBER_TABLES = given(labels=column(NUMBERS), has_commas=st.booleans(), **WRITERS)


def check_numbers(folder, labels, has_commas, form, delimiter, encoding):
    cells = [float(x) if x is not None and form == "parquet" else x for x in labels]
    if form == "csv" and has_commas and delimiter != ",":
        cells = ["" if x is None else str(x).replace(".", ",") for x in labels]
    table = written(form, cells, delimiter, encoding)
    source = source_or_error(folder, *table, Regression(name="t"))
    if isinstance(source, str):
        expected = ("no label in any training row", "may have a decimal comma")
        assert any(text in source for text in expected), source
        return
    for label, number in zip(labels_of(source), labels, strict=True):
        if number is None or math.isnan(number):
            assert label is None
        else:
            assert np.float32(label) == np.float32(number)


@FEW
@NAME_TABLES
def test_class_names_are_what_was_written(folder, **table):
    check_names(folder, **table)


@FEW
@NUMBER_TABLES
def test_numbers_are_what_was_written(folder, **table):
    check_numbers(folder, **table)


@pytest.mark.slow
@MANY
@NAME_TABLES
def test_many_class_names_are_what_was_written(folder, **table):
    check_names(folder, **table)


@pytest.mark.slow
@MANY
@NUMBER_TABLES
def test_many_numbers_are_what_was_written(folder, **table):
    check_numbers(folder, **table)


SCALAR_COLUMNS = st.one_of(
    column(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)),
    column(st.floats(-99, 99, width=32).map(lambda x: x + 0.0) | st.sampled_from([1.0, math.nan])),
    column(st.booleans()),
    column(WORDS),
    column(TEXT.filter(lambda text: not set(text) & set("\0\r\ufeff\u200b\u2060"))),
)
FORMAT_TABLES = given(task=TASK, labels=SCALAR_COLUMNS, arguments=ARGUMENTS)


def check_formats(folder, task, labels, arguments):
    """The same cells in three formats are the same labels, or the same rows are refused."""
    assume("encoding" not in arguments and all(map(is_encodable, labels)))
    # A CSV file has the word nan, which may be a class.
    assume("missing" not in arguments or all(label == label for label in labels))
    results = []
    for form in ("csv", "jsonl", "parquet"):
        table = written(form, labels, ",", "utf-8")
        source = source_or_error(folder, *table, task, arguments)
        results.append("refused" if isinstance(source, str) else labels_of(source))
    texts = [str(jax.tree.map(lambda x: np.asarray(x).tolist(), result)) for result in results]
    assert texts == [texts[0]] * 3


def is_encodable(label):
    return not isinstance(label, str) or label.encode("utf-8", "ignore").decode() == label


@FEW
@FORMAT_TABLES
def test_formats_have_the_same_labels(folder, **table):
    check_formats(folder, **table)


@pytest.mark.slow
@MANY
@FORMAT_TABLES
def test_many_formats_have_the_same_labels(folder, **table):
    check_formats(folder, **table)
