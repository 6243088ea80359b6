"""Tables of labels: CSV, JSON lines, Parquet."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.utils.bounded_reading import check_bytes, stored_bytes
from mtljax.utils.optional import require

ENDINGS = (".csv", ".jsonl", ".parquet")


class Row(NamedTuple):
    """One row of a table."""

    number: int
    """As a text editor or a spreadsheet counts it."""
    cells: dict[str, Any]
    """Column -> value; None where it is empty."""


def find_table(folder: Path, name: str | None) -> Path:
    """The table called so in a folder, or the only one there is.

    Raises:
      ValueError: There is none, or several.
    """
    if name is not None:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no table {name}")
        return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
    if not found:
        raise ValueError(f"{folder} has no table of labels (a file ending in {', '.join(ENDINGS)})")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} has several tables ({names}): say which with table=NAME")
    return found[0]


def read_table(path: Path) -> list[Row]:
    """All rows of a table.

    Raises:
      ValueError: It is damaged, of another kind, or empty.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path}: a table must end in {', '.join(ENDINGS)}")
    try:
        check_bytes(path.stat().st_size, stored_bytes(path))
        rows = list(readers[path.suffix](path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error.reason}") from None
    except (csv.Error, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not rows:
        raise ValueError(f"{path} is empty: it has no row")
    return rows


def _csv(path: Path) -> Iterable[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        header = [name.strip() for name in next(lines, [])]
        twice = {name for name in header if header.count(name) > 1}
        if twice:
            raise ValueError(f"{path} row 1: two columns are called {min(twice)!r}")
        for number, cells in enumerate(lines, 2):
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{path} row {number}: {len(cells)} cells, but the header has {len(header)}"
                )
            values = (cell.strip() or None for cell in cells)
            yield Row(number, dict(zip(header, values, strict=True)))


def _jsonl(path: Path) -> Iterable[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path} row {number}: no JSON: {error}") from None
            if not isinstance(cells, dict):
                raise ValueError(f"{path} row {number}: must be a JSON object")
            yield Row(number, {name: None if v == "" else v for name, v in cells.items()})


def _parquet(path: Path) -> Iterable[Row]:
    pyarrow = require("pyarrow", "parquet", str(path))
    parquet = require("pyarrow.parquet", "parquet", str(path))
    try:
        with parquet.ParquetFile(path) as file:
            told = file.metadata
            groups = [told.row_group(i).total_byte_size for i in range(told.num_row_groups)]
            # A cell becomes a Python object, however few bits it takes.
            cells = told.num_rows * told.num_columns
            check_bytes(max(sum(groups), 64 * cells), stored_bytes(path))
            found = file.read().to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise ValueError(f"{path} is no Parquet file: {' '.join(str(error).split())}") from None
    for number, cells in enumerate(found, 1):
        yield Row(number, {name: None if v == "" else v for name, v in cells.items()})
