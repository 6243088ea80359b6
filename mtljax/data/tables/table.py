"""Tables of labels: CSV, JSON lines and Parquet files, one or several as one table."""

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mtljax.data.layouts import SPLITS, is_hidden, split_name, subfolders
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row, Table
from mtljax.data.tables.parquet import read_parquet
from mtljax.data.tables.text import read_csv, read_jsonl
from mtljax.utils.bounded_reading import check_bytes, stored_bytes
from mtljax.utils.text import first_line, normalized, shortened

__all__ = ["Row", "Table", "find_tables", "normalized", "read_table", "read_tables"]

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Extensions of the files of tables."""
OTHERS = (".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".txt", ".gz", ".zip")
"""Extensions of files that may be tables, but are not read."""
FOLDERS = ("", "data", "default")
"""Subfolders with tables or splits, as in `data/train-00000-of-00002.parquet` of Hugging Face."""


def find_tables(folder: Path, name: str | None) -> dict[Path, str]:
    """Returns the tables of a folder, each with the split that its name declares, "" without one.

    Args:
      folder: Folder, whose subfolder `data` is searched as well.
      name: File name or pattern, such as `data/train-*.parquet`. None: the only table, or all of
        them if their names are those of splits, such as `train.csv` and `val.csv`, or if they are
        in folders of splits, such as `train/labels.csv` and `val/labels.csv`.
    """
    if name is not None:
        files = [folder / name] if (folder / name).is_file() else _matching(folder, name)
        if not files:
            raise ValueError(f"{folder} has no table {name}")
        if name.lower().endswith(".json"):
            raise ValueError(
                f"{folder / name} is no table; a COCO file is read by coco:PATH/{name}"
            )
        return {file: split_of_name(file) if len(files) > 1 else "" for file in files}
    for subfolder in FOLDERS:
        tables = _tables(folder / subfolder)
        if not tables and (of_folders := _tables_of_split_folders(folder / subfolder)):
            return of_folders
        splits = {path: split_of_name(path) for path in tables}
        if len(tables) == 1:
            return dict.fromkeys(tables, "")
        if tables and all(splits.values()) and len({path.suffix.lower() for path in tables}) == 1:
            return splits
        if tables:
            names = ", ".join(path.name for path in tables[:6]) + ", ..." * (len(tables) > 6)
            raise ValueError(f"{folder} has several tables ({names}): select one with table=NAME")
    others = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in OTHERS]
    hint = f"{shortened(others[0])} is not read: save it as CSV" if others else ""
    raise ValueError(
        f"{folder} has no table of labels (a {', '.join(EXTENSIONS)} file); "
        f"{hint or 'without one, use the source class_folders, coco, yolo or voc'}"
    )


def has_tables(folder: Path) -> bool:
    """Returns True if `find_tables` searches among tables of a folder."""
    places = [folder / subfolder for subfolder in FOLDERS]
    return any(_tables(place) or _tables_of_split_folders(place) for place in places)


def _tables(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if not is_hidden(path.name))
    return sorted(path for path in files if path.suffix.lower() in EXTENSIONS)


def _tables_of_split_folders(folder: Path) -> dict[Path, str]:
    """Returns the tables in folders that are named after splits, with these splits."""
    inside = subfolders(folder) if folder.is_dir() else []
    splits = {path: split for path in inside if (split := split_name(path.name))}
    return {table: split for path, split in splits.items() for table in _tables(path)}


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Returns the files in a folder and its subfolders whose relative path matches a pattern."""
    if not any(character in pattern for character in "*?["):
        return []
    parent = folder / Path(pattern).parent
    files = sorted(parent.iterdir()) if parent.is_dir() else []
    return [file for file in files if fnmatch.fnmatch(file.name, Path(pattern).name)]


def split_of_name(path: Path) -> str:
    """Returns the split in a file name such as train-00000-of-00002.parquet, "" if it has none."""
    match = re.fullmatch(r"([a-z]+)([-_.]?\d+([-_.]of[-_.]\d+)?)?", path.stem.lower())
    return SPLITS.get(match[1], "") if match else ""


def read_tables(files: Sequence[Path], encoding: str, notes: NoteCounter) -> Table:
    """Reads several files as one table."""
    tables = [read_table(file, encoding, notes) for file in files]
    if len(tables) == 1:
        return tables[0]
    classes: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for column, names in table.class_names.items():
            if classes.setdefault(column, names) != names:
                raise ValueError(
                    f"{table.path}: column {column!r} has other class names than {files[0].name}"
                )
    return Table(
        path=Path(os.path.commonpath([file.parent for file in files])),
        rows=tuple(row for table in tables for row in table.rows),
        columns=tuple(dict.fromkeys(name for table in tables for name in table.columns)),
        class_names=classes,
        unusable={name: kind for table in tables for name, kind in table.unusable.items()},
        has_decimal_commas=all(table.has_decimal_commas for table in tables),
    )


def read_table(path: Path, encoding: str = "", notes: NoteCounter | None = None) -> Table:
    """Reads all rows of a file.

    Args:
      path: File with an extension of `EXTENSIONS`.
      encoding: Encoding of a text file; "": UTF-8, or that of its byte order mark.
      notes: Counter of what is not used as it is stored.

    Raises:
      ValueError: The table is damaged, empty or of another format or encoding.
    """
    notes, suffix = notes or NoteCounter(), path.suffix.lower()
    if suffix not in EXTENSIONS:
        raise ValueError(f"{path} is not a table; must be a {', '.join(EXTENSIONS)} file")
    try:
        check_bytes(path.stat().st_size, stored_bytes(path))
        if suffix == ".parquet":
            table = read_parquet(path, notes)
        elif suffix in (".jsonl", ".ndjson"):
            table = read_jsonl(path, encoding, notes)
        else:
            table = read_csv(path, encoding, notes)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or first_line(error)}") from None
    if not table.rows:
        raise ValueError(f"{path} is empty: it has no rows")
    if not table.columns and table.rows[0].fault:
        raise ValueError(f"{table.rows[0]}: {table.rows[0].fault}")
    return table
