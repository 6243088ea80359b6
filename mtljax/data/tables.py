"""Readers of label tables: CSV, JSON lines and Parquet."""

import codecs
import csv
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.tasks import Task
from mtljax.utils.bounded_reading import check_bytes, stored_bytes
from mtljax.utils.optional import require


class Row(NamedTuple):
    """Row of a table."""

    number: int
    """Row number as counted by a text editor or a spreadsheet."""
    cells: dict[str, Any]
    """Column -> value; None for an empty cell."""


def find_table(folder: Path, name: str | None) -> Path:
    """Returns the table of that name in a folder, or its only table if `name` is None."""
    if name is not None:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no table {name}")
        return folder / name
    tables = sorted(path for path in folder.iterdir() if path.suffix in _READERS)
    if not tables:
        raise ValueError(f"{folder} has no table of labels (a {_EXTENSIONS} file)")
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise ValueError(f"{folder} has several tables ({names}): select one with table=NAME")
    return tables[0]


def read_table(path: Path) -> list[Row]:
    """Reads all rows; raises ValueError for a table that is damaged, empty or of another format."""
    if path.suffix not in _READERS:
        raise ValueError(f"{path} is not a table; must be a {_EXTENSIONS} file")
    try:
        check_bytes(path.stat().st_size, stored_bytes(path))
        rows = list(_READERS[path.suffix](path))
    except UnicodeError as error:
        raise ValueError(f"{path} is not encoded in UTF-8 or UTF-16: {error}") from None
    except (csv.Error, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not rows:
        raise ValueError(f"{path} is empty: it has no rows")
    return rows


def table_classes(task: Task, mentioned: Iterable[str]) -> tuple[str, ...]:
    """Returns the classes that the cells of a task mention, in natural order.

    None if the task has its own, if all are indices below its number of classes, or if one is a
    fraction, which is no class.
    """
    texts = set(mentioned)
    count = getattr(task, "num_classes", 0)
    are_indices = all(text.isdecimal() and int(text) < count for text in texts)
    has_fraction = any(_FRACTION.fullmatch(text) for text in texts)
    if getattr(task, "class_names", ()) or are_indices or has_fraction:
        return ()
    return tuple(sorted(texts, key=natural_key))


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a sort key by which 9 precedes 10, and img9 precedes img10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def _row(number: int, cells: Mapping[str, Any]) -> Row:
    cells = {n: normalized(cell) if isinstance(cell, str) else cell for n, cell in cells.items()}
    return Row(number, {name: None if cell == "" else cell for name, cell in cells.items()})


def _read_csv(path: Path) -> Iterable[Row]:
    """Reads cells between commas, semicolons or tabs; rows without any content are skipped."""
    with path.open(newline="", encoding=_encoding(path)) as file:
        first = file.readline()
        file.seek(0)
        # Most frequent in the header; a comma if there is none.
        delimiter = max(",;\t", key=_outside_quotes(first).count)
        lines = csv.reader(file, delimiter=delimiter)
        header = [normalized(name) for name in next(lines, [])]
        repeated = {name for name in header if header.count(name) > 1}
        if repeated:
            raise ValueError(f"{path} row 1: two columns have the name {min(repeated)!r}")
        for number, cells in enumerate(lines, 2):
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != len(header):
                counts = f"{len(cells)} cells, but the header has {len(header)}"
                raise ValueError(f"{path} row {number}: {counts}")
            yield _row(number, dict(zip(header, cells, strict=True)))


def _encoding(path: Path) -> str:
    """Returns the encoding of a text file: UTF-16 with a byte order mark, or UTF-8."""
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def normalized(text: str) -> str:
    """Returns a text without outer white space, in Unicode normal form C."""
    return unicodedata.normalize("NFC", text.strip())


def _read_jsonl(path: Path) -> Iterable[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path} row {number}: invalid JSON: {error}") from None
            if not isinstance(cells, dict):
                raise ValueError(f"{path} row {number}: must be a JSON object")
            yield _row(number, cells)


def _read_parquet(path: Path) -> Iterable[Row]:
    pyarrow = require("pyarrow", extra="parquet", purpose=str(path))
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.metadata
            groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
            # A cell becomes a Python object, even if it is stored in a few bits.
            cells = metadata.num_rows * metadata.num_columns
            check_bytes(max(sum(groups), 64 * cells), stored_bytes(path))
            rows = file.read().to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise ValueError(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None
    yield from map(_row, itertools.count(1), rows)


_FRACTION = re.compile(r"[-+]?[0-9]*[.,][0-9]+(e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)
_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
_EXTENSIONS = ", ".join(_READERS)
